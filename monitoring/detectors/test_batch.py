"""The batch mode: the report says what the file holds, errors say where, and no report is left half written."""

# ruff: noqa: PT009, PT027 (pytest is not there)
from __future__ import annotations

import argparse
import contextlib
import html.parser
import io
import json
import subprocess
import sys
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

import batch
import numpy as np
import pandas as pd
import records
import reports
import rig
from errors import DetectorsError


def frame(weeks: int = 3, warm: int | None = None) -> pd.DataFrame:
    """400 records a week of 2013 from the first on, with time and prediction; week `warm` is 20 degrees warmer."""
    rows = rig.flights(400 * weeks, 5)
    made = pd.DataFrame(rows, columns=list(rig.FEATURES))
    made["probability"] = rig.probabilities(rows)
    made["scheduled"] = np.repeat(pd.date_range("2012-12-31", periods=weeks, freq="7D"), 400)
    if warm:
        made.loc[400 * (warm - 1) : 400 * warm - 1, "temp"] += 20
    return made


class BatchCase(rig.Files):
    """Runs batch.py as a program would, but in this process: the libraries are then loaded once."""

    def setUp(self) -> None:
        super().setUp()
        self.out = self.folder / "report.json"

    def run_batch(self, *arguments: object) -> str:
        """Standard error, after exit code 0."""
        code, words = self.call(*arguments)
        self.assertEqual(code, 0, words)
        return words

    def call(self, *arguments: object) -> tuple[int, str]:
        argv = ["batch.py", *map(str, arguments)]
        for name in ("reference.npz", "calibration.json"):
            argv += [f"--{name.partition('.')[0]}", str(self.folder / name)]
        words = io.StringIO()
        with mock.patch.object(sys, "argv", argv), contextlib.redirect_stderr(words):
            return batch.main(), words.getvalue()

    def report(self) -> dict[str, Any]:
        return json.loads(self.out.read_text())

    def write(self, data: pd.DataFrame, name: str = "records.csv") -> Path:
        path = self.folder / name
        if path.suffix == ".csv":
            data.to_csv(path, index=False)
        else:
            data.to_parquet(path)
        return path


