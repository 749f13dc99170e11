"""Does the offline path give the answers the server gives?

Why: Scores of last night and answers of this morning are compared and joined; two code paths drift apart unnoticed.
How: The platform's own offline path scores 10,000 held-out flights from a file; the server is asked for the same in
    batches of 2,000. Both are compared with each other and with the trained estimator.
Pass: There is one probability a row, and no difference is larger than 1e-5.
Fix: Let both paths call one function for checking and predicting.
"""

from __future__ import annotations

import numpy as np

from exhibit.criteria import Finding, judge
from exhibit.model import TOLERANCE, difference
from exhibit.targets import Deployment

NEEDS = ("offline_batch",)
ROWS, CHUNK = 10_000, 2_000  # a chunk's body stays well below the gateway's 1 MiB


def check(deployment: Deployment) -> Finding:
    flights = deployment.model.held_out("january_march").take(ROWS)
    offline = deployment.run_offline(flights.rows)
    if offline.shape != (ROWS,):
        message = f"The offline path wrote {offline.size} probabilities for {ROWS} rows."
        return judge(False, message, observed={"probabilities": offline.size}, expected={"probabilities": ROWS})
    online = np.concatenate([deployment.predict(flights.rows[at : at + CHUNK]) for at in range(0, ROWS, CHUNK)])
    observed = {
        "offline_from_online": difference(offline, online),
        "offline_from_estimator": difference(offline, flights.expected),
        "online_from_estimator": difference(online, flights.expected),
    }
    return judge(
        max(observed.values()) <= TOLERANCE,
        f"On {ROWS} flights offline and online answers differ by at most {observed['offline_from_online']}, and from "
        f"the trained estimator by {observed['offline_from_estimator']} and {observed['online_from_estimator']}.",
        observed=observed,
        expected=dict.fromkeys(observed, TOLERANCE),
    )
