"""`watkins compare`: runs or registered models side by side, as a page on disk and in MLflow."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pandas as pd

from watkins_ml.console import err
from watkins_ml.errors import UsageError
from watkins_ml.files import disk_errors
from watkins_ml.inference.resolve import run_directory
from watkins_ml.tracking.server import client, experiment_id, reason, tracking_uri

CHAMPIONS = ("models:/watkins-baseline@champion", "models:/watkins-efficientnet@champion")
LABELS = {"baseline": "Baseline", "efficientnet_b0": "EfficientNet-B0"}


def compare_models(models: list[str], page: Path) -> pd.DataFrame:
    """Write the comparison page and log it to MLflow; without `models`, compare the two champions.

    Returns:
        metrics by run, as `evaluation.compare.comparison_table` gives it.
    """
    from watkins_ml.evaluation.compare import ComparedRun, comparison_table, write_comparison

    models = models or list(CHAMPIONS)
    if len(models) < 2:
        raise UsageError("compare needs two MODELs or more (or none, for the two champions)")
    with ExitStack() as stack:
        folders = [stack.enter_context(run_directory(model)) for model in models]
        runs = [ComparedRun.from_dir(folder, label="") for folder in folders]
        runs = [ComparedRun.from_dir(run.run_dir, label) for run, label in zip(runs, _labels(runs), strict=True)]
        with disk_errors(f"cannot write {page}", "choose another file with --out"):
            write_comparison(runs, page)
        table = comparison_table(runs)
        _log(page, table, experiment=f"{runs[0].config['tracking']['experiment']}-comparisons")
    return table


def _labels(runs: list) -> list[str]:
    """The family's name, with the run's where a family comes twice."""
    families = [run.info["family"] for run in runs]
    return [
        LABELS.get(family, family) + (f" {run.info['name']}" if families.count(family) > 1 else "")
        for family, run in zip(families, runs, strict=True)
    ]


def _log(page: Path, table: pd.DataFrame, experiment: str) -> None:
    """Keep the page in MLflow, apart from the trainings; the page on disk counts, so a fault is only told."""
    try:
        server = client()
        where = experiment_id(server, experiment)
        run_id = server.create_run(where, run_name="comparison", tags={"kind": "comparison"}).info.run_id
        server.log_artifact(run_id, str(page))
        server.log_text(run_id, table.to_csv(), "comparison.csv")
        server.set_terminated(run_id)
    except Exception as error:
        err.print(f"{tracking_uri()} did not take the comparison ({reason(error)}); it is in {page}", style="yellow")
