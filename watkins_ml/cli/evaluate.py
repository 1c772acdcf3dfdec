"""`watkins evaluate`: a model on prepared data, or its detections in continuous recordings."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from watkins_ml.cli.arguments import Json, Label, LabelColumn, Labels, Model, Reviewed, TableIndex, print_json
from watkins_ml.core.errors import UsageError

if TYPE_CHECKING:
    from watkins_ml.inference.detection_scoring import DetectionOptions
    from watkins_ml.models.bundle import Classifier

EXAMPLE = "watkins evaluate models:/watkins-efficientnet@champion --split test"
RECORDINGS = {"rich_help_panel": "Detections in continuous recordings"}
RATE = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(?:\s*/\s*(h|hour|d|day))?")
HOURS = {"h": 1.0, "hour": 1.0, "d": 24.0, "day": 24.0}


def evaluate(
    model: Model,
    data: Annotated[Path, typer.Option(help="Prepared data folder.")] = Path("data"),
    split: Annotated[Literal["train", "val", "test"], typer.Option(help="The side to report on.")] = "test",
    out: Annotated[
        Path | None, typer.Option(help="Folder for the report; default results/<model>-<split>, or -detection.")
    ] = None,
    recordings: Annotated[
        Path | None, typer.Option(help="Recordings of any length, in which detections are scored.", **RECORDINGS)
    ] = None,
    annotations: Annotated[
        Path | None, typer.Option(help="What is marked there: a table, or the folder of the tables.", **RECORDINGS)
    ] = None,
    false_alarms: Annotated[
        str | None,
        typer.Option(help="Choose thresholds with at most so many false alarms a species: 1/h, 5/day.", **RECORDINGS),
    ] = None,
    precision: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Choose thresholds with at least this precision a species.", **RECORDINGS),
    ] = None,
    save_thresholds: Annotated[
        bool, typer.Option("--save-thresholds", help="Keep the chosen thresholds with the model.", **RECORDINGS)
    ] = False,
    threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Of all species; else those kept with the model, else 0.5.", **RECORDINGS),
    ] = None,
    by: Annotated[
        Literal["detection", "window", "peak"] | None,
        typer.Option(
            help="detection (windows in a row are one, default), window (each by itself) or peak (the surest of those "
            "that overlap).",
            **RECORDINGS,
        ),
    ] = None,
    match: Annotated[
        Literal["centre", "overlap"],
        typer.Option(help="When a detection may be a call's: a middle lies inside, or they overlap.", **RECORDINGS),
    ] = "centre",
    iou: Annotated[
        float, typer.Option(min=0.01, max=1, help="Least overlap: intersection over union.", **RECORDINGS)
    ] = 0.3,
    group_by: Annotated[
        str,
        typer.Option(
            help="What intervals are drawn over: recording, day, a column of --metadata (site), or a regular "
            "expression.",
            **RECORDINGS,
        ),
    ] = "recording",
    metadata: Annotated[
        Path | None, typer.Option(help="CSV table with a row a recording, for --group-by.", **RECORDINGS)
    ] = None,
    overlap: Annotated[
        float | None,
        typer.Option(min=0, max=0.95, help="Share of a window that the next repeats; 0.5 (window: 0, peak: 0.75), or "
                     "that of kept thresholds.", **RECORDINGS),
    ] = None,
    each_channel: Annotated[
        bool, typer.Option("--each-channel", help="Detections in every channel by itself.", **RECORDINGS)
    ] = False,
    max_novelty: Annotated[
        float | None,
        typer.Option(min=0, help="No detection above it, inf takes all; 1, or that of kept thresholds.", **RECORDINGS),
    ] = None,
    device: Annotated[
        Literal["auto", "cpu", "cuda", "mps"], typer.Option(help="auto takes CUDA where there is one.", **RECORDINGS)
    ] = "auto",
    reviewed: Reviewed = "spans",
    labels: Labels = None,
    label_column: LabelColumn = None,
    label: Label = None,
    table_index: TableIndex = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Full report of any run or registered model: on prepared data, or of its detections in continuous recordings."""
    given = dict(locals())
    if recordings is None:
        _refuse(
            given,
            ("recordings", "model", "data", "split", "out", "as_json"),
            "is about detections; give --recordings too",
        )
        _on_prepared_data(model, data, split, out, as_json)
    elif annotations is None:
        raise UsageError("--recordings: needs what is marked in them (--annotations TABLES)")
    else:
        others = [name for name in given if name not in ("data", "split")]
        _refuse(given, others, "is about prepared data; leave it out with --recordings")
        _on_recordings(model, recordings, annotations, out, given)


