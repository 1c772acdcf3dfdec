"""Cuts to logits: a cut is judged by the mean of what its windows give."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import torch
from torch import nn

BATCH = 32


@torch.inference_mode()
def cut_logits(network: nn.Module, cuts: Iterable[torch.Tensor], batch_size: int = BATCH) -> torch.Tensor:
    """The mean of the logits over the windows of each cut.

    Args:
        cuts: the windows of one cut after another, each (n, 1, n_mels, frames); read as they are needed, so that never
            many more than a batch are in memory.

    Returns:
        (cuts, species) on the CPU in float32; with no cuts, (0, 0).
    """
    network.eval()
    device = next(network.parameters()).device
    counts: list[int] = []

    def windows() -> Iterator[torch.Tensor]:
        for cut in cuts:
            counts.append(len(cut))
            yield from cut

    stream = windows()
    batches = iter(lambda: list(islice(stream, batch_size)), [])
    logits = [network(torch.stack(batch).to(device)).float().cpu() for batch in batches]
    if not logits:
        return torch.empty(0, 0)
    return torch.stack([of_cut.mean(dim=0) for of_cut in torch.cat(logits).split(counts)])
