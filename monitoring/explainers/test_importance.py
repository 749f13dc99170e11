"""The report tells which features the served model uses, from its answers alone."""

# ruff: noqa: PT009, PT027 (pytest is not there)
from __future__ import annotations

import contextlib
import io
import json
import tempfile
import unittest
from pathlib import Path

import importance
import numpy as np
import standin
from errors import ExplainersError
from features import FEATURES


class TheAreaUnderTheCurve(unittest.TestCase):
    def test_it_counts_pairs(self) -> None:
        random = np.random.default_rng(0)
        late, answers = random.random(200) < 0.3, random.integers(0, 20, 200) / 20
        above = answers[late][:, None] > answers[~late]
        ties = answers[late][:, None] == answers[~late]
        expected = (above.sum() + ties.sum() / 2) / above.size
        self.assertAlmostEqual(importance.area_under_curve(late, answers), expected, places=12)

    def test_its_ends_and_its_middle(self) -> None:
        late = np.array([True, True, False, False])
        for answers, expected in (([4, 3, 2, 1], 1.0), ([1, 2, 3, 4], 0.0), ([1, 1, 1, 1], 0.5)):
            self.assertEqual(importance.area_under_curve(late, np.array(answers, dtype=np.float64)), expected)


class TheReport(unittest.TestCase):
    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = Path(temporary.name)
        client, _ = standin.write_files(self.folder)
        self.served = standin.StandIn(standin.linear)
        self.addCleanup(self.served.close)
        rows = standin.make_rows(300, seed=6)
        late = standin.linear(rows) + np.random.default_rng(0).normal(0, 0.1, 300) > 0.45
        np.savez(self.folder / "data.npz", may_rows=rows, may_late=late)
        self.argv = ["--client", str(client), "--ask", self.served.url, "--data", str(self.folder / "data.npz")]
        self.argv += ["--prefix", "may_", "--repeats", "3", "--rows", "200"]

    def run_to(self, name: str) -> tuple[int, str, str]:
        out = self.folder / name
        said = io.StringIO()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
            code = importance.main([*self.argv, "--out", str(out)])
        return code, out.read_text(encoding="utf-8") if out.exists() else "", said.getvalue()

    def test_features_rank_by_how_far_they_move_the_answer(self) -> None:
        code, text, _ = self.run_to("report.json")
        self.assertEqual(code, 0)
        report = json.loads(text)
        spread = np.abs(standin.SLOPES) * standin.make_rows(3000).std(axis=0)
        expected = [FEATURES[index] for index in np.argsort(-spread)]
        self.assertEqual([one["feature"] for one in report["features"]][:2], expected[:2])
        changes = {one["feature"]: one["change"]["mean"] for one in report["features"]}
        for name, slope, deviation in zip(FEATURES, standin.SLOPES, spread, strict=True):
            self.assertLess(abs(changes[name] - abs(deviation) * 1.15), 0.25 * abs(deviation), f"{name} {slope}")
        self.assertEqual((report["rows"], report["repeats"]), (200, 3))
        self.assertLessEqual(report["rows_asked"], 200 * (1 + 3 * len(FEATURES)))
        self.assertGreater(report["auc"], 0.6)

    def test_a_feature_the_model_ignores_matters_not_at_all(self) -> None:
        self.served.predict = lambda rows: 0.5 + (rows[:, 3] - 13) / 100
        report = json.loads(self.run_to("report.json")[1])
        first, *others = report["features"]
        self.assertEqual(first["feature"], "hour")
        for one in others:
            self.assertEqual(one["change"], {"mean": 0.0, "std": 0.0})

    def test_the_same_seed_gives_the_same_report(self) -> None:
        self.assertEqual(self.run_to("one.json")[1], self.run_to("two.json")[1])

    def test_the_page_shows_every_feature(self) -> None:
        _, page, _ = self.run_to("report.html")
        for name in FEATURES:
            self.assertEqual(page.count(f"<th>{name}<"), 1)
        self.assertIn("alibi", page)
        self.assertNotIn("<script", page)

    def test_without_a_model_there_is_no_report_and_a_reason(self) -> None:
        self.served.close()
        code, text, said = self.run_to("report.json")
        self.assertEqual((code, text), (1, ""))
        self.assertRegex(said, "^the served model at .*: no connection")

    def test_data_that_cannot_be_used_is_refused_by_name(self) -> None:
        path = self.folder / "data.npz"
        rows = standin.make_rows(4)
        wrong = {
            "late is not a file": {"rows": rows},
            r"shapes \(4, 12\) and \(3,\)": {"rows": rows, "late": np.array([True, False, True])},
            "4 late": {"rows": rows, "late": np.ones(4, dtype=bool)},
            "0 late": {"rows": rows, "late": np.zeros(4, dtype=bool)},
        }
        for words, found in wrong.items():
            np.savez(path, **found)
            with self.subTest(words), self.assertRaisesRegex(ExplainersError, words):
                importance.load(path, "")

    def test_options_that_cannot_be_meant_are_refused(self) -> None:
        for words in (
            ["--out", "report.pdf"],
            ["--out", "a.json", "--repeats", "1"],
            ["--out", "a.json", "--rows", "0"],
        ):
            said = io.StringIO()
            with self.subTest(words), contextlib.redirect_stderr(said), self.assertRaises(SystemExit) as ended:
                importance.parse([*self.argv, *words])
            self.assertEqual(ended.exception.code, 2)


if __name__ == "__main__":
    unittest.main()
