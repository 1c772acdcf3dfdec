"""What each transform does to a batch, and that a list of them is applied in its order."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some

from watkins_ml.transforms.registry import all_transforms
from watkins_ml.transforms.transform import Batch, apply

SPECIES = 3
ENTRIES = [
    {"name": "time_roll"},
    {"name": "freq_mask", "width": 5},
    {"name": "time_mask", "width": 5, "count": 1},
    {"name": "mixup", "alpha": 0.4},
    {"name": "filter_augment"},
    {"name": "bandwidth"},
    {"name": "background"},
    {"name": "freq_mixstyle"},
    {"name": "speed"},
    {"name": "ocean_noise"},
]


def transforms(*entries: dict) -> list:
    return [all_transforms()[entry["name"]].model_validate(entry) for entry in entries]


def changed(batch: Batch, *entries: dict, seed: int = 0) -> Batch:
    torch.manual_seed(seed)
    return apply(transforms(*entries), batch, torch.Generator().manual_seed(seed))


def equal(first: Batch, second: Batch) -> bool:
    return all(torch.equal(one, other) for one, other in zip(first[:2], second[:2], strict=True))


@pytest.fixture(scope="module")
def batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    return Batch(torch.rand(200, 1, 32, 24, generator=generator) + 1, torch.arange(200) % SPECIES, SPECIES)


def test_an_empty_list_changes_nothing(batch):
    assert changed(batch) is batch


def test_rolling_shifts_each_spectrogram_by_frames_of_its_own(batch):
    rolled = changed(batch, {"name": "time_roll"})
    shifts = set()
    for before, after in zip(batch.spectrograms, rolled.spectrograms, strict=True):
        (shift,) = [shift for shift in range(24) if torch.equal(before.roll(shift, -1), after)]
        shifts.add(shift)
    assert len(shifts) > 12
    assert torch.equal(rolled.labels, batch.labels)


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize(("name", "axis"), [("freq_mask", 1), ("time_mask", 2)])
def test_masks_blank_whole_bands_or_stretches_up_to_a_width(batch, name, axis, count):
    masked = changed(batch, {"name": name, "width": 6, "count": count})
    assert torch.equal(masked.labels, batch.labels)
    blank = (masked.spectrograms[:, 0] == 0).transpose(axis, -1)  # (recordings, other axis, masked axis)
    assert torch.equal(blank.all(dim=1), blank.any(dim=1)), "all of a band or nothing of it"
    widths = blank[:, 0].sum(dim=1)
    assert 5 * (count - 1) < widths.max() <= 6 * count and widths.float().mean() > count
    untouched = masked.spectrograms != 0
    assert torch.equal(masked.spectrograms[untouched], batch.spectrograms[untouched])


def test_a_mask_wider_than_the_spectrogram_is_as_wide_as_it(batch):
    wide, whole = (changed(batch, {"name": "time_mask", "width": width}) for width in (4000, 24))
    assert equal(wide, whole)


def test_mixup_mixes_pairs_and_gives_their_shares(batch):
    spectrograms, shares, *_ = changed(batch, {"name": "mixup", "alpha": 0.4})
    assert shares.shape == (200, SPECIES)
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(200))
    part = float(shares[0, batch.labels[0]])  # the neighbour in the batch is of another species
    torch.testing.assert_close(spectrograms, part * batch.spectrograms + (1 - part) * batch.spectrograms.roll(1, 0))


def test_what_is_mixed_can_be_mixed_again(batch):
    mixed = changed(batch, {"name": "mixup", "alpha": 0.4}, {"name": "mixup", "alpha": 0.4})
    torch.testing.assert_close(mixed.labels.sum(dim=1), torch.ones(200))


@given(entries=some.lists(some.sampled_from(ENTRIES), max_size=5), seed=some.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_the_order_of_the_list_is_the_order_of_application_and_a_seed_gives_the_same(entries, seed):
    batch = Batch(torch.rand(8, 1, 32, 24, generator=torch.Generator().manual_seed(1)), torch.arange(8) % 3, SPECIES)
    together = changed(batch, *entries, seed=seed)
    assert equal(together, changed(batch, *entries, seed=seed))
    torch.manual_seed(seed)
    one_by_one, order = batch, torch.Generator().manual_seed(seed)
    for transform in transforms(*entries):
        one_by_one = transform(one_by_one, order)
    assert equal(together, one_by_one)


def test_another_order_gives_another_result(batch):
    """A mask that is mixed with another recording is no longer 0."""
    results = [changed(batch, *order).spectrograms for order in permutations(ENTRIES[1:4])]
    assert len({int((result == 0).sum()) for result in results}) > 1


def test_every_transform_says_whether_it_is_random(batch):
    for entry in ENTRIES:
        (transform,) = transforms(entry)
        one, other = (changed(batch, entry, seed=seed) for seed in (1, 2))
        assert transform.is_random != equal(one, other), entry
