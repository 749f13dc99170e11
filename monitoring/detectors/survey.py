"""What a file of records says: statistics of all of it, outliers and drift of each of its windows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from errors import DetectorsError
from fitting import Fitted
from histograms import Buckets, Tally
from judgements import PREDICTION, Judged, judge_window
from measurement import PREDICTION_BUCKETS
from records import Part
from window import Reservoir

WHOLE = "whole file"
MOST_WINDOWS = 1000
SEED = 0
"""The same file gives the same samples, so the same report."""


@dataclass
class Span:
    """One window of the file: its counts, and the sample that is judged."""

    name: str
    sample: Reservoir
    rows: int = 0
    complete: int = 0
    outliers: int = 0
    judged: Judged | None = None
    """None: too few complete rows."""


@dataclass(frozen=True)
class Column:
    """Statistics of a feature, or of the predictions, beside those of the reference."""

    name: str
    missing: int
    out_of_range: int
    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    """Finite values up to each bound and above the one before; the last, above all bounds."""
    total: float
    """Their sum."""
    reference_counts: tuple[int, ...]
    reference_total: float

    @property
    def count(self) -> int:
        """Finite values."""
        return sum(self.counts)

    @property
    def mean(self) -> float | None:
        return self.total / self.count if self.count else None

    @property
    def reference_mean(self) -> float:
        return self.reference_total / sum(self.reference_counts)


@dataclass
class Report:
    """Everything that is told of a file."""

    file: str
    fitted: Fitted
    least_rows: int
    spans: list[Span] = field(default_factory=list)
    """By name."""
    columns: list[Column] = field(default_factory=list)

    @property
    def rows(self) -> int:
        return sum(span.rows for span in self.spans)

    @property
    def complete(self) -> int:
        return sum(span.complete for span in self.spans)

    @property
    def outliers(self) -> int:
        return sum(span.outliers for span in self.spans)


def survey(
    path: Path, parts: Iterable[Part], fitted: Fitted, least_rows: int, tell: Callable[[int, float], None]
) -> Report:
    """Reads all `parts` once, with memory for one of them and the samples, and calls `tell` (rows, share) after each.

    Raises:
        DetectorsError: of reading; or the file has more than MOST_WINDOWS windows.
    """
    measurement, generator = fitted.measurement, np.random.default_rng(SEED)
    spans: dict[str, Span] = {}
    tally, predicted = measurement.buckets.nothing(), PREDICTION_BUCKETS.nothing()
    k = len(measurement.names)
    missing, out_of_range = np.zeros(k, np.int64), np.zeros(k, np.int64)
    rows = predictions_missing = 0
    for part in parts:
        measured = measurement.measure(part.rows)
        missing += measured.missing
        out_of_range += measured.out_of_range
        tally += measured.tally
        predicted += PREDICTION_BUCKETS.tally(part.predictions[:, None])
        predictions_missing += int((~np.isfinite(part.predictions)).sum())
        flagged = np.zeros(len(part.rows), np.bool_)
        flagged[measured.complete] = measured.outliers
        periods = np.full(len(part.rows), WHOLE) if part.periods is None else part.periods
        for name in np.unique(periods).tolist():
            if name not in spans:
                spans[name] = Span(name, Reservoir(fitted.window_rows, k, generator))
            _add(spans[name], periods == name, part, measured.complete, flagged)
        if len(spans) > MOST_WINDOWS:
            raise DetectorsError(path, f"more than {MOST_WINDOWS} windows", "fewer", "Give a longer period to --by.")
        rows += len(part.rows)
        tell(rows, part.share_read)
    report = Report(path.name, fitted, least_rows, [spans[name] for name in sorted(spans)])
    for span in report.spans:
        sample = span.sample
        if sample.size >= least_rows:
            span.judged = judge_window(
                fitted.judge, sample.rows, sample.predictions, least_rows=least_rows, seen=sample.seen
            )
    reference = measurement.buckets.tally(fitted.reference_rows)
    for index, name in enumerate(measurement.names):
        numbers = (int(missing[index]), int(out_of_range[index]))
        report.columns.append(_column(name, *numbers, measurement.buckets, index, tally, reference))
    if predicted.counts.any():
        reference = PREDICTION_BUCKETS.tally(fitted.reference_predictions[:, None])
        report.columns.append(_column(PREDICTION, predictions_missing, 0, PREDICTION_BUCKETS, 0, predicted, reference))
    return report


def _column(
    name: str, missing: int, out_of_range: int, buckets: Buckets, index: int, tally: Tally, reference: Tally
) -> Column:
    bounds = buckets.bounds[index]
    counts, reference_counts = (tuple(one.counts[index, : len(bounds) + 1].tolist()) for one in (tally, reference))
    return Column(
        name,
        missing,
        out_of_range,
        bounds,
        counts,
        float(tally.sums[index]),
        reference_counts,
        float(reference.sums[index]),
    )


def _add(
    span: Span,
    chosen: npt.NDArray[np.bool_],
    part: Part,
    complete: npt.NDArray[np.bool_],
    flagged: npt.NDArray[np.bool_],
) -> None:
    whole = chosen & complete
    span.rows += int(chosen.sum())
    span.complete += int(whole.sum())
    span.outliers += int((chosen & flagged).sum())
    span.sample.feed(part.rows[whole], part.predictions[whole])
