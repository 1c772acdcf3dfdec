"""Cuts to logits: a cut is judged by the mean of what its windows give."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple, cast

import torch
from torch import nn

from watkins_ml.core.distributed import SINGLE_PROCESS, SingleProcess
from watkins_ml.models.family import Network

BATCH = 32


class WindowOutputs(NamedTuple):
    """What a network gives for each window, on the CPU in float32, and to which cut the windows belong."""

    embeddings: torch.Tensor
    """(windows, dimensions): the pooled maps before the last, linear layer."""
    logits: torch.Tensor
    """(windows, species)."""
    counts: list[int]
    """How many windows each cut has."""

    def by_cut(self, values: torch.Tensor, counting: torch.Tensor | None = None) -> torch.Tensor:
        """The means of values (windows, ...) over the windows of each cut, (cuts, ...).

        With `counting`, bool (windows,), over those that count; over all of a cut where none does.
        """
        if not self.counts:
            return values
        parts = values.split(self.counts)
        if counting is not None:
            chosen = counting.split(self.counts)
            parts = [part[of_cut] if of_cut.any() else part for part, of_cut in zip(parts, chosen, strict=True)]
        return torch.stack([of_cut.mean(dim=0) for of_cut in parts])


@torch.inference_mode()
def window_outputs(
    network: nn.Module, cuts: Iterable[torch.Tensor], batch_size: int = BATCH, group: SingleProcess = SINGLE_PROCESS
) -> WindowOutputs:
    """Put the windows of cuts through a network.

    Args:
        cuts: the windows of one cut after another, each (n, 1, n_mels, frames); read as they are needed, so that never
            many more than a batch are in memory.
        group: the processes that share the work; each reads all cuts, and gets all outputs.
    """
    network.eval()
    device = next(network.parameters()).device
    counts: list[int] = []

    def windows() -> Iterator[torch.Tensor]:
        for cut in cuts:
            counts.append(len(cut))
            yield from cut

    stream = windows()
    embeddings: list[torch.Tensor | int] = []
    logits: list[torch.Tensor | int] = []
    two_steps = cast(Network, network)
    for number, batch in enumerate(iter(lambda: list(islice(stream, batch_size)), [])):
        if not group.owns_batch(number):
            embeddings.append(len(batch))
            logits.append(len(batch))
            continue
        embedded = two_steps.embed(torch.stack(batch).to(device))
        embeddings.append(embedded.float().cpu())
        logits.append(two_steps.head(embedded).float().cpu())
    gathered = [group.gather(parts or [torch.empty(0, 0)]) for parts in (embeddings, logits)]
    return WindowOutputs(gathered[0], gathered[1], counts)


def cut_logits(
    network: nn.Module, cuts: Iterable[torch.Tensor], batch_size: int = BATCH, group: SingleProcess = SINGLE_PROCESS
) -> torch.Tensor:
    """The mean of the logits over the windows of each cut, (cuts, species); with no cuts, (0, 0)."""
    outputs = window_outputs(network, cuts, batch_size, group)
    return outputs.by_cut(outputs.logits)
