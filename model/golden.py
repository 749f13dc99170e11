"""Golden requests and answers: what every server must reproduce, and by its bytes the identity of the model.

The answers are the trained estimator's, never a server's. A retrained estimator that agrees with the committed file on
its rows leaves it untouched, so that the model's identity outlives a rebuild; delete the file to have new rows drawn.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from files import write_text

TOLERANCE = 1e-6
FLIGHTS_PER_PERIOD = 100
PERIODS = ("january_march", "june_july")  # near the training rows, and far from them
CARRIERS, ORIGINS, WEEKDAYS, HOURS = 16, 3, 7, 24
# Beyond the data, but physically possible: records on Earth, in the units of the data (miles, degrees Fahrenheit, per
# cent, miles an hour, inches, hectopascal, miles); and what float32 parsers get wrong.
EXTREMES = {
    "distance": (1.0, 12451.0, 16777216.0),
    "temp": (-128.6, 134.1, -0.0, 1.1754944e-38),
    "dewp": (-150.0, 95.0, -0.0, 1e-45),
    "humid": (0.0, 100.0, 1.1754944e-38),
    "wind_speed": (253.0, -0.0, 1e-45),
    "precip": (12.0, 1e-7, -0.0, 1e-45),
    "pressure": (870.0, 1083.8, 1013.25),
    "visib": (0.0, -0.0, 100.0, 16777216.0),
}


def edge_rows(seen: np.ndarray, features: Sequence[str]) -> np.ndarray:
    """Rows a test set does not hold: float32 [m, 12] made from the flights `seen` float32 [n, 12].

    An ordinary flight with one feature at a time at its least, its greatest and its EXTREMES; every carrier from its
    rarest airport, all weekdays and hours (some were never trained on); all features least, greatest, 0 and -0.0.
    """
    ordinary = np.median(seen, axis=0)
    changes: list[dict[int, float]] = []
    for column, name in enumerate(features):
        values = (seen[:, column].min(), seen[:, column].max(), *EXTREMES.get(name, ()))
        changes += [{column: value} for value in values]
    for carrier in range(CARRIERS):
        flown = [int(np.sum((seen[:, 0] == carrier) & (seen[:, 1] == origin))) for origin in range(ORIGINS)]
        changes.append({0: carrier, 1: int(np.argmin(flown))})
    changes += [{2: weekday} for weekday in range(WEEKDAYS)]
    changes += [{3: hour} for hour in range(HOURS)]
    rows = np.repeat(ordinary[None, :], len(changes), axis=0)
    for row, change in zip(rows, changes, strict=True):
        for column, value in change.items():
            row[column] = value
    zeros = np.zeros(len(features))
    return np.vstack([rows, seen.min(axis=0), seen.max(axis=0), zeros, -zeros]).astype(np.float32)


def draw_rows(arrays: Mapping[str, np.ndarray], features: Sequence[str]) -> np.ndarray:
    """Evenly spaced flights of PERIODS in held_out.npz's `arrays`, then the edge rows: float32 [n, 12]."""
    periods = [arrays[f"{period}_rows"] for period in PERIODS]
    flights = [rows[:: len(rows) // FLIGHTS_PER_PERIOD][:FLIGHTS_PER_PERIOD] for rows in periods]
    return np.vstack([*flights, edge_rows(np.vstack(periods), features)])


def difference(path: Path, estimator: Any) -> float:
    """The largest difference between the answers in `path` and the estimator's; infinite if it cannot be read."""
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        answers = estimator.predict_proba(np.asarray(known["rows"], dtype=np.float32))[:, 1]
        gap = float(np.max(np.abs(answers - np.asarray(known["probabilities"], dtype=np.float64))))
        return gap if np.isfinite(gap) else float("inf")
    except (OSError, ValueError, KeyError, TypeError):
        return float("inf")


def settle(path: Path, estimator: Any, arrays: Mapping[str, np.ndarray], features: Sequence[str]) -> None:
    """Keep the golden file if the estimator agrees with it to TOLERANCE; else rewrite it, and say so on stdout."""
    gap = difference(path, estimator)
    if gap <= TOLERANCE:
        print(f"{path.name}: kept, the estimator agrees with it to {gap:.1e}", flush=True)
        return
    rows = draw_rows(arrays, features)
    answers = estimator.predict_proba(rows)[:, 1]
    lines = {  # float32's shortest form, and one row a line, so that a change shows as one in a diff
        "features": json.dumps(list(features)),
        "rows": "[\n" + ",\n".join(json.dumps([float(str(value)) for value in row]) for row in rows) + "\n]",
        "probabilities": "[\n" + ",\n".join(repr(float(answer)) for answer in answers) + "\n]",
    }
    former = f"it differed by {gap:.1e}, expected at most {TOLERANCE:g}" if path.exists() else "there was none"
    write_text(path, "{\n" + ",\n".join(f'"{key}": {text}' for key, text in lines.items()) + "\n}\n")
    print(f"{path.name}: REWRITTEN with {len(rows)} rows ({former}). It is a new model: commit the file.", flush=True)
