"""Masks of mel bands."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from watkins_ml.audio.defaults import MOST_MELS
from watkins_ml.transforms.masking import Mask


class FreqMask(Mask):
    """SpecAugment: blank bands of up to `width` mel bands in each spectrogram."""

    name: Literal["freq_mask"]
    width: int = Field(ge=1, le=MOST_MELS)
    """The largest width of a mask in mel bands; the widths are uniform from 0 to it."""
    axis: ClassVar[int] = 2
