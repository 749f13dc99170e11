"""Dashboards are what the code makes, hold together and ask for what is exported; a real Prometheus answers them."""

from __future__ import annotations

import copy
import http.server
import json
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from itertools import combinations, count
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from exhibit import panels, processes, prometheus
from exhibit.prometheus import Prometheus, PrometheusMissing
from exhibit.render import dashboards

ROOT = Path(__file__).parents[2]
GRAFANA = ROOT / "monitoring" / "grafana"
RULES = ROOT / "monitoring" / "prometheus"
HOST = "127.0.0.1"
FILES = sorted((GRAFANA / "dashboards").glob("*.json"))

FEATURES = (
    *("carrier", "origin", "weekday", "hour", "distance", "temp", "dewp"),
    *("humid", "wind_speed", "precip", "pressure", "visib"),
)
INGRESS = 'envoy_http_conn_manager_prefix="ingress"'


def pages(tick: int) -> dict[str, list[str]]:
    """What a scrape of each source gives at the `tick`-th time: the series the parts of this repository promise."""
    counts = {
        "copies_total": [""],
        "records_total": [""],
        "outliers_total": [""],
        "predictions_missing_total": [""],
        "windows_total": [""],
        "dropped_total": [f'reason="{reason}"' for reason in ("queue_full", "unreadable", "too_large")],
        "feature_missing_total": [f'feature="{feature}"' for feature in FEATURES],
        "feature_out_of_range_total": [f'feature="{feature}"' for feature in FEATURES],
        "prediction_bucket": [f'le="{bound}"' for bound in ("0.25", "0.5", "+Inf")],
        "prediction_sum": [""],
        "prediction_count": [""],
        "feature_value_sum": [f'feature="{feature}"' for feature in FEATURES],
        "feature_value_count": [f'feature="{feature}"' for feature in FEATURES],
    }
    gauges = {
        f"drift_{name}": [f'feature="{feature}"' for feature in (*FEATURES, "prediction")]
        for name in ("distance", "p_value", "limit")
    } | {
        name: [""]
        for name in ("drift_ratio", "window_rows", "window_age_seconds", "judged_timestamp_seconds", "state_restored")
    }
    return {
        "gateway": [
            *(
                f'envoy_http_downstream_rq_xx{{{INGRESS},envoy_response_code_class="{n}"}} {tick * 10 * (n == 2)}'
                for n in (1, 2, 3, 4, 5)
            ),
            *(f'envoy_http_downstream_rq_time_bucket{{{INGRESS},le="{le}"}} {tick * 10}' for le in ("1.5", "+Inf")),
            f"envoy_http_downstream_rq_active{{{INGRESS}}} 2",
            *(f'envoy_cluster_membership_healthy{{envoy_cluster_name="{name}"}} 1' for name in ("stable", "mirror")),
            *(
                f'envoy_cluster_upstream_{name}{{envoy_cluster_name="{cluster}"}} {tick * 10}'
                for cluster in ("stable", "mirror")
                for name in (
                    *("rq_total", "rq_completed", "rq_cancelled", "rq_timeout", "rq_pending_total", "rq_rx_reset"),
                    *("rq_pending_overflow", "rq_pending_failure_eject", "rq_active_overflow", "rq_tx_reset"),
                    *("cx_connect_fail", "cx_connect_timeout", "rq_per_try_timeout"),
                )
            ),
            *(
                f'envoy_cluster_upstream_rq_xx{{envoy_cluster_name="{name}",envoy_response_code_class="2"}} {tick * 10}'
                for name in ("stable", "mirror")
            ),
        ],
        "detectors": [
            *(f"detectors_{name}{{{labels}}} {tick}" for name, all_labels in counts.items() for labels in all_labels),
            *(f"detectors_{name}{{{labels}}} 0.5" for name, all_labels in gauges.items() for labels in all_labels),
        ],
        "explainers": [
            *(
                f'explainers_explanations_total{{method="{method}",outcome="ok"}} {tick}'
                for method in ("kernel_shap", "anchors")
            ),
            f"explainers_rows_asked_total {tick}",
            "explainers_queue 0",
        ],
    }


