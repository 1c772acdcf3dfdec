"""What the headers of WAV, AIFF, AU, CAF and Wave64 files say of their samples, right or wrong."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from watkins_ml.audio.parts import ByteOrder, Source

UNKNOWN_LENGTHS = (range(0x7FFFEF00, 0x80000001), range(0xFFFFFF00, 0x100000000))
"""What recorders that stream (ffmpeg, SoX and others) leave in a header: the largest length that fits."""
MOST_CHUNKS = 1_000
"""Before the samples, or after; more are read by libsndfile as it likes."""
KNOWN_CHUNKS = frozenset(
    name.ljust(4)
    for name in b"LIST bext iXML id3 ID3 cue smpl inst fact PEAK JUNK junk PAD FLLR minf elm1 regn umid axml chna cart "
    b"plst acid DISP guan wamd _PMX afsp MARK INST APPL NAME AUTH ANNO COMT levl SAUR".split()
)
"""Begin what is not sound, even where their own length is wrong."""
WAVE_CODES = {(1, 1): "PCM_U8", (1, 2): "PCM_16", (1, 3): "PCM_24", (1, 4): "PCM_32", (3, 4): "FLOAT", (3, 8): "DOUBLE",
              (6, 1): "ALAW", (7, 1): "ULAW"}  # fmt: skip
"""Subtypes by format tag and bytes a sample."""
SUB_FORMAT = bytes.fromhex("000000001000800000aa00389b71")
"""What follows the format tag in the identifier of an extensible format."""
AU_CODES = {1: ("ULAW", 1), 2: ("PCM_S8", 1), 3: ("PCM_16", 2), 4: ("PCM_24", 3), 5: ("PCM_32", 4), 6: ("FLOAT", 4),
            7: ("DOUBLE", 8), 27: ("ALAW", 1)}  # fmt: skip
PCM = {1: "PCM_S8", 2: "PCM_16", 3: "PCM_24", 4: "PCM_32"}
W64_TAIL = bytes.fromhex("f3acd3118cd100c04f8edb8a")


@dataclass(frozen=True)
class Samples:
    """What a header says of its samples."""

    start: int
    """Their first byte in the file."""
    declared: int | None
    """Bytes; None where the header leaves it open."""
    raw: dict[str, Any] | None
    """How they are stored; None where they are packed into blocks."""
    width: int = 1
    """Bytes of one sample of all channels."""
    wraps: bool = False
    """Whether the length has 32 bits, so that it begins again at 0 after 4 GiB."""
    claimed: int = -1
    """Where the whole file ends by its header; -1 where that is not said."""
    foreign: bool = False
    """Whether libsndfile does not know the container, or takes what follows the samples for more of them."""
    chunk_follows: Callable[[Source, int], bool] = lambda source, place: False
    """Whether another part of the file begins at a place."""


def _is_name(name: bytes) -> bool:
    return len(name) == 4 and all(32 <= each < 127 for each in name) and name[:1] != b" "


def _chunks(source: Source, place: int, order: ByteOrder, end: bytes) -> dict[bytes, tuple[int, int]] | None:
    """Place and length of the contents of each chunk up to the one called `end`; None if it does not come."""
    found: dict[bytes, tuple[int, int]] = {}
    while len(found) < MOST_CHUNKS:
        name, length = source.at(place, 4), source.number(place + 4, 4, order)
        if length < 0:
            return None
        found.setdefault(name, (place + 8, length))
        if name == end:
            return found
        place += 8 + length + length % 2
    return None


def _chunk_follows(order: ByteOrder) -> Callable[[Source, int], bool]:
    def follows(source: Source, place: int) -> bool:
        """A name, and a length that leads to another one or to the end; after a byte that makes it even or not."""
        for begin in (place, place + 1):
            if source.at(begin, 4) in KNOWN_CHUNKS:
                return True
            for _ in range(MOST_CHUNKS):
                name, length = source.at(begin, 4), source.number(begin + 4, 4, order)
                if not _is_name(name) or length < 0:
                    break
                begin += 8 + length + length % 2
                if begin >= source.size - 8 and begin <= source.size + 8:
                    return True
                if begin < source.size and not any(source.at(begin, 16)):  # filled up with zeros
                    return True
        return False

    return follows


def _riff(source: Source, head: bytes) -> Samples | None:
    if head[:4] not in (b"RIFF", b"RIFX", b"RF64", b"BW64") or head[8:12] != b"WAVE":
        return None
    order: ByteOrder = "big" if head[:4] == b"RIFX" else "little"
    wide = head[:4] in (b"RF64", b"BW64")
    chunks = _chunks(source, 12, order, b"data")
    if not chunks or b"fmt " not in chunks:
        return None
    start, declared = chunks[b"data"]
    claimed = source.number(4, 4, order) + 8
    if wide and b"ds64" in chunks:
        riff, long = (source.number(chunks[b"ds64"][0] + offset, 8, order) for offset in (0, 8))
        declared = long if declared == 0xFFFFFFFF else declared
        claimed = riff + 8
    unknown = declared < 0 or declared >= 1 << 62 or any(declared in lengths for lengths in UNKNOWN_LENGTHS)
    raw, width = _wave_format(source.at(chunks[b"fmt "][0], 40), order)
    length, foreign = None if unknown else declared, head[:4] == b"BW64"
    return Samples(start, length, raw, width, not wide, claimed, foreign, _chunk_follows(order))


def _wave_format(fmt: bytes, order: ByteOrder) -> tuple[dict[str, Any] | None, int]:
    if len(fmt) < 16:
        return None, 1
    sign = "<" if order == "little" else ">"
    tag, channels, rate, _, block = struct.unpack(f"{sign}HHIIH", fmt[:14])
    if tag == 0xFFFE and len(fmt) >= 40 and fmt[26:40] == SUB_FORMAT:
        tag = struct.unpack(f"{sign}H", fmt[24:26])[0]
    bytes_each, odd = divmod(block, channels or 1)
    subtype = None if odd or not channels else WAVE_CODES.get((tag, bytes_each))
    return _raw(subtype, rate, channels, order), max(1, block)


def _raw(subtype: str | None, rate: float, channels: int, order: ByteOrder) -> dict[str, Any] | None:
    if subtype is None or not 0 < rate < 1 << 31 or not 0 < channels <= 1_024:
        return None
    return {"samplerate": int(rate), "channels": channels, "subtype": subtype, "endian": order.upper()}


def _aiff(source: Source, head: bytes) -> Samples | None:
    if head[:4] != b"FORM" or head[8:12] not in (b"AIFF", b"AIFC"):
        return None
    chunks = _chunks(source, 12, "big", b"SSND")
    if not chunks or b"COMM" not in chunks:
        return None
    comm = source.at(chunks[b"COMM"][0], 22 if head[8:12] == b"AIFC" else 18)
    if len(comm) < 18:
        return None
    channels, _, bits, exponent, mantissa = struct.unpack(">hIhHQ", comm[:18])
    rate = mantissa * 2.0 ** (exponent - 16_446) if exponent < 16_500 else 0  # 80 bits; the sign makes it too large
    size = (bits + 7) // 8
    kinds: dict[bytes, tuple[str | None, ByteOrder]] = {
        b"": (PCM.get(size), "big"), b"NONE": (PCM.get(size), "big"), b"twos": (PCM.get(size), "big"),
        b"sowt": (PCM.get(size), "little"), b"fl32": ("FLOAT", "big"), b"FL32": ("FLOAT", "big"),
        b"fl64": ("DOUBLE", "big"), b"FL64": ("DOUBLE", "big"), b"alaw": ("ALAW", "big"), b"ulaw": ("ULAW", "big"),
    }  # fmt: skip
    subtype, order = kinds.get(comm[18:], (None, "big"))
    size = {"FLOAT": 4, "DOUBLE": 8, "ALAW": 1, "ULAW": 1}.get(subtype or "", size)
    start, declared = chunks[b"SSND"]
    skip = 8 + max(0, source.number(start, 4, "big"))
    unknown = any(declared in lengths for lengths in UNKNOWN_LENGTHS)
    length = None if unknown else max(0, declared - skip)
    claimed = source.number(4, 4, "big") + 8
    raw = _raw(subtype, rate, channels, order)
    return Samples(start + skip, length, raw, max(1, size * channels), True, claimed, False, _chunk_follows("big"))


def _au(source: Source, head: bytes) -> Samples | None:
    orders: dict[bytes, ByteOrder] = {b".snd": "big", b"dns.": "little"}
    order = orders.get(head[:4])
    if order is None:
        return None
    start, declared, code, rate, channels = (source.number(place, 4, order) for place in range(4, 24, 4))
    if channels < 0:
        return None
    subtype, size = AU_CODES.get(code, (None, 1))
    raw = _raw(subtype, rate, channels, order)
    return Samples(start, None if declared == 0xFFFFFFFF else declared, raw, size * channels or 1, wraps=True)


def _caf(source: Source, head: bytes) -> Samples | None:
    if head[:4] != b"caff":
        return None
    place, description = 8, b""
    for _ in range(MOST_CHUNKS):
        name, length = source.at(place, 4), source.number(place + 4, 8, "big", signed=True)
        if name == b"data":
            break
        if not _is_name(name) or length < 0:
            return None
        if name == b"desc":
            description = source.at(place + 12, 32)
        place += 12 + length
    if len(description) < 32 or source.at(place, 4) != b"data":
        return None
    rate, code, flags, packet, frames, channels, bits = struct.unpack(">d4sIIIII", description)
    size, plain = bits // 8, code == b"lpcm" and frames == 1 and packet == bits // 8 * channels
    subtype = {4: "FLOAT", 8: "DOUBLE"}.get(size) if flags & 1 else PCM.get(size)
    if code in (b"alaw", b"ulaw"):
        subtype, plain, size = code.decode().upper(), packet == channels, 1
    raw = _raw(subtype if plain else None, rate, channels, "little" if flags & 2 else "big")
    declared = None if length == -1 else max(0, length - 4)
    return Samples(place + 16, declared, raw, max(1, size * channels), chunk_follows=_caf_chunk_follows)


def _caf_chunk_follows(source: Source, place: int) -> bool:
    length = source.number(place + 4, 8, "big", signed=True)
    return _is_name(source.at(place, 4)) and 0 <= length <= source.size - place - 12


def _w64(source: Source, head: bytes) -> Samples | None:
    if head[:4] != b"riff" or source.at(24, 16) != b"wave" + W64_TAIL:
        return None
    place, fmt = 40, b""
    for _ in range(MOST_CHUNKS):
        name, length = source.at(place, 16), source.number(place + 16, 8, "little")
        if name[4:] != W64_TAIL or name[:4] == b"data":
            break
        if length < 24:
            return None
        if name[:4] == b"fmt ":
            fmt = source.at(place + 24, 40)
        place += -(-length // 8) * 8
    if name != b"data" + W64_TAIL:
        return None
    raw, width = _wave_format(fmt, "little")
    declared = None if length >= 1 << 62 else max(0, length - 24)
    return Samples(place + 24, declared, raw, width, foreign=True, chunk_follows=_w64_chunk_follows)


def _w64_chunk_follows(source: Source, place: int) -> bool:
    begin = -(-place // 8) * 8
    return 24 <= source.number(begin + 16, 8, "little") <= source.size - begin + 8


READERS = (_riff, _aiff, _au, _caf, _w64)
"""Each gives None for a file of another container."""
