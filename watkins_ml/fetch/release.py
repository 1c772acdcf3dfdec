"""One release from its host to a complete folder: what it is, whether it fits, and what is there already."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from watkins_ml.core.errors import UserError
from watkins_ml.core.files import disk_errors
from watkins_ml.fetch.layout import CITATION, LICENCE, Folder, Offer, Seal, complete, read_seal, working
from watkins_ml.fetch.zips import add_sites


@dataclass(frozen=True)
class Release:
    """A public release of the archive."""

    name: str
    page: str
    look: Callable[[], Offer]
    """Asks the host; raises UserError where it has no answer."""


@dataclass(frozen=True)
class Fetched:
    """A complete folder."""

    folder: Folder
    seal: Seal
    was_there: bool
    """An earlier call had completed it, so nothing was done."""


def fetch(release: Release, out: Path, announce: Callable[[Offer], None]) -> Fetched:
    """Fetch a release to `out`, or continue what an earlier call began.

    Args:
        announce: is called with what the host offers before the first byte comes.

    Raises:
        UserError: out of reach, damaged, no room; what was verified until then stays for the next call.
        UsageError: `out` holds something else.
    """
    folder = Folder(out)
    then = "correct that and run the same command again; it continues from there"
    with disk_errors(f"cannot write to {folder.root}", then):
        seal = read_seal(folder, release.name)
        if seal is not None:
            shutil.rmtree(folder.work, ignore_errors=True)  # of a call that was killed just after the seal
            return _with_sites(folder, seal)
        if folder.staged_seal.exists():
            with working(folder, None):
                return Fetched(folder, complete(folder), was_there=False)
        offer = release.look()
        announce(offer)
        folder.root.mkdir(parents=True, exist_ok=True)
        with working(folder, {"release": release.name, "version": offer.version}):
            about = {"release": release.name, "page": release.page, "version": offer.version}
            about |= {"licence": LICENCE, "citation": CITATION}
            return Fetched(folder, offer.run(folder, about), was_there=False)


def _with_sites(folder: Folder, seal: Seal) -> Fetched:
    """A complete folder, with the sites that were not available when it was fetched if they are now."""
    if not seal.sites_missing:
        return Fetched(folder, seal, was_there=True)
    try:
        return Fetched(folder, add_sites(folder, seal), was_there=False)
    except UserError:
        return Fetched(folder, seal, was_there=True)
