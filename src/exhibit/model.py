"""The one model, seen from the engine: its exports, the golden answers and the held-out flights.

Training and exporting live in ``model/`` and run in their own environment; nothing here imports a machine learning
library.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from exhibit import digests, environments
from exhibit.contract import load_formats
from exhibit.errors import ModelError
from exhibit.workspace import Workspace

TOLERANCE = 1e-5
"""Largest difference of a served probability from the trained estimator's: float32 graph against float64 estimator."""

Rows = npt.NDArray[np.float32]
"""[n, 12]"""
Probabilities = npt.NDArray[np.float64]
"""[n], P(arrives more than 15 minutes late)"""


def difference(answers: Probabilities, expected: Probabilities) -> float:
    """The largest absolute difference, to two significant digits; an answer that is no number is as wrong as can be."""
    return float(f"{np.nan_to_num(np.abs(answers - expected), nan=1.0).max():.1e}")


@dataclass(frozen=True)
class Flights:
    """Rows with the answers expected of any server, and, where known, how the flights ended."""

    rows: Rows
    expected: Probabilities
    late: npt.NDArray[np.bool_] | None = None
    days: npt.NDArray[np.int16] | None = None
    """Of the year 2013, from 1."""

    def __len__(self) -> int:
        return len(self.rows)

    def sample(self, count: int, seed: int) -> Flights:
        """`count` flights in random order, each at most once before any comes again; the same for the same seed.

        Neighbours share their hour and its weather: a run of them looks like drift to any detector.
        """
        return self.pick(np.random.default_rng(seed).permutation(len(self))).take(count)

    def take(self, count: int, start: int = 0) -> Flights:
        """`count` flights from `start` on, beginning anew at the first where they run out."""
        return self.pick(np.arange(start, start + count) % len(self))

    def pick(self, chosen: npt.NDArray[Any]) -> Flights:
        """The flights that an index or a mask of numpy's chooses."""
        late, days = (None if known is None else known[chosen] for known in (self.late, self.days))
        return Flights(self.rows[chosen], self.expected[chosen], late, days)


@dataclass(frozen=True)
class Model:
    """A trained and exported model whose files were checked against its manifest."""

    folder: Path
    manifest: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.manifest["model"])

    def artifact(self, format_name: str) -> Path:
        """Absolute path of an export (a file or a folder).

        Raises:
            ModelError: the model was not exported to that format.
        """
        if format_name not in self.manifest["artifacts"]:
            exported = ", ".join(self.manifest["artifacts"])
            raise ModelError(
                "model/artifacts/manifest.json", f"no export {format_name!r}", f"one of {exported}", "Run: make retrain"
            )
        return (self.folder / "artifacts" / str(self.manifest["artifacts"][format_name]["path"])).resolve()

    @cached_property
    def features(self) -> list[str]:
        return list(self._golden_file["features"])

    @cached_property
    def golden(self) -> Flights:
        """The golden rows and the trained estimator's answers (model/golden/golden.json)."""
        return Flights(
            np.asarray(self._golden_file["rows"], dtype=np.float32),
            np.asarray(self._golden_file["probabilities"], dtype=np.float64),
        )

    @cached_property
    def sha256(self) -> str:
        """The model's identity: of its golden answers, which a faithful retraining leaves as they are."""
        return digests.file_sha256(self._golden_path)

    def held_out(self, period: str) -> Flights:
        """Flights not trained on, of a `period` of held_out.npz, such as ``january_march`` or ``june_july``."""
        try:
            arrays = np.load(self.folder / "artifacts" / "held_out.npz")
        except (OSError, ValueError, BadZipFile) as error:
            raise ModelError(
                "model/artifacts/held_out.npz", f"unreadable ({error})", "the held-out flights", "Run: make retrain"
            ) from error
        with arrays:
            try:
                rows, expected, late = (arrays[f"{period}_{part}"] for part in ("rows", "expected", "late"))
                return Flights(rows, expected, late, arrays.get(f"{period}_day"))
            except KeyError:
                periods = sorted({name.rpartition("_")[0] for name in arrays.files})
                raise ModelError(
                    "model/artifacts/held_out.npz",
                    f"no period {period!r}",
                    f"one of {', '.join(periods)}",
                    "Name one of them as the scenario's `flights`.",
                ) from None

    @property
    def _golden_path(self) -> Path:
        return self.folder / "golden" / "golden.json"

    @cached_property
    def _golden_file(self) -> dict[str, Any]:
        return _read_json(self._golden_path, "golden answers (committed: git checkout model/golden)")


def load(workspace: Workspace) -> Model:
    """The exported model of the checkout, its files checked against the manifest.

    Raises:
        ModelError: no model yet, or a file that is not what the manifest says (named).
    """
    folder = workspace.model
    manifest_path = folder / "artifacts" / "manifest.json"
    if not manifest_path.exists():
        raise ModelError(workspace.relative(manifest_path), "no model yet", "a trained one", "Run: make model")
    model = Model(folder, _read_json(manifest_path, "the manifest of a trained model"))
    for name, entry in model.manifest["artifacts"].items():
        path = model.artifact(name)
        subject = workspace.relative(folder / "artifacts" / entry["path"])
        found = digests.path_sha256(path) if path.exists() else "no such file"
        if found != entry["sha256"]:
            raise ModelError(
                subject,
                f"sha256 {found[:12]}" if path.exists() else found,
                f"sha256 {entry['sha256'][:12]} (the {name} export in manifest.json)",
                "The export was changed after it was checked; train and export again with: make retrain",
            )
    return model


def is_current(workspace: Workspace) -> bool:
    """Whether the exported model was made by the training code, formats and lock of this checkout."""
    path = workspace.model / "artifacts" / "manifest.json"
    if not path.exists():
        return False
    manifest = _read_json(path, "the manifest of a trained model")
    return manifest.get("inputs_sha256") == inputs_sha256(workspace)


def _read_json(path: Path, expected: str) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except ValueError as error:
        raise ModelError(
            f"model/{path.parent.name}/{path.name}", f"unreadable ({error})", expected, "Run: make retrain"
        ) from error


def inputs_sha256(workspace: Workspace) -> str:
    """sha256 over the files that decide what training yields."""
    code = (path for path in workspace.model.glob("*.py") if not path.name.startswith("test_"))
    return digests.files_sha256(
        workspace.model, [*code, workspace.model / "formats.yaml", workspace.model / "requirements.txt"]
    )


def train(workspace: Workspace, say: Callable[[str], None]) -> Model:
    """Trains and exports the model in its own environment; each line it prints is passed to `say`.

    Raises:
        ModelError: training or an export's check failed; the last lines printed are its detail.
    """
    load_formats(workspace)
    environment = environments.ensure(workspace, "model", workspace.model / "requirements.txt")
    artifacts = workspace.model / "artifacts"
    for script in ("train.py", "export.py"):
        lines: list[str] = []
        with subprocess.Popen(
            [str(environment.python), "-u", script, "--output", str(artifacts)],
            cwd=workspace.model,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as process:
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    lines.append(line.rstrip())
                    say(lines[-1])
            except BaseException:
                process.terminate()  # it then removes what it has half written
                raise
        if process.returncode:
            raise ModelError(
                f"model/{script}",
                f"ended with exit code {process.returncode}",
                "it to succeed",
                "Read its last lines below.",
                "\n".join(lines[-20:]),
            )
    return load(workspace)
