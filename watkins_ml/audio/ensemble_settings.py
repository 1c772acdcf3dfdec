"""What decides the tensors of an ensemble: the settings of the frontends of its members."""

from __future__ import annotations

import hashlib
import json
import math
from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from watkins_ml.audio.encoder_settings import EncoderSettings
from watkins_ml.audio.settings import MOST_PIXELS, FrontendSettings

MOST_MEMBERS = 16
AGREEING_S = 0.02
"""By so many seconds the windows of members may differ; an encoder's 4 s are 3.99 s of a spectrogram."""


def _stored_form(given: Any) -> Any:
    return given if not isinstance(given, dict) or "kind" in given else FrontendSettings.stored_form(given)


MemberSettings = Annotated[FrontendSettings | EncoderSettings, BeforeValidator(_stored_form)]


class EnsembleSettings(BaseModel):
    """Everything that decides the tensor that the members of an ensemble share; travels with it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["ensemble"] = "ensemble"
    """Tells these settings from those of other frontends."""
    frontends: Annotated[
        tuple[MemberSettings, ...],
        Field(min_length=1, max_length=MOST_MEMBERS),
        BeforeValidator(lambda given: tuple(given) if isinstance(given, list) else given),  # as JSON has it
    ]
    """Of the members, each once; what they give is flattened and concatenated."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        seconds = [each.seconds for each in self.frontends]
        if max(seconds) - min(seconds) > AGREEING_S:
            raise ValueError(f"members hear {min(seconds):.2f} and {max(seconds):.2f} s at once; take some that agree")
        if self.shape[2] > 2 * MOST_PIXELS:
            raise ValueError(f"members need more than {2 * MOST_PIXELS:,} numbers a window; take fewer")
        if len({each.digest() for each in self.frontends}) < len(self.frontends):
            raise ValueError("a frontend is given twice")
        return self

    def places(self) -> list[slice]:
        """Where in a tensor's last dimension each of `frontends` is."""
        ends = [0]
        for each in self.frontends:
            ends.append(ends[-1] + math.prod(each.shape))
        return [slice(start, end) for start, end in pairwise(ends)]

    @property
    def sample_rate(self) -> int:
        """The highest of the members, in Hz."""
        return max(each.sample_rate for each in self.frontends)

    @property
    def seconds(self) -> float:
        return max(each.seconds for each in self.frontends)

    @property
    def slack_s(self) -> float:
        return max(each.slack_s for each in self.frontends)

    @property
    def samples(self) -> int:
        return round(self.seconds * self.sample_rate)

    @property
    def f_min(self) -> float:
        return min(each.f_min for each in self.frontends)

    @property
    def highest(self) -> float:
        return max(each.highest for each in self.frontends)

    @property
    def shape(self) -> tuple[int, int, int]:
        return 1, 1, sum(math.prod(each.shape) for each in self.frontends)

    def digest(self) -> str:
        text = json.dumps([self.kind, *(each.digest() for each in self.frontends)])
        return hashlib.sha256(text.encode()).hexdigest()[:16]
