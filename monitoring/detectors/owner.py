"""The one thread that owns the statistics: it takes copies a micro-batch at a time, counts, saves, then publishes.

Only what was saved is published, so a counter never goes back when the process is killed and started again: Prometheus
would take that for a counter that began anew at zero, and count everything twice.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from clients import Client
from intake import Intake
from judgements import Judge, judge_window
from ledger import Ledger
from measurement import PREDICTION_BUCKETS, Measured, Measurement, Rows

LOG = logging.getLogger("detectors")

BATCH_ROWS = 512
BATCH_COPIES = 512


class Owner:
    """Does the work on a ledger; `judge` is Drift.judge, `ask` ServedModel.predictions."""

    def __init__(
        self,
        client: Client,
        measurement: Measurement,
        judge: Judge,
        ask: Callable[[Rows, npt.NDArray[np.bool_]], npt.NDArray[np.float64]],
        intake: Intake,
        ledger: Ledger,
    ) -> None:
        self.client, self.measurement, self.judge, self.ask = client, measurement, judge, ask
        self.intake, self.ledger = intake, ledger
        self.periods = ledger.periods

    def run(self, finish_by: Callable[[], float]) -> None:
        """Works until the intake is closed and empty.

        From `finish_by()` (monotonic seconds, infinite until the process is told to stop) on, copies that still wait
        are dropped as those that found the queue full are.
        """
        while not self.intake.closed or self.intake.unsettled:
            self.intake.wait(self.periods.batch_seconds, BATCH_COPIES, self._idle_seconds())
            if time.monotonic() >= finish_by():
                self.intake.drop_what_waits()
            self.work()
            self.close_window()

    def _idle_seconds(self) -> float:
        """Until the window is due, if rows enough are there already; else a second."""
        left = self.periods.window_seconds - self.ledger.window.age_seconds
        return min(max(left, 0.01), 1.0) if self.ledger.window.reservoir.size >= self.periods.least_rows else 1.0

    def work(self) -> None:
        """One micro-batch: all that waits, up to BATCH_ROWS rows and the rest of the copy that reaches them."""
        parts: list[Rows] = []
        copies = rows = 0
        while rows < BATCH_ROWS and copies < BATCH_COPIES and (body := self.intake.pop()) is not None:
            copies += 1
            part = self._read(body)
            if part is not None:
                parts.append(part)
                rows += len(part)
        self.ledger.counts.dropped["unreadable"] += copies - len(parts)
        for measured in self._measure(parts):
            self._count(measured)
        dropped = self.intake.take_dropped()
        for reason, number in dropped.items():
            self.ledger.counts.dropped[reason] += number
        if settled := copies + sum(dropped.values()):
            self.ledger.commit()
            self.intake.settle(settled)

    def _read(self, body: bytes) -> Rows | None:
        """The rows in a copy, float32 [n, k]; None when there are none of that shape."""
        try:
            with np.errstate(all="ignore"):  # 1e39 is infinity as a float32
                rows = np.asarray(self.client.rows(body), np.float32)
        except Exception:  # client.py was written for bodies its server accepts; these are of strangers
            return None
        return rows if rows.ndim == 2 and rows.shape[1] == len(self.measurement.names) and len(rows) else None

    def _measure(self, parts: list[Rows]) -> list[Measured]:
        """The rows of all copies measured at once; if that fails, one by one, without the copies that cannot be."""
        if not parts:
            return []
        try:
            measured = [self.measurement.measure(np.concatenate(parts))]
        except Exception:
            LOG.exception("rows of %d copies cannot be measured together", len(parts))
            measured = []
            for part in parts:
                try:
                    measured.append(self.measurement.measure(part))
                except Exception:  # already told
                    self.ledger.counts.dropped["unreadable"] += 1
            self.ledger.counts.copies_taken += len(measured)
        else:
            self.ledger.counts.copies_taken += len(parts)
        return measured

    def _count(self, measured: Measured) -> None:
        counts, rows = self.ledger.counts, measured.complete_rows
        predictions = self.ask(rows, measured.usual)
        answered = np.isfinite(predictions)
        counts.records += len(measured.rows)
        counts.missing += measured.missing
        counts.out_of_range += measured.out_of_range
        counts.features += measured.tally
        counts.outliers += int(measured.outliers.sum())
        counts.prediction += PREDICTION_BUCKETS.tally(predictions[:, None])
        counts.predictions_missing += len(measured.rows) - int(answered.sum())
        self.ledger.window.reservoir.feed(rows, predictions)

    def close_window(self) -> None:
        """Judges the window if it is due, and begins another."""
        if not self.ledger.window.due(self.periods.window_seconds, self.periods.least_rows):
            return
        reservoir, seconds = self.ledger.window.reservoir, self.ledger.window.age_seconds
        rows, predictions = reservoir.rows, reservoir.predictions
        self.ledger.begin_window()
        try:
            judged = judge_window(
                self.judge,
                rows,
                predictions,
                least_rows=self.periods.least_rows,
                seen=reservoir.seen,
                seconds=seconds,
            )
        except Exception:
            LOG.exception("a window of %d rows cannot be judged and is thrown away", len(rows))
        else:
            self.ledger.judgements.add(judged)
            self.ledger.counts.windows += 1
            LOG.info("window of %d rows judged: ratio %.2f%s", len(rows), judged.ratio, " DRIFT" * judged.drifted)
        self.ledger.commit()
