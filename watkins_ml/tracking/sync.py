"""Bringing MLflow up to date with a run directory, from any process and at any time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from watkins_ml.core.console import err
from watkins_ml.core.errors import UserError
from watkins_ml.core.wording import plural
from watkins_ml.tracking.faults import diagnose
from watkins_ml.tracking.run_files import check_confined
from watkins_ml.tracking.rundir import TRAIN, RunDirectory, StillTrainingError
from watkins_ml.tracking.shipment import Shipment


def catch_up(run: RunDirectory) -> Iterator[str]:
    """Close a run whose process died and send what the server has not received; yields what was done, in sentences.

    Of a run that was as it should be, nothing.

    Raises:
        UserError: not a run directory, one that leads out of its folder, or the server does not take it.
    """
    check_confined(run.root)
    command = run.facts.get("command", TRAIN)
    again = f"{TRAIN} --resume {run.root}" if command == TRAIN else f"`{command}`"
    try:
        with run.training():
            if run.close_if_dead() == "KILLED":
                yield f"{run.root}: its process is gone, so it ends as KILLED; {again} goes on"
    except StillTrainingError:
        yield f"{run.root}: still training; its own process sends the rest"
    shipment = Shipment(run)
    try:
        sent = shipment.send()
    except UserError:
        raise
    except Exception as error:  # whatever the tracker raises, the user gets one sentence
        fault = diagnose(error, shipment.uri)
        then = "try again later" if fault.passing else "then try again"
        raise UserError(f"{run.root}: {shipment.uri} did not take it: {fault}; {then}") from None
    if sent:
        yield f"{run.root}: {sent} of {plural(shipment.state['sent'], 'entry', 'entries')} sent"
    yield from shipment.messages


def catch_up_all(folder: Path) -> None:
    """Close and send all runs inside a folder, telling only what goes wrong; the rest is left to `watkins sync`."""
    for journal in sorted(folder.glob("*/journal.jsonl")):
        try:
            for _ in catch_up(RunDirectory(journal.parent)):
                pass
        except UserError as error:
            err.print(f"{error} with `watkins sync {folder}`", style="yellow")
            return
