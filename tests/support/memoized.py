"""Results that depend on nothing but their arguments, computed once a process: small trainings repeat them often.

The noises that every model is asked about, the excerpts in galleries and the controls of a split are half of what the
report of a small training costs, and the tests train on few archives. The tests of these functions themselves call
them as they are.
"""

from __future__ import annotations

import functools
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from watkins_ml.audio.decode import Recording
from watkins_ml.audio.frontend import Frontend
from watkins_ml.evaluation import controls, cuts
from watkins_ml.runs import save_model


def by_arguments(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` for arguments that can be pickled; each caller gets an object of its own."""
    known: dict[bytes, bytes] = {}

    @functools.wraps(function)
    def remember(*arguments: Any) -> Any:
        key = pickle.dumps(arguments)
        if key not in known:
            known[key] = pickle.dumps(function(*arguments))
        return pickle.loads(known[key])

    return remember


def excerpt_by_content(function: Callable[[Recording, Frontend], bytes]) -> Callable[[Recording, Frontend], bytes]:
    known: dict[tuple, bytes] = {}

    @functools.wraps(function)
    def remember(recording: Recording, frontend: Frontend) -> bytes:
        key = (recording.waveform.tobytes(), recording.sample_rate, frontend.settings.model_dump_json())
        if key not in known:
            known[key] = function(recording, frontend)
        return known[key]

    return remember


def noise_by_settings(function: Callable[..., Iterator[torch.Tensor]]) -> Callable[..., Iterator[torch.Tensor]]:
    known: dict[str, list[torch.Tensor]] = {}

    @functools.wraps(function)
    def remember(frontend: Any) -> Iterator[torch.Tensor]:
        if type(frontend) is not Frontend:
            return function(frontend)
        key = frontend.settings.model_dump_json()
        if key not in known:
            known[key] = list(function(frontend))
        return iter([noise.clone() for noise in known[key]])

    return remember


@contextmanager
def computed_once() -> Iterator[None]:
    """Inside, trainings and reports compute these once for the same arguments."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(save_model, "noise_tensors", noise_by_settings(save_model.noise_tensors))
        patch.setattr(cuts, "mp3_excerpt", excerpt_by_content(cuts.mp3_excerpt))
        for name in ("control_predictions", "spectrum_prediction"):
            patch.setattr(controls, name, by_arguments(getattr(controls, name)))
        yield
