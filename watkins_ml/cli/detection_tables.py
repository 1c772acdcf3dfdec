"""How scores of detections look in the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from watkins_ml.cli.tables import table_of
from watkins_ml.core.console import err, out
from watkins_ml.core.wording import plural

if TYPE_CHECKING:
    from watkins_ml.inference.detection_scoring import DetectionEvaluation

SHORT = {
    "threshold": "threshold",
    "calls": "calls",
    "hits": "hits",
    "false_alarms": "false",
    "false_alarms_an_hour": "false/h",
    "recall": "recall",
    "precision": "precision",
    "f1": "F1",
    "average_precision": "AP",
}
"""Columns in the terminal; the page and the tables have intervals too."""


def print_detection_scores(evaluation: DetectionEvaluation, folder: Path) -> None:
    """A table of species, what to know of the numbers, and where the report is."""
    from watkins_ml.evaluation.detection.choosing import doubt
    from watkins_ml.evaluation.detection.page import COLUMNS, criterion_text, headline, ordered_criteria, species_rows
    from watkins_ml.inference.detection_report import PAGE, facts_of

    scores = evaluation.scores
    main, other = ordered_criteria(scores)
    table = table_of("species", *SHORT.values(), f"recall ({other})", f"AP ({other})", title=f"Detections, by {main}")
    places = [list(COLUMNS).index(name) for name in SHORT]
    also = [list(COLUMNS).index(name) for name in ("recall", "average_precision")]
    rows = zip(species_rows(scores, main, False), species_rows(scores, other, False), strict=True)
    for number, ((name, cells), (_, others)) in enumerate(rows):
        if number == len(evaluation.timeline.species):
            table.add_section()
        table.add_row(name, *(cells[at] for at in places), *(others[at] for at in also))
    out.print(table, soft_wrap=False)
    out.print("false: false alarms, false/h: these an hour, AP: average precision over all thresholds")
    for by in (main, other):
        out.print(f"by {by}: {criterion_text(scores, by)}")
    if evaluation.options.group_by != "recording":
        _print_groups(evaluation)
    for title, value in facts_of(evaluation):
        out.print(f"{title}: {value}")
    for remark in evaluation.remarks:
        err.print(remark, style="yellow")
    if scores.undecided:
        names = ", ".join(scores.undecided)
        err.print(f"No threshold could be chosen for {names}: too little is known of it here", style="yellow")
    if (wish := evaluation.options.wish) is not None:
        if sentence := doubt(wish, scores.hours):
            err.print(sentence, style="yellow")
        err.print(
            "The thresholds were chosen on these very recordings: to see what they keep elsewhere, evaluate on others",
            style="yellow",
        )
    if len(evaluation.rejected):
        out.print(f"{plural(len(evaluation.rejected), 'row')} left out: {folder / 'rejected.csv'}")
    out.print(f"{headline(scores)} (in brackets: 95 % intervals over groups of recordings)")
    out.print(f"Report, to see and hear what was missed: {folder / PAGE}")


def _print_groups(evaluation: DetectionEvaluation) -> None:
    from watkins_ml.evaluation.detection.page import COLUMNS, GROUP_COLUMNS, group_rows

    table = table_of("group", *(COLUMNS[name] for name in GROUP_COLUMNS), title="All species, by group")
    for name, cells in group_rows(evaluation.scores):
        table.add_row(name, *cells)
    out.print(table, soft_wrap=False)
