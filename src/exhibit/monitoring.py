"""The one Prometheus of a checkout: started with the first deployment, told of each, stopped with the last."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from exhibit import interrupts, processes
from exhibit.errors import ServerError
from exhibit.processes import Running
from exhibit.prometheus import (
    Prometheus,
    PrometheusMissing,
    command,
    find_or_unpack,
    remove_target,
    render,
    write_target,
)
from exhibit.workspace import Workspace, write_atomically, write_json

HOST = "127.0.0.1"
READY_SECONDS = 30


class Monitoring:
    """Prometheus as a process, in ``.work/prometheus/``."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.folder = workspace.state / "prometheus"
        self.missing: str | None = None
        """Why there is no Prometheus on this machine, with the remedy."""

    @property
    def url(self) -> str | None:
        """Where it answers; None if it does not run."""
        running = next(iter(processes.noted(self.folder)), None)
        address = self.folder / "address.json"
        if running is None or running.process() is None or not address.exists():
            return None
        return str(json.loads(address.read_text())["url"])

    @property
    def prometheus(self) -> Prometheus | None:
        """A client for it; None if it does not run."""
        return Prometheus(self.url) if self.url else None

    def binaries(self) -> Path | None:
        """The folder of its programs, unpacked first if need be; None where none can be had: `missing` says why."""
        try:
            return find_or_unpack(self.workspace.state / "prometheus-binaries")
        except PrometheusMissing as missing:
            self.missing = str(missing)
            return None

    def start(self) -> None:
        """Starts it, if it does not run; where none can be had, `missing` says why and nothing is raised.

        Raises:
            ServerError: there is one, but it does not get ready.
        """
        if self.url:
            return
        self.stop()
        binaries = self.binaries()
        if binaries is None:
            return
        # What an earlier one has seen would answer for what is asked now: it had the same labels.
        shutil.rmtree(self.folder / "data", ignore_errors=True)
        port = processes.free_ports(1, HOST)[0]
        url = f"http://{HOST}:{port}"
        config = self.folder / "prometheus.yaml"
        source = self.workspace.root / "monitoring" / "prometheus"
        (self.folder / "targets").mkdir(parents=True, exist_ok=True)
        write_atomically(
            config,
            render(
                source / "prometheus.yaml.j2", targets_folder=self.folder / "targets", rules_folder=source / "rules"
            ),
        )
        running = processes.start(
            "prometheus",
            command(binaries, config=config, data=self.folder / "data", host=HOST, port=port),
            environment={"PATH": "/usr/bin:/bin"},
            cwd=self.folder,
            folder=self.folder,
            grace_seconds=10,
        )
        try:
            write_json(self.folder / "address.json", {"url": url})
            self._wait_until_ready(Prometheus(url), running)
        except BaseException:
            self.stop()
            raise

    def _wait_until_ready(self, client: Prometheus, running: Running) -> None:
        ready = Retrying(
            stop=stop_after_delay(READY_SECONDS),
            wait=wait_fixed(0.05),
            retry=retry_if_result(lambda up: not up),
            retry_error_callback=lambda _: False,
        )(lambda: client.ready() or running.process() is None)
        if not ready or running.process() is None:
            log = self.folder / "prometheus.log"
            raise ServerError(
                "prometheus", "did not get ready", "it to answer", f"Look into {log}.", processes.last_lines(log)
            )

    def watch(self, slug: str, target: str, addresses: Mapping[str, tuple[str, str]]) -> None:
        """Has a deployment scraped: `addresses` is (host:port, metrics path) by source, ``gateway`` or ``native``."""
        write_target(self.folder / "targets", slug, target, addresses)

    def unwatch(self, slug: str) -> None:
        """Ends the scraping of a deployment."""
        remove_target(self.folder / "targets", slug)

    def stop(self) -> None:
        """Stops it, whether or not it still runs."""
        with interrupts.deferred():
            for running in processes.noted(self.folder):
                processes.stop(running)
