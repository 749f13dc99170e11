"""Detectors beside one deployment: drift, outliers and statistics of the requests that are copied to them.

Any request to the copies port is a copy of one to the served model; it is answered 202 at once. On the admin port
/metrics is for Prometheus, /windows lists the windows judged, and /ready answers 200 once copies are taken in.
Exit codes: 0 ended by SIGTERM or SIGINT, 1 a fault of this program, 2 could not run.
"""

from __future__ import annotations

import one_thread  # noqa: F401 — before anything imports numpy

# isort: split

import argparse
import asyncio
import gc
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path

import clients
import copies
from admin import Admin
from aiohttp import web
from errors import DetectorsError
from exposition import Exposition, registry
from fitting import fit
from intake import Intake
from ledger import Ledger, Periods
from owner import Owner
from served import ServedModel
from state import StateFolder

LOG = logging.getLogger("detectors")

ARRIVE_SECONDS, ASK_SECONDS, FINISH_SECONDS = 0.5, 1.0, 2.0
"""After SIGTERM: how long bodies may go on arriving, answers be waited for, and waiting copies be worked on."""


def read_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; a wrong one ends the program with exit code 2."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--client", type=Path, required=True, help="client.py of the served model: encode, decode, rows")
    add("--reference", type=Path, required=True, help="reference.npz: rows and predictions to compare with")
    add("--calibration", type=Path, required=True, help="calibration.json: the limits")
    add("--state", type=Path, required=True, help="folder that outlives a restart, one for each process")
    add("--host", default="127.0.0.1", help="address to listen at (default: %(default)s)")
    add("--copies-port", type=int, required=True, help="where the copies come in")
    add("--admin-port", type=int, required=True, help="/ready, /metrics, /windows")
    add("--ask", required=True, metavar="URL", help="where the served model answers requests that nobody copies")
    add("--content-type", default="application/json", help="of a request (default: %(default)s)")
    add("--window-seconds", type=_positive, default=604800.0, help="period of a drift window (default: a week)")
    add("--window-rows", type=int, default=500, help="rows in a window's sample (default: %(default)s)")
    add("--least-rows", type=int, default=200, help="a window with fewer is not judged yet (default: %(default)s)")
    add("--batch-seconds", type=_positive, default=2.0, help="how long copies are gathered (default: %(default)s)")
    add("--answer-seconds", type=_positive, default=1.0, help="wait for the served model (default: %(default)s)")
    options = parser.parse_args(argv)
    if not 1 <= options.least_rows <= options.window_rows:
        parser.error(f"--least-rows {options.least_rows}, expected 1 to --window-rows {options.window_rows}")
    return options


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}, expected a number above zero")
    return value


class Service:
    """The process: an event loop for the ports in the main thread, and the owner's thread."""

    def __init__(self, options: argparse.Namespace, client: clients.Client, folder: StateFolder) -> None:
        self.options, self.client, self.folder = options, client, folder
        self.intake, self.admin = Intake(), Admin()
        self.ended = asyncio.Event()
        self.fitted = self.abandoned = False
        self.failure: BaseException | None = None
        self._finish_by = float("inf")
        self._loop = asyncio.get_running_loop()
        self.served = ServedModel(options.ask, options.content_type, client, self._loop, options.answer_seconds)

    async def run(self) -> None:
        """Listens at once, works when fitted, and returns when told to stop or when the owner's thread has failed."""
        copies_server = web.Server(copies.Copies(self.intake), **copies.SERVER_OPTIONS)
        admin = web.AppRunner(self.admin.application(), access_log=None, handle_signals=False)
        await admin.setup()
        runner = web.ServerRunner(copies_server)
        await runner.setup()
        await self._listen(admin, self.options.admin_port)
        await self._listen(runner, self.options.copies_port)
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self.ended.set)
        owner = threading.Thread(target=self._own, name="owner", daemon=True)
        owner.start()
        await self.ended.wait()
        self._finish_by = time.monotonic() + FINISH_SECONDS
        self.served.end(ASK_SECONDS)
        for site in list(runner.sites):
            await site.stop()
        copies_server.pre_shutdown()
        await copies_server.shutdown(ARRIVE_SECONDS)
        self.intake.close()
        self.abandoned = not self.fitted and self.failure is None
        if not self.abandoned:
            await asyncio.to_thread(owner.join)
        await self.served.close()
        await admin.cleanup()

    async def _listen(self, runner: web.BaseRunner, port: int) -> None:
        try:
            await web.TCPSite(runner, self.options.host, port).start()
        except OSError as error:
            address = f"{self.options.host}:{port}"
            raise DetectorsError(address, error.strerror or str(error), "a free port", "Give another.") from error

    def _own(self) -> None:
        """The owner's thread."""
        try:
            owner = self._fit()
            self.fitted = True
            owner.run(lambda: self._finish_by)
        except BaseException as error:
            self.failure = error
        finally:
            self._loop.call_soon_threadsafe(self.ended.set)

    def _fit(self) -> Owner:
        options = self.options
        fitted = fit(options.reference, options.calibration)
        periods = Periods(options.batch_seconds, options.window_seconds, options.window_rows, options.least_rows)
        basis = f"{fitted.basis}, {options.window_rows} rows"
        ledger = Ledger(self.folder, fitted.measurement, periods, basis)
        owner = Owner(self.client, fitted.measurement, fitted.judge, self.served.predictions, self.intake, ledger)
        ledger.commit()
        exposition = Exposition(ledger, fitted.measurement, self.intake, fitted.info)
        # What was imported stays for ever: without this each full collection walks through all of it.
        gc.collect()
        gc.freeze()
        self._loop.call_soon_threadsafe(self.admin.begin, ledger, registry(exposition))
        LOG.info(
            "ready: %s %s (%s), calibration %s, state %s",
            *(fitted.info[name] for name in ("library", "version", "licence", "calibration")),
            "taken up" if ledger.restored else "new",
        )
        return owner


async def serve(options: argparse.Namespace) -> Service:
    """Runs until stopped.

    Raises:
        DetectorsError: a file, the state folder or a port is not as it must be.
    """
    client = clients.load(options.client)
    service = Service(options, client, StateFolder(options.state))
    await service.run()
    if service.failure:
        raise service.failure
    return service


def main() -> int:
    """Runs the program; its exit code."""
    options = read_arguments()
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("aiohttp").setLevel(logging.CRITICAL)  # it tells of each request that is no HTTP
    try:
        service = asyncio.run(serve(options))
    except DetectorsError as error:
        print(error, file=sys.stderr)
        return 2
    if service.abandoned:
        LOG.info("told to stop before anything was fitted")
        sys.stdout.flush()
        os._exit(0)  # the thread that imports cannot be interrupted, and holds nothing that could be lost
    return 0


if __name__ == "__main__":
    sys.exit(main())
