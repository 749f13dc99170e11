"""The window of rows that the next drift judgement is made of: a uniform sample of a period."""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt


class Reservoir:
    """A uniform sample of a stream of rows: Vitter's algorithm R (ACM TOMS 11, 1985), many rows a step.

    Each of the `seen` rows is in the sample with the same probability, whatever the order they came in. A prediction is
    NaN where the served model gave none.
    """

    def __init__(self, capacity: int, features: int, generator: np.random.Generator | None = None) -> None:
        self.capacity = capacity
        self.seen = 0
        self._rows = np.zeros((capacity, features), np.float32)
        self._predictions = np.full(capacity, np.nan)
        self._generator = generator or np.random.default_rng()

    @property
    def size(self) -> int:
        return min(self.seen, self.capacity)

    @property
    def rows(self) -> npt.NDArray[np.float32]:
        """The sample, float32 [size, k]; a copy."""
        return self._rows[: self.size].copy()

    @property
    def predictions(self) -> npt.NDArray[np.float64]:
        """The predictions of `rows`, float64 [size]; a copy."""
        return self._predictions[: self.size].copy()

    def feed(self, rows: npt.NDArray[np.float32], predictions: npt.NDArray[np.float64]) -> None:
        """Offers rows [n, k] and their predictions [n] to the sample."""
        order = np.arange(self.seen, self.seen + len(rows))
        # Row number t (from 0) takes a place drawn from 0..t; beyond the capacity it is not taken. While the sample is
        # being filled each row has the next free place.
        places = np.where(order < self.capacity, order, self._generator.integers(0, order + 1))
        taken = np.flatnonzero(places < self.capacity)
        # Of rows that drew the same place the last one stays, as if they had come one by one.
        _, last = np.unique(places[taken][::-1], return_index=True)
        taken = taken[::-1][last]
        self._rows[places[taken]] = rows[taken]
        self._predictions[places[taken]] = predictions[taken]
        self.seen += len(rows)

    def restore(self, rows: npt.NDArray[np.float32], predictions: npt.NDArray[np.float64], seen: int) -> None:
        """Takes up a sample saved before; what is drawn from now on is independent of what was drawn then."""
        self._rows[: len(rows)], self._predictions[: len(rows)], self.seen = rows, predictions, seen


class Window:
    """A reservoir and how long it has been filled, by a clock that nobody can set."""

    def __init__(self, reservoir: Reservoir, age_seconds: float = 0.0) -> None:
        self.reservoir = reservoir
        self.opened = time.monotonic() - age_seconds

    @property
    def age_seconds(self) -> float:
        return time.monotonic() - self.opened

    def due(self, period_seconds: float, least_rows: int) -> bool:
        """Whether the period is over and enough rows have come; with too few it goes on being filled."""
        return self.reservoir.size >= least_rows and self.age_seconds >= period_seconds


def age_after_rest(age_seconds: float, saved_at: float, now: float, period_seconds: float) -> float:
    """The age of a window that was saved at the wall clock's `saved_at`, when it is taken up at `now`.

    The rest between belongs to it, as the traffic's period went on. A wall clock may have been set meanwhile: a rest
    below zero counts as none, one of more than a period as a period.
    """
    return age_seconds + min(max(now - saved_at, 0.0), period_seconds)
