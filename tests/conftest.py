"""Shared fixtures: every test in its own folder with its own embedded store, and a small prepared data set."""

from __future__ import annotations

import gc
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from tests.support import EXPERIMENTS, SHARED
from tests.support.forked import fork_server
from tests.support.memoized import computed_once
from tests.support.once import made_once
from tests.support.pictures import blank, drawing
from tests.support.servers import Proxy, Server, free_port

sys.dont_write_bytecode = False  # whatever the environment says: each worker would compile all tests anew
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ["OMP_NUM_THREADS"] = "1"  # tests run in parallel; one thread each is fastest
torch.set_num_threads(1)
gc.set_threshold(20_000, 10, 10)  # as `watkins` does, see memory.py

RATE = 8_000


@pytest.hookimpl(optionalhook=True)  # there is no such hook without xdist
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: much of the time tests wait for servers and processes that they have started."""
    return (os.cpu_count() or 1) + 1


@pytest.hookimpl
def pytest_configure(config: pytest.Config) -> None:
    """One fork server for the whole run: the workers of xdist inherit where it listens."""
    if not hasattr(config, "workerinput"):
        running = ExitStack()
        running.enter_context(fork_server())
        config.add_cleanup(running.close)


COSTLY = {
    "server", "proxy", "service", "native", "postgres", "tracked", "finished", "champions", "training", "train",
    "two", "refitted", "trained",
}  # fmt: skip
"""Fixtures that start a server or train; what uses one is slow, so that `make test-fast` leaves it out."""
COSTLY_FILES = {
    "test_annotated.py", "test_archive.py", "test_bounds.py", "test_bundle.py", "test_claims.py", "test_controls.py",
    "test_explain.py", "test_faults.py", "test_features.py", "test_fetch_command.py", "test_folds.py",
    "test_hostile_host.py", "test_hub_release.py", "test_imports.py", "test_kaggle_release.py", "test_leaky.py",
    "test_lettering.py", "test_memory.py", "test_metadata.py", "test_moved_project.py", "test_novelty.py",
    "test_ocean.py", "test_odd_names.py", "test_optimizer.py", "test_other_frontends.py", "test_output.py",
    "test_page.py", "test_passwords.py", "test_plots.py", "test_prepare_again.py", "test_prepare_refusals.py",
    "test_prepare_shared.py", "test_registered_model.py", "test_registry.py", "test_report.py", "test_runs.py",
    "test_server.py", "test_study_book.py", "test_study_plots.py", "test_timm.py", "test_transform_registry.py",
    "test_trial.py", "test_worker.py",
}  # fmt: skip
"""Files whose tests train, prepare, start commands, draw or wait for others, each for itself."""
SYSTEM_FILES = {
    "test_browser.py": "a server and MLflow's pages in Chromium",
    "test_showcase.py": "a page of 44 species in Chromium, which decodes every picture",
    "test_report_notebook.py": "Jupyter kernels, which import everything anew",
    "test_native.py": "PostgreSQL, MLflow with accounts, a trainer and a serving process",
    "test_outside_family.py": "pip installs packages",
    "test_distributed.py": "torchrun starts several processes that train one network",
    "test_before_families.py": "a run, a study and models of an earlier version go the whole way",
    "test_odd_archive.py": "an archive of strange names goes the whole way",
}
"""Files that test the whole system, and why they cost what they cost; `make test-system`. Single tests are marked."""
LONGEST = ("test_crossval.py", "test_tune.py", "test_loop.py", "test_served_model.py", "test_hostile_host.py")


@pytest.hookimpl(tryfirst=True)  # before tests are deselected by their marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: in parallel a file is one piece of work, and a long one must not be the last."""
    for item in items:
        if item.path.name in SYSTEM_FILES:
            item.add_marker("system")
        if item.path.name in COSTLY_FILES or COSTLY.intersection(item.fixturenames):
            item.add_marker("slow")
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path.name not in LONGEST, item.path not in slow))


VARIABLES = (
    "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_ID",
    "MLFLOW_RUN_NAME", "MLFLOW_TAGS", "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "MLFLOW_TRACKING_TOKEN",
)  # fmt: skip


