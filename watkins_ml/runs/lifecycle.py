"""How a run that can be continued ends, whatever ends it: a signal, an error, or the loss of another process."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from watkins_ml.core.distributed import ProcessLostError, detect_process_loss
from watkins_ml.core.errors import ResourceError, UserError, first_line
from watkins_ml.core.memory import MORE_MEMORY, is_short_of_memory
from watkins_ml.tracking.rundir import RunDirectory


class RunInterruptedError(UserError):
    """Ctrl-C, a signal or the loss of another process ended a run that can be continued."""


@contextmanager
def run_lifecycle(run: RunDirectory, how_to_continue: str, stops: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Whatever happens, the record says how the run ended; after one of the exceptions `stops`, KILLED.

    Raises:
        RunInterruptedError: as `interruptible`.
    """
    as_killed: tuple[type[Exception], ...] = (RunInterruptedError, *stops)
    try:
        with interruptible(how_to_continue):
            yield
    except as_killed:
        run.finish("KILLED")
        raise
    except BaseException:
        run.finish("FAILED")
        raise
    run.finish("FINISHED")


@contextmanager
def interruptible(how_to_continue: str) -> Iterator[None]:
    """Turn what ends a run that can be continued into one sentence.

    Raises:
        RunInterruptedError: Ctrl-C, a signal, or another process lost; the message ends with `how_to_continue`.
    """
    try:
        with signals_as_interrupts(), detect_process_loss():
            yield
    except (KeyboardInterrupt, ProcessLostError) as interrupt:
        raise RunInterruptedError(f"{str(interrupt) or 'interrupted'}; {how_to_continue}") from None


class ShortageError(ResourceError):
    """Memory or the device gave out: mostly for what else uses them, but a training too large meets it every time."""


@contextmanager
def shortages(how_to_continue: str = "") -> Iterator[None]:
    """Turn a lack of memory and a lost device into one sentence; raises a ShortageError.

    `how_to_continue` is its end.

    A training that fills the memory of its GPU by itself is too large for it: that error is raised as it is.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if words := _shortage(error):
            raise ShortageError("; ".join(filter(None, (words, how_to_continue)))) from error
        raise


def _shortage(error: Exception) -> str | None:
    """What gave out, and what to do; None for any other error."""
    import torch

    message = str(error)
    if isinstance(error, torch.OutOfMemoryError):
        if others := _held_by_others():
            return f"the GPU has no memory left, and other programs hold {others / 1e9:.1f} GB of it; close them"
        return None
    if isinstance(error, torch.AcceleratorError) or message.startswith(("CUDA error", "cuDNN error", "MPS backend")):
        return f"the device failed ({first_line(error)})"
    return f"too little memory ({first_line(error)}); {MORE_MEMORY}" if is_short_of_memory(error) else None


def _held_by_others() -> int | None:
    """Bytes of this process's GPU that other programs hold; None where it is less than a tenth of it."""
    import torch

    free, whole = torch.cuda.mem_get_info()
    held = whole - free - torch.cuda.memory_reserved()
    return held if held > whole / 10 else None


@contextmanager
def signals_as_interrupts() -> Iterator[None]:
    """A scheduler's SIGTERM and a closed terminal's SIGHUP end the block as Ctrl-C does."""

    def interrupt(number: int, _: object) -> None:
        raise KeyboardInterrupt(f"interrupted by {signal.Signals(number).name}")

    def is_default(number: int) -> bool:  # `nohup` and programs that use us as a library have set their own
        return threading.current_thread() is threading.main_thread() and signal.getsignal(number) == signal.SIG_DFL

    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name) and is_default(getattr(signal, name))]
    for name in names:
        signal.signal(getattr(signal, name), interrupt)
    try:
        yield
    finally:
        for name in names:
            if signal.getsignal(getattr(signal, name)) is interrupt:
                signal.signal(getattr(signal, name), signal.SIG_DFL)
