"""A simulated archive: the labels and tapes of a real one, and audio of which the truth is known.

Every tape has its own colour (noise, hum, level, native rate, band limit, ripple, echo) and every species its
own call, each at a strength that is set. With calls of strength 0 nothing but the tape tells a species, so
that a model is worth nothing on a new tape; with tapes of strength 0 all recorders are one.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soxr

from voices import Voice
from watkins_ml.core.console import progress
from watkins_ml.core.csv_import import import_csv
from watkins_ml.core.errors import UserError
from watkins_ml.core.files import disk_errors
from watkins_ml.demo.calls import SPECIES, Species
from watkins_ml.demo.synthesis import Rng
from watkins_ml.demo.tape import Tape, fast_length, record, unit_loudness, write_wav

MARKER = ".simulated-archive.json"
TAPE_REGEX = r"^.{5}"
FEWEST = 10
"""Cuts that every species keeps when an archive is thinned: `watkins prepare` leaves out what has fewer."""
CALL_RATE = 48_000
PLAIN_RATE = 22_050
RATES = (10_000, 16_000, 22_050, 32_000, 44_100, 48_000)
THREADS = 4

WATKINS_NAMES = {"FinWhale": "Fin_FinbackWhale"}
PUBLISHED = {WATKINS_NAMES.get(species.name, species.name): species for species in SPECIES}


@dataclass(frozen=True)
class Response:
    """What a recorder and the place it hung in do to all that is recorded.

    The gain falls by 48 dB per octave above `limit` hertz and wavers over log frequency by `ripple`, waves
    of (dB, periods an octave, phase); one echo follows after `delay` seconds, `echo` times as strong.
    """

    limit: float
    ripple: tuple[tuple[float, float, float], ...]
    delay: float
    echo: float

    def __call__(self, samples: np.ndarray, rate: int) -> np.ndarray:
        """`samples`, shape (frames,), as this recorder would have them at `rate` hertz."""
        padded = fast_length(len(samples) + round(self.delay * rate))
        frequency = np.fft.rfftfreq(padded, 1 / rate).astype(np.float32)
        octaves = np.log2(np.maximum(frequency, 20.0) / 20.0)
        decibels = sum(size * np.sin(2 * np.pi * pace * octaves + phase) for size, pace, phase in self.ripple)
        gain = 10 ** (decibels / 20) / (1 + (frequency / self.limit) ** 8)
        gain = gain * (1 + self.echo * np.exp(-2j * np.pi * self.delay * frequency))
        spectrum = np.fft.rfft(samples, padded) * gain
        return np.fft.irfft(spectrum, padded)[: len(samples)].astype(np.float32)


@dataclass(frozen=True)
class Strengths:
    """How much there is to hear, and of what.

    `call` 1 puts calls 5-20 dB above the noise in their band, 0.5 has half that amplitude, and 0 no call at all.
    `tape` 1 gives tapes that differ as recorders do, 0.5 half of that, and 0 one and the same for all.
    """

    call: float = 1.0
    tape: float = 1.0


def simulate_archive(
    table: Path | pd.DataFrame,
    folder: Path,
    strengths: Strengths | None = None,
    seed: int = 0,
    share: float = 1.0,
    most: int | None = None,
    seconds: tuple[float, float] = (0.5, 3.5),
    tape_regex: str = TAPE_REGEX,
) -> pd.DataFrame:
    """Write a cut ``folder/<species>/<clip_id>.wav`` for each row of a table, or for a `share` of the rows.

    The eight species of the ocean have their published calls, others an invented `Voice`. A cut depends on the
    seed, the strengths and its own row alone. The same call again goes on where it was interrupted.

    Args:
        table: columns clip_id and species. share, most: see `thin`. seconds: shortest and longest cut.

    Returns:
        the rows written: clip_id, species, tape.

    Raises:
        UserError: a table that cannot be used, a strength below 0, a folder that holds something else.
    """
    strengths = strengths or Strengths()
    for name, value in asdict(strengths).items():
        if not (math.isfinite(value) and value >= 0):
            raise UserError(f"{name} strength {value}: must be 0 or more")
    if not 0.1 <= seconds[0] <= seconds[1]:
        raise UserError(f"seconds {seconds[0]} to {seconds[1]}: give the shortest (0.1 or more) and the longest cut")
    cuts = thin(read_labels(table, tape_regex), share, most, seed)
    settings = {"seed": seed, "strengths": asdict(strengths), "seconds": list(seconds), "cuts": _digest(cuts)}
    archive = _Archive(Path(folder), strengths, seed, seconds, cuts)
    with disk_errors(f"cannot write the archive to {folder}", "mend that and run the same command again"):
        _claim(archive.folder, settings)
        archive.write()
    return cuts


def read_labels(table: Path | pd.DataFrame, tape_regex: str = TAPE_REGEX) -> pd.DataFrame:
    """The rows of a table with columns clip_id and species: clip_id, species, tape (found by `tape_regex`).

    Raises:
        UserError: the table cannot be read, or a row of it cannot be a file in a species folder.
    """
    name = "the table" if isinstance(table, pd.DataFrame) else str(table)
    if not isinstance(table, pd.DataFrame):
        table = import_csv(table, ("clip_id", "species")).rows
    for column in ("clip_id", "species"):
        if column not in table:
            raise UserError(f"{name}: has no column {column}; an archive needs clip_id and species")
    labels = table[["clip_id", "species"]].astype(str).reset_index(drop=True)
    if labels.empty:
        raise UserError(f"{name}: has no rows")
    for column in labels:
        unfit = labels[column].str.contains(r"[/\\\0]") | labels[column].str.strip(". ").eq("")
        if unfit.any():
            raise UserError(f"{name}: {column} '{labels[column][unfit].iloc[0]}' cannot be the name of a file")
    twice = labels.apply(lambda column: column.str.lower()).duplicated()
    if twice.any():
        row = labels[twice].iloc[0]
        raise UserError(f"{name}: {row.species}/{row.clip_id} stands there twice")
    return labels.assign(tape=[_tape_of(clip_id, tape_regex, name) for clip_id in labels["clip_id"]])


def _tape_of(clip_id: str, tape_regex: str, table: str) -> str:
    match = re.search(tape_regex, clip_id)
    tape = match and (match[1] if match.re.groups else match[0])
    if not tape:
        raise UserError(f"{table}: '{tape_regex}' finds no tape in clip_id '{clip_id}'")
    return tape


def thin(labels: pd.DataFrame, share: float, most: int | None, seed: int) -> pd.DataFrame:
    """A random `share` (above 0, to 1) of each species' rows, at most `most`, yet ten where there are so many."""
    if not 0 < share <= 1:
        raise UserError(f"share {share}: must lie above 0 and not above 1")
    if most is not None and most < FEWEST:
        raise UserError(f"at most {most} cuts of a species: must be {FEWEST} or more")
    lots = [_rng(seed, "lot", *row).random() for row in zip(labels["species"], labels["clip_id"], strict=True)]
    places = pd.Series(lots, index=labels.index).groupby(labels["species"]).rank(method="first")
    counts = labels.groupby("species")["clip_id"].transform("size")
    wanted = (counts * share).round().clip(upper=most).clip(lower=FEWEST)
    return labels[places <= wanted].reset_index(drop=True)


