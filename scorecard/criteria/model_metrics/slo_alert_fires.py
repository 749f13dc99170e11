"""Does an outage of the server reach somebody, and its end too?

Why: An alert that was never seen firing is a hope; one that never resolves is soon muted.
How: Requests are sent through the gateway without a pause while the server is stopped and, once the alerts have been
    delivered to the webhook, started again. The rules are those of production with their windows divided by 300 (none
    shorter than 5 s).
Pass: The alerts on the error budget and on the server are delivered as firing within 60 s of the outage's begin, none
    of them in the 5 s before it, and as resolved within 90 s of its end.
Fix: Look at /alerts of Prometheus for the rule, at the minimum of traffic it asks for, and at Alertmanager's log.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from threading import Event, Thread

import httpx

from exhibit.criteria import Finding, judge
from exhibit.targets import Deployment

USES = ("prometheus", "alerts")
ADD_ON = "gateway"
ALERTS = {"ErrorBudgetBurnsFast", "ServerDown"}
QUIET_SECONDS, FIRING_SECONDS, RESOLVED_SECONDS = 5.0, 60.0, 90.0
REQUESTS_PER_SECOND = 30


def check(deployment: Deployment) -> Finding:
    with _callers(deployment):
        early = deployment.delivered(ALERTS, "firing", time.time() - QUIET_SECONDS, 0)
        down = time.time()
        with deployment.outage():
            fired = deployment.delivered(ALERTS, "firing", down, FIRING_SECONDS)
            firing_seconds = round(time.time() - down, 1)
        up = time.time()
        # One may resolve while the server gets ready: the gateway sees its port before it answers rightly.
        resolved = deployment.delivered(ALERTS, "resolved", down, RESOLVED_SECONDS)
        resolved_seconds = round(time.time() - up, 1)
    wrong = [f"{name} was not delivered as firing" for name in sorted(ALERTS - fired)]
    wrong += [f"{name} was delivered before the outage" for name in sorted(early)]
    wrong += [f"{name} did not resolve" for name in sorted(ALERTS - resolved)]
    told = f"{' and '.join(sorted(ALERTS))} were delivered {firing_seconds} s after the server was stopped and resolved"
    return judge(
        not wrong,
        f"Not as it should be: {'; '.join(wrong)}."
        if wrong
        else f"{told} {resolved_seconds} s after it answered again.",
        observed={"before": sorted(early), "fired": sorted(fired), "resolved": sorted(resolved)},
        expected={"before": [], "fired": sorted(ALERTS), "resolved": sorted(ALERTS)},
    )


@contextmanager
def _callers(deployment: Deployment) -> Iterator[None]:
    """Callers who go on asking, whatever they get."""
    done, predict = Event(), deployment.platform.file.predict
    # Flights of many days: one and the same again and again is drift.
    rows = deployment.model.held_out("january_march").sample(1000, seed=8).rows
    bodies = cycle([deployment.client.encode(rows[at : at + 1]) for at in range(len(rows))])

    def call() -> None:
        # Connections of their own: those of the deployment's client are not to be shared with another thread.
        with httpx.Client(trust_env=False, verify=False, timeout=5) as http:
            while not done.wait(1 / REQUESTS_PER_SECOND):
                try:
                    http.post(
                        deployment.address(predict.path, "gateway"),
                        content=next(bodies),
                        headers={"Content-Type": predict.content_type},
                    )
                except httpx.HTTPError:
                    continue

    thread = Thread(target=call, name="callers", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
