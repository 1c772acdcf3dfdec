"""The split rule, and the only module that knows it: which recordings train, validate and test.

`tape`: no tape on two sides, stratified by species as far as whole tapes allow. `random`: the
stratified 70/15/15 of the original study, which lets cuts of one tape stand on all sides (a leak).
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from watkins_ml.errors import UserError

SIDES = ("train", "val", "test")
FRACTIONS = np.array([0.70, 0.15, 0.15])
FEWEST_TAPES = np.array([1, 3, 2])
"""A species with so many should be on that side."""
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
                f"the {protocol} split leaves nothing for {name}: {len(annotations)} recordings on "
                f"{annotations['tape'].nunique()} tapes are too few; check --group-regex"
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
    totals = counts.sum(axis=0)
    tapes_per_species = (counts > 0).sum(axis=0)
    sums = np.zeros((3, counts.shape[1]))  # recordings per (side, species) so far
    sums[0] = counts[fixed].sum(axis=0)
    side = np.zeros(len(counts), dtype=int)
    jitter, each = rng.random(len(counts)), np.arange(3)
    order = [tape for tape in np.lexsort((jitter, -counts.sum(axis=1))) if not fixed[tape]]

    def best_side(tape: int) -> tuple[int, float]:
        on_each = np.repeat(sums[None], 3, axis=0)
        on_each[each, each] += counts[tape]
        costs = _cost(on_each, totals, tapes_per_species)
        least = costs.min()
        best = np.flatnonzero(costs <= least + 1e-8 + 1e-5 * least)  # as near as `np.isclose` calls equal
        return int(rng.choice(best)), float(least)

    for tape in order:
        side[tape], cost = best_side(tape)
        sums[side[tape]] += counts[tape]
    cost = _cost(sums, totals, tapes_per_species)
    for _ in range(20):
        before = cost
        for tape in rng.permutation(order):
            sums[side[tape]] -= counts[tape]
            candidate, candidate_cost = best_side(tape)
            if candidate_cost < cost - 1e-9:
                side[tape], cost = candidate, candidate_cost
            sums[side[tape]] += counts[tape]
        if cost == before:
            break
    return cost, side


def _cost(sums: np.ndarray, totals: np.ndarray, tapes: np.ndarray) -> np.ndarray:
    """How far (partial) assignments (..., side, species) are from 70/15/15, overall and within each species."""
    overall = np.abs(sums.sum(axis=-1) / totals.sum() - FRACTIONS).sum(axis=-1)
    shares = sums / totals
    within = np.abs(shares - FRACTIONS[:, None]).sum(axis=-2).mean(axis=-1)
    absent = (sums <= 0) & (tapes >= FEWEST_TAPES[:, None])
    untrained, unvalidated, untested = np.moveaxis(np.count_nonzero(absent, axis=-1) / len(tapes), -1, 0)
    starved = np.maximum(0.5 - shares[..., 0, :], 0).mean(axis=-1)  # most of a rare species must train
    return 10 * overall + within + 4 * untrained + 4 * starved + 2 * untested + unvalidated
