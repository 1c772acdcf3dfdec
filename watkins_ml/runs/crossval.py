"""`watkins crossval`: one tracked run a fold below a parent run, and what all folds together say."""

from __future__ import annotations

import shutil
import uuid
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from watkins_ml.config import ExperimentConfig
from watkins_ml.core import metric_names
from watkins_ml.core.console import err
from watkins_ml.core.errors import UsageError, UserError
from watkins_ml.core.files import disk_errors, read_csv, write_csv
from watkins_ml.core.locks import reading
from watkins_ml.core.metric_names import FOLD, TEMPERATURE, TEST, THRESHOLD_90
from watkins_ml.core.wording import differences, plural
from watkins_ml.dataset.folds import FoldRule, Folds, make_folds
from watkins_ml.dataset.layout import PreparedData, read_prepared
from watkins_ml.dataset.loading import labels_of, open_side
from watkins_ml.dataset.split import SIDES
from watkins_ml.dataset.stored import SpectrogramFiles
from watkins_ml.dataset.targets import LABELS
from watkins_ml.models.registry import try_model
from watkins_ml.runs.lifecycle import RunInterruptedError, run_lifecycle
from watkins_ml.runs.reports import read_label_thresholds
from watkins_ml.runs.train import read_inputs, train_and_report
from watkins_ml.tracking.records import CROSSVAL, Launch
from watkins_ml.tracking.rundir import RunDirectory
from watkins_ml.tracking.server import check_address
from watkins_ml.tracking.sync import sync_all
from watkins_ml.tracking.uploader import Uploader
from watkins_ml.training.checkpoints import latest_checkpoint
from watkins_ml.training.monitor import best_epoch

if TYPE_CHECKING:
    from watkins_ml.evaluation.labels import LabelsEvaluation
    from watkins_ml.evaluation.result import Evaluation

HOW_TO_CONTINUE = "the same command goes on with it"
FOLD_METRICS = (
    metric_names.BEST_EPOCH,
    metric_names.BEST_VAL_MACRO_F1,
    metric_names.TEST_ACCURACY,
    metric_names.TEST_MACRO_F1,
)


@dataclass(frozen=True)
class CrossValidation:
    """The result of a cross-validation."""

    run_dir: Path
    metrics: dict[str, float]
    """Pooled over all folds, `test_*` with `_low` and `_high`, and `control_*`."""
    by_fold: pd.DataFrame
    """A row a fold: fold, train, val and test (recordings), and FOLD_METRICS."""
    untestable: dict[str, str]
    protocol: str


def cross_validate(
    config: ExperimentConfig, rule: FoldRule, run_dir: Path, launch: Launch | None = None
) -> CrossValidation:
    """Train and test every fold, or those that an interrupted call has left, and pool their predictions.

    Raises:
        UsageError: `run_dir` holds something else; names what differs.
        UserError: folds that cannot be made, bad data, weights or device (before anything is written), a full disk.
    """
    check_address()
    config = config.model_copy(update={"tracking": config.tracking.model_copy(update={"register_as": None})})
    folds = make_folds(read_prepared(Path(config.data.dir)), rule)
    sides = {fold: folds.data_of(fold) for fold in folds.names}
    try_model(config.model, len(folds.data.classes), folds.data.input.shape, folds.data.task)
    record, rule_facts = RunDirectory(run_dir), {key: value for key, value in asdict(rule).items() if value is not None}
    _refuse_others(record, config, rule_facts, folds.digest)
    with disk_errors(f"cannot write to {run_dir}", f"make room; {HOW_TO_CONTINUE}"):
        run_dir.mkdir(parents=True, exist_ok=True)
        with record.training(), reading(folds.data.folder.root, f"watkins crossval ({run_dir})"):
            if record.facts_file.exists() and record.facts.status == "FINISHED":
                record.close_if_dead()  # a kill may have come before its last journal entries
                with Uploader(record):
                    pass
            else:
                _begin(record, config, folds, sides, rule_facts, launch or Launch())
                with Uploader(record), run_lifecycle(record, HOW_TO_CONTINUE, stops=(RunInterruptedError,)):
                    for number, (fold, data) in enumerate(sides.items(), start=1):
                        named = "" if fold == str(number) else f" ({fold})"
                        _run_fold(record, config, fold, data, f"Fold {number} of {len(sides)}{named}")
                    _pool(record, folds, sides, config)
    sync_all(record.root)
    return CrossValidation(record.root, record.read_metrics(), _read_folds(record), folds.untestable, rule.protocol)


