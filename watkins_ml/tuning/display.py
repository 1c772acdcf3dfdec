"""How a study and its trials look in the terminal while it runs."""

from __future__ import annotations

from optuna.trial import FrozenTrial, TrialState

from watkins_ml.core.wording import plural
from watkins_ml.tuning.trials import INTERRUPTED, best_trial, counted


def has_result(trial: FrozenTrial) -> bool:
    """Whether the trial has ended for good."""
    return trial.state.is_finished() and trial.user_attrs.get("ended", "") != INTERRUPTED


def shown_point(point: dict[str, object]) -> str:
    """`lr=0.00123 freeze_depth=6`: the last parts of the keys are enough for people."""
    shown = {key: f"{value:.3g}" if isinstance(value, float) else value for key, value in point.items()}
    return " ".join(f"{key.rpartition('.')[2]}={value}" for key, value in shown.items())


def line(trial: FrozenTrial, trials: list[FrozenTrial], wanted: int) -> str:
    """How one trial ended, and the state of the study."""
    value = "" if trial.value is None else f"val macro F1 {trial.value:.4f}  "
    ended, best = _ended(trials), best_trial(trials)
    state = f"{ended['done']} of {plural(wanted, 'trial')} done, {ended['pruned']} pruned, {ended['failed']} failed"
    state += "" if best is None else f", best {best.value:.4f} by trial {best.number}"
    seconds = trial.duration.total_seconds() if trial.duration else 0.0
    how = f"{_how(trial)}  {seconds:.0f} s  ({state})"
    return f"trial {trial.number:>3}  {value}{shown_point(trial.params)}  {how}"


def _how(trial: FrozenTrial) -> str:
    ended, twin = trial.user_attrs.get("ended"), trial.user_attrs.get("duplicate_of")
    if twin is not None:
        return f"as trial {twin}, which had the same point"
    if trial.state is not TrialState.FAIL:
        return ended or "complete"
    if ended is None:
        return "its worker died"
    return "interrupted, goes on later" if ended == INTERRUPTED else f"failed: {ended}"


def _ended(trials: list[FrozenTrial]) -> dict[str, int]:
    """How many points are done, and how many of these were pruned and failed."""
    ended = [trial for trial in counted(trials) if has_result(trial)]
    states = [trial.state for trial in ended]
    return {"done": len(ended), "pruned": states.count(TrialState.PRUNED), "failed": states.count(TrialState.FAIL)}


def note(trials: list[FrozenTrial]) -> str:
    """The state of the study, beside its progress bar."""
    ended, best = _ended(trials), best_trial(trials)
    shown = "" if best is None else f"best {best.value:.4f} (trial {best.number}: {shown_point(best.params)})  "
    running = [
        f"trial {trial.number} epoch {trial.last_step or 0}" for trial in trials if trial.state is TrialState.RUNNING
    ]
    return f"pruned {ended['pruned']}  failed {ended['failed']}  {shown}now: {', '.join(running) or '–'}"
