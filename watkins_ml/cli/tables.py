"""How results look in the terminal."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from rich.table import Column, Table

from watkins_ml.core import metric_names
from watkins_ml.core.console import err, out
from watkins_ml.core.errors import UserError
from watkins_ml.core.metric_names import (
    ACCURACY,
    BEST_EPOCH,
    BEST_VAL,
    MACRO_F1,
    TEST,
)
from watkins_ml.core.wording import plural
from watkins_ml.dataset.groups import group_word, small_groups
from watkins_ml.dataset.split import LEAKY, SIDES

if TYPE_CHECKING:
    from watkins_ml.dataset.prepare import Prepared
    from watkins_ml.runs.crossval import CrossValidation
    from watkins_ml.tuning.tune import Outcome

SCORES = {
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "macro_ap": "mean average precision",
    "micro_f1": "micro F1",
    "macro_precision": "macro precision",
    "macro_recall": "macro recall",
    "weighted_f1": "weighted F1",
    "ece": "calibration error (ECE)",
    "nll": "negative log-likelihood",
    "coverage_at_90": "cuts answered at 90 % precision",
}
STATES = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}


def table_of(*headers: str, title: str | None = None) -> Table:
    """A table that folds what is too long for the terminal; a path cut short is of no use."""
    return Table(*(Column(header, overflow="fold") for header in headers), title=title)


def stamp(protocol: str) -> str:
    """`tape split`, or `random split (leaky reference)`."""
    return f"{protocol} split{leak(protocol)}"


def leak(protocol: str) -> str:
    return f" ({LEAKY[protocol]})" if LEAKY.get(protocol) else ""


def print_prepared(prepared: Prepared, folder: Path) -> None:
    summary = prepared.summary
    counts, of_windows = summary["counts"], "windowing" in summary
    one, group = "window" if of_windows else "recording", group_word(summary)
    title = f"{folder}: {stamp(summary['split'])}, seed {summary['seed']}"
    table = table_of("side", f"{one}s", "share", f"{group}s", title=title)
    for side in SIDES:
        share = f"{counts[side] / counts['recordings']:.1%}"
        table.add_row(side, f"{counts[side]:,}", share, f"{summary['tapes'][side]:,}")
    out.print(table, soft_wrap=False)
    background = summary.get("background_class")
    what = f"{counts['species'] - bool(background)} species{' and background' * bool(background)}"
    read = plural(prepared.computed, one if of_windows else "file")
    out.print(
        f"{plural(counts['recordings'], one)} of {what} on {plural(counts['tapes'], group)}; "
        f"{read} read now; data digest {summary['data_digest']}"
    )
    if of_windows:
        _print_annotations(summary)
    if counts["rejected"]:
        reasons = ", ".join(f"{count} {reason}" for reason, count in summary["rejected_for"].items())
        left_out = plural(counts["rejected"], "row" if of_windows else "file")
        out.print(f"{left_out} left out ({reasons}): {folder / 'annotations' / 'rejected.csv'}")
    if noted := counts.get("noted"):
        where = folder / "annotations" / "audio_annotations.csv"
        noted = plural(noted, "recording")
        out.print(f"{noted} used of which there is something to know: column file_note of {where}", style="yellow")
    if given := summary["metadata"]:
        out.print(
            f"{plural(given['recordings'], 'recording')} {'has' if given['recordings'] == 1 else 'have'} a row in "
            f"{given['table']} ({given['with_site']:,} with a site); "
            f"recordings without one: {counts['recordings'] - given['recordings']:,}"
        )
    for species, count in summary["species_left_out"].items():
        out.print(f"  {species} left out: {plural(count, one)}, fewer than {summary['min_clips']}")
    for species, reason in summary["species_not_tested"].items():
        out.print(f"  {species} is trained on but not tested: {reason}")
    for sentence in (*small_groups(summary), summary["band_advice"]):
        if sentence:
            out.print(sentence, style="yellow")


def _print_annotations(summary: dict[str, Any]) -> None:
    of = summary["annotations"]
    out.print(
        f"{plural(of['calls'], 'call')} in {plural(of['count'], 'table')}; listened through (--reviewed "
        f"{of['reviewed']}): {of['reviewed_s'] / 3600:,.2f} h; windows without a call elsewhere, of which nothing is "
        f"known: {of['unreviewed_windows']:,}"
    )
    if summary.get("task") == "labels":
        out.print("Any number of species a window (--task labels); what is not known of a window counts for nothing")
    elif summary["background_class"] is None:
        out.print(
            "No window without a call: nothing is marked as listened through (--reviewed all, if you listened to all)",
            style="yellow",
        )
    else:
        out.print(f"'{summary['background_class']}' is the class of windows without a call; it is no species")


def print_run(run_dir: Path, metrics: dict[str, float]) -> None:
    from watkins_ml.config import load_stored
    from watkins_ml.evaluation.intervals import interval_sentence
    from watkins_ml.evaluation.selective import threshold_sentence
    from watkins_ml.evaluation.shortfall import read_predictions
    from watkins_ml.tracking.rundir import RunDirectory
    from watkins_ml.training.monitor import kept

    run = RunDirectory(run_dir)
    protocol, rule = run.facts.split_protocol or "", load_stored(run_dir / "config.yaml").train
    _print_score_table(f"{run_dir}: {stamp(protocol)}", metrics, {"validation": BEST_VAL, "test": TEST})
    if (predictions := read_predictions(run_dir / "preds" / "test.csv")) is not None:
        out.print(interval_sentence(metrics, predictions["tape"].nunique()))
    if (members := run.facts.members) is None:
        epochs = int(metrics[BEST_EPOCH]), len(run.read_history())
        out.print(f"Kept: {kept(*epochs, rule.monitor, rule.refit)} (train.monitor)")
    else:
        out.print(f"Mean of the calibrated log-probabilities of {', '.join(member.name for member in members)}")
    _print_shortfall(run_dir, metrics)
    if sentence := threshold_sentence(metrics):
        out.print(sentence)
    out.print(f"Reports, galleries, plots and checkpoints: {run_dir}")


def print_scores(scores: dict[str, float], side: str, protocol: str, folder: Path) -> None:
    _print_score_table(stamp(protocol), scores, {side: ""})
    _print_shortfall(folder, {TEST + key: scores[key] for key in SCORES if key in scores} | scores)
    out.print(f"Reports, galleries and plots: {folder}")


def _print_score_table(title: str, metrics: dict[str, float], columns: dict[str, str]) -> None:
    """The scores of a run; `columns` gives, by heading, how the names of its metrics begin."""
    table = table_of("metric", *columns, title=title)
    for key, name in SCORES.items():
        if any(prefix + key in metrics for prefix in columns.values()):
            table.add_row(name, *(number_text(metrics.get(prefix + key)) for prefix in columns.values()))
    _add_controls(table, metrics, len(columns))
    out.print(table, soft_wrap=False)


def _add_controls(table: Table, metrics: dict[str, float], columns: int) -> None:
    """Test accuracy of the simple predictors, beside what the network scores; with audio macro F1 too."""
    from watkins_ml.evaluation.controls import CONTROLS, WITH_AUDIO

    table.add_section()
    for name, title in CONTROLS.items():
        if (value := metrics.get(metric_names.control(name, ACCURACY))) is not None:
            table.add_row(f"accuracy without audio: {title}", *[""] * (columns - 1), number_text(value), style="dim")
    for name, title in WITH_AUDIO.items():
        for key in (ACCURACY, MACRO_F1):
            if (value := metrics.get(own := metric_names.control(name, key))) is not None:
                validated = [number_text(metrics.get(BEST_VAL + own))] * (columns - 1)
                table.add_row(f"{SCORES[key]} of a {title}", *validated, number_text(value), style="dim")


def _print_shortfall(folder: Path, metrics: dict[str, float]) -> None:
    from watkins_ml.evaluation.shortfall import shortfall_of

    if sentence := shortfall_of(folder, metrics):
        out.print(sentence, style="yellow")


def print_crossval(result: CrossValidation) -> None:
    """The pooled scores with intervals and controls, each fold's own, and who could not be tested."""
    from watkins_ml.evaluation.selective import threshold_sentence

    metrics, title = result.metrics, f"{result.run_dir}: {len(result.by_fold)} folds, {stamp(result.protocol)}"
    table = table_of("metric", "all folds pooled", "95 % interval over tapes", title=title)
    for key, name in SCORES.items():
        if TEST + key not in metrics:
            continue
        bounds = [metrics.get(f"{TEST}{key}_{end}") for end in ("low", "high")]
        interval = "" if None in bounds else f"{bounds[0]:.4f} to {bounds[1]:.4f}"
        table.add_row(name, number_text(metrics.get(TEST + key)), interval)
    _add_controls(table, metrics, columns=1)
    out.print(table, soft_wrap=False)
    folds = table_of("fold", "train", "val", "test", "kept epoch", "accuracy", "macro F1")
    for row in result.by_fold.itertuples():
        counts = map(str, (row.train, row.val, row.test, getattr(row, BEST_EPOCH, "–")))
        folds.add_row(row.fold, *counts, number_text(row.test_accuracy), number_text(row.test_macro_f1))
    out.print(folds, soft_wrap=False)
    _print_shortfall(result.run_dir, metrics)
    if sentence := threshold_sentence(metrics):
        out.print(sentence)
    for species, reason in result.untestable.items():
        out.print(f"  {species} cannot be tested: {reason}")
    out.print(f"Predictions, reports and plots of all folds together: {result.run_dir}")


