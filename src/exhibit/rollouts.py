"""New versions of a served model: replaced without a gap, tried on a share of the traffic, scaled.

A target that can do this offers `Rollouts`; the canary's analysis is the same for each.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from statistics import median

import httpx
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from exhibit.model import TOLERANCE, Flights, Probabilities, Version
from exhibit.targets import AnswerError, Deployment

PROBES = 100
"""Golden rows a canary is asked singly: a fault of 5 % of the rows shows in all but 0.6 % of such draws."""
MOST_FAILED = 0.01
"""Share of requests a canary may fail."""
MOST_SLOWER = 2.0
"""How many times the stable version's median latency a canary's may be. Both are asked in turn: a busy machine slows
them alike."""
LEAST_SLOWER_MS = 5.0
"""A difference nobody feels is not held against a canary, whatever the factor."""


class Canary(ABC):
    """A second version beside the stable one, behind the same gateway."""

    deployment: Deployment
    """The canary itself, at an address of its own."""
    version: Version
    """The one it serves now."""

    @abstractmethod
    def share(self, percent: int) -> None:
        """Has the gateway send `percent` (0 to 100) of the requests to it, from now on; no request is lost by it."""

    @abstractmethod
    def replace(self, version: Version) -> None:
        """Makes `version` the canary; returns when nothing else is."""

    @abstractmethod
    def signals(self) -> Mapping[str, float]:
        """What the gateway counted of it so far: ``requests``, and of these ``errors`` (5xx)."""


class Rollouts(ABC):
    """What a target does with versions and replicas of one deployment."""

    @abstractmethod
    def update(self, version: Version) -> None:
        """Replaces what is served by `version`; returns when nothing else is served.

        Raises:
            ServerError: it did not get ready; what was served before still is.
        """

    @abstractmethod
    def refused(self, version: Version, within_seconds: float) -> str | None:
        """Begins to replace what is served by `version`, and takes that back.

        Returns:
            Why it did not get ready, in words; None if it did within `within_seconds`.
        """

    @abstractmethod
    def canary(self, version: Version) -> AbstractContextManager[Canary]:
        """`version` beside the stable one while the block runs, at first without a share of the requests."""

    @abstractmethod
    def scaled(self, replicas: int) -> AbstractContextManager[None]:
        """`replicas` ready servers while the block runs."""

    @abstractmethod
    def autoscaled(self, most: int) -> AbstractContextManager[None]:
        """From 1 to `most` servers by load while the block runs, with a short memory: down again within a minute."""

    @abstractmethod
    def ready(self) -> int:
        """How many servers are ready now."""

    @abstractmethod
    def delete_workload(self) -> None:
        """Deletes the Kubernetes Deployment the servers belong to; returns once none of them is served any more."""

    @abstractmethod
    def kill_one(self) -> None:
        """Ends one server at once, without a warning to it."""


@dataclass
class Analysis:
    """What was seen of a canary, and what is wrong with it."""

    wrong: list[str] = field(default_factory=list)
    """Each as a phrase with its number; empty: the canary is healthy."""
    facts: dict[str, float] = field(default_factory=dict)


def analyse(stable: Deployment, canary: Canary) -> Analysis:
    """Judges a canary by golden probes, in turn with the stable version, and by what the gateway counted of it.

    A canary answers for its version: the golden answers that came with it, not those of the version it is to replace.
    What it is asked is the same each time; whether it is rolled back hangs on the canary alone.
    """
    golden, found = stable.model.golden.take(PROBES), Analysis()
    asked = _probe(canary.deployment, stable, golden, canary.version.expected(golden.expected))
    counted = canary.signals()
    if asked["wrong"]:
        found.wrong.append(f"{asked['wrong']} of {asked['answered']} answers were not the golden ones of its version")
    if asked["failed"] > MOST_FAILED * PROBES:
        found.wrong.append(f"{asked['failed']} of {PROBES} golden requests failed")
    own, other = asked["median_ms"], asked["stable_median_ms"]
    if own > MOST_SLOWER * other and own - other > LEAST_SLOWER_MS:
        found.wrong.append(f"its median latency was {own / other:.1f} times the stable version's")
    if counted["errors"] > max(MOST_FAILED * counted["requests"], 1):
        found.wrong.append(f"the gateway counted {counted['errors']:g} errors in {counted['requests']:g} requests")
    found.facts = {**asked, **{f"gateway_{name}": value for name, value in counted.items()}}
    return found


def until(holds: Callable[[], bool], within_seconds: float) -> bool:
    """Whether `holds` came true within that time, asked twice a second."""
    return bool(
        Retrying(
            stop=stop_after_delay(within_seconds),
            wait=wait_fixed(0.5),
            retry=retry_if_result(lambda held: not held),
            retry_error_callback=lambda _: False,
        )(holds)
    )


def _probe(canary: Deployment, stable: Deployment, golden: Flights, expected: Probabilities) -> dict[str, float]:
    """Asks the canary each golden row, and the stable version in turn with it."""
    own, others, failed, wrong = list[float](), list[float](), 0, 0
    for at in range(len(golden)):
        body = canary.client.encode(golden.rows[at : at + 1])
        stable.read(*_timed(stable, body, others))
        try:
            [answer] = canary.read(*_timed(canary, body, own))
        except (httpx.HTTPError, AnswerError):
            failed += 1
        else:
            wrong += abs(answer - expected[at]) > TOLERANCE
    milliseconds, stable_milliseconds = median(own or [0.0]), median(others)
    return {
        "answered": len(golden) - failed,
        "failed": failed,
        "wrong": int(wrong),
        "median_ms": round(milliseconds, 2),
        "stable_median_ms": round(stable_milliseconds, 2),
    }


def _timed(deployment: Deployment, body: bytes, milliseconds: list[float]) -> tuple[httpx.Response, int]:
    began = time.perf_counter()
    response = deployment.post(body)
    milliseconds.append((time.perf_counter() - began) * 1000)
    return response, 1
