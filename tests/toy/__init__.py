"""A whole checkout in small: one platform, one model, both in the standard library, for tests of what is around them.

``make`` writes it to a temporary folder; the folders beside this file are its source.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path

import numpy as np

from exhibit import digests
from exhibit.workspace import Workspace

SOURCE = Path(__file__).parent
ROOT = SOURCE.parents[1]
SLUG = "toy"
FEATURES = [
    "carrier",
    "origin",
    "weekday",
    "hour",
    "distance",
    "temp",
    "dewp",
    "humid",
    "wind_speed",
    "precip",
    "pressure",
    "visib",
]
WEIGHTS = [0.02, -0.1, 0.03, 0.1, 0.0001, 0.01, -0.01, 0.015, 0.02, 2.0, -0.01, -0.05]
BIAS = 8.0
GOLDEN_ROWS, HELD_OUT_ROWS = 40, 400


def make(
    root: Path, *, slug: str = SLUG, fault: str = "", edits: Mapping[str, tuple[str, str]] | None = None
) -> Workspace:
    """Writes the toy's checkout to `root`, with the gateway and the monitoring of this repository.

    Args:
        slug: the platform's.
        fault: one of the toy's faults (deployments/toy/serve/faults.py).
        edits: by file of the platform's folder, a text that stands there once and what it becomes.
    """
    folder = root / "deployments" / slug
    shutil.copytree(SOURCE / "deployments" / SLUG, folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(SOURCE / "model", root / "model")
    shutil.copytree(ROOT / "monitoring", root / "monitoring")
    _write_model(root / "model")
    today = date.today()
    # The toy's facts do not age.
    for path, old, new in [
        ("facts.yaml", "date: 2026-11-25", f"date: {today}"),
        ("facts.yaml", "expires: 2027-11-25", f"expires: {today + timedelta(days=365)}"),
        ("platform.yaml", 'FAULT: ""', f'FAULT: "{fault}"'),
        *((path, old, new) for path, (old, new) in (edits or {}).items()),
    ]:
        text = (folder / path).read_text()
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {path}"
        (folder / path).write_text(text.replace(old, new))
    return Workspace(root)


def share_prometheus(workspace: Workspace) -> None:
    """Unpacking Prometheus takes seconds: what was unpacked for this checkout serves a temporary one as well."""
    unpacked = ROOT / ".work" / "prometheus-binaries"
    workspace.state.mkdir(exist_ok=True)
    if (unpacked / "usr" / "bin" / "promtool").exists():
        (workspace.state / unpacked.name).symlink_to(unpacked)


def _write_model(folder: Path) -> None:
    random = np.random.default_rng(1)
    low = np.array([0, 0, 0, 5, 80, 10, 0, 20, 0, 0, 990, 0])
    high = np.array([15, 2, 6, 23, 4983, 70, 60, 100, 40, 1, 1040, 10])

    def flights(count: int) -> tuple[np.ndarray, np.ndarray]:
        rows = random.uniform(low, high, size=(count, len(FEATURES))).astype(np.float32)
        return rows, 1 / (1 + np.exp(-(rows.astype(np.float64) @ np.array(WEIGHTS) + BIAS)))

    artifacts = folder / "artifacts"
    artifacts.mkdir()
    (folder / "golden").mkdir(exist_ok=True)
    rows, probabilities = flights(GOLDEN_ROWS)
    golden = {"features": FEATURES, "rows": rows.astype(float).tolist(), "probabilities": probabilities.tolist()}
    (folder / "golden" / "golden.json").write_text(json.dumps(golden))
    held_out: dict[str, np.ndarray] = {}
    for period in ("january_march", "june_july"):
        rows, probabilities = flights(HELD_OUT_ROWS)
        late = probabilities > random.uniform(size=HELD_OUT_ROWS)
        held_out |= {f"{period}_rows": rows, f"{period}_expected": probabilities, f"{period}_late": late}
    np.savez(artifacts / "held_out.npz", **held_out)
    (artifacts / "weights.json").write_text(json.dumps({"weights": WEIGHTS, "bias": BIAS}))
    manifest = {
        "model": "flight-delay",
        "inputs_sha256": "",
        "features": FEATURES,
        "artifacts": {"weights": {"path": "weights.json", "sha256": digests.path_sha256(artifacts / "weights.json")}},
    }
    (artifacts / "manifest.json").write_text(json.dumps(manifest))
