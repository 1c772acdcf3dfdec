"""Synchronising MLflow with a run directory, from any process and at any time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from watkins_ml.core.console import err
from watkins_ml.core.errors import UserError
from watkins_ml.core.wording import plural
from watkins_ml.tracking.faults import diagnose
from watkins_ml.tracking.records import TRAIN
from watkins_ml.tracking.run_files import check_confined
from watkins_ml.tracking.rundir import RunDirectory, StillTrainingError
from watkins_ml.tracking.upload import Upload


def sync_run(run: RunDirectory) -> Iterator[str]:
    """Close a run whose process died and send what the server has not received; yields what was done, in sentences.

    Nothing for a run that needs neither.

    Raises:
        UserError: not a run directory, one that leads out of its folder, or the server does not take it.
    """
    check_confined(run.root)
    command = run.facts.command
    how_to_continue = f"{TRAIN} --resume {run.root}" if command == TRAIN else f"`{command}`"
    try:
        with run.training():
            if run.close_if_dead() == "KILLED":
                yield f"{run.root}: its process is gone, so it ends as KILLED; {how_to_continue} goes on"
    except StillTrainingError:
        yield f"{run.root}: still training; its own process sends the rest"
    upload = Upload(run)
    try:
        sent = upload.send()
    except UserError:
        raise
    except Exception as error:  # any error of the tracker becomes one sentence
        fault = diagnose(error, upload.uri)
        then = "try again later" if fault.transient else "then try again"
        raise UserError(f"{run.root}: not sent to {upload.uri}: {fault}; {then}") from None
    if sent:
        yield f"{run.root}: {sent} of {plural(upload.state['sent'], 'entry', 'entries')} sent"
    yield from upload.messages


def sync_all(folder: Path) -> None:
    """Close and send all runs inside a folder, reporting only what goes wrong; the rest is left to `watkins sync`."""
    for journal in sorted(folder.glob("*/journal.jsonl")):
        try:
            for _ in sync_run(RunDirectory(journal.parent)):
                pass
        except UserError as error:
            err.print(f"{error} with `watkins sync {folder}`", style="yellow")
            return
