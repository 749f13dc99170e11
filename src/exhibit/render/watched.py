"""Pictures of what the monitoring saw of a run, why the model answered as it did, and how it fared over the year."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from exhibit.render import timelines
from exhibit.render.figures import (
    ACCENT,
    ALARM,
    INK,
    MUTED,
    OCHRE,
    RULE,
    SMALL,
    TINT,
    Picture,
    clipped,
    draw,
    number,
    quantity,
)
from exhibit.render.timelines import LEFT, LETTER, LIMIT, LONGEST_NAME, PLOT, ROW, STOPPED, UNLIKE, measure

BY_FEATURE = "Drift by feature"
"""The dashboard's panel that has a line for each feature."""
CAUSES = (
    (UNLIKE["june_july"], "DriftDetected", "From the first drifted flight to DriftDetected"),
    (UNLIKE["corrupted"], "OutlierRateHigh", "From the first corrupted flight to OutlierRateHigh"),
    (STOPPED, "ErrorBudgetBurnsFast", "From the server’s stop to ErrorBudgetBurnsFast"),
    (STOPPED, "ServerDown", "From the server’s stop to ServerDown"),
)
"""What is done to a run, which alert is to tell of it, and what the time between is called."""
OUTCOMES_LATE_DAYS = 30
"""The example of late outcomes: many a business learns them a month after the answer."""
DRIFT_ALARM = "drift alarm"
_HEIGHT, _AUC_HEIGHT = 104, 172
"""Of axes, in points."""


def detected(name: str, title: str, run: Mapping[str, Any]) -> list[Picture | None]:
    """What was noticed of `run` (contents of run.json); None where it lacks the facts."""
    return [
        drift(f"{name}-drift", title, run),
        outliers(f"{name}-outliers", title, run),
        features(f"{name}-features", title, run),
        alerts(f"{name}-alerts", title, run),
    ]


def delays(run: Mapping[str, Any]) -> dict[str, float]:
    """Seconds from what was done to a run until the alert was delivered that is to tell of it, by words for both."""
    spans = timelines.firing(run.get("alerts", []), timelines.end_of(run))
    begins = {what: begin for what, begin, _ in reversed(timelines.unusual(run))}
    found = {}
    for what, alert, words in CAUSES:
        told = [fired - begins[what] for fired, _ in spans.get(alert, []) if what in begins and fired >= begins[what]]
        if told:
            found[words] = round(told[0], 1)
    return found


def drift(name: str, title: str, run: Mapping[str, Any]) -> Picture | None:
    """Each judged window, when it closed: its largest distance as a multiple of that feature's limit."""
    windows = run.get("windows")
    if not windows:
        return None
    furthest = max(windows, key=lambda window: window["ratio"])
    drifted = sum(window["drifted"] for window in windows)

    def paint(axes: Axes) -> None:
        axes.axhline(1, **LIMIT)
        axes.annotate("limit", (0, 1), (3, 3), textcoords="offset points", color=ALARM, fontsize=SMALL)
        for window in windows:
            shade, size = (ALARM, 5) if window["drifted"] else (ACCENT, 3.5)
            axes.vlines(window["seconds"], 0, window["ratio"], color=TINT, linewidth=1.5)
            axes.plot(window["seconds"], window["ratio"], color=shade, marker="o", markersize=size)
        if drifted:
            words = f"{clipped(furthest['furthest'], LONGEST_NAME)} {number(furthest['ratio'])}"
            timelines.mark(axes, run, furthest["seconds"], furthest["ratio"], words)
        timelines.from_zero(axes, max(1.2 * furthest["ratio"], 1.4))

    caption = (
        f"Of {len(windows)} windows of flights {drifted} went beyond the limit. Furthest was {furthest['furthest']}, "
        f"at {number(furthest['ratio'])} times its limit."
    )
    axis = "largest distance / its limit"
    return timelines.picture(name, f"Drift of {title}'s traffic", caption, run, _HEIGHT, paint, axis)


