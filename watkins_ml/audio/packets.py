"""MP3, FLAC and Ogg files whose length their header does not give, or gives too small.

The decoders believe what a header says, or guess: of a variable MP3 without the header of its encoder half is never
heard, and pictures in its tags count as sound. Here the packets themselves are counted, without decoding them.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cache

from watkins_ml.audio.parts import Plan, Source

KBPS = {
    (3, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (3, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (3, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""kbit/s by version (3: MPEG 1, else 2) and layer, for the codes from 1 on; layer 3 of MPEG 2 has those of layer 2."""
SAME_STREAM = 0xFFFE0C00
"""The bits of a frame's header that all frames of a stream share: version, layer and rate."""
RESYNC = 1 << 16
"""Bytes without a frame after which no more are looked for."""
FLAC_TAIL = 1 << 20
"""Where the last frames of a FLAC file are looked for if it does not say how long its longest is."""
PAGE = b"OggS"


@dataclass(frozen=True)
class Frame:
    """What the header of an MPEG audio frame says."""

    head: int
    version: int
    layer: int
    rate: int
    samples: int
    length: int
    """Bytes."""

    @property
    def side_info(self) -> int:
        """Bytes between the header and the data of the third layer, where encoders write about the whole file."""
        mono = self.head >> 6 & 3 == 3
        return (17 if mono else 32) if self.version == 3 else (9 if mono else 17)


def plan_packets(source: Source) -> Plan | None:
    """How to read an MP3, FLAC or Ogg file; None if it is none, or its header is right."""
    start = _after_tags(source)
    if source.at(start, 4) == b"fLaC":
        return _plan_flac(source, start)
    if source.at(0, 4) == PAGE:
        return _plan_ogg(source)
    first = _frame(source, start)
    return _plan_mpeg(source, start, first) if first else None


def _after_tags(source: Source) -> int:
    """Where the sound begins after ID3 tags, however many there are, and zeros behind them."""
    place = 0
    while (head := source.at(place, 10))[:3] == b"ID3" and len(head) == 10:
        place += 10 + (head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]) + 10 * (head[5] >> 4 & 1)
    for _ in range(RESYNC if place else 0):
        if source.at(place, 1) != b"\0":
            break
        place += 1
    return place


def _frame(source: Source, place: int) -> Frame | None:
    return _frame_of(source.number(place, 4, "big"))


