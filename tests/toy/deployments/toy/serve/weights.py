"""The toy's model: a logistic regression over the twelve features, in the standard library.

Beside weights and bias its file may hold ``cpu_seconds``, which each call then takes longer, and ``fails_at``: what the
whole parts of a row's features add up to, modulo 20, where the model fails.
"""

import json
import math
import os
import struct
import time

from faults import FAULT

COLUMNS = 12


class BadInput(ValueError):
    """Rows that cannot be predicted; the message is the reason."""


class ModelFailed(ArithmeticError):
    """The model cannot answer for a row that is right."""


with open(os.environ["MODEL_PATH"], encoding="utf-8") as file:
    MODEL = json.load(file)


def checked(rows: object) -> list[tuple[float, ...]]:
    """The rows as float32, if they are n >= 1 rows of twelve finite numbers."""
    if FAULT == "breaks_on_bad_input":
        return [tuple(map(float, row)) for row in rows if row or 1 / 0]
    if not isinstance(rows, list) or not rows:
        raise BadInput("rows must be a list of at least one row")
    if any(not isinstance(row, list) or len(row) != COLUMNS for row in rows):
        raise BadInput(f"each row must be {COLUMNS} numbers")
    if any(type(value) not in (int, float) for row in rows for value in row):
        raise BadInput("each value must be a number")
    if FAULT == "accepts_nan":
        return [tuple(row) for row in rows]
    try:
        single = [struct.unpack("12f", struct.pack("12f", *row)) for row in rows]
    except OverflowError:
        raise BadInput("each value must fit into a float32") from None
    if not all(math.isfinite(value) for row in single for value in row):
        raise BadInput("each value must be finite")
    if any(sum(map(int, row)) % 20 == MODEL.get("fails_at") for row in single):
        raise ModelFailed  # here and not in predict: a batcher must not die of one caller's row
    return single


def explain(rows: list[tuple[float, ...]]) -> list[list[float]]:
    """What each feature adds to a row's score, against the mean of the rows sent."""
    means = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    parts = [
        [weight * (value - mean) for weight, value, mean in zip(MODEL["weights"], row, means, strict=True)]
        for row in rows
    ]
    if FAULT == "explains_all_alike":
        return [parts[0] for _ in parts]
    return [part[::-1] for part in parts] if FAULT == "explains_in_reverse" else parts


def predict(rows: list[tuple[float, ...]]) -> list[float]:
    """P(late) of each row; raises ValueError for a row of another length than the weights."""
    until = time.thread_time() + MODEL.get("cpu_seconds", 0)
    while time.thread_time() < until:
        pass
    products = ([weight * value for weight, value in zip(MODEL["weights"], row, strict=True)] for row in rows)
    return [1 / (1 + math.exp(-(MODEL["bias"] + sum(product)))) for product in products]


predict([(0.0,) * COLUMNS])  # a model that cannot answer this is not served
