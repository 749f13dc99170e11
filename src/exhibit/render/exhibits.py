"""What the report shows of each platform's last run, and of all of them side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from exhibit import evidence
from exhibit.contract import Platform
from exhibit.criteria import Outcome
from exhibit.evidence import Evidence
from exhibit.render import figures, panels, timelines, watched
from exhibit.render.figures import Picture, Scales
from exhibit.scorecard import Scorecard
from exhibit.workspace import Workspace

COST = "cost/cpu_per_million"
"""The criterion whose evidence observes ``cpu_hours_per_million``; without it the comparison lacks one picture."""
TOLD = "An alert counts when it reaches the webhook. All have the same rules, their times shortened for the demo."


@dataclass(frozen=True)
class Chapter:
    """Pictures that answer one question."""

    title: str
    lead: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Exhibit:
    """One platform's last run on one target, with its pictures."""

    id: str
    platform: Platform
    target: str
    run: Mapping[str, Any]
    outcomes: Mapping[Outcome, int]
    chapters: tuple[Chapter, ...]
    panels: tuple[Picture, ...]
    """Those of the dashboard, with what Prometheus knew at the end of the run."""


def gather(workspace: Workspace, card: Scorecard) -> list[Exhibit]:
    """The last run of every platform on every target, in the scorecard's order."""
    built = [option.platform for option in card.options if option.platform]
    targets = sorted({one.target for cell in card.cells.values() for one in cell.evidence} | {"local"}, reverse=True)
    runs = [
        (platform, target, run)
        for platform in built
        for target in targets
        if (run := evidence.read_run(workspace, platform.slug, target)) is not None
    ]
    scales = Scales.of(run for _, _, run in runs)
    return [_exhibit(card, platform, target, run, scales) for platform, target, run in runs]


def _exhibit(card: Scorecard, platform: Platform, target: str, run: Mapping[str, Any], scales: Scales) -> Exhibit:
    name = f"{platform.slug}-{target}"
    found = [card.outcome(platform.slug, criterion, target) for criterion in card.criteria]
    served = [
        figures.start(f"{name}-start", platform.title, run, scales),
        figures.memory(f"{name}-memory", platform.title, run, scales),
        *(figures.latency(f"{name}-{sent['scenario']}", platform.title, sent, scales) for sent in run["traffic"]),
    ]
    chapters = [
        _chapter("How it served", served),
        _chapter("What was detected", watched.detected(name, platform.title, run), timelines.bands(run)),
        _chapter("Why it answered so", [watched.explanation(f"{name}-explanation", platform.title, run)]),
        _chapter("The model over the year", [watched.weeks(f"{name}-weeks", platform.title, run)]),
    ]
    outcomes = Counter(one.outcome for one in found if one)
    shown = tuple(chapter for chapter in chapters if chapter.pictures)
    return Exhibit(name, platform, target, run, outcomes, shown, tuple(panels.pictures(name, run)))


def _chapter(title: str, pictures: Iterable[Picture | None], lead: str = "") -> Chapter:
    return Chapter(title, lead, tuple(picture for picture in pictures if picture))


def compare(card: Scorecard, exhibits: Sequence[Exhibit]) -> tuple[Chapter, ...]:
    """One measure at a time of all platforms that were run: how they serve, and how soon an alert told."""
    several = len({exhibit.target for exhibit in exhibits}) > 1
    serving: dict[tuple[str, str], dict[str, float]] = {}
    watching: dict[tuple[str, str], dict[str, float]] = {}
    for one in exhibits:
        title = f"{one.platform.title} ({one.target})" if several else one.platform.title
        seconds = one.run["start"]["first_prediction_seconds"]
        serving.setdefault(("Time to the first right prediction", "s"), {})[title] = seconds
        for sent in one.run["traffic"]:
            if sent["latencies_ms"]:
                median = figures.median(sent["latencies_ms"])
                serving.setdefault((f"Median latency, {sent['title']}", "ms"), {})[title] = median
        if (cpu := _cpu_hours(card.outcome(one.platform.slug, COST, one.target))) is not None:
            serving.setdefault(("CPU time for a million predictions", "h"), {})[title] = cpu
        for words, delay in watched.delays(one.run).items():
            watching.setdefault((words, "s"), {})[title] = delay
        if (seconds := (one.run.get("explanation") or {}).get("seconds")) is not None:
            watching.setdefault(("Time to explain a flight", "s"), {})[title] = seconds
    measures = [*serving.items(), *watching.items()]
    drawn = [
        figures.comparison(f"comparison-{index}", title, unit, values)
        for index, ((title, unit), values) in enumerate(measures)
    ]
    chapters = [_chapter("Serving", drawn[: len(serving)]), _chapter("Watching", drawn[len(serving) :], TOLD)]
    return tuple(chapter for chapter in chapters if chapter.pictures)


def _cpu_hours(cost: Evidence | None) -> float | None:
    """CPU hours for a million predictions, where the evidence on cost observed them."""
    value = cost.observed.get("cpu_hours_per_million") if cost else None
    return float(value) if isinstance(value, int | float) else None


def occasions(exhibits: Iterable[Exhibit]) -> list[str]:
    """When and where: one entry a machine, with the time of its last run."""
    latest: dict[str, str] = {}
    for exhibit in exhibits:
        host, finished = exhibit.run["host"], exhibit.run["finished_at"]
        machine = f"{host['system']}, {host['cpus']} CPUs, {host['memory_gib']} GiB of memory, Python {host['python']}"
        latest[machine] = max(latest.get(machine, ""), finished)
    return [f"{moment(finished)} on {machine}" for machine, finished in latest.items()]


def moment(text: str) -> str:
    """An ISO time as people write it."""
    time = datetime.fromisoformat(text)
    return f"{time.day} {time:%B %Y, %H:%M} {time.tzname() or ''}".rstrip()
