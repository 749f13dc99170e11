"""Alertmanager as a real process: what Prometheus fires and resolves arrives at the sink."""

from __future__ import annotations

import http.server
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from ruamel.yaml import YAML

from exhibit import alertmanager, processes, prometheus, readiness, sink
from exhibit.alertmanager import AlertmanagerMissing, command, find_or_unpack, render
from exhibit.prometheus import Prometheus, PrometheusMissing
from exhibit.sink import Delivery

ROOT = Path(__file__).parents[2]
TEMPLATE = ROOT / "monitoring" / "alertmanager" / "alertmanager.yaml.j2"
RULES = ROOT / "monitoring" / "prometheus"
HOST = "127.0.0.1"
BEGAN = datetime.now(UTC)


def eventually(holds: Callable[[], object], seconds: float = 30) -> bool:
    deadline = time.monotonic() + seconds
    while not (done := bool(holds())) and time.monotonic() < deadline:
        time.sleep(0.05)
    return done


@pytest.fixture(scope="session")
def binaries() -> Path:
    try:
        return find_or_unpack(ROOT / ".work" / "alertmanager-binaries")
    except AlertmanagerMissing as missing:
        pytest.skip(str(missing))


@dataclass(frozen=True)
class Chain:
    """A running Alertmanager and its sink."""

    url: str
    file: Path

    @property
    def deliveries(self) -> list[Delivery]:
        return sink.read(self.file)

    def send(self, ends_at: datetime, **labels: str) -> None:
        """As Prometheus sends it."""
        times = {"startsAt": BEGAN.isoformat(), "endsAt": ends_at.isoformat()}
        alert = {"labels": labels, "annotations": {"summary": "zu heiß"}, **times}
        httpx.post(f"{self.url}/api/v2/alerts", json=[alert], trust_env=False).raise_for_status()


@contextmanager
def sink_at(port: int, folder: Path) -> Iterator[Path]:
    argv = [sys.executable, "-m", "exhibit.sink", "--port", str(port), "--file", str(folder / "deliveries.jsonl")]
    running = processes.start(
        "sink", argv, environment={"PYTHONPATH": str(ROOT / "src")}, cwd=folder, folder=folder, grace_seconds=10
    )
    try:
        assert eventually(lambda: processes.listens(running, port)), (folder / "sink.log").read_text()
        yield folder / "deliveries.jsonl"
    finally:
        stopped = processes.stop(running)
    assert (stopped.exit_code, stopped.killed) == (0, False)


@contextmanager
def alertmanager_at(port: int, binaries: Path, folder: Path, webhook_url: str) -> Iterator[str]:
    config = folder / "alertmanager.yaml"
    config.write_text(render(TEMPLATE, webhook_url=webhook_url, time_scale=600))
    argv = command(binaries, config=config, data=folder / "data", host=HOST, port=port)
    running = processes.start("alertmanager", argv, environment={}, cwd=folder, folder=folder, grace_seconds=10)
    try:
        url = f"http://{HOST}:{port}"
        assert eventually(lambda: readiness.answers(f"{url}/-/ready")), (folder / "alertmanager.log").read_text()
        yield url
    finally:
        processes.stop(running)


@pytest.fixture
def chain(binaries: Path, tmp_path: Path) -> Iterator[Chain]:
    port, sink_port = processes.free_ports(2)
    with (
        sink_at(sink_port, tmp_path) as file,
        alertmanager_at(port, binaries, tmp_path, f"http://{HOST}:{sink_port}/") as url,
    ):
        yield Chain(url, file)


def test_an_alert_that_fires_and_resolves_is_delivered_twice(chain: Chain) -> None:
    later = datetime.now(UTC) + timedelta(minutes=5)
    chain.send(later, alertname="TooHot", platform="alpha", target="local", severity="page")
    assert eventually(lambda: chain.deliveries)
    (firing,) = chain.deliveries
    assert (firing.status, firing.alertname, firing.platform, firing.target) == ("firing", "TooHot", "alpha", "local")
    assert firing.labels["severity"] == "page"
    assert firing.annotations == {"summary": "zu heiß"}
    assert firing.ended_at is None
    assert firing.started_at == pytest.approx(BEGAN.timestamp(), abs=0.002)

    chain.send(datetime.now(UTC), alertname="TooHot", platform="alpha", target="local", severity="page")
    assert eventually(lambda: chain.deliveries[-1].status == "resolved")
    resolved = chain.deliveries[-1]
    assert (resolved.alertname, resolved.platform, resolved.started_at) == ("TooHot", "alpha", firing.started_at)
    assert resolved.ended_at is not None
    assert firing.started_at <= resolved.ended_at <= resolved.received_at


def test_a_message_is_of_one_deployment_and_one_alert(chain: Chain) -> None:
    later = datetime.now(UTC) + timedelta(minutes=5)
    for alertname, platform in (("TooHot", "alpha"), ("TooHot", "beta"), ("TooCold", "alpha")):
        chain.send(later, alertname=alertname, platform=platform, target="local")
    assert eventually(lambda: len(chain.deliveries) == 3)
    # The alerts of one message were received at one time.
    assert len({delivery.received_at for delivery in chain.deliveries}) == 3


