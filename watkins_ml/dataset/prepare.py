"""`watkins prepare`: a folder of recordings in, an annotated, split and labelled set of spectrograms out.

Every step can be repeated: results already on disk are used, a kill costs the files in progress, and
`dataset.json` is written last, so a folder without it is never trained on.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from watkins_ml.audio.settings import FrontendSettings
from watkins_ml.core.errors import UsageError, UserError
from watkins_ml.core.files import disk_errors, shown_csv, write_csv, write_json, write_text
from watkins_ml.core.locks import only_writer, readers_of
from watkins_ml.core.names import spelled
from watkins_ml.core.wording import plural
from watkins_ml.dataset.layout import DataFolder, read_prepared, windows_beside
from watkins_ml.dataset.metadata import read_metadata
from watkins_ml.dataset.scan import Candidate, Examined, examine_all, find_candidates, newest_of, places_of
from watkins_ml.dataset.split import SIDES, split, untested_species

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
    moved: int
    """Spectrograms that changed their place."""


def prepare(audio_dir: Path, out: Path, options: PrepareOptions) -> Prepared:
    """Scan, annotate, split and place spectrograms; see DESIGN for the layout of `out`.

    Raises:
        UserError: nothing usable, one species only, a full or unwritable disk; another process prepares `out`, or
            reads it and would find it changed.
        UsageError: no recordings, or a metadata table that does not fit them (before anything is written).
    """
    audio_dir, folder = Path(audio_dir), DataFolder(Path(out))
    candidates, not_audio = find_candidates(audio_dir, options.group_regex)
    species = sorted({candidate.species for candidate in candidates})
    if len(species) < 2:
        raise UsageError(f"{audio_dir}: holds one species only ({species[0]}); a classifier needs at least two")
    metadata = _metadata_of(candidates, options.metadata)
    if folder.root.resolve().is_relative_to(audio_dir.resolve()):
        raise UserError(f"--out {out} lies inside the audio folder {audio_dir}; choose a folder outside it")
    then = "mend that and run the same command again; it goes on from there"
    with disk_errors(f"cannot write prepared data to {out}", then), only_writer(folder.root, "watkins prepare"):
        _use_frontend(folder, options.frontend)
        examined, computed = examine_all(candidates, audio_dir, folder, options.frontend, options.workers)
        annotations, rejected = annotate(candidates, examined, options.min_clips, options.least_rate)
        rejected = pd.concat([pd.DataFrame(not_audio, columns=rejected.columns), rejected], ignore_index=True)
        if annotations["species"].nunique() < 2:
            raise UserError(
                f"{audio_dir}: {_species_left(annotations)} after {plural(len(rejected), 'rejection')}; a classifier "
                f"needs two species with at least {options.min_clips} recordings each (--min-clips)"
                + f" at {options.least_rate} Hz or more (--no-upsampling)"
                * options.no_upsampling
            )
        annotations = _with_metadata(annotations, metadata)
        side = split(annotations, options.split, options.seed)
        summary = _summary(audio_dir, annotations, rejected, side, options)
        summary["audio_dir_from_here"] = spelled(Path(os.path.relpath(audio_dir.resolve(), folder.root.resolve())))
        summary["metadata"] = _metadata_summary(annotations, metadata, options.metadata)
        unchanged = computed == 0 and _is_sealed_as(folder, summary)
        moved = 0 if unchanged else _write(folder, candidates, examined, annotations, rejected, side, summary)
    return Prepared(summary, computed, moved)


def _species_left(annotations: pd.DataFrame) -> str:
    left = sorted(annotations["species"].unique())
    return f"only one species is left ({left[0]})" if left else "no usable recording is left"


def _metadata_of(candidates: list[Candidate], table: Path | None) -> pd.DataFrame | None:
    """What the table says of each candidate that it knows, by path."""
    return None if table is None else read_metadata(table).of(pd.DataFrame([c.__dict__ for c in candidates]))


def _with_metadata(annotations: pd.DataFrame, metadata: pd.DataFrame | None) -> pd.DataFrame:
    return (
        annotations if metadata is None else annotations.join(metadata, on="path").fillna(dict.fromkeys(metadata, ""))
    )


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


def _break_seal(folder: DataFolder) -> None:
    """Take `dataset.json` away, before anything changes that a reader may be reading.

    Raises:
        UserError: somebody reads the folder now.
    """
    if readers := readers_of(folder.root):
        raise UserError(
            f"{folder.root}: {readers[0]} is reading it, and would find it changed; wait until that has ended and run "
            "the same command again, which goes on from here, or give another --out"
        )
    folder.summary.unlink(missing_ok=True)


def _use_frontend(folder: DataFolder, settings: FrontendSettings) -> None:
    """Make sure that every spectrogram in the folder is of this frontend, dropping those of another.

    Raises:
        UserError: there are files that are not of `watkins prepare`, which always leaves the marker.
    """
    marker = folder.spectrograms / ".frontend"
    if marker.exists() and marker.read_text() == settings.digest():
        return
    stale = [path for path in (folder.staging, *(folder.spectrograms / side for side in SIDES)) if path.exists()]
    if stale and not marker.exists() and not folder.summary.exists():
        raise UserError(f"{stale[0]}: is not of `watkins prepare`, which would delete it; give another --out")
    _break_seal(folder)
    for path in stale:
        shutil.rmtree(path)
    write_text(marker, settings.digest())


def _summary(
    audio_dir: Path, annotations: pd.DataFrame, rejected: pd.DataFrame, side: pd.Series, options: PrepareOptions
) -> dict[str, Any]:
    fingerprint = annotations.assign(side=side)[["path", "species", "tape", "sha256", "side"]]
    digest = hashlib.sha256(fingerprint.to_csv(index=False, lineterminator="\n").encode())
    digest.update(options.frontend.digest().encode())
    few = rejected.loc[rejected["reason"].str.startswith("too few in class"), "species"]
    return {
        "data_digest": digest.hexdigest()[:16],
        "split": options.split,
        "seed": options.seed,
        "group_regex": options.group_regex,
        "min_clips": options.min_clips,
        "no_upsampling": options.no_upsampling,
        "audio_dir": spelled(audio_dir.resolve()),
        "frontend": options.frontend.model_dump(),
        "counts": {
            "recordings": len(annotations),
            "species": int(annotations["species"].nunique()),
            "tapes": int(annotations["tape"].nunique()),
            "rejected": len(rejected),
            "noted": int((annotations["file_note"] != "").sum()),
            **{name: int((side == name).sum()) for name in SIDES},
        },
        "rejected_for": dict(Counter(rejected["reason"].str.split(":| of ").str[0])),
        "species_left_out": {str(name): int(count) for name, count in few.value_counts().sort_index().items()},
        "species_not_tested": untested_species(annotations, side),
    }


def _metadata_summary(
    annotations: pd.DataFrame, metadata: pd.DataFrame | None, table: Path | None
) -> dict[str, Any] | None:
    """The table, its columns and how many recordings it has a row and a site for; other values, another digest."""
    if metadata is None:
        return None
    text = annotations[list(metadata)].to_csv(index=False, lineterminator="\n")
    return {
        "table": spelled(Path(table).resolve()),
        "columns": list(metadata),
        "digest": hashlib.sha256(text.encode()).hexdigest()[:16],
        "recordings": int(annotations["path"].isin(metadata.index).sum()),
        "with_site": int((annotations["site"] != "").sum()) if "site" in metadata else 0,
    }


def _is_sealed_as(folder: DataFolder, summary: dict[str, Any]) -> bool:
    try:
        return folder.rejected.exists() and read_prepared(folder.root).summary == summary
    except UserError:  # unfinished or damaged
        return False


def _write(
    folder: DataFolder,
    candidates: list[Candidate],
    examined: list[Examined],
    annotations: pd.DataFrame,
    rejected: pd.DataFrame,
    side: pd.Series,
    summary: dict[str, Any],
) -> int:
    """Move spectrograms to their sides and write the tables; `dataset.json` seals them."""
    _break_seal(folder)
    species = sorted(annotations["species"].unique())
    label_of = {name: label for label, name in enumerate(species)}
    targets = [
        folder.spectrogram(where, row.species, row.cut_id)
        for where, row in zip(side, annotations.itertuples(), strict=True)
    ]
    moved = _place(folder, candidates, examined, dict(zip(annotations["path"], targets, strict=True)))
    write_csv(folder.annotations, annotations)
    write_text(folder.rejected, shown_csv(rejected))  # for people alone
    write_json(folder.classes, {str(label): name for name, label in label_of.items()})
    table = annotations.assign(
        label=annotations["species"].map(label_of),
        spectrogram=[target.relative_to(folder.root).as_posix() for target in targets],
    )
    for name in SIDES:
        write_csv(folder.side(name), table.loc[side == name, ["path", "species", "label", "tape", "spectrogram"]])
    write_json(folder.summary, summary)
    return moved


def _place(folder: DataFolder, candidates: list[Candidate], examined: list[Examined], targets: dict[str, Path]) -> int:
    """Move each spectrogram to its target; those left out wait in staging, those of no file go."""
    moved = 0
    wanted = set()
    for candidate, result in zip(candidates, examined, strict=True):
        places = places_of(candidate, folder)
        target = targets.get(candidate.path, places[0])
        newest = newest_of(places, result.windows) or target
        for place in places:
            # before the move, so that a kill cannot leave two, or new windows beside an old one
            if place != newest and place.exists():
                place.unlink()
                windows_beside(place).unlink(missing_ok=True)
        pairs = [(newest, target)]
        if result.windows > 1:
            pairs.insert(0, (windows_beside(newest), windows_beside(target)))
        wanted.update(place for _, place in pairs)
        if newest != target:
            target.parent.mkdir(parents=True, exist_ok=True)
            for file, place in pairs:
                os.replace(file, place)
            moved += 1
    for tree in (folder.staging, *(folder.spectrograms / side for side in SIDES)):
        for file in tree.rglob("*"):  # with what a killed run left half-written
            if file not in wanted and file.is_file():
                file.unlink()
    return moved
