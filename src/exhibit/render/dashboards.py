"""Grafana dashboards, made with Grafana's own builders and committed as JSON: Grafana reads them from files.

Everything a panel asks for is a recording rule, or a series that gateway, detectors or explainers have from the start:
no panel depends on what a platform calls its own metrics.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from string import ascii_uppercase

from grafana_foundation_sdk.builders import common, dashboard, heatmap, prometheus, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    DataSourceRef,
    GraphThresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    LineInterpolation,
    SortOrder,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    Threshold,
    ThresholdsMode,
    VariableRefresh,
    VariableSort,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

_WIDTH, _HEIGHT = 8, 8
_SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
_WHO = 'platform="$platform", target="$target"'
_CALLERS = f'{_WHO}, source="gateway", envoy_http_conn_manager_prefix="ingress"'
_DETECTORS = f'{_WHO}, source="detectors"'
_EXPLAINERS = f'{_WHO}, source="explainers"'


@dataclass(frozen=True)
class _Picture:
    """A panel: what it shows, as PromQL by legend."""

    title: str
    says: str
    unit: str
    lines: dict[str, str]
    limit: float | None = None
    """Drawn as a line: beyond it an alert fires."""
    steps: bool = False
    """Values that hold until they change, such as states."""
    buckets: bool = False
    """The one line is a histogram's buckets: drawn as a heat map."""


_DEPLOYMENT = {
    "Callers": (
        _Picture(
            "Traffic",
            "Answers a second by class of status; a caller's mistake is 4xx, an error 5xx.",
            "reqps",
            {
                "{{envoy_response_code_class}}xx": "sum by (envoy_response_code_class) (rate("
                f'envoy_http_downstream_rq_xx{{{_CALLERS}, envoy_response_code_class!="1"}}[1m]))'
            },
        ),
        _Picture(
            "Errors",
            "The share of answers that are 5xx.",
            "percentunit",
            {"errors": f"platform:errors:ratio_rate1m{{{_WHO}}}"},
        ),
        _Picture(
            "Latency",
            "From a request's first byte to its answer's last, as the gateway sees it.",
            "s",
            {p: f"platform:latency_seconds:{p}_rate1m{{{_WHO}}}" for p in ("p50", "p95", "p99")},
        ),
        _Picture(
            "In flight",
            "Requests taken in and not yet answered.",
            "short",
            {"in flight": f"platform:in_flight:sum{{{_WHO}}}"},
        ),
        _Picture(
            "Error budget",
            "How many times faster than the objective allows errors are spent; none without traffic.",
            "none",
            {window: f"platform:error_budget_burn:rate{window}{{{_WHO}}}" for window in ("5m", "1h", "6h")},
        ),
        _Picture(
            "Alerts firing",
            "Each alert that fires, and how many do.",
            "short",
            {
                "{{alertname}}": f'max by (alertname) (ALERTS{{{_WHO}, alertstate="firing"}})',
                "all": f'count(ALERTS{{{_WHO}, alertstate="firing"}}) or vector(0)',
            },
            steps=True,
        ),
    ),
    "Inputs": (
        _Picture(
            "Outliers",
            "The share of records unlike any the model was trained on; none without records.",
            "percentunit",
            {"outliers": f"platform:outliers:ratio_rate5m{{{_WHO}}}"},
        ),
        _Picture(
            "Drift",
            "The largest distance of the last judged window over its limit; beyond 1 it is drift.",
            "none",
            {"drift": f"max(detectors_drift_ratio{{{_DETECTORS}}})"},
            limit=1,
            steps=True,
        ),
        _Picture(
            "Drift by feature",
            "Distance from the reference over its limit, last judged window; none before the first.",
            "none",
            {
                "{{feature}}": f"max by (feature) (detectors_drift_distance{{{_DETECTORS}}}"
                f" / (detectors_drift_limit{{{_DETECTORS}}} > 0))"
            },
            limit=1,
            steps=True,
        ),
        _Picture(
            "Missing values",
            "Values a second that are no finite number, by feature.",
            "short",
            {"{{feature}}": f"sum by (feature) (rate(detectors_feature_missing_total{{{_DETECTORS}}}[1m]))"},
        ),
        _Picture(
            "Values out of range",
            "Values a second outside the range of the training data, by feature.",
            "short",
            {"{{feature}}": f"sum by (feature) (rate(detectors_feature_out_of_range_total{{{_DETECTORS}}}[1m]))"},
        ),
        _Picture(
            "Window",
            "Rows in the sample that is being filled and will be judged for drift.",
            "short",
            {"rows": f"sum(detectors_window_rows{{{_DETECTORS}}})"},
        ),
    ),
    "Model": (
        _Picture(
            "Predictions",
            "How many predictions fell into each range of probabilities, within a minute.",
            "short",
            {"{{le}}": f"sum by (le) (increase(detectors_prediction_bucket{{{_DETECTORS}}}[1m]))"},
            buckets=True,
        ),
        _Picture(
            "Mean prediction",
            "The mean predicted probability; none without records.",
            "percentunit",
            {
                "mean": f"sum(rate(detectors_prediction_sum{{{_DETECTORS}}}[1m]))"
                f" / (sum(rate(detectors_prediction_count{{{_DETECTORS}}}[1m])) > 0)"
            },
        ),
        _Picture(
            "Explanations",
            "Explanations a second by how they ended.",
            "short",
            {"{{outcome}}": f"sum by (outcome) (rate(explainers_explanations_total{{{_EXPLAINERS}}}[1m]))"},
        ),
    ),
    "Watching itself": (
        _Picture(
            "Copies",
            "Copies of requests since the gateway or the detectors began: tried, lost on the way, dropped on arrival.",
            "short",
            {
                "tried": f"platform:copies:total{{{_WHO}}}",
                "lost": f"platform:copies_lost:total{{{_WHO}}}",
                "dropped: {{reason}}": f"sum by (reason) (detectors_dropped_total{{{_DETECTORS}}})",
            },
        ),
        _Picture(
            "Records",
            "Records a second that the detectors took in, and those the served model gave no prediction for.",
            "short",
            {
                "records": f"sum(rate(detectors_records_total{{{_DETECTORS}}}[1m]))",
                "without prediction": f"sum(rate(detectors_predictions_missing_total{{{_DETECTORS}}}[1m]))",
            },
        ),
        _Picture(
            "Up",
            "Whether each source's metrics arrive, and whether the gateway reaches the model server: 1 is yes.",
            "short",
            {
                "{{source}}": f"min by (source) (up{{{_WHO}}})",
                "model server": "max(envoy_cluster_membership_healthy"
                f'{{{_WHO}, source="gateway", envoy_cluster_name="stable"}})',
            },
            steps=True,
        ),
    ),
}


