"""A network trained by several processes, each on its shard of a batch, as one process would train it on the batch.

torch's DistributedDataParallel averages the gradients. What is left are layers that depend on more than one recording
(synchronised batch normalisation) or draw random numbers for each (dropout and stochastic depth of the global batch).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from watkins_ml.core.distributed import ProcessGroup, SingleProcess

Forward = Callable[[torch.Tensor], torch.Tensor]
PER_CHANNEL = (1, -1, 1, 1)
"""The shape of one number a channel, broadcast over maps (rows, channels, height, width)."""


def distribute(network: nn.Module, forward: Forward, group: SingleProcess) -> Forward:
    """Wrap `forward`, the trained part of `network`, for the processes of the group; nothing for a single process."""
    if not isinstance(group, ProcessGroup):
        return forward
    from torchvision.ops import StochasticDepth  # torchvision costs a baseline in a single process 2 s and 160 MiB

    device = next(network.parameters()).device
    for layer in network.modules():
        if isinstance(layer, (nn.Dropout, StochasticDepth)):
            layer.forward = partial(  # type: ignore[method-assign]
                _global_dropout, layer, layer.forward, group
            )
        elif isinstance(layer, nn.BatchNorm2d) and device.type == "cpu":
            layer.forward = partial(  # type: ignore[method-assign]
                _synchronised_batch_norm, layer, layer.forward, group
            )
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(network)  # has no implementation for the CPU
    return DistributedDataParallel(
        _FunctionModule(network, forward), device_ids=[device] if device.type == "cuda" else None
    )


class _FunctionModule(nn.Module):
    """A function of a network's parameters, as a module."""

    def __init__(self, network: nn.Module, function: Forward):
        super().__init__()
        self.network, self.function = network, function if function is not network else network.forward

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


def _global_dropout(layer: nn.Module, forward: Forward, group: ProcessGroup, x: torch.Tensor) -> torch.Tensor:
    """This shard of the global batch's dropout or stochastic depth, which all processes draw from the same state."""
    if not layer.training:
        return forward(x)
    of_one = x.shape[1:] if isinstance(layer, nn.Dropout) else (1,) * (x.ndim - 1)  # stochastic depth drops whole maps
    return x * forward(x.new_ones(group.batch_size, *of_one))[group.rows()]


def _synchronised_batch_norm(
    layer: nn.BatchNorm2d, forward: Forward, group: ProcessGroup, x: torch.Tensor
) -> torch.Tensor:
    if not layer.training:
        return forward(x)
    mean, variance, count = _moments(x.to(layer.weight.dtype), group)
    assert layer.num_batches_tracked is not None and layer.running_mean is not None and layer.running_var is not None
    assert layer.momentum is not None
    layer.num_batches_tracked.add_(1)
    layer.running_mean.lerp_(mean, layer.momentum)
    layer.running_var.lerp_(variance * count / (count - 1), layer.momentum)
    return _BatchNorm.apply(x, layer.weight, layer.bias, mean, variance, count, layer.eps, group)


@torch.no_grad()
def _moments(x: torch.Tensor, group: ProcessGroup) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mean and variance (channels,) of the maps (rows, channels, height, width) of all processes, and the point count.

    Combined from each process's moments (Chan et al. 1983), since sums of squares would lose digits.
    """
    channels, count = x.shape[1], x.numel() // x.shape[1]
    own = torch.zeros(2 * channels + 1, dtype=torch.float64)
    if count:
        mean = x.mean(dim=(0, 2, 3))
        variance = (x - mean.view(PER_CHANNEL)).square_().mean(dim=(0, 2, 3))  # torch.var_mean takes four times longer
        own = torch.cat([mean.double(), variance.double(), torch.tensor([count])])
    means, variances, counts = group.all_gather(own).split([channels, channels, 1], dim=1)
    shares = counts / counts.sum()
    mean = (shares * means).sum(dim=0)
    variance = (shares * (variances + (means - mean).square())).sum(dim=0)
    return mean.to(x.dtype), variance.to(x.dtype), counts.sum()


class _BatchNorm(torch.autograd.Function):
    """Batch normalisation by the moments of the global batch."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> torch.Tensor:
        x, weight, bias, mean, variance, count, eps, group = arguments
        ctx.save_for_backward(x, weight, mean, variance)
        ctx.count, ctx.eps, ctx.group = count, eps, group
        return F.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient,) = gradients
        saved, weight, mean, variance = ctx.saved_tensors
        x = saved.to(mean.dtype)
        of_x, of_weight, of_bias = gradient.to(mean.dtype), torch.zeros_like(mean), torch.zeros_like(mean)
        if len(x):  # torch's kernel crashes on an empty batch
            of_x, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(  # with the moments taken as constants
                of_x, x, weight, mean, variance, None, None, False, ctx.eps, [True, True, True]
            )
        along_scale, along_mean = ctx.group.all_reduce(torch.stack([of_weight, of_bias])) / ctx.count
        scale = weight * (variance + ctx.eps).rsqrt()
        slope = -scale * along_scale * (variance + ctx.eps).rsqrt()
        of_x.addcmul_(x, slope.view(PER_CHANNEL)).sub_((slope * mean + scale * along_mean).view(PER_CHANNEL))
        return of_x.to(saved.dtype), of_weight, of_bias, None, None, None, None, None
