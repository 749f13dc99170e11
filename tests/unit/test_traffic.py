"""Traffic is open loop: a stall of the server shows as latency of every request that was due meanwhile."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pytest

from exhibit import traffic
from exhibit.contract import Predict
from exhibit.errors import ContractError
from exhibit.model import Flights
from exhibit.traffic import Phase, Scenario
from exhibit.workspace import Workspace

FLIGHTS = Flights(np.arange(36, dtype=np.float32).reshape(3, 12), np.array([0.0, 12.0, 24.0]) / 100)
PREDICT = Predict(path="/predict", content_type="application/json")


class Client:
    """Bodies are JSON lists; the answer of a row is its first number over 100."""

    def encode(self, rows: npt.NDArray[np.float32]) -> bytes:
        return json.dumps(rows.tolist()).encode()

    def decode(self, body: bytes) -> npt.NDArray[np.float64]:
        return np.asarray(json.loads(body), dtype=np.float64)

    def rows(self, body: bytes) -> npt.NDArray[np.float32]:
        return np.asarray(json.loads(body), dtype=np.float32)


class Server(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    fault: ClassVar[str] = ""
    stalled: ClassVar[threading.Lock] = threading.Lock()

    def do_POST(self) -> None:
        rows = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.stalled:
            pass
        offset = 0.5 if self.fault == "wrong" else 0
        body = (
            b"not json" if self.fault == "unreadable" else json.dumps([row[0] / 100 + offset for row in rows]).encode()
        )
        self.send_response(500 if self.fault == "500" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
    Server.fault = ""


def scenario(seconds: float = 0.5, requests_per_second: float = 60) -> Scenario:
    return Scenario(
        title="Test",
        flights="january_march",
        seed=1,
        arrival="poisson",
        phases=[Phase(seconds=seconds, requests_per_second=requests_per_second)],
    )


def test_every_answer_is_compared_with_the_expected_one(url: str) -> None:
    report = traffic.send("test", scenario(), FLIGHTS, url, PREDICT, Client())
    assert (report.sent, report.right, report.wrong, report.dropped) == (30, 30, 0, 0)
    assert len(report.latencies_ms) == 30
    assert report.all_right


@pytest.mark.parametrize(("fault", "reason"), [("500", "status 500"), ("unreadable", "unreadable answer")])
def test_what_is_no_prediction_is_counted_by_reason(url: str, fault: str, reason: str) -> None:
    Server.fault = fault
    report = traffic.send("test", scenario(), FLIGHTS, url, PREDICT, Client())
    assert (report.right, dict(report.failures)) == (0, {reason: 30})
    assert not report.all_right


def test_a_wrong_probability_is_not_right(url: str) -> None:
    Server.fault = "wrong"
    report = traffic.send("test", scenario(), FLIGHTS, url, PREDICT, Client())
    assert (report.right, report.wrong) == (0, 30)


def test_nobody_there_is_counted_and_raises_nothing() -> None:
    report = traffic.send("test", scenario(), FLIGHTS, "http://127.0.0.1:9", PREDICT, Client())
    assert report.sent == sum(report.failures.values()) == 30


def test_a_stall_is_charged_from_the_intended_send_time(url: str) -> None:
    """All requests are due while the server stalls; closed-loop driving would report only the first as slow."""
    Server.stalled.acquire()
    released = threading.Timer(0.6, Server.stalled.release)
    released.start()
    report = traffic.send("test", scenario(seconds=0.3), FLIGHTS, url, PREDICT, Client())
    released.join()
    assert report.right == 18
    assert min(report.latencies_ms) >= 250


def test_requests_open_at_once_are_bounded(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traffic, "MAX_IN_FLIGHT", 4)
    Server.stalled.acquire()
    released = threading.Timer(0.6, Server.stalled.release)
    released.start()
    report = traffic.send("test", scenario(seconds=0.3), FLIGHTS, url, PREDICT, Client())
    released.join()
    assert (report.sent, report.dropped) == (4, 14)


def test_send_times_are_the_same_for_a_seed_and_within_their_phase() -> None:
    two = scenario().model_copy(
        update={"phases": [Phase(seconds=1, requests_per_second=10), Phase(seconds=2, requests_per_second=5)]}
    )
    times = two.intended_seconds()
    assert np.array_equal(times, two.intended_seconds())
    assert np.all(np.diff(times) >= 0)
    assert (times < 1).sum() == 10
    assert len(times) == 20


def test_a_broken_scenario_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "traffic").mkdir()
    (tmp_path / "traffic" / "x.yaml").write_text("title: X\nflights: y\nseed: 1\narrival: often\nphases: []\n")
    with pytest.raises(ContractError) as caught:
        traffic.load_scenarios(Workspace(tmp_path))
    assert [breach.subject for breach in caught.value.breaches] == [
        "traffic/x.yaml:4: arrival",
        "traffic/x.yaml:5: phases",
    ]


def test_the_scenarios_of_this_checkout_are_valid() -> None:
    scenarios = traffic.load_scenarios(Workspace(Path(__file__).resolve().parents[2]))
    assert {"steady", "burst"} <= set(scenarios)
