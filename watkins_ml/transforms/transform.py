"""What a transform is: a section of the list `augment` in a recipe, and the operation that it configures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from watkins_ml.core.section import Section

if TYPE_CHECKING:
    import torch


class Batch(NamedTuple):
    """Recordings that are trained on in one step."""

    spectrograms: torch.Tensor
    """float32, shape (batch, 1, n_mels, frames); each has mean 0."""
    labels: torch.Tensor
    """int64 labels (batch,), or float32 shares of species (batch, species) once recordings are mixed."""
    species: int
    """Number of classes."""


class Transform(Section, ABC):
    """The base of both kinds. A subclass adds its keys and says `name: Literal["..."]`, the name of its module."""

    is_random: ClassVar[bool] = True
    """Whether a recording may look different in every epoch. Without a random transform in the list the outputs of
    frozen stages are cached; one that is not random must change each recording by itself, and no label."""
    name: str


class SpectrogramTransform(Transform):
    """A transform of the batches that a training reads; it may mix recordings and their labels."""

    @abstractmethod
    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        """The batch, changed.

        All randomness comes from `generator` (on the CPU) or from torch's global state; a checkpoint holds both.
        """


class WaveformTransform(Transform):
    """A transform of audio before the frontend. Prepared data hold spectrograms, so recipes refuse it as yet."""

    @abstractmethod
    def __call__(self, waveform: torch.Tensor, sample_rate: int, generator: torch.Generator) -> torch.Tensor:
        """Mono audio, float32 (samples,) at `sample_rate` Hz, to the same, changed."""


def apply(transforms: Sequence[SpectrogramTransform], batch: Batch, generator: torch.Generator) -> Batch:
    """Apply transforms in their order."""
    for transform in transforms:
        batch = transform(batch, generator)
    return batch
