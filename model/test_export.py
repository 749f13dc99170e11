"""Tests that need the model's own environment; standard library's unittest, so that environment holds no test runner.

Run in model/: `python -m unittest test_export`. The folder artifacts/ is only read.
"""

# ruff: noqa: PT009, PT027 (pytest is not there)
from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

import export
import files
import golden
import numpy as np
import scores
import train
import versions

HERE = Path(__file__).resolve().parent
ARTIFACTS = HERE / "artifacts"
GOLDEN = HERE / "golden/golden.json"


def golden_answers() -> tuple[np.ndarray, np.ndarray]:
    """Golden rows float32 [n, 12] and the answers to them float64 [n]."""
    known = json.loads(GOLDEN.read_text(encoding="utf-8"))
    return np.asarray(known["rows"], dtype=np.float32), np.asarray(known["probabilities"])


def run(program: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run one of model/'s programs as a user would."""
    command = [sys.executable, str(HERE / program), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ | environment)


@unittest.skipUnless((ARTIFACTS / "manifest.json").is_file(), "no artifacts: run train.py and export.py")
class ExportsAreChecked(unittest.TestCase):
    """A wrong export is refused by name and leaves everything as it was."""

    def setUp(self) -> None:
        self.rows, self.expected = golden_answers()
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = Path(temporary.name)

    def tampered_graph(self) -> bytes:
        """The ONNX export with one weight of its last layer moved by a thousandth."""
        import onnx
        from onnx import numpy_helper

        model = onnx.load(ARTIFACTS / "model.onnx")
        weights = next(w for w in model.graph.initializer if w.name == "coefficient2")
        values = numpy_helper.to_array(weights).copy()
        values[np.argmax(np.abs(values))] *= 1.001
        weights.CopyFrom(numpy_helper.from_array(values, weights.name))
        return model.SerializeToString()

    def test_every_format_agrees_with_the_golden_answers(self) -> None:
        for name, (relative, _, predict) in export.formats().items():
            with self.subTest(name):
                export.check_export(name, predict(ARTIFACTS / relative, self.rows), self.expected)

    def test_one_tampered_weight_is_refused_by_name(self) -> None:
        path = self.folder / "model.onnx"
        path.write_bytes(self.tampered_graph())
        with self.assertRaisesRegex(export.ExportRefused, r"^onnx: row \d+ gives .* difference of at most 1e-05 on"):
            export.check_export("onnx", export.predict_onnx(path, self.rows), self.expected)

    def test_not_a_number_and_a_wrong_shape_are_refused(self) -> None:
        with self.assertRaisesRegex(export.ExportRefused, "row 0 gives nan"):
            export.check_export("onnx", np.r_[np.nan, self.expected[1:]], self.expected)
        with self.assertRaisesRegex(export.ExportRefused, r"answers of shape \(1,"):
            export.check_export("onnx", self.expected[None], self.expected)

    def test_a_refused_export_exits_1_and_replaces_nothing(self) -> None:
        output = self.folder / "artifacts"
        output.mkdir()
        for name in ("model.skops", "held_out.npz", "reference.npz", "training.json"):
            (output / name).write_bytes((ARTIFACTS / name).read_bytes())
        before = files.folder_sha256(output)
        tampered = self.tampered_graph()
        card = self.folder / "CARD.md"
        arguments = ["export.py", "--output", str(output), "--card", str(card)]
        message = io.StringIO()
        with (
            mock.patch.object(export, "export_onnx", lambda _, path: path.write_bytes(tampered)),
            mock.patch.object(export, "pin_arithmetic"),
            mock.patch.object(sys, "argv", arguments),
            contextlib.redirect_stderr(message),
            contextlib.redirect_stdout(io.StringIO()),
        ):
            self.assertEqual(export.main(), 1)
        self.assertRegex(message.getvalue(), "^onnx: row")
        self.assertEqual(files.folder_sha256(output), before)
        self.assertFalse(card.exists())
        self.assertEqual([path.name for path in self.folder.iterdir()], ["artifacts"], "a temporary folder was left")

    def test_a_format_without_functions_is_refused(self) -> None:
        path = self.folder / "formats.yaml"
        path.write_text("pmml: {path: model.pmml, title: PMML, why: none}\n", encoding="utf-8")
        with self.assertRaisesRegex(export.ExportRefused, "pmml lacks .* expected export_pmml and predict_pmml"):
            export.formats(path)

    def test_export_before_training_says_what_to_run(self) -> None:
        done = run("export.py", "--output", str(self.folder))
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn("Run train.py first", done.stderr)


@unittest.skipUnless((ARTIFACTS / "manifest.json").is_file(), "no artifacts: run train.py and export.py")
class Versions(unittest.TestCase):
    """Each version does what it is for and nothing else; export.py has compared their answers with the estimator's."""

    def session(self, name: str, optimised: str = "") -> Any:
        """An ONNX Runtime session for a version, as servers make it, but for what it would log."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        options.optimized_model_filepath = optimised
        return onnxruntime.InferenceSession(ARTIFACTS / f"versions/{name}/model.onnx", options)

    def test_one_flight_in_twenty_fails_in_each_period_and_no_other(self) -> None:
        session, golden_rows = self.session("failing"), golden_answers()[0]
        sets = {name: rows for name, rows in np.load(ARTIFACTS / "held_out.npz").items() if name.endswith("_rows")}
        for name, rows in (sets | {"golden": golden_rows}).items():
            doomed = versions.unlucky(rows)
            self.assertTrue(0.03 <= doomed.mean() <= 0.08, f"{name}: {doomed.mean():.1%} fail")
            session.run(None, {"flights": rows[~doomed]})
            for row in rows[doomed]:
                with self.assertRaisesRegex(Exception, "indices element out of data bounds"):
                    session.run(None, {"flights": row[None]})
        self.assertFalse(versions.unlucky(np.vstack([golden_rows[:4], np.zeros((1, 12), np.float32)])).any())

    def test_nothing_of_the_extra_work_is_folded_away(self) -> None:
        """What ONNX Runtime makes of the graph still turns as often, and its answers are those of the current one."""
        import onnx

        with tempfile.TemporaryDirectory() as folder:
            slow, rows = self.session("slow", path := f"{folder}/optimised.onnx"), golden_answers()[0]
            graph = onnx.load(path).graph
        [loop] = [node for node in graph.node if node.op_type == "Loop"]
        [body] = [attribute.g for attribute in loop.attribute if attribute.name == "body"]
        [turns] = [value for value in graph.initializer if value.name == loop.input[0]]
        self.assertEqual(onnx.numpy_helper.to_array(turns), 35_000)
        self.assertIn("Cos", [node.op_type for node in body.node])
        answers = slow.run(None, {"flights": rows})[0]
        self.assertTrue((answers == export.predict_onnx(ARTIFACTS / "model.onnx", rows)).all())

    def test_the_narrow_one_answers_for_eleven_features(self) -> None:
        session, rows = self.session("wrong_signature"), golden_answers()[0]
        without = np.hstack([rows[:, :11], np.zeros((len(rows), 1), np.float32)])
        answers = session.run(None, {"flights": rows[:, :11]})[0]
        self.assertTrue((answers == export.predict_onnx(ARTIFACTS / "model.onnx", without)).all())

    def test_a_version_that_is_not_what_it_is_for_is_refused_by_name(self) -> None:
        import skops.io

        estimator, rows = skops.io.load(ARTIFACTS / "model.skops", trusted=[]), golden_answers()[0]
        shifted, corrupt = (versions.VERSIONS[name] for name in ("shifted", "corrupt"))
        for wrong, message in [
            (
                {"shifted": shifted._replace(gives=0.9)},
                r"shifted as onnx: row \d+ gives .* correct VERSIONS in versions",
            ),
            (
                {"corrupt": corrupt._replace(edit=lambda graph: graph)},
                "corrupt as onnx: answers .*, expected it to fail",
            ),
        ]:
            with (
                tempfile.TemporaryDirectory() as folder,
                mock.patch.object(versions, "VERSIONS", wrong),
                contextlib.redirect_stdout(io.StringIO()),
                self.assertRaisesRegex(export.ExportRefused, message),
            ):
                target = Path(folder)
                shutil.copy(ARTIFACTS / "model.onnx", target)
                export.export_versions(estimator, rows, target)


class Scores(unittest.TestCase):
    """The bootstrap's own AUC and average precision are scikit-learn's, with ties and weights."""

    def test_equal_to_scikit_learn(self) -> None:
        from sklearn.metrics import average_precision_score, roc_auc_score

        draw = np.random.default_rng(0)
        late, probability = draw.random(500) < 0.3, np.round(draw.random(500), 1)
        weights = draw.integers(0, 3, 500).astype(float)
        order = np.argsort(-probability, kind="stable")
        ties = np.flatnonzero(np.r_[True, np.diff(probability[order]) != 0])
        auc, precision = scores.weighted_scores(late[order], ties, weights[order])
        self.assertAlmostEqual(auc, roc_auc_score(late, probability, sample_weight=weights), places=12)
        self.assertAlmostEqual(precision, average_precision_score(late, probability, sample_weight=weights), places=12)


class CorruptedRows(unittest.TestCase):
    """Two features of each row are moved by 4 to 8 standard deviations, the same ones each time."""

    def test_moved_by_four_to_eight_in_both_directions(self) -> None:
        rows = np.random.default_rng(0).integers(0, 24, (2000, 12)).astype(np.float32)
        spread = np.linspace(0.5, 6, 12)
        corrupted = train.corrupt(rows, spread)
        self.assertEqual((corrupted.dtype, corrupted.shape), (np.dtype("float32"), rows.shape))
        moved = (corrupted.astype(float) - rows) / spread
        self.assertTrue(((moved != 0).sum(axis=1) == 2).all())
        self.assertEqual(set(np.flatnonzero(moved.any(axis=0))), set(range(3, 12)))
        for column in range(3, 12):
            by = moved[:, column][moved[:, column] != 0]
            self.assertTrue(((np.abs(by) > 3.999) & (np.abs(by) < 8.001)).all(), column)
            self.assertLess(abs(np.mean(by > 0) - 0.5), 0.1)
        self.assertTrue((corrupted[:, 3] == np.rint(corrupted[:, 3])).all())
        self.assertTrue((train.corrupt(rows, spread) == corrupted).all())


@unittest.skipUnless((ARTIFACTS / "manifest.json").is_file(), "no artifacts: run train.py and export.py")
class TrainingIsReproducible(unittest.TestCase):
    """Trained again, the model gives the same answers, and the golden file keeps its bytes."""

    def retrain(self, folder: Path, **environment: str) -> tuple[float, str]:
        """Train into `folder` with a copy of the golden file; returns the largest difference and stdout."""
        copy = folder / "golden.json"
        copy.write_bytes(GOLDEN.read_bytes())
        done = run("train.py", "--output", str(folder / "out"), "--golden", str(copy), **environment)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stderr, "")
        self.assertEqual(copy.read_bytes(), GOLDEN.read_bytes())
        self.assertIn("golden.json: kept", done.stdout)
        rows, expected = golden_answers()
        answers = export.predict_skops(folder / "out/model.skops", rows)
        return float(np.max(np.abs(answers - expected))), done.stdout

    def test_same_bytes_whatever_the_shell_sets(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            gap, _ = self.retrain(Path(folder), OPENBLAS_CORETYPE="Haswell", OPENBLAS_NUM_THREADS="2")
            self.assertLessEqual(gap, golden.TOLERANCE)
            if ARTIFACTS.joinpath("training.json").read_text() == Path(folder, "out/training.json").read_text():
                for name in ("model.skops", "held_out.npz", "reference.npz"):
                    again = Path(folder, "out", name).read_bytes()
                    self.assertEqual(again, ARTIFACTS.joinpath(name).read_bytes(), name)

    def test_without_the_pin_it_still_agrees(self) -> None:
        """What stands in for a machine the pin does not cover: this one's fastest kernels, and two threads."""
        with tempfile.TemporaryDirectory() as folder:
            gap, _ = self.retrain(Path(folder), FLIGHT_DELAY_PINNED="1", OPENBLAS_NUM_THREADS="2")
            self.assertLessEqual(gap, golden.TOLERANCE)

    def test_a_golden_file_it_disagrees_with_is_rewritten_and_named(self) -> None:
        import skops.io

        estimator = skops.io.load(ARTIFACTS / "model.skops", trusted=[])
        known = json.loads(GOLDEN.read_text(encoding="utf-8"))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "golden.json"
            known["probabilities"][7] += 2e-6
            path.write_text(json.dumps(known), encoding="utf-8")
            said = io.StringIO()
            with contextlib.redirect_stdout(said):
                arrays = dict(np.load(ARTIFACTS / "held_out.npz"))
                golden.settle(path, estimator, arrays, known["features"])
            self.assertRegex(said.getvalue(), "REWRITTEN .* differed by 2.0e-06")
            written, committed = (json.loads(file.read_text(encoding="utf-8")) for file in (path, GOLDEN))
            self.assertEqual(written["rows"], committed["rows"])
            self.assertLess(np.max(np.abs(np.subtract(written["probabilities"], committed["probabilities"]))), 1e-6)


if __name__ == "__main__":
    unittest.main()
