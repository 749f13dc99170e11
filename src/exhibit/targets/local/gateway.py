"""The gateway of a local deployment: an Envoy process in front of the platform's server."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import httpx
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from exhibit import gateway as envoy
from exhibit import processes
from exhibit.errors import ServerError
from exhibit.processes import Running
from exhibit.targets.local.server import HOST, Server
from exhibit.workspace import Workspace, write_atomically

READY_SECONDS = 15


@dataclass(frozen=True)
class Gateway:
    """A started gateway."""

    running: Running
    port: int
    admin_port: int

    METRICS_PATH = "/stats/prometheus"

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @classmethod
    def start(cls, workspace: Workspace, server: Server, folder: Path) -> Gateway:
        """Starts it in front of `server` and waits until it takes requests.

        Raises:
            ServerError: it ended, or was not ready in time; the process is gone.
        """
        port, admin_port = processes.free_ports(2, HOST)
        config = folder / "envoy.yaml"
        write_atomically(
            config,
            envoy.render(
                workspace.root / "monitoring" / "gateway" / "envoy.yaml.j2",
                host=HOST,
                port=port,
                admin_port=admin_port,
                upstream_host=HOST,
                upstream_port=server.ports["main"],
            ),
        )
        running = processes.start(
            "gateway",
            envoy.command(config),
            environment={"PATH": "/usr/bin:/bin"},
            cwd=folder,
            folder=folder,
            grace_seconds=5,
        )
        gateway = cls(running, port, admin_port)
        try:
            gateway._wait_until_ready(folder / "gateway.log")
        except BaseException:
            processes.stop(running)
            raise
        return gateway

    def _wait_until_ready(self, log: Path) -> None:
        Retrying(
            stop=stop_after_delay(READY_SECONDS),
            wait=wait_fixed(0.05),
            retry=retry_if_result(lambda done: not done),
            retry_error_callback=lambda _: False,
        )(lambda: self._ready() or self.running.process() is None)
        if not self._ready():
            raise ServerError(
                "gateway", "did not get ready", "Envoy to take requests", f"Look into {log}.", processes.last_lines(log)
            )

    def _ready(self) -> bool:
        try:
            # On loopback: no proxy of the environment, no certificates to load.
            with httpx.Client(trust_env=False, verify=False, timeout=2) as http:
                return http.get(f"http://{HOST}:{self.admin_port}/ready").status_code == 200
        except httpx.TransportError:
            return False
