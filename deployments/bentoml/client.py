"""The JSON of the service's typed API: {"rows": [[...]]} -> [...]."""

import json

import numpy as np
from numpy.typing import ArrayLike


def encode(rows: ArrayLike) -> bytes:
    """Return the request body for rows [n, k]; nothing is checked, NaN and infinity become Python's literals."""
    return json.dumps({"rows": np.asarray(rows, dtype=np.float64).tolist()}).encode()


def decode(body: bytes) -> np.ndarray:
    """Return P(late) float64 [n] of an answer; ValueError when it is not one."""
    answer = json.loads(body)
    if not (isinstance(answer, list) and all(isinstance(value, float) for value in answer)):
        raise ValueError("BentoML: the body is no prediction, expected a list of numbers")
    return np.asarray(answer, dtype=np.float64)


def rows(body: bytes) -> np.ndarray:
    """Return the rows float32 [n, 12] of a request body, as the server reads them."""
    return np.asarray(json.loads(body)["rows"], dtype=np.float32)
