"""The service as a process: kill -9, SIGTERM, rubbish, overflow, a dead model. Each start takes seconds, so few."""

# ruff: noqa: PT009 (pytest is not there)
from __future__ import annotations

import json
import signal
import threading
import unittest
from pathlib import Path
from typing import Any

import numpy as np
import rig

METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND")
MOST_SERIES = 300
GROWTH_BYTES = 48 * 2**20


class ServiceCase(rig.Files):
    """Starts services and ends them with the test."""

    def setUp(self) -> None:
        super().setUp()
        self.stub = rig.ServedStub()
        self.addCleanup(self.stub.close)

    def start(self, **options: object) -> rig.Detectors:
        detectors = rig.Detectors(self.folder, self.stub.url, **options)
        self.addCleanup(detectors.close)
        return detectors

    def saved(self) -> dict[str, Any]:
        with np.load(self.folder / "state" / "state.npz", allow_pickle=False) as file:
            return {name: file[name] for name in file.files}


class Killed(ServiceCase):
    """kill -9 costs the unfinished micro-batch; nothing that was shown is taken back."""

    def test_counters_and_window_survive(self) -> None:
        detectors, stop = self.start(window_rows=100, least_rows=100).ready(), threading.Event()
        sender = threading.Thread(target=self.stream, args=(detectors, stop))
        sender.start()
        shown = rig.until(lambda: (now := detectors.metrics())["detectors_records_total"] > 150 and now, "some records")
        detectors.kill()
        stop.set()
        sender.join()
        detectors = self.start(window_rows=100, least_rows=100).ready()
        now = detectors.metrics()
        for name in ("copies", "records", "outliers"):
            self.assertGreaterEqual(now[f"detectors_{name}_total"], shown[f"detectors_{name}_total"])
        self.assertTrue(rig.conserved(now))
        self.assertEqual((now["detectors_state_restored"], now["detectors_window_rows"]), (1, 100))
        for count in ('feature_value_count{feature="temp"}', "prediction_count"):
            self.assertEqual(now[f"detectors_{count}"], now["detectors_records_total"])
        self.assertEqual(self.saved()["window"][0], now["detectors_records_total"])
        rig.send(detectors.copies_port, [rig.request(rig.encode(rig.flights(7)))])
        self.assertEqual(
            detectors.settled(int(now["detectors_copies_total"]) + 1)["detectors_records_total"],
            now["detectors_records_total"] + 7,
        )

    @staticmethod
    def stream(detectors: rig.Detectors, stop: threading.Event) -> None:
        """Sends one row a request until told to stop, or until nobody listens."""
        requests = [rig.request(rig.encode(row[None])) for row in rig.flights(20)]
        while not stop.is_set():
            try:
                rig.send(detectors.copies_port, requests)
            except OSError:
                return


class Flooded(ServiceCase):
    """Rubbish and floods are counted and change nothing else."""

    def test_rubbish_adds_no_series_and_stalls_nothing(self) -> None:
        detectors = self.start(window_rows=20, least_rows=20, window_seconds=1).ready()
        self.assertEqual(detectors.get("/windows"), (200, b"[]"))
        rows = rig.flights(60)
        rig.send(detectors.copies_port, [rig.request(rig.encode(rows))])
        before = rig.until(lambda: (now := detectors.metrics())["detectors_windows_total"] and now, "a window")
        self.assertLessEqual(len(before), MOST_SERIES)
        random = np.random.default_rng(7)
        sent = 0
        for _ in range(10):
            requests = [self.rubbish(random) for _ in range(1000)]
            self.assertEqual(rig.send(detectors.copies_port, requests), [202] * len(requests))
            sent += len(requests)
            detectors.settled(1 + sent)
        for large in (
            rig.request(b"[" * 2**20),
            rig.request(b"[" * 2**20 * 3),
            rig.request(b'{"rows":[[' + b"1," * 400_000),
        ):
            self.assertEqual(rig.send(detectors.copies_port, [large]), [202])
        last = rig.flights(500)
        last[0, 5] = np.nan
        rig.send(detectors.copies_port, [rig.request(rig.encode(last))])
        now = detectors.settled(sent + 5)
        self.assertEqual(now.keys(), before.keys())
        self.assertEqual(rig.dropped(now), sent + 3)
        self.assertEqual(now['detectors_dropped_total{reason="too_large"}'], 1)
        self.assertEqual(now["detectors_records_total"], 560)
        self.assertEqual(now['detectors_feature_missing_total{feature="temp"}'], 1)
        self.assertLess(now["process_resident_memory_bytes"], before["process_resident_memory_bytes"] + GROWTH_BYTES)
        listed = json.loads(detectors.get("/windows")[1])
        self.assertEqual(set(listed[0]), {"closed_at", "rows", "seen", "seconds", "ratio", "drifted", "distances",
                                          "limits", "p_values"})  # fmt: skip
        self.dead_model(detectors)
        self.overflow(detectors)

    @staticmethod
    def rubbish(random: np.random.Generator) -> bytes:
        """A request of HTTP's own form in which everything else is arbitrary."""
        noise = bytes(random.integers(33, 127, random.integers(1, 60)).astype(np.uint8)).decode()
        path = "/" + noise.replace("#", "").replace(" ", "")
        bodies = (
            noise.encode(),
            b"",
            b'{"rows": [[1, 2]]}',
            b'{"rows": ' + b"[" * 5000,
            b'{"rows": [["a"]]}',
            rig.encode(rig.flights(2)[:, :11]),
            b'{"rows": [' + b"NaN," * 12 + b"]}",
            b"\x1f\x8b" + noise.encode(),
        )
        header = f"x-{random.integers(10_000)}: {noise}\r\ncontent-type: {noise}\r\n" + (
            "content-encoding: gzip\r\n" if random.random() < 0.1 else ""
        )
        method = METHODS[random.integers(len(METHODS))]
        return rig.request(bodies[random.integers(len(bodies))], method, path, header)

    def dead_model(self, detectors: rig.Detectors) -> None:
        """Its silence is counted, the statistics go on, and its answers are taken again."""
        before = detectors.metrics()
        copies = before["detectors_copies_total"]
        for number, fault in enumerate(("answers 500", "hangs")):
            self.stub.fault = fault
            rig.send(detectors.copies_port, [rig.request(rig.encode(rig.flights(30)))])
            now = detectors.settled(int(copies) + number + 1)
        self.assertEqual(now["detectors_records_total"], before["detectors_records_total"] + 60)
        self.assertEqual(now["detectors_predictions_missing_total"], before["detectors_predictions_missing_total"] + 60)
        self.assertEqual(now["detectors_prediction_count"], before["detectors_prediction_count"])
        self.stub.fault = ""

        def answered() -> bool:
            rig.send(detectors.copies_port, [rig.request(rig.encode(rig.flights(1)))])
            return detectors.metrics()["detectors_prediction_count"] > before["detectors_prediction_count"]

        rig.until(answered, "predictions again")

    def overflow(self, detectors: rig.Detectors) -> None:
        """A burst is taken in or dropped, each copy once, while the owner waits for a silent model."""
        self.stub.fault = "hangs"
        before, burst = detectors.metrics(), 4000
        copies, records = before["detectors_copies_total"], before["detectors_records_total"]
        settled = detectors.settled(int(copies))
        copies, records = settled["detectors_copies_total"], settled["detectors_records_total"]
        requests = [rig.request(rig.encode(row[None])) for row in rig.flights(burst)]
        self.assertEqual(rig.send(detectors.copies_port, requests), [202] * burst)
        now = detectors.settled(int(copies) + burst)
        self.assertEqual(now["detectors_copies_total"], copies + burst)
        self.assertEqual(now["detectors_records_total"] - records + rig.dropped(now) - rig.dropped(settled), burst)


