"""`watkins ensemble`: several trained models as one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from watkins_ml.cli.arguments import Json, Note, Tags, named, print_json
from watkins_ml.core.errors import UsageError

EXAMPLE = "watkins ensemble models:/watkins-efficientnet@champion models:/watkins-encoder@champion --name both"


def ensemble(
    members: Annotated[
        list[str],
        typer.Argument(
            metavar="MEMBER...",
            help="Two or more MODELs of one split: run directories, models:/NAME@champion or runs:/ID; or the run "
            "directories of cross-validations over the same folds.",
        ),
    ],
    name: Annotated[str, typer.Option(help="Folder in runs/.")],
    register_as: Annotated[
        str | None, typer.Option(help="Name of the registered model; default watkins-ensemble.")
    ] = None,
    register: Annotated[bool, typer.Option(help="Whether the model is registered.")] = True,
    data: Annotated[Path | None, typer.Option(help="Prepared data; default those of the first member.")] = None,
    tag: Tags = None,
    note: Note = None,
    as_json: Json = False,
) -> None:
    """Trained models as a model of its own: the mean of their calibrated log-probabilities.

    It is tested, tracked, registered, compared and used as any other. Of cross-validations it pools the predictions of
    each fold's ensemble, to be compared with theirs. The same command continues one that was interrupted.
    """
    run_dir = named(name)
    if register_as is not None and not register:
        raise UsageError("give --register-as or --no-register, not both")
    from watkins_ml.cli.tables import print_crossval, print_run
    from watkins_ml.models.registry import family_of_members
    from watkins_ml.runs.ensemble import make_ensemble
    from watkins_ml.runs.ensemble_folds import pool_ensemble
    from watkins_ml.runs.ensemble_members import member_runs
    from watkins_ml.tracking.launch import read_launch
    from watkins_ml.tracking.server import check_address

    check_address()
    launch = read_launch((), tag or [], note)
    with member_runs(members) as found:
        if found[0].run.facts.folds is not None:
            pooled = pool_ensemble(found, run_dir, data, launch)
            if as_json:
                print_json({"run_dir": pooled.run_dir, "metrics": pooled.metrics})
            else:
                print_crossval(pooled)
            return
        own_name = (register_as or family_of_members().registered_name) if register else None
        result = make_ensemble(found, run_dir, own_name, data, launch)
        if as_json:
            print_json({"run_dir": result.run_dir, "metrics": result.metrics})
        else:
            print_run(result.run_dir, result.metrics)