def without_server(patch: pytest.MonkeyPatch) -> None:
    """No tracking server from outside; and none that MLflow itself writes into the environment outlives the patch."""
    for name in VARIABLES:
        patch.setenv(name, "")
        patch.delenv(name)


@pytest.fixture(autouse=True)
def isolated(tmp_path, monkeypatch):
    """A working folder of its own, no tracking server from outside, torch's global state restored."""
    monkeypatch.chdir(tmp_path)
    without_server(monkeypatch)
    monkeypatch.delenv("WATKINS_DEBUG", raising=False)
    rng = torch.get_rng_state()
    if fluent := sys.modules.get("mlflow.tracking.fluent"):
        monkeypatch.setattr(fluent, "_active_experiment_id", None)  # of the store of another test
    yield
    torch.set_rng_state(rng)
    torch.set_deterministic_debug_mode("default")


@pytest.fixture(scope="session", autouse=True)
def blank_pictures() -> Iterator[None]:
    """No picture is drawn, which is half of what a small training costs; tests of pictures ask for `real_pictures`."""
    with drawing(blank):
        yield


@pytest.fixture(scope="session", autouse=True)
def repeated_results_at_once() -> Iterator[None]:
    """Noises, excerpts and controls of the same data are computed once; see `memoized`."""
    with computed_once():
        yield


@pytest.fixture(scope="session", autouse=True)
def no_fsync() -> Iterator[None]:
    """Flushing to the disk guards against power cuts, which no test makes, and is much of the time of small writes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture
def real_pictures() -> Iterator[None]:
    """Pictures are drawn as for a user."""
    with drawing():
        yield


@pytest.fixture(scope="session")
def shared_folder() -> Path:
    """The real recordings and weights beside the repository."""
    if not SHARED.is_dir():
        pytest.skip(f"no real data: {SHARED} is absent")
    return SHARED


def tone(frequency: float, seconds: float, seed: int, rate: int = RATE) -> np.ndarray:
    """A noisy tone, float32, shape (samples,)."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    return (0.3 * np.sin(2 * np.pi * frequency * time) + 0.05 * rng.standard_normal(len(time))).astype("float32")


def write_archive(folder: Path, species: dict[str, float], tapes: int = 4, cuts: int = 3, seconds: float = 0.4) -> Path:
    """Class folders of noisy tones, one frequency a species; cut ids as in Watkins (tape + three digits)."""
    seed = 0
    for number, (name, frequency) in enumerate(species.items()):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for tape in range(tapes):
            for cut in range(cuts):
                seed += 1
                path = folder / name / f"{number + 1:02d}{tape:03d}{cut:03d}.wav"
                soundfile.write(path, tone(frequency * (1 + 0.01 * tape), seconds, seed), RATE)
    return folder


THREE_SPECIES = {"FinWhale": 400.0, "Risso'sDolphin": 3000.0, "Short_Finned(Pacific)PilotWhale": 1500.0}


@pytest.fixture(scope="session")
def archive(tmp_path_factory) -> Path:
    """36 recordings of three species on twelve tapes. Copy it before changing it."""
    return write_archive(tmp_path_factory.mktemp("archive"), THREE_SPECIES)


@pytest.fixture(scope="session")
def prepared(archive, tmp_path_factory) -> Path:
    """The archive as `watkins prepare` leaves it, but with 32 bands and one second a spectrogram. Read only."""
    from watkins_ml.audio.settings import FrontendSettings
    from watkins_ml.dataset.prepare import PrepareOptions, prepare

    out = tmp_path_factory.mktemp("prepared") / "data"
    prepare(archive, out, PrepareOptions(workers=1, frontend=FrontendSettings(n_mels=32, frames=100)))
    return out


@pytest.fixture(scope="module")
def own_data(archive, prepared, tmp_path_factory) -> Path:
    """The prepared data beside their recordings, in a folder that may be changed."""
    root = tmp_path_factory.mktemp("own")
    shutil.copytree(archive, root / archive.name)
    shutil.copytree(prepared, root / "prepared" / "data")
    return root / "prepared" / "data"