def print_study(outcome: Outcome) -> None:
    """The best trial beside the recipe's own point."""
    from watkins_ml.tuning.trials import counted

    study, best, own = outcome.study, outcome.best, outcome.own
    states = Counter(trial.state.name for trial in counted(study.trials))
    counts = ", ".join(f"{states[name]} {word}" for name, word in STATES.items() if states[name])
    out.print(f"study {study.recipe.name}: {plural(states.total(), 'trial')} ({counts})")
    if best is None:
        more = f"the same command with --trials {2 * study.recipe.settings.trials} goes on with new ones"
        raise UserError(f"no trial of study {study.recipe.name} was completed ({study.folder} has the logs); {more}")
    table = table_of("", "recipe", f"best (trial {best.number})", title=stamp(outcome.protocol))
    for key in study.recipe.space:
        table.add_row(key, _plain((study.recipe.own_point or {}).get(key, "")), _plain(best.params[key]))
    table.add_row("validation macro F1", number_text(own.value if own else None), number_text(best.value))
    if outcome.metrics is not None:
        for key in (ACCURACY, MACRO_F1):
            table.add_row(f"test {SCORES[key]}", "", number_text(outcome.metrics[TEST + key]))
    out.print(table, soft_wrap=False)
    if outcome.metrics is None:
        host, run = best.user_attrs["host"], best.user_attrs["run"]
        out.print(f"The best trial is in {run} on {host}; the same command there evaluates and registers it")
    out.print(f"Trials: {study.folder}/reports/trials.csv   Pictures: {study.folder}/plots")