def _refuse_others(record: RunDirectory, config: ExperimentConfig, rule: dict[str, Any], digest: str) -> None:
    """Leave a folder alone that holds anything but this cross-validation, or what a very early kill left of it."""
    if not record.facts_file.exists():
        if {path.name for path in record.root.glob("[!.]*")} - {"config.yaml"}:
            raise UsageError(f"{record.root}: exists and is no cross-validation; give another --name")
        return
    facts = record.facts
    if facts.command != CROSSVAL or facts.fold_rule is None:
        raise UsageError(f"{record.root}: holds another run; give this cross-validation another --name")
    changed = record.changes(config) + differences(facts.fold_rule, rule)
    if facts.data_digest != digest and not changed:
        changed = ["the data were prepared anew"]
    if changed:
        differs = f"holds a cross-validation that differs ({'; '.join(changed)})"
        raise UsageError(f"{record.root}: {differs}; change it back to go on with it, or give another --name")


def _begin(
    record: RunDirectory,
    config: ExperimentConfig,
    folds: Folds,
    sides: dict[str, PreparedData],
    rule: dict[str, Any],
    launch: Launch,
) -> None:
    """The parent's first entries, or that it goes on."""
    data, resumes = pooled_data(folds, sides), record.facts_file.exists()
    if not resumes:
        facts = {"folds": len(sides), "fold_rule": rule, "untestable": folds.untestable}
        record.write_facts(config, data, launch, uid=uuid.uuid4().hex, command=CROSSVAL, **facts)
    record.open_journal(config, data, {f"crossval.{key}": value for key, value in rule.items()})
    if resumes:
        record.update_facts(status="RUNNING")
        record.record("resume", epoch=None)


def pooled_data(folds: Folds, sides: dict[str, PreparedData]) -> PreparedData:
    """Everything that some fold tests, as one test side; training and validation are counted in the mean."""
    tested = pd.concat([data.sides["test"] for data in sides.values()], ignore_index=True)
    counts = {side: round(np.mean([len(data.sides[side]) for data in sides.values()])) for side in ("train", "val")}
    summary = folds.data.summary | {
        "split": folds.rule.protocol,
        "data_digest": folds.digest,
        "fold": "all",
        "counts": folds.data.summary["counts"] | counts | {"test": len(tested)},
    }
    return replace(folds.data, summary=summary, sides={"test": tested})


def _run_fold(record: RunDirectory, config: ExperimentConfig, fold: str, data: PreparedData, place: str) -> None:
    """Train and test one fold, or go on with it, or find it done; `place` says which of how many it is."""
    run, start = RunDirectory(record.root / f"fold-{fold}"), None
    started = run.facts_file.exists()
    if started and run.facts.status == "FINISHED":
        return
    train, val, test = (len(data.sides[side]) for side in SIDES)
    sizes = f"{plural(train, 'recording')} to train on, {val:,} for validation, {test:,} to test"
    err.print(f"{place}: {sizes}", style="bold")
    inputs = read_inputs(config, data)
    if not started:
        shutil.rmtree(run.root, ignore_errors=True)  # its process was killed before it wrote run.json
        whole = {"uid": record.facts.uid, "name": record.name, "fold": fold, "total": record.facts.folds}
        run = RunDirectory.create(run.root, config, data, CROSSVAL, record.facts.launch.of_part, crossval=whole)
    with run.training(wait=60):  # a `watkins sync` may be looking at it just now
        if started:
            start = latest_checkpoint(run.checkpoints)
            run.resume(config, data, None if start is None else start.facts)
        train_and_report(config, inputs, run, start, HOW_TO_CONTINUE)


