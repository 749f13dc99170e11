"""Explains predictions of a served model over HTTP: POST /explain, GET /ready, GET /metrics. See README.md."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
import time

import library
import one_thread  # noqa: F401  the nursery inherits the environment
import options
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from errors import InputRefused
from features import FEATURES
from inputs import BODY_BYTES, METHODS, read
from measures import Measures
from pool import Busy, Late, NurseryFailed, Pool, WorkerLost, retry_seconds

LOG = logging.getLogger("explainers")
FINISH_SECONDS = 3.0
"""How long a request may still take after SIGTERM."""
STATUS = {"ok": 200, "refused": 400, "failed": 502, "late": 503, "lost": 503, "busy": 503, "error": 500}


class Service:
    """The HTTP side; explanations are made by the pool's workers."""

    def __init__(self, pool: Pool, about: dict[str, str], deadline_seconds: float) -> None:
        self.pool, self.about, self.deadline_seconds = pool, about, deadline_seconds
        self.measures = Measures(pool, about)
        self._usual_seconds = dict.fromkeys(METHODS, 1.0)

    def application(self) -> web.Application:
        """The paths the service answers."""
        application = web.Application(client_max_size=BODY_BYTES)
        application.router.add_post("/explain", self.explain)
        application.router.add_get("/ready", self.ready)
        application.router.add_get("/metrics", self.metrics)
        return application

    async def ready(self, _: web.Request) -> web.Response:
        """200 while there is a worker."""
        return web.json_response({"workers": self.pool.alive}, status=200 if self.pool.alive else 503)

    async def metrics(self, _: web.Request) -> web.Response:
        """Prometheus' text format."""
        return web.Response(body=self.measures.text(), headers={"Content-Type": self.measures.content_type})

    async def explain(self, request: web.Request) -> web.Response:
        """An explanation a row, or a refusal that says why."""
        try:
            async with asyncio.timeout(self.deadline_seconds):
                body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            reason = f"body: more than {BODY_BYTES} bytes, expected at most that. Send fewer rows at once."
            return self._refuse(reason, 413)
        except TimeoutError:
            return self._refuse(f"body: not there after {self.deadline_seconds:g} s, expected at once. Send it.", 408)
        try:
            wanted = read(body)
        except InputRefused as error:
            return self._refuse(str(error), 400)
        outcome = "left"  # what it is if the caller leaves, which cancels this
        began = time.monotonic()
        try:
            message = {"rows": wanted.rows, "method": wanted.method, "seed": wanted.seed}
            answer = await self._ask(message)
            outcome = answer["outcome"]
        finally:
            seconds = time.monotonic() - began
            self.measures.count(wanted.method, outcome, len(wanted.rows), seconds)
        self.measures.rows_asked.inc(answer.get("rows_asked", 0))
        if outcome == "ok":
            self._usual_seconds[wanted.method] = 0.8 * self._usual_seconds[wanted.method] + 0.2 * seconds
            head = {"method": wanted.method, "seed": wanted.seed, "library": self.about, "features": FEATURES}
            return web.json_response({**head, "settings": answer["settings"], "explanations": answer["explanations"]})
        status = STATUS[outcome]
        again = {"Retry-After": str(retry_seconds(self.pool, self._usual_seconds[wanted.method]))}
        return web.json_response({"error": answer["reason"]}, status=status, headers=again if status == 503 else None)

    async def _ask(self, message: dict[str, object]) -> dict[str, object]:
        try:
            return await self.pool.ask(message, self.deadline_seconds)
        except Busy:
            reason = f"queue: {self.pool.waiting} requests waiting, expected fewer. Ask again later."
            return {"outcome": "busy", "reason": reason}
        except Late:
            reason = f"deadline: no explanation within {self.deadline_seconds:g} s, expected one. Ask again later."
            return {"outcome": "late", "reason": reason}
        except WorkerLost:
            reason = "worker: ended while it worked, expected an answer. Ask again."
            return {"outcome": "lost", "reason": reason}

    def _refuse(self, reason: str, status: int) -> web.Response:
        self.measures.count("unknown", "refused", 1)
        return web.json_response({"error": reason}, status=status)


def is_worth_a_line(record: logging.LogRecord) -> bool:
    """False for bytes that are no HTTP: aiohttp would write a traceback that quotes them for each."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


def parse(argv: list[str]) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    options.add_model(parser)
    options.add_reference(parser)
    parser.add_argument("--host", default="127.0.0.1", help="where to listen (%(default)s)")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--workers", type=options.at_least_one, default=1, help="processes that explain (%(default)s)")
    parser.add_argument("--queue", type=options.not_negative, default=4, help="requests that may wait (%(default)s)")
    parser.add_argument("--deadline-seconds", type=options.seconds, default=10.0, help="for a request (%(default)s)")
    return parser.parse_args(argv)


async def serve(chosen: argparse.Namespace) -> int:
    """Serves until SIGTERM or SIGINT: 0; 1 where no worker can be had, 2 where the address cannot."""
    arguments = ["--client", str(chosen.client), "--reference", str(chosen.reference), "--ask", chosen.ask]
    arguments += ["--content-type", chosen.content_type]
    if chosen.codes:
        arguments += ["--codes", str(chosen.codes)]
    pool = Pool(arguments, chosen.workers, chosen.queue)
    service = Service(pool, library.describe(), chosen.deadline_seconds)
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    # A caller who leaves cancels the handler, and so frees its place.
    runner = web.AppRunner(
        service.application(), access_log=None, handler_cancellation=True, shutdown_timeout=FINISH_SECONDS
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, chosen.host, chosen.port).start()
    except OSError as error:
        LOG.error("%s:%d: %s, expected an address to listen at. Choose another.", chosen.host, chosen.port, error)
        return 2
    LOG.info("listening at http://%s:%d, asking %s", chosen.host, chosen.port, chosen.ask)
    running, stopped = asyncio.create_task(pool.run()), asyncio.create_task(stop.wait())
    await asyncio.wait((running, stopped), return_when=asyncio.FIRST_COMPLETED)
    await runner.cleanup()
    running.cancel()
    try:
        await running
    except NurseryFailed as error:
        LOG.error("%s, expected workers. Read what it says above.", error)
        return 1
    except asyncio.CancelledError:
        pass
    return 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("aiohttp.server").addFilter(is_worth_a_line)
    sys.exit(asyncio.run(serve(parse(sys.argv[1:]))))
