"""The monitoring of a checkout, started with the first deployment and stopped with the last: Prometheus, which is told
of each deployment, Alertmanager, and the webhook that takes what it delivers.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from exhibit import alertmanager, interrupts, processes, readiness, sink
from exhibit import prometheus as prometheus_server
from exhibit.alertmanager import AlertmanagerMissing
from exhibit.errors import ServerError
from exhibit.prometheus import Prometheus, PrometheusMissing, remove_target, write_target
from exhibit.sink import Delivery
from exhibit.workspace import Workspace, write_atomically, write_json

HOST = "127.0.0.1"
READY_SECONDS = 30
TIME_SCALE = 300
"""An alert's hour is 12 s here, and no window is shorter than 5 s: a demo is watched, production is slept beside."""
SCRAPE_INTERVAL = "500ms"
"""A check reads a counter before and after what it does, each time as of a scrape that began then."""
DELIVERIES = "deliveries.jsonl"


@dataclass(frozen=True)
class _Part:
    """One process of the monitoring, in a folder of its own."""

    name: str
    folder: Path

    @property
    def url(self) -> str | None:
        """Where it answers; None if it does not run."""
        running = next(iter(processes.noted(self.folder)), None)
        address = self.folder / "address.json"
        if running is None or running.process() is None or not address.exists():
            return None
        return str(json.loads(address.read_text())["url"])

    def start(self, argv: Callable[[int], Sequence[str]], ready: Callable[[str], bool]) -> str:
        """Starts ``argv(port)`` and waits until ``ready(url)``; the URL.

        Raises:
            ServerError: it ended, or did not get ready.
        """
        port = processes.free_ports(1, HOST)[0]
        url = f"http://{HOST}:{port}"
        running = processes.start(
            self.name,
            argv(port),
            environment={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(Path(__file__).parents[1])},
            cwd=self.folder,
            folder=self.folder,
            grace_seconds=10,
        )
        write_json(self.folder / "address.json", {"url": url})
        if not readiness.wait(running, lambda: ready(url), READY_SECONDS):
            log = self.folder / f"{self.name}.log"
            raise ServerError(
                self.name, "did not get ready", "it to answer", f"Look into {log}.", processes.last_lines(log)
            )
        return url

    def stop(self) -> None:
        for running in processes.noted(self.folder):
            processes.stop(running)


class Monitoring:
    """Prometheus, Alertmanager and the webhook as processes, in ``.work/prometheus/`` and so on."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        names = ("prometheus", "alertmanager", "webhook")
        self._prometheus, self._alertmanager, self._webhook = (_Part(name, workspace.state / name) for name in names)
        self._missing: dict[str, str] = {}

    @property
    def missing(self) -> str | None:
        """What cannot be had on this machine, with the remedies."""
        return "\n".join(self._missing.values()) or None

    @property
    def url(self) -> str | None:
        """Where Prometheus answers; None if it does not run."""
        return self._prometheus.url

    @property
    def prometheus(self) -> Prometheus | None:
        """A client for it; None if it does not run."""
        return Prometheus(self.url) if self.url else None

    def deliveries(self) -> list[Delivery] | None:
        """What Alertmanager has delivered so far, oldest first; None if it does not run."""
        return sink.read(self._webhook.folder / DELIVERIES) if self._alertmanager.url and self._webhook.url else None

    def binaries(self) -> tuple[Path | None, Path | None]:
        """The folders of Prometheus' and Alertmanager's programs, unpacked first if need be; None: see `missing`."""
        state = self.workspace.state
        return (
            self._found(lambda: prometheus_server.find_or_unpack(state / "prometheus-binaries"), "prometheus"),
            self._found(lambda: alertmanager.find_or_unpack(state / "alertmanager-binaries"), "alertmanager"),
        )

    def _found(self, find: Callable[[], Path], name: str) -> Path | None:
        try:
            return find()
        except (PrometheusMissing, AlertmanagerMissing) as missing:
            self._missing[name] = str(missing)
            return None

    def start(self) -> None:
        """Starts what does not run; where a part cannot be had, `missing` says why and nothing is raised.

        Raises:
            ServerError: a part is there, but does not get ready.
        """
        if self.url and self._alertmanager.url and self._webhook.url:
            return
        for_prometheus, for_alertmanager = self.binaries()
        if for_prometheus is None or (self.url and for_alertmanager is None):
            return
        self.stop()
        try:
            self._start_prometheus(for_prometheus, self._start_alertmanager(for_alertmanager))
        except BaseException:
            self.stop()
            raise

    def _start_alertmanager(self, binaries: Path | None) -> str | None:
        """host:port of a started Alertmanager that delivers to a started webhook; None where there is none."""
        if binaries is None:
            return None
        file = self._webhook.folder / DELIVERIES
        file.unlink(missing_ok=True)
        webhook = self._webhook.start(
            lambda port: [sys.executable, "-m", "exhibit.sink", "--port", str(port), "--file", str(file)],
            lambda url: readiness.answers(f"{url}/ready"),
        )
        folder = self._alertmanager.folder
        shutil.rmtree(folder / "data", ignore_errors=True)
        template = self.workspace.root / "monitoring" / "alertmanager" / "alertmanager.yaml.j2"
        config = folder / "alertmanager.yaml"
        write_atomically(config, alertmanager.render(template, webhook_url=webhook, time_scale=TIME_SCALE))
        url = self._alertmanager.start(
            lambda port: alertmanager.command(binaries, config=config, data=folder / "data", host=HOST, port=port),
            lambda url: readiness.answers(f"{url}/-/ready"),
        )
        return url.removeprefix("http://")

    def _start_prometheus(self, binaries: Path, alertmanager_address: str | None) -> None:
        folder, source = self._prometheus.folder, self.workspace.root / "monitoring" / "prometheus"
        # What an earlier one has seen would answer for what is asked now: it had the same labels.
        for name in ("data", "rules"):
            shutil.rmtree(folder / name, ignore_errors=True)
        (folder / "targets").mkdir(parents=True, exist_ok=True)
        shutil.copytree(source / "rules", folder / "rules")
        alerts = prometheus_server.render_alerts(source / "alerts.yaml.j2", TIME_SCALE)
        write_atomically(folder / "rules" / "alerts.yaml", alerts)
        config = folder / "prometheus.yaml"
        text = prometheus_server.render(
            source / "prometheus.yaml.j2",
            targets_folder=folder / "targets",
            rules_folder=folder / "rules",
            scrape_interval=SCRAPE_INTERVAL,
            alertmanager=alertmanager_address,
        )
        write_atomically(config, text)
        self._prometheus.start(
            lambda port: prometheus_server.command(binaries, config=config, data=folder / "data", host=HOST, port=port),
            lambda url: Prometheus(url).ready(),
        )

    def watch(self, slug: str, target: str, addresses: Mapping[str, tuple[str, str]]) -> None:
        """Has a deployment scraped: `addresses` is (host:port, metrics path) by source."""
        write_target(self._prometheus.folder / "targets", slug, target, addresses)

    def unwatch(self, slug: str) -> None:
        """Ends the scraping of a deployment."""
        remove_target(self._prometheus.folder / "targets", slug)

    def stop(self) -> None:
        """Stops all of it, whether or not it still runs."""
        with interrupts.deferred():
            for part in (self._prometheus, self._alertmanager, self._webhook):
                part.stop()
