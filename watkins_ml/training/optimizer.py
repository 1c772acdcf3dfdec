"""torch's AdamW, started without torch's compiler."""

from __future__ import annotations

from inspect import unwrap

import torch


class AdamW(torch.optim.AdamW):
    """The same steps as torch's; Loshchilov and Hutter 2019, arXiv:1711.05101.

    torch wraps these methods so that its compiler leaves them alone, and each wrapper first imports that compiler: a
    second and a half in every training. Nothing here compiles them.
    """

    zero_grad = unwrap(torch.optim.AdamW.zero_grad)
    step = torch.no_grad()(unwrap(torch.optim.AdamW.step))
    state_dict = unwrap(torch.optim.AdamW.state_dict)
    load_state_dict = unwrap(torch.optim.AdamW.load_state_dict)
    add_param_group = unwrap(torch.optim.AdamW.add_param_group)
