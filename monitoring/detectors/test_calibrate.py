"""The calibration and its study. Run: `python -m unittest` in this folder."""

# ruff: noqa: PT009, PT027 (pytest is not there)
from __future__ import annotations

import contextlib
import io
import shutil
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import one_thread  # noqa: F401 (before numpy)

# isort: split
import calibrate
import numpy as np
from errors import DetectorsError

HERE = Path(__file__).resolve().parent
ARTIFACTS = HERE.parents[1] / "model/artifacts"
PAGE = HERE.parents[1] / "docs/drift.md"


def run(*arguments: object) -> tuple[int, str, str]:
    """calibrate.main with these arguments: exit code, stdout, stderr."""
    said, complained = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["calibrate.py", *map(str, arguments)]),
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(complained),
    ):
        try:
            code = calibrate.main()
        except SystemExit as ended:
            code = int(ended.code or 0)
    return code, said.getvalue(), complained.getvalue()


class Windows(unittest.TestCase):
    def test_a_reservoir_takes_every_row_equally_often(self) -> None:
        counts = np.zeros(1000)
        draws = 400
        for seed in range(draws):
            kept = calibrate.draw_window(1000, [seed])
            self.assertEqual(len(np.unique(kept)), 500)
            counts[kept] += 1
        expected, spread = draws / 2, np.sqrt(draws / 4)
        self.assertLess(np.abs(counts - expected).max() / spread, 4.5)
        early, late = counts[:500].sum(), counts[500:].sum()
        self.assertLess(abs(early - late) / (2 * 500 * expected), 0.02)

    def test_a_short_week_is_taken_whole(self) -> None:
        self.assertEqual(calibrate.draw_window(30, [0]).tolist(), list(range(30)))

    def test_weeks_run_from_monday_to_sunday(self) -> None:
        days = np.arange(85, 99, dtype=np.int16)  # Tuesday the 26th of March 2013 to Monday the 8th of April
        arrays = {}
        for period, chosen in (("january_march", days <= 90), ("april_may", days > 90)):
            arrays[f"{period}_rows"] = np.zeros((chosen.sum(), 12), np.float32)
            arrays[f"{period}_expected"] = np.zeros(chosen.sum())
            arrays[f"{period}_day"] = days[chosen]
        weeks = calibrate.load_weeks(arrays, ("january_march", "april_may"))
        self.assertEqual([week.start.isoformat() for week in weeks], ["2013-03-25", "2013-04-01", "2013-04-08"])
        self.assertEqual([len(week.days) for week in weeks], [6, 7, 1])
        self.assertEqual([week.of("april_may") for week in weeks], [False, True, False])


class Limits(unittest.TestCase):
    def test_scales_are_inverse_to_each_other(self) -> None:
        distances = np.linspace(0.05, 0.95, 13)
        np.testing.assert_allclose(calibrate.drawn_in(calibrate.spread_out(distances)), distances)

    def test_a_further_week_is_below_them_as_often_as_promised(self) -> None:
        """On weeks of the kind assumed: independent and normal on the logit, one spread for all features of a kind."""
        draw, beyond, rounds = np.random.default_rng(0), 0, 600
        for _ in range(rounds):
            week = draw.normal(-1, 0.5, (13, 1, 13))
            scaled = week + draw.normal(0, 0.1, (13, 5, 13))
            distances = np.array([[calibrate.drawn_in(one) for one in few] for few in scaled])
            limits = calibrate.limits_of(distances[:12], false_alarms=0.05)
            beyond += bool((distances[12, 0] > limits).any())
        self.assertLess(abs(beyond / rounds - 0.05), 4 * np.sqrt(0.05 * 0.95 / rounds))

    def test_fewer_false_alarms_mean_wider_limits(self) -> None:
        distances = np.random.default_rng(0).uniform(0.1, 0.4, (12, 5, 13))
        wide, narrow = (calibrate.limits_of(distances, false_alarms=share) for share in (0.001, 0.05))
        self.assertTrue((wide > narrow).all())
        self.assertTrue((narrow > distances.mean(axis=(0, 1))).all())


class Pages(unittest.TestCase):
    def test_only_what_is_between_the_marks_changes(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            page = Path(folder) / "page.md"
            page.write_text(f"before {calibrate.MARKS[0]} old {calibrate.MARKS[1]} after", encoding="utf-8")
            for tables in ("new", "newer"):
                calibrate.renew(page, tables)
                text = page.read_text(encoding="utf-8")
                self.assertEqual(text, f"before {calibrate.MARKS[0]}\n\n{tables}\n\n{calibrate.MARKS[1]} after")
            for wrong in ("", calibrate.MARKS[0], calibrate.MARKS[1] + calibrate.MARKS[0], text + text):
                page.write_text(wrong, encoding="utf-8")
                with self.assertRaisesRegex(DetectorsError, "no place for the tables"):
                    calibrate.renew(page, "new")


class Command(unittest.TestCase):
    def test_what_cannot_be_read_is_named(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "calibration.json"
            code, _, complained = run("--held-out", "nowhere.npz", "--reference", "nowhere.npz", "--out", out)
            self.assertEqual(code, 2)
            self.assertRegex(complained, r"^calibrate.py: nowhere.npz: unreadable .*, expected .*\n$")
            self.assertFalse(out.exists())
            reference = Path(folder) / "reference.npz"
            np.savez(reference, rows=np.zeros((9, 12), np.float32), expected=np.zeros(9))
            code, _, complained = run("--held-out", reference, "--reference", reference, "--out", out)
            self.assertEqual(code, 2)
            self.assertRegex(
                complained, "reference.npz: no january_march_rows, january_march_expected, .*, expected rows"
            )
        self.assertEqual(run("--held-out", "a", "--reference", "b", "--out", "c", "--docs", "d")[0], 2)

    @unittest.skipUnless((ARTIFACTS / "reference.npz").is_file(), "no model/artifacts: build the model first")
    def test_it_writes_what_is_committed_whatever_the_licence_of_the_library(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            out, study, page = (Path(folder) / name for name in ("calibration.json", "study.json", "drift.md"))
            shutil.copy(PAGE, page)
            calibrate.renew(page, "nothing yet")
            data = ("--held-out", ARTIFACTS / "held_out.npz", "--reference", ARTIFACTS / "reference.npz")
            code, _, complained = run(*data, "--out", out, "--study", study, "--docs", page)
            self.assertEqual(code, 0, complained)
            for written, committed in ((out, HERE / out.name), (study, HERE / study.name), (page, PAGE)):
                self.assertEqual(
                    written.read_text(encoding="utf-8"),
                    committed.read_text(encoding="utf-8"),
                    f"{committed.name} is not what calibrate.py writes: run the command of docs/drift.md",
                )


if __name__ == "__main__":
    unittest.main()
