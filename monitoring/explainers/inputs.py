"""What may be asked for: a request's body, read and checked before it takes a place in the queue."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, NoReturn

from errors import InputRefused
from features import FEATURES

BODY_BYTES = 64 * 1024
"""Sixteen rows are some 5 KB."""
MOST_ROWS = 16
METHODS = ("kernel_shap", "anchors")
GREATEST_SEED = 2**32 - 1
GREATEST_FLOAT32 = 3.4028234663852886e38


@dataclass(frozen=True)
class Request:
    """A request that can be worked on."""

    rows: list[list[float]]
    """[n, k], each a finite float32 when rounded to one"""
    method: str
    seed: int


def read(body: bytes) -> Request:
    """The request in `body`.

    Raises:
        InputRefused: the first thing that is wrong with it.
    """
    try:
        found = json.loads(body, parse_constant=_refuse_constant)
    except InputRefused:
        raise
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        refuse("body", f"no JSON ({type(error).__name__})", "a JSON object")
    if not isinstance(found, dict):
        refuse("body", _kind(found), "a JSON object")
    unknown = [key for key in found if key not in ("rows", "method", "seed")]
    if unknown:
        refuse("body", f"key {unknown[0][:40]!r}", "rows and, if wanted, method and seed")
    method = found.get("method", METHODS[0])
    if method not in METHODS:
        refuse("method", repr(method)[:40], f"one of {', '.join(METHODS)}")
    seed = found.get("seed", 0)
    if type(seed) is not int or not 0 <= seed <= GREATEST_SEED:
        refuse("seed", repr(seed)[:40], f"a whole number from 0 to {GREATEST_SEED}")
    return Request(_read_rows(found.get("rows")), method, seed)


def refuse(subject: str, found: str, rule: str) -> NoReturn:
    """Raises InputRefused."""
    raise InputRefused(subject, found, rule, 'Send {"rows": [[12 numbers], ...], "method": "kernel_shap", "seed": 0}.')


def _read_rows(rows: Any) -> list[list[float]]:
    rule = f"1 to {MOST_ROWS} rows of {len(FEATURES)} numbers"
    if not isinstance(rows, list):
        refuse("rows", _kind(rows), rule)
    if not 1 <= len(rows) <= MOST_ROWS:
        refuse("rows", f"{len(rows)} rows", rule)
    for index, row in enumerate(rows):
        if not isinstance(row, list):
            refuse(f"rows[{index}]", _kind(row), rule)
        if len(row) != len(FEATURES):
            refuse(f"rows[{index}]", f"{len(row)} values", rule)
        for column, value in enumerate(row):
            # bool is an int to Python; a whole number can be too large for any float.
            if type(value) not in (int, float) or not abs(value) <= GREATEST_FLOAT32:
                name = f"rows[{index}][{column}] ({FEATURES[column]})"
                refuse(name, repr(value)[:40] if type(value) in (int, float) else _kind(value), "a 32-bit float")
    return [[float(value) for value in row] for row in rows]


def _refuse_constant(text: str) -> NoReturn:
    refuse("body", text, "finite numbers")


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "a truth value", type(None): "nothing"}
    return names.get(type(value), "a number")
