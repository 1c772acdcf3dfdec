"""What decides a spectrogram, apart from the code that makes it: whoever only names settings waits for no library."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from watkins_ml.audio.defaults import FRAMES_A_SECOND, MELS, MOST_FRAMES, MOST_MELS, RATES, SAMPLE_RATE, SECONDS

FRONTEND_VERSION = 4
"""Raised whenever the same settings would give other numbers or files, so that stored spectrograms are recomputed."""
MOST_NUMBERS = 1 << 26
"""What the samples, the windowed frames and the mel filters of a spectrogram may take, each."""
MOST_PIXELS = 1 << 19
"""Of one spectrogram: ten times what the usual settings give. A network takes some hundred times that for itself."""
MOST_WINDOWS = 16
"""By how many spectrograms, evenly spread, a long recording is classified at most."""


class FrontendSettings(BaseModel):
    """Everything that decides a spectrogram; travels with every data set and every model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sample_rate: int = Field(default=SAMPLE_RATE, ge=RATES[0], le=RATES[1])
    n_fft: int = Field(default=2048, ge=64, le=1 << 16)
    win_length: int = Field(default=512, ge=32, le=1 << 16)
    hop_length: int = Field(default=160, ge=1, le=1 << 16)
    n_mels: int = Field(default=MELS, ge=1, le=MOST_MELS)
    frames: int = Field(default=round(SECONDS * FRAMES_A_SECOND), ge=2, le=MOST_FRAMES)
    top_db: float = Field(default=80.0, gt=0, le=1000)
    """Dynamic range kept below the loudest bin, in dB."""
    f_min: float = Field(default=0.0, ge=0, le=100_000, allow_inf_nan=False)
    """Lower edge of the lowest mel band, in Hz."""
    f_max: float | None = Field(default=None, gt=0, le=100_000, allow_inf_nan=False)
    """Upper edge of the highest mel band, in Hz; None is half the sample rate."""
    compression: Literal["log", "pcen"] = "log"
    """What follows the mel filters: decibels, or per-channel energy normalisation (see `audio.pcen`)."""
    normalisation: Literal["sample", "band"] = "sample"
    """Whether mean 0 and deviation 1 hold over the whole spectrogram, or over time in each band."""
    remove_offset: bool = True
    """Whether what is slower than eight windows (an offset of the recorder, and its drift) is taken away first."""

    @classmethod
    def stored(cls, description: dict[str, Any]) -> FrontendSettings:
        """Settings as `model_dump` gave them, also before there was `remove_offset`: then offsets stayed."""
        return cls(**cls.stored_form(description))

    @staticmethod
    def stored_form(description: Any) -> Any:
        return {"remove_offset": False, **description} if isinstance(description, dict) else description

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Settings that came later are written only where they differ from what was done before there were any."""
        later = ("f_min", "f_max", "compression", "normalisation")
        return {
            name: value
            for name, value in dump(self).items()
            if name not in later or value != type(self).model_fields[name].default
        }

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.highest > self.sample_rate / 2:
            raise ValueError(
                f"f_max {self.highest:g} Hz is above half the sample rate ({self.sample_rate / 2:g} Hz); give a lower "
                "f_max or a higher sample rate"
            )
        if self.f_min >= self.highest:
            raise ValueError(f"f_min {self.f_min:g} Hz is not below f_max ({self.highest:g} Hz); give a lower f_min")
        return self

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if self.compression == "pcen" and self.frames**2 > MOST_NUMBERS:
            raise ValueError(
                f"pcen over {self.frames:,} frames would need more than {MOST_NUMBERS:,} numbers; take fewer seconds"
            )
        if max(self.n_fft * max(self.frames, self.n_mels), self.samples) > MOST_NUMBERS:
            raise ValueError(f"a spectrogram would be made from more than {MOST_NUMBERS:,} numbers")
        if self.frames * self.n_mels > MOST_PIXELS:
            raise ValueError(
                f"a spectrogram would have more than {MOST_PIXELS:,} numbers; take fewer mel bands or seconds"
            )
        return self

    @classmethod
    def at(cls, sample_rate: int, seconds: float = SECONDS, **others: Any) -> FrontendSettings:
        """The usual settings at another rate (Hz), for windows of `seconds`: analysis window and hop stay the same in
        milliseconds. `others` are further settings by name.

        Raises:
            ValidationError: out of range, or they contradict each other.
        """
        usual = cls()
        if others.get("f_max") == sample_rate / 2:
            del others["f_max"]
        win_length, hop_length = (
            round(samples * sample_rate / usual.sample_rate) for samples in (usual.win_length, usual.hop_length)
        )
        n_fft = max(usual.n_fft, 1 << (4 * win_length - 1).bit_length())
        return cls(
            sample_rate=sample_rate, n_fft=n_fft, win_length=max(win_length, 32), hop_length=max(hop_length, 1),
            frames=round(seconds * FRAMES_A_SECOND), **others,
        )  # fmt: skip

    @property
    def highest(self) -> float:
        """Upper edge of the highest mel band, in Hz."""
        return self.sample_rate / 2 if self.f_max is None else self.f_max

    @property
    def seconds(self) -> float:
        """Duration of audio that one spectrogram covers."""
        return self.samples / self.sample_rate

    @property
    def span_s(self) -> float:
        """What the time axis of a picture of a spectrogram spans: each frame stands for one hop."""
        return self.frames * self.hop_length / self.sample_rate

    @property
    def slack_s(self) -> float:
        """A frame stands for one hop, so a recording may be a hop longer than its window."""
        return self.hop_length / self.sample_rate

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one spectrogram."""
        return 1, self.n_mels, self.frames

    @property
    def samples(self) -> int:
        return (self.frames - 1) * self.hop_length + 1

    def differences(self, needed: FrontendSettings) -> str:
        """What a model needs otherwise, in words."""
        own, others = dict(self), dict(needed)  # also what a dump leaves out
        return ", ".join(f"{key} {own[key]} (model: {others[key]})" for key in own if own[key] != others[key])

    def digest(self) -> str:
        settings = self.model_dump()
        if not self.remove_offset:  # the digest from before there was such a setting
            del settings["remove_offset"]
        text = json.dumps({"version": FRONTEND_VERSION, **settings}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]
