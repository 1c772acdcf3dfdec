"""The cuts that a page shows one by one: spectrogram, sound, and what each run says of it."""

from __future__ import annotations

from itertools import islice
from typing import Any, NamedTuple

import pandas as pd

from watkins_ml.core.confined import plain_file
from watkins_ml.evaluation.cuts import MISTAKE, PAIRS, PREDICTED, TRUE
from watkins_ml.evaluation.page.pictures import Picture, data_uri, picture_file
from watkins_ml.evaluation.plots import GALLERY_SIDE
from watkins_ml.evaluation.runs import ComparedRun

LARGEST_CUT = 2_000_000
"""Bytes of a picture or a sound of a cut; those that are kept have a tenth of it."""
GALLERIES = {
    "least_confident": "Least confident",
    "random": "Drawn at random",
}
ROLES = {MISTAKE: "The mistake", TRUE: "The true species, recognised", PREDICTED: "The predicted species, recognised"}


class Answer(NamedTuple):
    run: str
    predicted: str
    confidence: float
    is_right: bool


class Card(NamedTuple):
    cut_id: str
    tape: str
    species: str
    answers: list[Answer]
    picture: str  # data URI
    sound: str  # data URI; empty where there is none
    silent: str  # why there is none
    role: str = ""


class Gallery(NamedTuple):
    title: str
    cards: list[Card]
    whole: Picture | None = None
    """The gallery as one picture, of a run whose single cuts were not kept."""


class Pair(NamedTuple):
    true: str
    predicted: str
    count: int  # type: ignore[assignment]  # a column of the table of pairs; tuples have a method of that name
    share_of_true: float
    cards: list[Card]


class CardBuilder:
    """Makes the cards of a page; sounds beyond `budget` bytes (as data URIs) are left out."""

    def __init__(self, runs: list[ComparedRun], budget: int):
        self._runs = runs
        self._answers = {run.label: run.predictions.set_index("path") for run in runs}
        self._left = budget

    def galleries(self) -> list[Gallery]:
        """Each gallery once where all runs show the same cuts, else a gallery a run."""
        made = []
        for name, title in GALLERIES.items():
            tables = [run.cuts() for run in self._runs]
            shown = [None if cuts is None else cuts[cuts.shown_in == name].head(GALLERY_SIDE**2) for cuts in tables]
            first = shown[0]
            if first is not None and all(
                cuts is not None and cuts.path.tolist() == first.path.tolist() for cuts in shown
            ):
                made.append(Gallery(title, [self._card(self._runs[0], cut) for cut in first.itertuples()]))
                continue
            for run, cuts in zip(self._runs, shown, strict=True):
                if cuts is None:
                    file = run.run_dir / "galleries" / f"test_{name}.png"
                    whole = picture_file(file, run.title, title, budget=1_000_000, jpeg=True)
                    made.append(Gallery(f"{title}: {run.title}", [], whole))
                else:
                    cards = [self._card(run, cut) for cut in cuts.itertuples()]
                    made.append(Gallery(f"{title}: {run.title}", cards))
        return made

    def pairs(self, run: ComparedRun) -> list[Pair]:
        """The most confused pairs of a run, each with its examples."""
        cuts = run.cuts()
        made = []
        for number, pair in enumerate(run.pairs().head(PAIRS).itertuples()):
            mine = [] if cuts is None else cuts[cuts.shown_in.isin(ROLES) & (cuts["rank"] == number)].itertuples()
            cards = [self._card(run, cut, only_own=True, role=ROLES[cut.shown_in]) for cut in islice(mine, len(ROLES))]
            made.append(Pair(pair.true, pair.predicted, pair.count, pair.share_of_true, cards))
        return made

    def _card(self, run: ComparedRun, cut: Any, only_own: bool = False, role: str = "") -> Card:
        picture = data_uri(_kept(run, cut.picture), "image/jpeg")
        sound = data_uri(_kept(run, cut.sound), "audio/mpeg") if cut.sound else ""
        silent = cut.silent
        self._left -= len(picture) + len(sound)
        if self._left < 0 and sound:
            self._left += len(sound)
            sound, silent = "", "left out to keep this page small enough to mail"
        shown = [run] if only_own else [each for each in self._runs if each.is_about_same_data(run)]
        answers = [
            Answer(
                each.title,
                row.predicted,
                row.confidence,
                bool(row.correct) if each.is_for_labels else row.predicted == cut.species,
            )
            for each in shown
            if (row := self._answer(each, cut.path)) is not None
        ]
        return Card(cut.cut_id, cut.tape, cut.species, answers, picture, sound, silent, role)

    def _answer(self, run: ComparedRun, path: str) -> pd.Series | None:
        answers = self._answers[run.label]
        return answers.loc[path] if path in answers.index else None


def _is_right(run: ComparedRun, row: pd.Series, species: str) -> bool:
    return bool(row.correct) if run.is_for_labels else bool(row.predicted == species)


def _kept(run: ComparedRun, name: str) -> bytes:
    """A file that the table of cuts names; raises a UserError where that is outside the run, or no picture or sound."""
    return plain_file(run.run_dir, name, run.run_dir / "galleries/test_cuts.csv", LARGEST_CUT).read_bytes()