def render() -> dict[str, str]:
    """The JSON text of each dashboard by file name, for ``monitoring/grafana/dashboards/``."""
    return {"deployment.json": json.dumps(_deployment(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"}


def _deployment() -> object:
    board = (
        dashboard.Dashboard("Deployment")
        .uid("exhibit-deployment")
        .description("One deployment: what callers get, what comes in, what the model says. Generated by make sync.")
        .tags(["exhibit"])
        .readonly()
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .time("now-1h", "now")
        .refresh("10s")
        .with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
        .with_variable(_variable("platform", "label_values(up, platform)"))
        .with_variable(_variable("target", 'label_values(up{platform="$platform"}, target)'))
    )
    ids = count(1)
    for title, pictures in _DEPLOYMENT.items():
        board.with_row(dashboard.Row(title).id(next(ids)))
        for picture in pictures:
            board.with_panel(_panel(picture, next(ids)))
    return board.build()


def _variable(name: str, query: str) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(name)
        .query(query)
        .datasource(_SOURCE)
        # Deployments come and go.
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
    )


def _panel(picture: _Picture, number: int) -> timeseries.Panel | heatmap.Panel:
    panel = heatmap.Panel() if picture.buckets else _lines(picture)
    panel.id(number).title(picture.title).description(picture.says).unit(picture.unit)
    panel.datasource(_SOURCE).height(_HEIGHT).span(_WIDTH)
    for query in _queries(picture):
        panel.with_target(query)
    return panel


def _lines(picture: _Picture) -> timeseries.Panel:
    panel = timeseries.Panel().min(0)
    panel.legend(
        # Not shown unless said so.
        common.VizLegendOptions()
        .show_legend(True)
        .display_mode(LegendDisplayMode.LIST)
        .placement(LegendPlacement.BOTTOM)
    )
    panel.tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
    if picture.steps:
        panel.line_interpolation(LineInterpolation.STEP_AFTER)
    if picture.limit is not None:
        steps = [Threshold(color="green", value=None), Threshold(color="red", value=picture.limit)]
        panel.thresholds(dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.LINE))
    return panel


def _queries(picture: _Picture) -> Iterator[prometheus.Dataquery]:
    for letter, (legend, promql) in zip(ascii_uppercase, picture.lines.items(), strict=False):
        query = prometheus.Dataquery().ref_id(letter).datasource(_SOURCE).expr(promql).legend_format(legend).range()
        yield query.format(PromQueryFormat.HEATMAP) if picture.buckets else query
