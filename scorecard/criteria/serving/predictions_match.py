"""Is every served probability the trained estimator's?

Why: A conversion, a cast, a wrong column order or a batcher can bend a model while its server answers 200.
How: The golden rows are sent directly and through the gateway, as one batch and row by row, and compared with the
    trained estimator's answers. The answers that traffic scenarios got before are counted too.
Pass: Every difference is at most 1e-5, and every request of the scenarios was sent and answered rightly.
Fix: Compare the export first (make retrain checks it on 10,000 rows), then the order and type of the columns in
    client.py and serve/, then what batches requests.
"""

from __future__ import annotations

import numpy as np

from exhibit.criteria import Finding, judge
from exhibit.model import TOLERANCE, difference
from exhibit.targets import Deployment, Via

WAYS: tuple[Via, ...] = ("platform", "gateway")


def check(deployment: Deployment) -> Finding:
    golden = deployment.model.golden
    differences = {}
    for via in WAYS:
        batch = deployment.predict(golden.rows, via=via)
        singly = [deployment.predict(golden.rows[at : at + 1], via=via)[0] for at in range(len(golden))]
        differences[f"{via}, one batch"] = difference(batch, golden.expected)
        differences[f"{via}, row by row"] = difference(np.asarray(singly), golden.expected)
    sent = {name: report.sent + report.dropped for name, report in deployment.traffic.items()}
    right = {name: report.right for name, report in deployment.traffic.items()}
    worst = max(differences, key=lambda way: differences[way])
    message = (
        f"{len(golden)} golden rows were sent in {len(differences)} ways; the largest difference from the trained "
        f"estimator is {differences[worst]} ({worst})"
    )
    if sent:
        message += f". Of {sum(sent.values())} requests of the scenarios {sum(right.values())} were answered rightly"
    return judge(
        differences[worst] <= TOLERANCE and right == sent,
        f"{message}.",
        observed={"largest_difference": differences, "right_of_scenario": right},
        expected={"largest_difference": TOLERANCE, "right_of_scenario": sent},
    )
