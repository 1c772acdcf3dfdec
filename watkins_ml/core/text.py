"""Text from outside (names, messages of servers) as it may be shown: control characters are escaped."""

from __future__ import annotations

import codecs
import re

from watkins_ml.core.masking import masked

UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # control characters: escape sequences begin with one
    "\u061c\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069"  # invisible, or they change the order of what is read
    "\u2028\u2029\ufeff\ufff9-\ufffb"  # separators of lines, marks
    "\ud800-\udfff]"  # bytes of a name that is not UTF-8
)
PLAIN = {
    **dict.fromkeys("–—−─━╌╍┄┅╸╺╶╴", "-"),
    **dict.fromkeys("│┃╎╏", "|"),
    **dict.fromkeys("┌┐└┘├┤┬┴┼╭╮╯╰┏┓┗┛┡┩┳╇┻╋", "+"),
    **{"…": "...", "×": "x", "’": "'", "“": '"', "”": '"', "•": "*", "±": "+-"},
}
"""Our own characters where an encoding lacks them."""
ESCAPED = "watkins_ml_escaped"
"""The name of a way of encoding in which nothing is lost: a character that is lacking is written as `\\u9cb8`."""


def shown(text: str) -> str:
    """One line that can be shown anywhere: control characters and line breaks as `\\x1b`, `\\n`.

    The passwords of addresses in it are `***`.
    """
    return UNSAFE.sub(lambda found: _escape(found[0]), masked(text))


def _escape(character: str) -> str:
    if character in "\t\n\r":
        return repr(character)[1:-1]
    number = ord(character)
    if 0xDC80 <= number <= 0xDCFF:  # Python's form of a byte that is not UTF-8
        number -= 0xDC00
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def _encode(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(PLAIN.get(each) or _escape(each) for each in error.object[error.start : error.end]), error.end


codecs.register_error(ESCAPED, _encode)
