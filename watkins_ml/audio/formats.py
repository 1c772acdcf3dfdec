"""Which files are recordings by their name, for every command that searches folders; what the others are."""

from __future__ import annotations

import os
import stat
from pathlib import Path, PurePath
from typing import BinaryIO

import soundfile

AUDIO_SUFFIXES = frozenset(
    ".wav .wave .bwf .rf64 .w64 .aif .aiff .aifc .au .snd .caf .flac .mp3 .mp2 .ogg .oga .opus "
    ".avr .htk .iff .svx .8svx .nist .sph .paf .pvf .sds .sf .voc .wve".split()
)
"""What libsndfile reads, but for headerless `.raw`, and `.mat` and `.xi`, which are mostly no sound."""
OTHER_AUDIO = frozenset(
    ".3gp .aac .ac3 .aa3 .amr .ape .dff .dsf .dts .m4a .m4b .mid .midi .mka .mpc .ra .raw .shn .spx .tta .wma .wv "
    ".avi .mkv .mov .mp4 .webm".split()
)
"""Audio and video of other kinds, so that they are not called something else."""

BEGINNINGS = {
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x8b": "a gzip archive",
    b"7z\xbc\xaf\x27\x1c": "a 7-Zip archive",
    b"Rar!": "a RAR archive",
    b"%PDF": "a PDF document",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"GIF8": "a GIF picture",
    b"SQLite format 3": "a database",
    b"\x7fELF": "a program",
    b"version https://git-lfs": "a pointer of Git LFS; fetch the file itself with `git lfs pull`",
    b"/annex/objects": "a pointer of git-annex; fetch the file itself with `git annex get`",
    b"\x30\x26\xb2\x75": "Windows Media (WMA), which cannot be read; convert it to WAV or FLAC",
    b"\x1a\x45\xdf\xa3": "Matroska or WebM, which cannot be read; convert it to WAV or FLAC",
    b"#!AMR": "AMR, which cannot be read; convert it to WAV or FLAC",
    b"wvpk": "WavPack, which cannot be read; convert it to WAV or FLAC",
    b"MAC ": "Monkey's Audio, which cannot be read; convert it to WAV or FLAC",
    b"DSD ": "DSD audio, which cannot be read; convert it to WAV or FLAC",
}


def is_audio_name(path: PurePath) -> bool:
    return path.suffix.lower() in AUDIO_SUFFIXES


def reason_of_name(path: PurePath) -> str:
    """Why a file is none of those that are read, by its name."""
    if path.suffix.lower() in OTHER_AUDIO:
        return f"a format that cannot be read ({path.suffix.lower()}); convert it to WAV or FLAC"
    return "not an audio file"


def reason_of_kind(path: Path) -> str | None:
    """Why something that stands in a folder, and is none itself, is no file to read; None where it is one."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return "unreadable: a link to nothing" if path.is_symlink() else None
    except OSError as error:  # a link to itself, a folder that may not be entered
        return f"unreadable: {error.strerror}"
    kinds = {stat.S_ISFIFO: "a pipe", stat.S_ISSOCK: "a socket", stat.S_ISCHR: "a device", stat.S_ISBLK: "a device"}
    found = next((what for test, what in kinds.items() if test(mode)), None)
    return found and f"unreadable: {found}, not a file"


def reason_of_content(source: Path | BinaryIO, error: soundfile.LibsndfileError) -> str:
    """Why libsndfile cannot read a file: what it is, where it is something else than audio, or the fault in it."""
    try:
        head = _beginning(source)
    except (OSError, ValueError):
        head = b""
    words = error.error_string.rstrip(".")
    if found := _what_begins_with(head):
        return f"unreadable: {found}"
    if "does not exist" in words:  # it was open just now: libsndfile means that it found no sound
        return f"unreadable: no audio is found in it; it begins with the bytes {head[:8].hex(' ')}"
    return f"unreadable: {words}"


def _beginning(source: Path | BinaryIO) -> bytes:
    if isinstance(source, Path):
        with open(source, "rb") as file:
            return file.read(512)
    source.seek(0)
    return source.read(512)


def _what_begins_with(head: bytes) -> str | None:
    if head and not head.strip(b"\0"):
        return "not audio: it begins with nothing but zero bytes"
    known = next((what for begin, what in BEGINNINGS.items() if head.startswith(begin)), None)
    if known is None and head[4:8] == b"ftyp":
        known = "MPEG-4 (M4A, MP4, MOV), which cannot be read; convert it to WAV or FLAC"
    if known is None and head[:2] in (b"\xff\xf1", b"\xff\xf9"):
        known = "AAC, which cannot be read; convert it to WAV or FLAC"
    if known is not None:
        return known if "cannot be read" in known else f"not audio but {known}"
    text = _as_text(head)
    if not text:
        return None
    begin = " ".join(text.split())[:40]
    if text.lstrip().lower().startswith(("<!doctype html", "<html", "<head", "<body")):
        return f"not audio but a web page, as servers send instead of a file; it begins with '{begin}'"
    return f"not audio but text; it begins with '{begin}'"


def _as_text(head: bytes) -> str:
    """The beginning of a text file; empty where it is none."""
    for encoding in ("utf-8-sig", "utf-16") if head[:2] in (b"\xff\xfe", b"\xfe\xff") else ("utf-8-sig",):
        text = head.decode(encoding, "ignore")
        if len(text.encode()) >= 0.9 * len(head) / (2 if encoding == "utf-16" else 1) and all(
            each.isprintable() or each in "\t\r\n" for each in text
        ):
            return text.strip()
    return ""
