"""What a run leaves beside its evidence, for the report to draw: facts that differ from run to run."""

from __future__ import annotations

import csv
import json
import os
import platform as machine
import subprocess
import sys
import time
from dataclasses import asdict
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import psutil

from exhibit import detectors, explainers, importance, panels
from exhibit.errors import ServerError
from exhibit.targets import AnswerError, Deployment
from exhibit.workspace import Workspace

MOST_POINTS = 90
"""Points of a drawn series; a picture as wide as a phone shows no more."""
MOST_SERIES = 6
"""Lines of one panel; of more, those that reach highest are kept."""
CALENDAR = ("january_march", "april_may", "june_july")
FLIGHTS_A_PERIOD = 10000
"""Flights of each period that are asked again: enough to tell a week's AUC to about .02."""
LABELS_SECONDS = 60


def machine_facts() -> dict[str, Any]:
    """The machine the run was made on."""
    return {
        "cpus": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{machine.system()} {machine.machine()}",
        "python": f"{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}",
    }


def now() -> str:
    """The time as the record tells it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def traffic(deployment: Deployment) -> list[dict[str, Any]]:
    """What the plain scenarios got for answers."""
    plain = [
        report
        for name, report in deployment.traffic.items()
        if name in deployment.scenarios and not deployment.scenarios[name].by_criterion
    ]
    return [{**asdict(report), "failures": dict(report.failures)} for report in plain]


def sent(deployment: Deployment, began_at: float) -> list[tuple[str, str, float, float]]:
    """(scenario, period of its flights, begin, end) of each sending, in seconds from `began_at`."""
    return [
        (name, deployment.scenarios[name].flights, round(begin - began_at, 1), round(end - began_at, 1))
        for name, begin, end in deployment.sent
    ]


def alerts(deployment: Deployment, began_at: float) -> list[tuple[float, str, str]]:
    """(seconds from `began_at`, alert, firing or resolved) of each delivery about the deployment."""
    return [
        (round(one.received_at - began_at, 1), one.alertname, one.status)
        for one in deployment.deliveries() or []
        if one.received_at >= began_at
    ]


def windows(deployment: Deployment, began_at: float) -> list[dict[str, Any]]:
    """What the detectors judged since `began_at`."""
    if detectors.NAME not in deployment.companions:
        return []
    return [
        {
            "seconds": round(one.closed_at - began_at, 1),
            "rows": one.rows,
            "ratio": round(one.ratio, 3),
            "furthest": one.furthest,
            "drifted": one.drifted,
        }
        for one in detectors.windows(deployment, began_at)
    ]


def outliers(deployment: Deployment, began_at: float, until: float) -> dict[str, list[float]] | None:
    """The share of outliers in the 5 s before each of some seconds from `began_at`; None where nobody counted them."""
    if deployment.prometheus is None:
        return None
    step = max((until - began_at) / MOST_POINTS, 1.0)
    found = deployment.prometheus.range(deployment.recorded("platform:outliers:ratio_rate5m"), began_at, until, step)
    points = [point for one in found for point in one.points]
    return (
        {
            "seconds": [round(at - began_at, 1) for at, _ in points],
            "shares": [round(value, 3) for _, value in points],
        }
        if points
        else None
    )


def signals(workspace: Workspace, deployment: Deployment, began_at: float, until: float) -> list[dict[str, Any]]:
    """The panels of the dashboards, as Prometheus answers them for the time of the run."""
    if deployment.prometheus is None:
        return []
    step = max((until - began_at) / MOST_POINTS, 1.0)
    drawn = []
    dashboard = workspace.root / "monitoring" / "grafana" / "dashboards" / "deployment.json"
    for panel in panels.read(dashboard, deployment.platform.slug, deployment.target):
        series: list[dict[str, Any]] = []
        for query in panel.queries:
            for one in deployment.prometheus.range(query.promql, began_at, until, step):
                seconds = [round(at - began_at, 1) for at, _ in one.points]
                values = [float(f"{value:.4g}") for _, value in one.points]
                if values:
                    series.append({"legend": query.name(one.labels), "seconds": seconds, "values": values})
        series.sort(key=lambda one: -max(one["values"]))
        kept = len(series) if panel.kind == "heatmap" else MOST_SERIES  # of a histogram no bucket can be missed
        facts = {"title": panel.title, "unit": panel.unit, "kind": panel.kind, "limit": panel.limit}
        facts["description"] = panel.description
        drawn.append({**facts, "series": series[:kept], "left_out": len(series[kept:])})
    return drawn


def explanation(deployment: Deployment) -> dict[str, Any]:
    """Why one late flight, held out of training, was taken for late: the one the model was surest of."""
    flights = deployment.model.held_out("january_march")
    assert flights.late is not None
    surest = int(np.argmax(np.where(flights.late, flights.expected, 0.0)))
    row = flights.rows[surest : surest + 1]
    try:
        began = time.monotonic()
        found = explainers.attributions(deployment, row)
        seconds = time.monotonic() - began
        [anchor] = explainers.ask(deployment, row, "anchors")
    except AnswerError as error:
        return {"failed": str(error)}
    codes = deployment.model.manifest.get("codes", {})
    values = [
        str(codes[name][int(value)]) if name in codes else f"{value:g}"
        for name, value in zip(deployment.model.features, row[0], strict=True)
    ]
    return {
        "features": [f"{name} = {value}" for name, value in zip(deployment.model.features, values, strict=True)],
        "values": [round(float(value), 4) for value in found.values[0]],
        "base_value": round(float(found.base_values[0]), 4),
        "prediction": round(float(found.predictions[0]), 4),
        "seconds": round(seconds, 3),
        "anchor": {name: anchor[name] for name in ("conditions", "precision", "coverage")},
    }


def weeks(workspace: Workspace, deployment: Deployment) -> dict[str, Any] | None:
    """AUC of the served model's answers week by week, and whether drift or the outcomes told first that it fell.

    None where nobody knows the days of the flights.

    The flights are those of the calendar from January to July that the model was not trained on; each outcome is known
    on the day of its flight. When drift was told is what the study of the detectors found for the same weeks.

    Raises:
        ServerError: the job that joins answers and outcomes failed.
    """
    folder = workspace.root / "monitoring" / detectors.NAME
    periods = [deployment.model.held_out(period) for period in CALENDAR]
    if any(period.days is None for period in periods):
        return None
    state = workspace.deployment_state(deployment.platform.slug, deployment.target)
    answers, outcomes = state / "answers.csv", state / "outcomes.csv"
    with answers.open("w", newline="") as to_answers, outcomes.open("w", newline="") as to_outcomes:
        answered, known = csv.writer(to_answers), csv.writer(to_outcomes)
        answered.writerow(("flight", "day", "probability"))
        known.writerow(("flight", "known_day", "late"))
        for name, period in zip(CALENDAR, periods, strict=True):
            chosen = period.sample(min(len(period), FLIGHTS_A_PERIOD), seed=1)
            assert chosen.days is not None
            assert chosen.late is not None
            probabilities = importance.ask(deployment.predict, chosen.rows)
            for at, (day, late, probability) in enumerate(zip(chosen.days, chosen.late, probabilities, strict=True)):
                answered.writerow((f"{name}-{at}", day, f"{probability:.6f}"))
                known.writerow((f"{name}-{at}", day, int(late)))
    calendar = json.loads((folder / "study.json").read_text())["calendar"]
    alarms = [_day(week["start"]) + week["days"] - 1 for week in calendar if week["alarm"]]
    argv = [sys.executable, "labels.py", "--answers", str(answers), "--outcomes", str(outcomes)]
    argv += ["--quiet-until", "90", "--week-start", str(_day(calendar[0]["start"]))]
    argv += [part for day in alarms for part in ("--alarm-day", str(day))]
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=LABELS_SECONDS, check=False)
    if done.returncode:
        raise ServerError("labels.py", done.stderr.strip(), "a report", "Run it by hand on the files it names.")
    return dict(json.loads(done.stdout))


def _day(text: str) -> int:
    """The day of the year 2013 of an ISO date, from 1; below for days before."""
    return (date.fromisoformat(text) - date(2012, 12, 31)).days
