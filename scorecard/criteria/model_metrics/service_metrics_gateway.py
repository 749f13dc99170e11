"""Does the gateway count each prediction request exactly once, and show the four signals?

Why: Platforms count different things by different names; the gateway gives each the same traffic, errors, latency and
    saturation, so that one dashboard and one alert serve all.
How: The gateway's count of answered requests is read in Prometheus after a scrape that began now; 50 requests are sent
    through the gateway; it is read again after a scrape that began when they were answered. Then the recorded signals
    of monitoring/prometheus/rules/signals.yaml are asked for.
Pass: It has grown by exactly 50, and each signal has a value for this platform, within 10 s.
Fix: Look whether Prometheus reaches the gateway's admin port (/api/v1/targets) and whether callers use the gateway.
"""

from __future__ import annotations

from exhibit.criteria import Finding, judge
from exhibit.gateway import requests_selector
from exhibit.targets import Deployment

USES = ("prometheus",)
ADD_ON = "gateway"
REQUESTS = 50
SIGNALS = {
    "traffic": "platform:requests:rate1m",
    "errors": "platform:errors:ratio_rate1m",
    "latency": "platform:latency_seconds:p95_rate1m",
    "saturation": "platform:in_flight:sum",
}


def check(deployment: Deployment) -> Finding:
    assert deployment.prometheus is not None
    rows = deployment.model.golden.take(REQUESTS).rows

    def send() -> None:
        for at in range(REQUESTS):
            deployment.predict(rows[at : at + 1], via="gateway")

    grown = deployment.rise(f"sum({deployment.labelled(requests_selector, 'gateway')})", "gateway", send, REQUESTS)
    deadline = deployment.scrape_seconds
    missing = [
        name for name, rule in SIGNALS.items() if not deployment.prometheus.first(deployment.recorded(rule), deadline)
    ]
    return judge(
        grown == REQUESTS and not missing,
        f"After {REQUESTS} requests the gateway's counter in Prometheus had grown by {grown:g}; "
        f"{'no value for ' + ', '.join(missing) if missing else 'all four signals have values'}.",
        observed={"counted": grown, "signals_missing": missing},
        expected={"counted": REQUESTS, "signals_missing": []},
    )
