"""Do the platform's own metrics count each prediction request exactly once?

Why: Dashboards and alerts are built on this counter; one that counts twice, late or not at all misleads in silence.
How: The counter that platform.yaml names is read in Prometheus after a scrape that began now; 50 requests are sent
    directly to the platform; it is read again after a scrape that began when they were answered.
Pass: It has grown by exactly 50 within 10 s.
Fix: Switch the platform's metrics on, or count in the handler itself; select in platform.yaml one series a request.
"""

from __future__ import annotations

from exhibit import detectors
from exhibit.criteria import Finding, judge
from exhibit.targets import Deployment

NEEDS = ("native_metrics",)
USES = ("prometheus",)
REQUESTS = 50


def check(deployment: Deployment) -> Finding:
    rows = deployment.model.golden.take(REQUESTS).rows

    def send() -> None:
        for at in range(REQUESTS):
            deployment.predict(rows[at : at + 1])

    detectors.wait_until_idle(deployment)
    grown = deployment.rise(deployment.native_requests(), "native", send, REQUESTS)
    return judge(
        grown == REQUESTS,
        f"After {REQUESTS} requests the platform's own counter in Prometheus had grown by {grown:g}.",
        observed={"counted": grown},
        expected={"counted": REQUESTS},
    )
