"""Explanations are those of the model that is asked: known values are found, and a wrong one would show."""

# ruff: noqa: PT009, PT027 (pytest is not there)
from __future__ import annotations

import re
import unittest
from typing import Any

import explaining
import numpy as np
import numpy.typing as npt
import standin
from errors import ExplainersError, InputRefused, ServedModelFailed
from features import FEATURES
from reference import Reference


def refer(predict: standin.Predict) -> Reference:
    rows = standin.make_rows(600)
    return Reference(rows, predict(rows))


def explain(
    explainer: explaining.Explainer, predict: standin.Predict, method: str, rows: npt.NDArray[np.float32], seed: int = 0
) -> list[dict[str, Any]]:
    return explainer.explain(predict, lambda: None, method, rows, seed)


class KernelShapTellsWhatTheModelDoes(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.linear = explaining.Explainer(refer(standin.linear))
        cls.curved = explaining.Explainer(refer(standin.curved))
        cls.rows = standin.make_rows(6, seed=1)

    def test_the_values_of_a_linear_model_are_those_of_the_formula(self) -> None:
        mean = self.linear.background.astype(np.float64).mean(axis=0)
        for row, found in zip(self.rows, explain(self.linear, standin.linear, "kernel_shap", self.rows), strict=True):
            np.testing.assert_allclose(found["values"], standin.SLOPES * (row - mean), atol=1e-9)
            self.assertAlmostEqual(found["base_value"], standin.linear(self.linear.background).mean(), places=12)
            self.assertAlmostEqual(found["prediction"], standin.linear(row[None])[0], places=12)

    def test_a_model_of_one_feature_is_explained_by_that_feature(self) -> None:
        for index, name in enumerate(FEATURES):
            with self.subTest(name):
                slope = np.zeros(len(FEATURES))
                slope[index] = 0.1 / np.ptp(self.linear.reference.rows[:, index])

                def predict(rows: npt.NDArray[np.floating], slope: Any = slope) -> npt.NDArray[np.float64]:
                    return 0.5 + (rows - standin.CENTRE) @ slope

                [found] = explain(self.linear, predict, "kernel_shap", self.rows[:1])
                others = np.delete(found["values"], index)
                self.assertGreater(abs(found["values"][index]), 1e-4)
                self.assertLess(np.abs(others).max(), 1e-9)

    def test_the_parts_add_up_to_the_prediction(self) -> None:
        for found in explain(self.curved, standin.curved, "kernel_shap", self.rows):
            self.assertAlmostEqual(found["base_value"] + sum(found["values"]), found["prediction"], places=9)

    def test_values_come_close_to_the_exact_ones(self) -> None:
        [found] = explain(self.curved, standin.curved, "kernel_shap", self.rows[:1])
        exact = shapley_values(standin.curved, self.rows[0], self.curved.background)
        self.assertLess(np.abs(np.array(found["values"]) - exact).max(), 0.02)
        self.assertGreater(np.abs(exact).max(), 0.05)

    def test_a_row_of_the_background_alone_is_explained_by_nothing(self) -> None:
        self.linear.background, kept = np.repeat(self.rows[:1], 20, axis=0), self.linear.background
        try:
            [found] = explain(self.linear, standin.linear, "kernel_shap", self.rows[:1])
        finally:
            self.linear.background = kept
        self.assertEqual(found["values"], [0.0] * len(FEATURES))


def shapley_values(
    predict: standin.Predict, row: npt.NDArray[np.float32], background: npt.NDArray[np.float32]
) -> npt.NDArray[np.float64]:
    """By the definition: over all 2^k coalitions."""
    count = len(row)
    coalitions = (np.arange(2**count)[:, None] >> np.arange(count)) & 1
    mixed = np.where(coalitions[:, None, :] == 1, row, background[None])
    value = predict(mixed.reshape(-1, count)).reshape(len(coalitions), -1).mean(axis=1)
    size = coalitions.sum(axis=1)
    factorial = np.cumprod([1, *range(1, count + 1)], dtype=np.float64)
    weight = factorial[size] * factorial[np.maximum(count - size - 1, 0)] / factorial[count]
    without = [np.flatnonzero(coalitions[:, index] == 0) for index in range(count)]
    return np.array([(weight[k] * (value[k + 2**index] - value[k])).sum() for index, k in enumerate(without)])


class AnExplanationDependsOnNothingElse(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.explainer = explaining.Explainer(refer(standin.curved))
        cls.rows = standin.make_rows(3, seed=2)

    def test_neither_on_other_rows_nor_on_what_was_explained_before(self) -> None:
        for method in ("kernel_shap", "anchors"):
            with self.subTest(method):
                together = explain(self.explainer, standin.curved, method, self.rows, seed=5)
                np.random.seed(77)
                alone = [
                    explain(self.explainer, standin.curved, method, row[None], seed=5)[0] for row in self.rows[::-1]
                ]
                self.assertEqual(together, alone[::-1])

    def test_but_on_the_seed(self) -> None:
        one, other = (explain(self.explainer, standin.curved, "kernel_shap", self.rows, seed) for seed in (0, 1))
        self.assertNotEqual(one, other)
        moved = np.abs(np.array([a["values"] for a in one]) - [b["values"] for b in other])
        self.assertLess(moved.max(), 0.05)

    def test_a_model_exchanged_meanwhile_is_noticed(self) -> None:
        for method in ("kernel_shap", "anchors"):
            model = Exchanged()
            words = "other answers to the same rows .* expected one model throughout"
            with self.subTest(method), self.assertRaisesRegex(ServedModelFailed, words):
                self.explainer.explain(model, model.forget, method, self.rows[:1], 0)


class Exchanged:
    """One model for the first 30 rows it is asked for, then another; answers are remembered until `forget`."""

    def __init__(self) -> None:
        self.asked = 0
        self.forget()

    def forget(self) -> None:
        self.known: dict[bytes, float] = {}

    def __call__(self, rows: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        for row in rows:
            if row.tobytes() not in self.known:
                self.known[row.tobytes()] = float((standin.curved if self.asked < 30 else standin.linear)(row[None])[0])
                self.asked += 1
        return np.array([self.known[row.tobytes()] for row in rows])


class AnchorsHold(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.explainer = explaining.Explainer(refer(standin.curved))
        cls.rows = standin.make_rows(8, seed=3)
        cls.found = explain(cls.explainer, standin.curved, "anchors", cls.rows)

    def test_the_row_fulfils_its_conditions(self) -> None:
        for row, found in zip(self.rows, self.found, strict=True):
            self.assertLessEqual(len({parse(text)[0] for text in found["conditions"]}), explaining.MOST_CONDITIONS)
            for text in found["conditions"]:
                self.assertTrue(fulfils(row[None], text)[0], f"{text} for {row}")

    def test_the_class_is_on_which_side_of_the_threshold_the_prediction_lies(self) -> None:
        self.assertEqual(self.explainer.threshold, self.explainer.reference.expected.mean())
        sides = [found["above_threshold"] for found in self.found]
        self.assertEqual(sides, [found["prediction"] > self.explainer.threshold for found in self.found])
        self.assertEqual(set(sides), {True, False})

    def test_a_model_that_always_decides_alike_needs_no_condition(self) -> None:
        [found] = explain(self.explainer, lambda rows: np.full(len(rows), 0.9), "anchors", self.rows[:1])
        self.assertEqual(found["conditions"], [])
        self.assertEqual((found["precision"], found["coverage"], found["above_threshold"]), (1.0, 1.0, True))

    def test_a_model_of_two_conditions_is_explained_by_them(self) -> None:
        def predict(rows: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
            return np.where((rows[:, 3] > 13) & (rows[:, 1] == 2), 0.9, 0.1)

        explainer = explaining.Explainer(refer(predict))
        row = self.rows[:1].copy()
        row[0, [1, 3]] = 2, 18
        [found] = explain(explainer, predict, "anchors", row)
        self.assertEqual({parse(text)[0] for text in found["conditions"]}, {1, 3})
        self.assertIn("origin = 2", found["conditions"])
        self.assertGreaterEqual(found["precision"], explaining.PRECISION)

    def test_precision_and_coverage_are_as_stated(self) -> None:
        rows = self.explainer.reference.rows
        random = np.random.default_rng(0)
        for found in self.found:
            holds = np.ones(len(rows), dtype=bool)
            for text in found["conditions"]:
                holds &= fulfils(rows, text)
            self.assertLess(abs(holds.mean() - found["coverage"]), 0.03)
            if not holds.sum() >= 20:
                continue
            anchored = [parse(text)[0] for text in found["conditions"]]
            sample = rows[random.integers(len(rows), size=4000)]
            sample[:, anchored] = rows[random.choice(np.flatnonzero(holds), 4000)][:, anchored]
            agreed = ((standin.curved(sample) > self.explainer.threshold) == found["above_threshold"]).mean()
            self.assertLess(abs(agreed - found["precision"]), 0.08, found)

    def test_categories_are_told_by_name_where_there_are_names(self) -> None:
        named = explaining.Explainer(self.explainer.reference, {"weekday": [f"day {code}" for code in range(7)]})
        found = explain(named, standin.curved, "anchors", self.rows)
        expected = [[text.replace("weekday = ", "weekday = day ") for text in one["conditions"]] for one in self.found]
        self.assertEqual([one["conditions"] for one in found], expected)
        self.assertIn("weekday = day", str(expected))

    def test_too_few_names_are_refused(self) -> None:
        with self.assertRaisesRegex(ExplainersError, "codes of carrier: 2 names, expected one for each code up to 15"):
            explaining.Explainer(self.explainer.reference, {"carrier": ["a", "b"]})

    def test_a_row_unlike_the_reference_is_refused(self) -> None:
        for name, value in (("carrier", 16), ("carrier", 2.5), ("weekday", -1)):
            row = self.rows[:1].copy()
            row[0, FEATURES.index(name)] = value
            with self.assertRaisesRegex(
                InputRefused, f"{name}: {value}, expected a value like those of the 600 reference"
            ):
                explain(self.explainer, standin.curved, "anchors", row)
            explain(self.explainer, standin.curved, "kernel_shap", row)

    def test_a_value_in_a_bin_without_reference_rows_is_refused(self) -> None:
        rows = self.explainer.reference.rows.copy()
        rows[:, FEATURES.index("visib")] = 10
        explainer = explaining.Explainer(Reference(rows, self.explainer.reference.expected))
        row = self.rows[:1].copy()
        row[0, FEATURES.index("visib")] = 10.5
        with self.assertRaisesRegex(InputRefused, "visib: 10.5"):
            explain(explainer, standin.curved, "anchors", row)


def parse(text: str) -> tuple[int, float, float]:
    """A condition's feature, and between which values it lies (the lower one excluded)."""
    if found := re.fullmatch(r"(\w+) = (\d+)", text):
        return FEATURES.index(found[1]), float(found[2]) - 0.5, float(found[2])
    if found := re.fullmatch(r"(\S+) < (\w+) <= (\S+)", text):
        return FEATURES.index(found[2]), float(found[1]), float(found[3])
    found = re.fullmatch(r"(\w+) (<=|>) (\S+)", text)
    assert found, text
    low, high = (-np.inf, float(found[3])) if found[2] == "<=" else (float(found[3]), np.inf)
    return FEATURES.index(found[1]), low, high


def fulfils(rows: npt.NDArray[np.float32], text: str) -> npt.NDArray[np.bool_]:
    index, low, high = parse(text)
    rounding = 0.0051 if ("=" in text and " = " not in text) or ">" in text else 0.0
    return (rows[:, index] > low - rounding) & (rows[:, index] <= high + rounding)


if __name__ == "__main__":
    unittest.main()
