"""Ctrl-C, SIGTERM and SIGHUP at any moment: unwind, so that every ``finally`` runs and nothing is left behind."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt(signal.Signals(number).name)


def install() -> None:
    """Makes SIGTERM and SIGHUP unwind as Ctrl-C does."""
    for number in _SIGNALS:
        signal.signal(number, _interrupt)


_deferring = False


@contextmanager
def deferred() -> Iterator[None]:
    """Holds interrupts back until the (outermost) block is left: while what was started is noted, or is stopped.

    The block must be bounded in time. Blocking the signals instead would be inherited by a started process, which could
    then not be told to stop.
    """
    global _deferring
    if _deferring or threading.current_thread() is not threading.main_thread():
        yield
        return
    caught: list[int] = []
    previous = {
        number: signal.signal(number, lambda caught_number, _: caught.append(caught_number)) for number in _SIGNALS
    }
    _deferring = True
    try:
        yield
    finally:
        _deferring = False
        for number, handler in previous.items():
            signal.signal(number, handler)
    if caught:
        raise KeyboardInterrupt(signal.Signals(caught[0]).name)
