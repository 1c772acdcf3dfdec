"""What a network takes for unknown."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import normalize

from watkins_ml.audio.frontend import Frontend
from watkins_ml.core.errors import UserError
from watkins_ml.models.bundle import load_bundle, save_bundle, save_novelty
from watkins_ml.models.novelty import KEPT, Novelty, distance, fit_novelty, noise_tensors, remembered_rows
from watkins_ml.models.registry import build_model


def units(*angles: float) -> torch.Tensor:
    """Unit vectors in the plane, by their angles in degrees."""
    radians = torch.deg2rad(torch.tensor(angles))
    return torch.stack([radians.cos(), radians.sin()], dim=1)


def test_distance_is_that_to_the_nearest_whatever_the_length():
    found = distance(7 * units(10, 80, 181), units(0, 90))
    expected = 1 - torch.deg2rad(torch.tensor([10.0, 10.0, 91.0])).cos()
    torch.testing.assert_close(found, expected)


def test_the_limit_is_one_and_noise_counts_where_it_is_nearer():
    limit = 1 - torch.deg2rad(torch.tensor(20.0)).cos()
    novelty = Novelty(units(0), units(30), limit)
    values = novelty(units(0, -20, -40, 10, 15, 25))
    assert values[0] < 1e-3 and values[1] == pytest.approx(1, abs=1e-4) and values[2] > 3
    assert values[3] < 1 and values[4] == pytest.approx(1, abs=1e-4) and values[5] > 1


def test_a_network_tells_noise_and_keeps_what_it_was_shown(recipe, archive):
    torch.manual_seed(0)
    network, frontend = build_model(recipe("baseline").model, species=3), Frontend()
    cuts = [frontend.file_windows(path) for path in sorted(archive.rglob("*.wav"))]
    known, validation = cuts[::2], cuts[1::2]
    novelty = fit_novelty(network, noise_tensors(frontend), iter(known), iter(validation))
    assert len(novelty.known) == sum(map(len, known)) and not novelty.known.requires_grad
    with torch.inference_mode():
        shown, others, white = (
            novelty(network.eval().embed(torch.cat(each)))
            for each in (known, validation, [frontend(noise, 16_000)[None] for noise in white_noises()])
        )
    assert (shown < 0.1).all() and (white > 1).all()
    distances = distance(network.embed(torch.cat(validation)), novelty.known)
    assert (distances <= novelty.limit).float().mean() == pytest.approx(KEPT, abs=1 / len(others))


def white_noises() -> np.ndarray:
    return np.random.default_rng(5).normal(0, 0.01, (8, 64_000)).astype(np.float32)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=60), st.integers(1, 70), st.integers(0, 3))
def test_rare_species_are_remembered_whole_and_others_by_their_share(labels, most, seed):
    labels = torch.tensor(labels)
    rows = remembered_rows(labels, seed, most)
    assert rows.tolist() == sorted(set(rows.tolist())) and rows.max() < len(labels)
    assert torch.equal(rows, remembered_rows(labels, seed, most))
    species, counts = labels.unique(return_counts=True)
    assert len(rows) == len(labels) if len(labels) <= most else len(rows) <= max(most, len(species))
    for label, count in zip(species, counts, strict=True):
        kept = (labels[rows] == label).sum()
        assert kept == count or kept >= max(1, most // len(species))


@pytest.fixture
def folder(recipe, tmp_path):
    """A bundle whose network knows two sounds."""
    config = recipe("baseline").model
    network = build_model(config, species=2)
    save_bundle(tmp_path / "model", network, config, Frontend().settings, ["a", "b"], {})
    vectors = normalize(torch.eye(128)[:4] + 0.1, dim=1).half()
    save_novelty(tmp_path / "model", Novelty(vectors[:2], vectors[2:], torch.tensor(0.25)))
    return tmp_path / "model"


def test_novelty_travels_with_the_model_and_is_part_of_its_digest(folder):
    classifier = load_bundle(folder)
    cuts = [torch.randn(n, 1, 128, 400, generator=torch.Generator().manual_seed(n)) for n in (1, 3)]
    answers = classifier.predict(cuts)
    singly = [classifier.predict([window[None]]).novelty[0] for cut in cuts for window in cut]
    np.testing.assert_allclose(answers.novelty, [singly[0], np.mean(singly[1:])], rtol=1e-4)
    assert classifier.predict([]).novelty.shape == (0,)
    (folder / "novelty.pt").unlink()
    earlier = load_bundle(folder)
    assert earlier.digest() != classifier.digest()
    assert earlier.predict(cuts).novelty.tolist() == [0, 0]
    np.testing.assert_array_equal(earlier.probabilities(cuts), answers.probabilities)


@pytest.mark.parametrize("damage", ["torn", "of another network", "no limit"])
def test_a_damaged_novelty_is_named(folder, damage):
    file = folder / "novelty.pt"
    if damage == "torn":
        file.write_bytes(file.read_bytes()[:300])
    else:
        size, limit = (64, 0.1) if damage == "of another network" else (128, float("nan"))
        save_novelty(folder, Novelty(torch.ones(2, size), torch.ones(2, size), torch.tensor(limit)))
    with pytest.raises(UserError, match=r"damaged model, novelty\.pt does not fit"):
        load_bundle(folder)
