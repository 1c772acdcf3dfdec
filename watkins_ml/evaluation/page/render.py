"""The page from its parts."""

from functools import cache
from pathlib import Path

import jinja2

from watkins_ml.core.files import write_text
from watkins_ml.core.text import shown
from watkins_ml.core.wording import plural
from watkins_ml.evaluation.page import tables
from watkins_ml.evaluation.page.cards import CardBuilder
from watkins_ml.evaluation.page.pictures import FIGURES, figures, learning_curves
from watkins_ml.evaluation.runs import (
    ComparedRun,
    assert_distinct,
    data_warning,
    headline,
    percent,
    tested_on,
)
from watkins_ml.evaluation.shortfall import control_note

CARD_BYTES = 9_500_000
FIGURE_BYTES = 3_000_000
"""Of the whole page, as data URIs: together with text and tables it stays below 15 MB."""


def write_page(runs: list[ComparedRun], out_html: Path) -> str:
    """Write one run, or several side by side, as an HTML page that needs no other file and no network; its text."""
    assert_distinct(runs)
    html = _render(runs)
    write_text(out_html, html)
    return html


def _harmless(value: object) -> object:
    """Text from runs, which is escaped for HTML afterwards, without characters that turn the text around them."""
    return shown(value) if type(value) is str else value  # what macros give is Markup


@cache
def _environment() -> jinja2.Environment:
    """One for all pages, since it keeps its templates compiled."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        finalize=_harmless,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _render(runs: list[ComparedRun]) -> str:
    tested = [run for run in runs if run.has_test_report]
    species = tables.species_rows(tested) if tested else []
    cards = CardBuilder(tested, CARD_BYTES)
    budget = FIGURE_BYTES * 3 // 4 // (1 + len(FIGURES) * len(tested))  # base64 grows by a third
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            names=", ".join(run.title for run in runs),
            headline=headline(runs),
            warning=data_warning(runs),
            leaky=[run.label for run in runs if run.is_leaky],
            control_note=control_note(runs),
            charts=tables.headline_charts(tested) if tested else {},
            tested_on=tested_on(runs),
            runs=runs,
            tested=tested,
            facts=tables.facts(runs),
            curves=learning_curves(runs, budget),
            species=[row for row in species if row.test_cuts],
            rare=[row for row in species if row.is_rare or not row.test_cuts],
            rule=f"fewer than {tables.RARE_TAPES} tapes or fewer than {tables.RARE_CUTS} cuts in the data",
            mean_f1=tables.mean_f1,
            matrices=[tables.confusion(run) for run in tested if not run.is_for_labels],
            figures=figures(tested, budget),
            galleries=cards.galleries() if tested else [],
            pairs=[(run.title, cards.pairs(run)) for run in tested],
            groups=tables.metric_groups(runs),
            settings=tables.settings(runs),
            percent=percent,
            plural=plural,
        )
    )
