"""What decides a spectrogram, apart from the code that makes it: whoever only names settings waits for no library."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

FRONTEND_VERSION = 4
"""Raised whenever the same settings would give other numbers or files, so that stored spectrograms are recomputed."""
MOST_WINDOWS = 16
"""How many spectrograms, evenly spread, a long recording is judged by at most."""


class FrontendSettings(BaseModel):
    """Everything that decides a spectrogram; travels with every data set and every model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sample_rate: int = Field(default=16_000, ge=1_000, le=200_000)
    n_fft: int = Field(default=2048, ge=64)
    win_length: int = Field(default=512, ge=32)
    hop_length: int = Field(default=160, ge=1)
    n_mels: int = 128
    frames: int = 400
    top_db: float = Field(default=80.0, gt=0)
    """Dynamic range kept below the loudest bin, in dB."""
    remove_offset: bool = True
    """Whether what is slower than eight windows (an offset of the recorder, and its drift) is taken away first."""

    @classmethod
    def stored(cls, description: dict[str, Any]) -> FrontendSettings:
        """Settings as `model_dump` gave them, also before there was `remove_offset`: then offsets were kept."""
        return cls(**{"remove_offset": False, **description})

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
