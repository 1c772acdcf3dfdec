"""What decides a spectrogram, apart from the code that makes it: whoever only names settings waits for no library."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

FRONTEND_VERSION = 4
"""Raised whenever the same settings would give other numbers or files, so that stored spectrograms are recomputed."""
MOST_NUMBERS = 1 << 26
"""What the samples, the windowed frames and the mel filters of a spectrogram may take, each."""
MOST_PIXELS = 1 << 19
"""Of one spectrogram: ten times what the usual settings give. A network takes some hundred times that for itself."""
MOST_WINDOWS = 16
"""How many spectrograms, evenly spread, a long recording is judged by at most."""


class FrontendSettings(BaseModel):
    """Everything that decides a spectrogram; travels with every data set and every model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sample_rate: int = Field(default=16_000, ge=1_000, le=200_000)
    n_fft: int = Field(default=2048, ge=64, le=1 << 16)
    win_length: int = Field(default=512, ge=32, le=1 << 16)
    hop_length: int = Field(default=160, ge=1, le=1 << 16)
    n_mels: int = Field(default=128, ge=1, le=1024)
    frames: int = Field(default=400, ge=2, le=10_000)
    top_db: float = Field(default=80.0, gt=0, le=1000)
    """Dynamic range kept below the loudest bin, in dB."""
    remove_offset: bool = True
    """Whether what is slower than eight windows (an offset of the recorder, and its drift) is taken away first."""

    @classmethod
    def stored(cls, description: dict[str, Any]) -> FrontendSettings:
        """Settings as `model_dump` gave them, also before there was `remove_offset`: then offsets were kept."""
        return cls(**cls.stored_form(description))

    @staticmethod
    def stored_form(description: Any) -> Any:
        return {"remove_offset": False, **description} if isinstance(description, dict) else description

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if max(self.n_fft * max(self.frames, self.n_mels), self.samples) > MOST_NUMBERS:
            raise ValueError(f"a spectrogram would be made from more than {MOST_NUMBERS:,} numbers")
        if self.frames * self.n_mels > MOST_PIXELS:
            raise ValueError(f"a spectrogram would have more than {MOST_PIXELS:,} numbers")
        return self

    @classmethod
    def at(cls, sample_rate: int) -> FrontendSettings:
        """The usual settings at another rate (Hz): the same window and hop in milliseconds, so the same 4 s."""
        usual = cls()
        win_length, hop_length = (
            round(samples * sample_rate / usual.sample_rate) for samples in (usual.win_length, usual.hop_length)
        )
        n_fft = max(usual.n_fft, 1 << (4 * win_length - 1).bit_length())
        return cls(sample_rate=sample_rate, n_fft=n_fft, win_length=max(win_length, 32), hop_length=max(hop_length, 1))

    @property
    def seconds(self) -> float:
        """Duration of audio that one spectrogram covers."""
        return self.samples / self.sample_rate

    @property
    def samples(self) -> int:
        return (self.frames - 1) * self.hop_length + 1

    def digest(self) -> str:
        settings = self.model_dump()
        if not self.remove_offset:  # the digest from before there was such a setting
            del settings["remove_offset"]
        text = json.dumps({"version": FRONTEND_VERSION, **settings}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]
