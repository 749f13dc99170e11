"""Do explanations tell what the served model, and no other, makes of a flight?

Why: An explainer that swaps two columns, or explains a copy of the model, gives plausible bars that nobody can see are
    wrong; so an explanation is checked like a prediction.
How: The explainers beside the deployment explain 100 flights by KernelShap, asking the served model through the
    gateway; 10 of them again with another seed. The served model is also asked for the same flights with one feature
    at a time shuffled among them (permutation importance).
Pass: Each explanation's parts and base add up to the served prediction within 0.001; the features rank by mean size as
    by permutation importance (Spearman's correlation at least 0.8); and between seeds no part of any moves by more
    than 0.05.
Fix: Compare the order of the columns in client.py, the background (valid codes for categories), and the number of
    samples.
"""

from __future__ import annotations

import numpy as np

from exhibit import explainers
from exhibit.criteria import Finding, judge
from exhibit.importance import permutation_importance, rank_correlation
from exhibit.targets import Deployment

USES = ("explainers",)
ADD_ON = "explainers"
FLIGHTS, AGAIN, SEED, REPEATS = 100, 10, 6, 10
ADDITIVE_TOLERANCE, LEAST_CORRELATION, LARGEST_MOVE = 1e-3, 0.8, 0.05


def check(deployment: Deployment) -> Finding:
    flights = deployment.model.held_out("january_march").sample(FLIGHTS, SEED)
    found = explainers.attributions(deployment, flights.rows)
    again = explainers.attributions(deployment, flights.rows[:AGAIN], seed=1)
    served = deployment.predict(flights.rows)
    gap = float(np.abs(found.base_values + found.values.sum(axis=1) - served).max())
    correlation = rank_correlation(
        np.abs(found.values).mean(axis=0), permutation_importance(deployment.predict, flights.rows, REPEATS, SEED)
    )
    move = float(np.abs(found.values[:AGAIN] - again.values).max())
    return judge(
        gap <= ADDITIVE_TOLERANCE and correlation >= LEAST_CORRELATION and move <= LARGEST_MOVE,
        f"Explanations of {FLIGHTS} flights add up to the served predictions within {gap:.1e}, rank the "
        f"features like permutation importance with a correlation of {correlation:.2f}, "
        f"and move by at most {move:.3f} with the seed.",
        observed={
            "gap": float(f"{gap:.1e}"),
            "rank_correlation": round(correlation, 2),
            "moves_with_seed": round(move, 3),
        },
        expected={"gap": ADDITIVE_TOLERANCE, "rank_correlation": LEAST_CORRELATION, "moves_with_seed": LARGEST_MOVE},
    )
