"""The Open Inference Protocol V2: one tensor `flights` FP32 [n, 12] in, one tensor `late_probability` FP32 [n] out."""

import json

import numpy as np
from numpy.typing import ArrayLike


def encode(rows: ArrayLike) -> bytes:
    """Return the request body for rows [n, k]; nothing is checked, NaN and infinity become Python's literals."""
    values = np.asarray(rows, dtype=np.float64)
    tensor = {"name": "flights", "datatype": "FP32", "shape": values.shape, "data": values.ravel().tolist()}
    return json.dumps({"inputs": [tensor]}).encode()


def decode(body: bytes) -> np.ndarray:
    """Return P(late) float64 [n] of an answer; ValueError when it is not one."""
    try:
        [output] = json.loads(body)["outputs"]
        return np.asarray(output["data"], dtype=np.float64).reshape(output["shape"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError("MLServer: the body is no prediction, expected one tensor under `outputs`") from error


def rows(body: bytes) -> np.ndarray:
    """Return the rows float32 [n, 12] of a request body, as the server reads them."""
    [tensor] = json.loads(body)["inputs"]
    return np.asarray(tensor["data"], dtype=np.float32).reshape(tensor["shape"])
