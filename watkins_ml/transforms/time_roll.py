"""Rolling in time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from watkins_ml.transforms.transform import Batch, SpectrogramTransform

if TYPE_CHECKING:
    import torch


class TimeRoll(SpectrogramTransform):
    """Shift each spectrogram by a random number of frames, wrapping round.

    Where in its window a call begins says nothing about the species.
    """

    name: Literal["time_roll"]

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        import torch

        spectrograms, frames = batch.spectrograms, batch.spectrograms.shape[-1]
        shifts = torch.randint(frames, (len(spectrograms), 1), generator=generator)
        shifts = shifts.to(spectrograms.device, non_blocking=True)
        index = (torch.arange(frames, device=shifts.device) - shifts) % frames
        rolled = spectrograms.gather(-1, index[:, None, None, :].expand_as(spectrograms))
        return batch._replace(spectrograms=rolled)
