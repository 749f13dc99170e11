"""The report's pictures, as SVG to be set into the page.

Colours are CSS variables of the page, so that one drawing serves light and dark; text stays text. Each picture carries
a caption that tells its main numbers to those who do not see it. The same run gives the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from itertools import pairwise
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

WIDTH_INCHES = 4.6
"""Narrow, so that the text is still read where the picture fills a phone's width."""
MAX_MEMORY_POINTS = 400
SMALL = 9
"""Size of letters, in points, that are not on an axis."""
STOP_SECONDS = 3.0
"""Memory is sampled four times a second; nothing for so long, and there was no process to sample."""
_BINS = 40
PERCENTILES = (50, 95, 99)

# What matplotlib draws with, and the variable of the page that each colour becomes.
INK, MUTED, RULE, ACCENT, TINT, ALARM, OCHRE = (
    "#1d1b18", "#625c52", "#d9d2c5", "#0f5c63", "#a9c9c9", "#98261b", "#7d4a00",
)  # fmt: skip
_VARIABLES = {
    INK: "ink", MUTED: "muted", RULE: "rule", ACCENT: "accent", TINT: "tint", ALARM: "bad", OCHRE: "warn",
}  # fmt: skip
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # names come from services: a dollar sign in one is a dollar sign
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": RULE,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "ytick.left": False,
}


@dataclass(frozen=True)
class Picture:
    """An SVG, its accessible name and its caption."""

    label: str
    caption: str
    svg: Markup


@dataclass(frozen=True)
class Scales:
    """Ends of the axes, the same for all platforms: pictures of one kind can be compared by eye."""

    start_seconds: float
    latency_ms: tuple[float, float]
    memory_mib: float

    @classmethod
    def of(cls, runs: Iterable[Mapping[str, Any]]) -> Scales:
        """The scales that hold every one of `runs` (contents of run.json)."""
        runs = list(runs)
        latencies = [value for run in runs for sent in run["traffic"] for value in sent["latencies_ms"]]
        fastest = max(min(latencies, default=1.0), 0.01)
        return cls(
            start_seconds=max((run["start"]["first_prediction_seconds"] for run in runs), default=1.0) or 1.0,
            latency_ms=(fastest, max([*latencies, 2 * fastest])),
            memory_mib=max((mib for run in runs for _, mib in run["memory"]), default=1.0),
        )