def _frame_of(head: int) -> Frame | None:
    version, layer = head >> 19 & 3, 4 - (head >> 17 & 3)
    code, rate_code = head >> 12 & 15, head >> 10 & 3
    if head < 0 or head >> 21 != 0x7FF or version == 1 or layer == 4 or code in (0, 15) or rate_code == 3:
        return None
    rate = (44_100, 48_000, 32_000)[rate_code] >> {3: 0, 2: 1, 0: 2}[version]
    kbps = KBPS[(3, layer) if version == 3 else (2, min(layer, 2))][code - 1]
    samples = 384 if layer == 1 else 1152 if layer == 2 or version == 3 else 576
    pad = head >> 9 & 1
    length = (12_000 * kbps // rate + pad) * 4 if layer == 1 else samples // 8 * kbps * 1_000 // rate + pad
    return Frame(head, version, layer, rate, samples, length)


def _plan_mpeg(source: Source, start: int, first: Frame) -> Plan | None:
    follows = _frame(source, start + first.length)
    if start + first.length < source.size and not (follows and (follows.head ^ first.head) & SAME_STREAM == 0):
        return None
    about = start + 4 + first.side_info if first.layer == 3 else start
    has_info = source.at(about, 4) in (b"Xing", b"Info")
    flags = source.number(about + 4, 4, "big") if has_info else 0
    declared = source.number(about + 8, 4, "big") if flags & 1 else -1
    if flags & 3 == 3 and source.number(about + 12, 4, "big") == _mpeg_end(source) - start:
        return None  # by frames and by bytes
    own = has_info or source.at(start + 36, 4) == b"VBRI"
    runs, frames, cut = _runs(source, start + first.length if own else start, first)
    if not frames:
        return None
    if first.layer < 3:  # there is no header of an encoder; libmpg123's guess is right but for the tags
        return Plan((range(start, _mpeg_end(source)),), guessed=True)
    if declared == frames or (0 < frames < declared and (cut or frames + 1 < declared)):
        return None  # as it says, or truncated, which the decoder tells
    note = None
    if 0 < declared < frames:
        seconds = [count * first.samples / first.rate for count in (declared, frames)]
        note = f"its header says {seconds[0]:.4g} s, but the file holds {seconds[1]:.4g} s; all of it was read"
    return Plan((_about(first, frames), *runs), note=note)


def _mpeg_end(source: Source) -> int:
    """Where the sound ends before the tags at the end."""
    end = source.size
    if source.at(end - 128, 3) == b"TAG":
        end -= 128
    if source.at(end - 32, 8) == b"APETAGEX":
        end -= source.number(end - 20, 4, "little") + 32 * (source.number(end - 12, 4, "little") >> 31)
    return end


def _runs(source: Source, place: int, first: Frame) -> tuple[list[range], int, bool]:
    """Where frames of the stream lie, from `place` on; how many they are, and whether the last one is cut off."""
    source.ahead = 1 << 18
    runs, frames, begin, lost = [], 0, place, 0
    while place < source.size and lost < RESYNC:
        frame = _frame(source, place)
        if frame and (frame.head ^ first.head) & SAME_STREAM == 0:
            if place + frame.length > source.size:
                break
            place, frames, lost = place + frame.length, frames + 1, 0
            continue
        if place > begin:
            runs.append(range(begin, place))
        if source.at(place, 3) == b"ID3":
            tag = source.at(place, 10).ljust(10, b"\0")
            place += 10 + (tag[6] << 21 | tag[7] << 14 | tag[8] << 7 | tag[9])
        else:
            step = 128 if source.at(place, 3) == b"TAG" else 1
            place, lost = place + step, lost + step
        begin = place
    else:
        frame = None
    if place > begin and lost == 0:
        runs.append(range(begin, place))
    return runs, frames, frame is not None


def _about(first: Frame, frames: int) -> bytes:
    """A frame of silence that says how many follow, as encoders write it."""
    head = (first.head | 0x10000) & ~0xF200 | 14 << 12  # without a checksum, large enough for the numbers
    frame = _frame_of(head)
    assert frame is not None  # whose only changes are to one that exists
    content = struct.pack(">I", head) + bytes(first.side_info) + b"Xing" + struct.pack(">II", 1, frames)
    return content.ljust(frame.length, b"\0")


def _plan_flac(source: Source, start: int) -> Plan | None:
    info = source.at(start + 8, 18)
    if len(info) < 18 or source.at(start + 4, 1)[0] & 127 != 0:
        return None
    place, bits = start + 8 + 10, int.from_bytes(info[10:18], "big")
    declared = bits & ((1 << 36) - 1)
    held = _flac_length(source, info)
    if held is None or held <= declared:
        return None
    mended = (bits >> 36 << 36 | held).to_bytes(8, "big")
    rate = max(1, bits >> 44)
    note = declared and f"its header says {declared / rate:.4g} s, but the file holds {held / rate:.4g} s; " \
                        "all of it was read"  # fmt: skip
    return Plan((source.at(0, place), mended, range(place + 8, source.size)), note=note or None)


def _flac_length(source: Source, info: bytes) -> int | None:
    """Samples up to the end of the last frame, which must follow another one, or be the first."""
    length = 3 * int.from_bytes(info[7:10], "big") + 4_096 if any(info[7:10]) else FLAC_TAIL
    tail = source.at(max(0, source.size - length), length)
    fixed, ends = int.from_bytes(info[2:4], "big"), {0}
    found, place = None, 0
    while (place := tail.find(b"\xff", place)) >= 0:
        if frame := _flac_frame(tail[place : place + 16], fixed):
            first, samples = frame
            if first in ends:
                found = first + samples
            ends.add(first + samples)
        place += 1
    return found


def _flac_frame(head: bytes, fixed: int) -> tuple[int, int] | None:
    """First sample and number of samples of the frame with this header; None if it is none."""
    if len(head) < 6 or head[1] & 0xFE != 0xF8 or head[3] & 1 or head[2] < 16:
        return None
    code, width = head[2] >> 4, 4
    ones = 8 - (~head[4] & 0xFF).bit_length()  # as in UTF-8, they say how many bytes the number takes
    if ones in (1, 8):
        return None
    number, more = head[4] & 0x7F >> ones, max(0, ones - 1)
    for byte in head[5 : 5 + more]:
        number = number << 6 | byte & 0x3F
    width += 1 + more
    extra = {6: 1, 7: 2}.get(code, 0)
    samples = 192 if code == 1 else 576 << code - 2 if code < 6 else 256 << max(0, code - 8)
    if extra:
        samples = int.from_bytes(head[width : width + extra], "big") + 1
    width += extra + {12: 1, 13: 2, 14: 2}.get(head[2] & 15, 0)
    if width >= len(head) or _crc8(head[:width]) != head[width]:
        return None
    return (number if head[1] & 1 else number * fixed), samples


def _crc8(content: bytes) -> int:
    value = 0
    for byte in content:
        value = _crc8_table()[value ^ byte]
    return value


@cache
def _crc8_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value << 1 ^ 0x07) & 0xFF if value & 0x80 else value << 1
        table.append(value)
    return table


def _plan_ogg(source: Source) -> Plan | None:
    """Streams one after the other (joined files, radio) are read up to the end of the first."""
    place, started = 0, False
    source.ahead = 1 << 16
    while source.at(place, 4) == PAGE:
        head = source.at(place, 27)
        if len(head) < 27:
            break
        first = bool(head[5] & 2)
        if first and started:
            note = "holds several Ogg streams one after the other; only the first was read"
            return Plan((range(0, place),), note=note)
        started |= not first
        lacing = source.at(place + 27, head[26])
        place += 27 + head[26] + sum(lacing)
    return None
