"""A study whose workers, command, database or tracker die in the middle ends as one that nobody disturbed."""

from __future__ import annotations

import os
import pty
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import optuna
import psycopg
import pytest
import sqlalchemy
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import NullPool

from tests.support import EXPERIMENTS
from tests.support.children import hear_signals
from tests.support.servers import Postgres
from watkins_ml.tracking.rundir import RunDirectory
from watkins_ml.tracking.server import client
from watkins_ml.tuning.storage import quieten_optuna
from watkins_ml.tuning.trials import best_trial, counted

pytestmark = pytest.mark.faults
STUDY = """
base: {base}
data: {{dir: {data}, batch_size: 8}}
train: {{epochs: 4, device: cpu, early_stopping_patience: 4}}
tracking: {{experiment: sea, register_as: small}}
study:
  trials: {trials}
  startup_trials: 3
  warmup_epochs: 1
  pruner: {pruner}
  heartbeat_seconds: 2
  search:
    optim.lr: {{low: 0.0001, high: 0.02, log: true}}
    model.dropout: {{low: 0.0, high: 0.5}}
"""


class Tune:
    """`watkins tune small.yaml` as a user starts it: a process with workers of its own, in a folder of its own."""

    def __init__(self, folder: Path, recipe: str, *options: object, terminal: int | None = None, **environment: str):
        folder.mkdir(exist_ok=True)
        (folder / "small.yaml").write_text(recipe)
        self.folder, self.output = folder, folder / "output.txt"
        words = [sys.executable, "-m", "watkins_ml", "tune", "small.yaml", *map(str, options)]
        settings = os.environ | {"OMP_NUM_THREADS": "1"} | environment
        with open(self.output, "a") as file:
            said = file if terminal is None else terminal
            self.process = subprocess.Popen(
                words, cwd=folder, env=settings, stdout=said, stderr=said, start_new_session=True,
                preexec_fn=hear_signals,
            )  # fmt: skip

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def kill_all(self) -> None:
        """SIGKILL to the command and its workers, as when a machine loses its power."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def wait(self, timeout: float = 400) -> int:
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill_all()
            raise AssertionError(f"still running after {timeout} s; it said:\n{self.said}") from None

    @property
    def said(self) -> str:
        logs = [log.read_text() for log in self.folder.glob("runs/small/worker-*.log")]
        return "\n".join([self.output.read_text(), *logs])


def recipe_text(prepared: Path, trials: int, pruner: str = "none") -> str:
    return STUDY.format(base=EXPERIMENTS / "baseline.yaml", data=prepared, trials=trials, pruner=pruner)


def trials_of(url: str, name: str = "small") -> list[FrozenTrial]:
    """Of a study that is there: Optuna would make the tables where they are missing, while the command makes them."""
    quieten_optuna()
    engine = sqlalchemy.create_engine(url, poolclass=NullPool)
    try:
        with engine.connect() as connection:
            if not connection.scalar(sqlalchemy.text("SELECT count(*) FROM studies")):
                return []
        storage = optuna.storages.RDBStorage(url, {"poolclass": NullPool})
        return optuna.load_study(study_name=name, storage=storage).get_trials()
    except Exception:  # not there yet, or away
        return []


def at_work(url: str, *commands: Tune, count: int = 1, epochs: int = 1, fresh: bool = False) -> list[FrozenTrial]:
    """Wait until so many trials have seen so many epochs; with `fresh`, trials of which no worker has died yet."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        running = [
            trial
            for trial in trials_of(url)
            if trial.state is TrialState.RUNNING and "place" in trial.user_attrs and (trial.last_step or 0) >= epochs
            if not (fresh and trial.user_attrs.get("deaths"))
        ]
        if len(running) >= count:
            return running
        for command in commands:
            assert command.process.poll() is None, command.said
        time.sleep(0.1)
    raise AssertionError(f"no {count} trials at work: {trials_of(url)}\n" + "\n".join(c.said for c in commands))


