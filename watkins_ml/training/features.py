"""The outputs of a network's frozen stages, computed once and cached on disk for every training."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from watkins_ml.core.console import err, progress
from watkins_ml.core.device import autocast
from watkins_ml.core.wording import plural
from watkins_ml.dataset.loading import Side
from watkins_ml.models.family import PrefixedNetwork
from watkins_ml.training.array_cache import ArrayCache, NoRoomError, in_words, size_of
from watkins_ml.transforms.transform import Batch, SpectrogramTransform, apply

FORMAT = 1
BATCH = 32
"""Recordings at a time; the same for every training, since the last bits of a convolution depend on it."""
WORTH = 2
"""Outputs larger than the spectrogram by more than this factor are not cached. Those of stages 1 and 2 of
EfficientNet-B0 are 8 and 4 times as large (1.6 and 0.8 MB a recording) for little arithmetic; of stage 3, 1.5 times,
and smaller from there on."""


class Shortened(NamedTuple):
    """Sides of features and the network's tail, or of spectrograms and the whole network."""

    train: Side
    val: Side
    forward: Callable[[torch.Tensor], torch.Tensor]
    transforms: Sequence[SpectrogramTransform]
    """Those still to be applied: none to features."""


@dataclass(frozen=True)
class FeatureCache:
    """A cache of the outputs of frozen stages, in a folder of bounded size."""

    folder: Path
    data_digest: str
    limit_gb: float
    """What the whole folder may take, in 10⁹ bytes; 0 caches nothing."""

    def shorten(
        self,
        network: nn.Module,
        train: Side,
        val: Side,
        transforms: Sequence[SpectrogramTransform],
        device: torch.device,
        precision: torch.dtype | None,
    ) -> Shortened:
        """Train on cached outputs of the frozen stages, which are computed if they are not in the cache.

        Where the folder cannot take them, prints one sentence; then, and where caching would not pay, training reads
        the spectrograms. No transform may be random.
        """
        whole = Shortened(train, val, network, transforms)
        if self.limit_gb == 0 or not isinstance(network, PrefixedNetwork) or network.frozen_stages == 0:
            return whole
        network.eval()
        outputs = _Outputs(network, (train, val), transforms, device, precision)
        if np.prod(outputs.shape[1:]) > WORTH * train.spectrograms[0].numel():
            return whole

        def compute() -> Iterator[np.ndarray]:
            size = in_words(size_of(outputs.shape))
            err.print(f"{outputs}: {size} in {self.folder} (data.feature_cache_gb: {self.limit_gb:g})")
            yield from outputs

        facts = {"format": FORMAT, "data_digest": self.data_digest, **outputs.facts()}
        try:
            features = ArrayCache(self.folder, int(self.limit_gb * 1e9)).get(facts, outputs.shape, compute)
        except (OSError, NotImplementedError, NoRoomError) as error:  # NotImplementedError: a disk without locks
            reason = getattr(error, "strerror", None) or error
            err.print(f"{outputs}: not cached in {self.folder}, {reason}; they are computed anew in every epoch")
            return whole
        parts = torch.from_numpy(features).movedim(-1, 1).split([len(train), len(val)])
        sides = [replace(side, spectrograms=part) for side, part in zip((train, val), parts, strict=True)]
        return Shortened(sides[0], sides[1], network.tail, ())


class _Outputs:
    """The outputs of the frozen stages of a network in eval mode for train and val; computed when iterated over."""

    def __init__(
        self,
        network: PrefixedNetwork,
        sides: tuple[Side, Side],
        transforms: Sequence[SpectrogramTransform],
        device: torch.device,
        precision: torch.dtype | None,
    ):
        self.network, self.sides, self.device, self.precision = network, sides, device, precision
        self.transforms = transforms
        self.shape = (sum(map(len, sides)), *self._of(sides[0].spectrograms[:1]).shape[1:])
        """(recordings, height, width, channels), or (recordings, channels) after pooling."""

    def __str__(self) -> str:
        stages = plural(self.network.frozen_stages, "frozen stage")
        return f"Outputs of the {stages} of {plural(self.shape[0], 'recording')}"

    def facts(self) -> dict[str, Any]:
        """The cache key: all that the outputs depend on, beside the data."""
        weights = hashlib.sha256()
        for name, tensor in self.network.frozen_tensors().items():
            weights.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
        return {
            "recordings": [len(side) for side in self.sides],
            "frozen_stages": self.network.frozen_stages,
            "weights": weights.hexdigest(),
            "precision": str(self.precision or torch.float32).removeprefix("torch."),
            "device": self.device.type,
            "torch": torch.__version__,
        } | ({"transforms": [transform.model_dump() for transform in self.transforms]} if self.transforms else {})

    def __iter__(self) -> Iterator[np.ndarray]:
        with progress(transient=True) as bar:
            task = bar.add_task("Frozen stages", total=self.shape[0], note="")
            for side, transforms in zip(self.sides, (self.transforms, ()), strict=True):  # validation has none
                for spectrograms, labels in side.batches(BATCH):
                    batch = apply(transforms, Batch(spectrograms, labels, 0, side.settings), torch.Generator())
                    yield self._of(batch.spectrograms)
                    bar.advance(task, len(spectrograms))

    @torch.inference_mode()
    def _of(self, spectrograms: torch.Tensor) -> np.ndarray:
        with autocast(self.device, self.precision):
            features = self.network.prefix(spectrograms.to(self.device))
        return features.movedim(1, -1).contiguous().cpu().numpy()  # convolutions want channels last
