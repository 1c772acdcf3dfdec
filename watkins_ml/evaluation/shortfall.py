"""Whether a network is above the best control by more than noise, and the sentences for one that is not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from watkins_ml.core import metric_names
from watkins_ml.core.errors import UserError
from watkins_ml.core.files import read_csv
from watkins_ml.core.metric_names import CONTROL, TEST
from watkins_ml.core.names import normal
from watkins_ml.dataset.layout import TEXT_COLUMNS
from watkins_ml.evaluation.controls import CONTROLS, WITH_AUDIO
from watkins_ml.evaluation.intervals import QUANTITIES, Interval, paired_difference, signed
from watkins_ml.evaluation.runs import ComparedRun, damage, data_warning, percent, tested_on

TITLES = {name: f"{title}, without audio" for name, title in CONTROLS.items()} | WITH_AUDIO


def shortfall(
    subject: str,
    metrics: Mapping[str, float],
    predictions: pd.DataFrame | None = None,
    controls: pd.DataFrame | None = None,
) -> str | None:
    """The sentence that `subject` is not above the best control by more than noise; None if it is, or has none beside.

    `metrics` holds `test_*` and `control_*`. With the `predictions` of the test side (path, tape, species, predicted)
    and those of the `controls` on the same cuts (path, tape, species, and a column `control_<name>` each) the
    difference is judged by its 95 % interval over tapes, else by its sign.
    """
    sentences = []
    for quantity, title in QUANTITIES.items():
        own, known = metrics.get(TEST + quantity), _known(metrics, quantity)
        if own is None or not known:
            continue
        best = max(known, key=lambda name: known[name])  # of equals the simplest
        difference = Interval(own - known[best], np.nan, np.nan)
        if predictions is not None and controls is not None and CONTROL + best in controls:
            answer = "answers" if "targets" in controls else "predicted"
            difference = paired_difference(controls.assign(**{answer: controls[CONTROL + best]}), predictions)[quantity]
        if difference.value <= 0 or difference.low <= 0:
            sentences.append(
                f"{title} {percent(own)} against {percent(known[best])} ({TITLES[best]}{_span(difference)})"
            )
    return f"{subject} is not above the best control by more than noise: {'; '.join(sentences)}." if sentences else None


def _known(metrics: Mapping[str, float], quantity: str) -> dict[str, float]:
    keys = {name: metric_names.control(name, quantity) for name in TITLES}
    return {name: metrics[key] for name, key in keys.items() if metrics.get(key) is not None}


def _span(difference: Interval) -> str:
    if np.isnan(difference.low):
        return ""
    points, low, high = map(signed, difference)
    return f"; {points} points, 95 % interval over tapes {low} to {high}"


def shortfall_of(run_dir: Path, metrics: Mapping[str, float], subject: str = "This network") -> str | None:
    """`shortfall` of the test report in `run_dir`."""
    predictions, controls = (read_predictions(run_dir / "preds" / name) for name in ("test.csv", "test_controls.csv"))
    if controls is not None and predictions is not None and set(controls["path"]) != set(predictions["path"]):
        what = "of other cuts than test.csv beside it; take both from MLflow or another copy"
        raise UserError(f"{run_dir / 'preds' / 'test_controls.csv'}: {what}")
    return shortfall(subject, metrics, predictions, controls)


def read_predictions(path: Path) -> pd.DataFrame | None:
    """A table of predictions, or None where there is none, as of earlier versions."""
    if not path.is_file():
        return None
    with damage(path):
        answers = ("predicted", *(CONTROL + name for name in TITLES))
        text = TEXT_COLUMNS | dict.fromkeys((*answers, "answers"), str)
        table = read_csv(path, dtype=text, keep_default_na=False)
        names = [name for name in ("species", *answers, "targets", "answers") if name in table]
        return table[["path", "tape", *names]].assign(**{name: table[name].map(normal) for name in names})


def control_note(runs: list[ComparedRun]) -> str | None:
    """What the best control without audio and the one with audio reach, and which runs fail to beat them."""
    if data_warning(runs):
        return None
    best: dict[str, float] = {}
    for run in runs:
        for name, value in _known(run.metrics, metric_names.ACCURACY).items():
            best[name] = max(value, best.get(name, value))
    silent = {name: value for name, value in best.items() if name in CONTROLS}
    reached = []
    if silent:
        name = max(silent, key=lambda name: silent[name])  # of equals the simplest
        reached.append(f"The best control without audio ({CONTROLS[name]}) reaches {percent(silent[name])} accuracy")
    reached += [f"a {title} {percent(best[name])}" for name, title in WITH_AUDIO.items() if name in best]
    if not reached:
        return None
    note = f"{', '.join(reached)} {tested_on(runs)}."
    sentences = [shortfall_of(run.run_dir, run.metrics, run.title) for run in runs if run.is_tested]
    return " ".join([note[0].upper() + note[1:], *filter(None, sentences)])
