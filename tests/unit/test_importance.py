"""Permutation importance finds what a model depends on, and rank correlation tells orders apart."""

from __future__ import annotations

import numpy as np
import pytest

from exhibit.importance import BATCH_ROWS, ask, permutation_importance, rank_correlation, replacement_effects

ROWS = np.random.default_rng(1).normal(size=(50, 4)).astype(np.float32)
WEIGHTS = np.array([0.0, 3.0, -1.0, 0.1])


def predict(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows.astype(np.float64) @ WEIGHTS)


def test_features_rank_by_what_they_change() -> None:
    found = permutation_importance(predict, ROWS, repeats=5, seed=2)
    assert found.shape == (4,)
    assert found[0] == 0
    assert list(np.argsort(-found)) == [1, 2, 3, 0]


def test_it_is_the_mean_change_of_the_answers() -> None:
    """With weights alone, exchanging a feature's values moves an answer by the weight times their difference."""
    random = np.random.default_rng(7)
    changes = [abs(random.permutation(ROWS[:, column]) - ROWS[:, column]).mean() for column in range(4)]
    found = permutation_importance(predict, ROWS, repeats=1, seed=7)
    assert found == pytest.approx(np.abs(WEIGHTS) * changes, rel=1e-5)


def test_the_same_seed_gives_the_same() -> None:
    first, again, other = (permutation_importance(predict, ROWS, 3, seed) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


def test_it_asks_in_batches_and_in_order() -> None:
    sizes = []

    def counted(rows: np.ndarray) -> np.ndarray:
        sizes.append(len(rows))
        return rows[:, 0].astype(np.float64)

    rows = np.arange(2 * BATCH_ROWS + 1, dtype=np.float32)[:, None]
    assert (ask(counted, rows) == rows[:, 0]).all()
    assert sizes == [BATCH_ROWS, BATCH_ROWS, 1]


def test_an_effect_is_what_a_feature_adds_against_the_background() -> None:
    """With weights alone: the weight times the distance from the background's mean."""
    background = ROWS[:7]
    found = replacement_effects(predict, ROWS, background)
    assert found == pytest.approx(WEIGHTS * (ROWS - background.mean(axis=0)), abs=1e-5)


@pytest.mark.parametrize(
    ("other", "expected"), [([1, 2, 3, 4], 1.0), ([9, 19, 29, 1000], 1.0), ([4, 3, 2, 1], -1.0), ([1, 2, 4, 3], 0.8)]
)
def test_rank_correlation_looks_at_the_order_alone(other: list[float], expected: float) -> None:
    found = rank_correlation(np.array([0.1, 0.2, 0.3, 0.4]), np.array(other, dtype=np.float64))
    assert found == pytest.approx(expected)
