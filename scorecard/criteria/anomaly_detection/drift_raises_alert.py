"""Does traffic that has drifted away from the training months raise an alert that reaches its receiver?

Why: June's weather costs this model .06 of its AUC, and the labels that show it come late; the inputs show it at once.
How: Flights of June and July are sent through the gateway, which copies them to the detectors. Prometheus evaluates
    its rules on what they judged, Alertmanager delivers to a webhook; what the webhook got is read.
Pass: The first window that holds nothing else is judged as drifted, and within 60 s of it the alert about this
    deployment has been delivered as firing.
Fix: Look whether copies arrive (detectors_copies_total), whether windows close (detectors_window_rows), which
    distances they have (detectors_drift_distance against detectors_drift_limit), and whether Alertmanager knows the
    receiver.
"""

from __future__ import annotations

import time

from exhibit import detectors
from exhibit.criteria import Finding, judge
from exhibit.targets import Deployment

USES = ("prometheus", "alerts", "detectors")
ADD_ON = "detectors"
ALERT = "DriftDetected"
DEADLINE_SECONDS = 60.0


def check(deployment: Deployment) -> Finding:
    detectors.calm(deployment)  # an alert that fires already is not delivered a second time
    began = time.time()
    [window] = detectors.judged(deployment, "drifted", 1)
    delivered = deployment.delivered({ALERT}, "firing", began, DEADLINE_SECONDS)
    name = window.furthest
    return judge(
        window.drifted and delivered == {ALERT},
        f"A window of {window.rows} June and July flights was judged as {'' if window.drifted else 'not '}drifted "
        f"({name}: distance {window.distances[name]:.2f}, limit {window.limits[name]:.2f}), and the alert "
        f"{'was' if delivered else 'was not'} delivered.",
        observed={"drifted": window.drifted, "delivered": sorted(delivered)},
        expected={"drifted": True, "delivered": [ALERT]},
    )
