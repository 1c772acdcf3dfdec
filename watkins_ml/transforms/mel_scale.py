"""Where frequencies lie among the mel bands of a spectrogram, for transforms that move or make sounds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from watkins_ml.audio.settings import FrontendSettings

if TYPE_CHECKING:
    import torch

    from watkins_ml.transforms.transform import Batch


def frontend_of(batch: Batch) -> FrontendSettings:
    """Settings of the batch's spectrograms; the usual ones where they are not known."""
    return batch.settings if isinstance(batch.settings, FrontendSettings) else FrontendSettings()


def frequencies(settings: FrontendSettings, bands: int) -> torch.Tensor:
    """Hz, float32 (bands + 2,): the lowest mel band's lower edge, the centres of all, the highest one's upper edge."""
    import torch

    low, high = (_mel(torch.tensor(hertz)) for hertz in (settings.f_min, settings.highest))
    return 700 * (10 ** (low + (high - low) * torch.arange(bands + 2) / (bands + 1)) - 1)


def places(hertz: torch.Tensor, settings: FrontendSettings, bands: int) -> torch.Tensor:
    """Where frequencies lie: 0 at the centre of the lowest band, 1 of the next; -1 and `bands` are the outer edges."""
    import torch

    low, high = (_mel(torch.tensor(edge)) for edge in (settings.f_min, settings.highest))
    return (_mel(hertz) - low) / (high - low) * (bands + 1) - 1


def _mel(hertz: torch.Tensor) -> torch.Tensor:
    """HTK's scale, without its factor, as `Frontend.band` has it."""
    return (1 + hertz / 700).log10()
