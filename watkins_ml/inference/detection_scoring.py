"""`watkins evaluate --recordings`: what a model detects in continuous recordings against what somebody marked there.

find and read (`annotations`) → score windows (`scores`, through the cache) → one axis of time → match, count, choose
(`evaluation.detection`) → tables, pictures, page (`detection_report`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from watkins_ml.annotations.collect import AnnotationOptions, Annotations, collect, spans_heard
from watkins_ml.annotations.mapping import BACKGROUND
from watkins_ml.annotations.recordings import LongRecording, find_long_recordings
from watkins_ml.core.errors import UsageError, UserError
from watkins_ml.core.wording import plural
from watkins_ml.dataset.grouping import groups_of, metadata_of
from watkins_ml.evaluation.detection.choosing import Wish
from watkins_ml.evaluation.detection.matching import MatchRule
from watkins_ml.evaluation.detection.scores import DetectionScores, score_detections, verdict_rows
from watkins_ml.evaluation.detection.timeline import By, Timeline, Track, timeline_of
from watkins_ml.inference.cache import ScoreCache
from watkins_ml.inference.detections import DEFAULT_THRESHOLD
from watkins_ml.inference.scores import WindowScores, score_with_progress
from watkins_ml.inference.windows import WindowOptions
from watkins_ml.models.bundle import MAX_NOVELTY, Classifier
from watkins_ml.models.thresholds import Thresholds


@dataclass(frozen=True)
class DetectionOptions:
    """What decides the scores of detections, beside the model, the recordings and the tables."""

    tables: AnnotationOptions = field(default_factory=AnnotationOptions)
    group_by: str = "recording"
    """See `grouping.groups_of`; intervals are drawn over groups."""
    metadata: Path | None = None
    windows: WindowOptions = field(default_factory=WindowOptions)
    by: By = "detection"
    """What a detection is: windows in a row, every window, or every peak; as `watkins predict --by`."""
    rule: MatchRule = field(default_factory=MatchRule)
    max_novelty: float = MAX_NOVELTY
    threshold: float | None = None
    """Of all species; else those kept with the model, else DEFAULT_THRESHOLD."""
    wish: Wish | None = None
    """Thresholds are chosen by it on these recordings."""


@dataclass(frozen=True)
class DetectionEvaluation:
    """Detections of a model in recordings, scored."""

    scores: DetectionScores
    verdicts: pd.DataFrame
    """See `verdict_rows`."""
    timeline: Timeline
    root: Path
    """The folder of the recordings."""
    annotations: Annotations
    rejected: pd.DataFrame
    """path, species, reason: of recordings and of rows of the tables."""
    remarks: tuple[str, ...]
    """What the user has to know of the numbers."""
    options: DetectionOptions
    thresholds_from: str
    """Where the thresholds are from, in words."""

    def thresholds(self, model: str) -> Thresholds:
        """The thresholds to keep with the model."""
        facts: dict[str, str | int | float | bool | None] = {
            "chosen_with": model,
            "annotations": self.annotations.digest,
            "recordings": len({track.recording for track in self.timeline.tracks}),
            "hours": round(self.scores.hours, 4),
            "criterion": self.scores.main.by,
            "iou": self.scores.main.iou,
            "overlap": self.options.windows.overlap,
            "by": self.options.by,
            "max_novelty": min(self.options.max_novelty, 1e9),
        }
        of = {name: each for name, each in self.scores.thresholds.items() if name not in self.scores.undecided}
        return Thresholds(of, self.thresholds_from, facts)


def evaluate_detections(
    classifier: Classifier, model: str, recordings: Path, tables: Path, cache: Path | None, options: DetectionOptions
) -> DetectionEvaluation:
    """Find, score and judge; with a folder for the `cache` the scores of windows are kept there.

    Raises:
        UserError: no recording or table can be used, see `find_long_recordings` and `collect`; no call or no recording
            is left; thresholds are to be chosen where nothing was listened through.
    """
    root, found, others = find_long_recordings(Path(recordings))
    if not found:
        raise UserError(f"{recordings}: no recording can be used; {others[0]['path']}: {others[0]['reason']}")
    annotations = collect(Path(tables), found, options.tables, () if options.metadata is None else (options.metadata,))
    known = annotations.described | set(annotations.reviewed["recording"])
    others += [_left_out(each.path, "no annotations: no table is about it") for each in found if each.path not in known]
    used = [each for each in found if each.path in known]
    groups = groups_of(used, options.group_by, metadata_of(used, options.metadata))
    species = [name for name in classifier.classes if name != BACKGROUND]
    if not set(annotations.calls["species"]) & set(species):
        first = next(iter(annotations.calls["species"]), None)
        marked = f"marked is {first}" if first else "nothing is marked"
        raise UserError(
            f"--annotations {tables}: no call of a species that {model} knows ({', '.join(species)[:200]}); {marked}; "
            "--labels can give the spellings"
        )
    remarks = _remarks(annotations, species)
    if options.wish is not None and not len(annotations.reviewed):
        raise UsageError(
            f"--reviewed {options.tables.reviewed}: nothing was listened through, so no threshold can be chosen; say "
            "what was (all, or a CSV of file,start_s,end_s)"
        )
    tracks: list[Track] = []
    for each, scores in _scored(classifier, model, root, used, cache, options.windows):
        if scores.problem:
            others.append(_left_out(each.path, scores.problem))
        else:
            tracks += _tracks(each, scores, groups[each.path], annotations, species, classifier.classes, options)
    if not tracks:
        raise UserError(f"{recordings}: no recording could be read; {others[-1]['path']}: {others[-1]['reason']}")
    timeline = timeline_of(tracks, species, options.by)
    given, origin = _given(classifier, species, options)
    scores_of_all = score_detections(timeline, options.rule, given, options.wish)
    verdicts = verdict_rows(timeline, scores_of_all.thresholds, options.rule)
    rejected = pd.concat([pd.DataFrame(others, columns=["path", "species", "reason"]), annotations.rejected])
    if others:
        remarks.append(f"{plural(len(others), 'recording')} could not be used: see rejected.csv")
    return DetectionEvaluation(
        scores_of_all, verdicts, timeline, root, annotations, rejected.astype(object), tuple(remarks), options, origin
    )


def _left_out(path: str, reason: str) -> dict[str, str]:
    return {"path": path, "species": "", "reason": reason}


def _remarks(annotations: Annotations, species: list[str]) -> list[str]:
    remarks = []
    unknown = annotations.calls.loc[~annotations.calls["species"].isin(species), "species"]
    for name, count in unknown.value_counts().items():
        remarks.append(f"{plural(int(count), 'call')} of {name} left out: the model does not know it")
    if not len(annotations.reviewed):
        remarks.append(
            "Nothing is marked as listened through (--reviewed all, or a CSV of spans): false alarms outside calls are "
            "unknown, so precision, F1 and false alarms an hour say little; recall holds"
        )
    return remarks


def _scored(
    classifier: Classifier,
    model: str,
    root: Path,
    used: list[LongRecording],
    cache: Path | None,
    windows: WindowOptions,
) -> Iterator[tuple[LongRecording, WindowScores]]:
    """Each recording with the scores of its windows, in the order of the recordings."""
    files = {root / each.path: each for each in used}
    compute = partial(score_with_progress, classifier, options=windows)
    if cache is None:
        scores = compute(list(files))
    else:
        scores = ScoreCache(cache, classifier, model, windows).get_or_compute(list(files), compute)
    found = {files[each.path].path: each for each in scores}
    for each in used:
        yield each, found[each.path]


def _tracks(
    recording: LongRecording,
    scores: WindowScores,
    group: str,
    annotations: Annotations,
    species: list[str],
    classes: list[str],
    options: DetectionOptions,
) -> Iterator[Track]:
    """A track for each channel that has windows of its own."""
    calls, uncertain, reviewed = (
        table[table["recording"] == recording.path]
        for table in (annotations.calls, annotations.uncertain, annotations.reviewed)
    )
    columns = [classes.index(name) for name in species]
    for channel in np.unique(scores.spans[:, 0]).astype(int).tolist():
        mine = scores.spans[:, 0] == channel
        values = np.where(scores.novelty[mine, None] <= options.max_novelty, scores.probabilities[mine], np.nan)
        yield Track(
            recording.path,
            channel,
            group,
            scores.spans[mine, 1:],
            values[:, columns],
            tuple(spans_heard(calls[calls["species"] == name], channel) for name in species),
            spans_heard(reviewed, channel),
            spans_heard(uncertain, channel),
        )


def _given(classifier: Classifier, species: list[str], options: DetectionOptions) -> tuple[dict[str, float], str]:
    """The threshold of each species, and where they are from."""
    if options.threshold is not None:
        return dict.fromkeys(species, options.threshold), f"--threshold {options.threshold:g}"
    kept = classifier.thresholds
    of = {name: DEFAULT_THRESHOLD if kept is None else kept.of.get(name, DEFAULT_THRESHOLD) for name in species}
    if options.wish is not None:
        return of, str(options.wish)
    return of, f"default {DEFAULT_THRESHOLD:g}" if kept is None else f"kept with the model ({kept.chosen_for})"
