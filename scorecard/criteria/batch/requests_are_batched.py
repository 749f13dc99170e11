"""Are requests of different callers answered by one call of the model?

Why: On hardware that likes large batches this multiplies what a server can answer; callers need not know of it.
How: 64 callers send one row each at the same time to the path that batches. The platform's own histogram of batch
    sizes, read before and after, tells how many rows a call of the model had on average.
Pass: All 64 answers are right (each caller gets its own), and the mean batch is larger than 1 row.
Fix: Switch the platform's batching on and let it wait a few milliseconds for company.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from prometheus_client.parser import text_string_to_metric_families
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from exhibit.criteria import Finding, judge
from exhibit.model import TOLERANCE, Probabilities, Rows
from exhibit.targets import Deployment

NEEDS = ("request_batching", "native_metrics")
CALLERS = 64
METRIC_SECONDS = 3.0


def check(deployment: Deployment) -> Finding:
    batching = deployment.platform.file.capabilities.request_batching
    flights = deployment.model.golden.take(CALLERS)
    before = _histogram(deployment, batching.metric)

    def ask(row: Rows) -> Probabilities:
        # Callers do not share connections.
        response = deployment.post(deployment.client.encode(row), path=batching.path, headers={"Connection": "close"})
        return deployment.read(response, 1)

    with ThreadPoolExecutor(CALLERS) as callers:
        answers = np.concatenate(list(callers.map(ask, np.split(flights.rows, CALLERS))))
    right = int((np.abs(answers - flights.expected) <= TOLERANCE).sum())
    # Some servers count just after they have answered.
    after = Retrying(
        stop=stop_after_delay(METRIC_SECONDS),
        wait=wait_fixed(0.05),
        retry=retry_if_result(lambda now: now[0] - before[0] < CALLERS),
        retry_error_callback=lambda last: last.outcome.result() if last.outcome else before,
    )(_histogram, deployment, batching.metric)
    rows, calls = (int(now - then) for now, then in zip(after, before, strict=True))
    mean = float(f"{rows / calls:.1g}") if calls else 0.0
    return judge(
        right == CALLERS and rows > calls > 0,
        f"{right} of {CALLERS} simultaneous requests were answered rightly, by about {mean:g} rows a call of the model "
        f"({batching.metric}).",
        observed={"right": right, "mean_batch_rows": mean},
        expected={"right": CALLERS, "mean_batch_rows": "more than 1"},
    )


def _histogram(deployment: Deployment, name: str) -> tuple[float, float]:
    """(sum, count) of a histogram over all its label sets."""
    totals = {f"{name}_sum": 0.0, f"{name}_count": 0.0}
    for family in text_string_to_metric_families(deployment.native_metrics()):
        for sample in family.samples:
            if sample.name in totals:
                totals[sample.name] += sample.value
    return totals[f"{name}_sum"], totals[f"{name}_count"]
