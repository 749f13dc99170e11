"""Sends named scenarios of real held-out flights, open loop, and compares every answer with the expected one.

Open loop: each request has an intended send time drawn beforehand, and its latency counts from that time. A server
that stalls is thus charged for every request that should have been sent meanwhile (no coordinated omission; see
G. Tene, "How NOT to Measure Latency").
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Annotated, Literal

import aiohttp
import numpy as np
import numpy.typing as npt
from pydantic import Field

from exhibit import clients, documents
from exhibit.clients import Client
from exhibit.contract import Predict
from exhibit.documents import Document, Text
from exhibit.errors import ContractError, ExhibitError
from exhibit.model import TOLERANCE, Flights
from exhibit.workspace import Workspace

MAX_IN_FLIGHT = 512
"""Requests open at once; those beyond are counted as dropped, so that a dead server cannot exhaust this machine."""
REQUEST_SECONDS = 10.0


class Phase(Document):
    seconds: Annotated[float, Field(gt=0, le=600)]
    requests_per_second: Annotated[float, Field(gt=0, le=2000)]


class Scenario(Document):
    """traffic/<name>.yaml."""

    title: Text
    flights: Text
    seed: int
    arrival: Literal["poisson", "uniform"]
    by_criterion: bool = Field(
        default=False, description="sent by the criterion that asks for it, not before the checks"
    )
    phases: list[Phase] = Field(min_length=1)

    def intended_seconds(self) -> npt.NDArray[np.float64]:
        """Send times [n], seconds from the start, ascending; the same for the same seed."""
        random = np.random.default_rng(self.seed)
        times, begin = [], 0.0
        for phase in self.phases:
            count = round(phase.seconds * phase.requests_per_second)
            # A Poisson process, given its count in an interval, is that many uniform draws in order.
            offsets = np.sort(random.uniform(size=count)) if self.arrival == "poisson" else np.arange(count) / count
            times.append(begin + phase.seconds * offsets)
            begin += phase.seconds
        return np.concatenate(times)


@dataclass
class Report:
    """What a scenario got for answers."""

    scenario: str
    title: str
    sent: int = 0
    right: int = 0
    wrong: int = 0
    """Answered 200 with a probability that differs from the expected one by more than the tolerance."""
    dropped: int = 0
    """Not sent: too many requests were open."""
    failures: Counter[str] = field(default_factory=Counter)
    """Requests without predictions, by reason (status code or kind of connection error)."""
    latencies_ms: list[float] = field(default_factory=list)
    """Of the right answers, from the intended send time, in the order of arrival."""
    began_at: float = 0.0
    """Seconds since the epoch."""
    seconds: float = 0.0

    @property
    def all_right(self) -> bool:
        return self.sent > 0 and self.right == self.sent and not self.dropped


def load_scenarios(workspace: Workspace) -> dict[str, Scenario]:
    """The scenarios of traffic/, by file name.

    Raises:
        ContractError: every breach in every file.
    """
    scenarios, breaches = {}, list[ExhibitError]()
    for path in sorted((workspace.root / "traffic").glob("*.yaml")):
        scenario, found = documents.load(path, Scenario, workspace.relative(path))
        breaches += found
        if scenario:
            scenarios[path.stem] = scenario
    if breaches:
        raise ContractError(breaches)
    return scenarios


def send(name: str, scenario: Scenario, flights: Flights, url: str, predict: Predict, client: Client) -> Report:
    """Sends `scenario` to `url` (scheme, host and port), one of `flights` a request, and reports the answers."""
    intended = scenario.intended_seconds()
    chosen = flights.sample(len(intended), scenario.seed)
    bodies = [client.encode(chosen.rows[index : index + 1]) for index in range(len(intended))]
    report = Report(name, scenario.title)
    asyncio.run(_send_all(report, intended, bodies, chosen.expected, url + predict.path, predict.content_type, client))
    return report


async def _send_all(
    report: Report,
    intended: npt.NDArray[np.float64],
    bodies: list[bytes],
    expected: npt.NDArray[np.float64],
    url: str,
    content_type: str,
    client: Client,
) -> None:
    open_requests: set[asyncio.Task[None]] = set()
    connector = aiohttp.TCPConnector(limit=MAX_IN_FLIGHT)
    timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS)
    async with aiohttp.ClientSession(
        connector=connector, timeout=timeout, headers={"Content-Type": content_type}
    ) as session:
        report.began_at = round(time.time(), 3)
        began = time.monotonic()
        for due, body, answer in zip(began + intended, bodies, expected, strict=True):
            if (ahead := due - time.monotonic()) > 0:
                await asyncio.sleep(ahead)
            if len(open_requests) >= MAX_IN_FLIGHT:
                report.dropped += 1
                continue
            task = asyncio.create_task(_send_one(report, session, url, body, float(due), float(answer), client))
            open_requests.add(task)
            task.add_done_callback(open_requests.discard)
        await asyncio.gather(*open_requests)
        report.seconds = round(time.monotonic() - began, 3)


async def _send_one(
    report: Report, session: aiohttp.ClientSession, url: str, body: bytes, due: float, expected: float, client: Client
) -> None:
    report.sent += 1
    try:
        async with session.post(url, data=body) as response:
            content = await response.read()
    except (aiohttp.ClientError, TimeoutError) as error:
        report.failures[type(error).__name__] += 1
        return
    latency_ms = (time.monotonic() - due) * 1000
    if response.status != 200:
        report.failures[f"status {response.status}"] += 1
        return
    try:
        [answer] = clients.read(client, content, 1)
    except ValueError:
        report.failures["unreadable answer"] += 1
        return
    if abs(float(answer) - expected) <= TOLERANCE:
        report.right += 1
        report.latencies_ms.append(round(latency_ms, 3))
    else:
        report.wrong += 1
