"""A trained network made faster: every BatchNorm folded into the convolution before it."""

from __future__ import annotations

import copy
from itertools import pairwise

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def folded(network: nn.Module) -> nn.Module:
    """A copy that gives the same logits but for rounding (below 1e-5) and can be used for nothing else."""
    network = copy.deepcopy(network).eval()
    for block in [module for module in network.modules() if isinstance(module, nn.Sequential)]:
        for at, (layer, following) in enumerate(pairwise(block)):
            if isinstance(layer, nn.Conv2d) and isinstance(following, nn.BatchNorm2d):
                block[at], block[at + 1] = fuse_conv_bn_eval(layer, following), nn.Identity()
    return network.to(memory_format=torch.channels_last)
