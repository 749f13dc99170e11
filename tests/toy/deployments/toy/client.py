"""The toy's protocol: {"rows": [[...]]} -> {"probabilities": [...]}."""

import json

import numpy as np
from numpy.typing import ArrayLike


def encode(rows: ArrayLike) -> bytes:
    """Return the request body for rows [n, k]; nothing is checked."""
    return json.dumps({"rows": np.asarray(rows, dtype=np.float64).tolist()}).encode()


def decode(body: bytes) -> np.ndarray:
    """Return P(late) float64 [n] of an answer."""
    return np.asarray(json.loads(body)["probabilities"], dtype=np.float64)


def rows(body: bytes) -> np.ndarray:
    """Return the rows float32 [n, 12] of a request body."""
    return np.asarray(json.loads(body)["rows"], dtype=np.float32)


def explanation(body: bytes) -> np.ndarray:
    """Return what each feature adds [n, 12] out of an explanation's body."""
    return np.asarray(json.loads(body)["values"], dtype=np.float64)
