"""Outliers by request and drift by window, judged with alibi-detect against limits that were calibrated beforehand.

Used by the service, the batch report and the calibration, so that all three mean the same. What the limits are and why
is in docs/drift.md; `calibrate.py` finds them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from errors import DetectorsError
from scipy import stats

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # alibi-detect imports it, and it complains of no PyTorch
from alibi_detect.cd import KSDrift, TabularDrift
from alibi_detect.od._gmm import GMM

Rows = npt.NDArray[np.float32]
"""[n, 12]"""
Floats = npt.NDArray[np.float64]

FEATURES = (
    "carrier", "origin", "weekday", "hour", "distance", "temp", "dewp", "humid", "wind_speed", "precip", "pressure",
    "visib",
)  # fmt: skip
CATEGORIES = ("carrier", "origin", "weekday")  # as codes; the other features have a size
PREDICTION = "prediction"
MEASURED = [column for column, name in enumerate(FEATURES) if name not in CATEGORIES]
COMPONENTS = 3  # of the mixture of normal distributions; docs/drift.md has the measurement
SEED = 2013
FALSE_ALARMS = 0.005  # of all features together, in a quiet window: with weeks, one in four years
LAST_APACHE = (0, 11, 4)  # alibi-detect came under the Business Source License with 0.11.5, in January 2024


def _library() -> dict[str, str]:
    version = metadata.version("alibi-detect")
    free = tuple(int(part) for part in version.split(".")[:3] if part.isdigit()) <= LAST_APACHE
    return {"name": "alibi-detect", "version": version, "licence": "Apache-2.0" if free else "BSL-1.1"}


LIBRARY = _library()
"""`name`, `version` and `licence` of the installed alibi-detect. BSL-1.1 allows non-production use only."""


@dataclass(frozen=True)
class Reference:
    """What windows and rows are compared with: a sample of the rows the model was trained on."""

    rows: Rows
    """[m, 12]"""
    predictions: Floats
    """[m], the model's answers to them"""

    @classmethod
    def load(cls, path: Path | str) -> Reference:
        """Read an .npz of `rows` [m, 12] and `expected` [m]; raises DetectorsError if it is not that."""
        remedy = "Give the file that model/train.py writes, or one of your own training rows."
        try:
            with np.load(path, allow_pickle=False) as arrays:
                rows = arrays["rows"].astype(np.float32)
                predictions = arrays["expected"].astype(np.float64)
        except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise DetectorsError(path, f"unreadable ({error})", "arrays `rows` and `expected`", remedy) from error
        shape = (len(predictions), len(FEATURES))
        if rows.shape != shape or not len(rows) or not (np.isfinite(rows).all() and np.isfinite(predictions).all()):
            raise DetectorsError(path, f"rows of shape {rows.shape}", f"{shape}, one or more, all finite", remedy)
        return cls(rows, predictions)


@dataclass(frozen=True)
class Calibration:
    """The limits that decide, found by calibrate.py on quiet weeks."""

    outlier_limit: float
    drift_limits: dict[str, float]
    """the distance beyond which a window of `window_rows` has drifted, by feature and for PREDICTION"""
    window_rows: int
    ranges: dict[str, tuple[float, ...]]
    """by feature: the least and the greatest value known; for CATEGORIES all codes known"""
    version: str
    """the first 12 digits of the file's sha256"""

    @classmethod
    def load(cls, path: Path | str) -> Calibration:
        """Read calibration.json; raises DetectorsError if it is not one for these features."""
        remedy = "Run calibrate.py to write it anew."
        try:
            content = Path(path).read_bytes()
            known = json.loads(content)
            limits = {name: float(known["drift_limits"][name]) for name in (*FEATURES, PREDICTION)}
            ranges = {name: tuple(float(value) for value in known["ranges"][name]) for name in FEATURES}
            outlier_limit, window_rows = float(known["outlier_limit"]), int(known["window_rows"])
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise DetectorsError(path, f"unreadable ({error!r})", "limits and ranges by feature", remedy) from error
        if not min(limits.values()) > 0 or window_rows < 1:
            raise DetectorsError(path, "a limit or a window of no size", "sizes above 0", remedy)
        return cls(outlier_limit, limits, window_rows, ranges, hashlib.sha256(content).hexdigest()[:12])

    def out_of_range(self, rows: Rows) -> npt.NDArray[np.bool_]:
        """bool [n, 12]: which finite values of `rows` [n, 12] are outside the range, or not among the codes, known."""
        found = np.zeros(np.shape(rows), dtype=bool)
        for column, name in enumerate(FEATURES):
            values, known = rows[:, column], self.ranges[name]
            if name in CATEGORIES:
                found[:, column] = np.isfinite(values) & ~np.isin(values, known)
            else:
                found[:, column] = (values < known[0]) | (values > known[-1])
        return found


@contextlib.contextmanager
def seeded() -> Iterator[None]:
    """alibi-detect's mixture takes numpy's global generator; it is seeded here and given back as it was."""
    before = np.random.get_state()
    np.random.seed(SEED)
    try:
        yield
    finally:
        np.random.set_state(before)


