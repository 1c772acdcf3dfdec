"""The controls beside a network: fitted on its training side, scored on its validation and test sides."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from watkins_ml.core.metric_names import BEST_VAL
from watkins_ml.dataset.layout import PreparedData
from watkins_ml.dataset.loading import Side, as_prepared
from watkins_ml.dataset.split import SIDES
from watkins_ml.dataset.targets import LABELS


def report_controls(
    run_dir: Path, data: PreparedData, refit: bool, loaded: Sequence[Side] | None = None
) -> dict[str, float]:
    """Write what the controls score on test, and the one with audio on validation, for the champion's rule.

    On test they have learned from both other sides where the network has (`refit`). `loaded` are what the network gets
    of training and validation side, if that is in memory already.

    Returns:
        `control_*` and `best_val_control_*`.
    """
    from watkins_ml.evaluation.controls import SPECTRUM, control_predictions, learned_from, spectrum_prediction
    from watkins_ml.evaluation.labels_controls import labels_controls
    from watkins_ml.evaluation.report import write_controls
    from watkins_ml.evaluation.spectrum import band_statistics

    train, val, test = (data.sides[side] for side in SIDES)
    in_memory = loaded if data.as_prepared is None else None
    sides = in_memory or [as_prepared(data, name) for name in ("train", "val")]
    spectra = band_statistics([*sides, as_prepared(data, "test")])
    if data.task == LABELS:
        validated, tested = labels_controls(data.sides, len(data.classes), refit, spectra).values()
        validated = validated[[SPECTRUM]]
    else:
        validated = spectrum_prediction(train, val, spectra).to_frame(SPECTRUM)
        tested = control_predictions(learned_from(data.sides, refit), test, spectra)
    scores = {BEST_VAL + name: value for name, value in write_controls(run_dir, "val", val, validated).items()}
    return scores | write_controls(run_dir, "test", test, tested)