def number(value: float) -> str:
    """`value` to three digits, without an exponent."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def quantity(value: float, unit: str) -> str:
    """`value` and its unit, never parted by a line break."""
    return f"{number(value)}\N{NO-BREAK SPACE}{unit}"


def clipped(text: str, most: int) -> str:
    """`text` on one line of at most `most` characters."""
    text = " ".join(text.split())
    return text if len(text) <= most else f"{text[: most - 1]}…"


def median(values: Sequence[float]) -> float:
    """The 50th percentile, as the latency pictures mark it."""
    return float(np.percentile(np.asarray(values, dtype=float), 50))


def start(name: str, title: str, run: Mapping[str, Any], scales: Scales) -> Picture:
    """From the start of the process to its port and to the first right prediction, in seconds."""
    listening, first = run["start"]["listening_seconds"], run["start"]["first_prediction_seconds"]
    marks = {"listening": (listening, 0.34, "bottom"), "first right prediction": (first, -0.34, "top")}

    def paint(axes: Axes) -> None:
        axes.barh([0], [listening], 0.5, color=TINT)
        axes.barh([0], [first - listening], 0.5, left=[listening], color=ACCENT)
        for words, (seconds, height, align) in marks.items():
            side = "right" if seconds > 0.5 * scales.start_seconds else "left"
            axes.text(seconds, height, f"{words} {quantity(seconds, 's')}", ha=side, va=align)
        axes.set(xlim=(0, scales.start_seconds * 1.03), ylim=(-1, 1), xlabel="seconds from the start of the process")
        axes.yaxis.set_visible(False)

    caption = (
        f"{title} listened {quantity(listening, 's')} after its process was started "
        f"and gave its first right prediction at {quantity(first, 's')}."
    )
    return draw(name, f"Start-up of {title}", caption, 1.7, paint)


def latency(name: str, title: str, sent: Mapping[str, Any], scales: Scales) -> Picture:
    """Histogram of the latencies of a scenario's right answers, with three percentiles marked."""
    low, high = scales.latency_ms
    latencies = np.maximum(np.asarray(sent["latencies_ms"], dtype=float), low)
    counts, edges = np.histogram(latencies, np.geomspace(low, high * 1.001, _BINS + 1))
    marks = np.percentile(latencies, PERCENTILES) if len(latencies) else ()

    def paint(axes: Axes) -> None:
        axes.set_xscale("log")
        axes.stairs(counts, edges, fill=True, color=TINT)
        top = max(counts.max(), 1)
        for step, (percent, value) in enumerate(zip(PERCENTILES, marks, strict=False)):
            # The lowest percentile is lettered highest: no label crosses the line of the next.
            height = top * (1.47 - 0.16 * step)
            axes.plot([value, value], [0, height], color=ACCENT, linewidth=1.2)
            label = f"p{percent} {quantity(value, 'ms')}"
            axes.annotate(label, (value, height), (4, 0), textcoords="offset points", va="top", ha="left")
        axes.set(
            xlim=(low, high * (high / low) ** 0.35),
            ylim=(0, top * 1.5),
            xlabel="milliseconds (logarithmic)",
            ylabel="requests",
        )
        _tick_1_2_5(axes, low, high)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))

    label = f"Latency of {title}: {sent['title']}"
    return draw(name, label, _latency_caption(sent, marks), 2.4, paint)


