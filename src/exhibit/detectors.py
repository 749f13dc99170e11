"""What the detectors beside a deployment have judged, and how to fill their windows."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import httpx

from exhibit.errors import ServerError
from exhibit.targets import AnswerError, Deployment

NAME = "detectors"
ALERTS = frozenset({"DriftDetected", "OutlierRateHigh"})
"""The alerts raised about what the detectors say."""
CALM_SECONDS = 30.0
"""How long alerts about what was sent before may take to end."""
ROUNDS = 12
"""How often a scenario is sent at most, to have windows judged."""


@dataclass(frozen=True)
class Window:
    """A window of traffic that was compared with the reference."""

    closed_at: float
    """Seconds since the epoch."""
    rows: int
    seconds: float
    """How long it was filled."""
    distances: Mapping[str, float]
    limits: Mapping[str, float]
    p_values: Mapping[str, float]
    ratio: float
    """The largest distance, as a multiple of its limit."""
    drifted: bool

    @property
    def furthest(self) -> str:
        """The feature whose distance is the largest multiple of its limit."""
        return max(self.distances, key=lambda name: self.distances[name] / self.limits[name])


def windows(deployment: Deployment, since: float = 0.0) -> list[Window]:
    """The windows judged after `since` (seconds since the epoch), oldest first."""
    try:
        response = deployment.http.get(deployment.companions[NAME]["admin"] + "/windows").raise_for_status()
    except httpx.HTTPError as error:  # theirs, not the platform's
        raise ServerError(NAME, f"{type(error).__name__}: {error}", "an answer", "Look into their log.") from error
    found: list[dict[str, Any]] = response.json()
    names = [field.name for field in fields(Window)]
    return [Window(**{name: one[name] for name in names}) for one in found if one["closed_at"] > since]


def alerts(deployment: Deployment) -> str:
    """PromQL for the alerts about what the detectors say of this deployment, pending or firing."""
    return deployment.recorded("ALERTS").replace("}", f',alertname=~"{"|".join(sorted(ALERTS))}"}}')


def calm(deployment: Deployment) -> None:
    """Sends clean traffic until the alerts about what was sent before have ended, or for some seconds."""
    assert deployment.prometheus is not None
    deadline = time.monotonic() + CALM_SECONDS
    while deployment.prometheus.query(alerts(deployment)) and time.monotonic() < deadline:
        deployment.send("clean")


def wait_until_idle(deployment: Deployment) -> None:
    """Waits, for some seconds at most, until the detectors have nothing left to count or to ask; at once without any.

    What they ask the server is counted by it as any caller's request is.
    """
    if NAME not in deployment.companions or deployment.prometheus is None:
        return
    waiting = deployment.labelled("detectors_copies_unsettled", NAME)
    deployment.prometheus.first(f"{waiting} == 0 and timestamp({waiting}) > {time.time()}", deployment.scrape_seconds)


def rises(
    deployment: Deployment,
    names: str,
    act: Callable[[], object],
    enough: Callable[[Mapping[tuple[str, ...], float]], bool],
    by: Sequence[str] = ("__name__",),
) -> dict[tuple[str, ...], float]:
    """By how much the detectors' counters whose names match `names` have grown; see `Deployment.rises`.

    Detectors count some time after a copy came. What came before `act` is waited for, so that none of it is counted as
    what `act` sent.
    """
    counters = deployment.labelled(f'{{__name__=~"{names}"}}', NAME)
    idle = f"{deployment.labelled('detectors_copies_unsettled', NAME)} == 0"
    return deployment.rises(counters, NAME, act, enough, by, idle)


def judged(deployment: Deployment, scenario: str, count: int) -> list[Window]:
    """Sends `scenario` until `count` windows have been judged that hold nothing else, and gives these.

    Raises:
        AnswerError: there are not as many after it was sent `ROUNDS` times.
    """
    began, found = time.time(), list[Window]()
    for _ in range(ROUNDS):
        deployment.send(scenario)
        # The first one closed may have been begun by other traffic.
        found = windows(deployment, began)[1:]
        if len(found) >= count:
            return found[:count]
    raise AnswerError(f"had {len(found)} windows of {scenario} traffic judged by its detectors, expected {count}")
