"""Names in pictures: in any script, without boxes for what no font has, and never taken for a formula.

matplotlib's own font has Latin, Greek, Cyrillic, Arabic and Hebrew letters. For others (Chinese, Devanagari, …) a font
of the system is looked for; where none has them, the name stands in Latin letters (`鲸` as `Jing`).
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from pathlib import Path

from anyascii import anyascii
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, fontManager
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

LONGEST_NAME = 32
UNFIT = re.compile("last resort|emoji|color|symbol", re.IGNORECASE)
"""Fonts of boxes, and of coloured pictures, which matplotlib cannot draw."""
WIDE = "WF"
"""What Unicode calls the width of letters that take the room of two."""


def legible(name: str, limit: int = LONGEST_NAME) -> str:
    """A name from a folder or a file as matplotlib text: one line, shortened in the middle, in letters that are there.

    `limit` counts letters of Latin width.
    """
    clean = " ".join("".join(_letter(letter) for letter in unicodedata.normalize("NFC", name)).split())
    if (missing := _missing(clean)) and _other_font(missing) is None:
        clean = "".join(_in_latin(letter) if letter in missing else letter for letter in clean)
    return _shortened(clean, limit).replace("$", r"\$")


def set_fonts(fig: Figure) -> None:
    """Let each text of a figure use, after matplotlib's own font, the one that `legible` counts on."""
    for text in fig.findobj(Text):
        missing = {letters for word in text.get_text().split() if (letters := _missing(word))}
        if others := {font for letters in missing if (font := _other_font(letters))}:
            text.set_fontfamily([*text.get_fontfamily(), *sorted(others)])


def _letter(letter: str) -> str:
    """A blank for what breaks a line or moves the pen, nothing for marks that cannot be seen."""
    kind = unicodedata.category(letter)
    if kind in ("Cc", "Zl", "Zp"):
        return " "
    if kind == "Cs":  # a byte of a name that is not UTF-8
        return "?"
    return "" if kind in ("Cf", "Cn", "Co") else letter


def _shortened(name: str, limit: int) -> str:
    if sum(map(_width, name)) <= limit:
        return name
    return f"{_start(name, limit // 2)}…{_start(name[::-1], limit // 2 - 1)[::-1]}"


def _start(name: str, limit: int) -> str:
    """As much of a name as takes no more room than that."""
    end = 0
    while end < len(name) and limit - _width(name[end]) >= 0:
        limit -= _width(name[end])
        end += 1
    return name[:end]


def _width(letter: str) -> int:
    return 2 if unicodedata.east_asian_width(letter) in WIDE else 1


def _in_latin(letter: str) -> str:
    """What a letter sounds like; `?` for one that nobody has written down, nothing for a mark above or below one."""
    return anyascii(letter) or ("" if unicodedata.category(letter).startswith("M") else "?")


def _missing(text: str) -> frozenset[str]:
    """Its letters that matplotlib's own font has not."""
    return frozenset(letter for letter in text if not letter.isspace() and ord(letter) not in _letters_of(_own_font()))


@cache
def _own_font() -> str:
    return findfont(FontProperties())


@cache
def _letters_of(font: str) -> frozenset[int]:
    try:
        return frozenset(FT2Font(font).get_charmap())
    except (OSError, RuntimeError):  # damaged, or of coloured pictures
        return frozenset()


@cache
def _other_font(missing: frozenset[str]) -> str | None:
    """The name of a font on this machine that has all these letters, a plain one first."""
    wanted = {ord(letter) for letter in missing}
    plain = [font for font in fontManager.ttflist if font.style == "normal" and not UNFIT.search(font.name)]
    for font in sorted(plain, key=lambda font: (abs(_weight(font.weight) - 400), "Sans" not in font.name, font.name)):
        if Path(font.fname).exists() and wanted <= _letters_of(font.fname):
            return font.name
    return None


def _weight(weight: int | str) -> int:
    return weight if isinstance(weight, int) else 400 if weight in ("normal", "regular", "book") else 700
