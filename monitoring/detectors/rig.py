"""What the tests of this folder share: a small reference, a toy client, a served model that can fail, the service.

Standard library's unittest, so that the service's environment holds no test runner. Run here, with that environment:
`python -m unittest discover`.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
from aiohttp import web

HERE = Path(__file__).resolve().parent
FEATURES = ("carrier", "origin", "weekday", "hour", "distance", "temp", "dewp", "humid", "wind_speed", "precip",
            "pressure", "visib")  # fmt: skip
CODES = {"carrier": 16, "origin": 3, "weekday": 7}
CLIENT = '''"""The toy's protocol: {"rows": [[...]]} -> {"probabilities": [...]}."""
import json
import numpy as np


def encode(rows):
    return json.dumps({"rows": np.asarray(rows, np.float64).tolist()}).encode()


def decode(body):
    return np.asarray(json.loads(body)["probabilities"], np.float64)


def rows(body):
    return np.asarray(json.loads(body)["rows"], np.float32)
'''
PATIENCE_SECONDS = 40.0
"""Until what must come at once is given up; long, for a busy machine."""


def probabilities(rows: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """What the served model answers to rows [n, 12]."""
    return 1 / (1 + np.exp(-(np.asarray(rows, np.float64)[:, 3] - 13) / 5))


def flights(count: int, seed: int = 1) -> npt.NDArray[np.float32]:
    """Rows [count, 12] like those of the reference, each value in its range."""
    random = np.random.default_rng(seed)
    columns = [random.integers(0, codes, count) for codes in CODES.values()]
    columns.append(random.integers(5, 24, count))
    columns += [np.clip(random.normal(50, 10, count), 15, 85) for _ in FEATURES[4:]]
    return np.column_stack(columns).astype(np.float32)


def encode(rows: npt.NDArray[Any]) -> bytes:
    """The toy's request for rows [n, 12]."""
    return json.dumps({"rows": np.asarray(rows, np.float64).tolist()}).encode()


def judge(rows: Any, predictions: Any) -> Any:
    """Drift is the mean temperature's distance from 50 in tens; predictions must be as many as rows."""
    assert predictions is None or len(predictions) == len(rows) > 0
    values = {"temp": abs(float(rows[:, 5].mean()) - 50) / 10}
    if predictions is not None:
        values["prediction"] = abs(float(predictions.mean()) - 0.5)
    return SimpleNamespace(distances=values, p_values=dict.fromkeys(values, 0.5), limits=dict.fromkeys(values, 0.5))


def until(condition: Callable[[], Any], what: str, seconds: float = PATIENCE_SECONDS) -> Any:
    """The first true value of `condition`, asked again and again; AssertionError after `seconds`."""
    deadline, pause = time.monotonic() + seconds, threading.Event()
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        pause.wait(0.03)
    return found


class Files(unittest.TestCase):
    """A temporary folder with a reference, a calibration and a client.py."""

    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = Path(temporary.name)
        write_files(self.folder)


def write_files(folder: Path) -> None:
    """Writes reference.npz, calibration.json and client.py."""
    rows = flights(1000, seed=0)
    np.savez(folder / "reference.npz", rows=rows, expected=probabilities(rows))
    ranges = {name: [15.0, 85.0] for name in FEATURES} | {"hour": [5.0, 23.0]}
    ranges |= {name: [float(code) for code in range(codes)] for name, codes in CODES.items()}
    limits = dict.fromkeys((*FEATURES, "prediction"), 0.2) | dict.fromkeys(CODES, 0.5)
    known = {"outlier_limit": 40.0, "drift_limits": limits, "window_rows": 500, "ranges": ranges}
    (folder / "calibration.json").write_text(json.dumps(known))
    (folder / "client.py").write_text(CLIENT)


class ServedStub:
    """A served model of aiohttp's, in a thread of its own; `fault` says how it fails."""

    def __init__(self) -> None:
        self.fault = ""
        self.sizes: list[int] = []
        """Rows of each request."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.port = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/predict"

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self) -> int:
        application = web.Application(client_max_size=2**20)
        application.router.add_post("/predict", self._predict)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return int(self._runner.addresses[0][1])

    async def _predict(self, request: web.Request) -> web.StreamResponse:
        rows = np.asarray(json.loads(await request.read())["rows"])
        self.sizes.append(len(rows))
        answers = probabilities(rows).tolist()
        if self.fault == "hangs":
            await asyncio.Event().wait()
        if self.fault == "answers 500":
            return web.Response(status=500, text="broken")
        if self.fault == "hangs up" and request.transport:
            request.transport.close()
        if self.fault == "is no JSON":
            return web.Response(text="<html>")
        if self.fault == "is one short":
            answers = answers[1:]
        if self.fault == "is no number twice":
            answers[:2] = [float("nan"), float("inf")]
        if self.fault == "is endless":
            response = web.StreamResponse()
            await response.prepare(request)
            while True:
                await response.write(b"0" * 65536)
        if self.fault == "dribbles":
            response = web.StreamResponse()
            await response.prepare(request)
            while True:
                await response.write(b" ")
                await asyncio.sleep(0.02)
        if self.fault == "refuses large values" and (rows > 1000).any():
            return web.Response(status=400, text="a value is too large")
        return web.json_response({"probabilities": answers})


def free_port() -> int:
    """A port that nobody listens at just now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Detectors:
    """The service as a process."""

    def __init__(self, folder: Path, ask: str, **options: object) -> None:
        self.copies_port, self.admin_port = free_port(), free_port()
        self.log = folder / "log.txt"
        argv = [sys.executable, str(HERE / "service.py")]
        known: dict[str, object] = {
            "client": folder / "client.py",
            "reference": folder / "reference.npz",
            "calibration": folder / "calibration.json",
            "state": folder / "state",
            "copies-port": self.copies_port,
            "admin-port": self.admin_port,
            "ask": ask,
            "window-seconds": 3600,
            "batch-seconds": 0.1,
        }
        for name, value in (known | {name.replace("_", "-"): value for name, value in options.items()}).items():
            argv += [f"--{name}", str(value)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=log)

    def ready(self) -> Detectors:
        """Waits until it is."""

        def is_ready() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            return self.get("/ready")[0] == 200

        until(is_ready, "the service to be ready")
        return self

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body of a page of the admin port; (0, b"") when nobody listens."""
        connection = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=PATIENCE_SECONDS)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        except OSError:
            return 0, b""
        finally:
            connection.close()

    def metrics(self) -> dict[str, float]:
        """Each series with its value."""
        status, body = self.get("/metrics")
        assert status == 200, body
        lines = [line for line in body.decode().splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}

    def settled(self, copies: int) -> dict[str, float]:
        """The metrics once `copies` have been counted."""
        return until(
            lambda: (
                (now := self.metrics())["detectors_copies_total"] >= copies
                and now["detectors_copies_unsettled"] == 0
                and now
            ),
            f"{copies} copies to be counted",
        )

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        """Ends it as `kill -9` does."""
        self.signal(signal.SIGKILL)
        self.process.wait()

    def close(self) -> None:
        if self.process.poll() is None:
            self.kill()


def request(body: bytes, method: str = "POST", path: str = "/predict", headers: str = "") -> bytes:
    """The bytes of an HTTP request."""
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body


def send(port: int, requests: Iterable[bytes]) -> list[int]:
    """Sends whole requests over one connection, without waiting between them; the status of each answer."""
    sent = list(requests)
    with socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS) as connection:

        def write() -> None:
            with contextlib.suppress(OSError):  # a service that was killed: its answers end as well
                connection.sendall(b"".join(sent))

        writer = threading.Thread(target=write)
        writer.start()
        received = b""
        while len(found := re.findall(rb"HTTP/1\.1 (\d+)", received)) < len(sent):
            piece = connection.recv(2**16)
            if not piece:
                break
            received += piece
        writer.join()
    return [int(status) for status in found]


def conserved(now: dict[str, float]) -> bool:
    """Whether each copy was counted once, where every copy holds one row."""
    return now["detectors_copies_total"] == now["detectors_records_total"] + dropped(now)


def dropped(now: dict[str, float]) -> float:
    """Copies dropped for any reason."""
    return sum(value for name, value in now.items() if name.startswith("detectors_dropped_total"))
