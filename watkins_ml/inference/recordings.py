"""Find the recordings that a command names."""

from __future__ import annotations

from pathlib import Path

from watkins_ml.audio.formats import OTHER_AUDIO, is_audio_name, reason_of_name
from watkins_ml.core.errors import UserError
from watkins_ml.core.files import files_below, printable


def find_recordings(paths: list[Path]) -> list[Path]:
    """Files as given, folders searched for audio, each file once.

    Raises:
        UserError: a path does not exist, or a folder cannot be read or has no audio.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += _in_folder(path)
        elif path.exists():
            found.append(path)
        else:
            raise UserError(f"{path}: no such file")
    return list({path.resolve(): path for path in reversed(found)}.values())[::-1]


def _in_folder(folder: Path) -> list[Path]:
    files = sorted(files_below(folder))
    found = [path for path in files if is_audio_name(path)]
    if not found:
        other = next((path for path in files if path.suffix.lower() in OTHER_AUDIO), None)
        more = f" that can be read; {printable(other)}: {reason_of_name(other)}" if other else ""
        raise UserError(f"{printable(folder)}: no audio files there{more}")
    return found


def file_state(path: Path) -> list[int]:
    """Size and modification time, by which a later change of a file is noticed."""
    facts = path.stat()
    return [facts.st_size, facts.st_mtime_ns]
