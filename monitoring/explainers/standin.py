"""A served model for the tests: {"rows": [[...]]} -> [...] over HTTP, with known answers and faults to order."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import one_thread  # noqa: F401  before numpy

# isort: split
import numpy as np
import numpy.typing as npt
from features import CATEGORIES, FEATURES

CODES = {"carrier": 16, "origin": 3, "weekday": 7}
SLOPES = np.array([0.006, -0.04, 0.01, 0.012, -0.00006, 0.001, -0.0015, 0.002, 0.003, 0.05, -0.001, -0.01])
CENTRE = np.array([8, 1, 3, 13, 1000, 40, 25, 60, 10, 0.1, 1015, 9])
CLIENT = """
import json
import numpy as np

def encode(rows):
    return json.dumps({"rows": np.asarray(rows, dtype=np.float64).tolist()}).encode()

def decode(body):
    return np.asarray(json.loads(body), dtype=np.float64)

def rows(body):
    return np.asarray(json.loads(body)["rows"], dtype=np.float32)
"""

Predict = Callable[[npt.NDArray[np.floating]], npt.NDArray[np.float64]]


def linear(rows: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """P [n], in (0, 1) for the rows of `make_rows`; its Shapley values are slope * (value - mean of background)."""
    return 0.4 + (np.asarray(rows, dtype=np.float64) - CENTRE) @ SLOPES


def curved(rows: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """P [n] with interactions between features, so that samples and seeds matter."""
    x = (np.asarray(rows, dtype=np.float64) - CENTRE) * SLOPES * 10
    return 1 / (1 + np.exp(1 - x[:, 3] - x[:, 3] * x[:, 7] - np.abs(x[:, 5]) * x[:, 0] - np.sin(3 * x[:, 2]) + x[:, 1]))


def make_rows(count: int, seed: int = 0) -> npt.NDArray[np.float32]:
    """Rows float32 [count, k] that look like flights."""
    random = np.random.default_rng(seed)
    spreads = np.array([0, 0, 0, 5, 500, 12, 12, 15, 5, 0.1, 8, 1])
    rows = CENTRE + random.uniform(-1, 1, (count, len(FEATURES))) * spreads
    rows[:, 3] = rows[:, 3].round()
    for name in CATEGORIES:
        rows[:, FEATURES.index(name)] = random.integers(0, CODES[name], count)
    return rows.astype(np.float32)


def write_files(folder: Path, predict: Predict = linear, rows: int = 600) -> tuple[Path, Path]:
    """client.py and reference.npz in `folder`."""
    (folder / "client.py").write_text(CLIENT, encoding="utf-8")
    reference = make_rows(rows)
    np.savez(folder / "reference.npz", rows=reference, expected=predict(reference))
    return folder / "client.py", folder / "reference.npz"


class StandIn:
    """Answers on a port of its own until `close`; `open` again takes the same port."""

    def __init__(self, predict: Predict = linear) -> None:
        self.predict = predict
        self.reply: Callable[[bytes], tuple[int, bytes | Iterator[bytes]]] = self.answer
        """Exchange it for a fault: request body -> status and body; one in pieces never comes to its end."""
        self.gate = threading.Event()
        """Requests wait for it; closed by `gate.clear`."""
        self.gate.set()
        self.arrived = threading.Semaphore(0)
        """Released once for each request that arrives."""
        self.bodies: list[int] = []
        """Bytes of each request's body."""
        self.rows: list[npt.NDArray[np.float32]] = []
        self.drop = 0
        """So many of the next requests have their connection closed instead of an answer."""
        self._port = 0
        self._connections: list[socket.socket] = []
        self.open()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/predict"

    def answer(self, body: bytes) -> tuple[int, bytes]:
        """The right answer to a request."""
        rows = np.asarray(json.loads(body)["rows"], dtype=np.float32)
        self.rows.append(rows)
        return 200, json.dumps(self.predict(rows).tolist()).encode()

    def open(self) -> None:
        """Starts to listen."""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.bodies.append(len(body))
                outer.arrived.release()
                outer.gate.wait()
                if outer.drop > 0:
                    outer.drop -= 1
                    self.close_connection = True
                    return
                status, answer = outer.reply(body)
                self.send_response(status)
                if status in (301, 307):
                    self.send_header("Location", outer.url)
                pieces = [answer] if isinstance(answer, bytes) else answer
                self.send_header("Content-Length", str(len(answer) if isinstance(answer, bytes) else 2**19))
                self.end_headers()
                for piece in pieces:
                    self.wfile.write(piece)

            def log_message(self, *_: object) -> None: ...

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def process_request(self, request: socket.socket, address: tuple[str, int]) -> None:
                outer._connections.append(request)
                super().process_request(request, address)

            def handle_error(self, *_: object) -> None: ...  # a client that was killed

        self._server = Server(("127.0.0.1", self._port), Handler)
        self._port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stops to listen, and ends the connections there are."""
        self.gate.set()
        self._server.shutdown()
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._server.server_close()
        self._thread.join()
