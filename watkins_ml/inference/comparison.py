"""`watkins compare` and `watkins report`: runs or registered models as a page, alone or side by side."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from watkins_ml.core.console import err
from watkins_ml.core.errors import UsageError, UserError
from watkins_ml.core.files import disk_errors, guarded
from watkins_ml.core.server_names import COMPARISONS
from watkins_ml.inference.resolve import run_directory, tracker_errors
from watkins_ml.models.registry import all_families, family
from watkins_ml.tracking import registry
from watkins_ml.tracking.faults import diagnose
from watkins_ml.tracking.server import client, experiment_id, tracking_uri

if TYPE_CHECKING:
    from watkins_ml.evaluation.runs import ComparedRun


def compare_models(models: list[str], page: Path) -> pd.DataFrame:
    """Write the comparison page and log it to MLflow; without `models`, compare the families' champions.

    Returns:
        metrics by run, as `evaluation.runs.comparison_table` gives it, with the page's `headline` among its `attrs`.
    """
    from watkins_ml.evaluation.runs import comparison_table, headline

    if len(models) == 1:
        raise UsageError("compare needs two MODELs or more (or none, for the champions of the families)")
    models = models or champions()
    with _written(models, page) as (runs, html):
        table = comparison_table(runs)
        table.attrs["headline"] = headline(runs)
        _log(page, html, table, experiment=f"{runs[0].config['tracking']['experiment']}{COMPARISONS}")
    return table


def champions() -> list[str]:
    """The champion of each family of models that has one, as MODELs.

    Raises:
        UserError: there are fewer than two, or the server does not answer.
    """
    names = dict.fromkeys(each.registered_name for each in all_families())
    with tracker_errors("compare"):
        server = client()
        found = [name for name in names if registry.champion(server, name)]
    if len(found) < 2:
        lacking = ", ".join(name for name in names if name not in found)
        raise UserError(
            f"compare: fewer than two champions on {tracking_uri()} (none of {lacking}); train and register models, "
            "promote them where they are not above their control, or name two; `watkins models` lists what there is"
        )
    return [f"models:/{name}@{registry.CHAMPION}" for name in found]


def report_model(model: str, page: Path) -> str:
    """Write the page of one run; the sentence that stands at its top."""
    from watkins_ml.evaluation.runs import headline

    with _written([model], page) as (runs, _):
        return headline(runs)


@contextmanager
def _written(models: list[str], page: Path) -> Iterator[tuple[list[ComparedRun], str]]:
    """The runs behind `models`, of which `page` has been written, and its text."""
    from watkins_ml.evaluation.page import write_page
    from watkins_ml.evaluation.runs import ComparedRun

    with ExitStack() as stack:
        folders = [stack.enter_context(run_directory(model)) for model in models]
        runs = [ComparedRun.from_dir(folder, label="") for folder in folders]
        runs = [replace(run, label=label) for run, label in zip(runs, _labels(runs), strict=True)]
        with disk_errors(f"cannot write {page}", "choose another file with --out"):
            html = write_page(runs, page)
        yield runs, html


def _labels(runs: list) -> list[str]:
    """The family's name, with the run's where a family comes twice."""
    families = [run.info["family"] for run in runs]
    return [
        _title(name) + (f" {run.info['name']}" if families.count(name) > 1 else "")
        for name, run in zip(families, runs, strict=True)
    ]


def _title(name: str) -> str:
    try:
        return family(name).title
    except UsageError:  # of a package that is not installed here
        return name


def _log(page: Path, html: str, table: pd.DataFrame, experiment: str) -> None:
    """Keep the page in MLflow, apart from the trainings; the page on disk counts, so a fault is only reported.

    Its text, and not the file: another command may have written its own there by now.
    """
    try:
        server = client()
        where = experiment_id(server, experiment)
        run_id = server.create_run(where, run_name="comparison", tags={"kind": "comparison"}).info.run_id
        server.log_text(run_id, html, page.name)
        server.log_text(run_id, table.rename(columns=guarded).to_csv(), "comparison.csv")
        server.set_terminated(run_id)
    except Exception as error:
        uri = tracking_uri()
        err.print(f"{uri} did not take the comparison ({diagnose(error, uri)}); it is in {page}", style="yellow")
