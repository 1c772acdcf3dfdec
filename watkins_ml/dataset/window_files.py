"""A spectrogram of each chosen window of long recordings: streamed, over all cores, resumable at any few windows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from watkins_ml.annotations.recordings import LongRecording
from watkins_ml.audio.decode import DECODER_VERSION, AudioError
from watkins_ml.audio.settings import FrontendSettings
from watkins_ml.audio.stretches import read_stretches
from watkins_ml.core.console import progress
from watkins_ml.core.files import write_tensors
from watkins_ml.core.names import opened
from watkins_ml.dataset.layout import DataFolder
from watkins_ml.dataset.spectrograms import frontend_of, in_processes, is_there
from watkins_ml.dataset.windowing import by_recording

AT_ONCE = 64
"""Windows of a task: what a killed run loses of each worker."""
WORTH_A_WORKER = 500
"""Starting a worker process costs seconds of imports; fewer windows than this are done at once."""


@dataclass(frozen=True)
class Task:
    """Some windows of one channel of a recording."""

    file: Path
    recording: str
    size: int
    mtime_ns: int
    channel: int
    sample_rate: int
    """Hz."""
    samples: int
    """Of a window."""
    starts: tuple[int, ...]
    places: tuple[Path, ...]


@dataclass(frozen=True)
class WindowState:
    """What an earlier run found in a window."""

    size: int
    mtime_ns: int
    decoder: int
    start: int
    samples: int
    reason: str
    """Why it cannot be used; empty where it can."""
    note: str = ""


@dataclass(frozen=True)
class Journal:
    """What is done, a line for every few windows; a line torn by a kill is skipped."""

    path: Path

    def read(self) -> tuple[dict[str, WindowState], dict[tuple[str, int, int], str]]:
        """The last state of each window by the name of its file, and the SHA-256 of recordings by path, size, time."""
        windows: dict[str, WindowState] = {}
        digests: dict[tuple[str, int, int], str] = {}
        if not self.path.exists():
            return windows, digests
        with open(self.path, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                try:
                    entry = json.loads(line)
                    if "sha256" in entry:
                        digests[entry["recording"], entry["size"], entry["mtime_ns"]] = entry["sha256"]
                        continue
                    of_all = (entry["size"], entry["mtime_ns"], entry["decoder"])
                    windows |= {
                        name: WindowState(*of_all, start, entry["samples"], reason, note)
                        for name, start, reason, note in entry["windows"]
                    }
                except (ValueError, TypeError, KeyError):
                    continue
        return windows, digests

    def add(self, entries: Iterable[dict]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        torn = self.path.exists() and self.path.stat().st_size > 0 and not _ends_a_line(self.path)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write("\n" * torn)
            for entry in entries:
                file.write(json.dumps(entry, ensure_ascii=False) + "\n")
                file.flush()


def _ends_a_line(path: Path) -> bool:
    with open(path, "rb") as file:
        file.seek(-1, 2)
        return file.read(1) == b"\n"


def journal_of(folder: DataFolder) -> Journal:
    return Journal(folder.scan_journal.with_name(".windows.jsonl"))


def digests_of(recordings: list[LongRecording], root: Path, folder: DataFolder, workers: int) -> dict[str, str]:
    """The SHA-256 of each recording's file, by path; files that are as they were are not read again.

    Raises:
        OSError: a file cannot be read.
    """
    journal = journal_of(folder)
    _, known = journal.read()
    todo = [each for each in recordings if (each.path, each.size, each.mtime_ns) not in known]

    def digest(recording: LongRecording) -> dict:
        with open(root / opened(recording.path), "rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return {"recording": recording.path, "size": recording.size, "mtime_ns": recording.mtime_ns, "sha256": sha256}

    with ThreadPoolExecutor(workers) as pool:
        found = list(pool.map(digest, todo))
    journal.add(found)
    known |= {(each["recording"], each["size"], each["mtime_ns"]): each["sha256"] for each in found}
    return {each.path: known[each.path, each.size, each.mtime_ns] for each in recordings}


@dataclass(frozen=True)
class WindowFiles:
    """The spectrograms of windows, those there and those to be made."""

    folder: DataFolder
    places: pd.Series
    """Where the spectrogram of each row lies."""
    known: dict[int, WindowState]
    """What was done before and still holds, by row."""
    tasks: list[Task]
    todo: int
    """Windows in the tasks."""

    def write(self, settings: FrontendSettings, workers: int) -> pd.DataFrame:
        """Make what is missing; `reason` and `note` of each row, empty where there is none."""
        journal = journal_of(self.folder)
        states: dict[str, tuple[str, str]] = {}
        workers = min(workers, self.todo // WORTH_A_WORKER)
        with progress() as bar:
            task = bar.add_task("Windows", total=len(self.places), completed=len(self.known), note="")
            for entry in in_processes(_write_some, self.tasks, (settings,), workers):
                journal.add([entry])
                states |= {name: (reason, note) for name, _, reason, note in entry["windows"]}
                bar.advance(task, len(entry["windows"]))
        rows = [
            (self.known[row].reason, self.known[row].note) if row in self.known else states[place.name]
            for row, place in self.places.items()
        ]
        return pd.DataFrame(rows, columns=["reason", "note"], index=self.places.index, dtype=object)


def plan_windows(
    rows: pd.DataFrame, recordings: dict[str, LongRecording], root: Path, folder: DataFolder, seconds: float
) -> WindowFiles:
    """Which windows have their spectrogram already, and what is to be done for the others.

    Args:
        rows: columns of `windowing.ROW`.
        recordings: by path.
    """
    done, _ = journal_of(folder).read()
    names = rows["recording"].map({path: each.name for path, each in recordings.items()})
    pairs = zip(names, rows["cut_id"], strict=True)
    places = pd.Series([folder.spectrogram(*pair) for pair in pairs], index=rows.index, dtype=object)
    known, tasks, todo = {}, [], 0
    for (path, channel), of_channel in by_recording(rows):
        recording = recordings[path]
        samples = round(seconds * recording.sample_rate)
        key = (recording.size, recording.mtime_ns, DECODER_VERSION)
        missing = []
        for row, start in of_channel["start"].items():
            state = done.get(places[row].name)
            if state and (*key, start, samples) == (
                state.size, state.mtime_ns, state.decoder, state.start, state.samples
            ) and (state.reason or is_there(places[row])):  # fmt: skip
                known[row] = state
            else:
                missing.append(row)
        todo += len(missing)
        for first in range(0, len(missing), AT_ONCE):
            some = missing[first : first + AT_ONCE]
            tasks.append(Task(
                root / opened(path), path, recording.size, recording.mtime_ns, channel, recording.sample_rate, samples,
                tuple(int(rows.at[row, "start"]) for row in some), tuple(places[row] for row in some),
            ))  # fmt: skip
    return WindowFiles(folder, places, known, tasks, todo)


def _write_some(task: Task, settings: FrontendSettings) -> dict:
    """Write the spectrograms of a task; its entry in the journal."""
    frontend = frontend_of(settings)
    windows: list[list] = []
    try:
        for place, stretch in zip(
            task.places, read_stretches(task.file, task.starts, task.samples, task.channel), strict=True
        ):
            if stretch.problem is None:
                write_tensors(place, frontend(stretch.waveform, task.sample_rate), durable=False)
            windows.append([place.name, stretch.start, stretch.problem or "", "; ".join(stretch.notes)])
    except AudioError as error:
        rest = list(zip(task.places, task.starts, strict=True))[len(windows) :]
        windows += [[place.name, start, str(error), ""] for place, start in rest]
    return {
        "recording": task.recording, "size": task.size, "mtime_ns": task.mtime_ns, "decoder": DECODER_VERSION,
        "channel": task.channel, "samples": task.samples, "windows": windows,
    }  # fmt: skip
