"""The full cuts on the Internet Archive: one zip, SPECIES/YEAR/CUT.wav, with checksums in the item's list of files."""

from __future__ import annotations

import os
from urllib.parse import quote

from watkins_ml.core.errors import UserError
from watkins_ml.fetch.download import Remote
from watkins_ml.fetch.http import get_json, whole_number
from watkins_ml.fetch.layout import Offer
from watkins_ml.fetch.release import Release
from watkins_ml.fetch.zips import offer_of_zip

ITEM = "watkins-marine-mammal-sound-database-full-cuts"
ENDPOINT = "https://archive.org"


def release() -> Release:
    return Release(f"archive.org: {ITEM}", f"{ENDPOINT}/details/{ITEM}", _look)


def _look() -> Offer:
    remote = _remote()
    return offer_of_zip(remote, version=remote.checksum or "")


def _remote() -> Remote:
    """The release's zip, by the item's own list of files."""
    endpoint = (os.environ.get("WATKINS_ARCHIVE_ENDPOINT") or ENDPOINT).rstrip("/")
    item = get_json("the Internet Archive", f"{endpoint}/metadata/{ITEM}")
    try:
        zips = [one for one in item.get("files", []) if one["name"].lower().endswith(".zip") and "size" in one]
        sizes = [size for one in zips if (size := whole_number(one["size"])) is not None]
        if len(sizes) < len(zips):
            raise ValueError("a size that is no number")
        if not zips:
            raise UserError(
                f"{endpoint}/details/{ITEM}: has no zip file (any more); take another release (watkins fetch --help)"
            )
        size = max(sizes)
        chosen = zips[sizes.index(size)]
        kind = next(kind for kind in ("sha1", "md5") if chosen.get(kind))
        checksum, name = f"{kind}:{chosen[kind].lower()}", chosen["name"]
    except (AttributeError, KeyError, TypeError, ValueError, StopIteration):
        raise UserError(f"{endpoint}/metadata/{ITEM}: answers otherwise than expected; try again later") from None
    return Remote(name, lambda: f"{endpoint}/download/{ITEM}/{quote(name)}", size, checksum)