class Reports(BatchCase):
    """The numbers are those of the file."""

    def test_a_window_for_each_week_of_which_the_drifted_one_is_found(self) -> None:
        data = frame(warm=2)
        data.loc[7, ["temp", "dewp"]] = np.nan
        data.loc[8, "humid"] = 2000
        by_week = ("--by", "week", "--time", "scheduled", "--prediction", "probability")
        found = []
        for path in (self.write(data), self.write(data, "records.parquet")):
            with (
                mock.patch.object(records, "PART_ROWS", 150),
                mock.patch.object(records.read, "__defaults__", (None, 150)),
            ):
                words = self.run_batch(path, "--out", self.out, *by_week)
            self.assertIn("1,200 rows read (100%)", words)
            self.assertIn("1 of 3 judged windows drifted", words)
            found.append(self.report() | {"file": ""})
        self.assertEqual(
            *(json.loads(json.dumps(one), parse_float=lambda text: round(float(text), 4)) for one in found)
        )
        report = found[0]
        self.assertEqual([window["name"] for window in report["windows"]], ["2013-W01", "2013-W02", "2013-W03"])
        self.assertEqual([window["drifted"] for window in report["windows"]], [False, True, False])
        self.assertEqual(report["windows"][1]["furthest"], "temp")
        self.assertEqual([window["records"] for window in report["windows"]], [400] * 3)
        self.assertEqual([window["complete_records"] for window in report["windows"]], [399, 400, 400])
        self.assertEqual((report["records"], report["complete_records"]), (1200, 1199))
        self.assertGreaterEqual(report["windows"][0]["outliers"], 1)
        columns = {column["name"]: column for column in report["columns"]}
        self.assertEqual((columns["temp"]["missing"], columns["humid"]["out_of_range"]), (1, 1))
        for name in (*rig.FEATURES, "probability"):
            column, values = columns["prediction" if name == "probability" else name], data[name].dropna()
            self.assertEqual((column["values"], sum(column["counts"])), (len(values), len(values)))
            self.assertAlmostEqual(column["mean"], values.mean(), places=3)
            expected = np.searchsorted(column["bounds"], values.astype(np.float64), side="left")
            self.assertEqual(column["counts"], np.bincount(expected, minlength=len(column["bounds"]) + 1).tolist())
            self.assertEqual(sum(column["reference_counts"]), 1000)

    def test_a_file_without_times_is_one_window_and_one_too_small_is_not_judged(self) -> None:
        self.run_batch(self.write(frame()), "--out", self.out)
        [window] = self.report()["windows"]
        self.assertEqual((window["name"], window["sampled"], window["drifted"]), ("whole file", 500, False))
        self.assertNotIn("prediction", window["distances"])
        self.run_batch(self.write(frame().head(150)), "--out", self.out, "--quiet")
        [window] = self.report()["windows"]
        self.assertEqual((window["judged"], window["drifted"], window["ratio"]), (False, None, None))

    def test_the_same_file_gives_the_same_report(self) -> None:
        path, texts = self.write(frame(weeks=4)), []
        for _ in range(2):
            self.run_batch(path, "--out", self.out)
            texts.append(self.out.read_text())
        self.assertEqual(*texts)

    def test_the_page_is_whole_escaped_and_asks_for_nothing(self) -> None:
        out = self.folder / "report.html"
        path = self.write(frame(warm=3), "<script>alert(1)<&.csv")
        self.run_batch(path, "--out", out, "--by", "month", "--time", "scheduled")
        page = out.read_text()
        self.assertNotIn("<script", page)
        self.assertIn("&lt;script&gt;alert(1)&lt;&amp;.csv", page)
        self.assertIn("default-src 'none'", page)
        self.assertNotRegex(page, r"https?:|src=|@import|url\(")
        for words in ("2012-12", "2013-01", "drift", "quiet", *rig.FEATURES):
            self.assertIn(words, page)
        tags: list[str] = []
        parser = html.parser.HTMLParser()
        parser.handle_starttag = lambda tag, attributes: tags.append(tag)  # type: ignore[method-assign]
        parser.feed(page)
        self.assertEqual(tags.count("tr"), 3 + 2 + len(rig.FEATURES) * 2)
        self.assertLess(len(page), 100_000)

    def test_help_says_what_it_does_and_needs_no_library(self) -> None:
        argv = [sys.executable, "-X", "importtime", str(rig.HERE / "batch.py"), "--help"]
        done = subprocess.run(argv, capture_output=True, text=True, check=True)
        for words in ("--by", "--time", "--prediction", "--out", "report.html", "Exit codes"):
            self.assertIn(words, done.stdout)
        self.assertNotRegex(done.stderr, r"\| +(numpy|alibi_detect)\n")


