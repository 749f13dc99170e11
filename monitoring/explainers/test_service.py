"""The service as a process: right answers or none, whatever is killed, hangs or is sent. Needs Linux's /proc."""

# ruff: noqa: PT009 (pytest is not there)
from __future__ import annotations

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
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import library
import numpy as np
import numpy.typing as npt
import standin
from features import FEATURES

HERE = Path(__file__).resolve().parent
LIMIT_SECONDS = 60.0


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Looks again and again, since there is nothing to wait on in another process."""
    end = time.monotonic() + LIMIT_SECONDS
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"still not so after {LIMIT_SECONDS} s: {what}")
        time.sleep(0.01)


def children(pid: int) -> list[int]:
    """Pids of the children of `pid` that have not ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
            if int(parent) == pid and state != "Z":
                found.append(int(path.parent.name))
    return sorted(found)


def runs(pid: int) -> bool:
    """Whether `pid` has not ended (a zombie has)."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


class Running:
    """A started service."""

    def __init__(self, folder: Path, url: str, *options: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        argv = [sys.executable, "service.py", "--client", str(folder / "client.py"), "--ask", url]
        argv += ["--reference", str(folder / "reference.npz"), "--port", str(self.port), *options]
        self.log = (folder / "service.log").open("w+b")
        self.process = subprocess.Popen(argv, cwd=HERE, stdout=self.log, stderr=subprocess.STDOUT)

    def wait_until_ready(self) -> None:
        wait_until(lambda: self.process.poll() is not None or self.answers_ready(), "ready")
        if self.process.poll() is not None:
            raise AssertionError(self.said())

    def answers_ready(self) -> bool:
        try:
            return self.get("/ready")[0] == 200
        except OSError:
            return False

    def said(self) -> str:
        self.log.seek(0)
        return self.log.read().decode()

    def get(self, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT_SECONDS)
        with contextlib.closing(connection):
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()

    def post(self, body: bytes) -> tuple[int, dict[str, Any], str | None]:
        """Status, answer and Retry-After."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT_SECONDS)
        with contextlib.closing(connection):
            connection.request("POST", "/explain", body)
            response = connection.getresponse()
            return response.status, json.loads(response.read()), response.headers["Retry-After"]

    def explain(self, rows: npt.NDArray[np.float32], **more: object) -> tuple[int, dict[str, Any], str | None]:
        return self.post(json.dumps({"rows": rows.astype(float).tolist(), **more}).encode())

    def metric(self, name: str) -> float:
        """The value of a series, named as /metrics names it."""
        found = re.search(rf"^{re.escape(name)} (\S+)$", self.get("/metrics")[1], re.MULTILINE)
        assert found, name
        return float(found[1])

    @property
    def nursery(self) -> int:
        [pid] = children(self.process.pid)
        return pid

    def workers(self) -> list[int]:
        return [worker for nursery in children(self.process.pid) for worker in children(nursery)]

    def tree(self) -> list[int]:
        return [self.process.pid, *children(self.process.pid), *self.workers()]

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        self.process.wait()
        self.log.close()


