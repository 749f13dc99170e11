"""The columns of a row, in the served model's order. To explain another model, change this file first."""

from __future__ import annotations

FEATURES = (
    "carrier",
    "origin",
    "weekday",
    "hour",
    "distance",
    "temp",
    "dewp",
    "humid",
    "wind_speed",
    "precip",
    "pressure",
    "visib",
)
CATEGORIES = ("carrier", "origin", "weekday")
"""Features whose values are codes 0, 1, ...: equal or not, never less or more."""
