"""Tables and plots of a side whose recordings may hold any number of species."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from watkins_ml.core.files import write_csv, write_json
from watkins_ml.core.metric_names import MACRO_AP
from watkins_ml.dataset.targets import joined_names
from watkins_ml.evaluation import plots
from watkins_ml.evaluation.average_precision import precision_recall
from watkins_ml.evaluation.calibration_plots import reliability_of
from watkins_ml.evaluation.labels import LabelsEvaluation, calibration_bins
from watkins_ml.evaluation.lettering import legible

DIGITS = "%.6g"
MOST_CURVES = 20
"""Species with a curve of their own, those with the most recordings."""


def write_labels_tables(run_dir: Path, side: str, predictions: pd.DataFrame, evaluation: LabelsEvaluation) -> None:
    """Write the report by species, confused pairs, predictions, and mistakes with what was missed and false."""
    reports, table = run_dir / "reports", evaluation.per_species
    if evaluation.thresholds.ndim == 1:
        table = table.assign(threshold=evaluation.thresholds)
    write_csv(reports / f"{side}_classification_report.csv", table, DIGITS)
    write_csv(reports / f"{side}_confusion_pairs.csv", evaluation.confusion_pairs, DIGITS)
    by_species = table.set_index("species").astype(object).where(table.set_index("species").notna(), None)
    scores = {name: value for name, value in evaluation.scores.items() if value == value}
    write_json(reports / f"{side}_classification_report.json", by_species.to_dict("index") | {"all": scores})

    columns = pd.DataFrame(evaluation.probabilities, columns=[f"p_{name}" for name in evaluation.classes])
    write_csv(run_dir / "preds" / f"{side}.csv", pd.concat([predictions, columns], axis=1), DIGITS)

    marks = {"missed": (evaluation.targets == 1) & ~evaluation.answers,
             "false": (evaluation.targets == 0) & evaluation.answers}  # fmt: skip
    named = {
        name: np.where(mark.any(axis=1), joined_names(mark, evaluation.classes), "") for name, mark in marks.items()
    }
    mistakes = predictions.assign(**named)[~evaluation.correct]
    write_csv(run_dir / "misclassified" / f"{side}.csv", mistakes, DIGITS)


def write_labels_plots(folder: Path, side: str, evaluation: LabelsEvaluation) -> None:
    """Draw precision against recall, and the reliability diagram over all known labels."""
    bins = {
        "uncalibrated": calibration_bins(evaluation.targets, evaluation.uncalibrated),
        "calibrated": evaluation.calibration_bins,
    }
    plots.save(precision_recall_figure(evaluation), folder / f"{side}_precision_recall.png")
    plots.save(reliability_of(bins, "share that is there", "label"), folder / f"{side}_reliability.png")


def precision_recall_figure(evaluation: LabelsEvaluation) -> Figure:
    """Precision against recall of each species, with the average precision, and a dot at its threshold."""
    table = evaluation.per_species
    shown = table[table["support"] > 0].sort_values("support", ascending=False, kind="stable").head(MOST_CURVES)
    fig = plots.new_figure(9.5, 5.6)
    axes = fig.subplots()
    styles = cycle([(colour, line) for line in ("-", "--", ":") for colour in plots.RUN_COLOURS])
    for row, (colour, line) in zip(shown.itertuples(), styles, strict=False):
        curve = precision_recall(evaluation.targets[:, row.Index], evaluation.probabilities[:, row.Index])
        label = f"{legible(row.species)}: {row.average_precision:.2f} ({row.support:,})"
        axes.step(curve["recall"], curve["precision"], where="post", color=colour, ls=line, lw=1.6, label=label)
        axes.plot(row.recall, row.precision, marker="o", ms=7, color=colour, mec="white", clip_on=False, zorder=3)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1))
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("recall: share of what is there that is answered")
    axes.set_ylabel("precision: share of answers that are right")
    mean = evaluation.scores.get(MACRO_AP)
    said = "no species is here" if mean is None else f"mean average precision {mean:.3f}; dots: at the thresholds"
    axes.set_title(said, fontsize=11)
    plots.open_axes(axes)
    title = "average precision (recordings)"
    if len(shown):
        fig.legend(loc="outside right upper", frameon=False, fontsize=9, title=title, title_fontsize=9)
    return fig