def values(trials: list[FrozenTrial]) -> dict[str, tuple]:
    """Point to result, of the points that count."""
    return {str(sorted(trial.params.items())): (trial.state, trial.value) for trial in counted(trials)}


def assert_whole(url: str, wanted: int) -> None:
    """Every trial has ended, there are as many points as asked for, and none came to its end twice."""
    trials = trials_of(url)
    points = counted(trials)
    assert all(trial.state.is_finished() for trial in trials)
    assert len(points) == wanted and all(trial.state is not TrialState.FAIL for trial in points)
    assert all(trial.state is TrialState.FAIL for trial in trials if trial not in points)
    runs = [trial.user_attrs["run"] for trial in points]
    assert len(set(runs)) == len(runs)


def assert_tracked(folders: list[Path], wanted: int) -> None:
    """MLflow has one finished parent and below it each trial once, in the state in which it ended.

    A trial that went on in another machine's folder began anew there: what it left behind stands beside it, KILLED.
    """
    server = client()
    experiment = server.get_experiment_by_name("sea").experiment_id
    runs = server.search_runs([experiment])
    (parent,) = [run for run in runs if run.info.run_name == "small"]
    children = [run for run in runs if run is not parent]
    assert parent.info.status == "FINISHED"
    ended = [run for run in children if run.info.status == "FINISHED" or "pruned_at_epoch" in run.data.tags]
    assert len({run.info.run_name for run in children}) == len(ended) == wanted
    assert len(folders) > 1 or len(children) == wanted
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert {run.info.status for run in children} <= {"FINISHED", "KILLED"}
    for folder in folders:
        for facts in (folder / "runs" / "small").glob("trial-*/run.json"):
            run = RunDirectory(facts.parent)
            steps = [entry.step for entry in run.entries() if entry.kind == "epoch"]
            assert steps == sorted(set(steps)), "an epoch stands twice in the journal"


@pytest.fixture(scope="session")
def undisturbed(prepared, tmp_path_factory) -> dict[str, tuple]:
    """What five trials come to with one worker that nobody disturbs."""
    folder = tmp_path_factory.mktemp("undisturbed")
    command = Tune(folder, recipe_text(prepared, 5), MLFLOW_TRACKING_URI="http://127.0.0.1:9",
                   MLFLOW_HTTP_REQUEST_MAX_RETRIES="0")  # fmt: skip
    assert command.wait() == 0, command.said
    return values(trials_of(f"sqlite:///{folder}/runs/studies.db"))


@pytest.fixture
def database() -> Postgres:
    running = Postgres().start()
    yield running
    running.remove()


