"""The served model is asked for each row once, and what it answers is taken only if it can be right."""

# ruff: noqa: PT009, PT027 (pytest is not there)
from __future__ import annotations

import tempfile
import time
import unittest
from pathlib import Path

import asking
import numpy as np
import standin
from errors import DeadlinePassed, ExplainersError, ServedModelFailed


class WithModel(unittest.TestCase):
    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = Path(temporary.name)
        client, _ = standin.write_files(self.folder)
        self.served = standin.StandIn()
        self.addCleanup(self.served.close)
        self.model = asking.ServedModel(asking.load_client(client), self.served.url, "application/json")


class RowsAreAsked(WithModel):
    def test_answers_stand_in_the_order_of_rows(self) -> None:
        rows = standin.make_rows(3500)
        np.testing.assert_array_equal(self.model(rows), standin.linear(rows))

    def test_a_row_is_asked_once_until_answers_are_forgotten(self) -> None:
        rows = standin.make_rows(50)
        twice = np.vstack([rows, rows[::-1]])
        np.testing.assert_array_equal(self.model(twice), standin.linear(twice))
        self.model(rows)
        self.assertEqual(self.model.rows_asked, 50)
        self.model.forget()
        self.served.predict = lambda rows: np.full(len(rows), 0.5)
        self.assertEqual(set(self.model(rows)), {0.5})
        self.assertEqual(self.model.rows_asked, 100)

    def test_rows_that_differ_in_the_last_bit_are_different(self) -> None:
        row = standin.make_rows(1)
        other = row.copy()
        other[0, 5] = np.nextafter(row[0, 5], np.float32(np.inf), dtype=np.float32)
        self.model(np.vstack([row, other]))
        np.testing.assert_array_equal(self.served.rows[0], np.vstack([row, other]))

    def test_bodies_stay_below_the_gateways_limit(self) -> None:
        self.model(standin.make_rows(2500))
        self.assertEqual(len(self.served.bodies), 3)
        self.assertLess(max(self.served.bodies), asking.BODY_BYTES)

    def test_a_client_that_writes_much_gets_smaller_batches(self) -> None:
        text = standin.CLIENT.replace('{"rows":', '{"padding": "x" * 2000 * len(rows), "rows":')
        (self.folder / "client.py").write_text(text, encoding="utf-8")
        self.model = asking.ServedModel(asking.load_client(self.folder / "client.py"), self.served.url, "text/plain")
        rows = standin.make_rows(1500)
        np.testing.assert_array_equal(self.model(rows), standin.linear(rows))
        self.assertLess(max(self.served.bodies), asking.BODY_BYTES)

    def test_a_connection_that_was_closed_meanwhile_is_opened_again(self) -> None:
        rows = standin.make_rows(4)
        self.model(rows[:2])
        self.served.drop = 1
        np.testing.assert_array_equal(self.model(rows), standin.linear(rows))

    def test_a_model_that_was_down_is_asked_again(self) -> None:
        self.served.close()
        with self.assertRaisesRegex(ServedModelFailed, "no connection"):
            self.model(standin.make_rows(1))
        self.served.open()
        self.model(standin.make_rows(1))


class WrongAnswersAreNotTaken(WithModel):
    def assert_failed(self, status: int, body: bytes, words: str) -> None:
        self.served.reply = lambda _: (status, body)
        with self.subTest(words), self.assertRaisesRegex(ServedModelFailed, words):
            self.model(standin.make_rows(2))
        self.assertEqual(self.model.rows_asked, 0)

    def test_each_names_what_was_answered(self) -> None:
        self.assert_failed(500, b"oh no", r"status 500 \('oh no'\), expected one probability a row")
        self.assert_failed(503, b"", "status 503")
        self.assert_failed(307, b"", "status 307")
        self.assert_failed(200, b"<html>", "cannot be read .*<html>")
        self.assert_failed(200, b"{}", "cannot be read")
        self.assert_failed(200, b"[0.5]", r"shape \(1,\) to 2 rows")
        self.assert_failed(200, b"[[0.5], [0.5]]", r"shape \(2, 1\) to 2 rows")
        self.assert_failed(200, b"[0.5, NaN]", "answers from nan")
        self.assert_failed(200, b"[0.5, 1.1]", "answers from 0.5 to 1.1")
        self.assert_failed(200, b"[-0.1, 0.5]", "answers from -0.1")
        self.assert_failed(200, b" " * (asking.ANSWER_BYTES + 1), "more than 1048576 bytes")

    def test_after_each_a_right_answer_is_taken(self) -> None:
        self.assert_failed(200, b" " * (asking.ANSWER_BYTES + 1), "more than")
        self.served.reply = self.served.answer
        rows = standin.make_rows(2)
        np.testing.assert_array_equal(self.model(rows), standin.linear(rows))

    def test_a_connection_that_always_breaks_is_given_up(self) -> None:
        self.served.drop = 2
        with self.assertRaisesRegex(ServedModelFailed, "a connection that breaks"):
            self.model(standin.make_rows(1))

    def test_last_bits_may_leave_the_range_of_probabilities(self) -> None:
        self.served.reply = lambda _: (200, b"[1.0000001, -1e-8]")
        self.assertEqual(len(self.model(standin.make_rows(2))), 2)


class TheDeadlineHolds(WithModel):
    def test_nothing_is_asked_after_it(self) -> None:
        self.model.deadline = time.monotonic()
        with self.assertRaisesRegex(DeadlinePassed, "0 rows so far"):
            self.model(standin.make_rows(1))
        self.assertEqual(self.served.bodies, [])

    def test_nothing_is_answered_after_it_even_if_known(self) -> None:
        rows = standin.make_rows(2)
        self.model(rows)
        self.model.deadline = time.monotonic()
        with self.assertRaises(DeadlinePassed):
            self.model(rows)

    def test_it_ends_the_wait_for_an_answer(self) -> None:
        self.served.gate.clear()
        self.model.deadline = time.monotonic() + 0.2
        with self.assertRaises(DeadlinePassed):
            self.model(standin.make_rows(1))
        self.served.gate.set()
        self.model.deadline = float("inf")
        self.model(standin.make_rows(1))

    def test_it_is_looked_at_between_batches(self) -> None:
        def late(body: bytes) -> tuple[int, bytes]:
            self.model.deadline = time.monotonic()
            return self.served.answer(body)

        self.served.reply = late
        with self.assertRaisesRegex(DeadlinePassed, "1000 rows so far"):
            self.model(standin.make_rows(1500))


class ClientsAreLoaded(unittest.TestCase):
    def test_what_is_no_client_is_refused_by_name(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "client.py"
            with self.assertRaisesRegex(ExplainersError, r"client.py: FileNotFoundError.*--client"):
                asking.load_client(path)
            path.write_text("def encode(rows): ...\n")
            with self.assertRaisesRegex(ExplainersError, "client.py: no function decode, expected functions encode"):
                asking.load_client(path)
            path.write_text("import nothing_of_that_name\n")
            with self.assertRaisesRegex(ExplainersError, "ModuleNotFoundError: No module"):
                asking.load_client(path)


if __name__ == "__main__":
    unittest.main()
