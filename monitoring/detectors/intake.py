"""The queue between the copies port (event loop) and the owner of the statistics (one thread).

Bounded in copies and in bytes, so that a slow owner costs copies, which are counted, and never memory. A copy is
settled once: dropped here, or handed to the owner and settled by it.
"""

from __future__ import annotations

import threading
import time
from collections import deque

COPIES = 1024
SIZE_BYTES = 16 * 2**20
BODY_BYTES = 2**20
"""What a body may measure: the gateway's own limit."""
REASONS = ("queue_full", "unreadable", "too_large")


class Intake:
    """Copies that wait; all methods may be called from any thread and hold the lock for microseconds."""

    def __init__(self, copies: int = COPIES, size_bytes: int = SIZE_BYTES) -> None:
        self.copies, self.size_bytes = copies, size_bytes
        self._changed = threading.Condition()
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._waiting_bytes = self._arriving_bytes = 0
        self._in_work = 0
        self._dropped = dict.fromkeys(REASONS, 0)
        self._wanted_copies = copies
        self._closed = False

    def hold(self, size_bytes: int) -> bool:
        """Reserves room for a part of a body that is still arriving; False when there is none."""
        with self._changed:
            if self._waiting_bytes + self._arriving_bytes + size_bytes > self.size_bytes:
                return False
            self._arriving_bytes += size_bytes
            return True

    def release(self, size_bytes: int) -> None:
        """Gives back room that was reserved."""
        with self._changed:
            self._arriving_bytes -= size_bytes

    def put(self, body: bytes) -> None:
        """Queues a copy's body, or drops it: too large for any, or too many wait already."""
        with self._changed:
            size_bytes = self._waiting_bytes + self._arriving_bytes + len(body)
            if len(body) > BODY_BYTES:
                self._drop("too_large")
            elif size_bytes > self.size_bytes or len(self._waiting) >= self.copies or self._closed:
                self._drop("queue_full")
            else:
                self._waiting.append((time.monotonic(), body))
                self._waiting_bytes += len(body)
                if len(self._waiting) in (1, self._wanted_copies) or self._waiting_bytes > BODY_BYTES:
                    self._changed.notify_all()

    def drop(self, reason: str) -> None:
        """Counts a copy that never came to the queue."""
        with self._changed:
            self._drop(reason)

    def _drop(self, reason: str) -> None:
        self._dropped[reason] += 1
        if sum(self._dropped.values()) == 1:
            self._changed.notify_all()  # the owner publishes it

    def wait(self, gather_seconds: float, copies: int, idle_seconds: float) -> None:
        """Returns when a micro-batch is due.

        That is: `copies` wait, or more than one body's limit in bytes, or the oldest has waited for `gather_seconds`;
        and without any copy after `idle_seconds`, or once a copy was dropped, or when no more will come.
        """
        end = time.monotonic() + idle_seconds
        with self._changed:
            self._wanted_copies = copies
            while not self._closed:
                if self._waiting:
                    if len(self._waiting) >= copies or self._waiting_bytes > BODY_BYTES:
                        return
                    end = self._waiting[0][0] + gather_seconds
                elif any(self._dropped.values()):
                    end = min(end, time.monotonic() + gather_seconds)
                left = end - time.monotonic()
                if left <= 0:
                    return
                self._changed.wait(left)

    def pop(self) -> bytes | None:
        """The body of the oldest copy, which is in work from now on; None when none waits."""
        with self._changed:
            if not self._waiting:
                return None
            _, body = self._waiting.popleft()
            self._waiting_bytes -= len(body)
            self._in_work += 1
            return body

    def drop_what_waits(self) -> None:
        """Gives up the copies that wait; they are counted with those that found the queue full."""
        with self._changed:
            self._dropped["queue_full"] += len(self._waiting)
            self._waiting.clear()
            self._waiting_bytes = 0

    def take_dropped(self) -> dict[str, int]:
        """The copies dropped since the last call, by reason; they are in work from now on."""
        with self._changed:
            dropped, self._dropped = self._dropped, dict.fromkeys(REASONS, 0)
            self._in_work += sum(dropped.values())
            return dropped

    def settle(self, copies: int) -> None:
        """Says that `copies` in work have been counted and published."""
        with self._changed:
            self._in_work -= copies

    @property
    def unsettled(self) -> int:
        """Copies that came and are not yet counted and published."""
        with self._changed:
            return len(self._waiting) + self._in_work + sum(self._dropped.values())

    @property
    def closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        """No more copies: what waits can still be taken, what comes is dropped."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
