"""Runs side by side as one self-contained HTML page: text, tables and every picture in a single file."""

import base64
import io
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np
import pandas as pd
from PIL import Image

from watkins_ml.evaluation import plots
from watkins_ml.evaluation.runs import (
    GROUPS,
    ComparedRun,
    Row,
    assert_distinct,
    comparison_table,
    control_note,
    data_warning,
    headline,
    percent,
)
from watkins_ml.files import write_text

__all__ = ["ComparedRun", "comparison_table", "data_warning", "headline", "write_comparison"]

DASH = "–"
PAGE_BYTES = 14_000_000
# Figures are drawn at plots.DPI for print; on a page they are shown smaller, and sharp on dense screens.
PIXELS_PER_CSS_PIXEL = 1.7
FIGURES = {
    "Confusion matrices": ("confusion_matrix", "Cuts by true species (rows) and predicted species (columns)"),
    "Confidence by species": ("stripplot", "Confidence of each test cut by true species, right or wrong"),
    "Calibration": ("reliability", "Accuracy by confidence, with the number of cuts at each confidence"),
}
GALLERIES = {
    "least_confident": "The test cuts with the lowest confidence",
    "random": "Test cuts drawn at random",
}


class Picture(NamedTuple):
    run: str
    caption: str
    alt: str
    source: str  # data URI
    width: int  # CSS pixels


def write_comparison(runs: list[ComparedRun], out_html: Path) -> None:
    """Write the comparison of `runs` as one HTML page that needs no other file and no network."""
    assert_distinct(runs)
    html = _render(runs)
    write_text(out_html, html)


def _render(runs: list[ComparedRun]) -> str:
    tested = [run for run in runs if run.has_test_report]
    species = _species(tested)
    pictures_per_run = len(FIGURES) + len(GALLERIES)
    budget = PAGE_BYTES * 3 // 4 // (1 + pictures_per_run * len(tested))  # base64 grows by a third
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("compare.html.j2").render(
        headline=headline(runs),
        warning=data_warning(runs),
        leaky=[run.label for run in runs if run.is_leaky],
        control_note=control_note(runs),
        runs=runs,
        tested=tested,
        facts=_facts(runs),
        groups=_metric_groups(runs),
        curves=_curves(runs, budget),
        species=[row for row in species if row["tested"]],
        untested=[row["species"] for row in species if not row["tested"]],
        pairs=[(run.title, run.pairs().to_dict("records")) for run in tested],
        figures=[
            (title, [_file(run, f"plots/test_{name}.png", caption, budget) for run in tested])
            for title, (name, caption) in FIGURES.items()
        ],
        galleries=[
            _file(run, f"galleries/test_{name}.png", caption, budget, jpeg=True)
            for name, caption in GALLERIES.items()
            for run in tested
        ],
        settings=_settings(runs),
        percent=percent,
    )


def _facts(runs: list[ComparedRun]) -> list[tuple[str, list[str]]]:
    def of(key: str, form: str = "{}") -> list[str]:
        return [DASH if (value := run.info.get(key)) is None else form.format(value) for run in runs]

    best = [run.metrics.get("best_epoch") for run in runs]
    epochs = [DASH if at is None else f"{at:.0f} of {len(run.history)}" for at, run in zip(best, runs, strict=True)]
    protocol = [f"{run.info['split_protocol']}{', leaky reference' * run.is_leaky}" for run in runs]
    return [
        ("Run", of("name")),
        ("Model", of("family")),
        ("Data digest", of("data_digest")),
        ("Split protocol", protocol),
        ("Species", of("species")),
        ("Training cuts", of("train", "{:,}")),
        ("Validation cuts", of("val", "{:,}")),
        ("Test cuts", of("test", "{:,}")),
        ("Parameters", of("parameters", "{:,}")),
        ("Mean time of an epoch", of("epoch_seconds", "{:.1f} s")),
        ("Best epoch", epochs),
        ("MLflow run", of("mlflow_run_id")),
    ]


