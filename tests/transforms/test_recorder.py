"""Transforms against the recorder's colour: each changes what a recorder changes, and leaves what an animal does."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from watkins_ml.transforms.recorder import standardised
from watkins_ml.transforms.registry import all_transforms
from watkins_ml.transforms.transform import Batch


def changed(spectrograms: torch.Tensor, name: str, seed: int = 0, **keys: float) -> torch.Tensor:
    torch.manual_seed(seed)
    labels = torch.arange(len(spectrograms))
    transform = all_transforms()[name].model_validate({"name": name, **keys})
    result = transform(Batch(spectrograms, labels, len(labels)), torch.Generator().manual_seed(seed))
    assert torch.equal(result.labels, labels)
    assert result.spectrograms.shape == spectrograms.shape and result.spectrograms.isfinite().all()
    return result.spectrograms


@pytest.fixture(scope="module")
def spectrograms() -> torch.Tensor:
    """Noise, louder below, as the frontend leaves it: (40, 1, 64, 50)."""
    noise = torch.randn(40, 1, 64, 50, generator=torch.Generator().manual_seed(0))
    return standardised(noise - torch.arange(64)[:, None] / 32)


def normalised_bands(spectrograms: torch.Tensor) -> torch.Tensor:
    return (spectrograms - spectrograms.mean(dim=-1, keepdim=True)) / spectrograms.std(dim=-1, keepdim=True)


def test_a_filter_amplifies_bands_and_changes_nothing_in_time(spectrograms):
    filtered = changed(spectrograms, "filter_augment", gain=1.0)
    torch.testing.assert_close(normalised_bands(filtered), normalised_bands(spectrograms), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(filtered, standardised(filtered), atol=1e-4, rtol=1e-4)
    scale = filtered.std(dim=-1, keepdim=True) / spectrograms.std(dim=-1, keepdim=True)
    curves = (filtered / scale - spectrograms)[:, 0].mean(dim=-1)
    curves = curves - curves.mean(dim=-1, keepdim=True)
    bends = curves.diff(n=2, dim=-1).abs() > 2e-3  # one edge between two bands bends two second differences
    assert 0 < bends.sum(dim=-1).float().mean() <= 2 * 5 and bends.sum(dim=-1).max() <= 2 * 5
    assert 0.2 < curves.abs().amax(dim=-1).mean() < 2.0


@pytest.mark.parametrize("most", [2, 3, 6, 100])
def test_any_number_of_filter_bands_is_possible(spectrograms, most):
    assert not torch.equal(changed(spectrograms, "filter_augment", most_bands=most), spectrograms)


def test_a_lower_bandwidth_leaves_nothing_above_a_frequency_and_all_below(spectrograms):
    narrow = changed(spectrograms, "bandwidth", lowest=0.25, probability=1)
    empty = (narrow == narrow.amin(dim=(-2, -1), keepdim=True)).all(dim=-1)[:, 0]
    highest = 64 - empty.sum(dim=-1)
    assert torch.equal(empty, torch.arange(64) >= highest[:, None]), "the empty bands are the highest"
    assert 16 <= highest.min() < 24 and highest.max() > 56
    for before, after, top in zip(spectrograms[:, 0], narrow[:, 0], (highest - 3).tolist(), strict=True):
        torch.testing.assert_close(
            standardised(after[:top][None]), standardised(before[:top][None]), atol=1e-3, rtol=1e-3
        )


def test_style_is_mixed_between_recordings_and_the_course_of_each_band_stays(spectrograms):
    louder = spectrograms + torch.arange(40)[:, None, None, None]
    mixed = changed(louder, "freq_mixstyle", alpha=0.5, probability=1)
    torch.testing.assert_close(normalised_bands(mixed), normalised_bands(louder), atol=1e-2, rtol=1e-2)
    means = mixed.mean(dim=-1)[:, 0]
    assert means.min() > -4 and means.max() < 43 and (means - louder.mean(dim=-1)[:, 0]).abs().max() > 5


def test_the_background_is_what_another_recording_has_in_its_quiet_frames():
    """Each recording has a call, and when it is over the hum of a place of its own."""
    recordings = torch.full((4, 1, 32, 40), -3.0)
    for number in range(4):
        recordings[number, 0, 20 + number, :20] = 6.0  # the call
        recordings[number, 0, 2 * number, 20:] = 1.0  # the hum
    recordings = standardised(recordings)
    noisy = changed(recordings, "background", lowest=0.0, highest=0.0, probability=1)
    for number in range(4):
        rise = (noisy - recordings)[number, 0].mean(dim=-1)
        others = [2 * other for other in range(4) if other != number]
        assert rise[others].max() > rise.median() + 0.3, "the hum of another place"
        calls = [20 + other for other in range(4) if other != number]
        assert rise[calls].max() < rise.median() + 0.1, "no call of another recording"
        assert noisy[number, 0].mean(dim=-1).argmax() == 20 + number, "its own call"


def test_noise_far_below_a_recording_changes_nothing(spectrograms):
    quiet = changed(spectrograms, "background", lowest=-10, highest=-10, probability=1)
    torch.testing.assert_close(quiet, spectrograms, atol=1e-2, rtol=1e-2)


def test_noise_that_is_at_least_louder_than_at_most_is_refused():
    with pytest.raises(ValidationError, match=r"at least lowest \(1\.0\)"):
        all_transforms()["background"].model_validate({"name": "background", "lowest": 1, "highest": -1})
    with pytest.raises(ValidationError, match=r"at least lowest \(5\.0\)"):
        all_transforms()["background"].model_validate({"name": "background", "lowest": 5})


@pytest.mark.parametrize("name", ["bandwidth", "background", "freq_mixstyle", "speed", "ocean_noise"])
def test_a_probability_is_that_of_each_recording(name):
    many = torch.randn(400, 1, 16, 8, generator=torch.Generator().manual_seed(2))
    result = changed(many, name, probability=0.3)
    untouched = (result == many).flatten(1).all(dim=1)
    assert 0.6 < untouched.float().mean() < 0.8
