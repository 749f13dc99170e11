"""KServe's V1 protocol: {"instances": [[...], ...]} -> {"predictions": [...]}."""

import json

import numpy as np
from numpy.typing import ArrayLike


def encode(rows: ArrayLike) -> bytes:
    """Return the request body for rows [n, k]; nothing is checked, NaN and infinity become Python's literals."""
    return json.dumps({"instances": np.asarray(rows, dtype=np.float64).tolist()}).encode()


def decode(body: bytes) -> np.ndarray:
    """Return P(late) float64 [n] of an answer; ValueError when it is not one."""
    try:
        return np.asarray(json.loads(body)["predictions"], dtype=np.float64)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError("KServe: the body is no prediction, expected one list under `predictions`") from error


def rows(body: bytes) -> np.ndarray:
    """Return the rows float32 [n, 12] of a request body, as the server reads them."""
    return np.asarray(json.loads(body)["instances"], dtype=np.float32)
