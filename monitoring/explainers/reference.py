"""Rows like those the model was trained on: what an explanation compares with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import arrays
import numpy as np
import numpy.typing as npt
from errors import ExplainersError
from features import CATEGORIES, FEATURES

BACKGROUND_ROWS = 20
DRAWS = 500
"""Of how many seeded draws the background is the best one."""

Rows = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Reference:
    """Rows like those the model was trained on, and what it answered to them then."""

    rows: Rows
    """float32 [n, k]"""
    expected: npt.NDArray[np.float64]
    """float64 [n], probabilities"""

    @classmethod
    def load(cls, path: Path) -> Reference:
        """The arrays `rows` and `expected` of an .npz file.

        Raises:
            ExplainersError: they are not there, or not of these types and shapes, or not finite.
        """
        rule = f"arrays rows float32 [n, {len(FEATURES)}] and expected float64 [n], all finite, n >= {BACKGROUND_ROWS}"
        remedy = "Give --reference the file made from the training data."
        rows, expected = arrays.load(path, ("rows", "expected"), rule, remedy)
        found = f"rows {rows.dtype} {list(rows.shape)} and expected {expected.dtype} {list(expected.shape)}"
        typed = rows.dtype == np.float32 and expected.dtype == np.float64
        shaped = rows.ndim == 2 and rows.shape[1] == len(FEATURES) and expected.shape == (len(rows),)
        if not (typed and shaped and len(rows) >= BACKGROUND_ROWS):
            raise ExplainersError(path, found, rule, remedy)
        if not (np.isfinite(rows).all() and np.isfinite(expected).all()):
            raise ExplainersError(path, "a value that is not finite", rule, remedy)
        return cls(rows, expected)


def choose_background(reference: Reference) -> Rows:
    """BACKGROUND_ROWS rows of the reference that stand for all: the average prediction is theirs, and so are the types.

    One row from each of as many equal slices of the reference by prediction; of DRAWS such draws the one whose means
    and spreads of features (categories one-hot, quantities standardised) come closest to the reference's. Real rows,
    so that every category is a valid code and every combination one that happened; k-means centres are neither.
    README.md has the measurements.
    """
    slices = np.array_split(np.argsort(reference.expected, kind="stable"), BACKGROUND_ROWS)
    random = np.random.default_rng(0)
    draws = np.stack([random.choice(one, DRAWS) for one in slices], axis=1)
    encoded = _encode(reference.rows)
    drawn = encoded[draws]
    distance = ((drawn.mean(axis=1) - encoded.mean(axis=0)) ** 2 + (drawn.std(axis=1) - encoded.std(axis=0)) ** 2).sum(
        1
    )
    return reference.rows[draws[distance.argmin()]]


def _encode(rows: Rows) -> npt.NDArray[np.float64]:
    columns = []
    for index, name in enumerate(FEATURES):
        column = rows[:, index].astype(np.float64)
        if name in CATEGORIES:
            columns.append(column[:, None] == np.unique(column))
        else:
            columns.append(((column - column.mean()) / (column.std() or 1.0))[:, None])
    return np.hstack(columns)
