"""Deploys platforms as local processes: server, gateway, and their place in Prometheus."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from exhibit import clients, digests, environments, interrupts, processes
from exhibit.contract import NativeMetrics, Platform
from exhibit.errors import ServerError
from exhibit.model import Model
from exhibit.monitoring import Monitoring
from exhibit.processes import Running, Stop
from exhibit.targets import Deployment, Started
from exhibit.targets.local import server as servers
from exhibit.targets.local.deployment import LocalDeployment
from exhibit.targets.local.gateway import Gateway
from exhibit.targets.local.server import HOST, Server
from exhibit.workspace import Workspace, write_json

_replicas = itertools.count(1)


@dataclass(frozen=True)
class Status:
    """One line of ``make status``."""

    platform: str
    state: str
    url: str
    gateway_url: str
    pid: int | None
    resident_bytes: int


class LocalTarget:
    """Everything of a deployment lies in ``.work/<platform>/local/``."""

    name = "local"

    def __init__(self, workspace: Workspace, model: Model | None, monitoring: Monitoring) -> None:
        self.workspace, self.monitoring = workspace, monitoring
        self._model = model

    @property
    def model(self) -> Model:
        """The model that is deployed; stopping and showing what runs needs none."""
        assert self._model is not None, "deploying needs a model"
        return self._model

    def deploy(self, platform: Platform) -> LocalDeployment:
        """Starts the platform, or returns it if it already runs from this very folder and model.

        Raises:
            InstallError, ServerError: nothing of it is left running.
        """
        with suppress(ServerError):
            found = self.attach(platform)
            if found:
                return found
        self.down(platform.slug)
        folder = self._folder(platform.slug)
        try:
            server, started = self._start(platform, folder)
            gateway = Gateway.start(self.workspace, server, folder)
            deployment = self._deployment(platform, server, gateway, started)
            deployment.distribution()  # a platform whose version nobody can tell is not deployed
            self._watch(deployment, gateway)
            write_json(folder / "deployment.json", self._record(deployment, server, gateway))
        except BaseException:
            self.down(platform.slug)
            raise
        return deployment

    def attach(self, platform: Platform) -> LocalDeployment | None:
        """The deployment that another command started; None if there is none.

        Raises:
            ServerError: it is noted but does not run any more, or runs from a folder or model that has changed since.
        """
        record_path = self._folder(platform.slug) / "deployment.json"
        if not record_path.exists():
            return None
        record = json.loads(record_path.read_text())
        noted = self._own_processes(platform.slug)
        remedy = f"Run: make deploy-{platform.slug} TARGET=local"
        if any(name not in noted or noted[name].process() is None for name in ("server", "gateway")):
            raise ServerError(platform.slug, "its server or gateway is not running any more", "both to run", remedy)
        if (
            record["folder_sha256"] != digests.folder_sha256(platform.folder)
            or record["model_sha256"] != self.model.sha256
        ):
            raise ServerError(platform.slug, "runs from an older folder or model", "the one in this checkout", remedy)
        server = Server(noted["server"], record["ports"], record_path.parent)
        gateway = Gateway(noted["gateway"], record["gateway_port"], record["gateway_admin_port"])
        deployment = self._deployment(platform, server, gateway, Started(**record["started"]))
        self._watch(deployment, gateway)
        return deployment

    def down(self, slug: str) -> list[Stop]:
        """Stops whatever is noted of a platform, running or stale; the last lines of its log stay."""
        folder = self._folder(slug)
        with interrupts.deferred():
            self.monitoring.unwatch(slug)
            (folder / "deployment.json").unlink(missing_ok=True)
            return [processes.stop(running) for running in processes.noted(folder)]

    def release_monitoring(self) -> None:
        """Stops the monitoring if there is nothing left to watch."""
        if not self.noted_slugs():
            self.monitoring.stop()

    def down_all(self) -> None:
        """Stops every deployment noted in this checkout, and the monitoring."""
        with interrupts.deferred():
            for slug in self.noted_slugs():
                self.down(slug)
            self.monitoring.stop()

    def noted_slugs(self) -> list[str]:
        """The platforms of which something is noted, also ones whose folder is gone."""
        folders = self.workspace.state.glob(f"*/{self.name}")
        return sorted(folder.parent.name for folder in folders if processes.noted(folder))

    def status(self) -> list[Status]:
        """What is noted of each platform, and whether it is so."""
        lines = []
        for slug in self.noted_slugs():
            record_path = self._folder(slug) / "deployment.json"
            record = json.loads(record_path.read_text()) if record_path.exists() else {}
            server = self._own_processes(slug).get("server")
            alive = server is not None and server.process() is not None
            lines.append(
                Status(
                    slug,
                    "running" if alive and record else "starting" if alive else "stale: not running any more",
                    record.get("url", ""),
                    record.get("gateway_url", ""),
                    server.pid if server else None,
                    processes.usage(server).resident_bytes if server else 0,
                )
            )
        return lines

    @contextmanager
    def _replica(self, platform: Platform) -> Iterator[Deployment]:
        folder = self._folder(platform.slug) / f"replica-{next(_replicas)}"
        try:
            server, started = self._start(platform, folder)
            with self._deployment(platform, server, None, started) as deployment:
                yield deployment
        finally:
            with interrupts.deferred():
                for running in processes.noted(folder):
                    processes.stop(running)

    def _start(self, platform: Platform, folder: Path) -> tuple[Server, Started]:
        client = clients.load(platform.folder / "client.py")
        environment = environments.ensure(self.workspace, platform.slug, platform.lock)
        return servers.start(platform, self.model, client, environment, folder)

    def _own_processes(self, slug: str) -> dict[str, Running]:
        """What is noted of the deployment itself, by name; not of replicas beside it."""
        folder = self._folder(slug)
        noted = processes.noted(folder)
        return {running.note.name.split(".")[0]: running for running in noted if running.note.parent == folder}

    def _deployment(
        self, platform: Platform, server: Server, gateway: Gateway | None, started: Started
    ) -> LocalDeployment:
        native = platform.file.capabilities.native_metrics
        return LocalDeployment(
            platform=platform,
            target=self.name,
            model=self.model,
            client=clients.load(platform.folder / "client.py"),
            url=server.url,
            gateway_url=gateway.url if gateway else None,
            metrics_url=f"http://{HOST}:{server.ports[native.port]}{native.path}"
            if isinstance(native, NativeMetrics)
            else None,
            started=started,
            prometheus=self.monitoring.prometheus if gateway else None,
            server=server,
            environment=environments.ensure(self.workspace, platform.slug, platform.lock),
            start_replica=lambda: self._replica(platform),
        )

    def _watch(self, deployment: LocalDeployment, gateway: Gateway) -> None:
        native = deployment.platform.file.capabilities.native_metrics
        addresses = {"gateway": (f"{HOST}:{gateway.admin_port}", Gateway.METRICS_PATH)}
        if isinstance(native, NativeMetrics):
            addresses["native"] = (f"{HOST}:{deployment.server.ports[native.port]}", native.path)
        self.monitoring.watch(deployment.platform.slug, self.name, addresses)

    def _record(self, deployment: LocalDeployment, server: Server, gateway: Gateway) -> dict[str, object]:
        return {
            "url": deployment.url,
            "gateway_url": gateway.url,
            "ports": dict(server.ports),
            "gateway_port": gateway.port,
            "gateway_admin_port": gateway.admin_port,
            "started": asdict(deployment.started),
            "folder_sha256": digests.folder_sha256(deployment.platform.folder),
            "model_sha256": self.model.sha256,
        }

    def _folder(self, slug: str) -> Path:
        return self.workspace.deployment_state(slug, self.name)
