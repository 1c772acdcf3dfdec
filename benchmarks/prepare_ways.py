"""The ways beside `watkins prepare` in prepare_speed.py: a plain librosa loop, and the floor of what a machine can do.

A way is given a list of jobs: of each clip its path, the samples with which its windows begin, that with which the
central one begins (among them, or not), and how many samples each has.

Example: python benchmarks/prepare_ways.py floor jobs.json out
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

CORES = os.cpu_count() or 1
MOST_WINDOWS = 16
Job = tuple[str, list[int], int, int]


def all_starts(job: Job) -> list[int]:
    """No spectrogram is made twice."""
    _, starts, middle, _ = job
    return sorted({*starts, middle})


def with_librosa(jobs: list[Job], out: Path, workers: int) -> int:
    """What one writes in an afternoon; returns how many spectrograms came out."""
    if workers == 1:
        return sum(map(librosa_clip, jobs))
    from multiprocessing import get_context

    with get_context("fork").Pool(workers) as pool:
        return sum(pool.imap_unordered(librosa_clip, jobs, chunksize=16))


def librosa_clip(job: Job) -> int:
    import librosa
    import soundfile

    path, _, _, length = job
    starts = all_starts(job)
    native = soundfile.info(path).samplerate
    sound, rate = librosa.load(path, sr=16_000)
    for start in starts:
        first = round(start * rate / native)
        part = sound[first : first + min(63_841, round(length * rate / native) + 1)]
        part = np.resize(part, 63_841)  # repeats what is short, as watkins_ml does
        mel = librosa.feature.melspectrogram(
            y=part, sr=rate, n_fft=2048, win_length=512, hop_length=160, n_mels=128, htk=True, norm=None
        )
        decibels = librosa.power_to_db(mel, top_db=80)
        (decibels - decibels.mean()) / decibels.std()
    return len(starts)


class Floor:
    """The fastest parts found here, in memory that is there already."""

    TILE = 16

    def __init__(self):
        import torch

        from watkins_ml.audio.frontend import Frontend

        self.torch, self.frontend = torch, Frontend()
        s = self.frontend.settings
        self.frames, self.mel = torch.zeros(s.frames, s.n_fft), torch.empty(s.n_mels, s.frames)
        self.first = (s.n_fft - s.win_length) // 2
        pairs = self.frontend.filters.repeat_interleave(2, dim=0)  # for real and imaginary parts as they lie
        self.tiles = []
        for row in range(0, s.n_mels, self.TILE):
            used = pairs[:, row : row + self.TILE].amax(dim=1).nonzero().flatten()
            bins = slice(int(used[0]), int(used[-1]) + 1)
            self.tiles.append((slice(row, row + self.TILE), bins, pairs[bins, row : row + self.TILE].T.contiguous()))

    def clip(self, job: Job, out: np.ndarray) -> None:
        import soundfile

        path, _, _, length = job
        sound, rate = soundfile.read(path, dtype="float32")
        self.decoded(path, sound)
        sound = sound if sound.ndim == 1 else sound.mean(axis=1)
        for place, start in enumerate(all_starts(job)):
            audio = self.frontend.sound(sound[start : start + length], rate)
            out[place] = self.spectrogram(audio)
        self.made(job, out)

    def decoded(self, path: str, sound: np.ndarray) -> None:
        pass

    def made(self, job: Job, spectrograms: np.ndarray) -> None:
        pass

    def spectrogram(self, audio):
        """float32 (samples,) at 16 kHz to (n_mels, frames)."""
        torch, s = self.torch, self.frontend.settings
        half = s.win_length // 2
        parts = torch.nn.functional.pad(audio, (half, half)).unfold(0, s.win_length, s.hop_length)
        torch.mul(parts, self.frontend.window, out=self.frames[:, self.first : self.first + s.win_length])
        power = torch.view_as_real(torch.fft.rfft(self.frames)).view(s.frames, -1).square_().T
        for rows, bins, weights in self.tiles:
            torch.mm(weights, power[bins], out=self.mel[rows])
        decibels = self.mel.clamp_(min=1e-12).log10_().mul_(10)
        decibels = decibels.maximum(decibels.max() - s.top_db)
        decibels -= decibels.mean()
        return decibels / decibels.std()


class FloorWithFiles(Floor):
    """And what `prepare` cannot do without: digests of file and sound, and files of the spectrograms.

    Those of a long clip are two, one of its windows and one of its middle.
    """

    def __init__(self, out: Path):
        super().__init__()
        self.out = out

    def decoded(self, path: str, sound: np.ndarray) -> None:
        hashlib.sha256(sound)
        with open(path, "rb") as file:
            hashlib.file_digest(file, "sha256")

    def made(self, job: Job, spectrograms: np.ndarray) -> None:
        path, starts, middle, _ = job
        place = self.out / Path(path).parent.name / Path(path).stem
        place.parent.mkdir(exist_ok=True)
        at = all_starts(job)
        self.torch.save(self.torch.tensor(spectrograms[at.index(middle)]), place.with_suffix(".pt"))
        if len(starts) > 1:
            windows = spectrograms[[at.index(start) for start in starts]]
            self.torch.save(self.torch.from_numpy(windows), place.with_suffix(".windows.pt"))


def floor(jobs: list[Job], out: Path, begin: Callable[[Path], Floor]) -> int:
    """All cores, each with clips of its own, into one array that they share."""
    import mmap
    from multiprocessing import get_context

    import torch

    from watkins_ml.core.memory import keep_freed_memory

    torch.set_num_threads(1)
    keep_freed_memory()
    first = np.cumsum([0, *(len(all_starts(job)) for job in jobs)])
    ring = min(int(first[-1]), 2048)  # written over again, as gigabytes of it need not fit
    shared = mmap.mmap(-1, (ring + MOST_WINDOWS + 1) * 128 * 400 * 4)
    spectrograms = np.frombuffer(shared, np.float32).reshape(-1, 128, 400)
    context = get_context("fork")
    taken = context.Value("l", 0)

    def work() -> None:
        parts, chunk = begin(out), 16
        while True:
            with taken.get_lock():
                start, taken.value = taken.value, taken.value + chunk
            if start >= len(jobs):
                return
            for place, job in zip(first[start:] % ring, jobs[start : start + chunk], strict=False):
                parts.clip(job, spectrograms[place : place + len(all_starts(job))])

    workers = [context.Process(target=work) for _ in range(CORES)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if any(worker.exitcode for worker in workers):
        sys.exit("a worker of the floor died")
    return int(first[-1])


WAYS = {
    "librosa": partial(with_librosa, workers=1),
    f"librosa, {CORES} processes": partial(with_librosa, workers=CORES),
    "floor": partial(floor, begin=lambda out: Floor()),
    "floor, digests and files": partial(floor, begin=FloorWithFiles),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("jobs", type=Path, help="JSON, a list of [path, starts, middle, samples]")
    parser.add_argument("out", type=Path, help="an empty folder for files, where the way writes some")
    options = parser.parse_args()
    if not options.out.is_dir():
        parser.error(f"{options.out}: no such folder")
    try:
        jobs = [(str(path), [int(start) for start in starts], int(middle), int(length))
                for path, starts, middle, length in json.loads(options.jobs.read_text())]  # fmt: skip
    except (OSError, ValueError, TypeError) as error:
        parser.error(f"{options.jobs}: not a list of jobs ({error})")
    if not jobs:
        parser.error(f"{options.jobs}: no jobs")
    if missing := next((path for path, *_ in jobs if not os.path.isfile(path)), None):
        parser.error(f"{options.jobs}: {missing} is not there")
    WAYS[options.way](jobs, options.out)


if __name__ == "__main__":
    main()
