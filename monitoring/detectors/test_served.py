"""A served model in trouble costs predictions, never statistics."""

# ruff: noqa: PT009 (pytest is not there)
from __future__ import annotations

import asyncio
import time
import unittest
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import rig
from served import BUDGET_SECONDS, REQUEST_ROWS, ServedModel

CLIENT: Any = SimpleNamespace()
exec(rig.CLIENT, vars(CLIENT))
FAULTS = {
    "hangs": r"no answer within 1\.0 s",
    "answers 500": r"answered 500: 'broken'",
    "hangs up": r"Disconnected",
    "is no JSON": r"JSONDecodeError",
    "is one short": r"an answer of shape \[511\] to 512 rows",
    "is endless": r"an answer of more than 1048576 bytes",
    "dribbles": r"no answer within 1\.0 s",
}


class Asked(unittest.TestCase):
    """ServedModel against a real server; the test is the owner's thread, the stub's loop is the service's."""

    def setUp(self) -> None:
        self.stub = rig.ServedStub()
        self.addCleanup(self.stub.close)
        self.model = self.asking(self.stub.url)

    def asking(self, url: str, answer_seconds: float = 1.0) -> ServedModel:
        model = ServedModel(url, "application/json", CLIENT, self.stub.loop, answer_seconds)
        self.addCleanup(lambda: asyncio.run_coroutine_threadsafe(model.close(), self.stub.loop).result())
        return model

    def ask(self, rows: Any, usual: Any = None) -> Any:
        return self.model.predictions(rows, np.ones(len(rows), bool) if usual is None else usual)

    def test_answers_come_in_the_rows_order_in_requests_of_bounded_size(self) -> None:
        rows = rig.flights(2 * REQUEST_ROWS + 3)
        self.assertTrue(np.allclose(self.ask(rows), rig.probabilities(rows)))
        self.assertEqual(self.stub.sizes, [REQUEST_ROWS, REQUEST_ROWS, 3])
        self.assertEqual(self.ask(rows[:0]).shape, (0,))

    def test_every_kind_of_trouble_is_a_missing_prediction_and_ends(self) -> None:
        rows = rig.flights(2 * REQUEST_ROWS)
        for fault, reason in FAULTS.items():
            with self.subTest(fault=fault), mock.patch("served.LONGEST_PAUSE_SECONDS", 1.0):
                self.model, self.stub.fault, self.stub.sizes = self.asking(self.stub.url), fault, []
                with self.assertLogs("detectors", "WARNING") as log:
                    self.assertTrue(np.isnan(self.ask(rows)).all())
                    self.assertLessEqual(len(self.stub.sizes), 2, "asked more than once again")
                    asked = len(self.stub.sizes)
                    self.assertTrue(np.isnan(self.ask(rows)).all())
                    self.assertEqual(len(self.stub.sizes), asked, "asked again at once")
                self.assertEqual(len(log.output), 1)
                self.assertRegex(log.output[0], reason)
                self.stub.fault = ""
                answers = self.recovered(rows)
                self.assertTrue(np.allclose(answers, rig.probabilities(rows)))

    def recovered(self, rows: Any) -> Any:
        """The answers once there are some again, after the pause that follows a failure."""
        found: list[Any] = []
        rig.until(lambda: found.append(self.ask(rows)) or not np.isnan(found[-1]).any(), "answers again")
        return found[-1]

    def test_a_dead_server_is_a_missing_prediction(self) -> None:
        self.model = self.asking(f"http://127.0.0.1:{rig.free_port()}/predict")
        with self.assertLogs("detectors", "WARNING"):
            self.assertTrue(np.isnan(self.ask(rig.flights(3))).all())

    def test_what_is_no_number_is_missing_alone(self) -> None:
        self.stub.fault = "is no number twice"
        self.assertEqual(np.isnan(self.ask(rig.flights(5))).tolist(), [True, True, False, False, False])

    def test_a_row_that_is_refused_costs_no_other_its_prediction(self) -> None:
        self.stub.fault = "refuses large values"
        rows = rig.flights(5)
        rows[2, 4] = 5000
        usual = np.array([True, True, False, True, True])
        answers = self.ask(rows, usual)
        self.assertEqual(np.isnan(answers).tolist(), [False, False, True, False, False])
        self.assertTrue(np.allclose(answers[usual], rig.probabilities(rows[usual])))
        self.assertEqual(self.stub.sizes, [5, 4])
        with self.assertLogs("detectors", "WARNING"):  # asking for the same once more would be of no use
            self.assertTrue(np.isnan(self.ask(rows, np.ones(5, bool))).all())
        self.assertEqual(self.stub.sizes, [5, 4, 5])

    def test_a_slow_server_has_a_budget_for_all_rows_of_a_micro_batch(self) -> None:
        self.model, self.stub.fault = self.asking(self.stub.url, answer_seconds=1e6), "hangs"
        with self.assertLogs("detectors", "WARNING"):
            began = time.monotonic()
            self.ask(rig.flights(2 * REQUEST_ROWS))
        self.assertLess(time.monotonic() - began, BUDGET_SECONDS + rig.PATIENCE_SECONDS)
        self.assertEqual(self.stub.sizes, [REQUEST_ROWS])

    def test_told_to_end_it_waits_for_no_answer(self) -> None:
        self.model, self.stub.fault = self.asking(self.stub.url, answer_seconds=1e6), "hangs"

        def end_once_asked() -> None:
            if self.stub.sizes:
                self.model.end(0.01)
            else:
                self.stub.loop.call_later(0.01, end_once_asked)

        self.stub.loop.call_soon_threadsafe(end_once_asked)
        with self.assertLogs("detectors", "WARNING"), mock.patch("served.BUDGET_SECONDS", 1e6):
            self.assertTrue(np.isnan(self.ask(rig.flights(2 * REQUEST_ROWS))).all())
        self.assertTrue(np.isnan(self.ask(rig.flights(1))).all())
        self.assertEqual(self.stub.sizes, [REQUEST_ROWS])


if __name__ == "__main__":
    unittest.main()
