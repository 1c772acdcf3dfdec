"""A spectrogram of each recording, annotated and computed in one decode, over all cores, resumable at any file."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context, parent_process
from multiprocessing.context import BaseContext
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, TypeVar

from watkins_ml.audio.decode import DECODER_VERSION, AudioError
from watkins_ml.audio.settings import MOST_WINDOWS, FrontendSettings
from watkins_ml.core.console import progress
from watkins_ml.core.errors import UserError
from watkins_ml.core.files import write_tensors
from watkins_ml.core.memory import use_memory_freely
from watkins_ml.core.names import normal, opened
from watkins_ml.dataset.layout import DataFolder, windows_beside
from watkins_ml.dataset.scan import Candidate

if TYPE_CHECKING:
    from watkins_ml.audio.frontend import Frontend

T = TypeVar("T")
FILES_WORTH_A_WORKER = 50
"""Starting a worker process costs seconds of imports; fewer files than this are done at once."""
FILES_AT_ONCE = 4
"""Handing a task to a worker costs a twentieth of what a short file takes."""


@dataclass(frozen=True)
class Examined:
    """The result of decoding a candidate: a usable recording, or the reason why it is none."""

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
    """By how many spectrograms it is classified; more than one are stored beside the central one."""
    file_note: str = ""
    """A note on the file, though it can be used."""
    decoder: int = 1
    """Version of the code that read it; what an earlier one refused may be readable now."""

    def matches(self, candidate: Candidate) -> bool:
        mine = (self.path, self.cut_id, self.size, self.mtime_ns, self.decoder)
        return mine == (candidate.path, candidate.cut_id, candidate.size, candidate.mtime_ns, DECODER_VERSION)


def decide(candidates: list[Candidate], folder: DataFolder) -> tuple[dict[str, Examined], list[Candidate]]:
    """Results of an earlier (perhaps killed) run that still hold, by path, and the candidates to be examined now."""
    journal = _read_journal(folder.scan_journal)
    known = {c.path: journal[c.slot] for c in candidates if c.slot in journal and _holds(journal[c.slot], c, folder)}
    return known, [candidate for candidate in candidates if candidate.path not in known]


def write_spectrograms(
    todo: list[Candidate], audio_dir: Path, folder: DataFolder, settings: FrontendSettings, workers: int, known: int = 0
) -> dict[str, Examined]:
    """Decode each candidate and write its spectrogram; results by path, each in the journal as soon as it is there.

    Args:
        known: how many more are done already, for the progress bar.
    """
    results = {}
    folder.scan_journal.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.scan_journal, "a", encoding="utf-8") as journal, progress() as bar:
        task = bar.add_task("Reading recordings", total=known + len(todo), completed=known, note="")
        for result in _examine(todo, audio_dir, folder, settings, workers):
            results[result.path] = result
            journal.write(json.dumps(vars(result), ensure_ascii=False) + "\n")
            journal.flush()
            bar.advance(task)
    return results


def _examine(
    todo: list[Candidate], audio_dir: Path, folder: DataFolder, settings: FrontendSettings, workers: int
) -> Iterator[Examined]:
    workers = min(workers, len(todo) // FILES_WORTH_A_WORKER)
    at_once = FILES_AT_ONCE if workers > 1 else 1
    tasks = [todo[start : start + at_once] for start in range(0, len(todo), at_once)]
    for results in in_processes(_examine_some, tasks, (audio_dir, folder, settings), workers):
        yield from results


def in_processes(work: Callable[..., T], tasks: Sequence[Any], others: tuple[Any, ...], workers: int) -> Iterator[T]:
    """`work(task, *others)` of each task as soon as it is done, in so many processes, or with one worker in this one.

    Raises:
        UserError: a worker died.
    """
    if workers <= 1:
        yield from (work(task, *others) for task in tasks)
        return
    pool = ProcessPoolExecutor(workers, mp_context=_context(), initializer=_start_worker)
    try:
        pending = [pool.submit(work, task, *others) for task in tasks]
        for future in as_completed(pending):
            yield future.result()
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


def _start_worker() -> None:
    import torch

    torch.set_num_threads(1)
    use_memory_freely()
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A killed parent cannot end its workers, and they would wait for work for ever."""
    if parent := parent_process():
        parent.join()
    os._exit(1)


@cache
def frontend_of(settings: FrontendSettings) -> Frontend:
    from watkins_ml.audio.frontend import Frontend  # two seconds, which the parent of a worker pool need not wait

    return Frontend(settings)


def _examine_some(
    candidates: list[Candidate], audio_dir: Path, folder: DataFolder, settings: FrontendSettings
) -> list[Examined]:
    return [_examine_one(candidate, audio_dir, folder, settings) for candidate in candidates]


def _examine_one(candidate: Candidate, audio_dir: Path, folder: DataFolder, settings: FrontendSettings) -> Examined:
    frontend = frontend_of(settings)
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
    place = folder.spectrogram(*candidate.slot)
    for older in (place, windows_beside(place)):  # one must never stand beside another's windows
        older.unlink(missing_ok=True)
    centre, windows = frontend.centre_and_windows(recording)
    if windows is not None:
        write_tensors(windows_beside(place), windows, durable=False)
    write_tensors(place, centre, durable=False)
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


def _holds(result: Examined, candidate: Candidate, folder: DataFolder) -> bool:
    """Whether the file is as it was and, if it is usable, its spectrogram and its windows are there."""
    if not result.matches(candidate):
        return False
    place = folder.spectrogram(*candidate.slot)
    files = (place, windows_beside(place))[: min(result.windows, 2)]
    return result.reason is not None or all(map(is_there, files))


def is_there(file: Path) -> bool:
    try:
        return file.stat().st_size > 0  # a power cut empties files
    except FileNotFoundError:
        return False


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
