import pytest
import torch

from watkins_ml.config import AugmentConfig
from watkins_ml.training.augment import Augment


def augment(**settings) -> Augment:
    return Augment(AugmentConfig(time_roll=False).model_copy(update=settings), 3, torch.Generator().manual_seed(0))


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.rand(200, 1, 32, 24) + 1, torch.arange(200) % 3


def test_nothing_asked_for_changes_nothing(batch):
    spectrograms, labels = augment()(*batch)
    assert torch.equal(spectrograms, batch[0]) and torch.equal(labels, batch[1])
    assert not AugmentConfig(time_roll=False).is_on


@pytest.mark.parametrize(("name", "axis"), [("freq_mask", 1), ("time_mask", 2)])
def test_masks_blank_whole_bands_or_stretches_up_to_a_width(batch, name, axis):
    spectrograms, labels = augment(**{name: 6})(*batch)
    assert torch.equal(labels, batch[1])
    blank = (spectrograms[:, 0] == 0).transpose(axis, -1)  # (recordings, other axis, masked axis)
    assert torch.equal(blank.all(dim=1), blank.any(dim=1)), "all of a band or nothing of it"
    widths = blank[:, 0].sum(dim=1)
    assert widths.max() <= 2 * 6 and widths.float().mean() > 2 and len(widths.unique()) > 5
    untouched = spectrograms != 0
    assert torch.equal(spectrograms[untouched], batch[0][untouched])


def test_mixup_mixes_pairs_and_says_in_which_proportion(batch):
    spectrograms, shares = augment(mixup=0.4)(*batch)
    assert shares.shape == (200, 3)
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(200))
    part = float(shares[0, batch[1][0]])  # the neighbour in the batch is of another species
    torch.testing.assert_close(spectrograms, part * batch[0] + (1 - part) * batch[0].roll(1, 0))


def test_the_same_state_gives_the_same_changes(batch):
    torch.manual_seed(3)
    first = augment(time_roll=True, freq_mask=5, time_mask=5, mixup=0.2)(*batch)
    torch.manual_seed(3)
    second = augment(time_roll=True, freq_mask=5, time_mask=5, mixup=0.2)(*batch)
    assert all(torch.equal(*pair) for pair in zip(first, second, strict=True))