class Errors(BatchCase):
    """Each names file, column, row, rule and remedy, and leaves a former report as it was."""

    def refused(self, says: str, *arguments: object) -> None:
        self.out.write_text("former")
        with self.subTest(says=says):
            code, words = self.call(*arguments, "--out", self.out)
            self.assertEqual(code, 2, words)
            self.assertRegex(words, says)
            self.assertNotIn("Traceback", words)
            self.assertEqual(self.out.read_text(), "former")
            self.assertEqual(list(self.folder.glob(".*")), [])

    def test_columns(self) -> None:
        data = frame()
        times = ("--by", "day", "--time", "scheduled")
        self.refused(r"records\.csv: no columns temp, humid among carrier,.*expected the features .*Name the columns",
                     self.write(data.drop(columns=["temp", "humid"])))  # fmt: skip
        self.refused(r"no column probability among", self.write(data.drop(columns="probability")), "--prediction",
                     "probability")  # fmt: skip
        text = data.astype({"carrier": object})
        text.loc[1100, "carrier"] = "UA"
        for name in ("records.csv", "records.parquet"):
            path = self.write(text if name.endswith("csv") else text.astype({"carrier": str}), name)
            if name.endswith("csv"):
                self.refused(r"records\.csv, column carrier, row 1101: found 'UA', expected a number\. .*codes", path)
        words = data.astype({"carrier": object})
        words["carrier"] = "UA"
        self.refused(r"records\.parquet, column carrier, row 1: found 'UA', expected a number",
                     self.write(words, "records.parquet"))  # fmt: skip
        wrong = data.astype({"scheduled": str})
        wrong.loc[2, "scheduled"] = "yesterday"
        self.refused(r"column scheduled, row 3: found 'yesterday', expected a date", self.write(wrong), *times)
        self.refused(r"column hour, row 1: found .*expected a number", self.write(
            data.assign(hour=data["scheduled"]), "records.parquet"))  # fmt: skip
        self.refused(r"column temp, row 1: found (np\.)?True", self.write(data.assign(temp=True)))
        self.refused(r"column temp, row 1: found .*expected a date", self.write(data), "--by", "day", "--time", "temp")

    def test_files(self) -> None:
        self.refused(r"none\.csv: no such file, expected a file of records\.", self.folder / "none.csv")
        text = self.folder / "records.txt"
        text.write_text("x")
        self.refused(r"records\.txt: suffix '\.txt', expected \.csv or \.parquet", text)
        path = self.folder / "records.csv"
        path.write_text("")
        self.refused(r"records\.csv: empty, expected a header and records", path)
        self.refused(r"records\.csv: no records, expected one or more rows", self.write(frame().head(0)))
        self.refused(r"records\.parquet: no records", self.write(frame().head(0), "records.parquet"))
        whole = self.write(frame()).read_bytes()
        path.write_bytes(whole + b'"')
        self.refused(r"records\.csv: .*expected comma-separated values", path)
        path.write_bytes(whole.replace(b",", b",\xff", 1))
        self.refused(r"records\.csv: .*utf-8.*expected comma-separated values in UTF-8", path)
        parquet = self.write(frame(), "records.parquet")
        parquet.write_bytes(parquet.read_bytes()[:-9])
        self.refused(r"records\.parquet: .*expected a Parquet file", parquet)
        with mock.patch("survey.MOST_WINDOWS", 2):
            self.refused(r"more than 2 windows", self.write(frame()), "--by", "week", "--time", "scheduled")
        (self.folder / "reference.npz").write_bytes(b"x")
        self.refused(r"reference\.npz: .*expected arrays", self.write(frame()))
        (self.folder / "reference.npz").unlink()
        self.refused(r"reference\.npz: ", self.write(frame()))

    def test_reports_that_cannot_be_written(self) -> None:
        path = self.write(frame())
        for out, says in (
            ("report.pdf", r"report\.pdf: suffix '\.pdf', expected \.html or \.json"),
            ("none/report.json", r"none: no such folder"),
            ("state.json", r"state\.json: a folder"),
        ):
            (self.folder / "state.json").mkdir(exist_ok=True)
            code, words = self.call(path, "--out", self.folder / out)
            self.assertEqual(code, 2)
            self.assertRegex(words, says)
        self.out.write_text("former")
        with (
            mock.patch.object(Path, "write_text", side_effect=OSError(28, "No space left on device")),
            self.assertRaisesRegex(DetectorsError, r"report\.json: No space left"),
        ):
            reports.write(self.out, "new")
        self.assertEqual(self.out.read_text(), "former")

    def test_arguments_that_do_not_go_together(self) -> None:
        for arguments in (["--by", "day"], ["--time", "x"], ["--least-rows", "0"], ["--by", "hour", "--time", "x"]):
            with (
                self.subTest(arguments=arguments),
                contextlib.redirect_stderr(io.StringIO()),
                self.assertRaises(SystemExit),
            ):
                batch.read_arguments(["x.csv", "--out", "x.json", *arguments])
        self.assertIsInstance(batch.read_arguments(["x.csv", "--out", "x.json"]), argparse.Namespace)


if __name__ == "__main__":
    unittest.main()
