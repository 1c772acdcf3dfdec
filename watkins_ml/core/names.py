"""Names of recordings and species as data: spelled so that any table takes them, equal in one normal form, and turned
into names of files that any system takes."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from functools import lru_cache
from pathlib import PurePath

LONGEST = 140
"""Bytes of UTF-8 in the name of a file, without suffix: what the tightest file systems in use take (eCryptfs 143)."""
ESCAPED = re.compile(rb"\\x([0-9a-f]{2})")
RESERVED = re.compile(r"(con|prn|aux|nul|(com|lpt)[\d¹²³]) *(\..*)?", re.IGNORECASE)
"""Devices of Windows, whatever suffix they get."""


def normal(name: str) -> str:
    """The form in which names are compared: disks that a Mac wrote hold é as two characters, others as one (NFC)."""
    return unicodedata.normalize("NFC", name)


def spelled(path: PurePath | str) -> str:
    r"""A path as one line of Unicode text, with `/` between folders; `opened` gives the path back.

    Bytes that are not UTF-8 (old archives are in Latin-1) and control characters are spelled `\xe9`; where there are
    any, or where a name holds such a spelling itself, a backslash is `\x5c`.
    """
    text = path if isinstance(path, str) else path.as_posix()
    if text.isprintable() and "\\" not in text:  # nearly all
        return text
    if not any(map(_is_odd, text)) and not ESCAPED.search(text.encode("utf-8", "replace")):
        return text
    return "".join(_escaped(each) if each == "\\" or _is_odd(each) else each for each in text)


def opened(spelling: str) -> str:
    """The path that `spelled` was given, as the system's functions take it."""
    return os.fsdecode(ESCAPED.sub(lambda found: bytes([int(found[1], 16)]), spelling.encode()))


def _is_odd(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")


def _escaped(character: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogateescape"))


@lru_cache(1 << 16)
def file_name(name: str) -> str:
    """What a file or folder is called that belongs to a name: the name itself where every system takes it.

    Any other (too long, ending in a dot, `CON`, with `:` or `*`) is shortened and marked with its hash.
    """
    portable = not re.search(r'[<>:"/\\|?*]|[. ]$|^\.|^$', name) and not RESERVED.fullmatch(name)
    if portable and len(name.encode()) <= LONGEST:
        return name
    start = re.sub(r"[^\w() -]", "_", name).encode()[: LONGEST - 40].decode(errors="ignore")
    return f"{start}~{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def same_file(*names: str) -> tuple[str, ...]:
    """Equal for names whose files are one on a disk that knows no upper and lower case."""
    return tuple(normal(file_name(normal(name)).casefold()) for name in names)


def unique_names(wanted: list[tuple[str, str]], sources: list[str]) -> list[str]:
    """A name for each of (folder, name), itself where no other would get the same file; else marked with its source.

    Args:
        sources: as many distinct texts, whose hash distinguishes names that clash.
    """
    names, length = [name for _, name in wanted], 0
    while clashes := _clashes([(folder, name) for (folder, _), name in zip(wanted, names, strict=True)]):
        length += 8  # longer only where a recording already has the name that another one gets by its hash
        for at in clashes:
            names[at] = f"{wanted[at][1]}~{hashlib.sha256(sources[at].encode()).hexdigest()[:length]}"
    return names


def _clashes(places: list[tuple[str, str]]) -> list[int]:
    users: dict[tuple[str, ...], list[int]] = {}
    for at, place in enumerate(places):
        users.setdefault(same_file(*place), []).append(at)
    return [at for several in users.values() if len(several) > 1 for at in several]
