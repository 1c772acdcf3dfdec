"""What transforms against a recorder's colour share: which spectrograms they change, and one scale for all after it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import AfterValidator, ValidationInfo
from pydantic_core import PydanticCustomError

if TYPE_CHECKING:
    import torch

FLAT = 1e-6
NEPERS = 2.8
"""A standard deviation of a spectrogram as the natural logarithm of a power: some twelve decibels."""


def standardised(spectrograms: torch.Tensor) -> torch.Tensor:
    """(batch, 1, n_mels, frames) to mean 0 and deviation 1 over each, as the frontend leaves them."""
    centred = spectrograms - spectrograms.mean(dim=(-2, -1), keepdim=True)
    return centred / centred.std(dim=(-2, -1), keepdim=True).clamp(min=FLAT)


def chosen(
    changed: torch.Tensor, spectrograms: torch.Tensor, probability: float, generator: torch.Generator
) -> torch.Tensor:
    """Each spectrogram changed with this probability, else as it was; both (batch, 1, n_mels, frames)."""
    import torch

    drawn = torch.rand(len(spectrograms), generator=generator) < probability
    return torch.where(drawn.to(spectrograms.device)[:, None, None, None], changed, spectrograms)


def uniform(batch: int, low: float, high: float, generator: torch.Generator, device: torch.device) -> torch.Tensor:
    """A number of each spectrogram, float32 (batch, 1, 1, 1), uniform from `low` to `high`."""
    import torch

    drawn = low + (high - low) * torch.rand(batch, generator=generator)
    return drawn.to(device)[:, None, None, None]


def not_below(other: str) -> Any:
    """A check of a key, for pydantic: at least what the key `other`, which comes before it, says.

    The field needs `validate_default`, else its own default is not checked against an `other` that is given.
    """

    def check(value: float, others: ValidationInfo) -> float:
        if value < (low := others.data.get(other, value)):
            raise PydanticCustomError("range", "at least {other} ({low})", {"other": other, "low": low})
        return value

    return AfterValidator(check)


def others(spectrograms: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """For each recording of a batch another one, all different; the batch itself where there is only one."""
    import torch

    return spectrograms.roll(int(torch.randint(1, max(2, len(spectrograms)), (1,), generator=generator)), 0)
