"""The metrics page: a fixed set of series, made from what the ledger has published."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt
from histograms import Buckets, Tally
from intake import REASONS, Intake
from judgements import PREDICTION
from ledger import Ledger
from measurement import PREDICTION_BUCKETS, Measurement
from prometheus_client import CollectorRegistry, Metric, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.registry import Collector


class Exposition(Collector):
    """Collects all metrics of the detectors; every series is there from the start."""

    def __init__(self, ledger: Ledger, measurement: Measurement, intake: Intake, info: Mapping[str, str]) -> None:
        self.ledger, self.measurement, self.intake, self.info = ledger, measurement, intake, dict(info)

    def collect(self) -> Iterator[Metric]:
        """All metrics; counts are of one moment and those of a micro-batch appear together."""
        unsettled = self.intake.unsettled  # before what is published: 0 then means that everything is in it
        published = self.ledger.published
        counts, names = published.counts, self.measurement.names
        for name, words, value in (
            ("copies", "Copies of requests received", counts.copies),
            ("records", "Rows taken into the statistics", counts.records),
            ("outliers", "Rows flagged as outliers", counts.outliers),
            ("predictions_missing", "Rows without a prediction of the served model", counts.predictions_missing),
            ("windows", "Windows judged for drift", counts.windows),
            ("state_set_aside", "Damaged state files set aside", counts.set_aside),
            ("state_write_failures", "Micro-batches that could not be saved", counts.write_failures),
        ):
            yield CounterMetricFamily(f"detectors_{name}", words, value)
        yield _counters("dropped", "Copies not taken in", "reason", REASONS, list(counts.dropped.values()))
        yield _counters("feature_missing", "Values that are no finite number", "feature", names, counts.missing)
        yield _counters("feature_out_of_range", "Values outside the known range", "feature", names, counts.out_of_range)
        yield self._feature_values(counts.features)
        prediction = HistogramMetricFamily("detectors_prediction", "Predictions of the served model")
        prediction.add_metric([], *_filled(PREDICTION_BUCKETS, counts.prediction, 0))
        yield prediction
        last = published.judgements[-1] if published.judgements else None
        for name, words, values in (
            ("distance", "Distance from the reference", last.distances if last else None),
            ("p_value", "Probability of such a distance without drift", last.p_values if last else None),
            ("limit", "Distance beyond which it is drift", last.limits if last else None),
        ):
            family = GaugeMetricFamily(f"detectors_drift_{name}", f"{words}, last judged window", labels=["feature"])
            for feature in (*names, PREDICTION):
                # Without a judgement 0; NaN where the judged window had no predictions.
                family.add_metric([feature], 0.0 if values is None else values.get(feature, np.nan))
            yield family
        for name, words, value in (
            ("drift_ratio", "Largest distance over its limit, last judged window", last.ratio if last else 0),
            ("judged_timestamp_seconds", "When the last window was judged", last.closed_at if last else 0),
            ("window_rows", "Rows in the sample of the window being filled", published.window_rows),
            ("window_age_seconds", "Age of the window being filled", time.monotonic() - published.window_opened),
            ("state_restored", "1 if a former state was taken up at the start", int(published.restored)),
            ("copies_unsettled", "Copies that wait or are being worked on", unsettled),
        ):
            yield GaugeMetricFamily(f"detectors_{name}", words, value)
        yield InfoMetricFamily("detectors", "What judges", self.info)

    def _feature_values(self, tally: Tally) -> Metric:
        family = HistogramMetricFamily("detectors_feature_value", "Finite values received", labels=["feature"])
        for column, name in enumerate(self.measurement.names):
            family.add_metric([name], *_filled(self.measurement.buckets, tally, column))
        return family


def registry(exposition: Exposition) -> CollectorRegistry:
    """The detectors' metrics and those of their process."""
    made = CollectorRegistry()
    made.register(exposition)
    ProcessCollector(registry=made)
    return made


def _counters(
    name: str, words: str, label: str, values: tuple[str, ...], numbers: list[int] | npt.NDArray[np.int64]
) -> Metric:
    family = CounterMetricFamily(f"detectors_{name}", words, labels=[label])
    for value, number in zip(values, numbers, strict=True):
        family.add_metric([value], int(number))
    return family


def _filled(buckets: Buckets, tally: Tally, column: int) -> tuple[list[tuple[str, int]], float]:
    return buckets.cumulated(tally, column), float(tally.sums[column])
