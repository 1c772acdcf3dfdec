"""The split rule, and the only module that knows it: which recordings train, validate and test.

`tape`: no tape on two sides, stratified by species as far as whole tapes allow. `random`: the
stratified 70/15/15 of the original study, which lets cuts of one tape stand on all sides (a leak).
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from watkins_ml.core.errors import UserError
from watkins_ml.core.wording import plural

SIDES = ("train", "val", "test")
FRACTIONS = (0.70, 0.15, 0.15)
FEWEST_TAPES = {"val": 3, "test": 2}
"""A species with so many should be on that side; every species should train."""
LEAKY = {"random": "leaky reference", "tape": ""}
"""What numbers of a protocol are stamped with."""


def leak_stamp(protocol: str) -> dict[str, str]:
    """`leaky_reference` with a sentence, to be kept beside the numbers of a protocol that leaks; else nothing."""
    if not LEAKY.get(protocol):
        return {}
    return {
        "leaky_reference": f"Leaky reference: a {protocol} split lets cuts of one tape train and test, so these scores "
        "also reward recognising the tape. A tape split of the same recordings shows what is known of the species."
    }


def split(annotations: pd.DataFrame, protocol: str, seed: int) -> pd.Series:
    """Assign each recording a side.

    Args:
        annotations: one row a recording, with columns `species` and `tape`.
        protocol: `tape` or `random`.

    Returns:
        `train`, `val` or `test` for each row, on the same index.

    Raises:
        UserError: the recordings cannot be split so that any species is tested.
    """
    side = _by_tape(annotations, seed) if protocol == "tape" else _random(annotations, seed)
    if protocol == "tape":
        assert_no_tape_crosses(annotations["tape"], side)
    for name in SIDES:
        if not (side == name).any():
            raise UserError(
                f"the {protocol} split leaves nothing for {name}: {plural(len(annotations), 'recording')} on "
                f"{plural(annotations['tape'].nunique(), 'tape')} are too few; check --group-regex (--group-by)"
            )
    return side


def assert_no_tape_crosses(tapes: pd.Series, side: pd.Series) -> None:
    """Refuse a split in which a tape stands on two sides; called again before every training."""
    sides_of_tape = side.groupby(tapes.to_numpy()).nunique()
    crossing = list(sides_of_tape.index[sides_of_tape > 1])
    if crossing:
        raise UserError(f"tape {crossing[0]} stands on two sides of the split; run `watkins prepare` again")


def untested_species(annotations: pd.DataFrame, side: pd.Series) -> dict[str, str]:
    """Species that this split can only train on, each with the reason."""
    tapes = annotations.groupby("species")["tape"].nunique()
    tested = set(annotations.loc[side == "test", "species"])
    return {
        str(species): "one tape only"
        if count == 1
        else f"its {count} tapes cannot be divided without unbalancing other species"
        for species, count in tapes.items()
        if species not in tested
    }


def _random(annotations: pd.DataFrame, seed: int) -> pd.Series:
    from sklearn.model_selection import train_test_split  # takes a second and 80 MiB, also from who does not split

    rows, species = np.arange(len(annotations)), annotations["species"].to_numpy()
    try:
        train, rest = train_test_split(rows, test_size=0.30, stratify=species, random_state=seed)
        val, test = train_test_split(rest, test_size=0.50, stratify=species[rest], random_state=seed)
    except ValueError as error:
        raise UserError(f"the stratified random split needs more recordings in each species: {error}") from None
    side = np.empty(len(rows), dtype=object)
    side[train], side[val], side[test] = SIDES
    return pd.Series(side, index=annotations.index, name="side")


def _by_tape(annotations: pd.DataFrame, seed: int) -> pd.Series:
    """Best of a few local searches from random starts; every step moves one whole tape."""
    counts = pd.crosstab(annotations["tape"], annotations["species"])
    tapes_per_species = (counts > 0).sum()
    if (tapes_per_species < 2).all():
        raise UserError(
            "every species has a single tape, so nothing could be tested; name the tape of a file "
            "with --group-regex (for example '^(\\d+_[A-Z]+_\\d+)_')"
        )
    single = (counts.to_numpy() > 0) & (tapes_per_species == 1).to_numpy()
    fixed = single.any(axis=1)  # the only tape of a species must train
    rng = np.random.default_rng(seed)
    searches = [_search(counts.to_numpy(), fixed, rng) for _ in range(3)]
    _, assignment = min(searches, key=lambda found: found[0])
    for species in np.flatnonzero(counts.to_numpy()[assignment == 0].sum(axis=0) == 0):  # in a very small table
        assignment[counts.to_numpy()[:, species].argmax()] = 0
    chosen = pd.Series(np.array(SIDES, dtype=object)[assignment], index=counts.index)
    return annotations["tape"].map(chosen).rename("side")


def _search(counts: np.ndarray, fixed: np.ndarray, rng: np.random.Generator) -> tuple[float, np.ndarray]:
    """Greedy start (large tapes first), then single-tape moves until none improves.

    Args:
        counts: recordings per (tape, species). fixed: tapes that stay in train.

    Returns:
        cost and the side index of each tape.
    """
    placed, side = _Placed(counts), np.zeros(len(counts), dtype=int)
    for tape in np.flatnonzero(fixed).tolist():
        placed.put(tape, 0)
    jitter = rng.random(len(counts))
    order = [tape for tape in np.lexsort((jitter, -counts.sum(axis=1))) if not fixed[tape]]

    def best_side(tape: int) -> tuple[int, float]:
        costs = [placed.cost_with(tape, each) for each in range(3)]
        least = min(costs)
        best = [each for each in range(3) if costs[each] <= least + 1e-8 + 1e-5 * least]  # as `np.isclose` calls equal
        return best[rng.integers(len(best))], least

    for tape in order:
        side[tape], _ = best_side(tape)
        placed.put(tape, side[tape])
    cost = placed.cost()
    for _ in range(20):
        before = cost
        for tape in rng.permutation(order):
            placed.take(tape, side[tape])
            candidate, candidate_cost = best_side(tape)
            if candidate_cost < cost - 1e-9:
                side[tape], cost = candidate, candidate_cost
            placed.put(tape, side[tape])
        if cost == before:
            break
    return cost, side


class _Placed:
    """How many recordings lie on each side so far, and how far that is from 70/15/15, overall and within each species.

    A tape holds few species, mostly one, so plain numbers are many times faster here than arrays.
    """

    def __init__(self, counts: np.ndarray):
        self.tapes = [{int(species): int(tape[species]) for species in np.flatnonzero(tape)} for tape in counts]
        self.tapes_of, self.totals = (counts > 0).sum(axis=0).tolist(), counts.sum(axis=0).tolist()
        self.total, self.sides = sum(self.totals), [0, 0, 0]
        self.sums = [[0, 0, 0] for _ in self.totals]
        self.costs = [self._cost_within(species, sums) for species, sums in enumerate(self.sums)]

    def put(self, tape: int, side: int, sign: int = 1) -> None:
        for species, recordings in self.tapes[tape].items():
            self.sides[side] += sign * recordings
            self.sums[species][side] += sign * recordings
            self.costs[species] = self._cost_within(species, self.sums[species])

    def take(self, tape: int, side: int) -> None:
        self.put(tape, side, sign=-1)

    def cost(self) -> float:
        return self._cost_of(self.sides, self.costs)

    def cost_with(self, tape: int, side: int) -> float:
        """The cost if this tape were put on that side too."""
        sides, costs = self.sides.copy(), self.costs.copy()
        for species, recordings in self.tapes[tape].items():
            sums = self.sums[species].copy()
            sums[side] += recordings
            sides[side] += recordings
            costs[species] = self._cost_within(species, sums)
        return self._cost_of(sides, costs)

    def _cost_of(self, sides: list[int], costs: list[float]) -> float:
        return 10 * _distance(sides, self.total) + sum(costs) / len(costs)

    def _cost_within(self, species: int, sums: list[int]) -> float:
        (train, val, test), tapes, total = sums, self.tapes_of[species], self.totals[species]
        cost = _distance(sums, total) + 4 * max(0.5 - train / total, 0.0)  # most of a rare species must train
        if not train:
            cost += 4
        if not val and tapes >= FEWEST_TAPES["val"]:
            cost += 1
        if not test and tapes >= FEWEST_TAPES["test"]:
            cost += 2
        return cost


def _distance(sums: list[int], total: int) -> float:
    """How far the shares of the three sides are from 70/15/15."""
    return sum([abs(part / total - wanted) for part, wanted in zip(sums, FRACTIONS, strict=True)])
