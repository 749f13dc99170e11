"""Whether a started process answers yet."""

from __future__ import annotations

from collections.abc import Callable

import httpx
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from exhibit.processes import Running


def answers(url: str) -> bool:
    """Whether a GET of `url`, on loopback, is answered 200 now."""
    try:
        # On loopback: no proxy of the environment, no certificates to load.
        with httpx.Client(trust_env=False, verify=False, timeout=2) as http:
            return http.get(url).status_code == 200
    except httpx.TransportError:
        return False


def wait(running: Running, ready: Callable[[], bool], deadline_seconds: float) -> bool:
    """Waits until `ready` holds, the process has ended, or the deadline is over; whether it runs and is ready."""
    is_ready = Retrying(
        stop=stop_after_delay(deadline_seconds),
        wait=wait_fixed(0.05),
        retry=retry_if_result(lambda done: not done),
        retry_error_callback=lambda _: False,
    )(lambda: ready() or running.process() is None)
    return bool(is_ready) and running.process() is not None
