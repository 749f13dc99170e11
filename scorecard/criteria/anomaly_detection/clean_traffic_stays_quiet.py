"""Does traffic like that of the training months raise neither a drift nor an outlier alert?

Why: A detector that cries wolf is switched off within a week; what it then would have said, nobody hears.
How: Flights of January to March that the model was not trained on are sent through the gateway until the detectors
    have judged two whole windows of them. What they judged, and the alerts in Prometheus meanwhile, are read.
Pass: No window is judged as drifted, at most 8 % of the flights are flagged as outliers, and no alert about either is
    pending or firing.
Fix: Calibrate the limits on quiet weeks (docs/drift.md), not on p = .05; send a sample of the whole period, since
    flights of one hour share its weather.
"""

from __future__ import annotations

import time

from exhibit import detectors
from exhibit.criteria import Finding, judge
from exhibit.targets import Deployment

USES = ("prometheus", "detectors")
ADD_ON = "detectors"
WINDOWS = 2
# The limit flags 2 % of quiet flights, in the worst of twelve quiet weeks 5 %.
LARGEST_SHARE = 0.08


def check(deployment: Deployment) -> Finding:
    assert deployment.prometheus is not None
    detectors.calm(deployment)
    began, windows = time.time(), list[detectors.Window]()

    def send() -> None:
        windows.extend(detectors.judged(deployment, "clean", WINDOWS))

    grown = detectors.rises(deployment, "detectors_(records|outliers)_total", send, lambda _: True)
    records, outliers = (grown.get((f"detectors_{name}_total",), 0.0) for name in ("records", "outliers"))
    share = outliers / records if records else 1.0
    meanwhile = f"count_over_time({detectors.alerts(deployment)}[{max(int(time.time() - began), 1)}s])"
    raised = sorted({one.labels["alertname"] for one in deployment.prometheus.query(meanwhile)})
    drifted = sum(window.drifted for window in windows)
    return judge(
        not drifted and share <= LARGEST_SHARE and not raised,
        f"Of {len(windows)} windows of clean traffic {drifted} were judged as drifted, {share:.1%} of {records:g} "
        f"flights were flagged as outliers (at most {LARGEST_SHARE:.0%}), and {' and '.join(raised) or 'no alert'} was "
        f"raised.",
        observed={"windows_drifted": drifted, "outlier_share": round(share, 3), "alerts": raised},
        expected={"windows_drifted": 0, "outlier_share": LARGEST_SHARE, "alerts": []},
    )
