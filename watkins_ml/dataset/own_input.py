"""What a model's own frontend makes of prepared recordings: computed once, kept in the data folder.

A recording's tensors are named by the SHA-256 of its file, so that they hold as long as the recording does, however
often the folder is prepared anew.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import torch

from watkins_ml.audio.any_settings import AnySettings
from watkins_ml.audio.decode import DECODER_VERSION, AudioError
from watkins_ml.audio.settings import MOST_WINDOWS
from watkins_ml.core.console import err, progress
from watkins_ml.core.errors import UserError
from watkins_ml.core.files import disk_errors, printable, write_tensors
from watkins_ml.core.wording import plural
from watkins_ml.dataset.layout import DataFolder, PreparedData, read_table, windows_beside
from watkins_ml.dataset.rows import Rows

if TYPE_CHECKING:
    from watkins_ml.audio.files import FileFrontend

Known = dict[str, int]
"""By how many tensors a recording is classified, by SHA-256; they are in its files."""


def with_own_input(
    data: PreparedData, settings: AnySettings, open_frontend: Callable[[], FileFrontend]
) -> PreparedData:
    """The same data with the tensors of a frontend of `settings` in the place of the spectrograms.

    Those that are missing are computed from the recordings; a call that was interrupted is gone on with.

    Args:
        open_frontend: is called only where some are missing.

    Raises:
        UserError: recordings are missing or have changed since they were prepared, or the disk is full.
    """
    sha256 = _sha256_of_recordings(data)
    folder = frontend_folder(data.folder, settings)
    known = _read_journal(folder)
    todo = [path for path in sha256.index if not _is_there(folder, sha256[path], known)]
    if todo:
        with disk_errors(f"cannot write to {folder}", "make room; the same command goes on from here"):
            known |= _compute(data, folder, {path: sha256[path] for path in todo}, open_frontend())
    names = {path: place_of(folder, digest).relative_to(data.folder.root).as_posix() for path, digest in sha256.items()}
    sides = {
        side: frame.assign(
            spectrogram=frame["path"].map(names), windows=[known[sha256[path]] for path in frame["path"]]
        )
        for side, frame in data.sides.items()
    }
    return replace(data, sides=sides, own_input=settings, as_prepared=data)


def frontend_folder(folder: DataFolder, settings: AnySettings) -> Path:
    """Where the tensors of a frontend are kept."""
    return folder.frontends / f"{settings.digest()}-{DECODER_VERSION}"


def place_of(folder: Path, sha256: str) -> Path:
    return folder / sha256[:2] / f"{sha256}.pt"


def _sha256_of_recordings(data: PreparedData) -> pd.Series:
    """Of each recording of a side, by path, as `prepare` found it."""
    wanted = pd.concat([frame["path"] for frame in data.sides.values()])
    table = read_table(data.folder.annotations).set_index("path")
    if "sha256" not in table or not table["sha256"].astype(str).str.fullmatch("[0-9a-f]{64}").all():
        raise UserError(f"{data.folder.annotations}: says no SHA-256 of the recordings; run `watkins prepare` again")
    return table["sha256"].loc[list(dict.fromkeys(wanted))]


def _compute(data: PreparedData, folder: Path, todo: dict[str, str], frontend: FileFrontend) -> Known:
    """The tensors of recordings, each in the journal as soon as they are there."""
    err.print(f"Embeddings of {plural(len(todo), 'recording')} are computed once and kept in {folder}")
    folder.mkdir(parents=True, exist_ok=True)
    known = {}

    rows = Rows(data)

    def one(path: str) -> tuple[str, int]:
        return todo[path], _embed(rows, path, todo[path], folder, frontend)

    with open(folder / "journal.jsonl", "a", encoding="utf-8") as journal, progress() as bar:
        task = bar.add_task("Embedding recordings", total=len(todo), note="")
        for sha256, windows in _each(one, list(todo)):
            known[sha256] = windows
            journal.write(json.dumps({"sha256": sha256, "windows": windows}) + "\n")
            journal.flush()
            bar.advance(task)
    return known


def _each(work: Callable[[str], tuple[str, int]], items: list[str]) -> Iterator[tuple[str, int]]:
    """Results in order, from as many threads as torch would use: decoders and encoders hold no interpreter's lock."""
    pool = ThreadPoolExecutor(torch.get_num_threads())
    try:
        yield from pool.map(work, items)
    finally:
        pool.shutdown(cancel_futures=True)


def _embed(rows: Rows, path: str, sha256: str, folder: Path, frontend: FileFrontend) -> int:
    """Write the tensors of one recording; how many it has beside the central one's."""
    file = rows.file(path)
    again = "put it back, or run `watkins prepare` again"
    try:
        if rows.sha256(path) != sha256:
            raise UserError(f"{printable(file)}: has changed since it was prepared; {again}")
        recording = rows.read(path, frontend, MOST_WINDOWS)
    except AudioError as error:
        raise UserError(f"{printable(file)}: {error}; {again}") from None
    except OSError as error:
        raise UserError(
            f"{printable(file)}: cannot be read ({error.strerror or error}), but the encoder hears the recordings "
            f"themselves; {again}"
        ) from None
    centre, windows = frontend.centre_and_windows(recording)
    place = place_of(folder, sha256)
    place.parent.mkdir(exist_ok=True)
    if windows is not None:
        write_tensors(windows_beside(place), windows, durable=False)
    write_tensors(place, centre, durable=False)
    return len(recording.windows) or 1


def _is_there(folder: Path, sha256: str, known: Known) -> bool:
    if sha256 not in known:
        return False
    place = place_of(folder, sha256)
    try:
        return all(file.stat().st_size > 0 for file in (place, windows_beside(place))[: min(known[sha256], 2)])
    except OSError:
        return False


def _read_journal(folder: Path) -> Known:
    """A line torn by a kill is skipped, and sealed so that the next one stands for itself."""
    journal, known = folder / "journal.jsonl", Known()
    try:
        text = journal.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return known
    for line in text.split("\n"):
        try:
            entry = json.loads(line)
            sha256, windows = str(entry["sha256"]), int(entry["windows"])
        except (ValueError, TypeError, KeyError):
            continue
        if 1 <= windows <= MOST_WINDOWS:
            known[sha256] = windows
    if text and not text.endswith("\n"):
        with open(journal, "a", encoding="utf-8") as file:
            file.write("\n")
    return known
