"""The model's own metrics, beside MLServer's at /metrics.

Plain prometheus_client: with `parallel_workers` 0 the metrics of `mlserver.register` never reach that endpoint. In a
module of their own: MLServer reloads a runtime's module for each of its models, and a metric can be created only once.
"""

from prometheus_client import Histogram

PROBABILITY = Histogram(
    "flight_delay_probability",
    "Predicted probability of a late arrival, one observation a row",
    buckets=[tenth / 10 for tenth in range(1, 10)],
)
BATCH_SIZE = Histogram(
    "flight_delay_batch_size",
    "Rows the model answered in one call for the requests of several callers",
    buckets=[1, 2, 4, 8, 16, 32, 64, 128],
)