def memory(name: str, title: str, run: Mapping[str, Any], scales: Scales) -> Picture | None:
    """Resident memory of the server's processes during the run, in MiB; None if it was never sampled."""
    if not run["memory"]:
        return None
    seconds, mib = np.asarray(run["memory"], dtype=float).T
    stopped, every = stops(run), -(-len(seconds) // MAX_MEMORY_POINTS)
    lives = np.split(np.arange(len(seconds)), np.searchsorted(seconds, [end for _, end in stopped]))
    peak = int(mib.argmax())

    def paint(axes: Axes) -> None:
        for life in (life[::every] for life in lives):
            axes.fill_between(seconds[life], mib[life], color=TINT, linewidth=0)
            axes.plot(seconds[life], mib[life], color=ACCENT, linewidth=1.2)
        for begin, end in stopped:
            axes.text(
                (begin + end) / 2, 0, "stopped", rotation=90, ha="center", va="bottom", color=MUTED, fontsize=SMALL
            )
        side = "right" if seconds[peak] > seconds.max() / 2 else "left"
        label = f"peak {quantity(mib[peak], 'MiB')}"
        axes.annotate(label, (seconds[peak], mib[peak]), (0, 5), textcoords="offset points", ha=side)
        axes.set(
            xlim=(0, max(seconds.max(), 0.1)),
            ylim=(0, scales.memory_mib * 1.3),
            xlabel="seconds into the run",
            ylabel="MiB",
        )
        axes.yaxis.set_major_locator(MaxNLocator(nbins=4))

    caption = (
        f"{title}'s processes held {quantity(mib[0], 'MiB')} when the run began, {quantity(mib[peak], 'MiB')} "
        f"at their peak ({quantity(seconds[peak], 's')} into it) and {quantity(mib[-1], 'MiB')} at its end."
    )
    for begin, end in stopped:
        caption += f" There were none from {number(begin)} to {quantity(end, 's')}: a check stops the server."
    return draw(name, f"Resident memory of {title}", caption, 1.7, paint)


def stops(run: Mapping[str, Any]) -> list[tuple[float, float]]:
    """From when to when the server had no process, in seconds of the run: between two samples of its memory."""
    sampled = [seconds for seconds, _ in run["memory"]]
    return [(before, after) for before, after in pairwise(sampled) if after - before > STOP_SECONDS]


def comparison(name: str, title: str, unit: str, values: Mapping[str, float]) -> Picture:
    """One measure of several platforms (title -> value in `unit`), as bars from zero."""
    longest = max(values.values()) or 1.0

    def paint(axes: Axes) -> None:
        axes.barh(list(values), list(values.values()), 0.55, color=TINT)
        for row, value in enumerate(values.values()):
            axes.text(value + longest * 0.02, row, quantity(value, unit), va="center")
        axes.set(xlim=(0, longest * 1.45), ylim=(len(values) - 0.5, -0.5))
        axes.xaxis.set_visible(False)
        axes.spines["bottom"].set_visible(False)

    told = ", ".join(f"{platform} {quantity(value, unit)}" for platform, value in values.items())
    return draw(name, title, f"{told}.", 0.25 + 0.3 * len(values), paint)


def _latency_caption(sent: Mapping[str, Any], marks: Iterable[float]) -> str:
    reasons = ", ".join(f"{count} {reason}" for reason, count in sent["failures"].items())
    answers = f"{sent['right']:,} right, {sent['wrong']:,} wrong, {sent['dropped']:,} dropped"
    told = f"{sent['sent']:,} requests sent: {answers}{f', {reasons}' if reasons else ''}."
    percentiles = ", ".join(
        f"{percent}% within {quantity(value, 'ms')}" for percent, value in zip(PERCENTILES, marks, strict=False)
    )
    return f"{told} Of the right answers {percentiles}." if percentiles else f"{told} No right answer, so no latency."


def _tick_1_2_5(axes: Axes, low: float, high: float) -> None:
    steps = [digit * 10.0**power for power in range(-2, 6) for digit in (1, 2, 5)]
    axes.xaxis.set_major_locator(FixedLocator([step for step in steps if low <= step <= high * 1.2]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def draw(
    name: str,
    label: str,
    caption: str,
    height_inches: float,
    paint: Callable[[Axes], None],
    frame: tuple[float, float, float, float] | None = None,
) -> Picture:
    """The picture that `paint` makes on axes of the page's width.

    Args:
        name: keeps the ids of this picture apart from others'.
        frame: where the axes stand (left, bottom, width, height, as shares of the picture); None: as their labels
            allow.
    """
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(WIDTH_INCHES, height_inches), layout=None if frame else "constrained")
        paint(figure.add_axes(frame) if frame else figure.subplots())
        buffer = StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return Picture(label, caption, _fit_page(name, label, buffer.getvalue()))


def _fit_page(name: str, label: str, svg: str) -> Markup:
    """A drawing as the page needs it: no prolog, metadata or style sheet of its own, its ids under `name`."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    view_box = re.search(r'viewBox="[^"]*"', svg)
    opening = f'<svg role="img" aria-label="{escape(label)}" {view_box[0] if view_box else ""}>'
    svg = opening + re.sub(r"<[^>]*>", _slim, svg[svg.index(">") + 1 :].replace("xlink:href", "href"))
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg))
    svg = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", svg)
    svg = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    if "<g " not in svg:  # groups that say nothing
        svg = re.sub(r"</?g>", "", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var(--{variable})")
    return Markup(re.sub(r"\s*\n\s*", "\n", svg).strip())  # our own drawing; its words are escaped by matplotlib


def _slim(tag: re.Match[str]) -> str:
    """A tag without what the page sets itself, its numbers to a tenth of a point: a third of matplotlib's bytes."""
    slim = re.sub(r"; font-family: [^;\"]*| transform=\"rotate\(-0 [^\"]*\"", "", tag[0])
    return re.sub(r"-?\d+\.\d{3,}", lambda found: f"{float(found[0]):.1f}".removesuffix(".0"), slim)
