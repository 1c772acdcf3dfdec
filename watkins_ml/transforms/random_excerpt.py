"""Random excerpts of long recordings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from watkins_ml.transforms.transform import WindowTransform

if TYPE_CHECKING:
    import torch


class RandomExcerpt(WindowTransform):
    """Train on a random window of each recording that is longer than one, drawn anew in every epoch.

    Without it training uses the central one. The windows are those that the recording is classified by, at most 16, as
    `watkins prepare` (or an encoder) made them. Where no recording is longer, nothing changes; else it costs the memory
    that they take.
    """

    name: Literal["random_excerpt"]
    probability: float = Field(default=1.0, gt=0, le=1)

    def __call__(self, windows: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        import torch

        place, whether = torch.rand(2, len(windows), generator=generator, dtype=torch.float64)
        return torch.where(whether < self.probability, (place * windows).long(), -1)