@pytest.fixture(scope="session")
def recipe(prepared):
    """A function that gives the shipped baseline (or efficientnet) configuration, made small."""
    from watkins_ml.config import load_config

    def load(name: str = "baseline", *overrides: str):
        path = EXPERIMENTS / f"{name}.yaml"
        small = [f"data.dir={prepared}", "data.batch_size=8", "train.epochs=2", "train.device=cpu"]
        if name == "efficientnet":
            small.append("model.weights=none")
        return load_config(path, [*small, *overrides])

    return load


@pytest.fixture(scope="session")
def fitted_temperatures():
    """A function that fits a classifier's temperature anew, on validation and, as nothing else may, on test."""
    from watkins_ml.dataset.loading import cut_windows, load_side
    from watkins_ml.evaluation.calibration import fit_temperature
    from watkins_ml.models.scoring import cut_logits

    def fit(classifier, data) -> dict[str, float]:
        fitted = {}
        for side in ("val", "test"):
            split = load_side(data, side)
            logits = cut_logits(classifier.network, cut_windows(data, split))
            fitted[side] = fit_temperature(split.labels.numpy(), logits.numpy(), split.frame["tape"])
        return fitted

    return fit


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory) -> Path:
    """The database of an embedded store without any run; creating one takes seconds, copying it none."""
    from watkins_ml.tracking.server import client

    def make(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            without_server(patch)
            patch.chdir(folder)
            client().search_experiments()

    return made_once(tmp_path_factory, "store", make) / "mlflow" / "mlflow.db"


def copy_store(empty_store: Path, folder: Path) -> Path:
    """An empty embedded store in `folder`; returns the folder."""
    (folder / "mlflow").mkdir()
    shutil.copy(empty_store, folder / "mlflow" / "mlflow.db")
    return folder


@pytest.fixture
def store(empty_store, tmp_path):
    """An MLflow client of an empty embedded store in the test's own folder."""
    from watkins_ml.tracking.server import client

    copy_store(empty_store, tmp_path)
    return client()


@pytest.fixture(scope="session")
def server(empty_store, tmp_path_factory) -> str:
    """The address of an `mlflow server` process with an empty store of its own."""
    running = Server(copy_store(empty_store, tmp_path_factory.mktemp("server"))).start()
    yield running.address
    running.stop()


@pytest.fixture
def proxy(server) -> Proxy:
    proxy = Proxy(server)
    yield proxy
    proxy.close()


@pytest.fixture
def nobody_listens() -> str:
    """The address of a tracking server that is not there."""
    return f"http://127.0.0.1:{free_port()}"


@pytest.fixture
def impatient(monkeypatch):
    """Give up on a server at once, so that its absence takes no test time."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


@dataclass(frozen=True)
class Project:
    """A working folder with an embedded store in which a training has finished."""

    folder: Path
    run_dir: Path
    metrics: dict[str, float]


@pytest.fixture(scope="session")
def finished(recipe, empty_store, tmp_path_factory) -> Project:
    """A baseline trained, tracked and registered as `watkins train` does it. Read only; change into its folder.

    It is champion by hand, for a regression on the mean spectrum names tones better than so small a training.
    """
    from watkins_ml.runs.train import run_experiment
    from watkins_ml.tracking import registry
    from watkins_ml.tracking.server import client

    folder = copy_store(empty_store, tmp_path_factory.mktemp("project"))
    with pytest.MonkeyPatch.context() as patch:
        without_server(patch)
        patch.chdir(folder)
        result = run_experiment(recipe("baseline", "train.epochs=3"), Path("runs/first"))
        registry.promote(client(), "watkins-baseline/1")
    return Project(folder, folder / result.run_dir, result.metrics)


@dataclass(frozen=True)
class Said:
    """What a command left: exit status, standard output and standard error."""

    status: int
    out: str
    err: str


@pytest.fixture
def watkins(capsys, monkeypatch):
    """A function that runs a `watkins` command in this process."""
    from watkins_ml.cli import main

    def run(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["watkins", *map(str, arguments)])
        monkeypatch.setattr("watkins_ml.core.console.out._width", 300)
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr()
        return Said(end.value.code or 0, said.out, said.err)

    return run
