"""What Prometheus is told. Every series is there from the start, and no caller can add one."""

from __future__ import annotations

from collections.abc import Iterator

import prometheus_client
from inputs import METHODS
from pool import Pool
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.core import CounterMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

prometheus_client.disable_created_metrics()  # a second series for each, which nobody asks for
OUTCOMES = ("ok", "refused", "failed", "late", "lost", "busy", "left", "error")
BOUNDS_SECONDS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 2, 3, 5, 10)


class _Replaced(Collector):
    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def collect(self) -> Iterator[Metric]:
        name, text = "explainers_workers_replaced", "Workers that ended and were replaced."
        yield CounterMetricFamily(name, text, value=self._pool.replaced)


class Measures:
    """The service's metrics, in a registry of their own."""

    content_type = prometheus_client.CONTENT_TYPE_LATEST

    def __init__(self, pool: Pool, about: dict[str, str]) -> None:
        self._registry = registry = CollectorRegistry()
        self._explanations = Counter(
            "explainers_explanations",
            "Explanations asked for: one a row, and one for a request that could not be read.",
            ("method", "outcome"),
            registry=registry,
        )
        self._seconds = Histogram(
            "explainers_seconds",
            "From a request's arrival to its explanations, however many rows it has.",
            ("method",),
            buckets=BOUNDS_SECONDS,
            registry=registry,
        )
        self.rows_asked = Counter(
            "explainers_rows_asked", "Rows the served model answered for explanations.", registry=registry
        )
        Gauge("explainers_queue", "Requests waiting for a worker.", registry=registry).set_function(
            lambda: pool.waiting
        )
        Gauge("explainers_workers", "Worker processes there are.", registry=registry).set_function(lambda: pool.alive)
        registry.register(_Replaced(pool))
        Info("explainers", "The library that explains.", registry=registry).info(
            {"library": about["name"], "version": about["version"], "licence": about["licence"]}
        )
        for method in METHODS:
            self._seconds.labels(method)
            for outcome in OUTCOMES:
                self._explanations.labels(method, outcome)
        self._explanations.labels("unknown", "refused")

    def count(self, method: str, outcome: str, rows: int, seconds: float | None = None) -> None:
        """Notes the end of a request."""
        self._explanations.labels(method, outcome).inc(rows)
        if outcome == "ok" and seconds is not None:
            self._seconds.labels(method).observe(seconds)

    def text(self) -> bytes:
        """All of them in Prometheus' text format."""
        return prometheus_client.generate_latest(self._registry)
