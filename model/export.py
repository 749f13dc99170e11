"""Export the trained flight-delay model to every format of formats.yaml, check each, and write the manifest.

A format is one entry of formats.yaml and two functions here, found by name: `export_<format>(estimator, path)` writes
it, `predict_<format>(path, rows)` answers from what was written with that format's own runtime. Each export must agree
with the estimator on 10,000 held-out flights and on the golden rows; a wrong one is refused by name, and nothing is
replaced. Versions of the model for trying rollouts (versions.py) follow, checked on the same rows.

Reads what `train.py` left in `--output` and replaces that folder as a whole by one that also holds the exports and
`manifest.json`, which is written last. CARD.md is rendered from the manifest.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import card
import numpy as np
import versions
import yaml
from files import clean_up_when_ended, folder_sha256, replaced, write_estimator, write_text
from train import HERE, pin_arithmetic

MODEL_NAME = "flight-delay"
INPUT, OUTPUT = "flights", "late_probability"
WIDTH = 12
TOLERANCE = 1e-5
CHECKED_ROWS = 10_000
ASKED_SINGLY = 20  # of the rows a version must refuse
OPSETS = {"": 17, "ai.onnx.ml": 3}  # read by every ONNX Runtime since 1.12
TRUSTED_TYPES: list[str] = []  # the skops file holds nothing but numpy's and scikit-learn's types, which skops knows
ESTIMATOR = "model.skops"


class Format(NamedTuple):
    """Where a format lies, relative to the artifacts, and its two functions."""

    path: str
    export: Callable[[Any, Path], None]
    predict: Callable[[Path, np.ndarray], np.ndarray]


class ExportRefused(Exception):
    """An export that must not be served; the message names it, what was found, the rule and the remedy."""


def export_skops(estimator: Any, path: Path) -> None:
    """The scikit-learn pipeline itself."""
    write_estimator(estimator, path)


def predict_skops(path: Path, rows: np.ndarray) -> np.ndarray:
    """P(late) float64 [n] of float32 [n, 12]; raises skops' UntrustedTypesFoundException for any unlisted type."""
    import skops.io

    return skops.io.load(path, trusted=TRUSTED_TYPES).predict_proba(rows)[:, 1]


def onnx_graph(estimator: Any) -> Any:
    """ONNX model `flights` float32 [n, 12] -> `late_probability` float32 [n].

    skl2onnx gives a label and [n, 2] probabilities; servers need one plain vector, so the second column is taken and
    all that does not lead to it is dropped. Names are fixed and nothing in it tells time or machine, so that equal
    estimators give equal bytes.
    """
    from onnx import TensorProto, checker, helper
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType

    shape = [(INPUT, FloatTensorType([None, WIDTH]))]
    model = to_onnx(estimator, initial_types=shape, options={"zipmap": False}, target_opset=OPSETS)
    column = helper.make_tensor("late_column", TensorProto.INT64, [], [1])
    last = helper.make_node("Gather", ["probabilities", column.name], [OUTPUT], name="take_late_probability", axis=1)
    needed, nodes = set(last.input), [last]
    for node in reversed(model.graph.node):
        if needed & set(node.output):
            needed |= set(node.input)
            nodes.insert(0, node)
    constants = [constant for constant in (*model.graph.initializer, column) if constant.name in needed]
    flights = helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["n", WIDTH])
    late = helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["n"])
    graph = helper.make_graph(nodes, MODEL_NAME.replace("-", "_"), [flights], [late], constants)
    opsets = [helper.make_opsetid(domain, version) for domain, version in OPSETS.items()]
    whole = helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="skl2onnx")
    checker.check_model(whole, full_check=True)
    return whole


def export_onnx(estimator: Any, path: Path) -> None:
    """One self-contained file."""
    path.write_bytes(onnx_graph(estimator).SerializeToString(deterministic=True))


