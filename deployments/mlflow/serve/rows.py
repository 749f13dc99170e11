"""Checks that turn an untrusted request into a tensor, before MLflow sees it.

Reasons never repeat the input: it may be private, and it is the caller's text in our answer.
"""

import json
from typing import Any

import numpy as np

MODEL_FAILED = "the model failed; the reason is in the server's log"
JSON_TYPES = {"application/json", "application/json;charset=utf-8"}


class Refusal(Exception):
    """A request that is answered with `status` and `reason` instead of a prediction."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


def parse_object(body: bytes, content_type: str) -> dict[str, Any]:
    """Return the JSON object in `body`, every number in it a float; raise Refusal (400, 415)."""
    if content_type.replace(" ", "").replace("UTF-8", "utf-8") not in JSON_TYPES:
        raise Refusal(415, "the content type must be application/json")
    try:
        # parse_int: an integer literal of any length becomes a float (or inf) and is then checked like one.
        value = json.loads(body, parse_int=float)
    except (ValueError, RecursionError):
        raise Refusal(400, "the body must be valid JSON") from None
    if not isinstance(value, dict):
        raise Refusal(400, "the body must be a JSON object")
    return value


def check_rows(rows: Any, columns: int) -> np.ndarray:
    """Return parsed JSON `rows` as a float32 tensor [n, columns], n >= 1, all finite; raise Refusal (400).

    Types are compared by hand because numpy would take None for NaN, "1.5" for 1.5 and True for 1.
    """
    if not (isinstance(rows, list) and rows and all(isinstance(row, list) and len(row) == columns for row in rows)):
        raise Refusal(400, f"the input must be one or more rows of {columns} numbers")
    if not all(type(cell) is float for row in rows for cell in row):
        raise Refusal(400, "every value must be a number")
    with np.errstate(over="ignore"):  # 1e39 becomes inf here
        tensor = np.array(rows, dtype=np.float32)
    if not np.isfinite(tensor).all():
        raise Refusal(400, "every number must be finite as a 32-bit float")
    return tensor
