"""Examining every file of an archive once: annotation and spectrogram in one decode, resumable at any file."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context, parent_process
from multiprocessing.context import BaseContext
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, TextIO

from watkins_ml.audio.decode import DECODER_VERSION, AudioError
from watkins_ml.audio.formats import AUDIO_SUFFIXES, is_audio_name, reason_of_kind, reason_of_name
from watkins_ml.audio.settings import MOST_WINDOWS, FrontendSettings
from watkins_ml.core.console import err, progress
from watkins_ml.core.errors import UsageError, UserError
from watkins_ml.core.files import files_below, write_tensors
from watkins_ml.core.memory import use_memory_freely
from watkins_ml.core.names import normal, opened, spelled, unique_names
from watkins_ml.dataset.layout import DataFolder, windows_beside
from watkins_ml.dataset.split import SIDES

if TYPE_CHECKING:
    from watkins_ml.audio.frontend import Frontend

FILES_WORTH_A_WORKER = 50
"""Starting a worker process costs seconds of imports; fewer files than this are done at once."""
LOST_LINK = "unreadable: a link to nothing"
FILES_AT_ONCE = 4
"""Handing a task to a worker costs a twentieth of what a short file takes."""


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


@dataclass(frozen=True)
class Examined:
    """What one decode of a candidate told: a usable recording, or the reason why it is none."""

    path: str
    cut_id: str
    size: int
    mtime_ns: int
    reason: str | None = None
    sample_rate: int = 0
    channels: int = 0
    duration_s: float = 0.0
    sha256: str = ""
    audio_digest: str = ""
    windows: int = 1
    """How many spectrograms it is judged by; more than one are kept beside the central one."""
    file_note: str = ""
    """What there is to know of the file, though it can be used."""
    decoder: int = 1
    """Version of the code that read it; what an earlier one refused may be readable now."""

    def matches(self, candidate: Candidate) -> bool:
        mine = (self.path, self.cut_id, self.size, self.mtime_ns, self.decoder)
        return mine == (candidate.path, candidate.cut_id, candidate.size, candidate.mtime_ns, DECODER_VERSION)


def find_candidates(audio_dir: Path, group_regex: str) -> tuple[list[Candidate], list[dict[str, str]]]:
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
    _tell_of_forms(places)
    species, paths = [_species(place) for place in places], [spelled(place) for place in places]
    stems = [normal(spelled(place.stem)) for place in places]
    # the same name may stand in subfolders, in several formats, or with other capitals
    cut_ids = unique_names(list(zip(species, stems, strict=True)), paths)
    found = []
    for file, tape, *names in zip(tapes, tapes.values(), paths, species, cut_ids, strict=True):
        status = file.stat()
        found.append(Candidate(*names, tape, status.st_size, status.st_mtime_ns))
    return found


def _tell_of_forms(places: list[Path]) -> None:
    """Say which names stand on the disk in several forms of Unicode: folders are one species, files are not one."""
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


def examine_all(
    candidates: list[Candidate], audio_dir: Path, folder: DataFolder, settings: FrontendSettings, workers: int
) -> tuple[list[Examined], int]:
    """Examine the candidates that an earlier (perhaps killed) scan has not, over all cores.

    Returns:
        one result a candidate, in order, and how many had to be computed now.
    """
    known = _read_journal(folder.scan_journal)
    results = {c.path: known[c.slot] for c in candidates if c.slot in known and _still_good(known[c.slot], c, folder)}
    todo = [candidate for candidate in candidates if candidate.path not in results]
    folder.scan_journal.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.scan_journal, "a", encoding="utf-8") as journal, progress() as bar:
        task = bar.add_task("Reading recordings", total=len(candidates), completed=len(results), note="")
        for result in _examine(todo, audio_dir, folder, settings, workers):
            results[result.path] = result
            _append(journal, result)
            bar.advance(task)
    return [results[candidate.path] for candidate in candidates], len(todo)


def _examine(
    todo: list[Candidate], audio_dir: Path, folder: DataFolder, settings: FrontendSettings, workers: int
) -> Iterator[Examined]:
    workers = min(workers, len(todo) // FILES_WORTH_A_WORKER)
    if workers <= 1:
        yield from (_examine_one(candidate, audio_dir, folder, settings) for candidate in todo)
        return
    pool = ProcessPoolExecutor(workers, mp_context=_context(), initializer=_quiet_worker)
    try:
        tasks = [todo[start : start + FILES_AT_ONCE] for start in range(0, len(todo), FILES_AT_ONCE)]
        pending = [pool.submit(_examine_some, task, audio_dir, folder, settings) for task in tasks]
        for future in as_completed(pending):
            yield from future.result()
    except BrokenProcessPool:
        raise UserError(
            "a worker process died while reading recordings (out of memory? or, in a script of yours, a call without "
            "`if __name__ == '__main__':`?); run the same again with one worker (--workers 1) to see which file it is"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _context() -> BaseContext:
    """Workers are forked from one process that has imported what they need, and share its memory; not on Windows."""
    if os.name != "posix":
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload(["watkins_ml.audio.frontend", __name__])
    return context


def _quiet_worker() -> None:
    import torch

    torch.set_num_threads(1)
    use_memory_freely()
    Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    """A killed parent cannot end its workers, and they would wait for work for ever."""
    parent_process().join()
    os._exit(1)


@cache
def _frontend(settings: FrontendSettings) -> Frontend:
    from watkins_ml.audio.frontend import Frontend  # takes two seconds, which who hands out the work need not wait for

    return Frontend(settings)


def _examine_some(
    candidates: list[Candidate], audio_dir: Path, folder: DataFolder, settings: FrontendSettings
) -> list[Examined]:
    return [_examine_one(candidate, audio_dir, folder, settings) for candidate in candidates]


def _examine_one(candidate: Candidate, audio_dir: Path, folder: DataFolder, settings: FrontendSettings) -> Examined:
    frontend = _frontend(settings)
    key = {name: getattr(candidate, name) for name in ("path", "cut_id", "size", "mtime_ns")}
    key["decoder"] = DECODER_VERSION
    path = audio_dir / opened(candidate.path)
    try:
        recording = frontend.read(path, MOST_WINDOWS)
        with open(path, "rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except AudioError as error:
        return Examined(**key, reason=str(error))
    except OSError as error:
        return Examined(**key, reason=f"unreadable: {error.strerror}")
    staged = folder.staged(candidate.species, candidate.cut_id)
    staged.unlink(missing_ok=True)  # an older one must never stand beside new windows
    centre, windows = frontend.centre_and_windows(recording)
    if windows is not None:
        write_tensors(windows_beside(staged), windows, durable=False)
    write_tensors(staged, centre, durable=False)
    return Examined(
        **key,
        sample_rate=recording.sample_rate,
        channels=recording.channels,
        duration_s=recording.duration_s,
        sha256=sha256,
        audio_digest=recording.digest,
        windows=len(recording.windows) or 1,
        file_note="; ".join(recording.notes),
    )


def places_of(candidate: Candidate, folder: DataFolder) -> list[Path]:
    """Where a candidate's spectrogram can lie; a staged one comes first and is newer than a placed one."""
    sides = [folder.spectrogram(side, candidate.species, candidate.cut_id) for side in SIDES]
    return [folder.staged(candidate.species, candidate.cut_id), *sides]