class Ended(ServiceCase):
    """SIGTERM: what was taken in is counted and saved, and the exit code is 0."""

    STOP_SECONDS = 3
    """What the specification allows; this once a test must look at the clock."""

    def test_what_is_queued_is_finished_although_the_state_was_damaged_and_the_model_is_silent(self) -> None:
        (self.folder / "state").mkdir()
        (self.folder / "state" / "state.npz").write_bytes(b"PK damaged")
        detectors = self.start(batch_seconds=60).ready()
        now = detectors.metrics()
        self.assertEqual((now["detectors_state_set_aside_total"], now["detectors_state_restored"]), (1, 0))
        self.assertEqual(len(list((self.folder / "state").glob("state.npz.damaged-*"))), 1)
        self.assertRegex(detectors.log.read_text(), r"state\.npz: damaged \(.*Set aside as state\.npz\.damaged-\d+;")
        self.stub.fault = "hangs"
        requests = [rig.request(rig.encode(row[None])) for row in rig.flights(700)]
        self.assertEqual(rig.send(detectors.copies_port, requests), [202] * 700)
        detectors.signal(signal.SIGTERM)
        self.assertEqual(detectors.process.wait(self.STOP_SECONDS), 0)
        saved = self.saved()
        self.assertEqual(saved["numbers"][:2].tolist(), [700, 700])
        self.assertEqual(saved["prediction_counts"].sum() + saved["numbers"][3], 700)

    def test_before_it_is_ready_it_ends_at_once(self) -> None:
        detectors = self.start()
        self.assertEqual(rig.until(lambda: detectors.get("/ready")[0], "the port"), 503)
        detectors.signal(signal.SIGTERM)
        self.assertEqual(detectors.process.wait(self.STOP_SECONDS), 0)


class Refused(ServiceCase):
    """What cannot run says why, with exit code 2."""

    def test_each_wrong_argument_is_named(self) -> None:
        (self.folder / "broken.py").write_text("def rows(body): return")
        cases: tuple[tuple[dict[str, object], str], ...] = (
            ({"client": self.folder / "none.py"}, r"none\.py: no such file, expected the client\.py"),
            ({"client": self.folder / "broken.py"}, r"broken\.py: no encode, decode, expected the functions"),
            (
                {"host": "127.0.0.1", "admin_port": self.stub.port},
                rf"127\.0\.0\.1:{self.stub.port}: .*in use.*free port",
            ),
            ({"least_rows": 600}, r"--least-rows 600, expected 1 to --window-rows 500"),
            ({"reference": self.folder / "calibration.json"}, r"calibration\.json: .*expected arrays"),
            ({"state": Path("/dev/null/state")}, r"/dev/null/state: Not a directory, expected a folder"),
        )
        running = []
        for number, (options, says) in enumerate(cases):
            folder = self.folder / str(number)
            folder.mkdir()
            rig.write_files(folder)
            detectors = rig.Detectors(folder, self.stub.url, **options)
            self.addCleanup(detectors.close)
            running.append((detectors, says))
        for detectors, says in running:
            with self.subTest(says=says):
                self.assertEqual(detectors.process.wait(rig.PATIENCE_SECONDS), 2, detectors.log.read_text())
                self.assertRegex(detectors.log.read_text(), says)
                self.assertNotIn("Traceback", detectors.log.read_text())


if __name__ == "__main__":
    unittest.main()
