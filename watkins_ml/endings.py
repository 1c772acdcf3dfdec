"""How a run that can be continued ends, whatever ends it: a signal, an error, or the loss of another process."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from watkins_ml.errors import UserError
from watkins_ml.processes import LostError, noticing_losses
from watkins_ml.tracking.rundir import RunDirectory


class RunInterruptedError(UserError):
    """Ctrl-C, a signal or the loss of another process ended a run that can be continued."""


@contextmanager
def ending(run: RunDirectory, again: str, stops: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Whatever happens, the record says how the run ended; after one of the exceptions `stops`, KILLED.

    Raises:
        RunInterruptedError: as `interruptible`.
    """
    try:
        with interruptible(again):
            yield
    except (RunInterruptedError, *stops):
        run.finish("KILLED")
        raise
    except BaseException:
        run.finish("FAILED")
        raise
    run.finish("FINISHED")


@contextmanager
def interruptible(again: str) -> Iterator[None]:
    """Turn what ends a run that can be continued into one sentence.

    Raises:
        RunInterruptedError: Ctrl-C, a signal, or another process lost; the message ends with `again`.
    """
    try:
        with signals_as_interrupts(), noticing_losses():
            yield
    except (KeyboardInterrupt, LostError) as interrupt:
        raise RunInterruptedError(f"{str(interrupt) or 'interrupted'}; {again}") from None


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