def newest_of(places: list[Path], windows: int) -> Path | None:
    """Where the newest spectrogram lies with so many windows beside it; None if there is none."""
    for place in places:
        if _is_there(place) and (windows == 1 or _is_there(windows_beside(place))):
            return place
    return None


def _is_there(file: Path) -> bool:
    try:
        return file.stat().st_size > 0  # a power cut empties files
    except FileNotFoundError:
        return False


def _still_good(result: Examined, candidate: Candidate, folder: DataFolder) -> bool:
    if not result.matches(candidate):
        return False
    return result.reason is not None or newest_of(places_of(candidate, folder), result.windows) is not None


def _append(journal: TextIO, result: Examined) -> None:
    journal.write(json.dumps(vars(result), ensure_ascii=False) + "\n")
    journal.flush()


def _read_journal(path: Path) -> dict[tuple[str, str], Examined]:
    """Results by slot, the last of each; a line torn by a kill is skipped."""
    known: dict[tuple[str, str], Examined] = {}
    if not path.exists():
        return known
    text = path.read_text(encoding="utf-8", errors="replace")
    for line in text.split("\n"):
        try:
            result = Examined(**json.loads(line))
        except (ValueError, TypeError):
            continue
        known[normal(result.path.split("/")[0]), result.cut_id] = result
    if text and not text.endswith("\n"):  # seal a torn line, so that the next append starts a new one
        with open(path, "a", encoding="utf-8") as journal:
            journal.write("\n")
    return known
