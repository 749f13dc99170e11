"""What the detectors beside a deployment have judged, and how to fill their windows."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from exhibit.targets import AnswerError, Deployment

NAME = "detectors"
ALERTS = frozenset({"DriftDetected", "OutlierRateHigh"})
"""The alerts raised about what the detectors say."""
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
    response = deployment.http.get(deployment.companions[NAME]["admin"] + "/windows")
    found: list[dict[str, Any]] = response.raise_for_status().json()
    names = [field.name for field in fields(Window)]
    return [Window(**{name: one[name] for name in names}) for one in found if one["closed_at"] > since]


def alerts(deployment: Deployment) -> str:
    """PromQL for the alerts about what the detectors say of this deployment, pending or firing."""
    return deployment.recorded("ALERTS").replace("}", f',alertname=~"{"|".join(sorted(ALERTS))}"}}')


def calm(deployment: Deployment) -> None:
    """Sends clean traffic until the alerts about what was sent before have ended, or for some seconds."""
    assert deployment.prometheus is not None
    deadline = time.monotonic() + deployment.scrape_seconds
    while deployment.prometheus.query(alerts(deployment)) and time.monotonic() < deadline:
        deployment.send("clean")


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
