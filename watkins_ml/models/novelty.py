"""How far a sound is from everything that a network was trained on, so that it can answer "unknown"."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import nn
from torch.nn.functional import normalize

from watkins_ml.audio.encoder_settings import Settings
from watkins_ml.audio.files import FileFrontend
from watkins_ml.audio.noise import coloured_noise
from watkins_ml.models.scoring import window_outputs

MOST_KNOWN = 4096
"""Training recordings that a model remembers at most."""
NOISES = 128
KEPT = 0.95
"""Share of the validation recordings that stay below the limit of distance."""


class Novelty(nn.Module):
    """Embeddings (N, dimensions) to novelty (N,): from 0, like a training recording, over 1, the limit, upwards.

    The larger of two values by cosine distance: how far the nearest training recording is, in units of the distance
    within which 95 % of the validation recordings lie (Sun et al., Out-of-Distribution Detection with Deep Nearest
    Neighbors, ICML 2022, with one neighbour); and whether noise is nearer, 1 at equal distance. The second is needed
    since standardised spectrograms of faint calls are mostly noise, and so lie near to noise without any call.
    """

    known: torch.Tensor
    noise: torch.Tensor
    limit: torch.Tensor

    def __init__(self, known: torch.Tensor, noise: torch.Tensor, limit: torch.Tensor):
        """Directions (n, dimensions) of training recordings and of noise; the limit of distance, a scalar."""
        super().__init__()
        self.register_buffer("known", normalize(known.float(), dim=1))  # stored as float16, they are no unit vectors
        self.register_buffer("noise", normalize(noise.float(), dim=1))
        self.register_buffer("limit", limit)

    def check(self, dimensions: int) -> None:
        """Raises a ValueError unless all fits embeddings of so many dimensions."""
        for directions in (self.known, self.noise):
            if directions.shape[1:] != (dimensions,) or not len(directions) or not torch.isfinite(directions).all():
                raise ValueError(f"no novelty of {dimensions} dimensions")
        if self.limit.shape or not 0 < self.limit < float("inf"):
            raise ValueError("no limit of novelty")

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        from_known, from_noise = distance(embeddings, self.known), distance(embeddings, self.noise)
        relative = 2 * from_known / (from_known + from_noise).clamp(min=1e-12)
        return torch.maximum(from_known / self.limit, relative)


def distance(embeddings: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Cosine distance (N,), from 0 to 2, of each embedding (N, dimensions) to the nearest of the unit vectors."""
    directions = normalize(embeddings.float(), dim=1)
    nearest = others[(directions @ others.T).argmax(dim=1)]
    return (directions - nearest).square().sum(dim=1) / 2  # as 1 - cosine, without the digits that loses for small ones


def noise_tensors(frontend: FileFrontend) -> Iterator[torch.Tensor]:
    """What the frontend makes of noise, always the same: NOISES tensors of its shape."""
    settings: Settings = frontend.settings
    rng = np.random.default_rng(0)
    return (frontend(coloured_noise(rng, settings.samples), settings.sample_rate) for _ in range(NOISES))


def fit_novelty(
    network: nn.Module,
    noises: Iterable[torch.Tensor],
    known: Iterable[torch.Tensor],
    validation: Iterable[torch.Tensor],
) -> Novelty:
    """What `network` makes of training recordings and of noise, and how far validation recordings are from the first.

    Args:
        noises: as `noise_tensors` gives them.
        known, validation: the windows of one recording after another, each (n, 1, n_mels, frames).
    """
    each_noise = (noise.unsqueeze(0) for noise in noises)
    remembered, noise = (normalize(window_outputs(network, cuts).embeddings, dim=1) for cuts in (known, each_noise))
    distances = distance(window_outputs(network, validation).embeddings, remembered)
    return Novelty(remembered, noise, torch.quantile(distances, KEPT).clamp(min=1e-6))


def remembered_rows(labels: torch.Tensor, seed: int, most: int = MOST_KNOWN) -> torch.Tensor:
    """Row numbers, ascending, of the recordings to remember: all, or with more than `most` as many of each species.

    Species with fewer than their share keep all. `labels` is int64 (recordings,).
    """
    if len(labels) <= most:
        return torch.arange(len(labels))
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    share = max(1, most // len(labels.unique()))
    chosen = [order[labels[order] == label][:share] for label in labels.unique()]
    return torch.cat(chosen).sort().values