def features(name: str, title: str, run: Mapping[str, Any]) -> Picture | None:
    """How far each feature went in any window, as a multiple of its limit."""
    panel = next((panel for panel in run.get("signals", []) if panel["title"] == BY_FEATURE), None)
    lines = {one["legend"]: timelines.line(one)[1] for one in panel["series"]} if panel else {}
    highest = {feature: float(values.max()) for feature, values in lines.items() if len(values)}
    if not panel or not highest:
        return None

    def paint(axes: Axes) -> None:
        rows, values = range(len(highest)), list(highest.values())
        axes.barh(rows, values, 0.6, color=[ALARM if value > 1 else TINT for value in values])
        axes.set_yticks(rows, [clipped(feature, LONGEST_NAME) for feature in highest])
        for row, value in enumerate(values):
            axes.annotate(number(value), (value, row), (4, 0), textcoords="offset points", va="center")
        axes.axvline(1, **LIMIT)
        axes.set(
            xlim=(0, 1.2 * max(*values, 1)), ylim=(len(values) - 0.5, -0.5), xlabel="furthest distance / its limit"
        )

    told = ", ".join(f"{feature} {number(value)}" for feature, value in highest.items())
    rest = f"; {panel['left_out']} others went less far" if panel["left_out"] else ""
    caption = f"The furthest that each went in any window, as a multiple of its limit: {told}{rest}."
    return draw(name, f"What drifted in {title}'s traffic", caption, 0.65 + 0.26 * len(highest), paint)


def outliers(name: str, title: str, run: Mapping[str, Any]) -> Picture | None:
    """The share of flights flagged as outliers."""
    found = run.get("outliers")
    seconds, shares = timelines.line({**found, "values": found["shares"]}) if found else (np.empty(0), np.empty(0))
    if not len(shares):
        return None
    peak, most, half = int(shares.argmax()), measure(shares.max(), "percentunit"), float(np.median(shares))

    def paint(axes: Axes) -> None:
        line = timelines.broken(seconds, shares)
        axes.fill_between(*line, color=TINT, linewidth=0)
        axes.plot(*line, color=ACCENT, linewidth=1.4)
        timelines.mark(axes, run, seconds[peak], shares[peak], most)
        timelines.from_zero(axes, 1.2, "percentunit")

    caption = (
        f"At each time, of the flights of the last seconds: at most {most} were flagged as outliers, half of the time "
        f"{measure(half, 'percentunit')} or fewer."
    )
    axis = "share of flights flagged"
    return timelines.picture(name, f"Outliers in {title}'s traffic", caption, run, _HEIGHT, paint, axis)


def alerts(name: str, title: str, run: Mapping[str, Any]) -> Picture | None:
    """From when to when each alert fired, as it was delivered."""
    if "alerts" not in run:
        return None
    spans = timelines.firing(run["alerts"], timelines.end_of(run))

    def paint(axes: Axes) -> None:
        timelines.lanes(axes, run, spans, ALARM)
        if not spans:
            axes.text(0.5, 0.5, "no alert was delivered", transform=axes.transAxes, ha="center", va="center")

    told = ", ".join(
        f"{alert} from {number(bars[0][0])} to {quantity(bars[-1][1], 's')}"
        f"{f' ({len(bars)} times)' if len(bars) > 1 else ''}"
        for alert, bars in spans.items()
    )
    caption = f"Delivered to the webhook as firing: {told or 'nothing'}."
    height = timelines.LANE * max(len(spans), 1) + 4
    return timelines.picture(name, f"Alerts about {title}", caption, run, height, paint)


