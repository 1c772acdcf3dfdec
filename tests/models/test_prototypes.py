"""Prototypes of tapes: what the projection leaves out, which species a direction is given to, and what bounds it."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from watkins_ml.models import prototypes
from watkins_ml.models.prototypes import HeadSection, PrototypeHead, fitted_rows, tape_deviations, whitened_axes

SPECIES, TAPES, CUTS, INPUTS = 4, 3, 5, 40


COLOURS = torch.randn(3, INPUTS, generator=torch.Generator().manual_seed(9))
"""Directions along which tapes differ, each through all numbers."""


def archive(seed: int = 0):
    """Vectors whose species is in the first numbers, hidden under what the tape adds along a few directions."""
    generator = torch.Generator().manual_seed(seed)
    rows = [(species, f"{species}-{tape}") for species in range(SPECIES) for tape in range(TAPES) for _ in range(CUTS)]
    groups = pd.DataFrame(rows, columns=["species", "tape"])
    vectors = 0.3 * torch.randn(len(rows), INPUTS, generator=generator)
    vectors[torch.arange(len(rows)), torch.tensor(groups["species"].to_numpy())] += 1
    coloured = {tape: torch.randn(3, generator=generator) @ COLOURS for tape in groups["tape"].unique()}
    vectors += torch.stack([coloured[tape] for tape in groups["tape"]])
    return vectors, groups


def head_of(vectors: torch.Tensor, groups: pd.DataFrame, **section: float) -> PrototypeHead:
    head = PrototypeHead(INPUTS, SPECIES, HeadSection(name="any", dimensions=20, **section))
    head.fit(vectors.split(7), torch.tensor(groups["species"].to_numpy()), list(groups["tape"]))
    return head


def accuracy(head: PrototypeHead, seed: int) -> float:
    vectors, groups = archive(seed)
    with torch.no_grad():
        named = head(head.units(vectors)).argmax(dim=1)
    return (named.numpy() == groups["species"]).mean()


def test_new_tapes_are_named_better_when_what_differs_between_tapes_is_made_small():
    known = archive()
    plain, whitened = (head_of(*known, whitening=strength) for strength in (0, 30))
    assert accuracy(whitened, seed=1) > accuracy(plain, seed=1) + 0.1


def test_the_logit_is_the_log_of_the_mean_over_tapes():
    vectors, groups = archive()
    head = head_of(vectors, groups)
    units = head.units(vectors)
    assert torch.allclose(units.norm(dim=1), torch.ones(len(units)), atol=1e-5)
    means = [
        units[rows.tolist()].mean(dim=0) for rows in groups[groups["species"] == 2].groupby("tape").groups.values()
    ]
    cosines = torch.stack([torch.cosine_similarity(units, mean[None], dim=1) for mean in means], dim=1)
    expected = (cosines / prototypes.COSINE_TEMPERATURE).exp().mean(dim=1).log()
    torch.testing.assert_close(head(units)[:, 2], expected, atol=1e-4, rtol=1e-4)


def test_a_species_without_recordings_is_as_far_away_as_can_be_and_disturbs_no_gradient():
    vectors, groups = archive()
    some = (groups["species"] != 3).to_numpy()
    head = head_of(vectors[torch.from_numpy(some)], groups[some])
    logits = head(head.units(vectors))
    assert (logits[:, 3] == -1 / prototypes.COSINE_TEMPERATURE).all() and (logits[:, :3] > logits[:, 3:]).all()
    logits.sum().backward()
    assert torch.isfinite(head.prototypes.grad).all() and (head.prototypes.grad[3] == 0).all()


def test_more_tapes_than_prototypes_share_them(monkeypatch):
    monkeypatch.setattr(prototypes, "PER_SPECIES", 2)
    head = head_of(*archive())
    assert head.exists.sum(dim=1).tolist() == [2.0] * SPECIES and accuracy(head, seed=0) > 0.5


@pytest.mark.parametrize("more_inputs", [False, True])
def test_axes_are_principal_whichever_gram_matrix_is_smaller(more_inputs):
    vectors = torch.randn(30, 50 if more_inputs else 12, dtype=torch.float64)
    vectors = vectors - vectors.mean(dim=0)
    groups = pd.DataFrame({"species": 0, "tape": "one"}, index=range(30))  # one tape: there is nothing to leave out
    axes = whitened_axes(vectors, groups, 5, whitening=4.0)
    torch.testing.assert_close(axes @ axes.T, torch.eye(5, dtype=torch.float64))
    found = (vectors @ axes.T).square().sum(dim=0).flip(0)
    torch.testing.assert_close(found, torch.linalg.svdvals(vectors)[:5].square())


def test_fewer_recordings_than_dimensions_and_constant_numbers_are_no_matter():
    vectors, groups = archive()
    vectors[:, 5] = 7.0
    few = groups.groupby("tape").head(1).index
    head = head_of(vectors[few.to_numpy()], groups.loc[few])
    assert torch.isfinite(head(head.units(vectors))).all() and (head.projection[:, 5] == 0).all()


def test_of_many_recordings_each_tape_gives_as_many_as_there_is_room_for(monkeypatch):
    monkeypatch.setattr(prototypes, "MOST_FITTED", 12)
    groups = pd.DataFrame({"species": 0, "tape": ["large"] * 100 + ["small"] * 3})
    rows = fitted_rows(groups)
    assert list(rows) == sorted(rows) and groups["tape"].iloc[rows].value_counts().to_dict() == {"large": 9, "small": 3}


def test_deviations_of_tapes_are_about_their_own_species():
    vectors = torch.tensor([[1.0, 0], [3, 0], [10, 1], [10, 5], [50, 0]])
    groups = pd.DataFrame({"species": [0, 0, 1, 1, 2], "tape": list("abcde")})
    found = tape_deviations(vectors, groups) / 2**0.5
    torch.testing.assert_close(found, torch.tensor([[-1.0, 0], [1, 0], [0, -2], [0, 2]]))
