"""AUC and average precision with bootstrap intervals."""

from __future__ import annotations

import numpy as np

BOOTSTRAP_SAMPLES = 500
SEED = 2013


def weighted_scores(late: np.ndarray, ties: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """AUC and average precision of rows sorted by falling score.

    `late` bool [n]; `ties` int [groups], the first row of each run of equal scores; `weights` float [n].
    """
    hits = np.add.reduceat(weights * late, ties)
    misses = np.add.reduceat(weights * ~late, ties)
    hits_above, misses_above = np.cumsum(hits), np.cumsum(misses)
    auc = np.sum(misses * (hits_above - hits / 2)) / (hits_above[-1] * misses_above[-1])
    precision = hits_above / np.maximum(hits_above + misses_above, 1e-300)
    return float(auc), float(np.sum(hits * precision) / hits_above[-1])


def score(late: np.ndarray, probability: np.ndarray, days: np.ndarray) -> dict[str, dict[str, float]]:
    """AUC and average precision, each with a 95 % bootstrap interval.

    Days (`days` int [n], 0..d-1) are drawn, not rows: flights of one day share its weather and its queues, and drawing
    rows as if they were independent gives intervals that are too narrow.
    """
    order = np.argsort(-probability, kind="stable")
    ranked, late, days = probability[order], late[order], days[order]
    ties = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    day_count = int(days.max()) + 1
    draw = np.random.default_rng(SEED)
    samples = [
        weighted_scores(late, ties, draw.multinomial(day_count, [1 / day_count] * day_count)[days].astype(float))
        for _ in range(BOOTSTRAP_SAMPLES)
    ]
    low, high = np.percentile(samples, [2.5, 97.5], axis=0)
    value = weighted_scores(late, ties, np.ones(len(late)))
    figures = zip(("auc", "average_precision"), value, low, high, strict=True)
    return {name: {"value": v, "low": float(a), "high": float(b)} for name, v, a, b in figures}