def explanation(name: str, title: str, run: Mapping[str, Any]) -> Picture | None:
    """What each feature adds to one prediction, from the average answer to this one."""
    found = run.get("explanation")
    if not found or "failed" in found:
        return None
    base, answer, anchor = found["base_value"], found["prediction"], found["anchor"]
    order = np.argsort(-np.abs(found["values"]), kind="stable")
    values = np.asarray(found["values"], dtype=float)[order]
    names = [clipped(_shorter(found["features"][index]), LONGEST_NAME) for index in order]
    rows, ends = range(1, len(values) + 1), base + np.cumsum(values)

    def paint(axes: Axes) -> None:
        axes.barh(rows, values, 0.62, left=ends - values, color=[ACCENT if value > 0 else OCHRE for value in values])
        # From the end of one bar to the begin of the next.
        axes.vlines(
            ends[:-1], [row - 0.31 for row in rows[:-1]], [row + 0.31 for row in rows[1:]], MUTED, linewidth=0.7
        )
        axes.barh([0, len(values) + 1], [base, answer], 0.62, color=RULE)
        words = [number(base), *(f"{value:+.3f}".replace("-", "−") for value in values), number(answer)]
        reached = [base, *np.maximum(ends, ends - values), answer]
        for row, (at, text) in enumerate(zip(reached, words, strict=True)):
            axes.annotate(text, (at, row), (4, 0), textcoords="offset points", va="center")
        axes.set_yticks(range(len(words)), ["on average", *names, "this flight"])
        axes.set(
            xlim=(0, 1.2 * max(reached)), ylim=(len(words) - 0.5, -0.5), xlabel="predicted probability of being late"
        )
        axes.xaxis.set_major_locator(FixedLocator([0, 0.25, 0.5, 0.75, 1]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))

    caption = (
        f"On average the model answers {number(base)}; for this flight, which was late, it answered {number(answer)}. "
        f"The bars lead from one to the other (KernelShap, asked of the served model). "
        f"Anchor: {' and '.join(anchor['conditions']) or 'none'}; of such flights {anchor['precision']:.0%} get the "
        f"same answer, and {anchor['coverage']:.1%} of all are such."
    )
    return draw(name, f"One late flight explained, by {title}", caption, 1.0 + 0.235 * len(values), paint)


def weeks(name: str, title: str, run: Mapping[str, Any]) -> Picture | None:
    """AUC of each week with its 95 % interval, and when drift and loss of accuracy were told."""
    found = run.get("weeks")
    if not found or not found["weeks"]:
        return None
    first, last, auc, low, high = (
        np.array([row[key] for row in found["weeks"]], dtype=float)
        for key in ("first_day", "last_day", "auc", "low", "high")
    )
    quiet, dropped = (np.array([row[key] for row in found["weeks"]], dtype=bool) for key in ("quiet", "drop"))
    begin, end, middle, told = first[0], last[-1] + 1, (first + last) / 2, _told(found)
    edge = end + 0.1 * (end - begin)  # room for a word

    def paint(axes: Axes) -> None:
        if quiet.any():
            axes.axvspan(begin, last[quiet].max() + 0.5, color=RULE, linewidth=0, alpha=0.6)
            axes.annotate(
                "months of training", (0, 0), (3, 3), xycoords="axes fraction", textcoords="offset points",
                color=MUTED, fontsize=SMALL,
            )  # fmt: skip
        axes.axhline(found["limit"], **LIMIT)
        axes.annotate("limit", (end, found["limit"]), (3, 3), textcoords="offset points", color=ALARM, fontsize=SMALL)
        axes.vlines(middle, low, high, color=TINT, linewidth=2.5)
        for which, shade in ((~dropped, ACCENT), (dropped, ALARM)):
            axes.plot(middle[which], auc[which], color=shade, linewidth=0, marker="o", markersize=4)
        axes.set(xlim=(begin, edge), ylim=(low.min() - 0.07, high.max() + 0.02))
        axes.set_xlabel("AUC of each week of 2013, with its 95% interval")
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
        axes.xaxis.set_major_locator(FixedLocator([day for month in range(1, 13) if (day := _first_of(month)) < end]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda day, _: f"{_date(day):%b}"))
        _tell(axes, told, begin, edge)

    label = f"Accuracy of {title}'s answers, week by week"
    return timelines.framed(name, label, _summary(found), _AUC_HEIGHT, ROW * len(told), paint)


