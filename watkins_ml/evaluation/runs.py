"""Runs read back from their directories, their metrics side by side, and which one leads."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from watkins_ml.config import with_earlier
from watkins_ml.core import metric_names
from watkins_ml.core.errors import UserError, first_line
from watkins_ml.core.files import read_csv
from watkins_ml.core.names import normal
from watkins_ml.core.plain_yaml import read_yaml
from watkins_ml.dataset.layout import TEXT_COLUMNS
from watkins_ml.dataset.split import LEAKY
from watkins_ml.dataset.targets import LABELS
from watkins_ml.evaluation.intervals import paired_difference, score_intervals, verdict
from watkins_ml.evaluation.metric_rows import GROUPS
from watkins_ml.tracking.records import Member
from watkins_ml.tracking.run_files import check_confined
from watkins_ml.tracking.rundir import RunDirectory
from watkins_ml.training.monitor import best_epoch

NEEDED = ["config.yaml", "run.json", "history.csv", "reports/metrics.json"]
TEST_REPORT = [
    "reports/test_classification_report.csv",
    "reports/test_confusion_pairs.csv",
    "preds/test.csv",
    "plots/test_confusion_matrix.png",
    "plots/test_stripplot.png",
    "plots/test_reliability.png",
    "galleries/test_least_confident.png",
    "galleries/test_random.png",
]
LABELS_REPORT = [name for name in TEST_REPORT if "matrix" not in name and "stripplot" not in name]
"""The same of a run whose recordings may hold any number of species."""


@dataclass(frozen=True)
class ComparedRun:
    """What a comparison needs of one run directory; the files of the test report may be absent together."""

    run_dir: Path
    label: str
    config: dict[str, Any]
    info: dict[str, Any]
    history: pd.DataFrame
    metrics: dict[str, float]
    has_test_report: bool

    @classmethod
    def from_dir(cls, run_dir: Path, label: str) -> Self:
        """Read `run_dir`; a file that is missing, or that lies outside by a link, raises a UserError that names it."""
        check_confined(run_dir)
        has_test_report = any((run_dir / name).exists() for name in TEST_REPORT)
        _assert_there(run_dir, NEEDED)
        with damage(run_dir / "run.json"):
            info = dict(json.loads((run_dir / "run.json").read_text(encoding="utf-8")))
            for member in info.get("members") or []:
                Member.model_validate(member)
        with damage(run_dir / "config.yaml"):
            config = with_earlier(dict(read_yaml(run_dir / "config.yaml")))
            if "monitor" not in dict(config.get("train") or {}):
                raise ValueError("no section train")
        _assert_there(run_dir, (LABELS_REPORT if info.get("task") == LABELS else TEST_REPORT) * has_test_report)
        for key in ("family", "data_digest", "split_protocol"):
            if not info.get(key):
                raise UserError(f"The run in {run_dir} is incomplete: run.json has no {key}.")
        return cls(
            run_dir=run_dir,
            label=label,
            config=config,
            info=info,
            history=_read_history(run_dir / "history.csv"),
            metrics=RunDirectory(run_dir).read_metrics(),
            has_test_report=has_test_report,
        )

    @property
    def title(self) -> str:
        """The label, stamped when the numbers come from a random split."""
        return f"{self.label} ({LEAKY[self.info['split_protocol']]})" if self.is_leaky else self.label

    @property
    def best_epoch(self) -> int:
        """The epoch whose network was kept; of a cross-validation the best one in the mean over its folds."""
        known = self.metrics.get(metric_names.BEST_EPOCH)
        return best_epoch(self.history, self.config["train"]["monitor"]) if known is None else int(known)

    @property
    def is_leaky(self) -> bool:
        return bool(LEAKY.get(self.info["split_protocol"]))

    @property
    def is_for_labels(self) -> bool:
        """Whether its recordings may hold any number of species."""
        return bool(self.info.get("task") == LABELS)

    @property
    def is_tested(self) -> bool:
        return None not in map(self.metrics.get, (metric_names.TEST_ACCURACY, metric_names.TEST_MACRO_F1))

    def is_about_same_data(self, other: Self) -> bool:
        return self.info["data_digest"] == other.info["data_digest"]

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """`preds/test.csv`, whose names stay text: path, cut_id, tape, species, predicted, confidence, p_<species>."""
        return _read_text(self.run_dir / "preds/test.csv", "path", "tape", "species", "predicted", "confidence")

    @property
    def classes(self) -> list[str]:
        """The species that the run's network knows, in the order of its outputs."""
        return [name.removeprefix("p_") for name in self.predictions.columns if name.startswith("p_")]

    def labels_and_probabilities(self) -> tuple[np.ndarray, np.ndarray]:
        """`predictions` as the functions of `plots` take them: labels (N,), and probabilities (N, species)."""
        probabilities = self.predictions[[f"p_{name}" for name in self.classes]].to_numpy(dtype=float)
        return pd.Index(self.classes).get_indexer(self.predictions["species"]), probabilities

    def cuts(self) -> pd.DataFrame | None:
        """The cuts kept with picture and sound, see `evaluation.cuts`; None in runs of versions that kept none."""
        path = self.run_dir / "galleries/test_cuts.csv"
        return _read_text(path, "shown_in", "picture", "sound") if path.is_file() else None

    def species_in_data(self) -> pd.DataFrame:
        """By species: cuts, tapes, and why it is not tested (else empty); no row in runs of versions that kept none."""
        path = self.run_dir / "reports/species.csv"
        if not path.is_file():
            return pd.DataFrame(columns=["cuts", "tapes", "not_tested"])
        table = _read_text(path, "species", "cuts", "tapes", "not_tested").set_index("species")
        if "folds" in self.info:  # each fold tests other species than the split that the data came with
            reasons = self.info.get("untestable", {})
            table["not_tested"] = [reasons.get(species, "") for species in table.index]
        return table

    def species(self) -> pd.DataFrame:
        """The test report per species: precision, recall, f1, support by species."""
        table = _read_text(self.run_dir / TEST_REPORT[0], "species", "f1", "support").set_index("species")
        return table.apply(pd.to_numeric)  # empty where a species has no cut

    def pairs(self, most: int = 10) -> pd.DataFrame:
        """The most confused pairs of the test split: true, predicted, count, share_of_true."""
        return _read_text(self.run_dir / TEST_REPORT[1], "true", "predicted", "count").head(most)