def print_comparison(comparison: pd.DataFrame, page: Path) -> None:
    """The main rows of `evaluation.runs.comparison_table`; the page has them all."""
    if warning := comparison.attrs.get("warning"):
        err.print(warning, style="yellow")
    from watkins_ml.evaluation.controls import CONTROLS, WITH_AUDIO

    table = Table("metric", *map(str, comparison.columns))
    for side, scope in (("test", TEST), ("val", BEST_VAL)):
        for key, name in SCORES.items():
            values = comparison.loc[scope + key]
            if values.notna().any():  # a cross-validation has no validation side of its own
                table.add_row(f"{side} {name}", *(number_text(value) for value in values))
        table.add_section()
    for name, title in CONTROLS.items():
        values = comparison.loc[metric_names.control(name, ACCURACY)]
        if values.notna().any():
            table.add_row(f"accuracy without audio: {title}", *(number_text(value) for value in values), style="dim")
    for name, title in WITH_AUDIO.items():
        for key in (ACCURACY, MACRO_F1):
            values = comparison.loc[metric_names.control(name, key)]
            if values.notna().any():
                table.add_row(f"{SCORES[key]} of a {title}", *(number_text(value) for value in values), style="dim")
    out.print(table)
    out.print(comparison.attrs["headline"])
    out.print(f"Side by side: {page}")


def _plain(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def number_text(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.4f}"
