"""Do the inputs' statistics in Prometheus say what was sent, feature by feature?

Why: A column that arrives empty, in another unit or in another's place is answered with 200; only its statistics show
    it.
How: 200 flights are sent through the gateway in 20 requests, then 2 without a number for `temp` and 2 with a `humid`
    of 150 %; each feature's histogram, missing values and values out of range in Prometheus are read before and after.
Pass: Each feature's histogram has grown by exactly what was sent, bucket by bucket, and its mean (where Prometheus has
    its sum) agrees to 0.001 %. Exactly 2 missing values (of `temp`) and 2 values out of range (of `humid`) are
    counted.
Fix: Look whether copies arrive (detectors_copies_total), then at `rows` of client.py: the order and type of the
    columns.
"""

from __future__ import annotations

import numpy as np

from exhibit import detectors
from exhibit.criteria import Finding, judge
from exhibit.targets import Deployment

USES = ("prometheus", "detectors")
ADD_ON = "detectors"
FLIGHTS, REQUESTS, SEED = 200, 20, 5
HISTOGRAM = "detectors_feature_value"
MISSING, OUT_OF_RANGE = "detectors_feature_missing_total", "detectors_feature_out_of_range_total"
MEAN_TOLERANCE = 1e-5


def check(deployment: Deployment) -> Finding:
    features = deployment.model.features
    rows = deployment.model.held_out("january_march").sample(FLIGHTS, SEED).rows
    empty, impossible = rows[:2].copy(), rows[:2].copy()
    empty[:, features.index("temp")] = np.nan
    impossible[:, features.index("humid")] = 150
    sent = np.concatenate([rows, empty, impossible]).astype(np.float64)
    finite = [sent[np.isfinite(sent[:, column]), column] for column in range(len(features))]

    def send() -> None:
        for part in np.split(rows, REQUESTS):
            deployment.predict(part, via="gateway")
        for part in (empty, impossible):  # the platform may refuse these; they were sent all the same
            deployment.post(deployment.client.encode(part), via="gateway")

    grown = detectors.rises(
        deployment,
        f"{HISTOGRAM}_(bucket|sum)|{MISSING}|{OUT_OF_RANGE}",
        send,
        lambda grown: grown.get((f"{HISTOGRAM}_bucket", features[0], "+Inf"), 0) >= len(sent),
        by=("__name__", "feature", "le"),
    )
    wrong = {}
    for name, values in zip(features, finite, strict=True):
        # Prometheus' format leaves out the sum and the count of a histogram with a bound below zero.
        counted = grown.get((f"{HISTOGRAM}_bucket", name, "+Inf"), 0.0)
        mean = grown.get((f"{HISTOGRAM}_sum", name, ""), values.sum()) / max(counted, 1)
        bounds = {float(le): n for (kind, of, le), n in grown.items() if kind == f"{HISTOGRAM}_bucket" and of == name}
        off = [le for le, n in bounds.items() if n != int((values <= le).sum())]
        if counted != len(values):
            wrong[name] = f"counted {counted:g} of {len(values)}"
        elif abs(mean - values.mean()) > MEAN_TOLERANCE * max(abs(values).mean(), 1):
            wrong[name] = f"mean {mean:.4g}, sent {values.mean():.4g}"
        elif off or not bounds:
            wrong[name] = f"{len(off)} of {len(bounds)} buckets wrong"
    counts = {
        what: {name: int(n) for (kind, name, _), n in grown.items() if kind == counter and n}
        for what, counter in (("missing", MISSING), ("out_of_range", OUT_OF_RANGE))
    }
    expected = {"wrong": {}, "missing": {"temp": 2}, "out_of_range": {"humid": 2}}
    trouble = "".join(f"; {name}: {what}" for name, what in wrong.items())
    return judge(
        {"wrong": wrong, **counts} == expected,
        f"Of {len(features)} features the statistics of {len(features) - len(wrong)} say what was sent{trouble}. "
        f"Counted as missing: {counts['missing'] or 'nothing'}, as out of range: "
        f"{counts['out_of_range'] or 'nothing'}.",
        observed={"wrong": wrong, **counts},
        expected=expected,
    )
