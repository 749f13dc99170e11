"""Pictures over the time of a run.

Their axes stand at the same place in each, and bands show when something unusual was done to the run: what stands at
one place happened at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from exhibit.render.figures import (
    ALARM,
    MUTED,
    RULE,
    SMALL,
    WIDTH_INCHES,
    Picture,
    clipped,
    draw,
    number,
    quantity,
    stops,
)

TRAINED_ON = "january_march"
UNLIKE = {"june_july": "drifted flights", "corrupted": "corrupted flights"}
"""What flights of a period are called, that are unlike those the model was trained on."""
STOPPED = "server stopped"
LIMIT: dict[str, Any] = {"color": ALARM, "linewidth": 1, "linestyle": (0, (4, 3))}
"""How a limit's line is drawn."""
LONGEST_NAME = 24
"""Characters of a name that are drawn. Features, alerts and lines are named by services."""

# In points. Few letters are wider than .6 of their size.
WIDTH = 72 * WIDTH_INCHES
LEFT, RIGHT, BOTTOM = 38, 8, 34
PLOT = WIDTH - LEFT - RIGHT
ROW, LANE = 13, 23
LETTER = 0.6 * SMALL

Line = tuple[npt.NDArray[Any], npt.NDArray[Any]]
"""Seconds and values."""
Spans = Sequence[tuple[float, float]]
"""From when to when, in seconds."""


def picture(
    name: str,
    label: str,
    caption: str,
    run: Mapping[str, Any],
    height: float,
    paint: Callable[[Axes], None],
    over: str = "",
) -> Picture:
    """A picture over the time of `run`, its axes `height` points high, with the bands and what they are above it.

    Args:
        over: what the vertical axis tells; it stands over it.
    """
    bands = unusual(run)
    places = _places([(begin / end_of(run) * PLOT, what) for what, begin, _ in bands])
    top = ROW * (1 + max((row for row, _ in places), default=-1))

    def painted(axes: Axes) -> None:
        for (what, begin, end), (row, at) in zip(bands, places, strict=True):
            reach = 1 + (top - ROW * row) / height
            axes.axvspan(begin, end, ymax=reach, color=RULE, linewidth=0, alpha=0.6, clip_on=False, zorder=0)
            axes.annotate(
                what, (at / PLOT, reach), (2, -2), xycoords="axes fraction", textcoords="offset points",
                va="top", fontsize=SMALL, color=MUTED,
            )  # fmt: skip
        if over:
            axes.annotate(
                over, (0, 1), (1 - LEFT, top + 4), xycoords="axes fraction", textcoords="offset points",
                fontsize=SMALL, color=MUTED,
            )  # fmt: skip
        paint(axes)
        _time(axes, run)

    return framed(name, label, caption, height, top + (ROW if over else 0), painted)


def plain(
    name: str,
    label: str,
    caption: str,
    run: Mapping[str, Any],
    height: float,
    paint: Callable[[Axes], None],
    above: float = 0,
) -> Picture:
    """As `picture`, the bands without names: `paint` has the `above` points above the axes for itself."""

    def painted(axes: Axes) -> None:
        for _, begin, end in unusual(run):
            axes.axvspan(begin, end, color=RULE, linewidth=0, alpha=0.6, zorder=0)
        paint(axes)
        _time(axes, run)

    return framed(name, label, caption, height, above, painted)


def framed(name: str, label: str, caption: str, height: float, above: float, paint: Callable[[Axes], None]) -> Picture:
    """A picture whose axes are `height` points high, with `above` points above them."""
    whole = BOTTOM + height + above + 6
    return draw(name, label, caption, whole / 72, paint, (LEFT / WIDTH, BOTTOM / whole, PLOT / WIDTH, height / whole))


def lanes(axes: Axes, run: Mapping[str, Any], bars: Mapping[str, Spans], shade: str) -> None:
    """Bars from when to when, a lane each, with its name on top of them: so names take no room from the time."""
    for row, (name, spans) in enumerate(bars.items()):
        thinnest = end_of(run) / 200
        drawn = [(begin, max(end - begin, thinnest)) for begin, end in spans]
        axes.broken_barh(drawn, (row + 0.58, 0.3), color=shade)
        late = spans[0][0] > end_of(run) / 2
        at, side = (spans[-1][1], "right") if late else (spans[0][0], "left")
        axes.text(at, row + 0.3, clipped(name, LONGEST_NAME), ha=side, va="center")
    axes.set_ylim(max(len(bars), 1) + 0.15, 0)
    axes.yaxis.set_visible(False)