def predict_onnx(path: Path, rows: np.ndarray) -> np.ndarray:
    """P(late) float32 [n] of float32 [n, 12], by ONNX Runtime with one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run([OUTPUT], {INPUT: rows})[0]


def export_mlflow(estimator: Any, path: Path) -> None:
    """MLflow's ONNX flavour with a signature. Its identifier and date are fixed, so that equal models have equal bytes;
    the versions of Python and MLflow that wrote it stay in it."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    import mlflow
    import mlflow.onnx
    import onnx
    import onnxruntime
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    float32 = np.dtype("float32")
    rows, late = TensorSpec(float32, (-1, WIDTH), INPUT), TensorSpec(float32, (-1,), OUTPUT)
    modules = {"mlflow": mlflow, "numpy": np, "onnx": onnx, "onnxruntime": onnxruntime}
    pins = [f"{name}=={module.__version__}" for name, module in modules.items()]
    python = ".".join(map(str, sys.version_info[:2]))
    mlflow.onnx.save_model(
        onnx_graph(estimator),
        str(path),
        mlflow_model=Model(model_uuid=MODEL_NAME, utc_time_created="2013-01-01 00:00:00"),
        signature=ModelSignature(Schema([rows]), Schema([late])),
        conda_env={"name": MODEL_NAME, "dependencies": [f"python={python}", "pip", {"pip": pins}]},
        onnx_execution_providers=["CPUExecutionProvider"],
        onnx_session_options={"intra_op_num_threads": 1, "inter_op_num_threads": 1},
        save_as_external_data=False,
    )


def predict_mlflow(path: Path, rows: np.ndarray) -> np.ndarray:
    """P(late) float32 [n] of float32 [n, 12], by the `python_function` flavour that MLflow's server uses."""
    import mlflow.pyfunc

    return mlflow.pyfunc.load_model(str(path)).predict({INPUT: rows})[OUTPUT]


def check_export(name: str, answers: Any, expected: np.ndarray, place: str = "") -> float:
    """The largest difference of an export's answers [n] from the expected ones; raises ExportRefused beyond TOLERANCE.

    `place` is where to correct it, unless that is the format's own function.
    """
    answers = np.asarray(answers, dtype=np.float64)
    place = place or f"export_{name} in export.py"
    remedy = f"Nothing was replaced: correct {place}, or its library's version in requirements.in."
    if answers.shape != expected.shape:
        raise ExportRefused(f"{name}: answers of shape {answers.shape}, expected {expected.shape}. {remedy}")
    gap = np.abs(answers - expected)
    worst = int(np.argmax(np.where(np.isnan(gap), np.inf, gap)))
    if not gap[worst] <= TOLERANCE:
        found = f"row {worst} gives {answers[worst]:.7f} and the estimator {expected[worst]:.7f}"
        rule = f"expected a difference of at most {TOLERANCE:g} on {len(gap)} rows"
        raise ExportRefused(f"{name}: {found}, {rule}. {remedy}")
    return float(gap[worst])


def sha256(path: Path) -> str:
    """Of a file, or of all files of a folder."""
    return folder_sha256(path) if path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest()


def formats(path: Path = HERE / "formats.yaml") -> dict[str, Format]:
    """The formats by name, in the file's order; raises ExportRefused if one lacks a function."""
    found = {}
    for name, entry in yaml.safe_load(path.read_text(encoding="utf-8")).items():
        export, predict = (globals().get(f"{verb}_{name}") for verb in ("export", "predict"))
        if export is None or predict is None:
            rule = f"expected export_{name} and predict_{name} in export.py"
            raise ExportRefused(f"{path.name}: format {name} lacks a function, {rule}. Write it or remove the format.")
        found[name] = Format(entry["path"], export, predict)
    return found


def checked_rows(held_out: Mapping[str, np.ndarray], golden_rows: Any) -> np.ndarray:
    """CHECKED_ROWS flights drawn evenly from the test periods, then the golden rows: float32 [n, 12]."""
    rows = np.vstack([held_out[name] for name in sorted(held_out) if name.endswith("_rows")])
    evenly = np.linspace(0, len(rows) - 1, CHECKED_ROWS).astype(int)
    return np.vstack([rows[evenly], np.asarray(golden_rows, dtype=np.float32)])


