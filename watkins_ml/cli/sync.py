"""`watkins sync`: send runs to the tracking server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from watkins_ml.core.errors import UserError

EXAMPLE = "watkins sync runs/baseline-20261123-101500-1a2b"


def sync(
    run_dirs: Annotated[list[Path] | None, typer.Argument(help="Run directories; default all in runs/.")] = None,
) -> None:
    """Send to the tracking server what it has not received, and close runs whose process died."""
    from watkins_ml.core.console import err, out
    from watkins_ml.core.wording import plural
    from watkins_ml.tracking.rundir import RunDirectory
    from watkins_ml.tracking.server import check_address, tracking_uri
    from watkins_ml.tracking.sync import sync_run

    check_address()
    paths = [path for root in run_dirs or _runs(Path("runs")) for path in (root, *_parts(root))]
    if not paths:
        out.print("no runs in runs/; name a run directory")
    problems, complete = [], 0
    for path in paths:
        done = False
        try:
            for message in sync_run(RunDirectory(path)):
                out.print(message)
                done = True
            complete += not done
        except UserError as error:  # the others can still be sent
            problems.append(error)
    if complete:
        out.print(f"nothing to send for {plural(complete, 'run')}")
    if len(problems) == 1:
        raise problems[0]
    if problems:
        for problem in problems:
            err.print(str(problem))
        raise UserError(f"{len(problems)} of {len(paths)} runs are not complete on {tracking_uri()}")


def _runs(folder: Path) -> list[Path]:
    """The run directories directly in a folder; that of a study, a run itself, has those of its trials in it."""
    return sorted(journal.parent for journal in folder.glob("*/journal.jsonl"))


def _parts(run: Path) -> list[Path]:
    """The trials or folds in the folder of a study or a cross-validation; raises where one is a link to elsewhere."""
    from watkins_ml.core.confined import inside

    return [inside(run, part.name, run) for part in _runs(run)]
