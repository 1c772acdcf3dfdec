"""Which detection stands for which call: one to one, as many as can be, and among those the best overlaps.

A greedy choice (the surest detection takes the nearest call) can leave a call without its detection, and counting every
overlap as a hit can give a recall above 1 (https://github.com/ropensci/ohun/issues/6). Here it is an assignment.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, maximum_bipartite_matching

from watkins_ml.annotations.labelling import overlapping

Criterion = Literal["centre", "overlap"]
MOST_CELLS = 4_000_000
"""Of the table that the assignment is solved in; above that the number of pairs is still the largest, but the overlaps
among them need not be the best."""


@dataclass(frozen=True)
class MatchRule:
    """Which detection may stand for which call."""

    by: Criterion = "centre"
    """`centre`: the middle of one lies in the other. `overlap`: what they share is at least `iou` of both together."""
    iou: float = 0.3
    """Intersection over union, above 0 up to 1; 0.3 as in the few-shot task of DCASE (Morfi et al. 2021)."""


def match(detections: np.ndarray, calls: np.ndarray, rule: MatchRule) -> np.ndarray:
    """For each detection the number of its call, or -1; int, (detections,). No call is given twice.

    Args:
        detections: (n, 2) seconds, begins and ends both ascending.
        calls: (m, 2) seconds, of the same species.
    """
    found = np.full(len(detections), -1)
    row, call, iou = _candidates(detections, calls, rule)
    if not len(row):
        return found
    chosen = _assigned(row, call, iou, (len(detections), len(calls)))
    found[row[chosen]] = call[chosen]
    return found


def _candidates(
    detections: np.ndarray, calls: np.ndarray, rule: MatchRule
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    row, call, shared = overlapping(detections, calls)
    one, other = detections[row], calls[call]
    iou = shared / ((one[:, 1] - one[:, 0]) + (other[:, 1] - other[:, 0]) - shared)
    if rule.by == "overlap":
        usable = iou >= rule.iou - 1e-9
    else:
        usable = _holds(one, other.mean(axis=1)) | _holds(other, one.mean(axis=1))
    return row[usable], call[usable], iou[usable]


def _holds(spans: np.ndarray, times: np.ndarray) -> np.ndarray:
    return (spans[:, 0] <= times) & (times <= spans[:, 1])


def _assigned(row: np.ndarray, call: np.ndarray, iou: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Which of the candidate pairs are taken.

    Pairs that hang together by a detection or a call are solved by themselves. Most are alone; of those around a
    single detection or call the one of the best overlap is taken.
    """
    alone = (np.bincount(row)[row] == 1) & (np.bincount(call)[call] == 1)
    taken = [np.flatnonzero(alone)]
    for part in _components(np.flatnonzero(~alone), row, call, shape):
        rows, calls = np.unique(row[part]), np.unique(call[part])
        if len(rows) > 1 and len(calls) > 1:
            taken.append(part[_solved(np.searchsorted(rows, row[part]), np.searchsorted(calls, call[part]), iou[part])])
        else:
            taken.append(part[[iou[part].argmax()]])
    return np.concatenate(taken)


def _components(pairs: np.ndarray, row: np.ndarray, call: np.ndarray, shape: tuple[int, int]) -> list[np.ndarray]:
    """The pairs, divided into those that hang together."""
    if not len(pairs):
        return []
    graph = coo_array((np.ones(len(pairs)), (row[pairs], shape[0] + call[pairs])), shape=(sum(shape), sum(shape)))
    _, label = connected_components(graph, directed=False)
    component = label[row[pairs]]
    order = np.argsort(component, kind="stable")
    return np.split(pairs[order], np.flatnonzero(np.diff(component[order])) + 1)


def _solved(row: np.ndarray, call: np.ndarray, iou: np.ndarray) -> np.ndarray:
    """The pairs of one component that are taken: the most, and of those the ones of the largest sum of overlaps."""
    shape = (row.max() + 1, call.max() + 1)
    at = np.full(shape, -1) if shape[0] * shape[1] <= MOST_CELLS else None
    if at is None:
        pairs = coo_array((np.ones(len(row)), (row, call)), shape=shape).tocsr()
        of_row = maximum_bipartite_matching(pairs, perm_type="column")
        return np.flatnonzero(of_row[row] == call)
    at[row, call] = np.arange(len(row))
    weights = np.zeros(shape)
    weights[row, call] = 1 + iou / (min(shape) + 1)  # all overlaps together weigh less than one more pair
    pairs = at[linear_sum_assignment(weights, maximize=True)]
    return pairs[pairs >= 0]