def _refuse(given: dict[str, Any], but: tuple[str, ...] | list[str], reason: str) -> None:
    usual = {name: value.default for name, value in inspect.signature(evaluate).parameters.items()}
    if changed := [name for name, value in given.items() if name not in but and value != usual[name]]:
        raise UsageError(f"--{changed[0].replace('_', '-')}: {reason}")


def _folder(model: str, what: str) -> Path:
    from watkins_ml.core.names import file_name

    return Path("results") / f"{file_name(model.replace('models:/', '').strip('/').replace('/', '-'))}-{what}"


def _on_prepared_data(model: str, data: Path, split: str, out: Path | None, as_json: bool) -> None:
    from watkins_ml.cli.tables import print_scores
    from watkins_ml.inference.evaluate import evaluate_model

    out = out or _folder(model, split)
    scores, protocol = evaluate_model(model, data, split, out)
    if as_json:
        print_json({"side": split, "split": protocol, "metrics": scores, "folder": out})
    else:
        print_scores(scores, split, protocol, out)


def _on_recordings(model: str, recordings: Path, tables: Path, out: Path | None, given: dict[str, Any]) -> None:
    wish = _wish(given)
    out = out or _folder(model, "detection")
    from watkins_ml.cli.detection_tables import print_detection_scores
    from watkins_ml.core.console import out as console
    from watkins_ml.core.device import choose_device
    from watkins_ml.core.files import disk_errors
    from watkins_ml.core.locks import only_writer
    from watkins_ml.inference.detection_report import version_tags, write_detection_report
    from watkins_ml.inference.detection_scoring import evaluate_detections
    from watkins_ml.inference.resolve import load_classifier, record_detection, save_thresholds

    where = choose_device(given["device"], "--device")
    classifier = load_classifier(model)
    classifier.network.to(where)
    options = _options(given, wish, classifier)
    with (
        disk_errors(f"cannot write the report to {out}", "choose another folder with --out"),
        only_writer(out, "watkins evaluate"),
    ):
        evaluation = evaluate_detections(classifier, model, recordings, tables, out / "scores", options)
        write_detection_report(out, evaluation, classifier, model)
    if not given["as_json"]:  # first, for the server may fail
        print_detection_scores(evaluation, out)
    run_id = record_detection(model, metrics := evaluation.scores.metrics(), version_tags(evaluation))
    kept = save_thresholds(model, evaluation.thresholds(model)) if given["save_thresholds"] else None
    if given["as_json"]:
        print_json({"metrics": metrics, "run_id": run_id, "thresholds": kept, "folder": out})
        return
    if run_id:
        console.print(f"Metrics logged to MLflow run {run_id}")
    if kept:
        console.print(f"Thresholds kept: {kept}")


def _wish(given: dict[str, Any]) -> Any:
    from watkins_ml.evaluation.detection.choosing import Wish

    rate, precision = given["false_alarms"], given["precision"]
    chosen = [name for name in ("false_alarms", "precision", "threshold") if given[name] is not None]
    if len(chosen) > 1:
        one, other = (name.replace("_", "-") for name in chosen[:2])
        raise UsageError(f"--{other}: not together with --{one}; give one of them")
    if given["save_thresholds"] and chosen not in (["false_alarms"], ["precision"]):
        raise UsageError("--save-thresholds: needs what they are chosen by (--false-alarms 1/h or --precision 0.9)")
    if rate is not None:
        found = RATE.fullmatch(rate.strip())
        if not found:
            raise UsageError(f"--false-alarms {rate}: is no rate; write how many an hour or a day, as 1/h or 5/day")
        return Wish(false_alarms=float(found[1]) / HOURS[found[2] or "h"])
    return None if precision is None else Wish(precision=precision)


def _options(given: dict[str, Any], wish: Any, classifier: Classifier) -> DetectionOptions:
    from watkins_ml.annotations.collect import AnnotationOptions
    from watkins_ml.evaluation.detection.matching import MatchRule
    from watkins_ml.inference.detection_scoring import DetectionOptions
    from watkins_ml.inference.windows import WindowOptions, by_of, novelty_of, overlap_of

    names = ("label_column", "label", "labels", "table_index", "reviewed")
    by = given["by"] or by_of(classifier.thresholds)
    overlap = overlap_of(given["overlap"], classifier.thresholds, by)
    return DetectionOptions(
        AnnotationOptions(**{name: given[name] for name in names}), given["group_by"], given["metadata"],
        WindowOptions(overlap, given["each_channel"]), by, MatchRule(given["match"], given["iou"]),
        novelty_of(given["max_novelty"], classifier.thresholds), given["threshold"], wish,
    )  # fmt: skip