def test_four_workers_on_postgresql_one_killed_and_one_told_to_stop(prepared, server, database, tmp_path, monkeypatch):
    """Two machines with two workers each; the second one's trials can be continued by the first in its own folder."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    url, text = database.url(), recipe_text(prepared, 10, "median")
    machines = [Tune(tmp_path / name, text, "--workers", 2, "--storage", url) for name in ("one", "two")]
    killed, stopped = at_work(url, *machines, count=2)[:2]
    os.kill(killed.user_attrs["pid"], signal.SIGKILL)
    os.kill(stopped.user_attrs["pid"], signal.SIGTERM)
    for machine in machines:
        assert machine.wait() == 0, machine.said
    assert_whole(url, 10)
    trials = trials_of(url)
    continued = {trial.user_attrs["continues"]: trial for trial in trials if "continues" in trial.user_attrs}
    assert set(continued) == {killed.number, stopped.number}
    assert "ended" not in trials[killed.number].user_attrs
    assert trials[stopped.number].user_attrs["ended"] == "interrupted"
    assert "was killed (signal 9); it is replaced" in "".join(machine.said for machine in machines)
    assert_tracked([machine.folder for machine in machines], 10)
    best = best_trial(trials)
    assert [version.run_id for version in client().search_model_versions("name='small'")] == [
        RunDirectory(
            next(path for m in machines if (path := m.folder / "runs" / "small" / best.user_attrs["run"]).exists())
        ).facts.mlflow_run_id
    ]


def test_postgresql_restarted_in_the_middle(prepared, undisturbed, store, database, tmp_path):
    url = database.url()
    command = Tune(tmp_path, recipe_text(prepared, 5), "--storage", url)
    at_work(url, command)
    database.stop("fast")
    time.sleep(3)
    database.start()
    assert command.wait() == 0, command.said
    assert "is unavailable" in command.said and "is available again" in command.said
    assert_whole(url, 5)
    assert len(trials_of(url)) == 5 and values(trials_of(url)) == undisturbed
    assert_tracked([tmp_path], 5)


def test_postgresql_away_for_longer_than_a_worker_may_be_silent(prepared, server, database, tmp_path, monkeypatch):
    """Two machines judge each other by their heartbeats; when the database is back, nobody is taken for dead."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    url, text = database.url(), recipe_text(prepared, 6).replace("experiment: sea", "experiment: away")
    machines = [Tune(tmp_path / name, text, "--storage", url) for name in ("one", "two")]
    at_work(url, *machines, count=2)
    database.stop("immediate")
    time.sleep(12)  # twice what silence may last
    database.start()
    for machine in machines:
        assert machine.wait() == 0, machine.said
    assert_whole(url, 6)
    assert len(trials_of(url)) == 6, "a trial was taken from a worker that lives"


def test_everything_killed_at_random_moments(prepared, undisturbed, store, tmp_path):
    """The machine loses its power six times, never twice in the same trial; the same command goes on each time."""
    url, text = f"sqlite:///{tmp_path}/runs/studies.db", recipe_text(prepared, 5)
    chance = random.Random(0)
    for number in range(6):
        command = Tune(tmp_path, text)
        if number in (0, 4):  # while it starts
            time.sleep(chance.uniform(0, 3))
        else:
            at_work(url, command, epochs=chance.randint(0, 2), fresh=True)
            time.sleep(chance.uniform(0, 0.5))
        assert command.process.poll() is None, command.said
        command.kill_all()
    command = Tune(tmp_path, text)
    assert command.wait() == 0, command.said
    assert_whole(url, 5)
    assert values(trials_of(url)) == undisturbed
    assert_tracked([tmp_path], 5)