def _metric_groups(runs: list[ComparedRun]) -> dict[str, list[tuple[str, list[tuple[str, bool]]]]]:
    """For each group of metrics its rows: title, then each run's value as text and whether it is best."""
    table = comparison_table(runs)
    rankable = table.attrs["warning"] is None
    known = [row for row in table.index if not row.startswith("control_") or table.loc[row].notna().any()]
    return {
        group: [(row.title, _cells(table.loc[row.key], row, rankable)) for row in rows if row.key in known]
        for group, rows in GROUPS.items()
    }


def _cells(values: pd.Series, row: Row, rankable: bool) -> list[tuple[str, bool]]:
    known = values.dropna()
    best = row.best(known) if rankable and row.best and known.nunique() > 1 else None
    texts = [DASH if np.isnan(v) else percent(v) if row.percent else f"{v:.3f}" for v in values]
    return list(zip(texts, [value == best for value in values], strict=True))


def _curves(runs: list[ComparedRun], budget: int) -> Picture:
    """The learning curves of all runs in one figure."""
    best = {run.title: int(at) for run in runs if (at := run.metrics.get("best_epoch")) is not None}
    drawn = io.BytesIO()
    figure = plots.learning_curves({run.title: run.history for run in runs}, best)
    figure.savefig(drawn, format="png", dpi=plots.DPI)
    names = ", ".join(run.title for run in runs)
    caption = "Loss, accuracy and macro F1 by epoch: validation solid, training dashed, best epoch starred"
    return _picture(Image.open(drawn), names, caption, budget)


def _species(runs: list[ComparedRun]) -> list[dict[str, Any]]:
    """Per species: name, cuts by run, F1 by run, and the gain of the last run over the first (points)."""
    if not runs:
        return []
    reports = [run.species() for run in runs]
    rows = []
    for name in sorted(set().union(*(report.index for report in reports))):
        scores = [float(report.f1.get(name, np.nan)) for report in reports]
        cuts = [int(report.support.get(name, 0)) for report in reports]
        rows.append(
            {
                "species": name,
                "tested": any(cuts),
                "cuts": " / ".join(str(count) for count in dict.fromkeys(cuts)),
                "scores": [None if np.isnan(score) else score for score in scores],
                "gain": None if np.isnan(scores[0] + scores[-1]) else 100 * (scores[-1] - scores[0]),
            }
        )
    return rows


def _settings(runs: list[ComparedRun]) -> list[tuple[str, list[str], bool]]:
    """The configurations, flattened: dotted key, a value for each run, and whether the values differ."""
    flat = [pd.json_normalize(run.config).iloc[0].to_dict() for run in runs]
    keys = list(dict.fromkeys(key for settings in flat for key in settings))
    rows = [(key, [str(settings.get(key, DASH)) for settings in flat]) for key in keys]
    return [(key, values, len(set(values)) > 1) for key, values in rows]


def _file(run: ComparedRun, name: str, caption: str, budget: int, jpeg: bool = False) -> Picture:
    with Image.open(run.run_dir / name) as image:
        return _picture(image, run.title, caption, budget, jpeg)


def _picture(image: Image.Image, run: str, caption: str, budget: int, jpeg: bool = False) -> Picture:
    """Encode `image` as a data URI of at most `budget` bytes before base64, smaller where it must be."""
    image = image.convert("RGB")
    width = round(image.width / PIXELS_PER_CSS_PIXEL)
    while len(encoded := _encode(image, jpeg)) > budget:
        image = image.resize((image.width * 4 // 5, image.height * 4 // 5), Image.Resampling.LANCZOS)
    kind = "jpeg" if jpeg else "png"
    source = f"data:image/{kind};base64,{base64.b64encode(encoded).decode()}"
    return Picture(run, caption, f"{caption}: {run}", source, width)


def _encode(image: Image.Image, jpeg: bool) -> bytes:
    buffer = io.BytesIO()
    if jpeg:
        image.save(buffer, "JPEG", quality=82, optimize=True)
    else:
        # Plots hold few colours: a palette makes them three times smaller.
        image.quantize(256, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
