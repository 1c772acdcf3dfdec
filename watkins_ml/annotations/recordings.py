"""The recordings that tables may be about: where they lie, how long they are, and which one a name means."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from watkins_ml.audio.decode import AudioError, truncation
from watkins_ml.audio.formats import AUDIO_SUFFIXES, is_audio_name, reason_of_content, reason_of_name
from watkins_ml.audio.opening import open_audio
from watkins_ml.audio.stream import UNKNOWN_LENGTH
from watkins_ml.core.errors import UsageError
from watkins_ml.core.files import files_below
from watkins_ml.core.names import normal, spelled, unique_names

OF_ONE_RECORDING = re.compile(
    r"[._ -](annot|label|selection|table|detection|call|event)|-(?=\d*[a-f])[0-9a-f]{8}\.labels\.txt$", re.IGNORECASE
)
"""What may follow a recording's name in that of its table, beside anything after a dot. `watkins predict` adds a
digest; without a letter it could be a date."""


@dataclass(frozen=True)
class LongRecording:
    """A recording of any length and what its header says."""

    path: str
    """Relative to the folder of recordings, with forward slashes, as `names.spelled` writes it."""
    name: str
    """Its file's name without suffix, marked where several have it: unique, and fit for a file's name."""
    frames: int
    sample_rate: int
    """Hz."""
    channels: int
    size: int
    mtime_ns: int

    @property
    def duration_s(self) -> float:
        return self.frames / self.sample_rate

    @property
    def stem(self) -> str:
        return stem_of(self.path)


def stem_of(path: str) -> str:
    """The name of a file without the suffix of a recording."""
    name = PurePosixPath(normal(path)).name
    return name[: -len(PurePosixPath(name).suffix)] if PurePosixPath(name).suffix.lower() in AUDIO_SUFFIXES else name


def find_long_recordings(place: Path) -> tuple[Path, list[LongRecording], list[dict[str, str]]]:
    """All recordings in a folder, or the one file: their folder, what they are, and what could not be opened and why.

    Raises:
        UsageError: there are none.
    """
    if not place.exists():
        raise UsageError(f"{place}: no such folder; give a folder of recordings, or one recording")
    root = place if place.is_dir() else place.parent
    files = sorted(files_below(place)) if place.is_dir() else [place]
    names = [path for path in files if is_audio_name(path)]
    if not names:
        suffixes = ", ".join(sorted(AUDIO_SUFFIXES))
        raise UsageError(f"{place}: no recordings; expected files with a suffix among {suffixes}")
    paths = [spelled(path.relative_to(root)) for path in names]
    unique = unique_names([("", stem_of(path)) for path in paths], paths)
    found, others = [], []
    for file, path, name in zip(names, paths, unique, strict=True):
        opened = _opened(file, path, name)
        if isinstance(opened, LongRecording):
            found.append(opened)
        else:
            others.append({"path": path, "species": "", "reason": opened})
    tables = {".txt", ".csv", ".tsv"}
    others += [
        {"path": spelled(path.relative_to(root)), "species": "", "reason": reason_of_name(path)}
        for path in files
        if not is_audio_name(path) and path.suffix.lower() not in tables
    ]
    return root, found, others


def _opened(file: Path, path: str, name: str) -> LongRecording | str:
    """A recording, or why it cannot be used."""
    import soundfile

    try:
        with open_audio(file) as audio:
            if audio.frames <= 0:
                return "empty: no samples"
            if audio.frames >= UNKNOWN_LENGTH:
                return "its header does not say how long it is; convert it to WAV or FLAC"
            if problem := truncation(audio):
                return problem
            status = file.stat()
            return LongRecording(path, name, audio.frames, audio.samplerate, audio.channels, status.st_size,
                                 status.st_mtime_ns)  # fmt: skip
    except soundfile.LibsndfileError as error:
        return reason_of_content(file, error)
    except AudioError as error:
        return str(error)
    except OSError as error:
        return f"unreadable: {error.strerror or error}"


class RecordingNames:
    """Which recording a table or a cell of a table means."""

    def __init__(self, recordings: Iterable[LongRecording]):
        self._paths: dict[str, LongRecording] = {}
        self._stems: dict[str, list[LongRecording]] = defaultdict(list)
        for each in recordings:
            self._paths[normal(each.path)] = each
            self._stems[each.stem.casefold()].append(each)

    def named(self, name: str, source: str) -> LongRecording | None:
        """The recording of a cell: its path below the folder of recordings, or its name with or without the suffix.

        A longer path, of another computer too, counts by as much of its end as recordings have.

        Raises:
            UsageError: several recordings have the name; it begins with `source`.
        """
        windows = "\\" in name and "/" not in name
        parts = [part for part in (PureWindowsPath(name) if windows else PurePosixPath(name)).parts if part != "."]
        for start in range(len(parts)):
            place = normal("/".join(parts[start:]))
            if place in self._paths and (start == 0 or "/" in place):
                return self._paths[place]
        return self._only(self._stems.get(stem_of(parts[-1]).casefold(), []), parts[-1], source) if parts else None

    def of_table(self, table: Path, below: Path, source: str) -> LongRecording | None:
        """The recording of a table by its name: `REC.Table.1.selections.txt`, `REC.txt`, `REC_annot_….txt` of REC.

        Where recordings in several folders have the name, the one in the folder that the table is in, seen from
        `below`, is meant. Raises as `named`.
        """
        name = normal(spelled(table.name))
        ends = {end for end in range(1, len(name)) if name[end] == "." or OF_ONE_RECORDING.match(name, end)}
        for end in sorted(ends, reverse=True):
            if several := self._stems.get(stem_of(name[:end]).casefold()):
                folder = normal(spelled(table.relative_to(below).parent)) if table.is_relative_to(below) else "."
                beside = [each for each in several if PurePosixPath(each.path).parent.as_posix() == folder]
                return self._only(beside or several, name, source)
        return None

    @staticmethod
    def _only(several: list[LongRecording], name: str, source: str) -> LongRecording | None:
        if len(several) > 1:
            raise UsageError(
                f"{source}: '{name}' may mean {several[0].path} or {several[1].path}; name the recording with its "
                "folder, in the table or in a CSV of table,recording (--table-index)"
            )
        return several[0] if several else None
