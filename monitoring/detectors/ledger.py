"""All that the detectors remember: counts, the window being filled, the windows judged; saved and taken up as one."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from counts import Counts
from errors import DetectorsError
from judgements import PREDICTION, Judged, Judgements
from measurement import PREDICTION_BUCKETS, Measurement
from state import Arrays, DamagedError, StateFolder
from window import Reservoir, Window, age_after_rest

LOG = logging.getLogger("detectors")

GROWING = ("judged", "window_rows", "window_predictions")
"""The arrays whose length is not fixed."""


@dataclass(frozen=True)
class Periods:
    """When micro-batches and windows end."""

    batch_seconds: float
    window_seconds: float
    window_rows: int
    least_rows: int


@dataclass(frozen=True)
class Published:
    """What the metrics page and /windows say, all of one moment."""

    counts: Counts
    judgements: tuple[Judged, ...]
    window_rows: int
    window_opened: float
    """By time.monotonic()."""
    restored: bool


class Ledger:
    """The memory of one deployment's detectors, in its state folder.

    `basis` says what window, histograms and judgements rest on (reference, calibration, window size): saved ones of
    another basis are not taken up, the other counts are.

    Raises:
        DetectorsError: the folder cannot be read, or was written for other features.
    """

    def __init__(self, folder: StateFolder, measurement: Measurement, periods: Periods, basis: str) -> None:
        self.folder, self.periods, self.basis = folder, periods, basis
        self.names, self._buckets = measurement.names, measurement.buckets
        self._begin()
        self.restored = self._restore()
        self.publish()

    def _begin(self) -> None:
        self.counts = Counts.nothing(self._buckets, PREDICTION_BUCKETS)
        self.judgements = Judgements((*self.names, PREDICTION))
        self.begin_window()

    def begin_window(self) -> None:
        """Leaves the window for a new one without rows."""
        self.window = Window(Reservoir(self.periods.window_rows, len(self.names)))

    def commit(self) -> None:
        """Saves, then publishes; a disk that cannot be written to is counted and told once, and counting goes on."""
        try:
            self.folder.save(self._arrays())
        except OSError as error:
            if not self.counts.write_failures:
                LOG.error(
                    "%s: %s. Counting goes on; a restart will find what was saved before.", self.folder.path, error
                )
            self.counts.write_failures += 1
        self.publish()

    def publish(self) -> None:
        """Shows what is remembered now to whoever reads `published`, from any thread."""
        self.published = Published(
            self.counts.copy(),
            self.judgements.windows,
            self.window.reservoir.size,
            self.window.opened,
            self.restored,
        )

    def _arrays(self) -> Arrays:
        reservoir = self.window.reservoir
        return {
            "basis": np.array(self.basis),
            "names": np.array(self.names),
            **self.counts.arrays(),
            "judged": self.judgements.array(),
            "window_rows": reservoir.rows,
            "window_predictions": reservoir.predictions,
            "window": np.array([reservoir.seen, self.window.age_seconds, time.time()]),
        }

    def _restore(self) -> bool:
        """Takes up what was saved; whether anything was. What is damaged is set aside, and all begins at zero."""
        try:
            found = self.folder.load()
            if found is None:
                return False
            self._take_up(found)
        except DamagedError as damage:
            aside = self.folder.set_aside()
            LOG.error(
                "%s: damaged (%s), expected what was saved. Set aside as %s; counting begins at zero.",
                self.folder.path,
                damage,
                aside.name,
            )
            self._begin()
            self.counts.set_aside = self.folder.count_set_aside()
            return False
        return True

    def _take_up(self, found: Arrays) -> None:
        mine: dict[str, Any] = self._arrays()
        if found.keys() != mine.keys():
            raise DamagedError(f"holds {', '.join(sorted(found)) or 'nothing'}")
        names = found["names"].tolist()
        if names != list(self.names):
            raise DetectorsError(
                self.folder.path,
                f"written for the features {', '.join(map(str, names))}",
                ", ".join(self.names),
                "Give another --state.",
            )
        if str(found["basis"]) != self.basis:
            LOG.warning(
                "%s: written with another reference, calibration or window size. Histograms, window and judgements "
                "begin anew.",
                self.folder.path,
            )
            counted = ("numbers", "dropped", "missing", "out_of_range")
            found = {name: found[name] if name in counted else mine[name] for name in mine}
        for name, array in found.items():
            expected = mine[name]
            fixed = array.shape[1:] == expected.shape[1:] if name in GROWING else array.shape == expected.shape
            if not fixed or (array.dtype != expected.dtype and expected.dtype.kind != "U"):
                raise DamagedError(f"{name} is {array.dtype} {list(array.shape)}")
        self._fill(found)

    def _fill(self, found: dict[str, Any]) -> None:
        seen, age_seconds, saved_at = found["window"].tolist()
        rows, predictions = found["window_rows"], found["window_predictions"]
        reservoir = Reservoir(self.periods.window_rows, len(self.names))
        if not len(rows) == len(predictions) == min(seen, reservoir.capacity):
            raise DamagedError(f"a window of {len(rows)} rows of {seen:g} seen")
        reservoir.restore(rows, predictions, int(seen))
        age_seconds = age_after_rest(age_seconds, saved_at, time.time(), self.periods.window_seconds)
        self.window = Window(reservoir, age_seconds)
        self.counts = Counts.of(found)
        self.judgements.restore(found["judged"])
