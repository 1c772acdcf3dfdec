"""`watkins prepare`: a folder of recordings in, an annotated, split and labelled set of spectrograms out.

Scan, decide what is new, spectrogram, annotate, split, seal. Every step can be repeated: results already on disk
are used, a kill costs the files in progress, and `dataset.json` is written last, so that a folder without it is never
trained on.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from watkins_ml.annotations.mapping import BACKGROUND
from watkins_ml.audio.settings import FrontendSettings
from watkins_ml.core.errors import UsageError, UserError
from watkins_ml.core.files import disk_errors
from watkins_ml.core.locks import only_writer
from watkins_ml.core.names import spelled
from watkins_ml.core.wording import plural
from watkins_ml.dataset.groups import group_facts
from watkins_ml.dataset.layout import DataFolder
from watkins_ml.dataset.metadata import read_metadata
from watkins_ml.dataset.scan import Candidate, scan
from watkins_ml.dataset.sealing import break_seal, is_sealed_as, seal, use_frontend
from watkins_ml.dataset.spectrograms import Examined, decide, write_spectrograms
from watkins_ml.dataset.split import SIDES, split, untested_species
from watkins_ml.dataset.targets import LABELS, SPECIES, row_a_species, targets_of

DEFAULT_GROUP_REGEX = r"^.{5}"
"""The tape of a Watkins cut: the first five characters of its id."""


@dataclass(frozen=True)
class PrepareOptions:
    """What decides a prepared data set, beside the recordings themselves."""

    split: str = "tape"
    seed: int = 0
    group_regex: str = DEFAULT_GROUP_REGEX
    min_clips: int = 10
    frontend: FrontendSettings = FrontendSettings()
    workers: int = os.cpu_count() or 1
    metadata: Path | None = None
    """A table of sites and times, see `read_metadata`; it changes neither the split nor the data digest."""
    no_upsampling: bool = False
    """Leave out recordings whose native rate is below the frontend's, so that all fill its whole band."""
    task: str = SPECIES
    """SPECIES (one a recording or window) or LABELS (any number of them)."""

    @property
    def least_rate(self) -> int:
        """The lowest native rate in Hz that is used."""
        return self.frontend.sample_rate if self.no_upsampling else 0


@dataclass(frozen=True)
class Prepared:
    """What a preparation did."""

    summary: dict[str, Any]
    computed: int
    """Recordings that had to be read now."""


def prepare(audio_dir: Path, out: Path, options: PrepareOptions) -> Prepared:
    """Make `out` a prepared data folder; see DESIGN for its layout.

    Raises:
        UserError: nothing usable, one species only, a full or unwritable disk; another process prepares `out`, or
            reads it and would find it changed.
        UsageError: no recordings, a metadata table that does not fit them, or a frontend with empty mel bands (before
            anything is written).
    """
    audio_dir, folder = Path(audio_dir), DataFolder(Path(out))
    candidates, others = scan(audio_dir, options.group_regex)
    metadata = _check(candidates, audio_dir, folder, options)
    then = "mend that and run the same command again; it goes on from there"
    with disk_errors(f"cannot write prepared data to {out}", then), only_writer(folder.root, "watkins prepare"):
        use_frontend(folder, options.frontend)
        known, todo = decide(candidates, folder)
        if any(folder.spectrogram(*candidate.slot).exists() for candidate in todo):
            break_seal(folder)
        known |= write_spectrograms(todo, audio_dir, folder, options.frontend, options.workers, len(known))
        examined = [known[candidate.path] for candidate in candidates]
        annotations, rejected = annotate(candidates, examined, options.min_clips, options.least_rate)
        rejected = pd.concat([pd.DataFrame(others, columns=rejected.columns), rejected], ignore_index=True)
        check_species_left(annotations, rejected, audio_dir, options)
        annotations = with_metadata(annotations, metadata)
        side = split(annotations, options.split, options.seed)
        places = [folder.spectrogram(*slot) for slot in annotations[["species", "cut_id"]].itertuples(index=False)]
        classes = sorted(annotations["species"].unique())
        if options.task == LABELS:
            classes = [name for name in classes if name != BACKGROUND]
            annotations = annotations.assign(targets=targets_of(annotations["species"], classes))
        summary = summary_of(audio_dir, annotations, classes, rejected, side, options)
        summary["audio_dir_from_here"] = spelled(Path(os.path.relpath(audio_dir.resolve(), folder.root.resolve())))
        summary["metadata"] = metadata_summary(annotations, metadata, options.metadata)
        if todo or not is_sealed_as(folder, summary):
            usable = [c for c, result in zip(candidates, examined, strict=True) if result.reason is None]
            used = [folder.spectrogram(*candidate.slot) for candidate in usable]
            seal(folder, used, annotations, classes, places, rejected, side, summary)
    return Prepared(summary, len(todo))


def _check(
    candidates: list[Candidate], audio_dir: Path, folder: DataFolder, options: PrepareOptions
) -> pd.DataFrame | None:
    """Refuse what cannot be prepared; what the metadata table says of each candidate that it knows, by path."""
    species = sorted({candidate.species for candidate in candidates})
    if len(species) < 2:
        raise UsageError(f"{audio_dir}: holds one species only ({species[0]}); a classifier needs at least two")
    if options.frontend != FrontendSettings():
        from watkins_ml.audio.frontend import Frontend  # takes two seconds

        Frontend(options.frontend)
    table = options.metadata
    metadata = None if table is None else read_metadata(table).of(pd.DataFrame([c.__dict__ for c in candidates]))
    if folder.root.resolve().is_relative_to(audio_dir.resolve()):
        raise UserError(f"--out {folder.root} lies inside the audio folder {audio_dir}; choose a folder outside it")
    return metadata


