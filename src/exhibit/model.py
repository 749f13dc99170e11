"""The one model, seen from the engine: its exports, the golden answers and the held-out flights.

Training and exporting live in ``model/`` and run in their own environment; nothing here imports a machine learning
library.
"""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Callable, Iterator, Mapping
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

CURRENT = "current"
"""The name of the version that is the exported model itself."""


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
class Version:
    """The model, or one made of it for trying what happens when another is rolled out (model/versions.py)."""

    name: str
    log_odds: float
    """What it claims to add to the log odds of the current answers."""
    paths: Mapping[str, Path]
    """File or folder by format."""

    def files(self, format_name: str) -> dict[str, bytes]:
        """What a server is given of a format, by file name: one file, or those of a folder without folders in it.

        Raises:
            ModelError: the version was not made in that format.
        """
        if format_name not in self.paths:
            raise ModelError(
                f"model version {self.name!r}",
                f"not made as {format_name!r}",
                f"one of {', '.join(self.paths)}",
                "Add the format to FORMATS in model/versions.py, then run: make retrain",
            )
        path = self.paths[format_name]
        return {file.name: file.read_bytes() for file in (sorted(path.iterdir()) if path.is_dir() else [path])}

    def expected(self, current: Probabilities) -> Probabilities:
        """What a right server of this version answers for flights whose `current` answers are given."""
        return current / (current + (1 - current) / math.exp(self.log_odds))


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

    def version(self, name: str) -> Version:
        """A version by its name; ``current`` is the exported model itself.

        Raises:
            ModelError: there is no such version.
        """
        versions = self.manifest.get("versions", {})
        if name != CURRENT and name not in versions:
            raise ModelError(
                "model/artifacts/manifest.json",
                f"no version {name!r}",
                f"one of {', '.join((CURRENT, *versions))}",
                "Run: make retrain",
            )
        entry = self.manifest if name == CURRENT else versions[name]
        paths = {form: self.folder / "artifacts" / made["path"] for form, made in entry["artifacts"].items()}
        return Version(name, entry.get("claimed_log_odds", 0.0), paths)

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
    for name, entry in _made(model.manifest):
        path = folder / "artifacts" / entry["path"]
        found = digests.path_sha256(path) if path.exists() else "no such file"
        if found != entry["sha256"]:
            raise ModelError(
                workspace.relative(path),
                f"sha256 {found[:12]}" if path.exists() else found,
                f"sha256 {entry['sha256'][:12]} (the {name} export in manifest.json)",
                "The export was changed after it was checked; train and export again with: make retrain",
            )
    return model


def is_current(workspace: Workspace) -> bool:
    """Whether all exports and versions are there, made by the training code, formats and lock of this checkout."""
    path = workspace.model / "artifacts" / "manifest.json"
    if not path.exists():
        return False
    manifest = _read_json(path, "the manifest of a trained model")
    if "versions" not in manifest or manifest.get("inputs_sha256") != inputs_sha256(workspace):
        return False
    return all((path.parent / made["path"]).exists() for _, made in _made(manifest))


def _made(manifest: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each export of the model and of its versions: what to call it, and its entry in the manifest."""
    yield from manifest["artifacts"].items()
    for version, entry in manifest.get("versions", {}).items():
        yield from ((f"{version} {form}", made) for form, made in entry["artifacts"].items())


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
