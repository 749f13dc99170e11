"""Reads reference and calibration, and fits what the service and the batch mode both use. Takes seconds."""

from __future__ import annotations

import gc
import hashlib
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from judgements import Judge
from measurement import Measurement, Rows


@dataclass(frozen=True)
class Fitted:
    """What measures rows and judges windows."""

    measurement: Measurement
    judge: Judge
    window_rows: int
    """The size of a window's sample that the drift limits hold for."""
    basis: str
    """Names reference and calibration by their content."""
    info: Mapping[str, str]
    """library, version, licence, calibration."""
    reference_rows: Rows
    reference_predictions: npt.NDArray[np.float64]


def fit(reference: Path, calibration: Path) -> Fitted:
    """Detectors fitted to the two files; alibi-detect is imported here, since that takes most of the time.

    Raises:
        DetectorsError: a file is missing or not what it should be, or the two do not fit together.
    """
    gc.disable()  # collecting in between finds nothing and takes a tenth of the import
    try:
        detection = importlib.import_module("detection")
    finally:
        gc.enable()
    known, limits = detection.Reference.load(reference), detection.Calibration.load(calibration)
    names = tuple(detection.FEATURES)
    whole = [name for name, values in zip(names, known.rows.T, strict=True) if np.all(values == np.rint(values))]
    outliers, drift = detection.Outliers(known, limits), detection.Drift(known, limits)
    measurement = Measurement(names, detection.CATEGORIES, limits.ranges, whole, limits.out_of_range, outliers.flags)
    # The first call of some numeric routines takes longer; better now than with copies waiting.
    measurement.measure(known.rows[: limits.window_rows])
    drift.judge(known.rows[: limits.window_rows], known.predictions[: limits.window_rows])
    digest = hashlib.sha256(reference.read_bytes()).hexdigest()[:12]
    library = {name: str(detection.LIBRARY[name]) for name in ("name", "version", "licence")}
    return Fitted(
        measurement,
        drift.judge,
        limits.window_rows,
        f"reference {digest}, calibration {limits.version}",
        {
            "library": library["name"],
            "version": library["version"],
            "licence": library["licence"],
            "calibration": limits.version,
        },
        known.rows,
        known.predictions,
    )