def _pool(record: RunDirectory, folds: Folds, sides: dict[str, PreparedData], config: ExperimentConfig) -> None:
    """The parent's report: every recording with the prediction of the fold that tested it."""
    from watkins_ml.evaluation.report import write_controls, write_learning_curves, write_report

    runs = {fold: RunDirectory(record.root / f"fold-{fold}") for fold in sides}
    tested = pd.concat([data.sides["test"] for data in sides.values()], ignore_index=True)
    evaluation = _evaluate_pooled(runs, sides, tested, folds)
    write_report(record.root, "test", tested, evaluation, SpectrogramFiles(folds.data, tested), folds.data)
    metrics = {TEST + name: value for name, value in evaluation.scores.items()}
    metrics |= write_controls(record.root, "test", tested, _control_predictions(folds.data, sides, config.train.refit))
    record.write_metrics(metrics)
    table = _fold_table(record, runs, sides)
    write_csv(record.root / "reports" / "folds.csv", table)
    by_epoch = pd.concat([run.read_history() for run in runs.values()]).groupby("epoch", as_index=False)
    history = by_epoch.mean()[by_epoch.size()["size"] == len(runs)]  # while all folds train: else some drop out of it
    write_csv(record.history, history)
    write_learning_curves(record.root, history, best_epoch(history, config.train.monitor))
    seconds = float(np.mean([run.facts.epoch_seconds for run in runs.values()]))
    parameters = next(iter(runs.values())).facts.parameters
    record.update_facts(parameters=parameters, epoch_seconds=seconds)
    record.record_once("metrics", step=0, values={key: value for key, value in metrics.items() if value == value})


def _evaluate_pooled(
    runs: dict[str, RunDirectory], sides: dict[str, PreparedData], tested: pd.DataFrame, folds: Folds
) -> Evaluation | LabelsEvaluation:
    """All test sides in the order of `tested`, each recording with temperature and threshold of its fold.

    The threshold is infinite where the fold's validation gave none.
    """
    from watkins_ml.evaluation.labels import evaluate_labels
    from watkins_ml.evaluation.report import stored_logits
    from watkins_ml.evaluation.result import evaluate

    classes, metrics = folds.data.classes, [run.read_metrics() for run in runs.values()]
    frames, records = [data.sides["test"] for data in sides.values()], list(runs.values())
    counts = [len(frame) for frame in frames]
    parts = [
        stored_logits(run.root, "test", frame["path"], classes, found[TEMPERATURE])
        for run, frame, found in zip(records, frames, metrics, strict=True)
    ]
    temperature = np.repeat([found[TEMPERATURE] for found in metrics], counts)
    given = labels_of(folds.data, tested), np.concatenate(parts), classes, temperature
    if folds.data.task == LABELS:
        thresholds = np.repeat([read_label_thresholds(run.root, classes) for run in records], counts, axis=0)
        return evaluate_labels(*given, thresholds, tested["tape"])
    return evaluate(*given, np.repeat([found.get(THRESHOLD_90, np.inf) for found in metrics], counts), tested["tape"])


def _read_folds(record: RunDirectory) -> pd.DataFrame:
    path = record.root / "reports" / "folds.csv"
    try:
        table = read_csv(path, dtype={"fold": str})
        return table.rename(columns=metric_names.current)[["fold", *SIDES, *FOLD_METRICS]]
    except (OSError, ValueError, KeyError):
        raise UserError(f"{path}: missing or damaged; take it from MLflow or another copy") from None


def _control_predictions(data: PreparedData, sides: dict[str, PreparedData], refit: bool) -> pd.DataFrame:
    """For all test sides one after another; fitted anew for each fold, as the networks are."""
    from watkins_ml.evaluation.controls import control_predictions, learned_from
    from watkins_ml.evaluation.labels_controls import labels_controls
    from watkins_ml.evaluation.spectrum import band_statistics

    spectra = band_statistics([open_side(data, side) for side in SIDES])
    if data.task == LABELS:
        classes = len(data.classes)
        answers = [labels_controls(each.sides, classes, refit, spectra)["test"] for each in sides.values()]
        return pd.concat(answers, ignore_index=True)
    of_folds = [
        control_predictions(learned_from(each.sides, refit), each.sides["test"], spectra) for each in sides.values()
    ]
    return pd.concat(of_folds, ignore_index=True)


def _fold_table(record: RunDirectory, runs: dict[str, RunDirectory], sides: dict[str, PreparedData]) -> pd.DataFrame:
    """A row a fold; its scores also go to the parent in MLflow, with the fold's place as step."""
    rows = []
    for number, (fold, run) in enumerate(runs.items(), start=1):
        metrics = run.read_metrics()
        chosen = {key: metrics[key] for key in FOLD_METRICS if key in metrics}
        record.record_once("metrics", step=number, values={FOLD + key: value for key, value in chosen.items()})
        rows.append({"fold": fold, **{side: len(frame) for side, frame in sides[fold].sides.items()}, **chosen})
    return pd.DataFrame(rows, columns=["fold", *SIDES, *FOLD_METRICS])  # a fold without any species has no macro F1
