"""What a transform is: a section of the list `augment` in a recipe, and the operation that it configures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from watkins_ml.audio.any_settings import AnySettings
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
    settings: AnySettings | None = None
    """Of the frontend that made the spectrograms; None where that is unknown."""


class Transform(Section, ABC):
    """The base of all kinds. A subclass adds its keys and says `name: Literal["..."]`, the name of its module."""

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


class WindowTransform(Transform):
    """A transform of what is loaded: of which of its stored windows a longer recording is trained on.

    Wherever it stands in the list, it comes before those of batches. Its tensors are those of any family.
    """

    @abstractmethod
    def __call__(self, windows: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """By how many windows each recording of an epoch is classified to the one that is loaded, counted from 0.

        Both int64 (recordings,); -1 is the central spectrogram. Randomness as in a SpectrogramTransform.
        """


class WaveformTransform(Transform):
    """A transform of audio before the frontend. Prepared data hold spectrograms, so recipes refuse it as yet."""

    @abstractmethod
    def __call__(self, waveform: torch.Tensor, sample_rate: int, generator: torch.Generator) -> torch.Tensor:
        """Mono audio, float32 (samples,) at `sample_rate` Hz, to the same, changed."""


def of_batches(transforms: Sequence[Transform]) -> list[SpectrogramTransform]:
    """Those that change batches."""
    return [transform for transform in transforms if isinstance(transform, SpectrogramTransform)]


def of_windows(transforms: Sequence[Transform]) -> WindowTransform | None:
    """What draws the windows that are trained on; None: the central ones are."""
    return next((transform for transform in transforms if isinstance(transform, WindowTransform)), None)


def apply(transforms: Sequence[SpectrogramTransform], batch: Batch, generator: torch.Generator) -> Batch:
    """Apply transforms in their order."""
    for transform in transforms:
        batch = transform(batch, generator)
    return batch