class Outliers:
    """Scores a row by how improbable it is among the reference rows.

    A mixture of normal distributions over the standardised features that have a size (alibi-detect's GMM); the score is
    the negative log-likelihood. Nothing is learned after fitting, so that the same row always has the same score.
    """

    def __init__(self, reference: Reference, calibration: Calibration) -> None:
        values = reference.rows[:, MEASURED].astype(np.float64)
        self._mean, spread = values.mean(axis=0), values.std(axis=0)
        self._spread = np.where(spread > 0, spread, 1.0)  # a constant feature: any other value is far off
        self._limit = calibration.outlier_limit
        self._mixture = GMM(n_components=COMPONENTS, backend="sklearn")
        with seeded():
            self._mixture.fit((values - self._mean) / self._spread)

    def scores(self, rows: Rows) -> Floats:
        """float64 [n] of finite `rows` [n, 12]; the higher, the stranger."""
        if not len(rows):
            return np.zeros(0)
        values = np.asarray(rows, dtype=np.float64)[:, MEASURED]
        return np.asarray(self._mixture.score((values - self._mean) / self._spread), dtype=np.float64)

    def flags(self, rows: Rows) -> npt.NDArray[np.bool_]:
        """bool [n]: which of finite `rows` [n, 12] are outliers."""
        return self.scores(rows) > self._limit


@dataclass(frozen=True)
class Judgement:
    """What one window says; the dictionaries are by feature, with PREDICTION where predictions were given."""

    distances: dict[str, float]
    p_values: dict[str, float]
    """of the library's test, for information: consecutive rows are not independent, so that almost any window's is 0"""
    limits: dict[str, float]
    ratio: float
    """the largest distance divided by its limit"""
    drifted: bool
    """ratio > 1"""


class Drift:
    """Judges a window by its distances from the reference rows.

    For features that have a size and for the prediction the distance is that of Kolmogorov and Smirnov, from 0 to 1;
    for categories it is the root of chi-square divided by the two samples' sizes (see `chi_square_distance`), so that a
    window's size does not change it. Both come from alibi-detect's TabularDrift and KSDrift.
    """

    def __init__(self, reference: Reference, calibration: Calibration) -> None:
        self._limits, self._window_rows = calibration.drift_limits, calibration.window_rows
        self._reference_rows = len(reference.rows)
        columns = {FEATURES.index(name): None for name in CATEGORIES}
        # Their p_val judges nothing here.
        self._features = TabularDrift(reference.rows, p_val=0.05, categories_per_feature=columns)
        self._prediction = KSDrift(reference.predictions[:, None], p_val=0.05)
        self._noise = {name: self._noise_of(reference.rows[:, i], name) for i, name in enumerate(FEATURES)}
        self._noise[PREDICTION] = self._noise_of(reference.predictions, PREDICTION)

    @staticmethod
    def _noise_of(values: npt.NDArray[Any], name: str) -> float:
        """The distance that chance alone passes in FALSE_ALARMS of windows, divided by sqrt(1/n + 1/m).

        From the asymptotic distributions of the two statistics, over all features together (Bonferroni).
        """
        share = FALSE_ALARMS / (len(FEATURES) + 1)
        if name in CATEGORIES:
            return float(np.sqrt(stats.chi2.ppf(1 - share, max(len(np.unique(values)) - 1, 1))))
        return float(np.sqrt(-np.log(share / 2) / 2))

    def _limit(self, name: str, rows: int) -> float:
        """The limit of a window of `rows`: wider if it is smaller than those of the calibration, whose noise is less.

        By the triangle inequality a window is at most its week's distance and its own noise away from the reference.
        """
        noise = [np.sqrt(1 / size + 1 / self._reference_rows) for size in (rows, self._window_rows)]
        return self._limits[name] + self._noise[name] * max(0.0, float(noise[0] - noise[1]))

    def measure(self, rows: Rows, predictions: Floats | None) -> tuple[dict[str, float], dict[str, float]]:
        """Distances and p-values of a window, as in Judgement; needs no limits. Raises ValueError for no rows."""
        if not len(rows) or (predictions is not None and len(predictions) != len(rows)):
            found = f"{len(rows)} rows and {None if predictions is None else len(predictions)} predictions"
            raise ValueError(f"window: {found}, expected at least one row and as many predictions, or None for them.")
        answer = self._features.predict(np.asarray(rows), drift_type="feature")["data"]
        distances = dict(zip(FEATURES, answer["distance"].astype(float).tolist(), strict=True))
        p_values = dict(zip(FEATURES, answer["p_val"].astype(float).tolist(), strict=True))
        for name in CATEGORIES:
            distances[name] = chi_square_distance(distances[name], self._reference_rows, len(rows))
        if predictions is not None:
            answer = self._prediction.predict(np.asarray(predictions)[:, None], drift_type="feature")["data"]
            distances[PREDICTION], p_values[PREDICTION] = float(answer["distance"][0]), float(answer["p_val"][0])
        return distances, p_values

    def judge(self, rows: Rows, predictions: Floats | None) -> Judgement:
        """Judge a window of finite `rows` [n, 12] and the model's answers float64 [n], or None if there are none.

        A window larger than that of the calibration is judged by the same limits. Raises ValueError for no rows.
        """
        distances, p_values = self.measure(rows, predictions)
        limits = {name: self._limit(name, len(rows)) for name in distances}
        ratio = max(distances[name] / limits[name] for name in distances)
        return Judgement(distances, p_values, limits, ratio, ratio > 1)


def chi_square_distance(statistic: float, first: int, second: int) -> float:
    """`statistic` of a chi-square test of homogeneity of samples of `first` and `second` rows, freed of their sizes.

    It is sqrt(sum of (p - q)^2 / r) over the categories, where p and q are their shares in the samples and r that in
    both together: 0 for equal shares.
    """
    return float(np.sqrt(statistic * (1 / first + 1 / second)))
