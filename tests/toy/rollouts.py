"""A stand-in for a target with rollouts: the toy's model served by threads of the test, in versions and replicas.

It does in milliseconds what a cluster does in seconds, and can be told to do it badly: criteria about rollouts are
shown passing and failing on it wherever tests run. tests/kind shows the same on a real cluster.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

import toy
from exhibit.model import Version
from exhibit.rollouts import Canary, Rollouts
from exhibit.targets.local.deployment import LocalDeployment

FAULTS = {
    "loses_at_update": "answers 503 for a moment at each update",
    "mixes_versions": "answers one row of a request by the other version",
    "updates_nothing": "goes on serving what it served",
    "loses_at_kill": "answers 503 for long after a kill",
    "does_not_come_back": "a killed server stays away",
    "takes_any_model": "gets ready with a model that cannot work",
    "stops_for_bad_models": "has no server while a bad model is tried",
    "does_not_scale": "has one server whatever the load",
    "does_not_scale_down": "keeps the second server",
    "canary_gets_half": "gives a canary half of the requests, whatever it was told",
    "healthy_canaries_fail": "a canary fails for rows now and then, whatever its version",
    "canaries_are_the_old_version": "what is called a canary is the stable version",
    "operator_sleeps": "what was deleted stays away",
    "signals_count_errors": "counts errors of a canary that made none",
}
SLOW_SECONDS = 0.05
UPDATE_SECONDS = 0.2


class Standin(Rollouts):
    """One gateway and one canary, both on loopback."""

    def __init__(self, deployment: LocalDeployment, fault: str = "") -> None:
        assert fault in FAULTS or not fault
        self.deployment, self.fault = deployment, fault
        self.served = deployment.model.version("current")
        self.tried: Version | None = None
        self.percent, self.servers, self.most = 0, 1, 1
        self.gone_until = 0.0
        self.counted: Counter[str] = Counter()
        self.random = random.Random(1)
        self.lock = threading.Lock()

    def answer(self, body: bytes, *, canary: bool) -> tuple[int, bytes]:
        """Status and body; through the gateway unless the canary is asked directly."""
        rows = self.deployment.client.rows(body)
        if not canary:
            if time.monotonic() < self.gone_until:
                return 503, b"{}"
            share = 50 if self.fault == "canary_gets_half" and self.percent else self.percent
            with self.lock:
                canary = self.tried is not None and self.random.random() * 100 < share
                if canary:
                    self.counted["2"] += 1
        version = self.tried if canary and self.fault != "canaries_are_the_old_version" else self.served
        assert version is not None
        failing = version.name == "failing" or (canary and self.fault == "healthy_canaries_fail")
        if failing and float(rows[0].sum()) % 1 < 0.15:
            return 500, b"{}"
        if version.name == "slow":
            time.sleep(SLOW_SECONDS)
        expected = toy._predict(rows)
        answers = version.expected(expected)
        if version.name == "shifted":  # not what it claims
            answers = expected / (expected + (1 - expected) / np.e)
        if self.fault == "mixes_versions":
            answers[0] = self.deployment.model.version("next").expected(expected)[0]
        return 200, json.dumps({"probabilities": answers.tolist()}).encode()

    def update(self, version: Version) -> None:
        time.sleep(UPDATE_SECONDS)  # what an update takes here
        if self.fault != "updates_nothing":
            self.served = version
        if self.fault == "loses_at_update":
            self.gone_until = time.monotonic() + 0.1

    def refused(self, version: Version, within_seconds: float) -> str | None:
        if self.fault == "stops_for_bad_models":
            self.gone_until = time.monotonic() + 2 * UPDATE_SECONDS
        time.sleep(UPDATE_SECONDS)
        return None if self.fault == "takes_any_model" else "its pods wait: CrashLoopBackOff"

    @contextmanager
    def canary(self, version: Version) -> Iterator[Canary]:
        with serving(lambda body: self.answer(body, canary=True)) as url:
            canary = _Canary(self, url, self.deployment)
            canary.replace(version)
            yield canary
        self.tried = None

    @contextmanager
    def scaled(self, replicas: int) -> Iterator[None]:
        self.servers = replicas
        yield
        self.servers = 1

    @contextmanager
    def autoscaled(self, most: int) -> Iterator[None]:
        self.most = most
        yield
        self.most = 1

    def ready(self) -> int:
        if self.most > 1:
            busy = any(thread.name == "flow" for thread in threading.enumerate())
            self.servers = 2 if (busy and self.fault != "does_not_scale") else self.servers
            self.servers = 1 if not busy and self.fault != "does_not_scale_down" else self.servers
        return self.servers

    def delete_workload(self) -> None:
        self.gone_until = time.monotonic() + (60 if self.fault == "operator_sleeps" else UPDATE_SECONDS)

    def kill_one(self) -> None:
        if self.fault == "does_not_come_back":
            self.servers -= 1
        if self.fault == "loses_at_kill":
            self.gone_until = time.monotonic() + 0.5


class _Canary(Canary):
    def __init__(self, standin: Standin, url: str, stable: LocalDeployment) -> None:
        self.standin, self.deployment = standin, _at(stable, url)

    def share(self, percent: int) -> None:
        self.standin.percent = percent

    def replace(self, version: Version) -> None:
        self.version = self.standin.tried = version
        self.standin.counted.clear()

    def signals(self) -> Mapping[str, float]:
        errors = 5.0 if self.standin.fault == "signals_count_errors" else 0.0
        return {"requests": float(self.standin.counted.total()), "errors": errors}


def _at(deployment: LocalDeployment, url: str) -> LocalDeployment:
    """The same deployment, as if its server were at `url`."""
    moved = copy(deployment)
    moved.url = url
    return moved


@contextmanager
def serving(answer: Callable[[bytes], tuple[int, bytes]]) -> Iterator[str]:
    """A server on loopback whose answer to a POST is ``answer(body)``; its URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1

        def do_POST(self) -> None:
            status, body = answer(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def rolled_out(deployment: LocalDeployment, fault: str = "") -> Iterator[LocalDeployment]:
    """The deployment with rollouts, and a gateway that knows of them."""
    standin = Standin(deployment, fault)
    with serving(lambda body: standin.answer(body, canary=False)) as url:
        moved = _at(deployment, deployment.url)
        moved.gateway_url, moved.rollouts = url, standin
        yield moved
