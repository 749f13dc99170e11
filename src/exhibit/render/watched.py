"""Pictures of what the monitoring saw of a run, and of how the model fared over the year."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, PercentFormatter

from exhibit.render.figures import ACCENT, INK, MUTED, RULE, TINT, Picture, draw, number

TRAINED_ON = "january_march"
OUTCOMES_LATE_DAYS = 30
"""The example of late outcomes: many a business learns them a month after the answer."""


def pictures(name: str, title: str, run: Mapping[str, Any]) -> list[Picture]:
    """Those that `run` (contents of run.json) has the facts for."""
    drawn = [
        drift(f"{name}-drift", title, run),
        outliers(f"{name}-outliers", title, run),
        alerts(f"{name}-alerts", title, run),
        explanation(f"{name}-explanation", title, run),
        weeks(f"{name}-weeks", title, run),
    ]
    return [picture for picture in drawn if picture]


def panels(name: str, run: Mapping[str, Any]) -> list[Picture]:
    """The dashboard's panels, each with the time of the run as its axis."""
    return [
        _panel(f"{name}-panel-{index}", panel, run)
        for index, panel in enumerate(run.get("signals", []))
        if panel["series"]
    ]


def drift(name: str, title: str, run: Mapping[str, Any]) -> Picture | None:
    """Each judged window: its largest distance as a multiple of that feature's limit."""
    windows = run.get("windows")
    if not windows:
        return None
    seconds, ratios = ([window[key] for window in windows] for key in ("seconds", "ratio"))

    def paint(axes: Axes) -> None:
        _bands(axes, run)
        axes.axhline(1, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        axes.plot(seconds, ratios, color=ACCENT, linewidth=1.2, marker="o", markersize=3)
        axes.annotate("limit", (_end(run), 1), (-2, 3), textcoords="offset points", ha="right", color=MUTED)
        _time_axis(axes, run, max(*ratios, 1.2))
        axes.set_ylabel("distance / limit")

    drifted = [window for window in windows if window["drifted"]]
    caption = f"Of {len(windows)} windows {len(drifted)} were beyond their limit"
    if drifted:
        furthest = max(drifted, key=lambda window: window["ratio"])
        caption += f", furthest {furthest['furthest']} at {number(furthest['ratio'])} times its limit"
    return draw(name, f"Drift of {title}'s traffic", f"{caption}. {_sent(run)}", 2.2, paint)


def outliers(name: str, title: str, run: Mapping[str, Any]) -> Picture | None:
    """The share of flights flagged as outliers."""
    found = run.get("outliers")
    if not found:
        return None
    seconds, share = found["seconds"], np.asarray(found["shares"], dtype=float)

    def paint(axes: Axes) -> None:
        _bands(axes, run)
        axes.plot(seconds, share, color=ACCENT, linewidth=1.2)
        _time_axis(axes, run, 1.0)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_ylabel("outliers")

    caption = (
        f"Of the flights of any 5 s at most {share.max():.0%} were flagged as outliers, half of the time "
        f"{np.median(share):.0%} or less."
    )
    return draw(name, f"Outliers in {title}'s traffic", f"{caption} {_sent(run)}", 2.2, paint)


def alerts(name: str, title: str, run: Mapping[str, Any]) -> Picture | None:
    """From when to when each alert fired, as it was delivered."""
    if "alerts" not in run:
        return None
    spans = _spans(run["alerts"], _end(run))

    def paint(axes: Axes) -> None:
        _bands(axes, run)
        for row, bars in enumerate(spans.values()):
            for begin, end in bars:
                axes.barh([row], [max(end - begin, _end(run) / 200)], 0.5, left=[begin], color=ACCENT)
        axes.set_yticks(range(len(spans)), list(spans))
        _time_axis(axes, run, None)
        axes.set_ylim(len(spans) - 0.4 if spans else 0.6, -1.6)

    told = ", ".join(f"{alert} from {number(bars[0][0])} to {number(bars[-1][1])} s" for alert, bars in spans.items())
    caption = f"Delivered to the webhook: {told or 'nothing'}."
    return draw(name, f"Alerts about {title}", f"{caption} {_sent(run)}", 1.3 + 0.25 * len(spans), paint)


def explanation(name: str, title: str, run: Mapping[str, Any]) -> Picture | None:
    """What each feature adds to one prediction, from the average answer to this one."""
    found = run.get("explanation")
    if not found or "failed" in found:
        return None
    order = np.argsort(-np.abs(found["values"]))
    values = np.asarray(found["values"])[order]
    names = [found["features"][index] for index in order]
    widest = float(np.abs(values).max()) or 1.0

    def paint(axes: Axes) -> None:
        axes.barh(names, values, 0.6, color=[ACCENT if value > 0 else TINT for value in values])
        axes.axvline(0, color=RULE, linewidth=1)
        for row, value in enumerate(values):
            axes.annotate(
                f"{value:+.3f}",
                (value, row),
                (3 if value >= 0 else -3, 0),
                textcoords="offset points",
                va="center",
                ha="left" if value >= 0 else "right",
            )
        axes.set(
            xlim=(min(values.min(), 0) - widest * 0.3, max(values.max(), 0) + widest * 0.3),
            ylim=(len(names) - 0.4, -0.6),
        )
        axes.set_xlabel("added to the probability of being late")

    anchor = found["anchor"]
    caption = (
        f"On average the model answers {number(found['base_value'])}; for this flight, which was late, it answered "
        f"{number(found['prediction'])}. The bars add up to the difference (KernelShap, asked of the served model). "
        f"Anchor: {' and '.join(anchor['conditions']) or 'none'}, under which {anchor['precision']:.0%} of flights get "
        f"the same answer; {anchor['coverage']:.1%} of flights meet it."
    )
    return draw(name, f"One late flight explained, by {title}", caption, 0.6 + 0.24 * len(names), paint)


def weeks(name: str, title: str, run: Mapping[str, Any]) -> Picture | None:
    """AUC of each week with its 95 % interval, and when drift and loss of accuracy were told."""
    found = run.get("weeks")
    if not found:
        return None
    rows = found["weeks"]
    days, auc, low, high = (
        np.array([row[key] for row in rows], dtype=float) for key in ("first_day", "auc", "low", "high")
    )
    told = {"drift": found["alarm_day"], "outcomes": (found["drop"] or {}).get("known_day")}

    def paint(axes: Axes) -> None:
        axes.axhline(found["limit"], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        axes.annotate("limit", (days[0], found["limit"]), (0, -3), textcoords="offset points", va="top", color=MUTED)
        axes.vlines(days, low, high, color=TINT, linewidth=3)
        axes.plot(days, auc, color=ACCENT, linewidth=0, marker="o", markersize=3.5)
        for row, (label, day) in enumerate(told.items()):
            if day is not None:
                axes.axvline(day, color=INK, linewidth=0.8)
                axes.annotate(
                    label, (day, 1 - 0.09 * row), (3, -2), xycoords=("data", "axes fraction"),
                    textcoords="offset points", va="top",
                )  # fmt: skip
        axes.set(ylim=(low.min() - 0.03, high.max() + 0.08), ylabel="AUC", xlabel="weeks of 2013")
        axes.xaxis.set_major_locator(FixedLocator([_first_of(month) for month in range(1, 9)]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda day, _: f"{_date(day):%b}"))

    return draw(name, f"Accuracy of {title}'s answers, week by week", _told_of_weeks(found), 2.4, paint)


def _told_of_weeks(found: Mapping[str, Any]) -> str:
    means = {
        months: np.mean([row["auc"] for row in found["weeks"] if begin <= row["first_day"] < end])
        for months, begin, end in (
            ("January to March", 0, _first_of(4)), ("April and May", _first_of(4), _first_of(6)),
            ("June and July", _first_of(6), _first_of(8)),
        )
    }  # fmt: skip
    told = "Mean AUC of a week: " + ", ".join(f"{months} {mean:.2f}" for months, mean in means.items()) + "."
    if found["drop"]:
        drop = found["drop"]
        told += (
            f" In the week from {_written(drop['first_day'])} it fell below what quiet weeks allow; outcomes tell it "
            f"on {_written(drop['known_day'])} if they are known on landing."
        )
    if found["alarm_day"] is not None:
        told += f" The drift alarm came on {_written(found['alarm_day'])}"
    if found["lead_days"] is not None:
        told += (
            f": lead {found['lead_days']} days, or {found['lead_days'] + OUTCOMES_LATE_DAYS} where outcomes are known "
            f"{OUTCOMES_LATE_DAYS} days later"
        )
    return told.removesuffix(".") + "."


def _panel(name: str, panel: Mapping[str, Any], run: Mapping[str, Any]) -> Picture:
    drawn = panel["series"]
    styles = [(shade, line) for line in ("-", (0, (2, 2))) for shade in (ACCENT, TINT, MUTED)]
    highest = max(max(one["values"]) for one in drawn) or 1.0

    def paint(axes: Axes) -> None:
        for one, (shade, line) in zip(drawn, styles, strict=False):
            axes.plot(one["seconds"], one["values"], color=shade, linewidth=1.2, linestyle=line, label=one["legend"])
        if panel["limit"] is not None and panel["limit"] <= 2 * highest:
            axes.axhline(panel["limit"], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        _time_axis(axes, run, highest)
        if len(drawn) > 1:
            axes.legend(frameon=False, fontsize=8, loc="upper left", ncols=2)
            axes.set_ylim(0, highest * 1.6)
        axes.set_ylabel(
            {"none": "", "short": "", "percentunit": "share", "reqps": "1/s"}.get(panel["unit"], panel["unit"])
        )

    told = ", ".join(f"{one['legend']} {number(max(one['values']))}" for one in drawn)
    left = f" ({panel['left_out']} lower lines are left out)" if panel["left_out"] else ""
    return draw(name, panel["title"], f"Highest: {told}{left}.", 1.9, paint)


def _end(run: Mapping[str, Any]) -> float:
    """The end of the run's axis, in seconds."""
    return float(max(run["seconds"], 1.0))


def _time_axis(axes: Axes, run: Mapping[str, Any], highest: float | None) -> None:
    axes.set_xlim(0, _end(run))
    axes.set_xlabel("seconds into the run")
    if highest is not None:
        axes.set_ylim(0, highest * 1.3)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=4))


def _bands(axes: Axes, run: Mapping[str, Any]) -> None:
    """When traffic unlike that of the training months was sent, as bands with its name."""
    for scenario, begin, end in _unlike(run):
        axes.axvspan(begin, end, color=RULE, linewidth=0, alpha=0.5)
        axes.annotate(
            scenario,
            ((begin + end) / 2, 1),
            (0, -2),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="center",
            va="top",
            fontsize=8,
            color=MUTED,
        )


def _unlike(run: Mapping[str, Any]) -> list[tuple[str, float, float]]:
    """(scenario, begin, end) of that traffic; sendings right after each other as one."""
    merged: list[tuple[str, float, float]] = []
    for scenario, flights, begin, end in run["sent"]:
        if merged and merged[-1][0] == scenario:
            merged.append((scenario, merged.pop()[1], end))
        elif flights != TRAINED_ON:
            merged.append((scenario, begin, end))
    return merged


def _sent(run: Mapping[str, Any]) -> str:
    unlike = [f"{scenario} from {number(begin)} to {number(end)} s" for scenario, begin, end in _unlike(run)]
    return f"Traffic was {', '.join(unlike)}; else clean, or none." if unlike else ""


def _spans(deliveries: Iterable[Sequence[Any]], end: float) -> dict[str, list[tuple[float, float]]]:
    """From when to when each alert fired; one that still does, to `end`."""
    spans: dict[str, list[tuple[float, float]]] = {}
    firing: dict[str, float] = {}
    for seconds, alert, status in deliveries:
        if status == "firing":
            firing.setdefault(alert, seconds)
            spans.setdefault(alert, [])
        elif alert in firing:
            spans[alert].append((firing.pop(alert), seconds))
    for alert, begin in firing.items():
        spans[alert].append((begin, end))
    return spans


def _date(day: float) -> date:
    """A day of the year 2013, from 1."""
    return date(2012, 12, 31) + timedelta(days=int(day))


def _first_of(month: int) -> int:
    """The first day of a month, as a day of the year 2013."""
    return (date(2013, month, 1) - date(2012, 12, 31)).days


def _written(day: float) -> str:
    return f"{_date(day).day} {_date(day):%B}"
