"""The ways beside `watkins prepare` in prepare_speed.py: a plain librosa loop, and the floor of what a machine can do.

A way is given a list of jobs: of each clip its path, the samples with which its spectrograms begin and how many samples
each has.

Example: python experiments/prepare_ways.py floor jobs.json out
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from functools import partial
from pathlib import Path

import numpy as np

CORES = os.cpu_count() or 1
MOST_WINDOWS = 16
Job = tuple[str, list[int], int]


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

    path, starts, length = job
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

    def clip(self, job: Job, out: np.ndarray, digests: bool) -> None:
        import soundfile

        path, starts, length = job
        sound, rate = soundfile.read(path, dtype="float32")
        if digests:
            hashlib.sha256(sound)
            with open(path, "rb") as file:
                hashlib.file_digest(file, "sha256")
        sound = sound if sound.ndim == 1 else sound.mean(axis=1)
        for place, start in enumerate(starts):
            audio = self.frontend.sound(sound[start : start + length], rate)
            out[place] = self.spectrogram(audio)

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


def floor(jobs: list[Job], out: Path, files: bool) -> int:
    """All cores, each with clips of its own, into one array that they share.

    With `files`, also what `prepare` cannot do without: digests of file and sound, and files of the spectrograms (of a
    long clip one of its windows and one of its middle).
    """
    import mmap
    from multiprocessing import get_context

    import torch

    from watkins_ml.memory import keep_freed_memory

    torch.set_num_threads(1)
    keep_freed_memory()
    first = np.cumsum([0, *(len(starts) for _, starts, _ in jobs)])
    ring = min(int(first[-1]), 2048) + MOST_WINDOWS + 1  # written over again, as gigabytes of it need not fit
    shared = mmap.mmap(-1, ring * 128 * 400 * 4)
    spectrograms = np.frombuffer(shared, np.float32).reshape(ring, 128, 400)
    context = get_context("fork")
    left = context.Value("l", 0)

    def work() -> None:
        parts, chunk = Floor(), 16
        while True:
            with left.get_lock():
                begin, left.value = left.value, left.value + chunk
            if begin >= len(jobs):
                return
            for number in range(begin, min(begin + chunk, len(jobs))):
                made = spectrograms[int(first[number]) % (ring - MOST_WINDOWS - 1) :][: len(jobs[number][1])]
                parts.clip(jobs[number], made, files)
                if files:
                    torch.save(torch.tensor(made[-1:]), out / f"{number}.pt")
                if files and len(made) > 1:
                    torch.save(torch.tensor(made[:-1]), out / f"{number}.windows.pt")

    workers = [context.Process(target=work) for _ in range(CORES)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if any(worker.exitcode for worker in workers):
        raise RuntimeError("a worker of the floor died")
    return int(first[-1])


WAYS = {
    "librosa": partial(with_librosa, workers=1),
    f"librosa, {CORES} processes": partial(with_librosa, workers=CORES),
    "floor": partial(floor, files=False),
    "floor, digests and files": partial(floor, files=True),
}

if __name__ == "__main__":
    WAYS[sys.argv[1]](json.loads(Path(sys.argv[2]).read_text()), Path(sys.argv[3]))