def exported() -> set[str]:
    """Every name a panel may ask for: of the pages, of our recording rules, of Prometheus itself."""
    recorded = {
        rule["record"]
        for path in (RULES / "rules").glob("*.yaml")
        for group in YAML(typ="safe").load(path)["groups"]
        for rule in group["rules"]
        if "record" in rule
    }
    return {re.split(r"[{ ]", line)[0] for page in pages(0).values() for line in page} | recorded | {"up", "ALERTS"}


def breaches(board: dict[str, Any], known: set[str]) -> list[str]:
    """What is wrong with a dashboard, in words; empty if nothing is."""
    found = []
    ids = [panel["id"] for panel in board["panels"]]
    found += [f"id {number} twice" for number in {number for number in ids if ids.count(number) > 1}]
    for panel in board["panels"]:
        place = panel["gridPos"]
        if min(place.values()) < 0 or place["w"] < 1 or place["h"] < 1 or place["x"] + place["w"] > 24:
            found.append(f"{panel['title']} off the grid")
    for one, other in combinations(board["panels"], 2):
        a, b = one["gridPos"], other["gridPos"]
        apart = (
            a["x"] + a["w"] <= b["x"]
            or b["x"] + b["w"] <= a["x"]
            or a["y"] + a["h"] <= b["y"]
            or b["y"] + b["h"] <= a["y"]
        )
        if not apart:
            found.append(f"{one['title']} over {other['title']}")
    if [variable["name"] for variable in board["templating"]["list"]] != ["datasource", "platform", "target"]:
        found.append("other variables")
    for panel in [panel for panel in board["panels"] if panel["type"] != "row"]:
        references = [target["refId"] for target in panel["targets"]]
        if len(set(references)) != len(references) or not references:
            found.append(f"{panel['title']}: targets {references}")
        for holder in (panel, *panel["targets"]):
            if holder["datasource"] != {"type": "prometheus", "uid": "${datasource}"}:
                found.append(f"{panel['title']}: another data source")
        for target in panel["targets"]:
            selectors = re.findall(r"([a-zA-Z_:][\w:]*){([^}]*)}", target["expr"])
            found += [f"{panel['title']}: asks for {name}" for name, _ in selectors if name not in known]
            for name, matchers in selectors:
                if not matchers.startswith('platform="$platform", target="$target"'):
                    found.append(f"{panel['title']}: {name} of any deployment")
            if not selectors or not target["legendFormat"]:
                found.append(f"{panel['title']}: no selector or no legend")
    return found


@pytest.fixture
def board() -> dict[str, Any]:
    return json.loads((GRAFANA / "dashboards" / "deployment.json").read_text())


def test_the_committed_dashboards_are_those_of_the_code() -> None:
    assert {path.name: path.read_text() for path in FILES} == dashboards.render(), "run make sync"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_dashboard_holds_together(path: Path) -> None:
    assert breaches(json.loads(path.read_text()), exported()) == []


def test_a_dashboard_has_each_picture_the_overview_promises(board: dict[str, Any]) -> None:
    titles = {panel["title"] for panel in board["panels"]}
    assert titles >= {
        *("Traffic", "Errors", "Latency", "In flight", "Error budget", "Alerts firing"),
        *("Outliers", "Drift", "Drift by feature", "Copies", "Predictions", "Mean prediction", "Missing values"),
    }
    assert len(titles) == len(board["panels"])


def set_at(board: dict[str, Any], title: str, change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    changed = copy.deepcopy(board)
    change(next(panel for panel in changed["panels"] if panel["title"] == title))
    return changed


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda panel: panel.update(id=1), "id 1 twice"),
        (lambda panel: panel["gridPos"].update(x=20), "Drift off the grid"),
        (lambda panel: panel["gridPos"].update(x=7), "Outliers over Drift"),
        (lambda panel: panel["targets"].append(panel["targets"][0]), "Drift: targets ['A', 'A']"),
        (lambda panel: panel["targets"].clear(), "Drift: targets []"),
        (lambda panel: panel["targets"][0].update(datasource={"uid": "mine"}), "Drift: another data source"),
        (lambda panel: panel.update(datasource={"type": "prometheus", "uid": "mine"}), "Drift: another data source"),
        (
            lambda panel: panel["targets"][0].update(expr='drift_of_old{platform="$platform", target="$target"}'),
            "Drift: asks for drift_of_old",
        ),
        (lambda panel: panel["targets"][0].update(expr='up{source="native"}'), "Drift: up of any deployment"),
        (lambda panel: panel["targets"][0].update(expr="up"), "Drift: no selector or no legend"),
        (lambda panel: panel["targets"][0].update(legendFormat=""), "Drift: no selector or no legend"),
    ],
)
def test_a_broken_dashboard_is_noticed(
    board: dict[str, Any], change: Callable[[dict[str, Any]], object], said: str
) -> None:
    assert said in breaches(set_at(board, "Drift", change), exported())


