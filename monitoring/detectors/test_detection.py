"""Outliers and drift, judged with the committed limits. Run: `python -m unittest` in this folder.

Skipped where the model has not been built, or where this folder was copied out without it.
"""

# ruff: noqa: PT009, PT027 (pytest is not there)
from __future__ import annotations

import dataclasses
import json
import tempfile
import unittest
from pathlib import Path

import one_thread  # noqa: F401 (before numpy)

# isort: split
import detection
import numpy as np
from detection import CATEGORIES, FEATURES, PREDICTION, Calibration, Drift, Outliers, Reference
from errors import DetectorsError

HERE = Path(__file__).resolve().parent
CALIBRATION = HERE / "calibration.json"
ARTIFACTS = HERE.parents[1] / "model/artifacts"
TEMP = FEATURES.index("temp")


def toy_reference(seed: int = 0) -> Reference:
    """400 rows without any meaning."""
    draw = np.random.default_rng(seed)
    codes = draw.integers(0, [4, 3, 7], (400, 3))
    return Reference(np.hstack([codes, draw.normal(0, 1, (400, 9))]).astype(np.float32), draw.random(400))


def toy_calibration(limit: float = 0.3, window_rows: int = 100) -> Calibration:
    limits = dict.fromkeys((*FEATURES, PREDICTION), limit)
    ranges = {name: (0.0, 1.0, 2.0) if name in CATEGORIES else (-1.0, 1.0) for name in FEATURES}
    return Calibration(20.0, limits, window_rows, ranges, "toy")


class Files(unittest.TestCase):
    """What is read is checked, and refused by name."""

    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.path = Path(temporary.name) / "file"

    def refused(self, load: type[Reference] | type[Calibration], saying: str) -> None:
        with self.assertRaisesRegex(DetectorsError, f"^{self.path}: .*{saying}.*, expected .*"):
            load.load(self.path)

    def write_arrays(self, **arrays: np.ndarray) -> None:
        with self.path.open("wb") as file:
            np.savez(file, **arrays)

    def test_a_reference_that_is_none_is_refused(self) -> None:
        self.refused(Reference, "unreadable")
        self.path.write_bytes(b"PK\x03\x04 no zip")
        self.refused(Reference, "unreadable")
        rows = np.zeros((5, 12), np.float32)
        self.write_arrays(rows=rows)
        self.refused(Reference, "unreadable")
        for wrong in (rows[:, :11], rows[:4], rows[:0], np.full_like(rows, np.nan)):
            self.write_arrays(rows=wrong, expected=np.zeros(len(rows) if len(wrong) else 0))
            self.refused(Reference, "rows of shape")
        self.write_arrays(rows=rows.astype(object), expected=np.zeros(5))
        self.refused(Reference, "unreadable")

    def test_a_reference_is_read(self) -> None:
        known = toy_reference()
        self.write_arrays(rows=known.rows, expected=known.predictions)
        read = Reference.load(self.path)
        self.assertTrue((read.rows == known.rows).all() and (read.predictions == known.predictions).all())

    def test_a_calibration_for_other_features_is_refused(self) -> None:
        self.refused(Calibration, "unreadable")
        good = json.loads(CALIBRATION.read_text(encoding="utf-8"))
        self.path.write_text(json.dumps(good), encoding="utf-8")
        Calibration.load(self.path)
        for part in ("drift_limits", "ranges"):
            self.path.write_text(json.dumps(good | {part: {"temp": 1}}), encoding="utf-8")
            self.refused(Calibration, "unreadable")
        for wrong in ([], "text", good | {"outlier_limit": "high"}):
            self.path.write_text(json.dumps(wrong), encoding="utf-8")
            self.refused(Calibration, "unreadable")
        self.path.write_text(json.dumps(good | {"window_rows": 0}), encoding="utf-8")
        self.refused(Calibration, "no size")

    def test_the_version_changes_with_any_byte(self) -> None:
        content = CALIBRATION.read_bytes()
        self.path.write_bytes(content + b"\n")
        versions = {Calibration.load(path).version for path in (CALIBRATION, self.path)}
        self.assertEqual([len(version) for version in versions], [12, 12])

    def test_the_library_says_its_licence(self) -> None:
        version = tuple(int(part) for part in detection.LIBRARY["version"].split("."))
        self.assertEqual(detection.LIBRARY["licence"], "Apache-2.0" if version < (0, 11, 5) else "BSL-1.1")


