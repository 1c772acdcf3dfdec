"""The path of each recording of a release: by its species, under its own name, never outside and never twice."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable

from watkins_ml.core.names import RESERVED
from watkins_ml.fetch.species import find


class RecordingPaths:
    """Gives each recording of a release its path: by its species, under its own name, and never outside or twice.

    Two names are the same where any system takes them for the same: by case, and by how an accent is written.
    """

    def __init__(self, taken: Iterable[str] = ()):
        taken = list(taken)
        self._uses = Counter(_base(path) for path in taken)
        self._labels: dict[str, str] = {}
        for path in taken:
            self._labels.setdefault(_folded(path.split("/")[0]), path.split("/")[0])

    def of(self, spelling: str, name: str) -> str:
        """`RissosDolphin/58004001.wav`; a second file of that name becomes `58004001~2.wav`.

        Args:
            spelling: the species as the release calls it.
            name: the file's name; folders before it are left away.
        """
        species = find(spelling)
        label = species.label if species else _plain(spelling) or "Unknown"
        label = self._labels.setdefault(_folded(label), label)
        stem, _, suffix = re.split(r"[/\\]", name)[-1].rpartition(".")
        stem = _plain(stem) or "recording"
        base = _base(f"{label}/{stem}.{suffix}")
        self._uses[base] += 1
        again = f"~{self._uses[base]}" if self._uses[base] > 1 else ""
        return f"{label}/{stem}{again}.{suffix}"


def _base(path: str) -> str:
    return _folded(re.sub(r"~\d+(?=\.\w+$)", "", path))


def _folded(name: str) -> str:
    """What Windows and macOS compare names by, or more: equal for names that meet on one of them."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).upper().casefold())


def _plain(name: str) -> str:
    """A name that can be a file's on every system, is not hidden, and has no `~`, which numbers files of one name."""
    name = unicodedata.normalize("NFC", name[:200])
    kept = (one if one.isalnum() or one in "_().' ,+=&-" or unicodedata.combining(one) else "_" for one in name)
    name = "".join(kept).encode()[:120].decode(errors="ignore").strip(". ")
    return f"_{name}" if RESERVED.fullmatch(name) else name