class WithService(unittest.TestCase):
    """One service a class, since each takes seconds to start."""

    options: tuple[str, ...] = ()
    predict: standin.Predict = staticmethod(standin.linear)

    @classmethod
    def setUpClass(cls) -> None:
        temporary = tempfile.TemporaryDirectory()
        cls.addClassCleanup(temporary.cleanup)
        cls.folder = Path(temporary.name)
        standin.write_files(cls.folder, cls.predict)
        cls.served = standin.StandIn(cls.predict)
        cls.addClassCleanup(cls.served.close)
        cls.service = Running(cls.folder, cls.served.url, *cls.options)
        cls.addClassCleanup(cls.service.close)
        cls.service.wait_until_ready()
        cls.callers = ThreadPoolExecutor(16)
        cls.addClassCleanup(cls.callers.shutdown)
        cls.rows = standin.make_rows(16, seed=9)

    def setUp(self) -> None:
        self.addCleanup(self.mend)

    def mend(self) -> None:
        """Leaves the service idle, and the model as it was, for the next test."""
        self.served.reply = self.served.answer
        self.served.gate.set()
        wait_until(lambda: self.service.metric("explainers_queue") == 0, "an empty queue")
        self.assert_right(self.service.explain(self.rows[:1]))
        while self.served.arrived.acquire(blocking=False):
            pass

    def start(self, count: int = 1) -> list[Future[tuple[int, dict[str, Any], str | None]]]:
        """Requests that the closed gate holds up: the first is at work when this returns."""
        self.served.gate.clear()
        begun = [self.callers.submit(self.service.explain, self.rows[:1])]
        self.await_arrival()
        return begun + [self.callers.submit(self.service.explain, self.rows[:1]) for _ in range(count - 1)]

    def await_arrival(self) -> None:
        self.assertTrue(self.served.arrived.acquire(timeout=LIMIT_SECONDS), "the served model was not asked")

    def assert_right(self, answer: tuple[int, dict[str, Any], str | None], rows: int = 1) -> None:
        status, found, _ = answer
        self.assertEqual(status, 200, found)
        self.assertEqual(len(found["explanations"]), rows)
        for row, one in zip(self.rows, found["explanations"], strict=False):
            self.assertAlmostEqual(one["prediction"], self.predict(row[None])[0], places=12)
            self.assertAlmostEqual(one["base_value"] + sum(one["values"]), one["prediction"], places=9)


