"""Everything the detectors count, as one value that is copied, saved and published as a whole."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
from histograms import Buckets, Tally
from intake import REASONS

Counted = npt.NDArray[np.int64]

NUMBERS = ("copies_taken", "records", "outliers", "predictions_missing", "windows", "set_aside", "write_failures")


@dataclass
class Counts:
    """Totals since the state folder was new."""

    missing: Counted
    """Values that are no finite number, by feature [k]."""
    out_of_range: Counted
    """Finite values outside the calibration's range, by feature [k]."""
    features: Tally
    prediction: Tally
    dropped: dict[str, int] = field(default_factory=lambda: dict.fromkeys(REASONS, 0))
    copies_taken: int = 0
    records: int = 0
    outliers: int = 0
    predictions_missing: int = 0
    windows: int = 0
    set_aside: int = 0
    write_failures: int = 0

    @classmethod
    def nothing(cls, features: Buckets, prediction: Buckets) -> Counts:
        """All zero."""
        k = len(features.bounds)
        return cls(np.zeros(k, np.int64), np.zeros(k, np.int64), features.nothing(), prediction.nothing())

    @property
    def copies(self) -> int:
        """Copies settled: each was dropped for one reason or its rows were taken in."""
        return self.copies_taken + sum(self.dropped.values())

    def copy(self) -> Counts:
        """A value that later counting does not change; tallies are never changed in place."""
        return replace(
            self, missing=self.missing.copy(), out_of_range=self.out_of_range.copy(), dropped=dict(self.dropped)
        )

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """All of it as arrays, for a file."""
        return {
            "numbers": np.array([getattr(self, name) for name in NUMBERS], np.int64),
            "dropped": np.array([self.dropped[reason] for reason in REASONS], np.int64),
            "missing": self.missing,
            "out_of_range": self.out_of_range,
            "feature_counts": self.features.counts,
            "feature_sums": self.features.sums,
            "prediction_counts": self.prediction.counts,
            "prediction_sums": self.prediction.sums,
        }

    @classmethod
    def of(cls, arrays: dict[str, npt.NDArray[np.generic]]) -> Counts:
        """What `arrays` gave."""
        counts = cls(
            arrays["missing"].copy(),
            arrays["out_of_range"].copy(),
            Tally(arrays["feature_counts"], arrays["feature_sums"]),
            Tally(arrays["prediction_counts"], arrays["prediction_sums"]),
            dict(zip(REASONS, arrays["dropped"].tolist(), strict=True)),
        )
        for name, number in zip(NUMBERS, arrays["numbers"].tolist(), strict=True):
            setattr(counts, name, number)
        return counts
