"""Do the platform's own metrics count each prediction request exactly once?

Why: Dashboards and alerts are built on this counter; one that counts twice, late or not at all misleads in silence.
How: The counter that platform.yaml names is read in Prometheus after a scrape that began now; 50 requests are sent
    directly to the platform; it is read again after a scrape that began when they were answered.
Pass: It has grown by exactly 50 within 10 s.
Fix: Switch the platform's metrics on, or count in the handler itself; select in platform.yaml one series a request.
"""

from __future__ import annotations

import time

from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from exhibit.criteria import Finding, NotRun, judge
from exhibit.prometheus import Prometheus
from exhibit.targets import AnswerError, Deployment

NEEDS = ("native_metrics",)
REQUESTS = 50
DEADLINE_SECONDS = 10.0


def check(deployment: Deployment) -> Finding:
    if (prometheus := deployment.prometheus) is None:
        raise NotRun("No Prometheus runs. Install its Debian package, or put prometheus and promtool on PATH.")
    rows = deployment.model.golden.take(REQUESTS).rows
    before = _counted(deployment, prometheus)
    for at in range(REQUESTS):
        deployment.predict(rows[at : at + 1])
    grown = 0.0
    deadline = time.monotonic() + DEADLINE_SECONDS
    # Some servers count just after they have answered; more than was sent will not become less.
    while grown < REQUESTS and time.monotonic() < deadline:
        grown = _counted(deployment, prometheus) - before
    return judge(
        grown == REQUESTS,
        f"After {REQUESTS} requests the platform's own counter in Prometheus had grown by {grown:g}.",
        observed={"counted": grown},
        expected={"counted": REQUESTS},
    )


def _counted(deployment: Deployment, prometheus: Prometheus) -> float:
    """The counter as of a scrape that began after this call; 0 where there is no such series (yet)."""
    now = time.time()
    scraped = f"timestamp({deployment.labelled('up', 'native')}) > {now}"
    found = Retrying(
        stop=stop_after_delay(DEADLINE_SECONDS),
        wait=wait_fixed(0.05),
        retry=retry_if_result(lambda samples: not samples),
        retry_error_callback=lambda _: [],
    )(prometheus.query, scraped)
    if not found:
        raise AnswerError(f"was not scraped by Prometheus within {DEADLINE_SECONDS:g} s")
    samples = prometheus.query(deployment.native_requests())
    return samples[0].value if samples else 0.0