def _assert_there(run_dir: Path, names: list[str]) -> None:
    for name in names:
        if not (run_dir / name).is_file():
            raise UserError(f"The run in {run_dir} is incomplete: {name} is missing.")


def _read_text(path: Path, *needed: str) -> pd.DataFrame:
    """A table in which names are text, also where a species is called `NA` or a tape `00012`; `needed` are columns.

    Raises:
        UserError: it cannot be read, or lacks one of them.
    """
    text = dict.fromkeys(
        [*TEXT_COLUMNS, "answers", "true", "predicted", "picture", "sound", "silent", "not_tested"], str
    )
    with damage(path):
        table = read_csv(path, dtype=text, keep_default_na=False)
        if missing := [name for name in needed if name not in table]:
            raise ValueError(f"no column {missing[0]}")
        names = [name for name in ("species", "true", "predicted") if name in table]
        return table.rename(columns=normal).assign(**{name: table[name].map(normal) for name in names})


def _read_history(path: Path) -> pd.DataFrame:
    """A row an epoch: numbers in full precision. Raises as `_read_text`."""
    with damage(path):
        table = pd.read_csv(path, float_precision="round_trip").apply(pd.to_numeric)
        needed = ("epoch", metric_names.TRAIN_LOSS, metric_names.VAL_LOSS, metric_names.VAL_MACRO_F1)
        if missing := [name for name in needed if name not in table]:
            raise ValueError(f"no column {missing[0]}")
        if table.empty or table["epoch"].isna().any():
            raise ValueError("no epoch")
    return table


@contextmanager
def damage(path: Path) -> Iterator[None]:
    """Name the file that cannot be read; parsers raise many kinds of error."""
    try:
        yield
    except Exception as error:
        raise UserError(f"{path}: damaged ({first_line(error)}); take it from MLflow or another copy") from None


def data_warning(runs: list[ComparedRun]) -> str | None:
    """A sentence when the runs were not made on the same data, so that their scores do not compare."""
    if len({run.info["data_digest"] for run in runs}) == 1:
        return None
    digests = "; ".join(f"{run.label}: {run.info['data_digest']}" for run in runs)
    return f"These runs were made on different data, so their scores do not compare ({digests})."


def comparison_table(runs: list[ComparedRun]) -> pd.DataFrame:
    """Metrics (index, keys as in metrics.json) by run (columns, stamped titles); NaN where a run has none.

    `attrs["warning"]` holds `data_warning(runs)`: a sentence, or None when the runs share their data.
    """
    assert_distinct(runs)
    keys = [row.key for rows in GROUPS.values() for row in rows] + [metric_names.BEST_EPOCH]
    table = pd.DataFrame({run.title: pd.Series(run.metrics, dtype=float).reindex(keys) for run in runs})
    table.attrs["warning"] = data_warning(runs)
    return table


def headline(runs: list[ComparedRun]) -> str:
    """One sentence: what one run scores, or whether the better of the two best is better by more than noise."""
    tested = [run for run in runs if run.is_tested]
    if not tested:
        return "No run has a test report yet."
    if len(tested) == 1:
        scores = score_intervals(tested[0].predictions)
        return (
            f"{tested[0].title} reaches {scores['macro_f1'].value:.1%} macro F1 and {scores['accuracy'].value:.1%} "
            f"accuracy {tested_on(tested)}."
        )
    if data_warning(tested):
        return "No run can be said to lead, for they were made on different data."
    first, second = sorted(tested, key=lambda run: run.metrics[metric_names.TEST_MACRO_F1], reverse=True)[:2]
    if set(first.predictions["path"]) != set(second.predictions["path"]):
        return f"{first.title} and {second.title} were not tested on the same cuts, so neither can be said to lead."
    difference = paired_difference(second.predictions, first.predictions)["macro_f1"]
    return verdict(difference, second.title, first.title)


def tested_on(runs: list[ComparedRun]) -> str:
    """Which cuts the scores of `runs` are about: `on the test split`, or `pooled over 5 folds`."""
    folds = {run.info.get("folds") for run in runs}
    if folds == {None}:
        return "on the test split"
    return f"pooled over {folds.pop()} folds" if len(folds) == 1 else "on the cuts that each run was tested on"


def percent(value: float) -> str:
    """A share (0..1) as percent with one decimal."""
    return f"{value:.1%}"


def assert_distinct(runs: list[ComparedRun]) -> None:
    """Raise a UserError when two runs have one label, for neither table nor figure could tell them apart."""
    labels = [run.label for run in runs]
    for label in labels:
        if labels.count(label) > 1:
            raise UserError(f"Two of the compared runs are labelled {label!r}; give each its own label.")
