"""Do the predictions' statistics in Prometheus say what was predicted?

Why: A model whose answers drift towards one end is seen in their histogram long before labels arrive.
How: 200 flights are sent through the gateway in 20 requests; the histogram of predictions in Prometheus is read before
    and after, and its growth compared with the trained estimator's answers.
Pass: It has grown by exactly 200; its sum agrees to 0.0001 a flight and each bucket to 2 flights (answers on a bound).
Fix: Look whether copies arrive and whether the served model answers the detectors
    (detectors_predictions_missing_total).
"""

from __future__ import annotations

import numpy as np

from exhibit import detectors
from exhibit.criteria import Finding, judge
from exhibit.targets import Deployment

USES = ("prometheus", "detectors")
ADD_ON = "detectors"
FLIGHTS, REQUESTS, SEED = 200, 20, 4
HISTOGRAM = "detectors_prediction"
SUM_TOLERANCE, BUCKET_TOLERANCE = 1e-4, 2


def check(deployment: Deployment) -> Finding:
    flights = deployment.model.held_out("january_march").sample(FLIGHTS, SEED)

    def send() -> None:
        for rows in np.split(flights.rows, REQUESTS):
            deployment.predict(rows, via="gateway")

    grown = detectors.rises(
        deployment,
        f"{HISTOGRAM}_(bucket|count|sum)",
        send,
        lambda grown: grown.get((f"{HISTOGRAM}_count", ""), 0) >= FLIGHTS,
        by=("__name__", "le"),
    )
    counted, total = grown.get((f"{HISTOGRAM}_count", ""), 0.0), grown.get((f"{HISTOGRAM}_sum", ""), 0.0)
    bounds = {float(le): count for (name, le), count in grown.items() if name == f"{HISTOGRAM}_bucket"}
    off = max((abs(count - int((flights.expected <= le).sum())) for le, count in bounds.items()), default=FLIGHTS)
    mean_off = abs(total - float(flights.expected.sum())) / FLIGHTS
    return judge(
        counted == FLIGHTS and mean_off <= SUM_TOLERANCE and off <= BUCKET_TOLERANCE,
        f"After {FLIGHTS} flights the histogram of predictions had grown by {counted:g}; its mean is off by "
        f"{mean_off:.1e}, and of its {len(bounds)} buckets the worst by {off:g}.",
        observed={"counted": counted, "mean_off": float(f"{mean_off:.1e}"), "worst_bucket_off": off},
        expected={"counted": FLIGHTS, "mean_off": SUM_TOLERANCE, "worst_bucket_off": BUCKET_TOLERANCE},
    )