def test_only_the_command_is_killed(prepared, undisturbed, store, tmp_path):
    """Its workers notice, close their trials and go; the same command continues them."""
    url, text = f"sqlite:///{tmp_path}/runs/studies.db", recipe_text(prepared, 5)
    command = Tune(tmp_path, text)
    (trial,) = at_work(url, command)
    command.process.kill()
    command.process.wait()
    deadline = time.monotonic() + 60
    while Path(f"/proc/{trial.user_attrs['pid']}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not Path(f"/proc/{trial.user_attrs['pid']}").exists()
    assert trials_of(url)[trial.number].user_attrs["ended"] == "interrupted"
    command = Tune(tmp_path, text)
    assert command.wait() == 0, command.said
    assert_whole(url, 5)
    assert values(trials_of(url)) == undisturbed
    assert_tracked([tmp_path], 5)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_ctrl_c_closes_the_running_trials_and_the_same_command_goes_on(prepared, store, tmp_path, number):
    url, text = f"sqlite:///{tmp_path}/runs/studies.db", recipe_text(prepared, 4)
    command = Tune(tmp_path, text, "--workers", 2)
    running = at_work(url, command, count=2)
    os.killpg(command.process.pid, number) if number == signal.SIGINT else command.send(number)
    assert command.wait(120) == 1
    said = command.output.read_text()
    assert said.splitlines()[-1].endswith("of 4 trials: interrupted; the same command continues it")
    assert "Traceback" not in command.said
    ended = [trials_of(url)[trial.number] for trial in running]
    assert_interrupted(ended)
    runs = client().search_runs([client().get_experiment_by_name("sea").experiment_id])
    assert {run.info.status for run in runs} <= {"KILLED", "FINISHED"}
    command = Tune(tmp_path, text, "--workers", 2)
    assert command.wait() == 0, command.said
    assert_whole(url, 4)
    assert_tracked([tmp_path], 4)


def test_the_terminal_is_closed(prepared, store, tmp_path):
    """SIGHUP, and nobody left to print to: the workers close their trials and go all the same."""
    url, text = f"sqlite:///{tmp_path}/runs/studies.db", recipe_text(prepared, 3)
    ours, theirs = pty.openpty()
    command = Tune(tmp_path, text, "--workers", 2, terminal=theirs)
    os.close(theirs)
    reader = threading.Thread(target=drain, args=(ours,), daemon=True)
    reader.start()
    running = at_work(url, command, count=2)
    os.close(ours)
    os.kill(command.process.pid, signal.SIGHUP)
    assert command.wait(120) != 0
    ended = [trials_of(url)[trial.number] for trial in running]
    assert_interrupted(ended)
    assert not any(Path(f"/proc/{trial.user_attrs['pid']}").exists() for trial in ended)
    runs = client().search_runs([client().get_experiment_by_name("sea").experiment_id])
    assert {run.info.status for run in runs} <= {"KILLED", "FINISHED"}


def assert_interrupted(trials: list[FrozenTrial]) -> None:
    """Each was closed as interrupted, or had just ended by itself; one at least was closed."""
    open_ones = [trial for trial in trials if trial.state is not TrialState.COMPLETE]
    assert open_ones and {trial.user_attrs.get("ended") for trial in open_ones} == {"interrupted"}


def drain(terminal: int) -> None:
    with suppress(OSError):
        while os.read(terminal, 4096):
            pass


def test_a_second_ctrl_c_kills_and_leaves_nothing_running(prepared, store, tmp_path):
    url, text = f"sqlite:///{tmp_path}/runs/studies.db", recipe_text(prepared, 3)
    command = Tune(tmp_path, text)
    (trial,) = at_work(url, command)
    os.kill(trial.user_attrs["pid"], signal.SIGSTOP)  # a worker that does not hear
    command.send(signal.SIGINT)
    time.sleep(3)
    assert command.process.poll() is None
    command.send(signal.SIGINT)
    assert command.wait(120) == 1, command.said
    assert trials_of(url)[trial.number].state is TrialState.FAIL
    runs = client().search_runs([client().get_experiment_by_name("sea").experiment_id])
    assert {run.info.status for run in runs} == {"KILLED"}
    command = Tune(tmp_path, text)
    assert command.wait() == 0, command.said
    assert_whole(url, 3)


def test_the_command_that_keeps_the_record_is_killed_and_another_takes_it_over(prepared, store, tmp_path):
    url, text = f"sqlite:///{tmp_path}/runs/studies.db", recipe_text(prepared, 5)
    keeper = Tune(tmp_path, text)
    at_work(url, keeper)
    other = Tune(tmp_path, text)
    at_work(url, keeper, other, count=2)
    keeper.kill_all()
    assert other.wait() == 0, other.said
    assert_whole(url, 5)
    assert_tracked([tmp_path], 5)
    runs = client().search_runs([client().get_experiment_by_name("sea").experiment_id])
    (parent,) = [run for run in runs if run.info.run_name == "small"]
    assert parent.data.tags["best_trial"] == str(best_trial(trials_of(url)).number)


def test_two_commands_in_one_folder_work_together(prepared, store, tmp_path):
    url, text = f"sqlite:///{tmp_path}/runs/studies.db", recipe_text(prepared, 6)
    commands = [Tune(tmp_path, text) for _ in range(2)]
    for command in commands:
        assert command.wait() == 0, command.said
    assert_whole(url, 6)
    assert len(trials_of(url)) == 6
    assert_tracked([tmp_path], 6)
    assert len(client().search_model_versions("name='small'")) == 1


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of its own at `runs`: what it gives fills it up, and the function that gives makes room."""
    disk = tmp_path / "runs"
    disk.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", disk], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("only root can mount a small disk here")

    @contextmanager
    def full():
        filler = disk / "filler"
        with open(filler, "wb", buffering=0) as file, suppress(OSError):
            while file.write(bytes(4096)):
                pass
        yield
        filler.unlink()

    yield full
    subprocess.run(["umount", disk], check=True)


def last_line(command: Tune) -> str:
    return command.output.read_text().splitlines()[-1]


def test_a_disk_that_is_full_for_a_moment_twice_in_the_same_trial(prepared, undisturbed, store, tmp_path, small_disk):
    """Trials and database are on it; no trial fails for that, and the same command goes on with the one at work."""
    url, text = f"sqlite:///{tmp_path}/runs/studies.db", recipe_text(prepared, 5)
    for _ in range(3):
        command = Tune(tmp_path, text)
        at_work(url, command, fresh=True)
        with small_disk():
            assert command.wait() == 1
        assert last_line(command).startswith("watkins: study small has "), command.said
        assert "full" in last_line(command) or "No space left on device" in last_line(command)
        assert last_line(command).endswith("the same command continues it") and "Traceback" not in command.said
        assert not [each for each in trials_of(url) if each.user_attrs.get("ended", "interrupted") != "interrupted"]
    command = Tune(tmp_path, text)
    assert command.wait() == 0, command.said
    assert_whole(url, 5)
    assert values(trials_of(url)) == undisturbed
    assert_tracked([tmp_path], 5)


def test_data_that_are_not_there_for_a_moment(prepared, undisturbed, store, tmp_path):
    """As where their disk is unmounted."""
    shutil.copytree(prepared, tmp_path / "data")
    url, text = f"sqlite:///{tmp_path}/runs/studies.db", recipe_text(tmp_path / "data", 5)
    command = Tune(tmp_path, text)
    at_work(url, command)
    (tmp_path / "data").rename(tmp_path / "away")
    assert command.wait() == 1
    assert f"{tmp_path}/data: no longer there" in last_line(command), command.said
    assert last_line(command).endswith("the same command continues it")
    (tmp_path / "away").rename(tmp_path / "data")
    command = Tune(tmp_path, text)
    assert command.wait() == 0, command.said
    assert_whole(url, 5)
    assert values(trials_of(url)) == undisturbed


def test_a_database_that_may_only_be_read_for_a_moment(prepared, undisturbed, store, database, tmp_path):
    url = database.url()
    command = Tune(tmp_path, recipe_text(prepared, 5), "--storage", url)
    at_work(url, command)
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as administrator:
        administrator.execute("ALTER DATABASE postgres SET default_transaction_read_only = on")
        assert command.wait() == 1
        assert "read-only transaction" in last_line(command), command.said
        administrator.execute("SET default_transaction_read_only = off")
        administrator.execute("ALTER DATABASE postgres RESET default_transaction_read_only")
    command = Tune(tmp_path, recipe_text(prepared, 5), "--storage", url)
    assert command.wait() == 0, command.said
    assert_whole(url, 5)
    assert values(trials_of(url)) == undisturbed


def test_a_machine_that_loses_its_power_twice_in_the_same_trial(prepared, store, tmp_path):
    url, text = f"sqlite:///{tmp_path}/runs/studies.db", recipe_text(prepared, 2)
    for _ in range(3):
        command = Tune(tmp_path, text)
        at_work(url, command, epochs=0)
        command.kill_all()
    command = Tune(tmp_path, text)
    assert command.wait() == 0, command.said
    assert_whole(url, 2)
    assert_tracked([tmp_path], 2)
