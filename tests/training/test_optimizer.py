"""The optimiser is torch's own but for what it imports."""

from __future__ import annotations

import os
import subprocess
import sys

import torch

from tests.support import ROOT
from watkins_ml.training.optimizer import AdamW


def trained(kind, seed: int = 0) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    network = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.ReLU(), torch.nn.Linear(4, 3))
    optimizer = kind([{"params": list(network.parameters()), "lr": 0.01}], weight_decay=0.1)
    for batch in torch.randn(6, 8, 5):
        optimizer.zero_grad(set_to_none=True)
        network(batch).square().mean().backward()
        optimizer.step()
    return network, optimizer


def test_steps_are_those_of_torch():
    (ours, mine), (theirs, yours) = trained(AdamW), trained(torch.optim.AdamW)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(mine.state_dict(), yours.state_dict(), rtol=0, atol=0)


def test_a_state_taken_up_again_is_the_same_state():
    _, first = trained(AdamW)
    _, second = trained(AdamW, seed=1)
    second.load_state_dict(first.state_dict())
    torch.testing.assert_close(second.state_dict(), first.state_dict(), rtol=0, atol=0)


def test_a_state_of_a_gpu_is_taken_up_on_a_cpu():
    """There the optimiser is told that its steps are recorded and fused."""
    network, first = trained(AdamW)
    copy, second = trained(AdamW)
    state = second.state_dict()
    state["param_groups"][0] |= {"fused": True, "capturable": True}
    second.load_state_dict(state)
    for model, optimizer in ((network, first), (copy, second)):
        model(torch.ones(2, 5)).sum().backward()
        optimizer.step()
    torch.testing.assert_close(copy.state_dict(), network.state_dict(), rtol=0, atol=0)


def test_a_training_does_not_import_the_compiler():
    """It takes a second and a half, and only `train.compile` needs it."""
    script = (
        "import sys\nfrom tests.support.in_double import history\nassert len(history('baseline', is_first=True)) == 3\n"
        "print(*{'torch._dynamo', 'torch._inductor'} & set(sys.modules))"
    )
    here = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=here)
    assert done.stdout.split() == []
