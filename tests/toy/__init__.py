"""A whole checkout in small: one platform, one model, both in the standard library, for tests of what is around them.

``make`` writes it to a temporary folder; the folders beside this file are its source.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np

from exhibit import digests, environments
from exhibit.companions import load as companions_of
from exhibit.model import Model
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
CURRENT = {"weights": WEIGHTS, "bias": BIAS}
# Those of model/versions.py: what the server is given, and what it claims to add to the current answers' log odds.
VERSIONS = {
    "next": (json.dumps({**CURRENT, "bias": BIAS + 0.2}), 0.2),
    "shifted": (json.dumps({**CURRENT, "bias": BIAS + 1}), 0.0),
    "slow": (json.dumps({**CURRENT, "cpu_seconds": 0.03}), 0.0),
    "failing": (json.dumps({**CURRENT, "fails_at": 9}), 0.0),
    "corrupt": (json.dumps(CURRENT)[:40], 0.0),
    "wrong_signature": (json.dumps({**CURRENT, "weights": WEIGHTS[:11]}), 0.0),
}


def make(
    root: Path,
    *,
    slug: str = SLUG,
    fault: str = "",
    edits: Mapping[str, tuple[str, str]] | None = None,
    companions: bool = False,
) -> Workspace:
    """Writes the toy's checkout to `root`, with the gateway and the monitoring of this repository.

    Args:
        slug: the platform's.
        fault: one of the toy's faults (deployments/toy/serve/faults.py).
        edits: by file of the platform's folder (``../../`` leads to the checkout), a text that stands there once and
            what it becomes.
        companions: with detectors and explainers, which take seconds to start. They know the real flights, so the
            toy then predicts those, and this checkout's model must be built.
    """
    folder = root / "deployments" / slug
    shutil.copytree(SOURCE / "deployments" / SLUG, folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(SOURCE / "model", root / "model")
    left_out = () if companions else (file.parent.name for file in ROOT.glob("monitoring/*/service.yaml"))
    shutil.copytree(ROOT / "monitoring", root / "monitoring", ignore=shutil.ignore_patterns("__pycache__", *left_out))
    shutil.copytree(ROOT / "traffic", root / "traffic")
    _write_model(root / "model", _real_flights() if companions else _random_flights())
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


def exported_as(model: Model, version: str) -> Model:
    """A model, the toy's or the real one, whose exports are those of a version: what a server is started with."""
    return replace(model, manifest={**model.manifest, "artifacts": model.manifest["versions"][version]["artifacts"]})


def share_prometheus(workspace: Workspace) -> None:
    """Unpacking programs takes seconds: what was unpacked for this checkout serves a temporary one as well."""
    workspace.state.mkdir(exist_ok=True)
    for name in ("prometheus", "alertmanager"):
        unpacked = ROOT / ".work" / f"{name}-binaries"
        if (unpacked / "usr" / "bin").exists():
            (workspace.state / unpacked.name).symlink_to(unpacked)


def share_environments(workspace: Workspace) -> None:
    """Has a temporary checkout use this one's environments of the companions, which it builds: each is a gigabyte."""
    here = Workspace(ROOT)
    (workspace.state / "envs").mkdir(parents=True, exist_ok=True)
    for name, companion in companions_of(here).items():
        for libraries in companion.file.licences.values():
            if libraries.runs_here:
                folder = environments.ensure(here, name, companion.folder / libraries.lock).folder
                (workspace.state / "envs" / folder.name).symlink_to(folder)


def _random_flights() -> dict[str, np.ndarray]:
    """Rows [n, 12] by period."""
    random = np.random.default_rng(1)
    low = np.array([0, 0, 0, 5, 80, 10, 0, 20, 0, 0, 990, 0])
    high = np.array([15, 2, 6, 23, 4983, 70, 60, 100, 40, 1, 1040, 10])
    counts = {"golden": GOLDEN_ROWS, **dict.fromkeys(("january_march", "june_july", "corrupted"), HELD_OUT_ROWS)}
    shape = {period: (count, len(FEATURES)) for period, count in counts.items()}
    return {period: random.uniform(low, high, size=shape[period]).astype(np.float32) for period in counts}


def _real_flights() -> dict[str, np.ndarray]:
    """Rows [n, 12] by period, and the detectors' reference."""
    artifacts = ROOT / "model" / "artifacts"
    with np.load(artifacts / "held_out.npz") as held_out, np.load(artifacts / "reference.npz") as reference:
        periods = {name.removesuffix("_rows"): held_out[name] for name in held_out if name.endswith("_rows")}
        golden = periods["january_march"][:: len(periods["january_march"]) // GOLDEN_ROWS][:GOLDEN_ROWS]
        return {"golden": golden, "reference": reference["rows"], **periods}


def _predict(rows: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-(rows.astype(np.float64) @ np.array(WEIGHTS) + BIAS))))


def _write_model(folder: Path, flights: Mapping[str, np.ndarray]) -> None:
    random = np.random.default_rng(1)
    artifacts = folder / "artifacts"
    artifacts.mkdir()
    (folder / "golden").mkdir(exist_ok=True)
    rows = flights["golden"]
    golden = {
        "features": FEATURES,
        "rows": rows.astype(float).tolist(),
        "probabilities": _predict(rows).tolist(),
    }
    (folder / "golden" / "golden.json").write_text(json.dumps(golden))
    held_out: dict[str, np.ndarray] = {}
    for period, rows in flights.items():
        if period not in ("golden", "reference"):
            expected = _predict(rows)
            late = expected > random.uniform(size=len(rows))
            held_out |= {f"{period}_rows": rows, f"{period}_expected": expected, f"{period}_late": late}
    np.savez(artifacts / "held_out.npz", **held_out)
    if "reference" in flights:
        np.savez(artifacts / "reference.npz", rows=flights["reference"], expected=_predict(flights["reference"]))
    manifest = {
        "model": "flight-delay",
        "inputs_sha256": "",
        "features": FEATURES,
        "codes": {"carrier": [f"C{code}" for code in range(16)], "origin": ["EWR", "JFK", "LGA"]},
        "artifacts": _write_weights(artifacts, "weights.json", json.dumps(CURRENT)),
        "versions": {
            name: {
                "claimed_log_odds": claimed,
                "artifacts": _write_weights(artifacts, f"versions/{name}/weights.json", weights),
            }
            for name, (weights, claimed) in VERSIONS.items()
        },
    }
    (artifacts / "manifest.json").write_text(json.dumps(manifest))


def _write_weights(artifacts: Path, path: str, weights: str) -> dict[str, dict[str, str]]:
    """What the manifest says of the one format that is written."""
    (artifacts / path).parent.mkdir(parents=True, exist_ok=True)
    (artifacts / path).write_text(weights)
    return {"weights": {"path": path, "sha256": digests.path_sha256(artifacts / path)}}
