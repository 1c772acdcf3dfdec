"""What "nothing was lost" means: the same history and weights, and MLflow has each thing once."""

from __future__ import annotations

from pathlib import Path

import torch
from mlflow import MlflowClient

from watkins_ml.core.metric_names import on_server
from watkins_ml.tracking import registry
from watkins_ml.tracking.rundir import RunDirectory


def assert_same_result(run: Path, reference: Path) -> None:
    """History and every weight equal, bit for bit; the reports and predictions too."""
    for name in ("history.csv", "reports/metrics.json", "preds/test.csv", "preds/val.csv"):
        assert (run / name).read_bytes() == (reference / name).read_bytes(), name
    for name in ("model/weights.pt", "checkpoints/best.pt", "checkpoints/last.pt"):
        mine, theirs = (torch.load(root / name, weights_only=True) for root in (run, reference))
        assert_equal_tensors(mine, theirs)


def assert_equal_tensors(mine: object, theirs: object) -> None:
    if isinstance(mine, dict):
        assert mine.keys() == theirs.keys()
        for key in mine.keys() - {"facts"}:  # the facts hold the seconds an epoch took
            assert_equal_tensors(mine[key], theirs[key])
    elif isinstance(mine, (list, tuple)):
        assert len(mine) == len(theirs)
        for one, other in zip(mine, theirs, strict=True):
            assert_equal_tensors(one, other)
    elif isinstance(mine, torch.Tensor):
        assert torch.equal(mine, theirs)
    else:
        assert mine == theirs


def assert_tracked_once(client: MlflowClient, root: Path, name: str | None) -> None:
    """MLflow holds the run of this directory whole: every value once, with its own time; one model, one version."""
    run = RunDirectory(root)
    entries = [entry.model_dump(exclude_unset=True) for entry in run.entries()]
    facts = run.facts.model_dump(exclude_unset=True)
    experiment = client.get_experiment_by_name(facts["experiment"]).experiment_id
    (found,) = client.search_runs([experiment], f"tags.`watkins.uid` = '{facts['uid']}'")
    run_id = found.info.run_id
    assert run_id == facts["mlflow_run_id"]
    assert found.info.status == facts["status"] == "FINISHED"
    assert (found.info.start_time, found.info.end_time) == (entries[0]["time_ms"], entries[-1]["time_ms"])
    (params,) = [entry["values"] for entry in entries if entry["kind"] == "params"]
    assert found.data.params == {key: str(value) for key, value in params.items()}
    assert len(found.inputs.dataset_inputs) == 3
    _assert_metrics(client, run_id, entries)
    _assert_artifacts(client, run_id, root)
    (output,) = {output.model_id for output in found.outputs.model_outputs}
    models = client.search_logged_models([experiment], filter_string=f"source_run_id = '{run_id}'")
    assert [(model.model_id, str(model.status)) for model in models] == [(output, "READY")]
    if name is not None:
        (version,) = client.search_model_versions(f"name='{name}'")
        assert version.run_id == run_id
        holder = registry.champion(client, name)
        assert (holder is not None and holder.version == version.version) != registry.is_beaten(version)
        assert version.tags[registry.CLAIM] == ("lost" if registry.is_beaten(version) else "won")


def _assert_metrics(client: MlflowClient, run_id: str, entries: list[dict]) -> None:
    expected: dict[str, set] = {}
    for entry in entries:
        values = {"epoch": lambda e: e["metrics"] | e["timing"], "metrics": lambda e: e["values"]}.get(entry["kind"])
        for key, value in (values(entry) if values else {}).items():
            if key != "epoch":
                expected.setdefault(on_server(key), set()).add((entry["step"], value, entry["time_ms"]))
    assert set(client.get_run(run_id).data.metrics) == set(expected)
    for key, points in expected.items():
        held = [(point.step, point.value, point.timestamp) for point in client.get_metric_history(run_id, key)]
        assert sorted(held) == sorted(points), key
    steps = [entry["step"] for entry in entries if entry["kind"] == "epoch"]
    assert steps == sorted(set(steps)), "an epoch stands twice in the journal"


def _assert_artifacts(client: MlflowClient, run_id: str, root: Path) -> None:
    def names(path: str = "") -> set[str]:
        found = client.list_artifacts(run_id, path)
        return {each.path for each in found if not each.is_dir}.union(
            *(names(each.path) for each in found if each.is_dir)
        )

    (*_, shared) = [entry.paths for entry in RunDirectory(root).entries() if entry.kind == "artifacts"]
    local = [path.relative_to(root) for path in root.rglob("*") if path.is_file()]
    assert {str(path) for path in local if path.parts[0] in shared} <= names()
    assert {"history.csv", "checkpoints/best.pt", "preds/test.csv", "reports/metrics.json"} <= names()
