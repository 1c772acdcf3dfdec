"""Masks of frames."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from watkins_ml.audio.defaults import MOST_FRAMES
from watkins_ml.transforms.masking import Mask


class TimeMask(Mask):
    """SpecAugment: blank stretches of up to `width` frames in each spectrogram."""

    name: Literal["time_mask"]
    width: int = Field(ge=1, le=MOST_FRAMES)
    """The largest width of a mask in frames; the widths are uniform from 0 to it."""
    axis: ClassVar[int] = 3
