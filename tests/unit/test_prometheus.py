"""Finding, configuring and asking the real Prometheus."""

from __future__ import annotations

import http.server
import json
import math
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from exhibit import processes
from exhibit.prometheus import (
    Prometheus,
    PrometheusError,
    PrometheusMissing,
    command,
    find_or_unpack,
    remove_target,
    render,
    render_alerts,
    scaled,
    write_target,
)

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "monitoring" / "prometheus"
HOST = "127.0.0.1"


def eventually(holds: Callable[[], bool], seconds: float = 30) -> bool:
    deadline = time.monotonic() + seconds
    while not (done := holds()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return done


@pytest.fixture(scope="session")
def binaries() -> Path:
    try:
        return find_or_unpack(ROOT / ".work" / "prometheus-binaries")
    except PrometheusMissing as missing:
        pytest.skip(str(missing))


@pytest.fixture
def server(binaries: Path, tmp_path: Path) -> Iterator[Prometheus]:
    (tmp_path / "targets").mkdir()
    config = tmp_path / "prometheus.yaml"
    config.write_text(
        render(SOURCE / "prometheus.yaml.j2", targets_folder=tmp_path / "targets", rules_folder=SOURCE / "rules")
    )
    port = processes.free_ports(1)[0]
    argv = command(binaries, config=config, data=tmp_path / "data", host=HOST, port=port)
    running = processes.start("prometheus", argv, environment={}, cwd=tmp_path, folder=tmp_path, grace_seconds=10)
    try:
        client = Prometheus(f"http://{HOST}:{port}")
        assert eventually(client.ready), (tmp_path / "prometheus.log").read_text()
        yield client
    finally:
        processes.stop(running)


@pytest.fixture
def metrics_page() -> Iterator[str]:
    """The address (host:port) of a page with one counter at /own/metrics."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b'predictions_total{path="/predict"} 7\n' if self.path == "/own/metrics" else b""
            self.send_response(200 if body else 404)
            self.send_header("content-type", "text/plain; version=0.0.4")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer((HOST, 0), Handler) as listener:
        thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"{HOST}:{listener.server_address[1]}"
        listener.shutdown()
        thread.join()


def test_unpacked_binaries_run_and_are_used_again(binaries: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("prometheus", "promtool"):
        assert subprocess.run([binaries / name, "--version"], capture_output=True, check=False).returncode == 0
    if binaries.is_relative_to(ROOT):
        # Without any program to fetch or unpack with.
        monkeypatch.setenv("PATH", "")
        assert find_or_unpack(ROOT / ".work" / "prometheus-binaries") == binaries


def test_without_prometheus_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(PrometheusMissing) as caught:
        find_or_unpack(tmp_path / "cache")
    assert str(caught.value) == (
        "prometheus: not on PATH, and its Debian package could not be unpacked (apt-get: No such file or directory), "
        "expected prometheus and promtool. "
        "Install the Debian package prometheus, or put the folder of both programs on PATH."
    )


@pytest.mark.parametrize("alertmanager", [None, f"{HOST}:9093"])
def test_promtool_accepts_the_configuration(binaries: Path, tmp_path: Path, alertmanager: str | None) -> None:
    config = tmp_path / "prometheus.yaml"
    (tmp_path / "targets").mkdir()
    write_target(tmp_path / "targets", "alpha", "local", {"gateway": (f"{HOST}:1", "/stats/prometheus")})
    config.write_text(
        render(
            SOURCE / "prometheus.yaml.j2",
            targets_folder=tmp_path / "targets",
            rules_folder=SOURCE / "rules",
            scrape_interval="5s",
            alertmanager=alertmanager,
        )
    )
    argv = [binaries / "promtool", "check", "config", config]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "signals.yaml" in done.stdout
    assert "alerts.yaml" in done.stdout
    assert ("alerting:" in config.read_text()) == bool(alertmanager)


def test_what_is_scraped_is_found_in_one_way(tmp_path: Path) -> None:
    template = SOURCE / "prometheus.yaml.j2"
    for both in ({}, {"targets_folder": tmp_path, "target": "there"}):
        with pytest.raises(ValueError, match="expected one of them"):
            render(template, rules_folder=SOURCE / "rules", **both)
    files = render(template, rules_folder=SOURCE / "rules", targets_folder=tmp_path)
    pods = render(template, rules_folder=SOURCE / "rules", target="there")
    assert ("file_sd_configs" in files, "kubernetes_sd_configs" in files) == (True, False)
    assert ("file_sd_configs" in pods, "kubernetes_sd_configs" in pods) == (False, True)


@pytest.mark.parametrize(
    ("duration", "time_scale", "expected"),
    [
        ("1h", 1, "1h"),
        ("90m", 1, "90m"),
        ("1h", 60, "1m"),
        ("6h", 60, "6m"),
        ("30m", 60, "30s"),
        ("5m", 60, "5s"),
        ("1m", 60, "5s"),
        ("1d", 24, "1h"),
        ("1h", 7, "515s"),
        ("3s", 60, "3s"),
        ("1d", 1e9, "5s"),
    ],
)
def test_times_are_scaled(duration: str, time_scale: float, expected: str) -> None:
    assert scaled(duration, time_scale) == expected


def test_times_that_cannot_be_scaled_are_refused() -> None:
    for duration in ("1h30m", "5", "m", "-5m", ""):
        with pytest.raises(ValueError, match=f"duration: '{duration}', expected a number and one of s, m, h, d"):
            scaled(duration, 1)
    for time_scale in (0, 0.5, -1, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"time_scale: {time_scale}, expected a number of at least 1"):
            scaled("5m", time_scale)
    with pytest.raises(ValueError, match="time_scale"):
        render_alerts(SOURCE / "alerts.yaml.j2", 0)


def test_a_target_is_one_file_with_its_labels(tmp_path: Path) -> None:
    write_target(tmp_path, "alpha", "local", {"gateway": ("h:1", "/stats/prometheus"), "native": ("h:2", "/metrics")})
    assert os.listdir(tmp_path) == ["alpha.json"]
    gateway, native = json.loads((tmp_path / "alpha.json").read_text())
    assert gateway == {
        "targets": ["h:1"],
        "labels": {
            "platform": "alpha",
            "target": "local",
            "source": "gateway",
            "__metrics_path__": "/stats/prometheus",
        },
    }
    assert (native["targets"], native["labels"]["source"]) == (["h:2"], "native")
    remove_target(tmp_path, "alpha")
    remove_target(tmp_path, "alpha")
    assert os.listdir(tmp_path) == []


def test_a_deployment_is_scraped_until_it_is_removed(server: Prometheus, metrics_page: str, tmp_path: Path) -> None:
    write_target(tmp_path / "targets", "alpha", "local", {"native": (metrics_page, "/own/metrics")})
    selector = 'predictions_total{platform="alpha",target="local",source="native",path="/predict"}'
    assert eventually(lambda: len(server.query(selector)) == 1)
    assert server.scalar(selector) == 7
    assert server.query(selector)[0].labels["instance"] == metrics_page
    remove_target(tmp_path / "targets", "alpha")
    assert eventually(lambda: server.query(selector) == [])


def test_answers_and_errors_are_told_apart(server: Prometheus) -> None:
    assert server.scalar("vector(3)") == server.scalar("3") == 3
    assert server.query("nothing_of_this_name") == []
    for promql, found in {
        "sum(": "parse error.*for `sum\\(`, expected a valid query",
        "nothing_of_this_name": "0 series for `nothing_of_this_name`, expected one",
        'vector(1) or label_replace(vector(2), "a", "b", "", "")': "2 series",
        "vector(0) / 0": "NaN for `vector\\(0\\) / 0`, expected a number",
        "vector(1)[5m:1m]": "a matrix",
    }.items():
        with pytest.raises(PrometheusError, match=found):
            server.scalar(promql)


def test_a_server_that_is_not_there_is_not_ready_and_named() -> None:
    client = Prometheus(f"http://{HOST}:{processes.free_ports(1)[0]}")
    assert not client.ready()
    with pytest.raises(PrometheusError, match=r"no answer .* for `up`, expected a running server"):
        client.query("up")
