"""The windows judged so far: the last one is what the drift metrics say, the last 200 are listed at /windows."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from measurement import Rows

KEPT = 200
PREDICTION = "prediction"
_NUMBERS = ("closed_at", "rows", "seen", "seconds", "ratio", "drifted")
_VALUES = ("distances", "p_values", "limits")


class Judgement(Protocol):
    """detection.Judgement: each mapping by feature, with PREDICTION where predictions were given."""

    @property
    def distances(self) -> Mapping[str, float]: ...

    @property
    def p_values(self) -> Mapping[str, float]: ...

    @property
    def limits(self) -> Mapping[str, float]: ...


Judge = Callable[[Rows, npt.NDArray[np.float64] | None], Judgement]
"""detection.Drift.judge: rows float32 [n, k] and predictions float64 [n], or None."""


@dataclass(frozen=True)
class Judged:
    """One judged window. Where too few predictions were known, the mappings leave PREDICTION out."""

    closed_at: float
    """Seconds since the epoch."""
    rows: int
    """In the sample that was judged."""
    seen: int
    """Of which that is a uniform sample."""
    seconds: float
    """How long it was filled."""
    ratio: float
    """The largest distance over its limit."""
    drifted: bool
    distances: dict[str, float]
    p_values: dict[str, float]
    limits: dict[str, float]

    @property
    def furthest(self) -> str:
        """Whose distance is the largest multiple of its limit."""
        return max(self.distances, key=lambda name: self.distances[name] / self.limits[name])


def judge_window(
    judge: Judge,
    rows: Rows,
    predictions: npt.NDArray[np.float64],
    *,
    least_rows: int,
    seen: int,
    seconds: float = 0.0,
) -> Judged:
    """Judges a sample of rows [n, k] with predictions [n], NaN where the model gave none.

    All rows count for the features. Where the model was silent for a while, the rows it answered are a sample of all
    that it answered, and count for the prediction; fewer than `least_rows` are not judged.
    """
    known = np.isfinite(predictions)
    parts = [judge(rows, predictions if known.all() else None)]
    if not known.all() and known.sum() >= least_rows:
        parts.append(judge(rows[known], predictions[known]))
    values: list[dict[str, float]] = []
    for name in _VALUES:
        found = dict(getattr(parts[0], name))
        if parts[1:]:
            found[PREDICTION] = getattr(parts[1], name)[PREDICTION]
        values.append(found)
    distances, p_values, limits = ({name: float(value) for name, value in one.items()} for one in values)
    ratio = max(distances[name] / limits[name] for name in distances)
    return Judged(time.time(), len(rows), seen, seconds, ratio, ratio > 1, distances, p_values, limits)


class Judgements:
    """The last KEPT windows, oldest first, and their form as an array."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.windows: tuple[Judged, ...] = ()

    def add(self, judged: Judged) -> None:
        self.windows = (*self.windows, judged)[-KEPT:]

    def array(self) -> npt.NDArray[np.void]:
        """One record a window, NaN where a value is left out."""
        array = np.zeros(len(self.windows), self._type())
        for record, window in zip(array, self.windows, strict=True):
            for name in _NUMBERS:
                record[name] = getattr(window, name)
            for name in _VALUES:
                record[name] = [getattr(window, name).get(feature, np.nan) for feature in self.names]
        return array

    def restore(self, array: npt.NDArray[np.void]) -> None:
        """Takes up what array() gave."""
        self.windows = tuple(
            Judged(
                **{name: record[name].item() for name in _NUMBERS},
                **{name: self._present(record[name]) for name in _VALUES},
            )
            for record in array
        )

    def _present(self, values: npt.NDArray[np.float64]) -> dict[str, float]:
        return {name: value for name, value in zip(self.names, values.tolist(), strict=True) if not np.isnan(value)}

    def _type(self) -> np.dtype[np.void]:
        kinds = {"rows": "i8", "seen": "i8", "drifted": "?"}
        fields: list[Any] = [(name, kinds.get(name, "f8")) for name in _NUMBERS]
        return np.dtype(fields + [(name, "f8", len(self.names)) for name in _VALUES])


def listed(windows: Sequence[Judged]) -> list[dict[str, Any]]:
    """For JSON, in the same order."""
    return [asdict(window) for window in windows]
