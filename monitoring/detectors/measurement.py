"""What one set of rows says by itself: missing values, values out of range, histograms, outliers. Nothing is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from histograms import Buckets, Tally, code_bounds, round_bounds

Rows = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]

PREDICTION_BUCKETS = Buckets([[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]])
"""Of probabilities; what is none shows beyond the last bound."""


@dataclass(frozen=True)
class Measured:
    """The rows [n, k] and what was found; `usual` and `outliers` are of the complete rows [m] only."""

    rows: Rows
    complete: Flags
    """[n]: every value is a finite number."""
    missing: npt.NDArray[np.int64]
    out_of_range: npt.NDArray[np.int64]
    tally: Tally
    usual: Flags
    """[m]: every value is in its range."""
    outliers: Flags

    @property
    def complete_rows(self) -> Rows:
        return self.rows[self.complete]


class Measurement:
    """Measures rows of the features `names`.

    `ranges` are the least and the greatest value known of a number, and all codes known of one of the `categories`;
    `whole` names the features whose values are whole numbers, as their histograms' bounds then are. `out_of_range`
    says which values [n, k] are outside, `flags` which of complete rows are outliers.
    """

    def __init__(
        self,
        names: Sequence[str],
        categories: Sequence[str],
        ranges: Mapping[str, Sequence[float]],
        whole: Sequence[str],
        out_of_range: Callable[[Rows], Flags],
        flags: Callable[[Rows], Flags],
    ) -> None:
        self.names = tuple(names)
        self._out_of_range, self._flags = out_of_range, flags
        self.buckets = Buckets(
            [
                code_bounds(int(max(ranges[name])) + 1)
                if name in categories
                else round_bounds(min(ranges[name]), max(ranges[name]), whole=name in whole)
                for name in names
            ]
        )

    def measure(self, rows: Rows) -> Measured:
        """Measures rows [n, k] of any values."""
        finite = np.isfinite(rows)
        complete = finite.all(axis=1)
        with np.errstate(all="ignore"):  # values near the end of what a float32 holds may overflow when squared
            outside = finite & self._out_of_range(rows)
            outliers = self._flags(rows[complete]) if complete.any() else np.zeros(0, np.bool_)
        return Measured(
            rows,
            complete,
            (~finite).sum(axis=0),
            outside.sum(axis=0),
            self.buckets.tally(rows),
            ~outside[complete].any(axis=1),
            np.asarray(outliers, np.bool_),
        )
