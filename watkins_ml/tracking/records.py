"""What a run directory says of itself in JSON: the facts in `run.json`, and the entries of its journal.

Both may be of an earlier version, which left fields out, or of a later one: what is unknown here is kept as it is.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

TRAIN, TUNE, CROSSVAL, ENSEMBLE = "watkins train", "watkins tune", "watkins crossval", "watkins ensemble"
Number = int | float
"""As JSON has it: a whole number stays one."""


class Record(BaseModel):
    """Fields have exactly the types of JSON that are given; others are kept as attributes."""

    model_config = ConfigDict(extra="allow", strict=True, protected_namespaces=(), use_attribute_docstrings=True)


class Parent(Record):
    """The run that a trial or a fold is a part of."""

    uid: str
    name: str
    trial: int | None = None
    fold: str | None = None
    total: int | None = None
    """Folds in all."""


class Member(Record):
    """A run whose model an ensemble is made of."""

    uid: str
    name: str
    family: str


class Launch(Record):
    """What a launch said of a run beside its recipe, see `tracking.launch`."""

    name: str | None = None
    """On the server; else that of its folder."""
    experiment: str | None = None
    """Instead of the recipe's."""
    experiment_id: str | None = None
    """The number of one that is there; goes before a name."""
    run_id: str | None = None
    """A run that is there and is to be gone on with."""
    parent_run_id: str | None = None
    """The same of the study or cross-validation that the run is a part of."""
    tags: dict[str, str] = {}
    system_metrics: bool = False

    @property
    def of_part(self) -> Launch:
        """That of a trial or a fold: in the same experiment, and measured alike."""
        kept = self.model_dump(include={"experiment", "experiment_id", "system_metrics"}, exclude_defaults=True)
        return Launch(**kept | ({} if self.run_id is None else {"parent_run_id": self.run_id}))


class RunFacts(Record):
    """`run.json`."""

    uid: str
    """By which the run is found on a tracking server."""
    status: str
    """RUNNING, FINISHED, FAILED or KILLED, as in MLflow."""
    name: str | None = None
    command: str = TRAIN
    family: str | None = None
    experiment: str | None = None
    data_digest: str | None = None
    split_protocol: str | None = None
    task: str = "species"
    """What its data were prepared for, see `dataset.targets`."""
    species: int | None = None
    train: int | None = None
    val: int | None = None
    test: int | None = None
    """Recordings of this side."""
    launch: Launch = Launch()
    log_checkpoints: Literal["best", "all", "none"] = "best"
    study: Parent | None = None
    crossval: Parent | None = None
    is_study: bool = False
    folds: int | None = None
    """Of a cross-validation: how many."""
    fold_rule: dict[str, Any] | None = None
    untestable: dict[str, str] = {}
    """Species that no fold tests, each with the reason."""
    members: list[Member] | None = None
    """Of an ensemble."""
    licence: str | None = None
    """Of what the model has from elsewhere; None where there is nothing, or no licence is known."""
    parameters: int | None = None
    epoch_seconds: Number | None = None
    model: dict[str, Any] | None = None
    """What a registered version of its model will say; None before there is one."""
    concluded: bool = False
    """Of a trial: its model has been evaluated on test."""
    mlflow_run_id: str | None = None
    tracking_uri: str | None = None
    registered_model: str | None = None
    model_version: int | None = None


class Entry(Record):
    """An entry of a journal; of a kind that this version does not know, nothing but this."""

    kind: str
    time_ms: int


class Start(Entry):
    kind: Literal["start"]
    name: str
    uid: str
    experiment: str
    parent: Parent | None = None


class Values(Entry):
    """Parameters or tags."""

    kind: Literal["params", "tags"]
    values: dict[str, Any]


class SideSource(Record):
    """Where a side of the data came from, and its recordings."""

    source: str
    rows: int


class Datasets(Entry):
    kind: Literal["datasets"]
    digest: str
    sides: dict[str, SideSource] = {}


class Resume(Entry):
    kind: Literal["resume"]
    epoch: int | None = None
    """The one after which training goes on; a study has none."""


class Epoch(Entry):
    kind: Literal["epoch"]
    step: int
    metrics: dict[str, Number]
    timing: dict[str, Number] = {}


class Metrics(Entry):
    kind: Literal["metrics"]
    step: int
    values: dict[str, Number]


class Model(Entry):
    """The bundle in `model/` is whole; an entry without a name only keeps it on the server."""

    kind: Literal["model"]
    register_as: str | None = None
    tags: dict[str, str] = {}


class Artifacts(Entry):
    kind: Literal["artifacts"]
    paths: list[str]


class End(Entry):
    kind: Literal["end"]
    status: str


KINDS: dict[str, type[Entry]] = {
    "start": Start, "params": Values, "tags": Values, "datasets": Datasets, "resume": Resume, "epoch": Epoch,
    "metrics": Metrics, "model": Model, "artifacts": Artifacts, "end": End,
}  # fmt: skip


def parse_entry(content: dict[str, Any]) -> Entry:
    """One entry of a journal; raises a ValueError where it is none, or lacks what entries of its kind have."""
    return KINDS.get(Entry.model_validate(content).kind, Entry).model_validate(content)
