"""Exact histograms of many columns at once: fixed bounds, one pass of numpy a micro-batch, no object a value."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

MOST_BOUNDS = 11
"""With the bucket beyond the last bound: twelve."""
_STEPS = (1.0, 2.0, 2.5, 3.0, 4.0, 5.0)


def round_bounds(low: float, high: float, *, whole: bool = False) -> tuple[float, ...]:
    """At most MOST_BOUNDS round numbers, evenly spaced, over `low` to `high` and up to a quarter more on each side.

    The room beside is for values that drift out of the range; below zero there is none when `low` is not below zero.
    Where all values are `whole` numbers the bounds are too, so that each bucket holds as many of them.
    """
    width = (high - low) or abs(high) or 1.0
    first, last = low - width / 4, high + width / 4
    if low >= 0:
        first = max(first, 0.0)
    power = math.floor(math.log10((last - first) / MOST_BOUNDS))
    steps = [digit * 10.0**exponent for exponent in range(power, power + 3) for digit in _STEPS]
    for step in steps:
        start, end = math.ceil(first / step), math.floor(last / step)
        if 0 <= end - start < MOST_BOUNDS and not (whole and step % 1):
            return tuple(float(f"{number * step:.12g}") for number in range(start, end + 1))
    return (low, high)


def code_bounds(codes: int) -> tuple[float, ...]:
    """At most MOST_BOUNDS bounds that part the whole numbers from 0 to `codes` - 1 into runs of one length."""
    each = math.ceil(codes / MOST_BOUNDS)
    return tuple(float(number) for number in range(each - 1, codes + each - 1, each))


@dataclass(frozen=True)
class Tally:
    """What a set of values adds: counts int64 [k, b + 1] of each bucket (not cumulated), sums float64 [k]."""

    counts: npt.NDArray[np.int64]
    sums: npt.NDArray[np.float64]

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.counts + other.counts, self.sums + other.sums)


class Buckets:
    """The bounds of k columns: bucket j of a column holds the finite values up to and including its bound j."""

    def __init__(self, bounds: Sequence[Sequence[float]]) -> None:
        self.bounds = tuple(tuple(column) for column in bounds)
        self._most = max(len(column) for column in self.bounds)
        self._edges = np.full((len(self.bounds), self._most), np.inf)
        for column, edges in zip(self._edges, self.bounds, strict=True):
            column[: len(edges)] = edges
        # Row k of a table with one line a column: bincount then counts all columns at once.
        self._offsets = np.arange(len(self.bounds)) * (self._most + 1)

    def nothing(self) -> Tally:
        """The tally of no values."""
        k = len(self.bounds)
        return Tally(np.zeros((k, self._most + 1), np.int64), np.zeros(k))

    def tally(self, values: npt.NDArray[np.floating]) -> Tally:
        """Counts and sums of the finite ones of `values` [n, k].

        Bounds are float64 and mean what they say: 0.1 as a float32 is a little more than 0.1, so beyond that bound.
        """
        finite = np.isfinite(values)
        bucket = (values[:, :, None] > self._edges).sum(axis=2)
        cells = (bucket + self._offsets)[finite]
        counts = np.bincount(cells, minlength=len(self.bounds) * (self._most + 1)).reshape(len(self.bounds), -1)
        return Tally(counts.astype(np.int64), np.where(finite, values, 0).sum(axis=0, dtype=np.float64))

    def cumulated(self, tally: Tally, column: int) -> list[tuple[str, int]]:
        """Prometheus' buckets of one column: (bound, number of values up to it), the last one +Inf."""
        bounds = self.bounds[column]
        # What lies beyond the last bound stands in its bucket; with fewer bounds than the most, in the one after them.
        below = np.cumsum(tally.counts[column])
        names = [*map(_name, bounds), "+Inf"]
        numbers = [*below[: len(bounds)], below[-1]]
        return [(name, int(number)) for name, number in zip(names, numbers, strict=True)]


def _name(bound: float) -> str:
    return repr(float(bound))
