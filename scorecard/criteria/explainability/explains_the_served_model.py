"""Do explanations tell what the served model, and no other, makes of a flight?

Why: An explainer that swaps two columns, or explains a copy of the model, gives plausible bars that nobody can see are
    wrong; so an explanation is checked like a prediction.
How: The explainers beside the deployment explain 100 flights by KernelShap, asking the served model through the
    gateway; 10 of them again with another seed. The served model is also asked for the same flights with one feature
    at a time shuffled among them (permutation importance), and with one feature at a time as other flights have it
    (its effect).
Pass: Each explanation's parts and base add up to the served prediction within 0.0001. The features rank by mean size
    as by permutation importance (Spearman's correlation at least 0.8). Over the flights, the part of every feature
    goes with its effect (correlation at least 0.4, which two neighbouring columns swapped do not reach). Between seeds
    no part moves by more than 0.05.
Fix: Compare the order of the columns in client.py, the background (valid codes for categories), and the number of
    samples.
"""

from __future__ import annotations

import numpy as np

from exhibit import explainers
from exhibit.criteria import Finding, judge
from exhibit.importance import permutation_importance, rank_correlation, replacement_effects
from exhibit.targets import Deployment

USES = ("prometheus", "explainers")
ADD_ON = "explainers"
FLIGHTS, AGAIN, OTHERS, SEED, REPEATS = 100, 10, 10, 6, 5
# Answered by the server to whoever asks through the gateway, callers and companions alike.
ASKED = 'envoy_cluster_upstream_rq_completed{envoy_cluster_name="stable"}'
GAP, LEAST_RANK, LEAST_CORRELATION, LARGEST_MOVE = 1e-4, 0.8, 0.4, 0.05


def check(deployment: Deployment) -> Finding:
    held_out = deployment.model.held_out("january_march")
    rows, others = held_out.sample(FLIGHTS, SEED).rows, held_out.sample(OTHERS, SEED + 1).rows
    found: list[explainers.Attributions] = []
    asked = deployment.rise(
        f"sum({deployment.labelled(ASKED, 'gateway')})",
        "gateway",
        lambda: found.append(explainers.attributions(deployment, rows)),
        FLIGHTS,
    )
    [explained] = found
    again = explainers.attributions(deployment, rows[:AGAIN], seed=1)
    gap = float(np.abs(explained.base_values + explained.values.sum(axis=1) - deployment.predict(rows)).max())
    importance = permutation_importance(deployment.predict, rows, REPEATS, SEED)
    rank = rank_correlation(np.abs(explained.values).mean(axis=0), importance)
    effects = replacement_effects(deployment.predict, rows, others)
    agreement = [_correlation(part, effect) for part, effect in zip(explained.values.T, effects.T, strict=True)]
    weakest = int(np.argmin(agreement))
    move = float(np.abs(explained.values[:AGAIN] - again.values).max())
    return judge(
        asked >= FLIGHTS
        and gap <= GAP
        and rank >= LEAST_RANK
        and agreement[weakest] >= LEAST_CORRELATION
        and move <= LARGEST_MOVE,
        f"Explanations of {FLIGHTS} flights, for which the served model was asked {asked:g} times through the gateway, "
        f"add up to its predictions within {gap:.1e}, rank the features like permutation importance (correlation "
        f"{rank:.2f}), go with each feature's effect (correlation at least {agreement[weakest]:.2f}, of "
        f"{deployment.model.features[weakest]}) and move by at most {move:.3f} with the seed.",
        observed={
            "asked_at_least_once_each": asked >= FLIGHTS,
            "gap": float(f"{gap:.1e}"),
            "rank_correlation": round(rank, 2),
            "least_correlation_with_effect": round(agreement[weakest], 2),
            "moves_with_seed": round(move, 3),
        },
        expected={
            "asked_at_least_once_each": True,
            "gap": GAP,
            "rank_correlation": LEAST_RANK,
            "least_correlation_with_effect": LEAST_CORRELATION,
            "moves_with_seed": LARGEST_MOVE,
        },
    )


def _correlation(part: np.ndarray, effect: np.ndarray) -> float:
    """Pearson's; 0 where one of them is the same for all flights."""
    constant = not (np.ptp(part) and np.ptp(effect))
    return 0.0 if constant else float(np.corrcoef(part, effect)[0, 1])
