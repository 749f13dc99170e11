"""Pictures of what was watched tell the facts of a run, leave out what it lacks, and stay readable with any of them."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from markupsafe import Markup

from exhibit.render import dashboards, figures, panels, timelines, watched
from exhibit.render.figures import Picture

ROOT = Path(__file__).parents[2]
DRAWN = {"svg", "g", "defs", "path", "use", "text", "clipPath", "rect"}
RUN: dict[str, Any] = {
    "seconds": 80.0,
    "memory": [[at, 100.0] for at in np.arange(0, 80, 0.5) if not 50 < at < 60],
    "sent": [
        ["steady", "january_march", 3.0, 7.0], ["drifted", "june_july", 18.0, 20.0], ["again", "june_july", 20.5, 21.0],
        ["outliers", "corrupted", 22.5, 24.0], ["clean", "january_march", 26.0, 28.0],
    ],
    "windows": [
        {"seconds": 9.0, "rows": 150, "ratio": 0.7, "furthest": "origin", "drifted": False},
        {"seconds": 19.9, "rows": 164, "ratio": 1.126, "furthest": "temp", "drifted": True},
    ],
    "outliers": {"seconds": [1.0, 2.0, 3.0, 25.0, 26.0], "shares": [0.0, 0.02, 0.03, 0.995, float("nan")]},
    "alerts": [
        [21.8, "DriftDetected", "firing"], [24.0, "DriftDetected", "firing"], [25.8, "DriftDetected", "resolved"],
        [52.5, "ErrorBudgetBurnsFast", "firing"], [58.0, "ServerDown", "firing"], [63.0, "ServerDown", "resolved"],
    ],
    "explanation": {
        "features": ["distance = 569", "carrier = EV", "wind_speed = 9.20624"], "values": [-0.05, 0.2, 0.1],
        "base_value": 0.21, "prediction": 0.46,
        "anchor": {"conditions": ["carrier = EV", "hour > 17.00"], "precision": 0.969, "coverage": 0.0219},
    },
    "weeks": {
        "limit": 0.65, "drop": {"first_day": 105, "last_day": 111, "known_day": 111},
        "alarm_day": 125, "lead_days": -14,
        "weeks": [
            {"first_day": day, "last_day": day + 6, "auc": 0.74 if day < 91 else 0.6, "low": 0.55, "high": 0.8,
             "quiet": day < 91, "drop": day == 105} for day in range(0, 211, 7)
        ],
    },
}  # fmt: skip


def panel(*series: tuple[str, list[float]], **fields: Any) -> dict[str, Any]:
    """A panel of a dashboard, its lines with a point a second."""
    lines = [{"legend": name, "seconds": list(range(len(values))), "values": values} for name, values in series]
    facts = {"title": "Panel", "unit": "short", "kind": "timeseries", "limit": None, "left_out": 0}
    return {**facts, "series": lines, **fields}


def drawn(*args: Any, **fields: Any) -> Picture:
    [picture] = panels.pictures("name", {**RUN, "signals": [panel(*args, **fields)]})
    return picture


def texts(picture: Picture) -> list[str]:
    """What is written in a picture."""
    return [Markup(text).unescape() for text in re.findall(r"<text[^>]*>(.*?)</text>", picture.svg, re.DOTALL)]


def told(picture: Picture | None) -> str:
    assert picture
    return picture.caption.replace("\N{NO-BREAK SPACE}", " ")


def test_drift_tells_the_windows_beyond_the_limit() -> None:
    picture = watched.drift("a", "Toy", RUN)
    assert told(picture) == (
        "Of 2 windows of flights 1 went beyond the limit. Furthest was temp, at 1.13 times its limit."
    )
    assert picture
    assert {"temp 1.13", "limit", "drifted flights", "corrupted flights", "server stopped"} <= set(texts(picture))


def test_the_features_that_drifted_are_told_apart() -> None:
    by_feature = panel(("temp", [0.1, 1.13]), ("origin", [0.7, 0.2]), title=watched.BY_FEATURE, limit=1, left_out=11)
    picture = watched.features("a", "Toy", {**RUN, "signals": [by_feature]})
    assert "its limit: temp 1.13, origin 0.7; 11 others went less far." in told(picture)
    assert picture
    assert picture.svg.count('style="fill: var(--bad)"') == 1


def test_outliers_tell_their_highest_and_usual_share() -> None:
    picture = watched.outliers("a", "Toy", RUN)
    assert "at most 99.5% were flagged as outliers, half of the time 2.5% or fewer." in told(picture)


def test_a_repeated_delivery_goes_on_and_an_unresolved_alert_lasts_to_the_end() -> None:
    assert timelines.firing(RUN["alerts"], 80.0) == {
        "DriftDetected": [(21.8, 25.8)],
        "ErrorBudgetBurnsFast": [(52.5, 80.0)],
        "ServerDown": [(58.0, 63.0)],
    }
    assert "DriftDetected from 21.8 to 25.8 s, ErrorBudgetBurnsFast from 52.5 to 80 s" in told(
        watched.alerts("a", "Toy", RUN)
    )


def test_an_alert_that_fires_again_has_spans_of_its_own() -> None:
    deliveries = [
        [9, "A", "resolved"],
        [1, "A", "firing"],
        [3, "A", "resolved"],
        [7, "A", "firing"],
        [0, "B", "resolved"],
    ]
    assert timelines.firing(deliveries, 10) == {"A": [(1, 3), (7, 9)]}
    assert "A from 1 to 9 s (2 times)." in told(watched.alerts("a", "Toy", {**RUN, "alerts": deliveries}))


def test_a_quiet_run_says_that_nothing_was_delivered() -> None:
    picture = watched.alerts("a", "Toy", {**RUN, "alerts": []})
    assert told(picture) == "Delivered to the webhook as firing: nothing."
    assert picture
    assert "no alert was delivered" in texts(picture)


def test_bands_are_what_was_done_to_the_run() -> None:
    assert timelines.bands(RUN).replace("\N{NO-BREAK SPACE}", " ") == (
        "Bands: drifted flights from 18 to 21 s, corrupted flights from 22.5 to 24 s, server stopped from 50 to 60 s."
    )
    assert timelines.bands({"seconds": 1.0, "memory": []}) == ""


@pytest.mark.parametrize("begins", [(18, 18.5, 19), (0, 0, 0), (78, 79, 79.5), (1, 30, 60)])
def test_names_of_bands_neither_overlap_nor_leave_the_picture(begins: tuple[float, ...]) -> None:
    sent = [["x", f"kind {index} of flights", begin, begin + 0.5] for index, begin in enumerate(begins)]
    labels = [(begin / 80 * timelines.PLOT, flights) for _, flights, begin, _ in sent]
    places = [
        (row, at, at + len(name) * timelines.LETTER)
        for (row, at), (_, name) in zip(timelines._places(labels), labels, strict=True)
    ]
    assert all(at >= 0 and end <= timelines.PLOT + timelines.RIGHT for _, at, end in places)
    rows = {row: sorted((at, end) for other, at, end in places if other == row) for row, _, _ in places}
    assert all(end <= begin for row in rows.values() for (_, end), (begin, _) in pairwise(row))


def test_an_explanation_leads_from_the_average_to_the_answer() -> None:
    picture = watched.explanation("a", "Toy", RUN)
    assert "On average the model answers 0.21; for this flight, which was late, it answered 0.46." in told(picture)
    assert "Anchor: carrier = EV and hour > 17.00; of such flights 97% get the same answer, and 2.2% of all" in told(
        picture
    )
    assert picture
    rows = ["on average", "carrier = EV", "wind_speed = 9.206", "distance = 569", "this flight"]
    assert [text for text in texts(picture) if text in rows] == rows
    assert {"0.21", "+0.200", "+0.100", "−0.050", "0.46"} <= set(texts(picture))


def test_weeks_tell_who_told_first() -> None:
    picture = watched.weeks("a", "Toy", RUN)
    assert told(picture) == (
        "Mean AUC of a week: January to March 0.74, April and May 0.60, June and July 0.60. In the week from 15 April "
        "it fell below 0.65, the least that quiet weeks allow; outcomes known on landing tell it on 21 April. The "
        "drift alarm came on 5 May: 14 days after those, 16 days before outcomes that come 30 days late."
    )
    assert picture
    rows = ["21 April: outcomes on landing", "5 May: drift alarm", "14 days later"]
    rows += ["21 May: outcomes 30 days late", "16 days later"]
    assert [text for text in texts(picture) if text in rows] == rows


@pytest.mark.parametrize(("drop", "alarm"), [(None, None), (None, 20), ({"first_day": 0, "known_day": 6}, None)])
def test_weeks_without_a_drop_or_an_alarm_say_what_there_is(drop: dict[str, int] | None, alarm: int | None) -> None:
    picture = watched.weeks(
        "a", "Toy", {**RUN, "weeks": {**RUN["weeks"], "drop": drop, "alarm_day": alarm, "lead_days": None}}
    )
    assert ("fell below" in told(picture)) is bool(drop)
    assert ("drift alarm came on 20 January." in told(picture)) is bool(alarm)


def test_delays_run_from_the_deed_to_its_own_alert() -> None:
    assert watched.delays(RUN) == {
        "From the first drifted flight to DriftDetected": 3.8,
        "From the server’s stop to ErrorBudgetBurnsFast": 2.5,
        "From the server’s stop to ServerDown": 8.0,
    }
    assert watched.delays({**RUN, "alerts": [[17.0, "DriftDetected", "firing"]]}) == {}
    assert watched.delays({"seconds": 1.0, "memory": []}) == {}


def test_what_is_named_here_exists() -> None:
    assert f'"title": "{watched.BY_FEATURE}"' in dashboards.render()["deployment.json"]
    rules = (ROOT / "monitoring/prometheus/rules/alerts.yaml").read_text()
    assert {alert for _, alert, _ in watched.CAUSES} <= set(re.findall(r"alert: (\w+)", rules))


@pytest.mark.parametrize(
    "run",
    [
        {"seconds": 0.0, "memory": []},
        {
            "seconds": 1.0, "memory": [], "windows": [], "outliers": None, "signals": [], "weeks": None,
            "explanation": {"failed": "503"},
        },
        {
            "seconds": 1.0, "memory": [], "outliers": {"seconds": [1.0], "shares": [float("nan")]},
            "signals": [panel(title=watched.BY_FEATURE), panel(("+Inf", [1.0]), kind="heatmap")],
            "weeks": {"weeks": []},
        },
    ],
)  # fmt: skip
def test_without_the_facts_there_is_no_picture(run: dict[str, Any]) -> None:
    shown = [*watched.detected("a", "Toy", run), watched.explanation("a", "Toy", run), watched.weeks("a", "Toy", run)]
    assert not any(shown)
    assert panels.pictures("a", run) == []


def test_lines_along_the_axis_are_told_and_not_drawn() -> None:
    picture = drawn(("2xx", [0.5, 43.1]), ("3xx", [0.0, 0.0]), unit="reqps", left_out=2)
    assert told(picture) == "Highest: 2xx 43.1 a second. Nothing: 3xx. Not drawn, as they reach no higher: 2."
    assert told(drawn(("lost", [0.0, 0.0]))) == "Highest: lost 0."


def test_only_as_many_lines_as_can_be_told_apart_are_named() -> None:
    picture = drawn(*((f"line {index}", [0.1, 9.5 - index]) for index in range(5)), description="What it is.")
    assert [text for text in texts(picture) if "line" in text or "other" in text] == [
        "line 0", "line 1", "line 2", "2 others",
    ]  # fmt: skip
    assert told(picture).startswith("What it is. Highest: line 0 9.5, line 1 8.5, line 2 7.5, line 3 6.5, line 4 5.5.")


def test_states_have_a_lane_each() -> None:
    picture = drawn(("gateway", [1, 1, 1, 1]), ("model server", [1, 0, 0, 1]))
    assert [text for text in texts(picture) if text in ("gateway", "model server")] == ["gateway", "model server"]
    assert timelines.above_zero(np.arange(4.0), np.array([1.0, 0, 0, 1])) == [(0.0, 1.0), (3.0, 4.0)]
    assert timelines.above_zero(np.arange(4.0), np.array([0.0, 1, 2, 1])) == [(1.0, 4.0)]


@pytest.mark.parametrize(
    ("unit", "value", "words"),
    [("s", 0.0113, "11.3 ms"), ("s", 2.0, "2 s"), ("percentunit", 0.209, "20.9%"), ("none", 0.209, "0.209")],
)
def test_values_have_their_unit(unit: str, value: float, words: str) -> None:
    assert told(drawn(("line", [0.0, value]), unit=unit)) == f"Highest: line {words}."


def test_a_heat_map_is_drawn_as_percentiles() -> None:
    buckets = [("+Inf", [0.0, 100.0]), ("1.0", [0.0, 100.0]), ("0.5", [0.0, 90.0]), ("0.25", [0.0, 50.0])]
    assert "Highest: p99 0.95, p95 0.75, p50 0.25." in told(drawn(*buckets, kind="heatmap"))
    assert "Highest: p99 0.95, p95 0.75." in told(drawn(*buckets, kind="heatmap", left_out=1)), "its floor is not known"
    assert panels.pictures("a", {**RUN, "signals": [panel(("cold", [1.0]), ("hot", [2.0]), kind="heatmap")]}) == []


def test_beyond_the_last_bound_a_percentile_is_that_bound() -> None:
    assert "p99 1, p95 1, p50 0.5" in told(drawn(("+Inf", [100.0]), ("1", [94.0]), ("0.5", [50.0]), kind="heatmap"))


def test_a_line_is_parted_where_nothing_was_known() -> None:
    seconds, _ = timelines.broken(np.array([1.0, 2, 3, 9, 10]), np.ones(5))
    assert np.isnan(seconds).tolist() == [False, False, False, True, False, False]


def test_what_is_no_number_is_not_drawn() -> None:
    assert told(drawn(("a", [float("inf"), 2.0, float("nan")]), ("b", [float("nan")]))) == "Highest: a 2."


@pytest.mark.parametrize(
    "name",
    [
        "<script>x</script>",
        "$\\frac{$",
        "_hidden",
        "a\nb" * 50,
        "",
        "</svg><img src=x onerror=y>",
        "' onload='\" onload=\"",
    ],
)
def test_names_that_services_give_are_text(name: str) -> None:
    window = {"seconds": 19.9, "rows": 1, "ratio": 1.2, "furthest": name, "drifted": True}
    by_feature = panel((name, [0.2, 1.2]), ("b", [0.25, 0.5]), title=watched.BY_FEATURE, unit=name)
    states = panel((name, [1.0]), ("b", [1.0]), title=name)
    explanation = {
        **RUN["explanation"],
        "features": [name] * 3,
        "anchor": {"conditions": [name], "precision": 1, "coverage": 1},
    }
    run = {
        **RUN, "windows": [window], "alerts": [[1.0, name, "firing"]], "signals": [by_feature, states],
        "explanation": explanation, "sent": [["x", name, 1.0, 2.0]],
    }  # fmt: skip
    shown = [*watched.detected("a", "Toy", run), watched.explanation("a", "Toy", run), *panels.pictures("a", run)]
    assert len(shown) == 7
    for picture in shown:
        assert picture
        elements = list(ElementTree.fromstring(picture.svg).iter())
        assert {element.tag for element in elements} <= DRAWN
        assert not [name for element in elements for name in element.attrib if name.startswith("on")]
        assert max(map(len, texts(picture))) < 60
    words = [text for picture in shown if picture for text in texts(picture)]
    assert figures.clipped(name, timelines.LONGEST_NAME) in words or not name


def test_the_server_s_stop_parts_its_memory() -> None:
    assert figures.stops(RUN) == [(50.0, 60.0)]
    scales = figures.Scales(1.0, (1.0, 2.0), 100.0)
    picture = figures.memory("a", "Toy", RUN, scales)
    assert told(picture).endswith("There were none from 50 to 60 s: a check stops the server.")
    assert picture
    assert "stopped" in texts(picture)


def test_a_picture_costs_little_and_says_nothing_that_the_page_sets() -> None:
    values = [float(value) for value in np.sin(np.arange(90)) + 1.5]
    picture = drawn(*((f"line {index}", values) for index in range(6)))
    assert len(picture.svg) < 20_000
    assert "font-family" not in picture.svg
    assert not re.search(r"<[^>]*\d\.\d{3}", picture.svg)
