"""Damaged audio files, each decided by its number: recordings in every format with bytes, blocks or fields wrong."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from functools import cache

import numpy as np
import soundfile

WRITTEN = {
    "pcm16.wav": ("WAV", "PCM_16", 8_000, 1, 0.04),
    "pcm24.wav": ("WAV", "PCM_24", 166_600, 2, 0.02),
    "float.wav": ("WAV", "FLOAT", 5_120, 1, 0.06),
    "adpcm.wav": ("WAV", "IMA_ADPCM", 11_025, 2, 0.1),
    "extensible.wav": ("WAVEX", "PCM_24", 32_000, 3, 0.03),
    "pcm16.aiff": ("AIFF", "PCM_16", 5_120, 2, 0.05),
    "pcm24.flac": ("FLAC", "PCM_24", 166_600, 1, 0.03),
    "pcm16.flac": ("FLAC", "PCM_16", 44_100, 2, 0.05),
    "vorbis.ogg": ("OGG", "VORBIS", 44_100, 1, 0.05),
    "opus.ogg": ("OGG", "OPUS", 48_000, 2, 0.08),
    "layer3.mp3": ("MP3", "MPEG_LAYER_III", 16_000, 2, 0.2),
    "pcm16.au": ("AU", "PCM_16", 8_000, 2, 0.05),
    "pcm24.caf": ("CAF", "PCM_24", 48_000, 2, 0.03),
    "float.w64": ("W64", "FLOAT", 16_000, 1, 0.05),
    "pcm16.rf64": ("RF64", "PCM_16", 22_050, 2, 0.05),
    "long-pcm16.wav": ("WAV", "PCM_16", 5_120, 2, 6.5),
    "long-float.wav": ("WAV", "FLOAT", 8_000, 1, 5.0),
    "long-pcm16.aiff": ("AIFF", "PCM_16", 8_000, 1, 4.5),
    "long-pcm16.flac": ("FLAC", "PCM_16", 5_120, 2, 9.0),
    "long-vorbis.ogg": ("OGG", "VORBIS", 8_000, 2, 6.0),
    "long-layer3.mp3": ("MP3", "MPEG_LAYER_III", 8_000, 1, 6.0),
}
"""Container, subtype, rate in Hz, channels and seconds; the long ones fill more than one window of 4 s."""
NUMBERS = (0, 1, 2, 3, 255, 1_024, 65_535, 1 << 31, (1 << 31) - 1, (1 << 32) - 1, 1 << 50, (1 << 62) + 5, (1 << 64) - 1)
SAMPLES = (0.0, 1e-39, 1e-4, 1e15, 1e25, -1e25, 3.4e38, -3.4e38, np.inf, -np.inf, np.nan)
RATES = (0.0, 0.01, 1.0, 9.0, 200.0, 1e5, 4e9, 1e300, -8_000.0)
"""For AIFF, which stores its rate as a floating point number."""


@cache
def seed(name: str) -> bytes:
    """The undamaged recording: a call that sweeps upwards over noise, another one in each channel."""
    container, subtype, rate, channels, seconds = WRITTEN[name]
    time = np.arange(round(seconds * rate))[:, None] / rate
    sweep = np.sin(2 * np.pi * rate * (0.05 * time + 0.02 * time**2 / seconds) * np.arange(1, channels + 1))
    noise = np.random.default_rng(len(name)).standard_normal((len(time), channels))
    file = io.BytesIO()
    soundfile.write(file, (0.3 * sweep + 0.05 * noise).astype("float32"), rate, format=container, subtype=subtype)
    return file.getvalue()


def mutant(number: int, names: tuple[str, ...] = tuple(WRITTEN)) -> tuple[str, bytes]:
    """Name (its number first) and bytes of one damaged file, made from one of `names`."""
    rng = np.random.default_rng(number)
    name, kind = names[number % len(names)], list(KINDS)[number // len(names) % len(KINDS)]
    content = KINDS[kind](bytearray(seed(name)), name.rsplit(".")[-1], rng)
    if rng.random() < 0.2 and content:  # two faults at once
        kind, more = f"{kind}+", list(KINDS.values())[rng.integers(len(KINDS))]
        content = more(content, name.rsplit(".")[-1], rng)
    stem, suffix = name.split(".")
    if rng.random() < 0.1:
        suffix = ["wav", "aiff", "flac", "ogg", "mp3"][rng.integers(5)]
    return f"{number:05d}-{stem}-{kind}.{suffix}", bytes(content)


def _place(content: bytearray, rng: np.random.Generator) -> int:
    """Every other time in the header, where a wrong byte does most."""
    return int(rng.integers(min(len(content), 120) if rng.random() < 0.5 else len(content)))


def _bits(content: bytearray, _: str, rng: np.random.Generator) -> bytearray:
    for _ in range(rng.integers(1, 9)):
        content[_place(content, rng)] ^= 1 << int(rng.integers(8))
    return content


def _run(content: bytearray, _: str, rng: np.random.Generator) -> bytearray:
    at, length = _place(content, rng), int(rng.integers(1, 65))
    fill = (bytes(length), b"\xff" * length, rng.bytes(length))[rng.integers(3)]
    content[at : at + length] = fill[: len(content) - at]
    return content


def _cut_off(content: bytearray, _: str, rng: np.random.Generator) -> bytearray:
    return content[: int(rng.integers(len(content)))] if rng.random() < 0.5 else content[: _place(content, rng)]


def _inserted(content: bytearray, _: str, rng: np.random.Generator) -> bytearray:
    at = _place(content, rng)
    content[at:at] = rng.bytes(int(rng.integers(1, 2_000)))
    return content


def _taken_out(content: bytearray, _: str, rng: np.random.Generator) -> bytearray:
    at = _place(content, rng)
    del content[at : at + int(rng.integers(1, 500))]
    return content


def _doubled(content: bytearray, _: str, rng: np.random.Generator) -> bytearray:
    at, length = _place(content, rng), int(rng.integers(1, len(content)))
    content[at:at] = content[at : at + length] * int(rng.integers(1, 4))
    return content


def _swapped(content: bytearray, _: str, rng: np.random.Generator) -> bytearray:
    """The header of one format before the bytes of another."""
    other = seed(list(WRITTEN)[rng.integers(len(WRITTEN))])
    return bytearray(other[: int(rng.integers(4, 120))]) + content[int(rng.integers(120)) :]


def _empty(content: bytearray, _: str, rng: np.random.Generator) -> bytearray:
    return (bytearray(), bytearray(len(content)), content[: int(rng.integers(50))])[rng.integers(3)]


def _field(content: bytearray, kind: str, rng: np.random.Generator) -> bytearray:
    """One to three fields of the header at their extremes, the checksum made right."""
    for _ in range(rng.integers(1, 4)):
        fields = _fields(content, kind)
        if not fields:
            return _bits(content, kind, rng)
        at, width, order = fields[rng.integers(len(fields))]
        if order == "bits":  # FLAC: rate 20, channels 3, sample size 5, samples 36
            shift, size = [(44, 20), (41, 3), (36, 5), (0, 36)][rng.integers(4)]
            mask = (1 << size) - 1
            value = int.from_bytes(content[at : at + 8]) & ~(mask << shift) | (_number(rng) & mask) << shift
            content[at : at + 8] = value.to_bytes(8)
        elif order == "extended":
            content[at : at + 10] = _extended(RATES[rng.integers(len(RATES))])
        else:
            content[at : at + width] = (_number(rng) % (1 << 8 * width)).to_bytes(width, order)
    if kind == "ogg":
        _sign_pages(content)
    return content


def _number(rng: np.random.Generator) -> int:
    return NUMBERS[rng.integers(len(NUMBERS))] if rng.random() < 0.8 else int(rng.integers(1 << 62))


def _sample(content: bytearray, kind: str, rng: np.random.Generator) -> bytearray:
    """Samples of no sane size, which only floating point can hold."""
    at = content.find(b"data") + 8
    if kind != "wav" or len(content) < at + 100:
        return _run(content, kind, rng)
    for _ in range(rng.integers(1, 20)):
        start = at + 4 * int(rng.integers((len(content) - at) // 4))
        content[start : start + 4] = struct.pack("<f", SAMPLES[rng.integers(len(SAMPLES))])
    return content


def _fields(content: bytearray, kind: str) -> list[tuple[int, int, str]]:
    """Place, bytes and byte order of what the decoder believes without having seen it."""
    marks = {
        "wav": [(b"RIFF", [(4, 4)]), (b"fmt ", [(4, 4), (8, 2), (10, 2), (12, 4), (12, 4), (16, 4), (20, 2), (22, 2)]),
                (b"fact", [(8, 4)]), (b"data", [(4, 4)])],
        "au": [(b".snd", [(place, 4) for place in range(4, 24, 4)])],
        "caf": [(b"desc", [(4, 8), (12, 8), (20, 4), (24, 4), (28, 4), (32, 4), (36, 4), (40, 4)]), (b"free", [(4, 8)]),
                (b"data", [(4, 8), (12, 4)])],
        "w64": [(b"riff", [(16, 8)]), (b"fmt ", [(16, 8), (24, 2), (26, 2), (28, 4), (32, 4), (36, 2), (38, 2)]),
                (b"data", [(16, 8)])],
        "rf64": [(b"RF64", [(4, 4)]), (b"ds64", [(4, 4), (8, 8), (16, 8), (24, 8), (32, 4)]), (b"data", [(4, 4)]),
                 (b"fmt ", [(4, 4), (8, 2), (10, 2), (12, 4), (16, 4), (20, 2), (22, 2), (24, 2), (32, 2)])],
        "aiff": [(b"FORM", [(4, 4)]), (b"COMM", [(8, 2), (10, 4), (14, 2)]), (b"SSND", [(4, 4), (8, 4), (12, 4)])],
        "flac": [(b"fLaC", [(5, 3), (8, 2), (10, 2), (12, 3)])],
        "ogg": [(b"OggS", [(5, 1), (6, 8), (26, 1)]), (b"\x01vorbis", [(7, 4), (11, 1), (12, 4), (28, 1)]),
                (b"OpusHead", [(8, 1), (9, 1), (10, 2), (12, 4), (16, 2), (18, 1)])],
        "mp3": [(b"Info", [(4, 4), (8, 4), (12, 4)]), (b"Xing", [(4, 4), (8, 4), (12, 4)]),
                (b"\xff", [(1, 1), (2, 1)])],
    }[kind]  # fmt: skip
    order = "big" if kind in ("aiff", "au", "caf", "flac", "mp3") else "little"
    found = [
        (start + offset, width, order)
        for mark, fields in marks
        if (start := content.find(mark)) >= 0
        for offset, width in fields
    ]
    if kind == "ogg" and (last := content.rfind(b"OggS")) >= 0:
        found += [(last + 6, 8, order)] * 3  # where it says the sound ends
    if kind == "flac" and content[:4] == b"fLaC":
        found += [(18, 8, "bits")] * 6
    if kind == "aiff" and (start := content.find(b"COMM")) >= 0:
        found += [(start + 16, 10, "extended")] * 3
    return [each for each in found if each[0] + each[1] <= len(content)]


def _extended(value: float) -> bytes:
    """An 80-bit floating point number."""
    mantissa, exponent = np.frexp(abs(value))
    sign = 0x8000 if value < 0 else 0
    return struct.pack(">HQ", sign | (int(exponent) + 16_382 if value else 0), int(float(mantissa) * (1 << 63)) << 1)


@cache
def _checksums() -> list[int]:
    table = []
    for byte in range(256):
        value = byte << 24
        for _ in range(8):
            value = (value << 1 ^ (0x04C11DB7 if value & 1 << 31 else 0)) & 0xFFFFFFFF
        table.append(value)
    return table


def _sign_pages(content: bytearray) -> None:
    """Give every page its right checksum, without which an Ogg reader skips what was changed."""
    at, table = 0, _checksums()
    while (at := content.find(b"OggS", at)) >= 0 and at + 27 <= len(content):
        lacing = content[at + 27 : at + 27 + content[at + 26]]
        end = min(len(content), at + 27 + len(lacing) + sum(lacing))
        content[at + 22 : at + 26] = bytes(4)
        value = 0
        for byte in content[at:end]:
            value = (value << 8 & 0xFFFFFFFF) ^ table[value >> 24 ^ byte]
        content[at + 22 : at + 26] = value.to_bytes(4, "little")
        at += 27


KINDS: dict[str, Callable[[bytearray, str, np.random.Generator], bytearray]] = {
    "bits": _bits,
    "field": _field,
    "run": _run,
    "cut-off": _cut_off,
    "field-2": _field,
    "inserted": _inserted,
    "taken-out": _taken_out,
    "doubled": _doubled,
    "swapped": _swapped,
    "sample": _sample,
    "empty": _empty,
    "field-3": _field,
}