def mark(axes: Axes, run: Mapping[str, Any], seconds: float, value: float, words: str) -> None:
    """Writes over a point what it is."""
    along = seconds / end_of(run)
    side = "left" if along < 0.15 else "right" if along > 0.85 else "center"
    axes.annotate(words, (seconds, value), (0, 4), textcoords="offset points", ha=side, fontsize=SMALL)


def from_zero(axes: Axes, top: float, unit: str = "") -> None:
    """A vertical axis from 0 to `top`, with few ticks."""
    axes.set_ylim(0, top)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: measure(value, unit).split()[0]))


def measure(value: float, unit: str) -> str:
    """A value in a unit, as Grafana names units."""
    if unit == "percentunit":
        return f"{number(100 * value)}%"
    words = {"s": "s", "ms": "ms", "reqps": "a second"}.get(unit)
    return quantity(value, words) if words else number(value)


def line(one: Mapping[str, Any]) -> Line:
    """The points of a line whose values are numbers; without any, the arrays are empty."""
    seconds, values = np.asarray(one["seconds"], dtype=float), np.asarray(one["values"], dtype=float)
    known = np.isfinite(values)
    return seconds[known], values[known]


def broken(seconds: npt.NDArray[Any], values: npt.NDArray[Any]) -> Line:
    """The line parted where nothing was known for more than two steps."""
    steps = np.diff(seconds)
    gaps = np.flatnonzero(steps > 2.5 * np.median(steps)) + 1 if len(steps) else np.array([], dtype=int)
    return np.insert(seconds, gaps, np.nan), np.insert(values, gaps, np.nan)


def above_zero(seconds: npt.NDArray[Any], values: npt.NDArray[Any]) -> Spans:
    """From when to when the values were above zero; each holds for one step."""
    step = float(np.median(np.diff(seconds))) if len(seconds) > 1 else 1.0
    spans: list[tuple[float, float]] = []
    for at in seconds[values > 0]:
        begin = spans.pop()[0] if spans and at - spans[-1][1] < step else at
        spans.append((float(begin), float(at + step)))
    return spans


def firing(deliveries: Iterable[Sequence[Any]], end: float) -> dict[str, list[tuple[float, float]]]:
    """From when to when each alert fired, by what was delivered; one that still does, to `end`.

    An alert that fires on is delivered again and again: that is one span.
    """
    spans: dict[str, list[tuple[float, float]]] = {}
    began: dict[str, float] = {}
    for seconds, alert, status in sorted(deliveries, key=lambda one: float(one[0])):
        if status == "firing":
            began.setdefault(alert, seconds)
            spans.setdefault(alert, [])
        elif alert in began:
            spans[alert].append((began.pop(alert), seconds))
    for alert, begin in began.items():
        spans[alert].append((begin, max(begin, end)))
    return spans


def unusual(run: Mapping[str, Any]) -> list[tuple[str, float, float]]:
    """(what, begin, end) of what was done to a run on purpose: unlike flights sent, the server stopped."""
    found: list[tuple[str, float, float]] = []
    former = None
    for _, flights, begin, end in run.get("sent", []):
        if flights != TRAINED_ON:
            # Sendings of the same flights right after each other are one.
            since = found.pop()[1] if flights == former else begin
            found.append((UNLIKE.get(flights, flights.replace("_", " ")), since, end))
        former = flights
    return sorted([*found, *((STOPPED, begin, end) for begin, end in stops(run))], key=lambda one: one[1])


def bands(run: Mapping[str, Any]) -> str:
    """What the bands are, in words."""
    told = [f"{what} from {number(begin)} to {quantity(end, 's')}" for what, begin, end in unusual(run)]
    return f"Bands: {', '.join(told)}." if told else ""


def end_of(run: Mapping[str, Any]) -> float:
    """The end of the axis, in seconds."""
    return float(max(run["seconds"], 1.0))


def _time(axes: Axes, run: Mapping[str, Any]) -> None:
    axes.set(xlim=(0, end_of(run)), xlabel="seconds into the run")


def _places(labels: Sequence[tuple[float, str]]) -> list[tuple[int, float]]:
    """For each of `labels` (where it begins, in points; text) the row from the top and the place where it fits."""
    ends: list[float] = []
    placed = []
    for begin, text in labels:
        width = len(text) * LETTER + 4
        at = max(min(begin, PLOT + RIGHT - width), 0.0)
        row = next((row for row, end in enumerate(ends) if end <= at), len(ends))
        ends[row : row + 1] = [at + width]
        placed.append((row, at))
    return placed
