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


@contextmanager
def deferred() -> Iterator[None]:
    """Holds interrupts back until the block is left: between starting a process and noting that it runs.

    Blocking the signals instead would be inherited by the started process, which could then not be told to stop.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught: list[int] = []
    previous = {
        number: signal.signal(number, lambda caught_number, _: caught.append(caught_number)) for number in _SIGNALS
    }
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if caught:
        raise KeyboardInterrupt(signal.Signals(caught[0]).name)