class AnswersAreComplete(WithService):
    options = ("--deadline-seconds", "60")

    def test_an_answer_says_what_it_is(self) -> None:
        status, found, _ = self.service.explain(self.rows[:2], seed=4)
        self.assertEqual(status, 200)
        self.assertEqual((found["method"], found["seed"], found["features"]), ("kernel_shap", 4, list(FEATURES)))
        self.assertEqual(found["library"], library.describe())
        self.assertEqual(found["settings"], {"background_rows": 20, "samples": 500})
        slopes = np.array([one["values"] for one in found["explanations"]])
        np.testing.assert_allclose(slopes[0] - slopes[1], standin.SLOPES * (self.rows[0] - self.rows[1]), atol=1e-9)

    def test_an_anchor_says_how_good_it_is(self) -> None:
        status, found, _ = self.service.explain(self.rows[:2], method="anchors")
        self.assertEqual(status, 200, found)
        self.assertEqual(set(found["settings"]), {"threshold", "wanted_precision", "most_conditions"})
        for row, one in zip(self.rows, found["explanations"], strict=False):
            self.assertEqual(set(one), {"conditions", "precision", "coverage", "above_threshold", "prediction"})
            self.assertEqual(one["above_threshold"], self.predict(row[None])[0] > found["settings"]["threshold"])
            self.assertTrue(0 <= one["coverage"] <= 1)
            self.assertTrue(0 <= one["precision"] <= 1)

    def test_a_row_is_explained_alike_alone_and_among_sixteen(self) -> None:
        status, together, _ = self.service.explain(self.rows, seed=2)
        self.assertEqual(status, 200, together)
        _, alone, _ = self.service.explain(self.rows[15:], seed=2)
        self.assertEqual(together["explanations"][15:], alone["explanations"])

    def test_what_is_no_request_is_refused_and_says_why(self) -> None:
        self.service.metric('explainers_explanations_total{method="unknown",outcome="refused"}')
        for body, status, words in (
            (b"", 400, "body: no JSON"),
            (b'{"rows": [[1, 2]]}', 400, r"rows\[0\]: 2 values, expected 1 to 16 rows of 12 numbers"),
            (b'{"rows": [[NaN]]}', 400, "body: NaN, expected finite numbers"),
            (b'{"method": "lime"}', 400, "method: 'lime'"),
            (b" " * 70_000, 413, "body: more than 65536 bytes"),
            (b" " * 5_000_000, 413, "body: more than 65536 bytes"),
        ):
            found = self.service.post(body)
            self.assertEqual((found[0], found[2]), (status, None))
            self.assertRegex(found[1]["error"], words)
        status, found, _ = self.service.explain(np.repeat(self.rows[:1], 17, axis=0))
        self.assertEqual((status, found["error"][:13]), (400, "rows: 17 rows"))

    def test_what_is_no_http_neither_harms_nor_fills_the_log(self) -> None:
        head = b"POST /explain HTTP/1.1\r\nHost: x\r\n"
        for rubbish in (
            b"\x00\xff" * 100 + b"\r\n\r\n",
            head + b"Content-Length: many\r\n\r\n{}",
            head + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        ):
            with socket.create_connection(("127.0.0.1", self.service.port), timeout=LIMIT_SECONDS) as caller:
                caller.sendall(rubbish)
                self.assertIn(b" 400 ", caller.recv(100))
        self.assert_right(self.service.explain(self.rows[:1]))
        self.assertNotIn("Traceback", self.service.said())

    def test_an_anchor_for_an_unknown_category_is_refused(self) -> None:
        row = self.rows[:1].copy()
        row[0, 0] = 99
        status, found, _ = self.service.explain(row, method="anchors")
        self.assertEqual(status, 400)
        self.assertRegex(found["error"], "^carrier: 99, expected .* Ask for kernel_shap.$")

    def test_no_request_adds_a_series(self) -> None:
        def series() -> set[str]:
            lines = self.service.get("/metrics")[1].splitlines()
            return {line.rpartition(" ")[0] for line in lines if not line.startswith("#")}

        before = series()
        for number in range(200):
            self.service.post(json.dumps({"method": f"method {number}"}).encode())
            self.service.get(f"/path-{number}")
        self.assertEqual(series(), before)
        self.assertLess(len(before), 60)

    def test_explanations_are_counted_by_what_came_of_them(self) -> None:
        names = {
            outcome: f'explainers_explanations_total{{method="{method}",outcome="{outcome}"}}'
            for method, outcome in (("kernel_shap", "ok"), ("kernel_shap", "failed"), ("unknown", "refused"))
        }
        before = {outcome: self.service.metric(name) for outcome, name in names.items()}
        asked, seen = self.service.metric("explainers_rows_asked_total"), sum(len(rows) for rows in self.served.rows)
        self.service.explain(self.rows[:3])
        self.service.post(b"{}")
        self.served.reply = lambda _: (500, b"")
        self.service.explain(self.rows[:2])
        grown = {outcome: self.service.metric(name) - before[outcome] for outcome, name in names.items()}
        self.assertEqual(grown, {"ok": 3, "failed": 2, "refused": 1})
        answered = sum(len(rows) for rows in self.served.rows) - seen
        self.assertEqual(self.service.metric("explainers_rows_asked_total") - asked, answered)
        info = 'explainers_info{{library="{name}",licence="{licence}",version="{version}"}}'
        self.assertEqual(self.service.metric(info.format_map(library.describe())), 1)

    def test_a_served_model_that_fails_is_told_and_asked_again_later(self) -> None:
        self.served.reply = lambda _: (200, b"[0.5, NaN]")
        status, found, _ = self.service.explain(self.rows[:1])
        self.assertEqual(status, 502)
        self.assertRegex(found["error"], "^the served model at http://.*, expected one probability a row")
        self.served.reply = self.served.answer
        self.assert_right(self.service.explain(self.rows[:1]))

    def test_a_served_model_that_is_down_is_told_and_found_again(self) -> None:
        self.served.close()
        worker = self.service.workers()
        try:
            status, found, _ = self.service.explain(self.rows[:1])
            self.assertEqual(status, 502)
            self.assertRegex(found["error"], "no connection")
        finally:
            self.served.open()
        self.assert_right(self.service.explain(self.rows[:1]))
        self.assertEqual(self.service.workers(), worker)

    def test_one_numeric_thread_and_none_in_the_nursery(self) -> None:
        def threads(pid: int) -> int:
            return len(list(Path(f"/proc/{pid}/task").iterdir()))

        self.assertEqual(threads(self.service.nursery), 1)
        [worker] = self.service.workers()
        self.assertLessEqual(threads(worker), 2)  # tqdm, which shap imports, starts one that sleeps


