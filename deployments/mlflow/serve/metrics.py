"""What the scoring server lacks: Prometheus counters of requests, their duration, and the predictions."""

import time
from collections.abc import Sequence

from prometheus_client import Counter, Histogram
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
TENTHS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)

REQUESTS = Counter("http_requests", "Requests answered.", ["route", "status"])
DURATION = Histogram("http_request_duration_seconds", "Time until the answer was sent.", ["route"], buckets=SECONDS)
PROBABILITY = Histogram("flight_delay_probability", "Predicted probability of a late arrival.", buckets=TENTHS)


class RequestMetrics:
    """Pure ASGI middleware that counts and times requests.

    The label is the template of the route, never the URL: unknown paths share one series, so a scanner cannot
    fill the memory.
    """

    def __init__(self, app: ASGIApp, routes: Sequence[BaseRoute]) -> None:
        self.app = app
        self.templates = [(route.path_regex, route.path) for route in routes if isinstance(route, Route)]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status = 500  # what uvicorn answers when the application raises before it has sent anything

        async def send_observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        start = time.perf_counter()
        try:
            await self.app(scope, receive, send_observed)
        finally:
            route = next((path for regex, path in self.templates if regex.match(scope["path"])), "unknown")
            REQUESTS.labels(route, status).inc()
            DURATION.labels(route).observe(time.perf_counter() - start)
