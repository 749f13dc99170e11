"""Reads the rows out of a V1 or V2 inference request and refuses what the model must not see."""

from typing import Any

import numpy as np
from kserve import InferRequest
from kserve.errors import InvalidInput

FEATURES = 12


def read_rows(payload: Any) -> np.ndarray:
    """Return the rows float32 [n, 12] of a request as KServe decodes it: V2 an InferRequest, V1 a dict.

    Raises InvalidInput, which KServe answers with 400 and the reason, unless n >= 1 and every value is a number that
    is finite as float32. The reason quotes no value.
    """
    if isinstance(payload, InferRequest):
        return check_rows(read_tensor(payload))
    if not isinstance(payload, dict):  # of any content type but JSON's KServe hands over the bytes
        raise InvalidInput("body: found something else, expected a JSON object, sent as application/json")
    return check_rows(payload.get("instances"))


def read_tensor(request: InferRequest) -> list[Any]:
    """Return the data of the one tensor `flights` as a list of rows; the protocol allows flat data as well."""
    if [(tensor.name, tensor.datatype) for tensor in request.inputs] != [("flights", "FP32")]:
        raise InvalidInput("inputs: found other tensors, expected exactly one, `flights` of datatype FP32")
    data, shape = request.inputs[0].data, request.inputs[0].shape
    if data and not isinstance(data[0], list):
        data = [data[start : start + FEATURES] for start in range(0, len(data), FEATURES)]
    if shape != [len(data), FEATURES]:
        raise InvalidInput(f"flights: found another shape, expected [n, {FEATURES}] and data that fills it")
    return data


def check_rows(rows: Any) -> np.ndarray:
    """Return parsed JSON `rows` as float32 [n, 12]; raise InvalidInput.

    Types are compared by hand because numpy would take None for NaN, "1.5" for 1.5 and true for 1.
    """
    if not (isinstance(rows, list) and rows and all(isinstance(row, list) and len(row) == FEATURES for row in rows)):
        raise InvalidInput(f"rows: found something else, expected one or more rows of {FEATURES} numbers")
    if not {type(value) for row in rows for value in row} <= {int, float}:
        raise InvalidInput("rows: found a value that is no number, expected only numbers")
    try:
        with np.errstate(over="ignore"):  # 1e39 becomes infinite here
            tensor = np.array(rows, dtype=np.float32)
    except OverflowError:  # a whole number beyond any float
        tensor = np.array([np.inf])
    if not np.isfinite(tensor).all():
        raise InvalidInput("rows: found a number that is not finite as float32, expected finite numbers")
    return tensor
