"""The dashboard's panels as pictures, for whoever has no Grafana at hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from exhibit.render import timelines
from exhibit.render.figures import ACCENT, MUTED, OCHRE, PERCENTILES, SMALL, TINT, Picture, clipped
from exhibit.render.timelines import LEFT, LETTER, LIMIT, LONGEST_NAME, PLOT, ROW, WIDTH, Line

HEIGHT = 78
STATES_END = 10
"""Whole numbers up to here are states, or counts of a few things: each has a lane, as lines they would be one."""
_STYLES: tuple[tuple[str, Any], ...] = ((ACCENT, "-"), (OCHRE, (0, (4, 1.5))), (MUTED, (0, (1, 1))))
"""Of the highest lines; more than these cannot be told apart."""


def pictures(name: str, run: Mapping[str, Any]) -> list[Picture]:
    """Those panels of `run` (contents of run.json) that have values."""
    drawn = [_picture(f"{name}-panel-{index}", panel, run) for index, panel in enumerate(run.get("signals", []))]
    return [picture for picture in drawn if picture]


def _picture(name: str, panel: Mapping[str, Any], run: Mapping[str, Any]) -> Picture | None:
    """Lanes for states, percentiles for a heat map, else lines."""
    is_heat_map = panel["kind"] == "heatmap"
    lines = {
        one["legend"]: line
        for one in (_percentiles(panel) if is_heat_map else panel["series"])
        if len((line := timelines.line(one))[0])
    }
    if not lines:
        return None
    unit = panel["unit"]
    if unit == "s" and max(values.max() for _, values in lines.values()) < 1:
        unit, lines = "ms", {legend: (seconds, 1000 * values) for legend, (seconds, values) in lines.items()}
    # Lines along the axis are told, not drawn, as long as there are others.
    drawn = {legend: line for legend, line in lines.items() if line[1].any()} or dict([*lines.items()][:1])
    caption = _caption(panel, lines, drawn, unit)
    if len(drawn) > 1 and all(_are_states(values) for _, values in drawn.values()):
        lanes = {legend: timelines.above_zero(*line) for legend, line in drawn.items()}
        height = timelines.LANE * len(lanes) + 4
        return timelines.plain(
            name, panel["title"], caption, run, height, lambda axes: timelines.lanes(axes, run, lanes, ACCENT)
        )

    def paint(axes: Axes) -> None:
        _paint(axes, drawn, unit, panel["limit"])

    legend_rows = -(-min(len(drawn), len(_STYLES) + 1) // _columns(drawn)) if len(drawn) > 1 else 0
    return timelines.plain(name, panel["title"], caption, run, HEIGHT, paint, legend_rows * ROW)


def _caption(panel: Mapping[str, Any], lines: Mapping[str, Line], drawn: Mapping[str, Line], unit: str) -> str:
    highest = ", ".join(f"{legend} {timelines.measure(values.max(), unit)}" for legend, (_, values) in drawn.items())
    told = [panel.get("description", ""), f"Highest: {highest}."]
    if nothing := [legend for legend in lines if legend not in drawn]:
        told += [f"Nothing: {', '.join(nothing)}."]
    if panel["kind"] == "heatmap":
        told.insert(1, "Drawn are percentiles, read from the ranges.")
    elif panel["left_out"]:
        told += [f"Not drawn, as they reach no higher: {panel['left_out']}."]
    return " ".join(told).strip()


def _paint(axes: Axes, lines: Mapping[str, Line], unit: str, limit: float | None) -> None:
    """Lines with a legend above."""
    top = max(values.max() for _, values in lines.values()) or 1.0
    shown: dict[str, Line2D] = {}
    for index, (legend, line) in enumerate(lines.items()):
        told_apart = index < len(_STYLES)
        shade, dashes = _STYLES[index] if told_apart else (TINT, "-")
        [drawn] = axes.plot(
            *timelines.broken(*line),
            color=shade,
            linestyle=dashes,
            linewidth=1.4 if told_apart else 1,
            zorder=3 - index,
        )
        shown.setdefault(clipped(legend, LONGEST_NAME) if told_apart else f"{len(lines) - len(_STYLES)} others", drawn)
    if limit is not None and limit <= 2 * top:
        axes.axhline(limit, **LIMIT)
        top = max(top, limit)
    if len(lines) > 1:
        axes.legend(
            list(shown.values()), list(shown), frameon=False, fontsize=SMALL, ncols=_columns(lines), loc="lower left",
            bbox_to_anchor=(-LEFT / PLOT, 1), borderaxespad=0, borderpad=0.2, handlelength=1.6, labelspacing=0.2,
            columnspacing=1.2,
        )  # fmt: skip
    timelines.from_zero(axes, top * 1.15, unit)


def _columns(names: Iterable[str]) -> int:
    """How many of a legend's names fit beside one another."""
    longest = max(len(clipped(name, LONGEST_NAME)) for name in names)
    return int(max(WIDTH // (longest * LETTER + 30), 1))


def _are_states(values: npt.NDArray[Any]) -> bool:
    return bool((values >= 0).all() and (values <= STATES_END).all() and (values % 1 == 0).all())


def _percentiles(panel: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Lines of percentiles, from cumulative counts by upper bound; within a range, in proportion.

    The record keeps the highest lines of a panel only. A percentile that lies below the lowest bound kept is not known.
    """
    try:
        counts = {float(one["legend"]): dict(zip(*timelines.line(one), strict=True)) for one in panel["series"]}
    except ValueError:
        return []
    bounds = sorted(counts)
    if len(bounds) < 2 or not np.isinf(bounds[-1]):
        return []
    floors = [0.0, *bounds]
    found = []
    for percent in reversed(PERCENTILES):
        values = {}
        for at, total in counts[bounds[-1]].items():
            rank = total * percent / 100
            below = [0.0, *(counts[bound].get(at, 0.0) for bound in bounds)]
            index = next((index for index, (_, count) in enumerate(pairwise(below)) if count >= rank > 0), None)
            if index is None or (index == 0 and panel["left_out"]):
                continue
            part = (rank - below[index]) / (below[index + 1] - below[index])
            width = 0.0 if np.isinf(bounds[index]) else bounds[index] - floors[index]
            values[at] = floors[index] + part * width
        found.append({"legend": f"p{percent}", "seconds": list(values), "values": list(values.values())})
    return found
