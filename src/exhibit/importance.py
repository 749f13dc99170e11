"""How much a model's answers depend on each feature, by asking it: what explanations of it must agree with."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from exhibit.model import Probabilities, Rows

BATCH_ROWS = 2000
"""Well below the body limit of servers and gateway."""


def ask(predict: Callable[[Rows], Probabilities], rows: Rows) -> Probabilities:
    """P(late) [n] for `rows` [n, k], asked for in batches."""
    return np.concatenate([predict(rows[start : start + BATCH_ROWS]) for start in range(0, len(rows), BATCH_ROWS)])


def permutation_importance(
    predict: Callable[[Rows], Probabilities], rows: Rows, repeats: int, seed: int
) -> npt.NDArray[np.float64]:
    """Mean absolute change of the answers when one feature's values change places among `rows` [n, k], by feature [k].

    Breiman's permutation importance ("Random Forests", 2001), of the answers instead of the loss, so that it needs no
    labels. Asks for ``n * (1 + k * repeats)`` rows, `BATCH_ROWS` at a time.
    """
    random = np.random.default_rng(seed)
    count, features = rows.shape
    permuted = np.repeat(rows[None, :, :], features * repeats, axis=0)
    for index, copy in enumerate(permuted):
        feature = index // repeats
        copy[:, feature] = random.permutation(copy[:, feature])
    answers = ask(predict, np.concatenate([rows, permuted.reshape(-1, features)])).reshape(-1, count)
    changes = np.abs(answers[1:] - answers[0]).mean(axis=1)
    return np.asarray(changes.reshape(features, repeats).mean(axis=1))


def replacement_effects(
    predict: Callable[[Rows], Probabilities], rows: Rows, background: Rows
) -> npt.NDArray[np.float64]:
    """How far each answer falls when one feature takes the values it has in `background` [m, k], on average: [n, k].

    A first approximation of Shapley values that looks at one feature at a time. Asks for ``n * (1 + k * m)`` rows.
    """
    features, others = rows.shape[1], len(background)
    replaced = np.repeat(rows[None, :, :], features * others, axis=0)
    for index, copy in enumerate(replaced):
        copy[:, index // others] = background[index % others, index // others]
    answers = ask(predict, np.concatenate([rows, replaced.reshape(-1, features)])).reshape(-1, len(rows))
    return np.asarray((answers[0] - answers[1:].reshape(features, others, len(rows)).mean(axis=1)).T)


def rank_correlation(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    """Spearman's rank correlation of two rankings [k] without ties: 1 if they order alike, -1 if in reverse."""
    ranks = [np.argsort(np.argsort(values)) for values in (one, other)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])
