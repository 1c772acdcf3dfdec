"""Where the samples lie in WAV, AIFF, AU, CAF and Wave64 files whose header gives a wrong length.

Headers of 32 bits begin again at 0 after 4 GiB, are filled in only when a recording ends, or count themselves; the
samples are all there. Where they lie is plain if nothing but samples follows, each of a fixed number of bytes.
"""

from __future__ import annotations

from watkins_ml.audio.headers import READERS, Samples
from watkins_ml.audio.parts import Plan, Source

WRAP = 1 << 32
UNCLAIMED_S = 1.0
"""Less than this after the end that a header gives is not worth a word."""
SUFFIXES = (b"ID3", b"TAG", b"APETAGEX", b"<?xml")
"""What programs add behind the end of a file."""


def plan_container(source: Source) -> Plan | None:
    """How to read a file of one of these containers; None if it is none, or its header is right."""
    head = source.at(0, 16)
    for reader in READERS:
        if samples := reader(source, head):
            return _plan(source, samples)
    return None


def _plan(source: Source, samples: Samples) -> Plan | None:
    there = source.size - samples.start
    if there <= 0:
        return None
    declared = samples.declared
    if declared is None:
        return _reading(samples, there)
    if (lacking := declared - there) > 0:
        counted = lacking in {samples.start - named + odd for named in (0, 4, 8, 16) for odd in (0, 1)}  # the header
        padded = lacking <= max(1, samples.width - 1)  # an incomplete last sample, or a byte that would make it even
        if counted or padded:
            return _reading(samples, there) or Plan(whole=True)
        return _reading(samples, there, f"truncated: {there} of {declared} bytes of audio are there")
    if samples.wraps and there >= WRAP and (times := (there - declared) // WRAP):
        return _longer(samples, declared + times * WRAP)
    end = samples.start + declared
    if _ends_well(source, samples, end):
        return _reading(samples, declared) if samples.foreign else None
    if declared < samples.width:
        return _longer(samples, there)
    if samples.claimed in range(source.size - 1, source.size + 2):  # only the length of the samples is wrong
        return _longer(samples, there)
    if source.size - end < UNCLAIMED_S * _rate(samples) or not _anything(source, end):
        return None
    return Plan(note=f"its header ends after {_clock(samples, declared)}; the {source.size - end:,} bytes behind that "
                     "were not read")  # fmt: skip


def _reading(samples: Samples, length: int, problem: str | None = None, note: str | None = None) -> Plan | None:
    if samples.raw is None:  # libsndfile knows where such blocks begin, and its log tells what is missing
        return None
    return Plan((range(samples.start, samples.start + length),), samples.raw, note, problem)


def _longer(samples: Samples, length: int) -> Plan | None:
    declared = samples.declared or 0
    says = "gives no length" if declared < samples.width else f"says {_clock(samples, declared)}"
    if samples.raw is None:
        if declared < samples.width:
            return Plan(problem=f"empty: its header {says}, without which {length:,} packed bytes cannot be read")
        return Plan(note=f"its header says {declared:,} bytes; the rest of {length:,} packed ones was not read")
    return _reading(samples, length, note=f"its header {says}, but the file holds {_clock(samples, length)}; "
                                          "all of it was read")  # fmt: skip


def _clock(samples: Samples, length: int) -> str:
    seconds = length / _rate(samples)
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 7_200 else f"{seconds / 3_600:.3g} hours"


def _rate(samples: Samples) -> float:
    """Bytes a second; of packed audio (whose rate does not matter here) something like it."""
    return max(1, samples.raw["samplerate"] * samples.width) if samples.raw else 16_000


def _ends_well(source: Source, samples: Samples, end: int) -> bool:
    """Whether the file ends there, but for other chunks or what programs add at the end."""
    left = source.size - end
    if left < 8 or source.at(end, 8).startswith(SUFFIXES) or source.at(end + 1, 8).startswith(SUFFIXES[:3]):
        return True
    return samples.chunk_follows(source, end)


def _anything(source: Source, start: int) -> bool:
    """Whether there is anything but zeros (space reserved before) at the beginning and the end of what is left."""
    return any(source.at(start, 1 << 16)) or any(source.at(max(start, source.size - (1 << 16)), 1 << 16))
