"""Does the platform explain a prediction by itself?

Why: An explanation from the server that predicted needs no second service; where there is one, it should be as right.
How: 40 flights are sent to the path that platform.yaml names; what it answers is read by `explanation` of client.py
    and compared with the permutation importance of the served model over the same flights.
Pass: It answers one finite number a feature for each flight, not the same for all; the features rank by mean size as
    by permutation importance (Spearman's correlation at least 0.5: methods differ in what they attribute).
Fix: Look at the handler that explains: the order of the columns, the baseline, and what output is attributed.
"""

from __future__ import annotations

import numpy as np

from exhibit import clients
from exhibit.contract import NativeExplanation
from exhibit.criteria import Finding, judge
from exhibit.importance import permutation_importance, rank_correlation
from exhibit.targets import AnswerError, Deployment

NEEDS = ("native_explanation",)
FLIGHTS, SEED, REPEATS = 40, 7, 10
LEAST_CORRELATION = 0.5


def check(deployment: Deployment) -> Finding:
    native = deployment.platform.file.capabilities.native_explanation
    assert isinstance(native, NativeExplanation)
    rows = deployment.model.held_out("january_march").sample(FLIGHTS, SEED).rows
    response = deployment.post(deployment.client.encode(rows), path=native.path)
    if response.status_code != 200:
        raise AnswerError(f"answered {response.status_code} when asked for an explanation: {response.text[:200]!r}")
    try:
        values = clients.read_explanation(deployment.client, response.content)
    except ValueError as error:
        raise AnswerError(f"answered an {error}") from error
    fits = values.shape == rows.shape and bool(np.isfinite(values).all())
    varies = fits and bool(np.ptp(values, axis=0).any())
    correlation = 0.0
    if varies:
        importance = permutation_importance(deployment.predict, rows, REPEATS, SEED)
        correlation = rank_correlation(np.abs(values).mean(axis=0), importance)
    return judge(
        varies and correlation >= LEAST_CORRELATION,
        f"For {FLIGHTS} flights of {rows.shape[1]} features the platform answered {' x '.join(map(str, values.shape))} "
        f"{'numbers' if fits else 'values that are no such numbers'}{'' if varies else ', the same for all'}; they "
        f"rank the features like permutation importance with a correlation of {correlation:.2f}.",
        observed={"shape": list(values.shape), "varies": varies, "rank_correlation": round(correlation, 2)},
        expected={"shape": list(rows.shape), "varies": True, "rank_correlation": LEAST_CORRELATION},
    )
