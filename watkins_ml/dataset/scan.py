"""The files of an archive: which may be recordings, of which species and tape, before any is opened."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from watkins_ml.audio.formats import AUDIO_SUFFIXES, is_audio_name, reason_of_kind, reason_of_name
from watkins_ml.core.console import err
from watkins_ml.core.errors import UsageError
from watkins_ml.core.files import files_below
from watkins_ml.core.names import normal, spelled, unique_names

LOST_LINK = "unreadable: a link to nothing"


@dataclass(frozen=True)
class Candidate:
    """A file found in a species folder, before it was opened."""

    path: str
    """Relative to the audio folder, with forward slashes, as `names.spelled` writes it."""
    species: str
    """The folder's name, in the normal form in which names are compared, as are cut id and tape."""
    cut_id: str
    tape: str
    size: int
    mtime_ns: int

    @property
    def slot(self) -> tuple[str, str]:
        """Species and cut id: what names the spectrogram, and one file at a time can own."""
        return self.species, self.cut_id


def scan(audio_dir: Path, group_regex: str) -> tuple[list[Candidate], list[dict[str, str]]]:
    """List the files of all species folders, and those that are no recording by their place or name, with the reason.

    The tape is what `group_regex` finds in the file's stem (its first group, where it has one).

    Raises:
        UsageError: no recordings, or `group_regex` is none or fits none of them.
    """
    if not audio_dir.is_dir():
        raise UsageError(f"{audio_dir}: no such folder; give a folder that holds one folder of recordings a species")
    try:
        pattern = re.compile(normal(group_regex), re.DOTALL)  # a name may hold any character
    except re.error as error:
        raise UsageError(f"--group-regex '{group_regex}' is not a regular expression: {error}") from None
    reasons = {path: _reason_against(path, audio_dir) for path in sorted(files_below(audio_dir))}
    audio = [path for path, reason in reasons.items() if not reason]
    if LOST_LINK in reasons.values() and not audio:
        lost = next(path for path, reason in reasons.items() if reason == LOST_LINK)
        raise UsageError(f"{audio_dir}: no recordings; {spelled(lost)} is a link to nothing (is its disk there?)")
    if not audio:
        raise UsageError(
            f"{audio_dir}: no recordings; expected SPECIES/FILE with a suffix among {', '.join(sorted(AUDIO_SUFFIXES))}"
        )
    tapes = {path: _tape(path, pattern) for path in audio}
    reasons |= {path: "no tape: --group-regex finds none in its name" for path, tape in tapes.items() if not tape}
    if not any(tapes.values()):
        first = spelled(audio[0].relative_to(audio_dir))
        raise UsageError(f"--group-regex '{group_regex}' finds no tape in '{first}'; give one that fits every file")
    others = [
        {
            "path": spelled(path.relative_to(audio_dir)),
            "species": _species(path.relative_to(audio_dir)) if path.parent != audio_dir else "",
            "reason": reason,
        }
        for path, reason in reasons.items()
        if reason
    ]
    return _candidates({path: tape for path, tape in tapes.items() if tape}, audio_dir), others


def _reason_against(path: Path, audio_dir: Path) -> str:
    """Why this is no recording, as far as its place and name tell; empty where it may be one."""
    if path.parent == audio_dir:
        return "not in a species folder"
    return (reason_of_kind(path) if is_audio_name(path) else reason_of_name(path)) or ""


def _tape(path: Path, pattern: re.Pattern) -> str:
    match = pattern.search(normal(path.stem)) or pattern.search(normal(path.name))
    return spelled((match and (match[1] if pattern.groups else match[0])) or "")


def _species(relative: Path) -> str:
    return normal(spelled(relative.parts[0]))


def _candidates(tapes: dict[Path, str], audio_dir: Path) -> list[Candidate]:
    places = [path.relative_to(audio_dir) for path in tapes]
    _report_forms(places)
    species, paths = [_species(place) for place in places], [spelled(place) for place in places]
    stems = [normal(spelled(place.stem)) for place in places]
    # the same name may stand in subfolders, in several formats, or with other capitals
    cut_ids = unique_names(list(zip(species, stems, strict=True)), paths)
    found = []
    for (file, tape), path, name, cut_id in zip(tapes.items(), paths, species, cut_ids, strict=True):
        status = file.stat()
        found.append(Candidate(path, name, cut_id, tape, status.st_size, status.st_mtime_ns))
    return found


def _report_forms(places: list[Path]) -> None:
    """Report names that stand on the disk in several forms of Unicode: folders are one species, files are not one."""
    for what, names in (
        ("folders of this name, spelled in different forms of Unicode, are one species", [p.parts[0] for p in places]),
        ("files of this name, spelled in different forms of Unicode; each is a recording", [str(p) for p in places]),
    ):
        forms = defaultdict(set)
        for name in names:
            if not name.isascii():
                forms[normal(spelled(name))].add(name)
        for name, several in forms.items():
            if len(several) > 1:
                err.print(f"{name}: {len(several)} {what}")
