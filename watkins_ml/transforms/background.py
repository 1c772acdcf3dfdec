"""Background noise of other recordings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from watkins_ml.transforms.recorder import NEPERS, chosen, not_below, others, standardised, uniform
from watkins_ml.transforms.transform import Batch, SpectrogramTransform

if TYPE_CHECKING:
    import torch


QUIET = 4
"""The quietest one in so many frames of a recording are taken for its background."""


class Background(SpectrogramTransform):
    """Mix the quietest frames of another recording of the batch into each one: other water, ships and recorders.

    Powers are added, on a scale that is the same for all spectrograms, since standardised ones have lost their own.
    Labels stay.
    """

    name: Literal["background"]
    lowest: float = Field(default=-2.0, ge=-10, le=10)
    """How loud the noise is at least: its mean beside that of the recording, in standard deviations."""
    highest: Annotated[float, not_below("lowest")] = Field(default=0.5, validate_default=True, ge=-10, le=10)
    """How loud it is at most."""
    probability: float = Field(default=0.5, gt=0, le=1)

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        import torch

        spectrograms = batch.spectrograms
        count, device, frames = len(spectrograms), spectrograms.device, spectrograms.shape[-1]
        sources = others(spectrograms, generator)
        quiet = sources.mean(dim=-2).argsort(dim=-1)[..., : max(1, frames // QUIET)]
        drawn = torch.randint(quiet.shape[-1], (count, 1, frames), generator=generator).to(device)
        noise = sources.gather(-1, quiet.gather(-1, drawn)[:, :, None, :].expand_as(sources))
        noise = noise - noise.mean(dim=(-2, -1), keepdim=True)
        noise = noise + uniform(count, self.lowest, self.highest, generator, device)
        changed = torch.logaddexp(spectrograms * NEPERS, noise * NEPERS) / NEPERS
        return batch._replace(spectrograms=chosen(standardised(changed), spectrograms, self.probability, generator))