def check_species_left(
    annotations: pd.DataFrame, rejected: pd.DataFrame, audio_dir: Path, options: PrepareOptions
) -> None:
    left = sorted(annotations["species"].unique())
    if len(left) > 1:
        return
    rate = f" at {options.least_rate} Hz or more (--no-upsampling)" * options.no_upsampling
    raise UserError(
        f"{audio_dir}: {f'only one species is left ({left[0]})' if left else 'no usable recording is left'} after "
        f"{plural(len(rejected), 'rejection')}; a classifier needs two species with at least {options.min_clips} "
        f"recordings each (--min-clips){rate}"
    )


def with_metadata(annotations: pd.DataFrame, metadata: pd.DataFrame | None) -> pd.DataFrame:
    if metadata is None:
        return annotations
    return annotations.join(metadata, on="path").fillna(dict.fromkeys(metadata, ""))


def annotate(
    candidates: list[Candidate], examined: list[Examined], min_clips: int, least_rate: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Divide the examined files into usable recordings and rejected ones, each with its reason.

    Of exact duplicates (equal decoded audio) the first by path stays; the same audio under two
    species is a conflict that no one here can settle, so all its copies are left out. So are recordings of a
    native rate below `least_rate` (Hz), and then species with fewer than `min_clips`.
    """
    rows = pd.DataFrame([c.__dict__ | e.__dict__ for c, e in zip(candidates, examined, strict=True)])
    rows = rows.sort_values("path", ignore_index=True)
    usable = rows["reason"].isna()
    copies = rows[usable].groupby("audio_digest")
    first = copies["path"].transform("first")
    later = first[first != rows.loc[first.index, "path"]]
    rows.loc[later.index, "reason"] = "duplicate of " + later
    conflict = copies["species"].transform("nunique") > 1
    for _, same in rows.loc[conflict.index[conflict]].groupby("audio_digest"):
        names = " and ".join(sorted(set(same["species"])))
        rows.loc[same.index, "reason"] = f"conflict: the same audio is filed under {names}"
    narrow = rows["reason"].isna() & (rows["sample_rate"] < least_rate)
    rows.loc[narrow, "reason"] = f"native rate below {least_rate} Hz: " + rows["sample_rate"].astype(str)
    usable = rows["reason"].isna()
    clips = rows[usable].groupby("species")["path"].transform("size")
    for index, count in clips[clips < min_clips].items():
        rows.loc[index, "reason"] = f"too few in class: {count} of {min_clips}"
    usable = rows["reason"].isna()
    columns = ["path", "species", "cut_id", "tape", "sample_rate", "channels", "duration_s", "sha256", "windows"]
    columns.append("file_note")
    return (
        rows.loc[usable, columns].reset_index(drop=True),
        rows.loc[~usable, ["path", "species", "reason"]].reset_index(drop=True),
    )


def summary_of(
    audio_dir: Path,
    annotations: pd.DataFrame,
    classes: list[str],
    rejected: pd.DataFrame,
    side: pd.Series,
    options: PrepareOptions,
    tables: str = "",
) -> dict[str, Any]:
    """What `dataset.json` says; `tables` is a digest of what else than the recordings decided the rows."""
    columns = ["path", "species", "tape", "sha256", "side", *(["targets"] if options.task == LABELS else [])]
    fingerprint = annotations.assign(side=side)[columns]
    digest = hashlib.sha256(fingerprint.to_csv(index=False, lineterminator="\n").encode())
    digest.update((options.frontend.digest() + tables).encode())
    by_species = annotations.assign(side=side)
    if options.task == LABELS:
        by_species = row_a_species(by_species, classes).reset_index(drop=True)
    sides = by_species["side"]
    few = rejected.loc[rejected["reason"].str.startswith("too few in class"), "species"]
    return {
        "data_digest": digest.hexdigest()[:16],
        "split": options.split,
        "task": options.task,
        "seed": options.seed,
        "group_regex": options.group_regex,
        "min_clips": options.min_clips,
        "no_upsampling": options.no_upsampling,
        "audio_dir": spelled(audio_dir.resolve()),
        "frontend": options.frontend.model_dump(),
        "counts": {
            "recordings": len(annotations),
            "species": len(classes),
            "tapes": int(annotations["tape"].nunique()),
            "rejected": len(rejected),
            "noted": int((annotations["file_note"] != "").sum()),
            **{name: int((side == name).sum()) for name in SIDES},
        },
        "rejected_for": dict(Counter(rejected["reason"].str.split(":| of ").str[0])),
        "species_left_out": {str(name): int(count) for name, count in few.value_counts().sort_index().items()},
        "species_not_tested": {
            name: why for name, why in untested_species(by_species, sides).items() if name in classes
        },
        **group_facts(by_species, sides, options.frontend.sample_rate, options.no_upsampling),
    }


def metadata_summary(
    annotations: pd.DataFrame, metadata: pd.DataFrame | None, table: Path | None
) -> dict[str, Any] | None:
    """The table, its columns and how many recordings it has a row and a site for; other values, another digest."""
    if metadata is None or table is None:
        return None
    text = annotations[list(metadata)].to_csv(index=False, lineterminator="\n")
    return {
        "table": spelled(Path(table).resolve()),
        "columns": list(metadata),
        "digest": hashlib.sha256(text.encode()).hexdigest()[:16],
        "recordings": int(annotations["path"].isin(metadata.index).sum()),
        "with_site": int((annotations["site"] != "").sum()) if "site" in metadata else 0,
    }