def _told(found: Mapping[str, Any]) -> list[tuple[float, str]]:
    """(day of the year, who told then that the model fares worse), in that order."""
    told, late = [], OUTCOMES_LATE_DAYS
    if found["drop"]:
        known = float(found["drop"]["known_day"])
        told += [(known, "outcomes on landing"), (known + late, f"outcomes {late} days late")]
    if found["alarm_day"] is not None:
        told.append((float(found["alarm_day"]), DRIFT_ALARM))
    return sorted(told)


def _tell(axes: Axes, told: Sequence[tuple[float, str]], begin: float, end: float) -> None:
    """Who told when: a line at that day, and a row above the axes, from the day of the one before."""
    place: dict[str, Any] = {"transform": axes.get_xaxis_transform(), "clip_on": False}
    for row, (day, who) in enumerate(told):
        before, level = told[max(row - 1, 0)][0], 1 + ROW * (len(told) - row - 0.5) / _AUC_HEIGHT
        shade = ALARM if who == DRIFT_ALARM else INK
        axes.plot([day, day], [0, 1], color=shade, linewidth=0.9, **place)
        axes.plot([before, day], [level, level], color=shade, linewidth=2, solid_capstyle="butt", **place)
        axes.plot([day], [level], color=shade, marker="o", markersize=5, **place)
        words, later = f"{_written(day)}: {who}", f"{day - before:.0f} days later" if row else ""
        sides = [(before, "right", -6, words), (day, "left", 6, later)]
        if len(words) * LETTER > (before - begin) / (end - begin) * PLOT + LEFT - 8:
            sides = [(day, "left", 6, f"{words} {later}".rstrip())]
        for at, side, shift, text in sides:
            axes.annotate(
                text, (at, level), (shift, 0), xycoords=axes.get_xaxis_transform(), textcoords="offset points",
                ha=side, va="center", fontsize=SMALL, color=shade,
            )  # fmt: skip


def _summary(found: Mapping[str, Any]) -> str:
    seasons = (("January to March", 1, 4), ("April and May", 4, 6), ("June and July", 6, 8))
    by_day = {max(row["first_day"], 1): row["auc"] for row in found["weeks"]}
    means = [
        f"{months} {np.mean(auc):.2f}"
        for months, begin, end in seasons
        if (auc := [value for day, value in by_day.items() if _first_of(begin) <= day < _first_of(end)])
    ]
    told = f"Mean AUC of a week: {', '.join(means)}."
    if drop := found["drop"]:
        told += (
            f" In the week from {_written(drop['first_day'])} it fell below {number(found['limit'])}, the least that "
            f"quiet weeks allow; outcomes known on landing tell it on {_written(drop['known_day'])}."
        )
    if found["alarm_day"] is not None:
        told += f" The drift alarm came on {_written(found['alarm_day'])}"
        if (lead := found["lead_days"]) is not None:
            late = lead + OUTCOMES_LATE_DAYS
            told += f": {_lead(lead)} those, {_lead(late)} outcomes that come {OUTCOMES_LATE_DAYS} days late"
        told += "."
    return told


def _lead(days: int) -> str:
    return f"{abs(days)} days {'before' if days >= 0 else 'after'}"


def _shorter(condition: str) -> str:
    """``feature = value`` with no more digits of the value than are read."""
    feature, equals, value = condition.partition(" = ")
    try:
        return f"{feature} = {float(value):.4g}"
    except ValueError:
        return feature + equals + value


def _date(day: float) -> date:
    """A day of the year 2013, from 1."""
    return date(2012, 12, 31) + timedelta(days=int(day))


def _first_of(month: int) -> int:
    """The first day of a month, as a day of the year 2013."""
    return (date(2013, month, 1) - date(2012, 12, 31)).days


def _written(day: float) -> str:
    return f"{_date(day).day} {_date(day):%B}"
