"""Detections of a model as one self-contained HTML page: scores, curves, and single errors to see and to hear."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd

from watkins_ml.core.text import shown
from watkins_ml.core.wording import plural
from watkins_ml.evaluation import page as report_page
from watkins_ml.evaluation.detection.excerpts import Excerpt
from watkins_ml.evaluation.detection.scores import CRITERIA, MACRO, MICRO, DetectionScores
from watkins_ml.evaluation.intervals import HIGH, LOW
from watkins_ml.evaluation.page.pictures import Picture

DASH = "–"
CRITERION = {
    "centre": "a detection is a hit where the middle of it lies in a call, or the middle of the call in it",
    "overlap": "a detection is a hit where it shares at least {iou:.0%} of its time and a call's together",
}
COLUMNS = {
    "threshold": "threshold",
    "calls": "calls",
    "hits": "hits",
    "misses": "misses",
    "false_alarms": "false alarms",
    "recall": "recall",
    "precision": "precision",
    "f1": "F1",
    "average_precision": "average precision",
    "false_alarms_an_hour": "false alarms an hour",
}
"""Columns of the table of species, and how they are called."""
GROUP_COLUMNS = ("calls", "hits", "misses", "false_alarms", "recall", "precision", "f1", "false_alarms_an_hour")


def render_page(
    model: str, scores: DetectionScores, facts: list[tuple[str, str]], remarks: Iterable[str],
    pictures: list[Picture], errors: list[Excerpt],
) -> str:  # fmt: skip
    """The page's text."""
    return (
        _environment()
        .get_template("page_of_detections.html.j2")
        .render(
            model=model,
            headline=headline(scores),
            remarks=list(remarks),
            facts=facts,
            tables=[(by, criterion_text(scores, by), species_rows(scores, by)) for by in ordered_criteria(scores)],
            columns=list(COLUMNS.values()),
            group_columns=[COLUMNS[name] for name in GROUP_COLUMNS],
            pictures=pictures,
            groups=group_rows(scores),
            errors=errors,
            species=list(dict.fromkeys(each.species for each in errors)),
            plural=plural,
        )
    )


def headline(scores: DetectionScores) -> str:
    """The result in one sentence."""
    rows = scores.table[scores.table["criterion"] == scores.main.by].set_index("species")
    micro, macro = rows.loc[MICRO], rows.loc[MACRO]
    rate = _cell(micro, "false_alarms_an_hour")
    hits, calls = int(micro["hits"]), int(micro["calls"])
    found = f"{hits:,} of {plural(calls, 'call')} found"
    return (
        f"{found}, {rate} false alarms an hour; average precision {_cell(macro, 'average_precision')} (mean of species)"
    )


def species_rows(scores: DetectionScores, by: str, intervals: bool = True) -> list[tuple[str, list[str]]]:
    """Each species, all pooled and their mean: name and the texts of COLUMNS, with intervals in brackets."""
    rows = scores.table[scores.table["criterion"] == by]
    return [(row["species"], [_cell(row, name, intervals) for name in COLUMNS]) for _, row in rows.iterrows()]


def criterion_text(scores: DetectionScores, by: str) -> str:
    """What counts as a hit."""
    return CRITERION[by].format(iou=scores.main.iou)


def ordered_criteria(scores: DetectionScores) -> list[str]:
    """The main one first."""
    return [scores.main.by, *(by for by in CRITERIA if by != scores.main.by)]


def _cell(row: pd.Series, name: str, interval: bool = True) -> str:
    value = row[name]
    if pd.isna(value):
        return DASH
    if name in ("calls", "hits", "misses", "false_alarms"):
        return f"{int(value):,}"
    if name == "threshold":
        return f"{value:.4g}"
    low, high = row.get(name + LOW, np.nan), row.get(name + HIGH, np.nan)
    form = rate_text if name == "false_alarms_an_hour" else "{:.3f}".format
    return form(value) if pd.isna(low) or not interval else f"{form(value)} ({form(low)}–{form(high)})"


def rate_text(rate: float) -> str:
    """Events an hour, with about two digits."""
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}" if rate >= 1 else f"{rate:.2f}"


def group_rows(scores: DetectionScores) -> list[tuple[str, list[str]]]:
    """Each group, all species pooled."""
    rows = scores.groups[scores.groups["species"] == MICRO]
    return [(row["group"], [_cell(row, name) for name in GROUP_COLUMNS]) for _, row in rows.iterrows()]


def _harmless(value: object) -> object:
    return shown(value) if type(value) is str else value  # what macros give is Markup


@cache
def _environment() -> jinja2.Environment:
    folders: Any = [Path(__file__).parent, Path(report_page.__file__).parent]
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(folders), autoescape=True, finalize=_harmless, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
