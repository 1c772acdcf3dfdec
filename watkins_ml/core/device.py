"""Which device computes, in which precision, and how to make it reproducible."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext

import torch

from watkins_ml.core.distributed import current
from watkins_ml.core.errors import UsageError


def choose_device(wanted: str = "auto", setting: str = "train.device") -> torch.device:
    """`auto` takes CUDA where there is one, else the CPU; of several processes each takes a GPU of its own.

    Args:
        setting: what the user calls it.

    Raises:
        UsageError: the wanted device is not there or not for several processes, or is none of auto, cpu, cuda and mps.
    """
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wanted == "auto":
        wanted = "cuda" if available["cuda"] else "cpu"
    if wanted not in available:
        raise UsageError(f"{setting} {wanted}: must be auto, cpu, cuda or mps")
    if not available[wanted]:
        raise UsageError(f"{setting} {wanted}: this machine has none that torch can use; write auto or cpu")
    local_rank = current().local_rank
    return torch.device(wanted) if local_rank is None else _local_device(wanted, setting, local_rank)


def _local_device(wanted: str, setting: str, local_rank: int) -> torch.device:
    """The device of the process of this local rank."""
    if wanted == "mps":
        raise UsageError(f"{setting} mps: cannot be shared by several processes; start one, or write cpu")
    if wanted == "cpu":
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise UsageError(
            f"torchrun --nproc-per-node: more than the {torch.cuda.device_count()} GPUs of this machine; start one "
            f"process a GPU, or set {setting}=cpu"
        )
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


def choose_precision(amp: str, device: torch.device) -> torch.dtype | None:
    """The autocast type, or None for full float32."""
    if amp == "auto":
        if device.type != "cuda":
            return None
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if amp == "fp16" and device.type != "cuda":
        raise UsageError("train.amp fp16 needs a GPU; write auto, none or bf16")
    return {"none": None, "bf16": torch.bfloat16, "fp16": torch.float16}[amp]


def autocast(device: torch.device, precision: torch.dtype | None) -> AbstractContextManager:
    return nullcontext() if precision is None else torch.autocast(device.type, precision)


def make_deterministic(seed: int, uses_compiler: bool) -> None:
    """Seed torch and choose deterministic kernels; `uses_compiler`: whether `torch.compile` is imported anyway."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.manual_seed(seed)
    if uses_compiler:
        torch.use_deterministic_algorithms(True, warn_only=True)
    else:  # the same for the kernels, without importing the compiler
        torch.set_deterministic_debug_mode("warn")
    # no layer reads uninitialised memory
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