def export_all(estimator: Any, rows: np.ndarray, target: Path) -> dict[str, dict[str, Any]]:
    """Write and check every format in the folder `target`; returns the manifest's `artifacts`."""
    expected = estimator.predict_proba(rows)[:, 1]
    artifacts = {}
    for name, (relative, export, predict) in formats().items():
        start = time.monotonic()
        export(estimator, path := target / relative)
        gap = check_export(name, predict(path, rows), expected)
        artifacts[name] = {"path": relative, "sha256": sha256(path), "max_difference": gap}
        print(f"{name}: agrees to {gap:.1e} on {len(rows)} rows ({time.monotonic() - start:.1f} s)", flush=True)
    return artifacts


def refuses(path: Path, predict: Callable[[Path, np.ndarray], np.ndarray], row: np.ndarray) -> bool:
    """Whether what was written at `path` cannot be loaded, or cannot answer the one `row` float32 [12]."""
    try:
        predict(path, row[None])
    except Exception:  # each runtime raises its own
        return True
    return False


def export_versions(estimator: Any, rows: np.ndarray, target: Path) -> dict[str, dict[str, Any]]:
    """Write and check the versions of the exports in the folder `target`; returns the manifest's `versions`."""
    import onnxruntime

    onnxruntime.set_default_logger_severity(4)  # it would report each refusal, and this asks for many
    current = estimator.predict_proba(rows)[:, 1]
    written = {}
    for name, version in versions.VERSIONS.items():
        start = time.monotonic()
        refused, artifacts = version.refuses(rows), {}
        expected = versions.moved(current[~refused], version.gives)
        for format_name in versions.FORMATS:
            relative, _, predict = formats()[format_name]
            path = target / "versions" / name / relative
            version.write(target / relative, path)
            subject, place = f"{name} as {format_name}", "VERSIONS in versions.py"
            if len(expected):
                check_export(subject, predict(path, rows[~refused]), expected, place)
            doomed = rows[refused]
            for row in doomed[:: max(1, len(doomed) // ASKED_SINGLY)]:
                if not refuses(path, predict, row):
                    found = f"answers {row.tolist()}, expected it to fail there"
                    raise ExportRefused(f"{subject}: {found}. Nothing was replaced: correct {place}.")
            artifacts[format_name] = {"path": path.relative_to(target).as_posix(), "sha256": sha256(path)}
        written[name] = {"says": version.says, "claimed_log_odds": version.claims, "artifacts": artifacts}
        print(f"version {name}: {version.says} ({time.monotonic() - start:.1f} s)", flush=True)
    return written


def main() -> int:
    """Export, check and write; returns the exit code: 0, or 1 with one line on stderr."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--output", type=Path, default=HERE / "artifacts", help="train.py's folder (%(default)s)")
    parser.add_argument("--golden", type=Path, default=HERE / "golden/golden.json", help="golden file (%(default)s)")
    parser.add_argument("--card", type=Path, default=HERE / "CARD.md", help="model card to write (%(default)s)")
    options = parser.parse_args()
    pin_arithmetic()
    clean_up_when_ended("export.py")
    output = options.output.resolve()
    if not (output / "training.json").is_file():
        print(f"{options.output}: no training.json, expected a trained model. Run train.py first.", file=sys.stderr)
        return 1
    import skops.io

    estimator = skops.io.load(output / ESTIMATOR, trusted=TRUSTED_TYPES)
    training = json.loads((output / "training.json").read_text(encoding="utf-8"))
    golden_rows = json.loads(options.golden.read_text(encoding="utf-8"))["rows"]
    try:
        with replaced(output) as staging:
            for name in ("held_out.npz", "reference.npz", "training.json"):
                shutil.copy(output / name, staging)
            rows = checked_rows(np.load(output / "held_out.npz"), golden_rows)
            manifest = {"model": MODEL_NAME, **training, "artifacts": export_all(estimator, rows, staging)}
            manifest["versions"] = export_versions(estimator, rows, staging)
            write_text(staging / "manifest.json", json.dumps(manifest, indent=2) + "\n")
    except ExportRefused as refusal:
        print(refusal, file=sys.stderr)
        return 1
    write_text(options.card, card.render(manifest))
    print(f"wrote {options.output}/manifest.json and {options.card}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
