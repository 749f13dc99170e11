"""The admin port: /ready, /metrics and /windows."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web
from judgements import listed
from ledger import Ledger
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder


class Admin:
    """Pages about the detectors; 503 until `begin` was called, which is when they are fitted and take copies."""

    def __init__(self) -> None:
        self._ledger: Ledger | None = None
        self._registry: CollectorRegistry | None = None

    def begin(self, ledger: Ledger, registry: CollectorRegistry) -> None:
        """From now on all pages answer."""
        self._registry, self._ledger = registry, ledger

    def application(self) -> web.Application:
        application = web.Application()
        application.router.add_get("/ready", self._when_ready(self._ready))
        application.router.add_get("/metrics", self._when_ready(self._metrics))
        application.router.add_get("/windows", self._when_ready(self._windows))
        return application

    def _when_ready(
        self, page: Callable[[web.Request, Ledger], web.Response]
    ) -> Callable[[web.Request], web.StreamResponse]:
        async def answer(request: web.Request) -> web.StreamResponse:
            if self._ledger is None:
                return web.Response(status=503, text="the detectors are being fitted\n", headers={"Retry-After": "1"})
            return page(request, self._ledger)

        return answer

    def _ready(self, request: web.Request, ledger: Ledger) -> web.Response:
        return web.Response(text="ready\n")

    def _metrics(self, request: web.Request, ledger: Ledger) -> web.Response:
        assert self._registry is not None
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(self._registry), headers={"Content-Type": content_type})

    def _windows(self, request: web.Request, ledger: Ledger) -> web.Response:
        return web.json_response(listed(ledger.published.judgements))
