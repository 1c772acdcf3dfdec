"""A network trained by several processes, each on its rows of a batch, as one process would train it on the batch.

Gradients are joined by torch's DistributedDataParallel. What is left are layers that look beyond one recording (batch
normalisation) or draw at random for each (dropout, stochastic depth).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from watkins_ml.core.distributed import Alone, Group

Forward = Callable[[torch.Tensor], torch.Tensor]
OF_CHANNELS = (1, -1, 1, 1)
"""The shape of a number a channel, beside maps (rows, channels, height, width)."""


def join(network: nn.Module, forward: Forward, group: Alone) -> Forward:
    """`forward`, the trained part of `network`, as what all processes of the group train together."""
    if not isinstance(group, Group):
        return forward
    from torchvision.ops import StochasticDepth  # torchvision costs a baseline that is alone 2 s and 160 MiB

    device = next(network.parameters()).device
    for layer in network.modules():
        if isinstance(layer, (nn.Dropout, StochasticDepth)):
            layer.forward = partial(_drawn_for_all, layer, layer.forward, group)
        elif isinstance(layer, nn.BatchNorm2d) and device.type == "cpu":
            layer.forward = partial(_normalised_over_all, layer, layer.forward, group)
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(network)  # has no implementation for the CPU
    return DistributedDataParallel(_Called(network, forward), device_ids=[device] if device.type == "cuda" else None)


class _Called(nn.Module):
    """A function of a network's parameters, as a module."""

    def __init__(self, network: nn.Module, function: Forward):
        super().__init__()
        self.network, self.function = network, function if function is not network else network.forward

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


def _drawn_for_all(layer: nn.Module, draw: Forward, group: Group, x: torch.Tensor) -> torch.Tensor:
    """Dropout or stochastic depth as drawn for the whole batch, from the same random state in all processes."""
    if not layer.training:
        return draw(x)
    of_one = x.shape[1:] if isinstance(layer, nn.Dropout) else (1,) * (x.ndim - 1)  # whole maps are dropped
    return x * draw(x.new_ones(group.batch, *of_one))[group.rows()]


def _normalised_over_all(layer: nn.BatchNorm2d, alone: Forward, group: Group, x: torch.Tensor) -> torch.Tensor:
    if not layer.training:
        return alone(x)
    mean, variance, count = _moments(x.to(layer.weight.dtype), group)
    layer.num_batches_tracked.add_(1)
    layer.running_mean.lerp_(mean, layer.momentum)
    layer.running_var.lerp_(variance * count / (count - 1), layer.momentum)
    return _Normalise.apply(x, layer.weight, layer.bias, mean, variance, count, layer.eps, group)


@torch.no_grad()
def _moments(x: torch.Tensor, group: Group) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mean and variance (channels,) of the maps (rows, channels, height, width) of all processes, and how many points.

    From each process's own moments (Chan et al. 1983), for sums of squares would lose digits.
    """
    channels, count = x.shape[1], x.numel() // x.shape[1]
    own = torch.zeros(2 * channels + 1, dtype=torch.float64)
    if count:
        mean = x.mean(dim=(0, 2, 3))
        variance = (x - mean.view(OF_CHANNELS)).square_().mean(dim=(0, 2, 3))  # torch.var_mean takes four times longer
        own = torch.cat([mean.double(), variance.double(), torch.tensor([count])])
    means, variances, counts = group.gathered(own).split([channels, channels, 1], dim=1)
    shares = counts / counts.sum()
    mean = (shares * means).sum(dim=0)
    variance = (shares * (variances + (means - mean).square())).sum(dim=0)
    return mean.to(x.dtype), variance.to(x.dtype), counts.sum()


class _Normalise(torch.autograd.Function):
    """Batch normalisation by moments that depend on the maps of every process."""

    @staticmethod
    def forward(ctx, x, weight, bias, mean, variance, count, eps, group):
        ctx.save_for_backward(x, weight, mean, variance)
        ctx.count, ctx.eps, ctx.group = count, eps, group
        return F.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps)

    @staticmethod
    def backward(ctx, gradient):
        saved, weight, mean, variance = ctx.saved_tensors
        x = saved.to(mean.dtype)
        of_x, of_weight, of_bias = gradient.to(mean.dtype), torch.zeros_like(mean), torch.zeros_like(mean)
        if len(x):  # torch's own ends the program where there is nothing
            of_x, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(  # as if the moments were constants
                of_x, x, weight, mean, variance, None, None, False, ctx.eps, [True, True, True]
            )
        along_scale, along_mean = ctx.group.total(torch.stack([of_weight, of_bias])) / ctx.count
        scale = weight * (variance + ctx.eps).rsqrt()
        slope = -scale * along_scale * (variance + ctx.eps).rsqrt()
        of_x.addcmul_(x, slope.view(OF_CHANNELS)).sub_((slope * mean + scale * along_mean).view(OF_CHANNELS))
        return of_x.to(saved.dtype), of_weight, of_bias, None, None, None, None, None
