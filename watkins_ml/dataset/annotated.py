"""`watkins prepare --annotations`: long recordings and their selection tables in, a data folder of windows out.

The folder is the same as that of recordings in species folders, with windows in the place of recordings: sides, folds,
training and reports know no difference.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from watkins_ml.annotations.collect import AnnotationOptions, Annotations, collect
from watkins_ml.annotations.mapping import BACKGROUND
from watkins_ml.annotations.recordings import LongRecording, find_long_recordings
from watkins_ml.annotations.reviewed import WORDS
from watkins_ml.audio.settings import FrontendSettings
from watkins_ml.core.errors import UsageError, UserError
from watkins_ml.core.files import disk_errors
from watkins_ml.core.locks import only_writer
from watkins_ml.core.names import spelled
from watkins_ml.core.wording import plural
from watkins_ml.dataset.grouping import groups_of, metadata_of
from watkins_ml.dataset.groups import group_word
from watkins_ml.dataset.layout import DataFolder
from watkins_ml.dataset.prepare import (
    Prepared,
    PrepareOptions,
    check_species_left,
    metadata_summary,
    summary_of,
    with_metadata,
)
from watkins_ml.dataset.rows import window_digest
from watkins_ml.dataset.sealing import break_seal, is_sealed_as, seal, use_frontend
from watkins_ml.dataset.split import SIDES, split
from watkins_ml.dataset.targets import LABELS, row_a_species
from watkins_ml.dataset.usable_rows import REJECTED, usable_rows, usable_targets
from watkins_ml.dataset.window_files import digests_of, plan_windows
from watkins_ml.dataset.windowing import LEAST_STEP_S, WindowRule, some_background, windows_of

MOST_ROWS = 5_000_000
"""Windows of all recordings together; a day in windows of 4 s that overlap by half has 43,200."""


@dataclass(frozen=True)
class AnnotatedOptions:
    """What decides windows and their labels, beside recordings and tables."""

    tables: AnnotationOptions = field(default_factory=AnnotationOptions)
    windows: WindowRule = field(default_factory=WindowRule)
    group_by: str = "recording"
    """See `grouping.groups_of`."""


def prepare_annotated(audio: Path, tables: Path, out: Path, options: PrepareOptions, annotated: AnnotatedOptions
                      ) -> Prepared:  # fmt: skip
    """Make `out` a prepared data folder of windows of the recordings in `audio`, labelled by the tables in `tables`.

    `options.group_regex` plays no part. Raises as `prepare.prepare` and `annotations.collect.collect`.
    """
    folder = DataFolder(Path(out))
    root, recordings, others = find_long_recordings(Path(audio))
    _check(audio, folder, options, annotated.windows)
    if not recordings:
        raise UserError(f"{audio}: no recording can be used; the first is {others[0]['path']}: {others[0]['reason']}")
    given = () if options.metadata is None else (options.metadata,)
    annotations = collect(Path(tables), recordings, annotated.tables, given)
    recordings, left_out = _usable(recordings, annotations, options.least_rate)
    metadata = metadata_of(recordings, options.metadata)
    groups = groups_of(recordings, annotated.group_by, metadata)
    then = "mend that and run the same command again; it goes on from there"
    with disk_errors(f"cannot write prepared data to {out}", then), only_writer(folder.root, "watkins prepare"):
        use_frontend(folder, options.frontend)
        digests = digests_of(recordings, root, folder, options.workers)
        recordings, copies = _without_copies(recordings, digests)
        classes = sorted(map(str, annotations.calls["species"].unique())) if options.task == LABELS else None
        rows, refused, unreviewed = _windows(recordings, annotations, options, annotated.windows, classes)
        _check_split(rows, groups, options, annotated.group_by, classes)
        by_path = {each.path: each for each in recordings}
        files = plan_windows(rows, by_path, root, folder, options.frontend.seconds)
        if files.todo and any(place.exists() for task in files.tasks for place in task.places):
            break_seal(folder)
        states = files.write(options.frontend, options.workers)
        table = _table(rows.join(states), by_path, groups, digests)
        if classes is None:
            usable, unusable = usable_rows(table, options.min_clips)
        else:
            usable, unusable, classes = usable_targets(table, options.min_clips, classes)
        reasons = [
            pd.DataFrame([*others, *left_out, *copies], columns=REJECTED),
            annotations.rejected,
            refused,
            unusable,
        ]
        rejected = pd.concat(reasons, ignore_index=True).astype(object)
        by_species = usable if classes is None else row_a_species(usable, classes)
        check_species_left(by_species, rejected, Path(audio), options)
        of_windows = None if metadata is None else metadata.reindex(usable["recording"]).set_index(usable["path"])
        usable = with_metadata(usable, of_windows)
        side = split(by_species, options.split, options.seed)
        if classes is not None:
            side = usable["tape"].map(dict(zip(by_species["tape"], side, strict=True))).rename("side")
        names = classes or sorted(usable["species"].unique())
        summary = summary_of(root, usable, names, rejected, side, options, _digest(annotations, annotated))
        summary["audio_dir_from_here"] = spelled(Path(os.path.relpath(root.resolve(), folder.root.resolve())))
        summary["metadata"] = metadata_summary(usable, of_windows, options.metadata)
        summary |= _facts(tables, annotations, annotated, usable, unreviewed)
        if files.todo or not is_sealed_as(folder, summary):
            places = list(files.places[usable.index])
            used = [place for row, place in files.places.items() if not states.at[row, "reason"]]
            usable, side = usable.reset_index(drop=True), side.reset_index(drop=True)
            seal(folder, used, usable, names, places, rejected, side, summary)
    return Prepared(summary, files.todo)


def _check(audio: Path, folder: DataFolder, options: PrepareOptions, rule: WindowRule) -> None:
    if options.frontend.seconds * (1 - rule.overlap) < LEAST_STEP_S:
        raise UsageError(f"--overlap {rule.overlap:g}: windows would begin less than {LEAST_STEP_S} s apart; give less")
    if options.task == LABELS and options.split != "tape":
        raise UsageError(
            f"--split {options.split}: divides windows of one species each; with --task {LABELS} leave it out"
        )
    if not rule.thresholds.absent < rule.thresholds.present:
        raise UsageError(
            f"--absent {rule.thresholds.absent:g} is not below --present {rule.thresholds.present:g}; a window cannot "
            "both hold a call and hold none"
        )
    if options.frontend != FrontendSettings():
        from watkins_ml.audio.frontend import Frontend  # takes two seconds

        Frontend(options.frontend)
    if Path(audio).is_dir() and folder.root.resolve().is_relative_to(Path(audio).resolve()):
        raise UserError(f"--out {folder.root} lies inside the audio folder {audio}; choose a folder outside it")


def _usable(
    recordings: list[LongRecording], annotations: Annotations, least_rate: int
) -> tuple[list[LongRecording], list[dict[str, str]]]:
    """The recordings that a table or a reviewed span is about, and the others with the reason."""
    known = annotations.described | set(annotations.reviewed["recording"])
    found, others = [], []
    for each in recordings:
        reason = "" if each.path in known else "no annotations: no table is about it"
        if each.sample_rate < least_rate:
            reason = f"native rate below {least_rate} Hz: {each.sample_rate}"
        if reason:
            others.append({"path": each.path, "species": "", "reason": reason})
        else:
            found.append(each)
    return found, others


def _without_copies(
    recordings: list[LongRecording], digests: dict[str, str]
) -> tuple[list[LongRecording], list[dict[str, str]]]:
    """Of files with the same content the first stays: copies could stand on two sides."""
    first: dict[str, str] = {}
    for each in recordings:
        first.setdefault(digests[each.path], each.path)
    copies = [each.path for each in recordings if first[digests[each.path]] != each.path]
    rejected = [{"path": path, "species": "", "reason": f"duplicate of {first[digests[path]]}"} for path in copies]
    return [each for each in recordings if each.path not in set(copies)], rejected


def _windows(
    recordings: list[LongRecording],
    annotations: Annotations,
    options: PrepareOptions,
    rule: WindowRule,
    classes: list[str] | None,
) -> tuple[pd.DataFrame, pd.DataFrame, int]:
    seconds = options.frontend.seconds
    count = sum(each.duration_s for each in recordings) / (seconds * (1 - rule.overlap))
    if count > MOST_ROWS:
        raise UsageError(
            f"--seconds {seconds:g} with --overlap {rule.overlap:g}: would be {count:,.0f} windows, more than "
            f"{MOST_ROWS:,}; take longer windows, less overlap, or fewer recordings"
        )
    found = [windows_of(each, annotations, seconds, rule, classes) for each in recordings]
    rows = pd.concat([each.rows for each in found], ignore_index=True)
    refused = pd.concat([each.rejected for each in found], ignore_index=True)
    return some_background(rows, rule.background_ratio, options.seed), refused, sum(each.unreviewed for each in found)


def _check_split(
    rows: pd.DataFrame, groups: dict[str, str], options: PrepareOptions, group_by: str, classes: list[str] | None
) -> None:
    """Raise a UserError where the windows cannot be divided, before hours go into their spectrograms."""
    if classes is not None:
        rows = row_a_species(rows, classes).reset_index(drop=True)
    clips = rows.groupby("species")["path"].transform("size")
    left = rows.loc[clips >= options.min_clips].assign(tape=rows["recording"].map(groups))
    count, word = left["tape"].nunique(), group_word({"group_by": group_by})
    if left["species"].nunique() < 2:
        return  # said when the reasons are known
    if options.split == "tape" and count < len(SIDES):
        raise UserError(
            f"--group-by {group_by}: windows of {plural(count, word)} cannot be divided into train, val and test, each "
            "with groups of its own; add recordings, or group by less"
        )
    split(left, options.split, options.seed)


def _table(
    rows: pd.DataFrame, recordings: dict[str, LongRecording], groups: dict[str, str], digests: dict[str, str]
) -> pd.DataFrame:
    """A row a window with the columns of `audio_annotations.csv`, and `reason`."""
    source = rows["recording"]
    times = zip(source, rows["start_s"], rows["end_s"], rows["channel"], strict=True)
    identity = [window_digest(digests[path], start, end, channel) for path, start, end, channel in times]
    return pd.DataFrame(
        {
            "path": rows["path"],
            "species": rows["species"],
            "cut_id": rows["cut_id"],
            "tape": source.map(groups),
            "sample_rate": source.map({path: each.sample_rate for path, each in recordings.items()}),
            "channels": source.map({path: each.channels for path, each in recordings.items()}),
            "duration_s": (rows["end_s"] - rows["start_s"]).round(6),
            "sha256": identity,
            "windows": 1,
            "file_note": rows["note"],
            "recording": source,
            "start_s": rows["start_s"],
            "end_s": rows["end_s"],
            "channel": rows["channel"],
            **({"targets": rows["targets"]} if "targets" in rows else {}),
            "reason": rows["reason"],
        }
    )


def _digest(annotations: Annotations, annotated: AnnotatedOptions) -> str:
    return f"{annotations.digest} {asdict(annotated.windows)}"


def _facts(
    tables: Path, annotations: Annotations, annotated: AnnotatedOptions, usable: pd.DataFrame, unreviewed: int
) -> dict[str, Any]:
    """What `dataset.json` says of a data set of windows, beside what it says of any."""
    reviewed = annotated.tables.reviewed
    return {
        "group_regex": None,
        "group_by": annotated.group_by,
        "background_class": None if "targets" in usable or not (usable["species"] == BACKGROUND).any() else BACKGROUND,
        "annotations": {
            "tables": spelled(Path(tables).resolve()),
            "digest": annotations.digest,
            "count": annotations.tables,
            "calls": len(annotations.calls),
            "calls_of": {str(name): count for name, count in sorted(Counter(annotations.calls["species"]).items())},
            "recordings": int(usable["recording"].nunique()),
            "reviewed": reviewed if reviewed in WORDS else "table",
            "reviewed_s": round(float((annotations.reviewed["end_s"] - annotations.reviewed["start_s"]).sum()), 3),
            "unreviewed_windows": unreviewed,
        },
        "windowing": asdict(annotated.windows),
    }
