"""Random excerpts: every window of a long recording is trained on, the same ones again from the same seed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some

from tests.support import EXPERIMENTS
from watkins_ml.config import load_config
from watkins_ml.core.errors import UsageError
from watkins_ml.dataset.loading import JoinedRows, Side, Windows, joined
from watkins_ml.transforms.random_excerpt import RandomExcerpt
from watkins_ml.transforms.transform import of_batches, of_windows

ALWAYS = RandomExcerpt(name="random_excerpt")


def numbered(counts: list[int], start: int = 0) -> Side:
    """Recordings by number: the central spectrogram holds the row, window w of a long one the row and w hundredths."""
    rows = torch.arange(start, start + len(counts))
    windows = [row + (1 + window) / 100 for row, n in zip(rows.tolist(), counts, strict=True) if n > 1
               for window in range(n)]  # fmt: skip
    longer = Windows(torch.tensor(counts), torch.tensor(windows).view(-1, 1, 1, 1)) if windows else None
    return Side(pd.DataFrame({"row": rows}), rows.float().view(-1, 1, 1, 1), rows, longer)


def epoch(side: Side, generator: torch.Generator, draw=ALWAYS, chances=None) -> tuple[torch.Tensor, torch.Tensor]:
    batches = list(side.batches(7, generator, chances, draw))
    return tuple(torch.cat([batch[part].flatten() for batch in batches]) for part in (0, 1))


@settings(max_examples=60, deadline=None)
@given(
    counts=some.lists(some.integers(1, 6), min_size=1, max_size=40), seed=some.integers(0, 999), sampled=some.booleans()
)
def test_a_longer_recording_comes_as_one_of_its_windows_and_a_short_one_as_itself(counts, seed, sampled):
    side = numbered(counts)
    chances = torch.ones(len(counts)) if sampled else None
    values, labels = epoch(side, torch.Generator().manual_seed(seed), chances=chances)
    again = epoch(side, torch.Generator().manual_seed(seed), chances=chances)
    assert torch.equal(values, again[0]) and torch.equal(labels, again[1])
    windows = ((values - labels) * 100).round().long()
    assert torch.equal(values.long(), labels), "never a window of another recording"
    count = torch.tensor(counts)[labels]
    assert ((windows >= 1) & (windows <= count) | (count == 1) & (windows == 0)).all()
    if not sampled:
        assert sorted(labels.tolist()) == list(range(len(counts)))


def test_all_windows_are_drawn_alike_and_anew_in_each_epoch():
    side, generator = numbered([1, 4, 16] * 5), torch.Generator().manual_seed(0)
    epochs = [epoch(side, generator) for _ in range(400)]
    seen = torch.cat([values[labels == 2] for values, labels in epochs])
    shares = torch.stack([((seen - 2) * 100).round() == 1 + window for window in range(16)]).float().mean(dim=1)
    assert shares.min() > 0.02 and shares.max() < 0.11, "1 in 16"
    assert len({tuple(values[labels.argsort()].tolist()) for values, labels in epochs}) > 390


def test_a_training_that_goes_on_draws_what_it_would_have_drawn():
    side, generator = numbered([3] * 20), torch.Generator().manual_seed(5)
    epoch(side, generator)
    state = generator.get_state()
    expected, resumed = epoch(side, generator), torch.Generator()
    resumed.set_state(state)
    assert torch.equal(epoch(side, resumed)[0], expected[0])


def test_with_a_probability_the_others_come_as_their_centre():
    side = numbered([5] * 400)
    draw = RandomExcerpt(name="random_excerpt", probability=0.25)
    values, labels = epoch(side, torch.Generator().manual_seed(0), draw)
    assert 0.18 < (values != labels).float().mean() < 0.32


def test_where_no_recording_is_longer_nothing_changes_nor_is_anything_drawn():
    side, one, two = numbered([1] * 30), torch.Generator().manual_seed(2), torch.Generator().manual_seed(2)
    assert all(map(torch.equal, epoch(side, one), epoch(side, two, None)))
    assert torch.equal(one.get_state(), two.get_state())


def test_the_windows_of_joined_sides_stay_those_of_their_recordings():
    sides = [numbered([1, 3, 2]), numbered([1, 1], 3), numbered([4, 1], 5)]
    together, generator = joined(*sides), torch.Generator().manual_seed(0)
    seen: dict[int, set[int]] = {}
    for _ in range(100):
        values, labels = epoch(together, generator)
        for value, label in zip(values.tolist(), labels.tolist(), strict=True):
            seen.setdefault(label, set()).add(round(100 * (value - label)))
    assert seen == {0: {0}, 1: {1, 2, 3}, 2: {1, 2}, 3: {0}, 4: {0}, 5: {1, 2, 3, 4}, 6: {0}}


def test_validation_and_what_is_asked_for_without_a_draw_are_the_centres():
    side = numbered([4] * 10)
    plain = torch.cat([batch.flatten() for batch, _ in side.batches(3, draw=ALWAYS)])
    assert torch.equal(plain, torch.arange(10.0))
    assert torch.equal(epoch(side, torch.Generator().manual_seed(0), None)[0].sort().values, torch.arange(10.0))


def test_several_sources_give_what_one_tensor_gives():
    side = numbered([1, 3, 1, 2, 5])
    split = replace(side, spectrograms=JoinedRows((side.spectrograms[:2], side.spectrograms[2:])))
    one, other = (epoch(each, torch.Generator().manual_seed(1)) for each in (side, split))
    assert all(map(torch.equal, one, other))


def test_it_stands_anywhere_in_the_list_and_changes_no_batch():
    config = load_config(EXPERIMENTS / "baseline.yaml", ["augment=[{name: time_roll}, {name: random_excerpt}]"])
    assert [each.name for each in of_batches(config.augment)] == ["time_roll"]
    assert of_windows(config.augment) == ALWAYS
    assert of_windows(load_config(EXPERIMENTS / "baseline.yaml").augment) is None


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("{name: random_excerpt, probability: 0}", "augment.0.probability must be greater than 0, not 0"),
        ("{name: random_excerp}", "did you mean random_excerpt?"),
        ("{name: random_excerpt, share: 1}", "unknown key augment.0.share"),
    ],
)
def test_bad_entries_are_one_sentence(entry, said):
    with pytest.raises(UsageError) as error:
        load_config(Path(EXPERIMENTS / "baseline.yaml"), [f"augment=[{entry}]"])
    assert said in str(error.value) and "\n" not in str(error.value)
