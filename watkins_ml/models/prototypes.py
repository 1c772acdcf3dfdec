"""A head that compares directions: one prototype a tape, after what differs between tapes of a species is made small.

Snell et al., Prototypical networks for few-shot learning, NeurIPS 2017; within-class covariance normalisation, Hatch et
al., Within-class covariance normalization for SVM-based speaker recognition, Interspeech 2006.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
import pandas as pd
import torch
from pydantic import Field
from torch import nn

from watkins_ml.models.family import ModelSection

MOST_FITTED = 4096
"""Recordings that the projection is fitted to: beyond them as many of each tape as there is room for."""
PER_SPECIES = 16
"""Prototypes of a species; where it has more tapes, several share one."""
COSINE_TEMPERATURE = 0.1
ABSENT = 1e4
"""Taken off the logit of a prototype that does not exist."""
STEADY = 1e-3
"""Share of the largest standard deviation below which a number tells nothing."""


class HeadSection(ModelSection):
    """What families have in common that can end in prototypes."""

    head: Literal["prototypes", "linear"] = "linear"
    """`prototypes`: one a tape, compared by angle, for few tapes a species; `linear`: one layer."""
    dimensions: int = Field(default=256, ge=2, le=4096)
    """Principal axes in which prototypes are compared."""
    whitening: float = Field(default=4.0, ge=0, le=1000)
    """How much prototypes leave out of that in which tapes of one species differ; 0: nothing."""

    @property
    def for_labels(self) -> bool:
        return self.head != "prototypes"


class PrototypeHead(nn.Module):
    """Vectors (batch, inputs) to unit vectors (batch, dimensions), and these to logits (batch, species).

    The logit of a species is the log of the mean, over its prototypes, of exp(cosine / COSINE_TEMPERATURE). What makes
    the unit vectors is fitted once; the prototypes begin as the mean directions of the tapes, and train.
    """

    center: torch.Tensor
    projection: torch.Tensor
    exists: torch.Tensor

    def __init__(self, inputs: int, species: int, config: HeadSection):
        super().__init__()
        self.whitening, dimensions = config.whitening, config.dimensions
        self.register_buffer("center", torch.zeros(inputs))
        self.register_buffer("projection", torch.zeros(dimensions, inputs))
        self.register_buffer("exists", torch.zeros(species, PER_SPECIES))
        self.prototypes = nn.Parameter(torch.zeros(species, PER_SPECIES, dimensions))

    def fit(self, batches: Iterable[torch.Tensor], labels: torch.Tensor, tapes: Sequence[str]) -> None:
        """Take projection and prototypes from recordings: batches (batch, inputs) in the order of labels and tapes."""
        groups = pd.DataFrame({"species": labels.cpu().numpy(), "tape": list(tapes)})
        chosen = fitted_rows(groups)
        vectors, start = [], 0
        for batch in batches:
            of_batch = chosen[(chosen >= start) & (chosen < start + len(batch))] - start
            vectors.append(batch.cpu()[torch.from_numpy(of_batch)])
            start += len(batch)
        found, groups = torch.cat(vectors).double(), groups.iloc[chosen]
        deviation = found.std(dim=0, correction=0)
        scale = torch.where(deviation > STEADY * deviation.max(), 1 / deviation, 0.0)
        center = found.mean(dim=0)
        projection = whitened_axes((found - center) * scale, groups, len(self.projection), self.whitening) * scale
        self.center.copy_(center)
        self.projection.zero_()[: len(projection)] = projection
        with torch.no_grad():
            units = self.units(found.float().to(self.center.device))
            for species, of_species in groups.reset_index(drop=True).groupby("species"):
                means = [units[rows.tolist()].mean(dim=0) for rows in of_species.groupby("tape").groups.values()]
                means = [mean / mean.norm().clamp(min=1e-9) for mean in means]
                for slot in range(min(len(means), PER_SPECIES)):
                    self.exists[int(species), slot] = 1
                    self.prototypes[int(species), slot] = torch.stack(means[slot::PER_SPECIES]).mean(dim=0)

    def units(self, vectors: torch.Tensor) -> torch.Tensor:
        """(batch, inputs) to unit vectors (batch, dimensions), in float32 also where a network runs in less."""
        with torch.autocast(vectors.device.type, enabled=False):
            return nn.functional.normalize((vectors.float() - self.center) @ self.projection.T, dim=1)

    def forward(self, units: torch.Tensor) -> torch.Tensor:
        """What `units` gives to logits (batch, species)."""
        prototypes = nn.functional.normalize(self.prototypes, dim=2)
        with torch.autocast(units.device.type, enabled=False):
            scores = torch.einsum("bd,spd->bsp", units.float(), prototypes) / COSINE_TEMPERATURE
        count = self.exists.sum(dim=1)
        logits = (scores - ABSENT * (1 - self.exists)).logsumexp(dim=2) - count.clamp(min=1).log()
        return torch.where(count > 0, logits, -1 / COSINE_TEMPERATURE)  # as far away as a direction can be


def fitted_rows(groups: pd.DataFrame) -> np.ndarray:
    """Which recordings (columns species, tape) to fit to, in order: all, or MOST_FITTED, as alike of each tape as can
    be."""
    if len(groups) <= MOST_FITTED:
        return np.arange(len(groups))
    turn = groups.groupby(["species", "tape"]).cumcount().to_numpy()
    return np.sort(np.argsort(turn, kind="stable")[:MOST_FITTED])


def whitened_axes(vectors: torch.Tensor, groups: pd.DataFrame, dimensions: int, whitening: float) -> torch.Tensor:
    """The principal axes, at most `dimensions`, of centred vectors (n, inputs), shortened where tapes differ.

    A direction in which the means of a species' tapes vary `v` times as much as in an average one of those in which
    they vary at all is divided by sqrt(1 + whitening * v).
    """
    left, size, axes = _principal(vectors, dimensions)
    between = tape_deviations(left * size, groups)
    if between.numel() and whitening:
        _, variation, nuisance = torch.linalg.svd(between, full_matrices=False)
        varying = variation > 1e-6 * variation[0]
        share, nuisance = variation[varying].square(), nuisance[varying]
        shortened = 1 - (1 + whitening * share / share.mean()).rsqrt()
        axes = axes - (nuisance.T * shortened) @ nuisance @ axes
    return axes


def tape_deviations(vectors: torch.Tensor, groups: pd.DataFrame) -> torch.Tensor:
    """Mean of each tape less the mean of its species' tapes (tapes, inputs), for species with several tapes.

    Each as long as it would be were the species' mean known and not estimated from so few.
    """
    deviations = [torch.empty(0, vectors.shape[1], dtype=vectors.dtype)]
    for _, rows in groups.reset_index(drop=True).groupby("species"):
        means = torch.stack([vectors[row.tolist()].mean(dim=0) for row in rows.groupby("tape").groups.values()])
        if (count := len(means)) > 1:
            deviations.append((means - means.mean(dim=0)) * (count / (count - 1)) ** 0.5)
    return torch.cat(deviations)


def _principal(vectors: torch.Tensor, dimensions: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Singular vectors and values of (n, inputs): left (n, k), size (k,), axes (k, inputs), through the smaller Gram
    matrix."""
    if len(vectors) <= vectors.shape[1]:
        squares, left = torch.linalg.eigh(vectors @ vectors.T)
        kept = squares[-dimensions:] > 1e-9 * squares[-1].clamp(min=1e-300)
        size, left = squares[-dimensions:][kept].sqrt(), left[:, -dimensions:][:, kept]
        return left, size, (left.T @ vectors) / size[:, None]
    squares, axes = torch.linalg.eigh(vectors.T @ vectors)
    kept = squares[-dimensions:] > 1e-9 * squares[-1].clamp(min=1e-300)
    size, axes = squares[-dimensions:][kept].sqrt(), axes[:, -dimensions:][:, kept].T
    return (vectors @ axes.T) / size, size, axes
