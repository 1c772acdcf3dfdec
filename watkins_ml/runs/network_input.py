"""Prepared data with what a family's networks take: the spectrograms, or what its own frontend makes."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from watkins_ml.config import ExperimentConfig
from watkins_ml.core.errors import UserError
from watkins_ml.dataset.layout import PreparedData
from watkins_ml.dataset.loading import Side
from watkins_ml.dataset.own_input import with_own_input
from watkins_ml.models.registry import family


class Inputs(NamedTuple):
    """What a training reads."""

    data: PreparedData
    train: Side
    val: Side


def with_input(config: ExperimentConfig, data: PreparedData) -> PreparedData:
    """The data with what the model's networks take; raises a UserError where they do not have that."""
    if (own := family(config.model.name).own_input) is not None:
        settings = own.settings(config.model)
        return with_own_input(data, settings, partial(own.open, config.model, settings, None))
    needed = family(config.model.name).frontend
    if needed is not None and needed != data.frontend:
        raise UserError(
            f"{config.data.dir}: prepared with another frontend than {config.model.name} needs: "
            f"{data.frontend.differences(needed)}; prepare the recordings with that one, into another --out"
        )
    return data
