"""torch's AdamW, started without torch's compiler, and on a GPU as it can be recorded there; what learns how fast."""

from __future__ import annotations

from inspect import unwrap
from typing import Any

import torch
from torch import nn

from watkins_ml.config.sections import OptimConfig
from watkins_ml.core.errors import UsageError
from watkins_ml.models.family import StagedNetwork


class AdamW(torch.optim.AdamW):
    """The same steps as torch's; Loshchilov and Hutter 2019, arXiv:1711.05101.

    torch wraps these methods so that its compiler leaves them alone, and each wrapper first imports that compiler: a
    second and a half in every training. Nothing here compiles them.
    """

    def __init__(self, groups: list[dict[str, Any]], weight_decay: float):
        """Of groups with `params` and `lr` each, as `parameter_groups` makes them."""
        on_gpu = groups[0]["params"][0].is_cuda
        super().__init__(groups, weight_decay=weight_decay, fused=on_gpu or None, capturable=on_gpu)

    zero_grad = unwrap(torch.optim.AdamW.zero_grad)
    step = torch.no_grad()(unwrap(torch.optim.AdamW.step))
    state_dict = unwrap(torch.optim.AdamW.state_dict)
    add_param_group = unwrap(torch.optim.AdamW.add_param_group)
    _load = unwrap(torch.optim.AdamW.load_state_dict)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a state, of another kind of device too."""
        own = {name: self.defaults[name] for name in ("fused", "capturable")}
        self._load(state | {"param_groups": [group | own for group in state["param_groups"]]})


def parameter_groups(network: nn.Module, optim: OptimConfig) -> list[dict[str, Any]]:
    """The trainable parameters with their learning rates, the head last: one group, or with `layer_decay` one a stage.

    Raises:
        UsageError: `layer_decay` for a network without stages.
    """
    if optim.layer_decay == 1:
        return [{"params": [each for each in network.parameters() if each.requires_grad], "lr": optim.lr}]
    if not isinstance(network, StagedNetwork):
        raise UsageError("optim.layer_decay: this family of models has no stages; set it to 1")
    stages = network.stages
    groups = [
        {
            "params": [each for each in stage.parameters() if each.requires_grad],
            "lr": optim.lr * optim.layer_decay ** (len(stages) - number),
        }
        for number, stage in enumerate(stages, start=1)
    ]
    return [group for group in groups if group["params"]]


def schedule(
    optimizer: torch.optim.Optimizer, optim: OptimConfig, epochs: int, **plateau: Any
) -> torch.optim.lr_scheduler.LRScheduler:
    """The schedule of the learning rate, stepped once an epoch; `plateau` is how ReduceLROnPlateau compares epochs."""
    from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, ReduceLROnPlateau, SequentialLR

    if optim.schedule == "plateau":
        return ReduceLROnPlateau(optimizer, factor=optim.plateau_factor, patience=optim.plateau_patience, **plateau)
    warmup = min(optim.warmup_epochs, epochs - 1)
    cosine = CosineAnnealingLR(optimizer, epochs - warmup)
    if not warmup:
        return cosine
    rising = LinearLR(optimizer, 1 / (warmup + 1), total_iters=warmup)
    return SequentialLR(optimizer, [rising, cosine], [warmup])
