"""The panels of a committed Grafana dashboard and what they ask Prometheus, for whoever draws them without Grafana."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from exhibit.errors import ExhibitError


class Query(NamedTuple):
    """One question of a panel."""

    legend: str
    """The name of each line; ``{{label}}`` stands for the value of a label."""
    promql: str

    def name(self, labels: Mapping[str, str]) -> str:
        """The name of the line whose series has `labels`; a label it lacks is empty, as in Grafana."""
        return re.sub(r"{{\s*(\w+)\s*}}", lambda match: labels.get(match[1], ""), self.legend)


@dataclass(frozen=True)
class Panel:
    """One picture of a dashboard."""

    title: str
    unit: str
    """As Grafana names it: ``s``, ``percentunit`` (a share from 0 to 1), ``reqps``, ``short`` or ``none``."""
    queries: tuple[Query, ...]
    kind: str
    """``timeseries``, or ``heatmap``: its one query gives a series a bucket, cumulative, with its bound as label le."""
    description: str
    limit: float | None
    """Beyond it an alert fires."""


def read(path: Path, platform: str, target: str) -> list[Panel]:
    """The panels of the dashboard at `path`, in its order, asking about one deployment.

    Raises:
        ExhibitError: a query has a variable that is neither ``$platform`` nor ``$target``.
        OSError: there is no such file.
    """
    panels = json.loads(path.read_text(encoding="utf-8"))["panels"]
    return [_panel(panel, path, {"platform": platform, "target": target}) for panel in panels if panel["type"] != "row"]


def _panel(panel: Mapping[str, Any], path: Path, values: Mapping[str, str]) -> Panel:
    defaults = panel["fieldConfig"]["defaults"]
    steps = defaults.get("thresholds", {}).get("steps", [])
    return Panel(
        title=panel["title"],
        unit=defaults["unit"],
        queries=tuple(
            Query(target["legendFormat"], _fill(target["expr"], f"{path.name}, panel {panel['title']}", values))
            for target in panel["targets"]
        ),
        kind=panel["type"],
        description=panel["description"],
        limit=steps[-1]["value"] if steps else None,
    )


def _fill(promql: str, subject: str, values: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name not in values:
            raise ExhibitError(subject, f"${name} in `{promql}`", "$platform and $target only", "Write it out.")
        return values[name]

    return re.sub(r"\$(?:(\w+)|{(\w+)[^}]*})", value, promql)
