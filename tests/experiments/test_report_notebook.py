"""`experiments/report.ipynb` run in a real kernel, on runs that it opens from an MLflow store and from a server."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image

from tests.support import EXPERIMENTS
from watkins_ml.dataset.folds import FoldRule
from watkins_ml.evaluation import plots
from watkins_ml.evaluation.runs import ComparedRun
from watkins_ml.runs.crossval import cross_validate
from watkins_ml.tracking.server import client

pytestmark = pytest.mark.slow  # kernels start, folds train
NOTEBOOK = EXPERIMENTS / "report.ipynb"


def shipped() -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOK, as_version=4)


def executed(project: Path, run: str) -> nbformat.NotebookNode:
    """The notebook after a reader has filled in its parameters and run every cell; a cell that fails raises."""
    notebook = shipped()
    [parameters] = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    parameters.source = f"PROJECT = {str(project)!r}\nRUN = {run!r}"
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    return notebook


def outputs(notebook: nbformat.NotebookNode, kind: str) -> list[str]:
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [output.data[kind] for output in shown if kind in output.get("data", {})]


def printed(notebook: nbformat.NotebookNode) -> str:
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "".join(output.text for output in shown if output.output_type == "stream" and output.name == "stdout")


def test_it_is_kept_without_what_it_printed_on_somebodys_machine():
    code = [cell for cell in shipped().cells if cell.cell_type == "code"]
    assert code and not any(cell.outputs or cell.execution_count for cell in code)


@pytest.fixture(scope="module")
def champion(finished) -> nbformat.NotebookNode:
    return executed(finished.folder, "models:/watkins-baseline@champion")


def test_a_champion_is_opened_from_the_store_and_its_scores_are_told(champion, finished):
    assert f"{finished.metrics['test_macro_f1']:.1%} macro F1" in printed(champion)
    [scores, controls] = [table for table in outputs(champion, "text/html") if "col_heading" in table]
    assert "accuracy" in scores and f"{finished.metrics['test_accuracy']:.1%}" in scores
    assert "tape" in controls and f"{finished.metrics['control_tape_accuracy']:.1%}" in controls


def test_its_confusion_matrix_is_the_one_of_the_report(champion, finished):
    run = ComparedRun.from_dir(finished.run_dir, "first")
    labels, probabilities = run.labels_and_probabilities()
    assert np.mean(labels == probabilities.argmax(axis=1)) == pytest.approx(finished.metrics["test_accuracy"])
    file = io.BytesIO()
    plots.confusion_matrix(labels, probabilities.argmax(axis=1), run.classes).savefig(file, bbox_inches="tight")
    wanted = np.asarray(Image.open(file).convert("L").resize((64, 64)), dtype=float)
    pictures = [Image.open(io.BytesIO(base64.b64decode(picture))) for picture in outputs(champion, "image/png")]
    shown = [np.asarray(picture.convert("L").resize((64, 64)), dtype=float) for picture in pictures]
    assert len(shown) == 6  # curves, matrix, reliability, risk and coverage, strip plot, gallery
    assert np.argmin([np.abs(picture - wanted).mean() for picture in shown]) == 1
    assert np.abs(shown[1] - wanted).mean() < 2


def test_a_cross_validation_is_opened_from_a_server_with_its_mistakes_to_listen_to(recipe, server, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    config = recipe("baseline", "tracking.experiment=notebook", "train.epochs=1", "optim.lr=1e-6")
    done = cross_validate(config, FoldRule(3), Path("runs/folds"))
    tracker = client()
    experiment = tracker.get_experiment_by_name("notebook").experiment_id
    [parent] = tracker.search_runs([experiment], "attributes.run_name = 'folds'")
    notebook = executed(Path.cwd(), f"runs:/{parent.info.run_id}")
    assert "pooled over 3 folds" in printed(notebook)
    run = ComparedRun.from_dir(done.run_dir, "folds")
    mistakes = run.cuts().query("shown_in == 'pair_mistake'")
    sounds = [html for html in outputs(notebook, "text/html") if "<audio" in html]
    assert len(sounds) == len(mistakes) > 0
