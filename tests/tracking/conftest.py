"""A journal to send, without any training behind it."""

from __future__ import annotations

import pytest

from watkins_ml.tracking.rundir import RunDirectory


@pytest.fixture
def journal(tmp_path):
    """A function that gives a run directory with the journal of a run that has begun, without any training."""

    def start(name: str = "run", experiment: str = "sea") -> RunDirectory:
        run = RunDirectory(tmp_path / name)
        run.root.mkdir()
        run.update_facts(name=name, uid=f"uid of {tmp_path.name} {name}", status="RUNNING")
        run.record("start", name=name, uid=run.facts.uid, experiment=experiment)
        run.record("params", values={"optim.lr": 0.001, "tracking.register_as": None})
        run.record("tags", values={"data_digest": "d1"})
        return run

    return start
