"""Deploys platforms as local processes: server, gateway, and their place in Prometheus."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from exhibit import clients, companions, digests, environments, interrupts, processes, traffic
from exhibit.companions import Companion
from exhibit.console import out, step
from exhibit.contract import NativeMetrics, Platform
from exhibit.errors import ServerError
from exhibit.gateway import Mirror
from exhibit.model import Model
from exhibit.monitoring import Monitoring
from exhibit.processes import Running
from exhibit.targets import Deployment, Started, Status, Target
from exhibit.targets.local import companions as local_companions
from exhibit.targets.local import server as servers
from exhibit.targets.local.deployment import LocalDeployment
from exhibit.targets.local.gateway import Gateway
from exhibit.targets.local.server import HOST, Server
from exhibit.workspace import Workspace, write_json

_replicas = itertools.count(1)


class LocalTarget(Target):
    """Everything of a deployment lies in ``.work/<platform>/local/``."""

    name = "local"
    deployments = LocalDeployment

    def __init__(
        self, workspace: Workspace, model: Model | None, monitoring: Monitoring, *, hurried: bool = True
    ) -> None:
        """With `hurried` companions work as a demo needs it; without, as in production (windows take a week)."""
        self.workspace, self.monitoring, self.hurried = workspace, monitoring, hurried
        self._model, self._told = model, False

    @property
    def model(self) -> Model:
        """The model that is deployed; stopping and showing what runs needs none."""
        assert self._model is not None, "deploying needs a model"
        return self._model

    def prepare(self, platforms: Sequence[Platform]) -> None:
        wanted = [(one.file.title, name, one.lock) for name, one in companions.load(self.workspace).items()]
        wanted += [(platform.title, platform.slug, platform.lock) for platform in platforms]
        for title, name, lock in wanted:
            if environments.find(self.workspace, name, lock) is None:
                with step(f"{title}: environment"):
                    environments.ensure(self.workspace, name, lock)
        self.monitoring.binaries()
        self._tell_missing()

    def watch(self) -> None:
        self.monitoring.start()
        self._tell_missing()

    def _tell_missing(self) -> None:
        """Once: a demo prepares each platform."""
        if self.monitoring.missing and not self._told:
            out.print(f"[yellow]{self.monitoring.missing}[/yellow]")
            self._told = True

    @property
    def prometheus_url(self) -> str | None:
        return self.monitoring.url

    def deploy(self, platform: Platform) -> LocalDeployment:
        with suppress(ServerError):
            found = self.attach(platform)
            if found:
                return found
        self.down(platform.slug)
        folder = self._folder(platform.slug)
        beside = companions.load(self.workspace)
        ports = local_companions.choose_ports(beside)
        try:
            server, started = self._start(platform, folder)
            gateway = Gateway.start(self.workspace, server, folder, self._mirror(platform, beside, ports))
            # After the server: what they take to start is not to lengthen what it takes.
            running = local_companions.start(
                self.workspace, beside, ports, platform, gateway.internal_url, folder, hurried=self.hurried
            )
            addresses = {name: one.addresses for name, one in running.items()}
            deployment = self._deployment(platform, server, gateway, started, addresses)
            deployment.distribution()  # a platform whose version nobody can tell is not deployed
            scraped = local_companions.metrics_addresses(running.values())
            self._watch(deployment, gateway, scraped)
            write_json(folder / "deployment.json", self._record(deployment, server, gateway, scraped))
        except BaseException:
            self.down(platform.slug)
            raise
        return deployment

    def attach(self, platform: Platform) -> LocalDeployment | None:
        record_path = self._folder(platform.slug) / "deployment.json"
        if not record_path.exists():
            return None
        record = json.loads(record_path.read_text())
        noted = self._own_processes(platform.slug)
        remedy = f"Run: make deploy-{platform.slug} TARGET=local"
        if any(record.get(name) != value for name, value in self._identity(platform).items()):
            found = "runs from an older folder, model or companion"
            raise ServerError(platform.slug, found, "what is in this checkout", remedy)
        for name in ("server", "gateway", *record["companions"]):
            if name not in noted or noted[name].process() is None:
                raise ServerError(platform.slug, f"its {name} is not running any more", "it to run", remedy)
        server = Server(noted["server"], record["ports"], record_path.parent)
        gateway = Gateway(noted["gateway"], *(record[f"gateway_{name}port"] for name in ("", "admin_", "internal_")))
        started = Started(**record["started"])
        deployment = self._deployment(platform, server, gateway, started, record["companions"])
        self._watch(deployment, gateway, {name: tuple(address) for name, address in record["scraped"].items()})
        return deployment

    def down(self, slug: str) -> list[str]:
        """Stops whatever is noted of a platform, running or stale; the last lines of its log stay."""
        folder = self._folder(slug)
        with interrupts.deferred():
            self.monitoring.unwatch(slug)
            (folder / "deployment.json").unlink(missing_ok=True)
            noted = {running.note.name.split(".")[0]: processes.stop(running) for running in processes.noted(folder)}
            return [
                f"{name}: ended by SIGKILL after {stop.seconds} s: SIGTERM was not enough" if stop.killed else name
                for name, stop in noted.items()
            ]

    def release_monitoring(self) -> None:
        if not self.noted_slugs():
            self.monitoring.stop()

    def down_all(self) -> None:
        with interrupts.deferred():
            for slug in self.noted_slugs():
                self.down(slug)
            self.monitoring.stop()

    def noted_slugs(self) -> list[str]:
        folders = self.workspace.state.glob(f"*/{self.name}")
        return sorted(folder.parent.name for folder in folders if processes.noted(folder))

    def status(self) -> list[Status]:
        lines = []
        for slug in self.noted_slugs():
            record_path = self._folder(slug) / "deployment.json"
            record = json.loads(record_path.read_text()) if record_path.exists() else {}
            server = self._own_processes(slug).get("server")
            alive = server is not None and server.process() is not None
            lines.append(
                Status(
                    slug,
                    self.name,
                    "running" if alive and record else "starting" if alive else "stale: not running any more",
                    record.get("url", ""),
                    record.get("gateway_url", ""),
                    processes.usage(server).resident_bytes if server else 0,
                )
            )
        return lines

    @contextmanager
    def _replica(self, platform: Platform) -> Iterator[Deployment]:
        folder = self._folder(platform.slug) / f"replica-{next(_replicas)}"
        try:
            server, started = self._start(platform, folder)
            with self._deployment(platform, server, None, started, {}) as deployment:
                yield deployment
        finally:
            with interrupts.deferred():
                for running in processes.noted(folder):
                    processes.stop(running)

    def _start(
        self, platform: Platform, folder: Path, ports: Mapping[str, int] | None = None
    ) -> tuple[Server, Started]:
        client = clients.load(platform.folder / "client.py")
        environment = environments.ensure(self.workspace, platform.slug, platform.lock)
        return servers.start(platform, self.model, client, environment, folder, ports)

    def _mirror(
        self, platform: Platform, beside: Mapping[str, Companion], ports: Mapping[str, Mapping[str, int]]
    ) -> Mirror | None:
        """Where the gateway's copies go: to the companion that takes them, if there is one."""
        for name, companion in beside.items():
            if companion.file.copies:
                return Mirror(HOST, ports[name][companion.file.copies], platform.file.predict.path)
        return None

    def _own_processes(self, slug: str) -> dict[str, Running]:
        """What is noted of the deployment itself, by name; not of replicas beside it."""
        folder = self._folder(slug)
        noted = processes.noted(folder)
        return {running.note.name.split(".")[0]: running for running in noted if running.note.parent == folder}

    def _deployment(
        self,
        platform: Platform,
        server: Server,
        gateway: Gateway | None,
        started: Started,
        beside: Mapping[str, Mapping[str, str]],
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
            log=self.workspace.relative(server.log),
            prometheus=self.monitoring.prometheus if gateway else None,
            scenarios=traffic.load_scenarios(self.workspace),
            companions=beside,
            server=server,
            environment=environments.ensure(self.workspace, platform.slug, platform.lock),
            start_replica=lambda: self._replica(platform),
            restart=lambda gone: self._start(platform, gone.folder, gone.ports)[0],
            read_deliveries=self.monitoring.deliveries,
        )

    def _watch(self, deployment: LocalDeployment, gateway: Gateway, beside: Mapping[str, tuple[str, str]]) -> None:
        native = deployment.platform.file.capabilities.native_metrics
        addresses = {"gateway": (f"{HOST}:{gateway.admin_port}", Gateway.METRICS_PATH), **beside}
        if isinstance(native, NativeMetrics):
            addresses["native"] = (f"{HOST}:{deployment.server.ports[native.port]}", native.path)
        self.monitoring.watch(deployment.platform.slug, self.name, addresses)

    def _record(
        self,
        deployment: LocalDeployment,
        server: Server,
        gateway: Gateway,
        scraped: Mapping[str, tuple[str, str]],
    ) -> dict[str, object]:
        return {
            "url": deployment.url,
            "gateway_url": gateway.url,
            "ports": dict(server.ports),
            "gateway_port": gateway.port,
            "gateway_admin_port": gateway.admin_port,
            "gateway_internal_port": gateway.internal_port,
            "companions": deployment.companions,
            "scraped": scraped,
            "started": asdict(deployment.started),
            **self._identity(deployment.platform),
        }

    def _identity(self, platform: Platform) -> dict[str, object]:
        """What a deployment is made from: one that was made from something else is not this checkout's."""
        beside = companions.load(self.workspace).values()
        return {
            "folder_sha256": digests.folder_sha256(platform.folder),
            "model_sha256": self.model.sha256,
            "gateway_sha256": digests.folder_sha256(self.workspace.root / "monitoring" / "gateway"),
            "companions_sha256": {one.name: digests.folder_sha256(one.folder) for one in beside},
            "licences": {one.name: one.licence for one in beside},
            "hurried": self.hurried,
        }

    def _folder(self, slug: str) -> Path:
        return self.workspace.deployment_state(slug, self.name)
