"""Reads the rows out of a V2 inference request and refuses what the model must not see."""

import numpy as np
from mlserver.errors import InferenceError
from mlserver.types import InferenceRequest

FEATURES = 12


def read_rows(request: InferenceRequest) -> np.ndarray:
    """Return the rows float32 [n, 12] of the tensor `flights`; its data may be flat or nested.

    Raises InferenceError, which MLServer answers with 400 and the reason, unless n >= 1 and every value is a number
    that is finite as float32. Strings are refused, though numpy would convert them. The reason quotes no value.
    """
    # MLServer copies the id into a response header, where other characters fail or start a header of their own.
    if request.id is not None and not (request.id.isascii() and request.id.isprintable() and len(request.id) <= 128):
        raise InferenceError("id: found something else, expected at most 128 printable ASCII characters")
    if [(tensor.name, tensor.datatype) for tensor in request.inputs] != [("flights", "FP32")]:
        raise InferenceError("inputs: found other tensors, expected exactly one, `flights` of datatype FP32")
    shape, data = request.inputs[0].shape, request.inputs[0].data.root
    if len(shape) != 2 or shape[0] < 1 or shape[1] != FEATURES:
        raise InferenceError(f"flights: found another shape, expected [n, {FEATURES}] with n of at least 1")
    try:
        values = np.asarray(data)
    except (OverflowError, ValueError):
        raise InferenceError("flights: found ragged data, expected as many values in each row") from None
    if values.dtype.kind not in "fiu":
        raise InferenceError("flights: found data that is not numeric, expected only numbers")
    if values.shape not in [tuple(shape), (shape[0] * FEATURES,)]:
        raise InferenceError("flights: found data that does not fill its shape, expected one number an element")
    with np.errstate(over="ignore"):
        rows = values.astype(np.float32).reshape(shape)
    if not np.isfinite(rows).all():
        raise InferenceError("flights: found a value that is not finite as FP32, expected finite numbers")
    return rows
