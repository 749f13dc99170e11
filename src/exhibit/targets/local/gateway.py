"""The gateway of a local deployment: an Envoy process in front of the platform's server."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from exhibit import gateway as envoy
from exhibit import processes, readiness
from exhibit.errors import ServerError
from exhibit.gateway import Mirror
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
    internal_port: int

    METRICS_PATH = "/stats/prometheus"

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def internal_url(self) -> str:
        """Where companions ask the served model."""
        return f"http://{HOST}:{self.internal_port}"

    @classmethod
    def start(cls, workspace: Workspace, server: Server, folder: Path, mirror: Mirror | None = None) -> Gateway:
        """Starts it in front of `server` and waits until it takes requests.

        Raises:
            ServerError: it ended, or was not ready in time; the process is gone.
        """
        port, admin_port, internal_port = processes.free_ports(3, HOST)
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
                internal_port=internal_port,
                mirror=mirror,
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
        gateway = cls(running, port, admin_port, internal_port)
        try:
            gateway._wait_until_ready(folder / "gateway.log")
        except BaseException:
            processes.stop(running)
            raise
        return gateway

    def _wait_until_ready(self, log: Path) -> None:
        if not readiness.wait(
            self.running, lambda: readiness.answers(f"http://{HOST}:{self.admin_port}/ready"), READY_SECONDS
        ):
            raise ServerError(
                "gateway", "did not get ready", "Envoy to take requests", f"Look into {log}.", processes.last_lines(log)
            )