def test_variables_that_are_missing_are_noticed(board: dict[str, Any]) -> None:
    del board["templating"]["list"][2]
    assert "other variables" in breaches(board, exported())


@pytest.fixture(scope="session")
def programs() -> Path:
    try:
        return prometheus.find_or_unpack(ROOT / ".work" / "prometheus-binaries")
    except PrometheusMissing as missing:
        pytest.skip(str(missing))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_promtool_reads_every_query(programs: Path, path: Path, tmp_path: Path) -> None:
    queries = [query.promql for panel in panels.read(path, "alpha", "local") for query in panel.queries]
    rules = [{"record": f"panel:query:{number}", "expr": promql} for number, promql in enumerate(queries)]
    file = tmp_path / "rules.yaml"
    YAML().dump({"groups": [{"name": "panels", "rules": rules}]}, file)
    done = subprocess.run([programs / "promtool", "check", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(queries)} rules found" in done.stdout


@pytest.fixture
def server(programs: Path, tmp_path: Path) -> Iterator[Prometheus]:
    """A Prometheus with our rules that scrapes the `pages`, in which every counter grows at each scrape."""
    ticks = {source: count(1) for source in pages(0)}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            source = self.path.removeprefix("/")
            body = "".join(f"{line}\n" for line in pages(next(ticks[source]))[source]).encode()
            self.send_response(200)
            self.send_header("content-type", "text/plain; version=0.0.4")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    (tmp_path / "prometheus.yaml").write_text(
        prometheus.render(
            RULES / "prometheus.yaml.j2", targets_folder=tmp_path / "targets", rules_folder=RULES / "rules"
        )
    )
    with http.server.ThreadingHTTPServer((HOST, 0), Handler) as listener:
        thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        address = f"{HOST}:{listener.server_address[1]}"
        prometheus.write_target(
            tmp_path / "targets", "alpha", "local", {source: (address, f"/{source}") for source in ticks}
        )
        port = processes.free_ports(1)[0]
        argv = prometheus.command(
            programs, config=tmp_path / "prometheus.yaml", data=tmp_path / "data", host=HOST, port=port
        )
        running = processes.start("prometheus", argv, environment={}, cwd=tmp_path, folder=tmp_path, grace_seconds=10)
        try:
            client = Prometheus(f"http://{HOST}:{port}")
            deadline = time.monotonic() + 30
            while not client.ready() and time.monotonic() < deadline:
                time.sleep(0.05)
            yield client
        finally:
            processes.stop(running)
            listener.shutdown()
            thread.join()


def test_every_panel_gets_data_from_a_real_prometheus(server: Prometheus) -> None:
    assert server.first('platform:error_budget_burn:rate1h{platform="alpha"}', 60)
    for path in FILES:
        for panel in panels.read(path, "alpha", "local"):
            for query in panel.queries:
                # No alert fires: only their number is there, none.
                fires = query.legend == "{{alertname}}"
                samples = server.query(query.promql) if fires else server.first(query.promql, 15)
                assert bool(samples) != fires, f"{panel.title}: {query.promql}"
                # A line without its name could not be told from the others.
                assert all(query.name(sample.labels) for sample in samples)
        for panel in panels.read(path, "beta", "local"):
            found = [sample.value for query in panel.queries for sample in server.query(query.promql)]
            assert found in ([], [0.0]), f"{panel.title} shows another deployment"


def test_grafana_is_told_of_the_folder_and_of_prometheus() -> None:
    (source,) = YAML(typ="safe").load(GRAFANA / "provisioning" / "datasources" / "prometheus.yaml")["datasources"]
    assert (source["type"], source["access"], source["url"]) == ("prometheus", "proxy", "$PROMETHEUS_URL")
    (provider,) = YAML(typ="safe").load(GRAFANA / "provisioning" / "dashboards" / "exhibit.yaml")["providers"]
    assert (provider["type"], provider["options"]) == ("file", {"path": "/var/lib/grafana/dashboards"})
