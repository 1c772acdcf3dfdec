"""Changes to training spectrograms that leave the species as it was."""

from __future__ import annotations

import torch


def time_roll(spectrograms: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Shift each spectrogram (batch, 1, n_mels, frames) by a random number of frames, wrapping round.

    Where in its window a call begins says nothing about who called.
    """
    frames = spectrograms.shape[-1]
    shifts = torch.randint(frames, (len(spectrograms), 1), generator=generator)
    index = ((torch.arange(frames) - shifts) % frames).to(spectrograms.device)
    return spectrograms.gather(-1, index[:, None, None, :].expand_as(spectrograms))
