"""What a worker takes for a fault of its surroundings, and what for the trial's own."""

from __future__ import annotations

import errno
import os
import resource
import shutil
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from optuna.trial import TrialState

from watkins_ml.core.errors import ResourceError, UserError
from watkins_ml.dataset.layout import read_prepared
from watkins_ml.dataset.loading import load_side
from watkins_ml.runs.lifecycle import ShortageError, shortages
from watkins_ml.tracking.rundir import RunDirectory
from watkins_ml.tuning.trials import INTERRUPTED, SHORT
from watkins_ml.tuning.worker import Assignment, Worker


class Unstopped(nullcontext):
    """Nobody tells the worker to stop; the real `Stop` takes the signals of its process."""

    requested = False


@pytest.fixture
def worker(small, tmp_path, nobody_listens, impatient, monkeypatch):
    """A worker in this process, with a study of its own; its trials are done by a function that may do anything."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", nobody_listens)
    digest = read_prepared(Path(small.config.data.dir)).digest
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    worker = Worker(Assignment(small, digest, url, tmp_path / "study", 1, None), Unstopped())
    run = worker.runner._train

    def does(what):
        def train(config, directory, start, watched):
            what()
            return run(config, directory, start, watched)

        monkeypatch.setattr(worker.runner, "_train", train)

    worker.does = does
    return worker


def too_much_memory() -> None:
    torch.empty(10**15)


def full_disk() -> None:
    """A file larger than this process may write, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with open("large", "wb", buffering=0) as file:
            file.write(bytes(200))
            file.write(bytes(200))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def too_many_files() -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        open("one", "w").close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def lost_device() -> None:
    raise torch.AcceleratorError("CUDA error: unspecified launch failure")


def lost_data() -> None:
    raise ResourceError("data: no longer there")


@pytest.mark.parametrize("fault", [too_much_memory, full_disk, too_many_files, lost_device, lost_data])
def test_a_fault_of_the_surroundings_leaves_the_trial_and_stops_the_worker(worker, fault):
    worker.does(fault)
    with pytest.raises(ResourceError) as stopped:
        worker.work()
    assert "\n" not in str(stopped.value)
    (trial,) = worker.study.trials
    assert trial.user_attrs["ended"] == INTERRUPTED and not worker.study.is_settled
    assert RunDirectory(worker.study.folder / trial.user_attrs["run"]).facts.status == "KILLED"


def test_the_same_trial_goes_on_and_is_as_one_that_nobody_disturbed(worker):
    worker.does(full_disk)
    with pytest.raises(ResourceError):
        worker.work()
    worker.outside = None
    worker.does(lambda: None)
    claim = worker.study.claim()
    assert claim.run == worker.study.trials[0].user_attrs["run"]
    assert worker.attempt(claim) is TrialState.COMPLETE
    worker.runner.wait_for_upload()


def test_want_of_memory_that_comes_again_is_the_trials_own(worker):
    worker.does(too_much_memory)
    with pytest.raises(ResourceError):
        worker.work()
    worker.outside = None
    claim = worker.study.claim()
    assert claim.trial.user_attrs[SHORT] is True
    assert worker.attempt(claim) is TrialState.FAIL and worker.outside is None
    assert worker.study.trials[-1].user_attrs["ended"].startswith("again: too little memory")
    worker.runner.wait_for_upload()


def test_a_fault_of_its_own_stays_the_trials(worker):
    def no_number() -> None:
        raise UserError("the loss is not a number")

    worker.does(no_number)
    with pytest.raises(UserError, match="the last 3 trials of this worker failed"):
        worker.work()
    assert {trial.user_attrs["ended"] for trial in worker.study.trials} == {"UserError: the loss is not a number"}


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA error: out of order")])
def test_shortages_end_with_how_to_go_on(error):
    with pytest.raises(ShortageError, match=r"; go on$"), shortages("go on"):
        raise error


def test_a_gpu_that_the_training_fills_alone_is_its_own_fault(monkeypatch):
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 70 * 10**9)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (10**9, 72 * 10**9))
    with pytest.raises(torch.OutOfMemoryError), shortages():
        raise torch.OutOfMemoryError("CUDA out of memory")
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 10**9)
    with pytest.raises(ShortageError, match=r"other programs hold 70\.0 GB"), shortages():
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_spectrograms_that_cannot_be_read_now_are_not_called_damaged(prepared, tmp_path, monkeypatch):
    shutil.copytree(prepared, tmp_path / "data")
    data = read_prepared(tmp_path / "data")

    def no_more_files(*_: object, **__: object):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(torch, "load", no_more_files)
    with pytest.raises(ResourceError, match=r"cannot be read \(Too many open files\)"):
        load_side(data, "val")
    monkeypatch.undo()
    (tmp_path / "data").rename(tmp_path / "away")
    with pytest.raises(ResourceError, match="no longer there"):
        load_side(data, "val")