class Ranges(unittest.TestCase):
    def test_values_beyond_the_range_and_unknown_codes(self) -> None:
        rows = np.zeros((4, 12), np.float32)
        rows[0, 0], rows[1, TEMP], rows[2, TEMP], rows[3] = 3, 1.1, -1.1, np.nan
        found = toy_calibration().out_of_range(rows)
        self.assertEqual(
            np.argwhere(found).tolist(), [[0, 0], [1, TEMP], [2, TEMP]], "a gap is missing, not out of range"
        )


class OutliersWithoutAModel(unittest.TestCase):
    def test_nothing_is_learned_from_what_is_scored(self) -> None:
        known, rows = toy_reference(), toy_reference(1).rows
        outliers = Outliers(known, toy_calibration())
        once = outliers.scores(rows)
        outliers.scores(rows + 100)
        self.assertTrue((outliers.scores(rows) == once).all())
        alone = np.concatenate([outliers.scores(row[None]) for row in rows])
        np.testing.assert_allclose(alone, once, rtol=1e-9)
        np.testing.assert_allclose(Outliers(known, toy_calibration()).scores(rows), once, rtol=1e-9)

    def test_the_global_generator_is_left_as_it_was(self) -> None:
        np.random.seed(5)
        expected = np.random.random()
        np.random.seed(5)
        Outliers(toy_reference(), toy_calibration())
        self.assertEqual(np.random.random(), expected)

    def test_no_rows_and_a_constant_feature(self) -> None:
        known = toy_reference()
        known.rows[:, TEMP] = 7
        outliers = Outliers(known, toy_calibration())
        self.assertEqual(outliers.flags(known.rows[:0]).shape, (0,))
        other = known.rows[:1].copy()
        other[0, TEMP] = 8
        self.assertGreater(outliers.scores(other)[0], outliers.scores(known.rows[:1])[0] + 1000)


class DriftWithoutAModel(unittest.TestCase):
    def setUp(self) -> None:
        self.known = toy_reference()
        self.drift = Drift(self.known, toy_calibration())

    def test_the_reference_itself_has_no_distance(self) -> None:
        judged = self.drift.judge(self.known.rows, self.known.predictions)
        self.assertEqual(set(judged.distances), {*FEATURES, PREDICTION})
        self.assertEqual(judged.distances.keys(), judged.limits.keys() & judged.p_values.keys())
        self.assertEqual((max(judged.distances.values()), judged.ratio, judged.drifted), (0, 0, False))

    def test_one_moved_feature_is_named(self) -> None:
        for column, name in enumerate(FEATURES):
            rows = self.known.rows.copy()
            rows[:, column] = 50
            judged = self.drift.judge(rows, self.known.predictions)
            self.assertTrue(judged.drifted)
            beyond = [other for other in judged.distances if judged.distances[other] > judged.limits[other]]
            self.assertEqual(beyond, [name])
            self.assertEqual(judged.ratio, judged.distances[name] / judged.limits[name])

    def test_a_model_that_answers_alike_is_named(self) -> None:
        judged = self.drift.judge(self.known.rows, np.full(400, 0.5))
        self.assertTrue(judged.drifted)
        self.assertEqual(max(judged.distances, key=judged.distances.__getitem__), PREDICTION)

    def test_without_predictions_the_features_are_judged(self) -> None:
        judged = self.drift.judge(self.known.rows, None)
        self.assertEqual(set(judged.distances), set(FEATURES))

    def test_no_rows_or_too_few_predictions(self) -> None:
        for rows, predictions in ((self.known.rows[:0], None), (self.known.rows, self.known.predictions[:9])):
            with self.assertRaisesRegex(ValueError, "expected at least one row and as many predictions"):
                self.drift.judge(rows, predictions)

    def test_what_was_judged_changes_nothing(self) -> None:
        rows = toy_reference(1).rows[:120]
        once = self.drift.judge(rows, None)
        self.drift.judge(rows + 9, None)
        self.assertEqual(self.drift.judge(rows, None), once)

    def test_smaller_windows_have_wider_limits_and_larger_ones_the_same(self) -> None:
        limits = {size: self.drift.judge(self.known.rows[:size], None).limits for size in (20, 50, 100, 400)}
        self.assertEqual(limits[400], limits[100])
        self.assertEqual(limits[100], dict.fromkeys(FEATURES, 0.3))
        for name in FEATURES:
            self.assertGreater(limits[20][name], limits[50][name])
            self.assertGreater(limits[50][name], limits[100][name])

    def test_the_distance_of_categories_is_that_of_its_definition_at_any_size(self) -> None:
        rows = toy_reference(1).rows
        both = np.vstack([self.known.rows, rows])
        for size, repeated in ((400, rows), (1200, np.tile(rows, (3, 1)))):
            weights = np.r_[np.full(400, 1 / 400), np.full(400, 1 / 400)] * np.r_[np.full(400, 400), np.full(400, size)]
            judged = self.drift.judge(repeated, None)
            for column, name in enumerate(CATEGORIES):
                p, q = (np.bincount(part[:, column].astype(int), minlength=8) / 400 for part in (self.known.rows, rows))
                pooled = np.bincount(both[:, column].astype(int), weights, minlength=8) / (400 + size)
                expected = np.sqrt(np.sum((p - q)[pooled > 0] ** 2 / pooled[pooled > 0]))
                self.assertAlmostEqual(judged.distances[name], expected, places=5)


