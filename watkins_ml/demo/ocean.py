"""A small generated ocean: class folders of WAV cuts that resemble an archive of marine-mammal tapes."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from watkins_ml.demo.calls import SPECIES, Species
from watkins_ml.demo.synthesis import Rng
from watkins_ml.demo.tape import Tape, record, unit_loudness, write_wav

MARKER = ".generated-ocean"
MIN_TAPES = 5
MAX_CLIPS = 10_000  # beyond about 18,000 the cut numbers of the fullest tapes would need a fourth digit


@dataclass(frozen=True)
class OceanSummary:
    """What `generate_ocean` wrote.

    `species` counts the distinct readable cuts of each species and `tapes` lists its tape ids; `seconds` is
    the audio in those cuts. Besides them there are `corrupt`, a .wav that cannot be read, and `duplicate`, a
    byte-for-byte copy of the cut `original` filed under another tape of the same species.
    """

    species: dict[str, int]
    tapes: dict[str, tuple[str, ...]]
    corrupt: Path
    duplicate: Path
    original: Path
    seconds: float


def generate_ocean(out_dir: Path, seed: int = 0, clips: int = 360) -> OceanSummary:
    """Write `clips` cuts as ``out_dir/<Species>/<cut_id>.wav``, and a corrupt file and a duplicate besides.

    A cut id has eight characters, of which the first five are the tape. The cuts last 0.3-5 s, with calls
    0-20 dB above the noise in their band. The same `seed` and `clips` give the same bytes. An ocean already
    in `out_dir` is replaced; class folders that this function did not make raise FileExistsError.
    """
    counts = _counts(clips)
    out_dir = Path(out_dir)
    _clear(out_dir)
    ids = _tape_ids(np.random.default_rng([seed, 0]))
    tapes: dict[str, tuple[str, ...]] = {}
    seconds = 0.0
    for index, species in enumerate(SPECIES):
        reels = _tapes(np.random.default_rng([seed, 1, index]), species, ids)
        tapes[species.name] = tuple(tape.id for tape in reels)
        for clip in range(counts[species.name]):
            number, reel = divmod(clip, len(reels))
            rng = np.random.default_rng([seed, 2, index, clip])
            path = _cut_path(out_dir, species, reels[reel].id, number)
            seconds += _write_cut(path, rng, species, reels[reel])
    corrupt, duplicate, original = _write_flaws(out_dir, tapes, counts)
    return OceanSummary(counts, tapes, corrupt, duplicate, original, seconds)


def generate_recording(path: Path, seed: int) -> list[tuple[float, float, str]]:
    """Write 30 s of one species, calling in bouts of 2-4 s on a tape of its own, as a WAV file at `path`.

    Returns (start, end, species) of each bout, in seconds from the beginning of the file.
    """
    rng = np.random.default_rng([seed, 3])
    species = SPECIES[rng.integers(len(SPECIES))]
    tape = _tapes(rng, species, _tape_ids(rng))[0]
    clean = np.zeros(30 * tape.rate)
    found = []
    start = rng.uniform(1, 3)
    while (length := rng.uniform(2, 4)) + start < 29:
        bout = species.call(rng, tape.rate, length)
        first = round(start * tape.rate)
        clean[first : first + len(bout)] += bout
        sounding = first + np.flatnonzero(bout)
        found.append((float(sounding[0] / tape.rate), float((sounding[-1] + 1) / tape.rate), species.name))
        start += length + rng.uniform(1.5, 4)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    call = unit_loudness(clean) * 10 ** (rng.uniform(8, 18) / 20)
    write_wav(path, record(rng, call, species.band, tape), tape.rate)
    return found


def _counts(clips: int) -> dict[str, int]:
    """Clips per species in proportion to their shares, at least five; the first species takes the rest."""
    fewest = MIN_TAPES * len(SPECIES)
    if not fewest <= clips <= MAX_CLIPS:
        raise ValueError(f"clips must lie between {fewest} and {MAX_CLIPS}, not {clips}")
    whole = sum(species.share for species in SPECIES)
    counts = {species.name: max(MIN_TAPES, clips * species.share // whole) for species in SPECIES}
    counts[SPECIES[0].name] += clips - sum(counts.values())
    return counts


def _clear(out_dir: Path) -> None:
    """Prepare `out_dir`: remove an earlier ocean, and refuse class folders that are not generated."""
    folders = [out_dir / species.name for species in SPECIES]
    marker = out_dir / MARKER
    if not marker.exists():
        for folder in folders:
            if folder.exists():
                raise FileExistsError(f"{folder} was not made by generate_ocean; choose an empty folder")
    out_dir.mkdir(parents=True, exist_ok=True)
    # Marked before the first cut, so that an interrupted ocean can be replaced as well.
    marker.write_text("The class folders here are generated and may be replaced.\n", encoding="utf-8")
    for folder in folders:
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir()


def _tape_ids(rng: Rng) -> list[str]:
    """Distinct five-digit tape ids in random order: two digits of the year (1951-1995), three of the tape."""
    numbers = rng.permutation(45 * 80)[: sum(species.tapes for species in SPECIES)]
    return [f"{51 + n // 80}{1 + n % 80:03d}" for n in numbers]


def _tapes(rng: Rng, species: Species, ids: list[str]) -> list[Tape]:
    """The tapes of one species, named by ids taken from the end of `ids`; every fourth of them is stereo."""
    rates = rng.permutation(species.rates)
    return [
        Tape(
            id=ids.pop(),
            rate=int(rates[index % len(rates)]),
            channels=2 if index % 4 == 3 else 1,
            tilt=rng.uniform(0, 4.5),
            corner=rng.uniform(30, 300),
            level=rng.uniform(-45, -25),
            hum=float(rng.choice([50, 60])),
            hum_level=rng.uniform(-30, 3),
        )
        for index in range(species.tapes)
    ]


def _cut_path(out_dir: Path, species: Species, tape: str, number: int) -> Path:
    """Where the cut with this number on this tape, counted from zero, is kept."""
    return out_dir / species.name / f"{tape}{number + 1:03d}.wav"


def _write_cut(path: Path, rng: Rng, species: Species, tape: Tape) -> float:
    """Write one cut with a signal-to-noise ratio of 0-20 dB; returns its duration in seconds."""
    clean = species.call(rng, tape.rate, rng.uniform(*species.seconds))
    call = unit_loudness(clean) * 10 ** (rng.uniform(0, 20) / 20)
    write_wav(path, record(rng, call, species.band, tape), tape.rate)
    return len(clean) / tape.rate


def _write_flaws(out_dir: Path, tapes: dict[str, tuple[str, ...]], counts: dict[str, int]) -> tuple[Path, Path, Path]:
    """Add what a real archive also holds: a file cut off within its header, and one cut filed twice.

    Returns the corrupt file, the duplicate and its original. The copy bears another tape's number, as only
    then can it leak from training into test across a split by tape.
    """
    common, other = SPECIES[:2]
    last = max(counts.values())
    source = _cut_path(out_dir, common, tapes[common.name][0], 0)
    corrupt = _cut_path(out_dir, common, tapes[common.name][0], last)
    corrupt.write_bytes(source.read_bytes()[:30])
    original = _cut_path(out_dir, other, tapes[other.name][0], 0)
    duplicate = _cut_path(out_dir, other, tapes[other.name][1], last)
    shutil.copyfile(original, duplicate)
    return corrupt, duplicate, original
