"""Requests are read exactly, or refused with the place and the rule. Run: `python -m unittest` in this folder."""

# ruff: noqa: PT009, PT027 (pytest is not there)
from __future__ import annotations

import json
import random
import unittest

import inputs
from errors import InputRefused

ROW = [5.0, 2.0, 1.0, 6.0, 229.0, 39.92, 24.98, 54.81, 16.11092, 0.0, 1011.7, 10.0]
REFUSED = {
    b"": "body: no JSON",
    b"\xff\xfe": "body: no JSON",
    b"[": "body: no JSON",
    b"[" * 60_000: "body: no JSON",
    b"null": "body: nothing, expected a JSON object",
    b"[1]": "body: a list, expected a JSON object",
    b"{}": "rows: nothing, expected 1 to 16 rows of 12 numbers",
    b'{"rows": []}': "rows: 0 rows",
    b'{"rows": {}}': "rows: an object",
    b'{"rows": [1]}': "rows[0]: a number",
    b'{"rows": [[]]}': "rows[0]: 0 values",
    b'{"rows": [[1,2,3]]}': "rows[0]: 3 values, expected 1 to 16 rows of 12 numbers",
    b'{"rows": [[NaN]]}': "body: NaN, expected finite numbers",
    b'{"rows": [[-Infinity]]}': "body: -Infinity, expected finite numbers",
}


def body(**changes: object) -> bytes:
    return json.dumps({"rows": [ROW], **changes}).encode()


def with_value(text: str) -> bytes:
    return body().replace(b"229.0", text.encode())


class RequestsAreRead(unittest.TestCase):
    def test_a_request_is_taken_as_it_is(self) -> None:
        found = inputs.read(body(method="anchors", seed=7))
        self.assertEqual((found.rows, found.method, found.seed), ([ROW], "anchors", 7))

    def test_method_and_seed_may_be_left_out(self) -> None:
        found = inputs.read(body())
        self.assertEqual((found.method, found.seed), ("kernel_shap", 0))

    def test_whole_numbers_are_numbers(self) -> None:
        self.assertEqual(inputs.read(body(rows=[[1] * 12])).rows, [[1.0] * 12])

    def test_sixteen_rows_are_taken_and_seventeen_are_not(self) -> None:
        self.assertEqual(len(inputs.read(body(rows=[ROW] * 16)).rows), 16)
        with self.assertRaisesRegex(InputRefused, "^rows: 17 rows, expected 1 to 16 rows"):
            inputs.read(body(rows=[ROW] * 17))


class RequestsAreRefused(unittest.TestCase):
    def assert_refused(self, found: bytes, words: str) -> None:
        with self.subTest(found[:40]), self.assertRaises(InputRefused) as caught:
            inputs.read(found)
        self.assertTrue(str(caught.exception).startswith(words), f"{caught.exception} instead of {words}")

    def test_what_is_no_request(self) -> None:
        for found, words in REFUSED.items():
            self.assert_refused(found, words)

    def test_values_that_are_no_numbers(self) -> None:
        for text, shown in {
            '"229"': "text",
            "null": "nothing",
            "true": "a truth value",
            "[]": "a list",
            "{}": "an object",
            "1e39": "1e+39",
            "1e999": "inf",
            "9" * 500: "9" * 40,
            "-3.5e38": "-3.5e+38",
        }.items():
            self.assert_refused(with_value(text), f"rows[0][4] (distance): {shown}, expected a 32-bit float")

    def test_unknown_methods_keys_and_seeds(self) -> None:
        self.assert_refused(body(method="lime"), "method: 'lime', expected one of kernel_shap, anchors")
        self.assert_refused(body(method=["kernel_shap"]), "method: ['kernel_shap']")
        self.assert_refused(body(sed=1), "body: key 'sed'")
        for seed in (-1, 2**32, 1.5, True, "1", None):
            self.assert_refused(body(seed=seed), "seed: ")

    def test_rubbish_is_refused_and_nothing_else_happens(self) -> None:
        chance = random.Random(4)
        whole = body(method="anchors", seed=3)
        for _ in range(2000):
            damaged = bytearray(whole)
            for _ in range(chance.randrange(1, 6)):
                damaged[chance.randrange(len(damaged))] = chance.randrange(256)
            try:
                inputs.read(bytes(damaged))
            except InputRefused as error:
                self.assertLess(len(str(error)), 300)


if __name__ == "__main__":
    unittest.main()
