"""Is a bad version found out as a canary, and rolled back before many callers meet it?

Why: What is wrong with a model shows on real requests, and often with status 200. A canary limits how many see it;
    only if somebody looks, and withdraws it, is that worth something.
How: Under 40 requests a second a version gets 10 % of them: one that answers 200 with shifted predictions, one that
    takes far longer, one that fails for about 5 % of the rows; then, 20 times, a healthy one (three starts of two
    versions). Each time it is judged by golden rows, asked of it and of the stable version in turn, and by what the
    gateway counted of it (src/exhibit/rollouts.py). What is judged bad loses its share at once.
Pass: Each bad version is rolled back within 60 s of its first request and answered at most 10 % of the requests
    (and three standard deviations) meanwhile; a healthy one is never rolled back.
Fix: Send golden rows with each version and compare; watch errors and latency by version, not over all; take the share
    back before the pods.
"""

from __future__ import annotations

import time
from math import sqrt
from typing import Any

from exhibit.criteria import Finding, judge
from exhibit.flow import Flow
from exhibit.rollouts import Canary, analyse
from exhibit.targets import Deployment

REQUIRES = ("rollouts",)
ADD_ON = "gateway"
BAD = ("shifted", "slow", "failing")
HEALTHY = 20
PERCENT, REQUESTS_PER_SECOND, MOST_SECONDS = 10, 40, 60.0
SEEN = 12
"""Requests a canary has answered before it is judged."""


def check(deployment: Deployment) -> Finding:
    rollouts, model = deployment.rollouts, deployment.model
    assert rollouts is not None
    tried: dict[str, dict[str, Any]] = {}
    healthy = [model.version(name) for name in ("current", "next")]
    false_alarms = list[str]()
    with Flow(deployment, requests_per_second=REQUESTS_PER_SECOND) as flow, rollouts.canary(healthy[0]) as canary:
        for name in BAD:
            canary.replace(model.version(name))
            tried[name] = _try(deployment, canary, name, flow)
        for at in range(HEALTHY):
            if at < len(healthy) or at == HEALTHY // 2:
                canary.replace(healthy[at % 2])
            found = _try(deployment, canary, canary.version.name, flow)
            false_alarms += found["wrong"]
    late = [name for name, found in tried.items() if not found["wrong"] or found["seconds"] > MOST_SECONDS]
    many = [name for name, found in tried.items() if found["answered"] > found["at_most"]]
    told = "; ".join(
        f"{name}: {', '.join(found['wrong']) or 'nothing was found'} ({found['answered']:g} of {found['requests']:g} "
        f"requests in {found['seconds']:g} s)"
        for name, found in tried.items()
    )
    return judge(
        not late and not many and not false_alarms,
        f"{told}. Of {HEALTHY} trials of healthy versions {len(false_alarms)} ended in a rollback"
        f"{': ' + '; '.join(false_alarms) if false_alarms else ''}.",
        observed={"not_rolled_back_in_time": late, "more_than_their_share": many, "false_alarms": false_alarms},
        expected={"not_rolled_back_in_time": [], "more_than_their_share": [], "false_alarms": []},
    )


def _try(deployment: Deployment, canary: Canary, name: str, flow: Flow) -> dict[str, Any]:
    """Gives the canary its share, judges it once it has answered some requests, and takes the share back."""
    before, began = flow.sent, time.monotonic()
    canary.share(PERCENT)
    flow.wait(SEEN * 100 / PERCENT)
    found = analyse(deployment, canary)
    canary.share(0)
    seconds, requests = round(time.monotonic() - began, 1), flow.sent - before
    share = PERCENT / 100
    return {
        "wrong": found.wrong,
        "seconds": seconds,
        "requests": requests,
        "answered": canary.signals()["requests"],
        "at_most": requests * share + 3 * sqrt(requests * share * (1 - share)),
    }