@unittest.skipUnless((ARTIFACTS / "reference.npz").is_file(), "no model/artifacts: build the model first")
class OnFlights(unittest.TestCase):
    """With the committed limits. The study says more; this shows that the service's own code says the same."""

    @classmethod
    def setUpClass(cls) -> None:
        reference, calibration = Reference.load(ARTIFACTS / "reference.npz"), Calibration.load(CALIBRATION)
        cls.reference, cls.calibration = reference, calibration
        cls.outliers, cls.drift = Outliers(reference, calibration), Drift(reference, calibration)
        with np.load(ARTIFACTS / "held_out.npz") as arrays:
            cls.held_out = dict(arrays)

    def alarms(self, period: str, rows: int, windows: int = 40, columns: list[int] | None = None) -> float:
        """The share of windows of a period's rows, drawn from all of it, that alarm."""
        draw, values = np.random.default_rng(rows), self.held_out[f"{period}_rows"]
        found = []
        for _ in range(windows):
            chosen = draw.choice(len(values), rows, replace=False)
            window = values[chosen][:, columns] if columns else values[chosen]
            found.append(self.drift.judge(window, self.held_out[f"{period}_expected"][chosen]).drifted)
        return float(np.mean(found))

    def test_corrupted_rows_are_flagged_and_clean_ones_are_not(self) -> None:
        clean, corrupted = (
            self.outliers.flags(self.held_out[f"{p}_rows"]).mean() for p in ("january_march", "corrupted")
        )
        self.assertLessEqual(clean, 0.06)
        self.assertGreaterEqual(corrupted, 0.9)

    def test_rows_with_two_columns_swapped_are_flagged(self) -> None:
        """A wrong order of columns, the commonest mistake of a client."""
        rows = self.held_out["january_march_rows"].copy()
        rows[:, [TEMP, TEMP + 2]] = rows[:, [TEMP + 2, TEMP]]
        self.assertGreater(self.outliers.flags(rows).mean(), 0.5)

    def test_windows_of_any_size_the_demo_may_have(self) -> None:
        for rows in (150, 300, 500):
            self.assertEqual(self.alarms("january_march", rows), 0, rows)
            self.assertEqual(self.alarms("june_july", rows), 1, rows)

    def test_a_wrong_order_of_columns_is_drift(self) -> None:
        self.assertEqual(self.alarms("january_march", 300, columns=[*range(4), *range(5, 12), 4]), 1)

    def test_a_detector_that_always_alarms_would_be_noticed(self) -> None:
        tight = dataclasses.replace(self.calibration, drift_limits=dict.fromkeys(self.calibration.drift_limits, 0.01))
        rows = self.held_out["january_march_rows"][::31][:500]
        self.assertTrue(Drift(self.reference, tight).judge(rows, None).drifted)
        self.assertFalse(self.drift.judge(rows, None).drifted)

    def test_quiet_rows_are_within_the_ranges(self) -> None:
        self.assertFalse(self.calibration.out_of_range(self.held_out["january_march_rows"]).any())
        self.assertTrue(self.calibration.out_of_range(self.held_out["june_july_rows"])[:, TEMP].any())


if __name__ == "__main__":
    unittest.main()
