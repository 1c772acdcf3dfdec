"""`watkins fetch`: the real archive in one command."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.filesize import decimal

from watkins_ml.core.errors import UserError

if TYPE_CHECKING:
    from watkins_ml.fetch.layout import Offer
    from watkins_ml.fetch.release import Fetched, Release

HELP = """Download a public release of the Watkins archive: verified, one folder a species, with a table of sites.

Shows size, licence and the citation to give first and checks the
disk. After an interruption the same command goes on. It ends with the
commands that come next.
"""
MOST_NAMED = 50
Out = Annotated[Path, typer.Option(help="Folder for the recordings and their table.")]


class ReleaseName(StrEnum):
    """The releases on the Hugging Face Hub."""

    full = "full"
    best_of = "best-of"


fetch = typer.Typer(
    name="fetch", help=HELP, no_args_is_help=True, epilog="Example: watkins fetch archive --out watkins",
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip


@fetch.command(epilog="Example: watkins fetch archive --out watkins")
def archive(out: Out = Path("watkins")) -> None:
    """The full cuts from the Internet Archive: 15,248 cuts of 54 species in one zip of 6.7 GB."""
    from watkins_ml.fetch.archive import release

    _fetch(release(), out)


@fetch.command(epilog="Example: watkins fetch huggingface --release best-of --out best-of")
def huggingface(
    out: Out = Path("watkins"),
    release: Annotated[
        ReleaseName, typer.Option(help="full (15,248 cuts) or best-of (1,697 cuts).")
    ] = ReleaseName.full,
) -> None:
    r"""The full cuts, or the best of them, from the Hugging Face Hub (pip install 'watkins-ml\[huggingface]')."""
    from watkins_ml.fetch.huggingface import release as release_of

    _fetch(release_of(release.value), out)


@fetch.command(epilog="Example: watkins fetch kaggle --out kaggle")
def kaggle(out: Out = Path("watkins")) -> None:
    r"""About 15,567 files in class folders from Kaggle (pip install 'watkins-ml\[kaggle]')."""
    from watkins_ml.fetch.kaggle import release

    _fetch(release(), out)


def _fetch(release: Release, out: Path) -> None:
    from watkins_ml.core.console import out as console
    from watkins_ml.fetch.layout import CITATION, LICENCE
    from watkins_ml.fetch.release import fetch as fetch_release

    console.print(f"{release.name}  ({release.page})")
    console.print(f"Licence: {LICENCE}. Citation to give:", f"  {CITATION}", sep="\n")
    try:
        _print_fetched(fetch_release(release, out, lambda offer: _announce(offer, out)))
    except KeyboardInterrupt:
        raise UserError("interrupted; the same command goes on from here") from None


def _announce(offer: Offer, out: Path) -> None:
    from watkins_ml.core.console import out as console

    size = decimal(offer.download_bytes) if offer.download_bytes else "size unknown"
    console.print(f"Download: {size} to {out}; the recordings will take {decimal(offer.recording_bytes)} there")


def _print_fetched(fetched: Fetched) -> None:
    from watkins_ml.core.console import err
    from watkins_ml.core.console import out as console
    from watkins_ml.core.wording import plural
    from watkins_ml.dataset.prepare import DEFAULT_GROUP_REGEX

    folder, seal = fetched.folder, fetched.seal
    state = "Already complete" if fetched.was_there else "Complete"
    console.print(
        f"{state}: {folder.recordings} holds {plural(seal.recordings, 'recording')} of {seal.species} species on "
        f"{plural(seal.tapes, 'tape')} ({decimal(seal.bytes)}); {folder.metadata} has a site for {seal.with_site:,} of "
        "them"
    )
    if seal.sites_missing:
        err.print(
            f"No sites, dates and notes: {seal.sites_missing}. The recordings are complete without them; the same "
            "command asks for them again"
        )
    for spelling, named in list(seal.other_scientific_names.items())[:MOST_NAMED]:
        err.print(f"The release calls {spelling} {named}; the table has the species' own name")
    if seal.unknown_species:
        names = [*seal.unknown_species[:MOST_NAMED], *["…"][: len(seal.unknown_species) > MOST_NAMED]]
        err.print(f"Not in the table of species, so without scientific name: {', '.join(names)}")
    rule = "" if seal.group_regex == DEFAULT_GROUP_REGEX else f" --group-regex '{seal.group_regex}'"
    console.print("Next:")
    console.print(f"  watkins prepare {folder.recordings} --metadata {folder.metadata}{rule} --out data")
    console.print("  watkins train experiments/baseline.yaml")
