"""Does the gateway count each prediction request exactly once, and show the four signals?

Why: Platforms count different things by different names; the gateway gives each the same traffic, errors, latency and
    saturation, so that one dashboard and one alert serve all.
How: The gateway's counter of 2xx answers is read in Prometheus after a scrape that began now; 50 requests are sent
    through the gateway; it is read again after a scrape that began when they were answered. Then the recorded signals
    of monitoring/prometheus/rules/signals.yaml are asked for.
Pass: It has grown by exactly 50, and each signal has a value for this platform, within 10 s.
Fix: Look whether Prometheus reaches the gateway's admin port (its targets page) and whether callers use the gateway.
"""

from __future__ import annotations

import time

from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from exhibit.criteria import Finding, NotRun, judge
from exhibit.prometheus import Prometheus, Sample
from exhibit.targets import AnswerError, Deployment

ADD_ON = "gateway"
REQUESTS = 50
DEADLINE_SECONDS = 10.0
COUNTER = 'envoy_http_downstream_rq_xx{envoy_http_conn_manager_prefix="ingress",envoy_response_code_class="2"}'
SIGNALS = {
    "traffic": "platform:requests:rate1m",
    "errors": "platform:errors:ratio_rate1m",
    "latency": "platform:latency_seconds:p95_rate1m",
    "saturation": "platform:in_flight:sum",
}


def check(deployment: Deployment) -> Finding:
    if (prometheus := deployment.prometheus) is None:
        raise NotRun("No Prometheus runs. Install its Debian package, or put prometheus and promtool on PATH.")
    rows = deployment.model.golden.take(REQUESTS).rows
    before = _counted(deployment, prometheus)
    for at in range(REQUESTS):
        deployment.predict(rows[at : at + 1], via="gateway")
    grown = 0.0
    deadline = time.monotonic() + DEADLINE_SECONDS
    # Envoy may count just after the answer has left; more than was sent will not become less.
    while grown < REQUESTS and time.monotonic() < deadline:
        grown = _counted(deployment, prometheus) - before
    missing = [signal for signal, name in SIGNALS.items() if not _first(prometheus, deployment.recorded(name))]
    return judge(
        grown == REQUESTS and not missing,
        f"After {REQUESTS} requests the gateway's counter in Prometheus had grown by {grown:g}; "
        f"{'no value for ' + ', '.join(missing) if missing else 'all four signals have values'}.",
        observed={"counted": grown, "signals_missing": missing},
        expected={"counted": REQUESTS, "signals_missing": []},
    )


def _counted(deployment: Deployment, prometheus: Prometheus) -> float:
    """The counter as of a scrape that began after this call; 0 where there is no such series (yet)."""
    if not _first(prometheus, f"timestamp({deployment.labelled('up', 'gateway')}) > {time.time()}"):
        raise AnswerError(f"was not scraped at its gateway by Prometheus within {DEADLINE_SECONDS:g} s")
    samples = prometheus.query(f"sum({deployment.labelled(COUNTER, 'gateway')})")
    return samples[0].value if samples else 0.0


def _first(prometheus: Prometheus, promql: str) -> list[Sample]:
    """The first answer of `promql` that is not empty; an empty one after the deadline."""
    return Retrying(
        stop=stop_after_delay(DEADLINE_SECONDS),
        wait=wait_fixed(0.05),
        retry=retry_if_result(lambda samples: not samples),
        retry_error_callback=lambda _: [],
    )(prometheus.query, promql)