def on_new_tapes(labels: pd.DataFrame) -> pd.DataFrame:
    """As many cuts of each species as in `labels`, every one on a tape of its own that `labels` does not have.

    What a model is worth on them is what it is worth in the sea, as an average over tapes.
    """
    known, number = set(labels["tape"]), 0
    tapes: list[str] = []
    while len(tapes) < len(labels):
        tape = "n" + np.base_repr(number, 36).zfill(4)
        number += 1
        if tape not in known:
            tapes.append(tape)
    return pd.DataFrame({"clip_id": [f"{tape}001" for tape in tapes], "species": labels["species"].to_numpy()})


def draw_table(seed: int = 0, species: int = 44, largest: int = 2600) -> pd.DataFrame:
    """Labels of an archive that does not exist, as unbalanced as a real one: clip_id, species.

    The commonest species has `largest` cuts, the rarest twelve or so; a species has from one tape to about sixty.
    """
    rng = np.random.default_rng(seed)
    ranks = np.linspace(0, 1, species)
    counts = np.maximum(12, largest * (12 / largest) ** ranks * rng.uniform(0.8, 1.2, species)).astype(int)
    rows, reel = [], 0
    for index, count in enumerate(counts):
        tapes = int(np.clip(0.9 * count**0.5 * rng.uniform(0.3, 1.6), 1, count // 4))
        of_cut = np.sort(rng.choice(tapes, count, p=rng.dirichlet(np.full(tapes, 0.8)) * 0.9 + 0.1 / tapes))
        for tape in np.unique(of_cut):
            rows += [(f"{10000 + reel}{cut:03d}", f"Species{index + 1:02d}") for cut in range((of_cut == tape).sum())]
            reel += 1
    return pd.DataFrame(rows, columns=["clip_id", "species"])


@dataclass(frozen=True)
class _Archive:
    """The cuts to write and all that decides how they sound."""

    folder: Path
    strengths: Strengths
    seed: int
    seconds: tuple[float, float]
    cuts: pd.DataFrame

    def write(self) -> None:
        tapes = {id: draw_tape(_rng(self.seed, "tape", id), id, self.strengths.tape) for id in set(self.cuts["tape"])}
        voices = {name: self._voice(name) for name in set(self.cuts["species"])}
        for name in voices:
            (self.folder / name).mkdir(exist_ok=True)
        jobs = [
            (path, voices[row.species], tapes[row.tape])
            for row in self.cuts.itertuples()
            if not (path := self.folder / row.species / f"{row.clip_id}.wav").exists()
        ]
        # Threads are enough: a cut is a few dozen array operations that all let go of the interpreter.
        with ThreadPoolExecutor(THREADS) as pool, progress() as bar:
            task = bar.add_task("Simulating cuts", total=len(self.cuts), completed=len(self.cuts) - len(jobs), note="")
            try:
                for _ in pool.map(lambda job: self._write_cut(*job), jobs):
                    bar.advance(task)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _voice(self, species: str) -> Voice | Species:
        return PUBLISHED.get(species) or Voice.drawn(_rng(self.seed, "voice", species))

    def _write_cut(self, path: Path, voice: Voice | Species, tape: Tape) -> None:
        rng = _rng(self.seed, "cut", path.parent.name, path.stem)
        length, snr = rng.uniform(*self.seconds), rng.uniform(5, 20)
        call = np.zeros(round(length * tape.rate))
        if self.strengths.call:
            clean = unit_loudness(voice.call(_rng(self.seed, "call", path.parent.name, path.stem), CALL_RATE, length))
            heard = soxr.resample(clean, CALL_RATE, tape.rate)[: len(call)]
            call[: len(heard)] = self.strengths.call * 10 ** (snr / 20) * heard
        write_wav(path, record(rng, call, voice.band, tape), tape.rate)


def draw_tape(rng: Rng, id: str, strength: float) -> Tape:
    """A tape, the farther from a plain one the greater its `strength`."""

    def within(reach: float) -> float:
        return strength * rng.uniform(-reach, reach)

    own_rate, rate = rng.uniform() < strength, int(rng.choice(RATES))
    rate = rate if own_rate else PLAIN_RATE
    ripple = tuple((within(6), rng.uniform(0.1, 1.0), rng.uniform(0, 2 * np.pi)) for _ in range(4))
    return Tape(
        id=id,
        rate=rate,
        channels=1,
        tilt=max(0.0, 3 + within(3)),
        corner=100 * 2 ** within(1.5),
        level=min(-15.0, -32 + within(10)),
        hum=float(rng.choice([50, 60])),
        hum_level=rng.uniform(-20, 6) + (20 * math.log10(strength) if strength else -math.inf),
        response=Response(
            limit=rate / 2 * 2 ** (-strength * rng.uniform(0, 1.5)),
            ripple=ripple,
            delay=rng.uniform(0.005, 0.08),
            echo=min(0.9, strength * rng.uniform(0, 0.7)),
        ),
    )


def _rng(seed: int, *names: str) -> Rng:
    """Random numbers of one thing alone, whatever else was drawn before."""
    digest = hashlib.sha256("\0".join(names).encode()).digest()
    return np.random.default_rng([seed, *np.frombuffer(digest[:16], "<u4")])


def _digest(cuts: pd.DataFrame) -> str:
    text = cuts.sort_values(["species", "clip_id"]).to_csv(index=False, lineterminator="\n")
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _claim(folder: Path, settings: dict[str, Any]) -> None:
    """Make sure that `folder` is empty or holds a part of the very same archive."""
    marker = folder / MARKER
    if marker.exists():
        if json.loads(marker.read_text(encoding="utf-8")) != settings:
            raise UserError(f"{folder}: holds another simulated archive; delete it or choose another folder")
        return
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder}: is not empty; choose a new folder for the archive")
    folder.mkdir(parents=True, exist_ok=True)
    marker.write_text(json.dumps(settings), encoding="utf-8")  # before the first cut, so that a part can be told
