"""What the frozen stages of a network make of the recordings: computed once, kept on disk, used by every training."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
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
from watkins_ml.training.array_store import ArrayStore, NoRoomError, in_words, size_of

FORMAT = 1
BATCH = 32
"""Recordings at a time; the same for every training, since the last bits of a convolution depend on it."""
WORTH = 2
"""Outputs of more than this many times the spectrogram are not kept. Stages 1 and 2 of EfficientNet-B0 give 8 and 4
times as much as they get (1.6 and 0.8 MB a recording) for little arithmetic; with stage 3 it is 1.5 times, and less
and less from there on."""


class Shortened(NamedTuple):
    """What to train on and what to call: splits of features and the tail, or spectrograms and the whole network."""

    train: Side
    val: Side
    forward: Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class FeatureStore:
    """Outputs of frozen stages in a folder of bounded size."""

    folder: Path
    data_digest: str
    limit_gb: float
    """What the whole folder may take, in 10⁹ bytes; 0 keeps nothing."""

    def shorten(
        self, network: nn.Module, train: Side, val: Side, device: torch.device, precision: torch.dtype | None
    ) -> Shortened:
        """Leave out the frozen stages, computing what they give if no training has done so before.

        Where the folder cannot take it, says so in one sentence; then, and where there is nothing to gain, training
        goes on from the spectrograms.
        """
        whole = Shortened(train, val, network)
        if self.limit_gb == 0 or getattr(network, "frozen_stages", 0) == 0:
            return whole
        outputs = _Outputs(network.eval(), (train, val), device, precision)
        if np.prod(outputs.shape[1:]) > WORTH * train.spectrograms[0].numel():
            return whole

        def compute() -> Iterator[np.ndarray]:
            size = in_words(size_of(outputs.shape))
            err.print(f"{outputs}: {size} in {self.folder} (data.feature_cache_gb: {self.limit_gb:g})")
            yield from outputs

        facts = {"format": FORMAT, "data_digest": self.data_digest, **outputs.facts()}
        try:
            features = ArrayStore(self.folder, int(self.limit_gb * 1e9)).get(facts, outputs.shape, compute)
        except (OSError, NotImplementedError, NoRoomError) as error:  # NotImplementedError: a disk without locks
            reason = getattr(error, "strerror", None) or error
            err.print(f"{outputs}: not kept in {self.folder}, {reason}; they are computed anew in every epoch")
            return whole
        parts = torch.from_numpy(features).movedim(-1, 1).split([len(train), len(val)])
        splits = [replace(split, spectrograms=part) for split, part in zip((train, val), parts, strict=True)]
        return Shortened(*splits, network.tail)


class _Outputs:
    """What the frozen stages of a network (in eval mode) make of some splits; the numbers come when they are read."""

    def __init__(
        self, network: nn.Module, splits: tuple[Side, ...], device: torch.device, precision: torch.dtype | None
    ):
        self.network, self.splits, self.device, self.precision = network, splits, device, precision
        self.shape = (sum(map(len, splits)), *self._of(splits[0].spectrograms[:1]).shape[1:])
        """(recordings, height, width, channels), or (recordings, channels) after pooling."""

    def __str__(self) -> str:
        stages = plural(self.network.frozen_stages, "frozen stage")
        return f"Outputs of the {stages} of {plural(self.shape[0], 'recording')}"

    def facts(self) -> dict[str, Any]:
        """All that the numbers depend on, beside the data."""
        weights = hashlib.sha256()
        for name, tensor in self.network.frozen_tensors().items():
            weights.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
        return {
            "recordings": [len(split) for split in self.splits],
            "frozen_stages": self.network.frozen_stages,
            "weights": weights.hexdigest(),
            "precision": str(self.precision or torch.float32).removeprefix("torch."),
            "device": self.device.type,
            "torch": torch.__version__,
        }

    def __iter__(self) -> Iterator[np.ndarray]:
        with progress(transient=True) as bar:
            task = bar.add_task("Frozen stages", total=self.shape[0], note="")
            for split in self.splits:
                for spectrograms, _ in split.batches(BATCH):
                    yield self._of(spectrograms)
                    bar.advance(task, len(spectrograms))

    @torch.inference_mode()
    def _of(self, spectrograms: torch.Tensor) -> np.ndarray:
        with autocast(self.device, self.precision):
            features = self.network.prefix(spectrograms.to(self.device))
        return features.movedim(1, -1).contiguous().cpu().numpy()  # convolutions want channels last
