"""The panels of a dashboard as a reader without Grafana needs them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from exhibit import panels
from exhibit.errors import ExhibitError
from exhibit.panels import Query

DASHBOARD = Path(__file__).parents[2] / "monitoring" / "grafana" / "dashboards" / "deployment.json"


def board(path: Path, *panels_of: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"panels": [{"type": "row", "title": "A row"}, *panels_of]}))
    return path


def panel(**changes: Any) -> dict[str, Any]:
    return {
        "type": "timeseries",
        "title": "Traffic",
        "description": "Answers a second.",
        "fieldConfig": {"defaults": {"unit": "reqps"}},
        "targets": [
            {"legendFormat": "{{code}}xx", "expr": 'rate(x{platform="$platform", target="${target:raw}"}[1m])'}
        ],
    } | changes


def test_a_panel_asks_about_one_deployment(tmp_path: Path) -> None:
    (found,) = panels.read(board(tmp_path / "a.json", panel()), "alpha", "local")
    assert (found.title, found.unit, found.kind, found.limit) == ("Traffic", "reqps", "timeseries", None)
    assert found.description == "Answers a second."
    assert found.queries == (("{{code}}xx", 'rate(x{platform="alpha", target="local"}[1m])'),)


def test_the_limit_is_the_last_threshold(tmp_path: Path) -> None:
    steps = [{"color": "green", "value": None}, {"color": "red", "value": 1.0}]
    limited = panel(fieldConfig={"defaults": {"unit": "none", "thresholds": {"steps": steps}}})
    assert panels.read(board(tmp_path / "a.json", limited), "alpha", "local")[0].limit == 1


@pytest.mark.parametrize("expr", ["rate(x[$__rate_interval])", 'x{a="${other}"}', 'x{platform="$platforms"}'])
def test_a_variable_nobody_fills_is_named(tmp_path: Path, expr: str) -> None:
    path = board(tmp_path / "a.json", panel(targets=[{"legendFormat": "a", "expr": expr}]))
    with pytest.raises(
        ExhibitError, match=r"a.json, panel Traffic: \$\w+ in `.*`, expected \$platform and \$target only"
    ):
        panels.read(path, "alpha", "local")


@pytest.mark.parametrize(
    ("legend", "name"),
    [("p50", "p50"), ("{{code}}xx", "2xx"), ("{{ code }} of {{method}}", "2 of get"), ("{{missing}}", "")],
)
def test_a_line_is_named_by_its_labels(legend: str, name: str) -> None:
    assert Query(legend, "x").name({"code": "2", "method": "get"}) == name


def test_the_committed_dashboard_is_read() -> None:
    found = {panel.title: panel for panel in panels.read(DASHBOARD, "alpha", "local")}
    assert [query.legend for query in found["Latency"].queries] == ["p50", "p95", "p99"]
    assert found["Latency"].unit == "s"
    assert found["Predictions"].kind == "heatmap"
    assert found["Drift"].limit == 1
    assert all('platform="alpha", target="local"' in q.promql for p in found.values() for q in p.queries)
