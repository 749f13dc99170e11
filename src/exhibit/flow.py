"""Requests that go on in the background while something else happens: a rollout, a kill, a wave of load.

Open loop, as scenarios are (`exhibit.traffic`): what a stalled server misses is sent all the same.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Self

import aiohttp
import numpy as np

from exhibit import clients
from exhibit.errors import ServerError
from exhibit.model import TOLERANCE, Probabilities
from exhibit.targets import Deployment
from exhibit.traffic import MAX_IN_FLIGHT, REQUEST_SECONDS

PERIOD, FLIGHTS, SEED = "january_march", 4000, 11
STALLED_SECONDS = 60.0


def right(answers: Probabilities, expected: Probabilities) -> str:
    """``right`` if every answer is the current model's."""
    return "right" if np.abs(answers - expected).max() <= TOLERANCE else "wrong"


class Flow:
    """Requests through the gateway at a steady rate until the block is left.

    What became of each is counted in `outcomes`: by the word that `name` has for its answer, or by the reason for none.
    """

    def __init__(
        self,
        deployment: Deployment,
        *,
        requests_per_second: float,
        rows: int = 1,
        tries: int = 1,
        name: Callable[[Probabilities, Probabilities], str] = right,
    ) -> None:
        """Requests of `rows` held-out flights each.

        Args:
            tries: how often a request without an answer of 200 is sent at most.
            name: what an answer is, out of the answers [rows] and those expected of the current model [rows].
        """
        flights = deployment.model.held_out(PERIOD).sample(FLIGHTS, SEED)
        batches = [flights.take(rows, start) for start in range(0, FLIGHTS, rows)]
        self._bodies = [(deployment.client.encode(one.rows), one.expected) for one in batches]
        predict = deployment.platform.file.predict
        self._url, self._content_type = deployment.address(predict.path, "gateway"), predict.content_type
        self._client, self._name, self._tries = deployment.client, name, tries
        self._interval, self._done = 1 / requests_per_second, threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._send()), name="flow", daemon=True)
        self.outcomes: Counter[str] = Counter()
        self.sent = self.retried = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Sends nothing more and waits for what is on its way."""
        self._done.set()
        self._thread.join()

    def wait(self, count: float) -> None:
        """Waits until `count` more requests have been sent.

        Raises:
            ServerError: the sender stands still (a defect of this machine, not of the server).
        """
        goal, deadline = self.sent + count, time.monotonic() + STALLED_SECONDS + count * self._interval * 2
        while self.sent < goal:
            if time.monotonic() > deadline or not self._thread.is_alive():
                raise ServerError("flow", f"{self.sent} requests sent", f"{goal:g}", "Try again on an idle machine.")
            time.sleep(self._interval)

    async def _send(self) -> None:
        tasks: set[asyncio.Task[None]] = set()
        timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS)
        connector = aiohttp.TCPConnector(limit=MAX_IN_FLIGHT)
        headers = {"Content-Type": self._content_type}
        async with aiohttp.ClientSession(connector=connector, timeout=timeout, headers=headers) as session:
            due = time.monotonic()
            while not self._done.is_set():
                due += self._interval
                if (ahead := due - time.monotonic()) > 0:
                    await asyncio.sleep(ahead)
                body, expected = self._bodies[self.sent % len(self._bodies)]
                self.sent += 1
                if len(tasks) >= MAX_IN_FLIGHT:
                    self.outcomes["not sent: too many requests open"] += 1
                    continue
                task = asyncio.create_task(self._ask(session, body, expected))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            await asyncio.gather(*tasks)

    async def _ask(self, session: aiohttp.ClientSession, body: bytes, expected: Probabilities) -> None:
        outcome = ""
        for attempt in range(self._tries):
            self.retried += bool(attempt)
            try:
                async with session.post(self._url, data=body) as response:
                    content = await response.read()
            except (aiohttp.ClientError, TimeoutError) as error:
                outcome = type(error).__name__
                continue
            if response.status == 200:
                outcome = self._read(content, expected)
                break
            outcome = f"status {response.status}"
        self.outcomes[outcome] += 1

    def _read(self, content: bytes, expected: Probabilities) -> str:
        try:
            return self._name(clients.read(self._client, content, len(expected)), expected)
        except ValueError:
            return "unreadable answer"