def test_what_the_sink_missed_is_sent_again(binaries: Path, tmp_path: Path) -> None:
    port, sink_port = processes.free_ports(2)
    with alertmanager_at(port, binaries, tmp_path, f"http://{HOST}:{sink_port}/") as url:
        failed = 'alertmanager_notification_requests_failed_total{integration="webhook"} 0'
        Chain(url, tmp_path).send(datetime.now(UTC) + timedelta(minutes=5), alertname="TooHot", platform="alpha")
        # Nobody listens yet.
        assert eventually(lambda: failed not in httpx.get(f"{url}/metrics", trust_env=False).text)
        with sink_at(sink_port, tmp_path) as file:
            assert eventually(lambda: sink.read(file))


@pytest.fixture
def metrics_page() -> Iterator[tuple[str, threading.Event]]:
    """The address (host:port) of a page of metrics, and whether it is to be found."""
    there = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            labels = b'envoy_http_conn_manager_prefix="ingress",envoy_response_code_class="2"'
            body = b"envoy_http_downstream_rq_xx{" + labels + b"} 7\n"
            self.send_response(200 if there.is_set() else 503)
            self.send_header("content-type", "text/plain; version=0.0.4")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer((HOST, 0), Handler) as listener:
        thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"{HOST}:{listener.server_address[1]}", there
        listener.shutdown()
        thread.join()


def test_prometheus_fires_and_resolves_through_to_the_sink(
    chain: Chain, metrics_page: tuple[str, threading.Event], tmp_path: Path
) -> None:
    """Our rules, scaled, in the real Prometheus: a gateway whose metrics fail, and come back."""
    try:
        programs = prometheus.find_or_unpack(ROOT / ".work" / "prometheus-binaries")
    except PrometheusMissing as missing:
        pytest.skip(str(missing))
    address, there = metrics_page
    rules, targets = tmp_path / "rules", tmp_path / "targets"
    rules.mkdir()
    (rules / "alerts.yaml").write_text(prometheus.render_alerts(RULES / "alerts.yaml.j2", 60))
    (tmp_path / "prometheus.yaml").write_text(
        prometheus.render(
            RULES / "prometheus.yaml.j2",
            targets_folder=targets,
            rules_folder=rules,
            alertmanager=chain.url.removeprefix("http://"),
        )
    )
    prometheus.write_target(targets, "alpha", "local", {"gateway": (address, "/stats/prometheus")})
    port = processes.free_ports(1)[0]
    argv = prometheus.command(
        programs, config=tmp_path / "prometheus.yaml", data=tmp_path / "tsdb", host=HOST, port=port
    )
    running = processes.start("prometheus", argv, environment={}, cwd=tmp_path, folder=tmp_path, grace_seconds=10)
    try:
        assert eventually(lambda: chain.deliveries, 60), (tmp_path / "prometheus.log").read_text()
        firing = chain.deliveries[0]
        assert (firing.status, firing.alertname, firing.platform) == ("firing", "MetricsMissing", "alpha")
        assert firing.labels["source"] == "gateway"
        assert firing.annotations["summary"].startswith("alpha (local): no metrics of source gateway for 5s")
        assert firing.annotations["runbook_url"].endswith("/metrics-missing.md")
        there.set()
        assert eventually(lambda: chain.deliveries[-1].status == "resolved", 60)
        assert Prometheus(f"http://{HOST}:{port}").query("ALERTS") == []
    finally:
        processes.stop(running)


@pytest.mark.parametrize("time_scale", [1, 60])
def test_amtool_accepts_the_configuration(binaries: Path, tmp_path: Path, time_scale: float) -> None:
    config = tmp_path / "alertmanager.yaml"
    config.write_text(render(TEMPLATE, webhook_url=f"http://{HOST}:1/hook?a=b#c", time_scale=time_scale))
    done = subprocess.run([binaries / "amtool", "check-config", config], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    route = YAML(typ="safe").load(config)["route"]
    assert route["group_by"] == ["platform", "target", "alertname"]
    times = [route[name] for name in ("group_wait", "group_interval", "repeat_interval")]
    assert times == (["30s", "5m", "4h"] if time_scale == 1 else ["1s", "5s", "4m"])


def test_without_alertmanager_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(AlertmanagerMissing) as caught:
        find_or_unpack(tmp_path / "cache")
    assert str(caught.value) == (
        "prometheus-alertmanager: not on PATH, and its Debian package could not be unpacked "
        "(apt-get: No such file or directory), expected alertmanager and amtool. "
        "Install the Debian package prometheus-alertmanager, or put the folder of both programs on PATH."
    )


def test_the_unpacked_program_reads_its_templates_from_its_own_folder(tmp_path: Path) -> None:
    program = tmp_path / "usr" / "bin" / "prometheus-alertmanager"
    program.parent.mkdir(parents=True)
    program.write_bytes(b"\0a/usr/share/prometheus/alertmanager3b/usr/share/prometheus/alertmanager/ui/\0")
    program.chmod(0o755)
    size = program.stat().st_size
    alertmanager._relocate(tmp_path)
    assert program.read_bytes() == b"\0ausr/share/prometheus/alertmanager/3busr/share/prometheus/alertmanager//ui/\0"
    assert (program.stat().st_size, program.stat().st_mode & 0o777) == (size, 0o755)
