"""The settings of a frontend of any kind, and what tells two of them apart."""

from __future__ import annotations

from watkins_ml.audio.encoder_settings import EncoderSettings
from watkins_ml.audio.ensemble_settings import EnsembleSettings
from watkins_ml.audio.settings import FrontendSettings

OwnSettings = EncoderSettings | EnsembleSettings
"""Of frontends that families of models bring along, instead of the spectrograms of prepared data."""
AnySettings = FrontendSettings | OwnSettings


def differences(given: AnySettings, needed: AnySettings) -> str:
    """What a model needs otherwise than the frontend that is given, in words."""
    if isinstance(given, FrontendSettings) and isinstance(needed, FrontendSettings):
        return given.differences(needed)
    own, others = dict(given), dict(needed)
    if type(given) is not type(needed):
        kinds = (getattr(each, "kind", "spectrogram") for each in (given, needed))
        return "one is of {}s, the other of {}s".format(*kinds)
    return ", ".join(f"{key} {own[key]} (model: {others[key]})" for key in own if own[key] != others[key])
