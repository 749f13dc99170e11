"""The toy's server: the standard library's, drained on SIGTERM; its faults are listed in faults.py."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from batcher import Batcher
from faults import FAULT
from weights import COLUMNS, BadInput, checked, explain, predict

BODY_LIMIT_BYTES = 2**20
MODEL = f"/v2/models/{os.environ['MODEL_NAME']}"
INPUT, OUTPUT = ("x", "y") if FAULT == "v2_has_other_names" else ("flights", "late_probability")
METADATA = {
    "/v2": {"name": "toy", "version": "1", "extensions": []},
    "/v2/health/live": {"live": True},
    "/v2/health/ready": {"ready": True},
    MODEL: {
        "name": os.environ["MODEL_NAME"],
        "platform": "toy",
        "inputs": [{"name": INPUT, "datatype": "FP32", "shape": [-1, COLUMNS]}],
        "outputs": [{"name": OUTPUT, "datatype": "FP32", "shape": [-1]}],
    },
    f"{MODEL}/ready": {"name": os.environ["MODEL_NAME"], "ready": True},
}
PAGE_FAULTS = {
    "page_without_labels": (r"</?label.*?>|aria-label=\S+", ""),
    "page_without_a_feature": (r"<input name=.hour.*?>", ""),
    "page_loads_from_elsewhere": ("</head>", '<script src="//elsewhere.invalid/x.js"></script></head>'),
    "page_posts_nowhere": ('action="/predict"', 'action="/nowhere"'),
}
PAGE = re.sub(*PAGE_FAULTS.get(FAULT, ("", "")), Path("page.html").read_text(encoding="utf-8"))


class Refusal(Exception):
    """An answer that is no prediction."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Server(ThreadingHTTPServer):
    """Counts requests; told to stop, it answers what was begun and closes idle connections."""

    daemon_threads = False  # server_close waits for them
    request_queue_size = 256

    def __init__(self, address: tuple[str, int]) -> None:
        super().__init__(address, Handler)
        self.lock, self.batcher = threading.Lock(), Batcher()
        self.requests: Counter[str] = Counter()
        self.idle: set[socket.socket] = set()
        self.stopping, self.spoilt = False, False

    def stop(self) -> None:
        with self.lock:
            self.stopping = True
            for connection in self.idle:
                connection.shutdown(socket.SHUT_RD)
        self.shutdown()


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: Server
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # header and body in one packet
    disable_nagle_algorithm = True

    def handle_one_request(self) -> None:
        with self.server.lock:
            self.server.idle.add(self.connection)
            if self.server.stopping:
                self.connection.shutdown(socket.SHUT_RD)
        super().handle_one_request()

    def parse_request(self) -> bool:
        with self.server.lock:
            self.server.idle.discard(self.connection)
        return super().parse_request()

    def finish(self) -> None:
        with self.server.lock:
            self.server.idle.discard(self.connection)
        super().finish()

    def do_GET(self) -> None:
        if self.path == "/web" and FAULT != "page_is_missing":
            self._send(200, PAGE, "text/html; charset=utf-8")
        elif self.path == "/metrics":
            self._send(200, self._metrics(), "text/plain; version=0.0.4")
        elif self.path in METADATA:
            never = FAULT == "never_ready" and self.path.endswith("/ready")
            self._send_json(503 if never else 200, METADATA[self.path])
        else:
            self._send_json(404, {"error": "no such page"})

    def do_POST(self) -> None:
        try:
            self._send_json(200, self._answer(self._body()))
        except (Refusal, BadInput) as refusal:
            self.server.spoilt = True
            reason = traceback.format_exc() if FAULT == "leaks_traceback" else str(refusal)
            status = refusal.status if isinstance(refusal, Refusal) else 400
            self._send(status, "" if FAULT == "refuses_in_silence" else json.dumps({"error": reason}))
        except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError):
            self._send_json(500, {"error": "the server failed"})

    def _body(self) -> Any:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if len(body) > BODY_LIMIT_BYTES and FAULT != "accepts_2_mib":
            raise Refusal(413, "the body is larger than 1 MiB")
        if FAULT == "dies_of_bad_input" and b"NaN" in body:
            os._exit(3)
        try:
            found = json.loads(body)
        except ValueError:
            if FAULT == "breaks_on_bad_input":
                raise
            raise Refusal(400, "the body is no JSON") from None
        if not isinstance(found, dict):
            raise Refusal(400, "the body is no JSON object")
        return found

    def _answer(self, body: dict[str, Any]) -> dict[str, Any]:
        if FAULT == "never_ready":
            raise Refusal(503, "not ready yet")
        if self.path == "/predict":
            answer = {"probabilities": self._predict(checked(body.get("rows")))}
        elif self.path == "/predict_batched":
            answer = {"probabilities": self.server.batcher.predict(checked(body.get("rows")))}
        elif self.path == "/explain":
            answer = {"values": "the weather" if FAULT == "explains_in_words" else explain(checked(body.get("rows")))}
        elif self.path == f"{MODEL}/infer" or (FAULT == "v2_knows_every_model" and self.path.endswith("/infer")):
            answer = self._infer(body)
        else:
            raise Refusal(404, "no such model or path")
        if FAULT == "burns_cpu":
            until = time.thread_time() + 0.01
            while time.thread_time() < until:
                pass
        with self.server.lock:
            self.server.requests[self.path] += 2 if FAULT == "counts_twice" else 1
        if FAULT == "answers_503_when_stopping" and len(body.get("rows", [])) > 1000:
            time.sleep(0.3)  # a slow request, so that it is not answered before the signal is seen
            if self.server.stopping:
                raise Refusal(503, "stopping")
        return answer

    def _predict(self, rows: list[tuple[float, ...]]) -> list[float]:
        if FAULT == "answers_500" and len(rows) == 1:
            raise Refusal(500, "the server failed")
        answers = predict(rows)
        if FAULT == "wrong_in_large_batches" or (FAULT == "wrong_after_bad_input" and self.server.spoilt):
            answers[4:] = [answer + 1e-3 for answer in answers[4:]]
        if FAULT == "answers_nan":
            answers[4:] = [float("nan") for _ in answers[4:]]
        if FAULT == "wrong_now_and_then" and len(rows) == 1 and self.server.requests[self.path] % 10 == 0:
            answers[0] += 1e-3
        return answers

    def _infer(self, body: dict[str, Any]) -> dict[str, Any]:
        [tensor] = body["inputs"]
        data, shape = tensor["data"], tensor["shape"]
        if not isinstance(data[0], list):
            data = [data[at : at + COLUMNS] for at in range(0, len(data), COLUMNS)]
        if FAULT == "v2_takes_any_shape":
            data = [(row + [0] * COLUMNS)[:COLUMNS] for row in data]
        elif shape != [len(data), COLUMNS]:
            raise Refusal(400, f"the shape must be [n, {COLUMNS}] and that of the data")
        answers = predict(checked(data))
        if FAULT == "v2_is_wrong":
            answers[0] += 1e-3
        output = {"name": OUTPUT, "datatype": "FP32", "shape": [len(answers)], "data": answers}
        return {"model_name": "toy", "id": body.get("id", ""), "outputs": [output]}

    def _metrics(self) -> str:
        requests, batcher = self.server.requests, self.server.batcher
        counted = {} if FAULT == "counts_nothing" else requests
        return "\n".join(
            [
                "# TYPE toy_requests_total counter",
                *(f'toy_requests_total{{path="{path}"}} {count}' for path, count in counted.items()),
                "# TYPE toy_batch_size histogram",
                f'toy_batch_size_bucket{{le="+Inf"}} {batcher.calls}',
                f"toy_batch_size_sum {batcher.rows}",
                f"toy_batch_size_count {batcher.calls}",
                "",
            ]
        )

    def _send_json(self, status: int, answer: dict[str, Any]) -> None:
        self._send(status, json.dumps(answer))

    def _send(self, status: int, text: str, content_type: str = "application/json") -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        if self.server.stopping:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, *_: object) -> None:
        """No access log."""


def main() -> None:
    if FAULT == "dies_at_once":
        sys.exit("the toy was told to end at once")
    if FAULT == "starts_slowly":
        time.sleep(1.5)
    server = Server((os.environ["HOST"], int(os.environ["PORT"])))

    def on_sigterm(*_: object) -> None:
        # In a thread of its own: shutdown waits for serve_forever, which this thread runs.
        threading.Thread(target=server.stop).start()

    handlers = {"ignores_sigterm": signal.SIG_IGN, "drops_in_flight": signal.SIG_DFL}
    signal.signal(signal.SIGTERM, handlers.get(FAULT, on_sigterm))
    if FAULT == "leaves_a_child_listening":
        os.set_inheritable(server.fileno(), True)
        subprocess.Popen(["sleep", "30"], close_fds=False)
    server.serve_forever(poll_interval=0.02)
    server.server_close()


if __name__ == "__main__":
    main()