class ProcessesAreReplaced(WithService):
    options = ("--deadline-seconds", "30")

    def test_a_worker_killed_at_work_costs_one_answer(self) -> None:
        [begun] = self.start()
        [worker] = self.service.workers()
        os.kill(worker, signal.SIGKILL)
        status, found, again = begun.result()
        self.assertEqual((status, found["error"][:7]), (503, "worker:"))
        self.assertGreaterEqual(int(again or 0), 1)
        self.served.gate.set()
        self.assert_right(self.service.explain(self.rows[:1]))
        self.assertNotIn(worker, self.service.workers())
        self.assertEqual(len(self.service.workers()), 1)

    def test_a_worker_killed_while_idle_costs_none(self) -> None:
        for _ in range(3):
            [worker] = self.service.workers()
            os.kill(worker, signal.SIGKILL)
            wait_until(lambda old=worker: self.service.workers() not in ([old], []), "a new worker")
            self.assert_right(self.service.explain(self.rows[:1]))

    def test_waiting_requests_are_answered_by_the_next_worker(self) -> None:
        first, *others = self.start(3)
        wait_until(lambda: self.service.metric("explainers_queue") == 2, "two waiting")
        os.kill(self.service.workers()[0], signal.SIGKILL)
        self.assertEqual(first.result()[0], 503)
        self.served.gate.set()
        for one in others:
            self.assert_right(one.result())

    def test_the_process_that_imports_alibi_is_replaced_with_its_workers(self) -> None:
        [begun] = self.start()
        nursery, workers = self.service.nursery, self.service.workers()
        os.kill(nursery, signal.SIGKILL)
        self.assertEqual(begun.result()[0], 503)
        wait_until(lambda: not any(runs(pid) for pid in (nursery, *workers)), "all ended")
        self.served.gate.set()
        self.assert_right(self.service.explain(self.rows[:1]))

    def test_a_caller_who_leaves_frees_the_place(self) -> None:
        self.served.gate.clear()
        [worker] = self.service.workers()
        left = 'explainers_explanations_total{method="kernel_shap",outcome="left"}'
        before = self.service.metric(left)
        body = json.dumps({"rows": self.rows[:1].astype(float).tolist()}).encode()
        head = b"POST /explain HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
        with contextlib.ExitStack() as callers:
            for waiting in (0, 1):  # one is at work, one waits
                caller = socket.create_connection(("127.0.0.1", self.service.port))
                callers.enter_context(caller).sendall(head + body)
                wait_until(lambda n=waiting: self.service.metric("explainers_queue") == n, "the caller in its place")
                if not waiting:
                    self.await_arrival()
        wait_until(lambda: self.service.metric(left) - before == 2, "both noticed")
        wait_until(lambda: not runs(worker), "the worker that was at it ended")
        self.served.gate.set()
        self.assert_right(self.service.explain(self.rows[:1]))


