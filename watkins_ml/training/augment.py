"""Changes to training spectrograms that leave the species as it was, or mix two species in a known proportion."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torchaudio.functional import mask_along_axis_iid

from watkins_ml.config import AugmentConfig

MASKS = 2
"""Bands and stretches that are blanked in each spectrogram, as in the policies of SpecAugment's paper."""


class Augment:
    """What a recipe's section `augment` does to a batch.

    All that is random comes from `generator` and from torch's own state, both of which a checkpoint holds.
    """

    def __init__(self, config: AugmentConfig, species: int, generator: torch.Generator):
        self.config, self.generator = config, generator
        self.mix = _mix_up(config.mixup, species) if config.mixup else None

    def __call__(self, spectrograms: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Spectrograms (batch, 1, n_mels, frames) and labels (batch,) to the same, changed.

        With mixup the labels become shares (batch, species): Zhang et al. 2018, "mixup: Beyond Empirical Risk
        Minimization". Masking: Park et al. 2019, "SpecAugment"; a blank is 0, the mean of every spectrogram.
        """
        if self.config.time_roll:
            spectrograms = time_roll(spectrograms, self.generator)
        for axis, width in ((2, self.config.freq_mask), (3, self.config.time_mask)):
            for _ in range(MASKS if width else 0):
                spectrograms = mask_along_axis_iid(spectrograms, width, 0.0, axis)
        return (spectrograms, labels) if self.mix is None else self.mix(spectrograms, labels)


def _mix_up(alpha: float, species: int) -> Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
    from torchvision.transforms.v2 import MixUp  # torchvision costs a baseline 2 s and 160 MiB

    return MixUp(alpha=alpha, num_classes=species)


def time_roll(spectrograms: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Shift each spectrogram (batch, 1, n_mels, frames) by a random number of frames, wrapping round.

    Where in its window a call begins says nothing about who called.
    """
    frames = spectrograms.shape[-1]
    shifts = torch.randint(frames, (len(spectrograms), 1), generator=generator)
    shifts = shifts.to(spectrograms.device, non_blocking=True)
    index = (torch.arange(frames, device=shifts.device) - shifts) % frames
    return spectrograms.gather(-1, index[:, None, None, :].expand_as(spectrograms))
