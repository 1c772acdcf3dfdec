"""The parts of a training put together once, each after those that it needs; none is replaced later."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import torch
from torch import nn

from watkins_ml.config import ExperimentConfig
from watkins_ml.core.device import choose_device, choose_precision
from watkins_ml.core.distributed import current
from watkins_ml.dataset.loading import Side, joined
from watkins_ml.models.family import FittedNetwork, PrefixedNetwork
from watkins_ml.training.checkpoints import Checkpoint, broadcast_checkpoint
from watkins_ml.training.criterion import LabelsCriterion, SpeciesCriterion
from watkins_ml.training.distributed_layers import distribute
from watkins_ml.training.features import FeatureCache
from watkins_ml.training.trainer import Forward, Trainer
from watkins_ml.training.weighing import balanced_weights, sampling_chances
from watkins_ml.transforms.transform import SpectrogramTransform, of_batches

AT_ONCE = 256
"""Recordings from whose batches a network takes what it is fitted to."""


class Composition(NamedTuple):
    """A trainer, and the sides that it reads: spectrograms, or cached outputs of frozen stages."""

    trainer: Trainer
    train: Side
    val: Side


def compose(
    config: ExperimentConfig,
    build: Callable[[], nn.Module],
    train: Side,
    val: Side,
    species: int,
    start: Checkpoint | None,
    features: FeatureCache | None,
    together: bool = False,
) -> Composition:
    """Network, cached features, process group, compiler and optimiser, in this order; arguments as those of `fit`.

    With `together` the training side is both sides.
    """
    group, device = current(), choose_device(config.train.device)
    network = build()
    network.load_state_dict(group.broadcast_tensors(network.state_dict()) or {})
    start = broadcast_checkpoint(start, group)
    if start is not None:  # cached features depend on the frozen weights
        network.load_state_dict(start.tensors["model"])
    network.to(device).to(memory_format=torch.channels_last)

    forward: Forward = network
    transforms: Sequence[SpectrogramTransform] = of_batches(config.augment)
    if features is not None and not any(transform.is_random for transform in config.augment):
        precision = choose_precision(config.train.amp, device)
        train, val, forward, transforms = features.shorten(network, train, val, transforms, device, precision)

    if together:
        train = joined(train, val)
    if start is None and isinstance(network, FittedNetwork):
        _fit_input(network, train, forward is not network, device)
        network.load_state_dict(group.broadcast_tensors(network.state_dict()) or {})
    average = copy.deepcopy(network) if config.train.ema_decay else None  # before layers are changed for processes
    train_forward = distribute(network, forward, group)
    if config.train.compile:
        train_forward = torch.compile(train_forward, dynamic=False)  # for whole batches, and the smaller last one

    is_unweighted = config.train.class_weights == "none"
    weights = torch.ones(species) if is_unweighted else balanced_weights(train.labels, species)
    chances = sampling_chances(train, weights, config.train.class_weights)
    if average is not None:  # it is what is validated
        forward = average if forward is network else cast(PrefixedNetwork, average).tail
    criterion = LabelsCriterion if train.labels.ndim == 2 else SpeciesCriterion
    trainer = Trainer(
        config, network, weights, device, forward, train_forward, transforms, group, average, chances, criterion
    )
    if start is not None:
        trainer.restore(start)
    return Composition(trainer, train.near(device), val.near(device))


def _fit_input(network: FittedNetwork, train: Side, shortened: bool, device: torch.device) -> None:
    """Fit a network to the training side, which holds what its frozen stages give where it is `shortened`."""
    batches = (batch for batch, _ in train.batches(AT_ONCE))
    if isinstance(network, PrefixedNetwork) and not shortened:
        cast(nn.Module, network).eval()
        batches = (network.prefix(batch.to(device)) for batch in batches)
    network.fit_input(batches, train.labels, list(train.frame["tape"]))