class TheDeadlineHolds(WithService):
    options = ("--deadline-seconds", "4")

    def test_a_model_that_does_not_answer_ends_in_503_and_the_worker_goes_on(self) -> None:
        [begun] = self.start()
        [worker] = self.service.workers()
        status, found, again = begun.result()
        self.assertEqual(status, 503)
        self.assertRegex(found["error"], "expected them before the deadline")
        self.assertGreaterEqual(int(again or 0), 1)
        self.served.gate.set()
        self.assert_right(self.service.explain(self.rows[:1]))
        self.assertEqual(self.service.workers(), [worker])

    def test_waiting_counts(self) -> None:
        begun = self.start(2)
        self.assertEqual([one.result()[0] for one in begun], [503, 503])

    def test_a_worker_that_hangs_is_replaced(self) -> None:
        [worker] = self.service.workers()
        os.kill(worker, signal.SIGSTOP)
        status, found, _ = self.service.explain(self.rows[:1])
        self.assertEqual((status, found["error"][:9]), (503, "deadline:"))
        wait_until(lambda: not runs(worker), "the hanging worker ended")
        self.assert_right(self.service.explain(self.rows[:1]))

    def test_an_answer_that_drips_for_ever_ends_in_503(self) -> None:
        done = threading.Event()
        self.addCleanup(done.set)

        def drip() -> Iterator[bytes]:
            while not done.wait(0.05):
                yield b" "

        [worker] = self.service.workers()
        self.served.reply = lambda _: (200, drip())
        self.assertEqual(self.service.explain(self.rows[:1])[0], 503)
        wait_until(lambda: not runs(worker), "the worker that reads for ever ended")

    def test_a_body_that_never_ends_is_not_waited_for(self) -> None:
        with socket.create_connection(("127.0.0.1", self.service.port), timeout=LIMIT_SECONDS) as caller:
            caller.sendall(b"POST /explain HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
            self.assertTrue(caller.recv(100).startswith(b"HTTP/1.1 408 "))


class TheQueueIsBounded(WithService):
    options = ("--workers", "2", "--queue", "3", "--deadline-seconds", "60")
    predict = staticmethod(standin.curved)

    def test_as_many_as_may_wait_do_and_the_next_is_refused(self) -> None:
        begun = self.start(5)
        wait_until(lambda: self.service.metric("explainers_queue") == 3, "three waiting")
        for _ in range(3):
            status, found, again = self.service.explain(self.rows[:1])
            self.assertEqual(
                (status, found["error"]), (503, "queue: 3 requests waiting, expected fewer. Ask again later.")
            )
            self.assertGreaterEqual(int(again or 0), 1)
        self.served.gate.set()
        for one in begun:
            self.assert_right(one.result())

    def test_ten_callers_get_what_one_gets_or_503(self) -> None:
        for method in ("kernel_shap", "anchors"):
            expected = [self.service.explain(row[None], seed=3, method=method)[1] for row in self.rows[:10]]
            together = threading.Barrier(10)

            def ask(row: npt.NDArray[np.float32], method: str = method, gate: Any = together) -> tuple[int, Any]:
                gate.wait()
                return self.service.explain(row[None], seed=3, method=method)[:2]

            found = list(self.callers.map(ask, self.rows[:10]))
            statuses = [status for status, _ in found]
            self.assertLessEqual(set(statuses), {200, 503})
            self.assertGreaterEqual(statuses.count(200), 5)
            for (status, answer), right in zip(found, expected, strict=True):
                if status == 200:
                    self.assertEqual(answer, right)


class ItEnds(unittest.TestCase):
    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = Path(temporary.name)
        standin.write_files(self.folder)
        self.served = standin.StandIn()
        self.addCleanup(self.served.close)

    def begin(self, *options: str) -> Running:
        service = Running(self.folder, self.served.url, *options)
        self.addCleanup(service.close)
        return service

    def test_sigterm_finishes_what_is_at_work_and_leaves_nothing(self) -> None:
        service = self.begin()
        service.wait_until_ready()
        tree = service.tree()
        self.served.gate.clear()
        with ThreadPoolExecutor(1) as caller:
            begun = caller.submit(service.explain, standin.make_rows(1))
            self.assertTrue(self.served.arrived.acquire(timeout=LIMIT_SECONDS))
            for pid in tree[::-1]:  # as a terminal or a supervisor does: the whole group gets it
                os.kill(pid, signal.SIGTERM)
            wait_until(lambda: not listens(service.port), "no longer listening")
            self.served.gate.set()
            self.assertEqual(begun.result()[0], 200)
        self.assertEqual(service.process.wait(LIMIT_SECONDS), 0, service.said())
        wait_until(lambda: not any(runs(pid) for pid in tree), "all ended")

    def test_sigterm_does_not_wait_for_a_model_that_hangs(self) -> None:
        service = self.begin("--deadline-seconds", "3000")
        service.wait_until_ready()
        tree = service.tree()
        self.served.gate.clear()
        with ThreadPoolExecutor(1) as caller:
            begun = caller.submit(service.explain, standin.make_rows(1))
            self.assertTrue(self.served.arrived.acquire(timeout=LIMIT_SECONDS))
            service.process.terminate()
            self.assertEqual(service.process.wait(LIMIT_SECONDS), 0, service.said())
            self.assertIsNotNone(begun.exception())
        wait_until(lambda: not any(runs(pid) for pid in tree), "all ended")

    def test_sigkill_leaves_no_orphan(self) -> None:
        service = self.begin()
        service.wait_until_ready()
        tree = service.tree()
        self.served.gate.clear()
        with ThreadPoolExecutor(1) as caller:
            begun = caller.submit(service.explain, standin.make_rows(1))
            self.assertTrue(self.served.arrived.acquire(timeout=LIMIT_SECONDS))
            service.process.kill()
            service.process.wait()
            self.assertIsNotNone(begun.exception())
        wait_until(lambda: not any(runs(pid) for pid in tree), "all ended")

    def test_sigkill_leaves_no_orphan_even_if_a_worker_hangs(self) -> None:
        service = self.begin()
        service.wait_until_ready()
        tree = service.tree()
        os.kill(tree[-1], signal.SIGSTOP)
        service.process.kill()
        service.process.wait()
        wait_until(lambda: not any(runs(pid) for pid in tree), "all ended")

    def test_sigterm_before_it_is_ready_ends_it_too(self) -> None:
        service = self.begin()
        wait_until(lambda: listens(service.port) or service.process.poll() is not None, "listening")
        wait_until(lambda: len(service.tree()) >= 2, "a nursery")
        tree = service.tree()
        service.process.terminate()
        self.assertEqual(service.process.wait(LIMIT_SECONDS), 0, service.said())
        wait_until(lambda: not any(runs(pid) for pid in tree), "all ended")

    def test_what_it_cannot_work_with_ends_it_with_a_reason(self) -> None:
        (self.folder / "reference.npz").write_bytes(b"PK rubbish")
        service = self.begin()
        self.assertEqual(service.process.wait(LIMIT_SECONDS), 1)
        self.assertRegex(service.said(), r"reference.npz: .*expected arrays rows float32 \[n, 12\]")
        standin.write_files(self.folder)
        (self.folder / "client.py").write_text("encode = 1\n")
        service = self.begin()
        self.assertEqual(service.process.wait(LIMIT_SECONDS), 1)
        self.assertRegex(service.said(), "client.py: no function encode, expected functions encode and decode")

    def test_a_port_that_is_taken_is_told(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            service = self.begin("--port", str(taken.getsockname()[1]))
            self.assertEqual(service.process.wait(LIMIT_SECONDS), 2)
            self.assertRegex(service.said(), "expected an address to listen at")

    def test_options_that_cannot_be_meant_are_refused(self) -> None:
        for words in (("--workers", "0"), ("--queue", "-1"), ("--deadline-seconds", "0"), ("--ask", "/predict")):
            service = self.begin(*words)
            self.assertEqual(service.process.wait(LIMIT_SECONDS), 2)
            self.assertIn(f"argument {words[0]}", service.said())


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


if __name__ == "__main__":
    unittest.main()
