"""The trials of a study find their parent in MLflow, in whatever order and from wherever they are sent."""

import threading

from tests.support.servers import Proxy
from watkins_ml.tracking.rundir import RunDirectory
from watkins_ml.tracking.server import client
from watkins_ml.tracking.server_run import PARENT_TAG, UID_TAG
from watkins_ml.tracking.upload import Upload


def study_or_trial(folder, name: str, uid: str, parent: str | None = None, experiment: str = "sea") -> RunDirectory:
    """A run directory with the journal of a study, or of a trial of the study with the uid `parent`."""
    run = RunDirectory(folder / name)
    run.root.mkdir()
    run.update_facts(name=name, uid=uid, status="RUNNING")
    content = {} if parent is None else {"parent": {"uid": parent, "name": "study"}}
    run.record("start", name=name, uid=uid, experiment=experiment, **content)
    run.record("tags", values={"data_digest": "d1"})
    run.record("end", status="FINISHED")
    return run


def in_store(experiment: str = "sea"):
    server = client()
    return server.search_runs([server.get_experiment_by_name(experiment).experiment_id])


def test_a_trial_that_is_sent_before_its_study(store, tmp_path):
    trial = study_or_trial(tmp_path, "trial-000", "t0", parent="s")
    study = study_or_trial(tmp_path, "study", "s")
    Upload(trial).send()
    Upload(study).send()
    runs = {run.info.run_name: run for run in in_store()}
    assert set(runs) == {"trial-000", "study"}
    assert runs["trial-000"].data.tags[PARENT_TAG] == runs["study"].info.run_id
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert runs["study"].data.tags["data_digest"] == "d1"


def test_two_machines_that_send_the_first_trials_at_the_same_moment(server, tmp_path, monkeypatch):
    """Both find no parent, both create one; then both take the same."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    client().create_experiment("same-moment")
    trials = [study_or_trial(tmp_path, f"trial-00{n}", f"u{n}", "same", "same-moment") for n in range(2)]
    proxy, together = Proxy(server), threading.Barrier(2)

    def meet(number: int) -> None:
        _, path, body = proxy.requests[number - 1]
        if path.endswith("runs/create") and body["run_name"] == "study":
            together.wait(30)

    proxy.before = meet
    monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.address)
    uploads = [Upload(trial) for trial in trials]
    threads = [threading.Thread(target=upload.send) for upload in uploads]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    proxy.close()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    runs = in_store("same-moment")
    parents = [run for run in runs if run.data.tags[UID_TAG] == "same"]
    surplus = [run for run in runs if run.data.tags[UID_TAG].startswith("superseded")]
    assert len(parents) == 1 and [run.info.status for run in surplus] == ["KILLED"]
    children = [run for run in runs if PARENT_TAG in run.data.tags]
    assert len(children) == 2
    assert {run.data.tags[PARENT_TAG] for run in children} == {parents[0].info.run_id}
