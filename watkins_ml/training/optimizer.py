"""torch's AdamW, started without torch's compiler, and on a GPU as it can be recorded there."""

from __future__ import annotations

from collections.abc import Iterable
from inspect import unwrap
from typing import Any

import torch


class AdamW(torch.optim.AdamW):
    """The same steps as torch's; Loshchilov and Hutter 2019, arXiv:1711.05101.

    torch wraps these methods so that its compiler leaves them alone, and each wrapper first imports that compiler: a
    second and a half in every training. Nothing here compiles them.
    """

    def __init__(self, parameters: Iterable[torch.nn.Parameter], lr: float, weight_decay: float):
        parameters = list(parameters)
        on_gpu = parameters[0].is_cuda
        super().__init__(parameters, lr=lr, weight_decay=weight_decay, fused=on_gpu or None, capturable=on_gpu)

    zero_grad = unwrap(torch.optim.AdamW.zero_grad)
    step = torch.no_grad()(unwrap(torch.optim.AdamW.step))
    state_dict = unwrap(torch.optim.AdamW.state_dict)
    add_param_group = unwrap(torch.optim.AdamW.add_param_group)
    _load = unwrap(torch.optim.AdamW.load_state_dict)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a state, of another kind of device too."""
        own = {name: self.defaults[name] for name in ("fused", "capturable")}
        self._load(state | {"param_groups": [group | own for group in state["param_groups"]]})
