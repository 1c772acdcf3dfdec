"""Windows of long recordings as rows of a data set: which hold one species, which none, why others are left out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from watkins_ml.annotations.collect import Annotations, spans_heard
from watkins_ml.annotations.labelling import Thresholds, WindowLabels, label_windows
from watkins_ml.annotations.mapping import BACKGROUND
from watkins_ml.annotations.recordings import LongRecording
from watkins_ml.audio.stream import MIXED
from watkins_ml.audio.stretches import window_grid
from watkins_ml.dataset.targets import encode, joined_names

LEAST_STEP_S = 0.002
"""Windows begin no closer than that, for their names have milliseconds; so little of an end may be in none."""
ROW = ["recording", "channel", "start", "start_s", "end_s", "species", "cut_id", "path"]
"""Columns of a window: its recording (path), channel (0: all mixed), first sample, seconds, label, and its names; and
`targets`, see `targets.encode`, where it may hold any number of species."""


@dataclass(frozen=True)
class WindowRule:
    """How recordings become windows, and windows rows."""

    overlap: float = 0.5
    """Share of a window that the next one repeats, 0 to below 1."""
    thresholds: Thresholds = field(default_factory=Thresholds)
    background_ratio: float = 1.0
    """At most so many windows without a call as there are with one."""
    each_channel: bool = False
    """Every channel has windows of its own, with the calls that are annotated in it; else they are mixed."""


@dataclass(frozen=True)
class WindowsOf:
    """The windows of one recording."""

    rows: pd.DataFrame
    """ROW of those that have one species, or BACKGROUND."""
    rejected: pd.DataFrame
    """path, species and reason of those that hold several species or a part of a call; with targets, of those of which
    nothing is known for that reason."""
    unreviewed: int
    """How many have no call, but nobody has listened to all of them."""


def windows_of(
    recording: LongRecording,
    annotations: Annotations,
    seconds: float,
    rule: WindowRule,
    classes: Sequence[str] | None = None,
) -> WindowsOf:
    """Label the windows of one recording: with one species each, or with the targets of `classes`."""
    calls, uncertain, reviewed = (
        table[table["recording"] == recording.path]
        for table in (annotations.calls, annotations.uncertain, annotations.reviewed)
    )
    channels = range(1, recording.channels + 1) if rule.each_channel and recording.channels > 1 else [MIXED]
    rate, window = recording.sample_rate, round(seconds * recording.sample_rate)
    starts = window_grid(recording.frames, window, round(window * (1 - rule.overlap)))
    if len(starts) > 1 and starts[-1] - starts[-2] < LEAST_STEP_S * rate:  # the last one ends with the recording
        starts = starts[:-1]
    times = np.stack([starts, np.minimum(starts + window, recording.frames)], axis=1) / rate
    parts = []
    for channel in channels:
        species = {str(name): spans_heard(of, channel) for name, of in calls.groupby("species")}
        if classes is not None:
            species = {name: species.get(name, np.empty((0, 2))) for name in classes}
        labels = label_windows(
            times, species, spans_heard(uncertain, channel), spans_heard(reviewed, channel), rule.thresholds
        )
        parts.append(_rows(recording, channel, starts, times, labels, classes is not None))
    return WindowsOf(
        pd.concat([part.rows for part in parts], ignore_index=True),
        pd.concat([part.rejected for part in parts], ignore_index=True),
        sum(part.unreviewed for part in parts),
    )


def _rows(
    recording: LongRecording,
    channel: int,
    starts: np.ndarray,
    times: np.ndarray,
    labels: WindowLabels,
    with_targets: bool,
) -> WindowsOf:
    several = labels.present.sum(axis=1)
    if with_targets:  # what is not known of a window is masked
        usable = labels.known.any(axis=1)
        refused = ~usable & labels.partial
    else:
        usable = ~labels.partial & ((several == 1) | ((several == 0) & labels.reviewed))
        refused = labels.partial | (several > 1)
    suffixes = [f"{begin:.3f}{{}}{end:.3f}" for begin, end in times]
    of_channel = ("", "") if channel == MIXED else (f"_ch{channel}", f"&channel={channel}")
    rows = pd.DataFrame(
        {
            "recording": recording.path,
            "channel": channel,
            "start": starts,
            "start_s": times[:, 0],
            "end_s": times[:, 1],
            "species": joined_names(labels.present, labels.species),
            "cut_id": [f"{recording.name}{of_channel[0]}_{each.format('-')}s" for each in suffixes],
            "path": [f"{recording.path}#t={each.format(',')}{of_channel[1]}" for each in suffixes],
        },
        columns=ROW,
    )
    if with_targets:
        rows["targets"] = encode(labels.present, labels.known)
    rejected = [
        {"path": rows.at[row, "path"], "species": _present(labels, row), "reason": _reason(labels, row)}
        for row in np.flatnonzero(refused).tolist()
    ]
    return WindowsOf(
        rows[usable].reset_index(drop=True),
        pd.DataFrame(rejected, columns=["path", "species", "reason"], dtype=object),
        int((~usable & ~refused).sum()),
    )


def _present(labels: WindowLabels, row: int) -> str:
    return ", ".join(name for name, there in zip(labels.species, labels.present[row], strict=True) if there)


def _reason(labels: WindowLabels, row: int) -> str:
    """Why a window is no example of one species."""
    if labels.present[row].sum() > 1:
        return f"several species: {_present(labels, row)}"
    between = ~labels.known[row] & ~labels.present[row] & (labels.share[row] > 0)
    parts = [f"{labels.species[at]} {labels.share[row, at]:.0%}" for at in np.flatnonzero(between)]
    return f"partial call: {', '.join(parts)}" if parts else "an uncertain sound"


def some_background(rows: pd.DataFrame, ratio: float, seed: int) -> pd.DataFrame:
    """The rows with at most `ratio` times as many of BACKGROUND as of species, the same whatever else is there.

    Each window has a number drawn from its name and the seed, and those of the lowest stay.
    """
    background = rows[rows["species"] == BACKGROUND]
    most = int(ratio * (len(rows) - len(background)))
    if len(background) <= most:
        return rows
    drawn = [hashlib.blake2b(f"{seed} {path}".encode(), digest_size=8).digest() for path in background["path"]]
    order = sorted(range(len(drawn)), key=drawn.__getitem__)
    return rows.drop(index=background.index[order[most:]]).reset_index(drop=True)


def by_recording(rows: pd.DataFrame) -> Iterator[tuple[tuple[str, int], pd.DataFrame]]:
    """The rows of each recording and channel, in the order of their beginnings."""
    for (path, channel), of_channel in rows.groupby(["recording", "channel"], sort=True):
        yield (str(path), int(channel)), of_channel.sort_values("start")
