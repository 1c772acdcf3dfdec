"""The files of `watkins evaluate --recordings`: tables, curves, metrics and the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from watkins_ml.annotations.reviewed import WORDS
from watkins_ml.core.files import write_csv, write_json, write_text
from watkins_ml.core.metric_names import DETECTION_AP, DETECTION_ON
from watkins_ml.core.wording import plural
from watkins_ml.evaluation import plots
from watkins_ml.evaluation.detection.excerpts import chosen_errors, excerpts
from watkins_ml.evaluation.detection.page import render_page
from watkins_ml.evaluation.detection.plots import precision_recall, recall_false_alarms
from watkins_ml.evaluation.page.pictures import Picture, picture
from watkins_ml.inference.detection_scoring import DetectionEvaluation
from watkins_ml.models.bundle import Classifier

PAGE = "detection.html"
FIGURE_BYTES = 1_000_000


def write_detection_report(out: Path, evaluation: DetectionEvaluation, classifier: Classifier, model: str) -> None:
    """Write everything into `out`; the metrics come last."""
    scores, settings = evaluation.scores, classifier.frontend.settings
    write_csv(out / "reports" / "detection_species.csv", scores.table, "%.6g")
    write_csv(out / "reports" / "detection_groups.csv", scores.groups, "%.6g")
    write_csv(out / "reports" / "detection_curves.csv", scores.curves, "%.6g")
    write_csv(out / "preds" / "detection_verdicts.csv", evaluation.verdicts, "%.6g")
    write_csv(out / "rejected.csv", evaluation.rejected)
    pictures = list[Picture]()
    for name, figure, caption in (
        ("precision_recall", precision_recall(scores), "Precision against recall"),
        ("false_alarms", recall_false_alarms(scores), "Recall against false alarms an hour"),
    ):
        plots.save(figure, out / "plots" / f"detection_{name}.png")
        pictures.append(picture(plots.draw(figure), caption, caption, FIGURE_BYTES))
    shown = chosen_errors(evaluation.verdicts)
    errors = excerpts(shown, evaluation.verdicts, evaluation.root, settings.seconds, settings.highest)
    write_text(out / PAGE, render_page(model, scores, facts_of(evaluation), evaluation.remarks, pictures, errors))
    about: dict[str, Any] = {
        "model": model,
        "model_digest": classifier.digest(),
        "annotations": evaluation.annotations.digest,
        "recordings": _recordings(evaluation),
        "criterion": scores.main.by,
        "iou": scores.main.iou,
        "overlap": evaluation.options.windows.overlap,
        "by": evaluation.options.by,
        "group_by": evaluation.options.group_by,
        "thresholds": scores.thresholds,
        "thresholds_from": evaluation.thresholds_from,
        "remarks": list(evaluation.remarks),
        "trained_on": classifier.facts,
    }
    write_json(out / "reports" / "detection_metrics.json", scores.metrics() | {"evaluated": about})


def version_tags(evaluation: DetectionEvaluation) -> dict[str, str]:
    """By which registered versions are compared; none where there is no average precision."""
    scores, options = evaluation.scores, evaluation.options
    value = scores.metrics().get(DETECTION_AP)
    how = f"{scores.main.by} {scores.main.iou:g} {options.by}"
    channels = " each channel" * options.windows.each_channel
    on = f"{evaluation.annotations.digest} {_recordings(evaluation)} recordings {how}{channels}"
    return {} if value is None else {DETECTION_AP: f"{value:.6f}", DETECTION_ON: on}


def _recordings(evaluation: DetectionEvaluation) -> int:
    return len({track.recording for track in evaluation.timeline.tracks})


def facts_of(evaluation: DetectionEvaluation) -> list[tuple[str, str]]:
    """What was scored and how: title and text."""
    scores, options = evaluation.scores, evaluation.options
    reviewed = options.tables.reviewed if options.tables.reviewed in WORDS else "table"
    groups = scores.groups["group"].nunique()
    said = {
        "detection": "those in a row are one detection",
        "window": "each is a detection",
        "peak": "peaks are detections",
    }
    by_scenario = [f"{name.upper()} {value:.3f}" for name, value in scores.psds.items()]
    return [
        ("Recordings", f"{_recordings(evaluation):,} in {plural(groups, 'group')} (--group-by {options.group_by})"),
        ("Tables", f"{evaluation.annotations.tables:,} (digest {evaluation.annotations.digest})"),
        (
            "Hours in which a false alarm would be known",
            f"{scores.hours:.3g}, --reviewed {reviewed}",
        ),
        ("Windows", f"overlap {options.windows.overlap:g}; {said[options.by]}"),
        ("Thresholds", evaluation.thresholds_from),
        ("Judged by", scores.main.by),
        ("PSDS", ", ".join(by_scenario)),
        ("Ignored detections, where nobody listened", f"{(evaluation.verdicts['verdict'] == 'ignored').sum():,}"),
    ]
