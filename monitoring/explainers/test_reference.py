"""The reference is checked, and its background stands for it."""

# ruff: noqa: PT009, PT027 (pytest is not there)
from __future__ import annotations

import tempfile
import unittest
from pathlib import Path

import numpy as np
import numpy.typing as npt
import reference
import standin
from errors import ExplainersError
from features import CATEGORIES, FEATURES
from reference import Reference


class TheBackgroundStandsForTheReference(unittest.TestCase):
    def setUp(self) -> None:
        rows = standin.make_rows(600)
        self.reference = Reference(rows, standin.curved(rows))
        self.background = reference.choose_background(self.reference)

    def test_it_is_rows_of_the_reference(self) -> None:
        known = {row.tobytes() for row in self.reference.rows}
        self.assertEqual(self.background.shape, (reference.BACKGROUND_ROWS, len(FEATURES)))
        self.assertTrue(all(row.tobytes() in known for row in self.background))

    def test_its_mean_prediction_is_that_of_all(self) -> None:
        self.assertLess(abs(standin.curved(self.background).mean() - self.reference.expected.mean()), 0.01)

    def test_it_is_closer_to_the_reference_than_random_rows_are(self) -> None:
        quantities = [index for index, name in enumerate(FEATURES) if name not in CATEGORIES]
        rows = self.reference.rows[:, quantities].astype(np.float64)

        def distance(chosen: npt.NDArray[np.float32]) -> float:
            return float((((chosen[:, quantities].mean(0) - rows.mean(0)) / rows.std(0)) ** 2).sum())

        random = np.random.default_rng(1)
        others = [distance(self.reference.rows[random.choice(len(rows), 20)]) for _ in range(50)]
        self.assertLess(distance(self.background), np.median(others) / 2)

    def test_it_is_the_same_every_time(self) -> None:
        np.random.seed(99)
        np.testing.assert_array_equal(reference.choose_background(self.reference), self.background)


class ReferencesAreChecked(unittest.TestCase):
    def test_what_is_no_reference_is_refused_by_name(self) -> None:
        rows, rule = standin.make_rows(30), r"expected arrays rows float32 \[n, 12\] and expected float64 \[n\]"
        wrong = {
            "no file": None,
            "expected is not a file": {"rows": rows},
            r"rows float64 \[30, 12\]": {"rows": rows.astype(float), "expected": np.zeros(30)},
            r"rows float32 \[30, 11\]": {"rows": rows[:, 1:], "expected": np.zeros(30)},
            r"expected float64 \[29\]": {"rows": rows, "expected": np.zeros(29)},
            r"rows float32 \[19, 12\]": {"rows": rows[:19], "expected": np.zeros(19)},
            "not finite": {"rows": rows, "expected": np.full(30, np.nan)},
            "Object arrays": {"rows": rows.astype(object), "expected": np.zeros(30)},
        }
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "reference.npz"
            for words, arrays in wrong.items():
                if arrays is not None:
                    np.savez(path, **arrays)
                with self.subTest(words), self.assertRaisesRegex(ExplainersError, rule) as caught:
                    reference.Reference.load(path)
                if arrays is not None:
                    self.assertRegex(str(caught.exception), words)
            for rubbish in (b"", b"PK\x03\x04 rubbish", b"\x93NUMPY\x01\x00", b"rows"):
                path.write_bytes(rubbish)
                with self.subTest(rubbish), self.assertRaisesRegex(ExplainersError, rule):
                    reference.Reference.load(path)


if __name__ == "__main__":
    unittest.main()
