"""Deploys platforms to a kind cluster: image, chart, gateway, companions."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import cached_property, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx
from kubernetes.client import CoreV1Api
from kubernetes.client.exceptions import ApiException
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from exhibit import clients, companions, digests, documents, images, interrupts, operators, traffic
from exhibit import cluster as clusters
from exhibit.cluster import NAMESPACE, Cluster
from exhibit.console import step
from exhibit.contract import Absent, Kind, NativeMetrics, Platform
from exhibit.errors import ClusterError, ServerError
from exhibit.images import Image
from exhibit.model import Model
from exhibit.targets import Started, Status, Target
from exhibit.targets.first_prediction import NotReady, require_right_prediction
from exhibit.targets.kind import addresses, nodes
from exhibit.targets.kind.addresses import Door
from exhibit.targets.kind.deployment import KindDeployment
from exhibit.targets.kind.monitoring import KindMonitoring
from exhibit.targets.kind.releases import INSTANCE, OF, REVISION, Release
from exhibit.targets.kind.rollouts import KindRollouts
from exhibit.versions import load as load_versions
from exhibit.workspace import Workspace, write_json

READY_SECONDS = 180
PREDICTION_SECONDS = 30
GATEWAY_PORTS = {"main": 8000, "internal": 8001}
_replicas = itertools.count(1)


class KindTarget(Target):
    """What is noted of a deployment lies in ``.work/<platform>/kind/``; what runs, in the namespace of the cluster."""

    name = "kind"
    deployments = KindDeployment

    def __init__(self, workspace: Workspace, model: Model | None, cluster_name: str = "") -> None:
        """Deploys to the cluster of that name, else to that of EXHIBIT_CLUSTER, else of kind-config.yaml."""
        self.workspace, self._model, self._cluster_name = workspace, model, cluster_name
        self._images: dict[str, Image] = {}

    @property
    def model(self) -> Model:
        """The model that is deployed; stopping and showing what runs needs none."""
        assert self._model is not None, "deploying needs a model"
        return self._model

    @cached_property
    def cluster(self) -> Cluster:
        """The cluster that is deployed to.

        Raises:
            ClusterError: there is none of that name, with both remedies.
        """
        found = clusters.find(self.workspace, self._cluster_name)
        if found is None:
            name = self._cluster_name or clusters.default_name(self.workspace)
            remedy = "Make it with `make cluster`, or deploy a process of this machine with TARGET=local."
            raise ClusterError(f"cluster {name}", "there is none", "one to deploy to", remedy)
        found.require_well()
        return found

    def _is_there(self) -> bool:
        """Whether anything can be deployed: a cluster was noted here, and it runs."""
        if not any(self.workspace.state.glob(f"{self.name}/*")):
            return False
        with suppress(ClusterError):
            return bool(self.cluster)
        return False

    @cached_property
    def monitoring(self) -> KindMonitoring:
        return KindMonitoring(self.workspace, self.cluster)

    @property
    def prometheus_url(self) -> str | None:
        return self.monitoring.url

    def prepare(self, platforms: Sequence[Platform]) -> None:
        for platform in platforms:
            _kind(platform)  # or it cannot be deployed, whatever else there is
        self.cluster.ensure_namespace()
        base = load_versions(self.workspace).images["base"]
        wanted = {name: images.companion_context(one, base) for name, one in self._companions.items()}
        wanted |= {one.slug: images.platform_context(one, self.model, base) for one in platforms}
        for platform in platforms:
            operators.ensure(self.cluster, _kind(platform).operators)
        for name, context in wanted.items():
            if name not in self._images:
                with step(f"image of {name}") as say:
                    image = images.build(self.workspace, name, context, say)
                    self.cluster.load(image.reference)
                    self._images[name] = image

    def watch(self) -> None:
        self.cluster.ensure_namespace()
        self.monitoring.ensure()

    def deploy(self, platform: Platform) -> KindDeployment:
        folder, release = self._folder(platform.slug), self._release(platform.slug)
        (folder / "deployment.json").unlink(missing_ok=True)
        began = time.monotonic()
        try:
            release.wait(self._install(platform, release, {}), READY_SECONDS)
            listening = time.monotonic() - began
            doors = self._server_doors(platform, platform.slug)
            self._wait_until_right(platform, release, doors["server.main"])
            started = Started(round(listening, 3), round(time.monotonic() - began, 3))
            # After the server: what they take to start is not to lengthen what it takes.
            doors |= self._install_companions(platform)
            doors |= self._install_gateway(platform)
            self._wait_until_right(platform, self._release(platform.slug, "gateway"), doors["gateway.main"])
        except KeyboardInterrupt:  # what failed, on the other hand, stays to be looked at; deploying again mends it
            self.down(platform.slug)
            raise
        record = {"doors": addresses.noted(doors), "started": asdict(started), **self._identity(platform)}
        write_json(folder / "deployment.json", record)
        return self._deployment(platform, release, doors, started)

    def attach(self, platform: Platform) -> KindDeployment | None:
        record_path = self._folder(platform.slug) / "deployment.json"
        if not record_path.exists():
            return None
        record = json.loads(record_path.read_text())
        remedy = f"Run: make deploy-{platform.slug}"
        if any(record.get(name) != value for name, value in self._identity(platform).items()):
            found = "runs from an older folder, model or companion"
            raise ServerError(platform.slug, found, "what is in this checkout", remedy)
        release = self._release(platform.slug)
        if not release.pods():
            raise ServerError(platform.slug, f"has no pod in cluster {self.cluster.name}", "it to run", remedy)
        doors = addresses.read(record["doors"])
        return self._deployment(platform, release, doors, Started(**record["started"]))

    def down(self, slug: str) -> list[str]:
        with interrupts.deferred():
            ended = []
            if self._is_there():
                own = re.compile(rf"{re.escape(slug)}(-(gateway|detectors(-.+)?|canary|replica-\d+))?")
                names = self.cluster.helm("list", "--namespace", NAMESPACE, "--all", "--short").split()
                ended = [
                    name
                    for name in names
                    if own.fullmatch(name) and Release(self.cluster, name, self._folder(slug)).uninstall()
                ]
                self.monitoring.doors.close(services=own)
                self._forget_artifacts(slug)
            shutil.rmtree(self._folder(slug), ignore_errors=True)
            return ended

    def down_all(self) -> None:
        for slug in self.noted_slugs():
            self.down(slug)

    def release_monitoring(self) -> None:
        """It belongs to the cluster, not to what is deployed there: nothing is ended."""

    def noted_slugs(self) -> list[str]:
        folders = self.workspace.state.glob(f"*/{self.name}")
        return sorted(path.parent.name for path in folders if path.parent.name != self.name)

    def status(self) -> list[Status]:
        lines, there = [], self._is_there()
        for slug in self.noted_slugs():
            note = self._folder(slug) / "deployment.json"
            pods = self._release(slug).pods() if there else []
            if not (note.exists() and pods):
                state = "failed, or starting" if pods else "stale: not running any more"
                lines.append(Status(slug, self.name, state, "", "", nodes.usage(pods).resident_bytes))
                continue
            doors = addresses.read(json.loads(note.read_text())["doors"])
            url, gateway = (self.monitoring.doors.url(doors[f"{part}.main"]) for part in ("server", "gateway"))
            lines.append(Status(slug, self.name, "running", url, gateway, nodes.usage(pods).resident_bytes))
        return lines

    @cached_property
    def _companions(self) -> Mapping[str, companions.Companion]:
        return companions.load(self.workspace)

    def _release(self, slug: str, part: str = "") -> Release:
        """The platform's own release, or another `part` of its deployment."""
        return Release(self.cluster, f"{slug}-{part}" if part else slug, self._folder(slug))

    def _install(self, platform: Platform, release: Release, more: Mapping[str, Any]) -> str:
        """Installs the platform's chart with `more` values than its own; the revision of its pods."""
        chart = self.workspace.charts / _kind(platform).chart
        repository, _, tag = self._image(platform).reference.rpartition(":")
        own = json.dumps([digests.folder_sha256(chart), platform.values.read_text(), tag, more], sort_keys=True)
        revision = hashlib.sha256(own.encode()).hexdigest()[:12]
        values = {
            **more,
            "platform": platform.slug,
            "image": {"repository": repository, "tag": tag},
            "service": {"nodePorts": _node_ports(self._server_doors(platform, release.name))},
            "podAnnotations": {REVISION: revision},
        }
        release.install(chart, [platform.values], values)
        return revision

    def _server_doors(self, platform: Platform, name: str) -> dict[str, Door]:
        """Doors of the server's ports that this machine asks, of the release `name`."""
        native = platform.file.capabilities.native_metrics
        asked = {"main", native.port} if isinstance(native, NativeMetrics) else {"main"}
        defaults = documents.plain(self.workspace.charts / _kind(platform).chart / "values.yaml")
        ports = {**defaults["ports"], **documents.plain(platform.values).get("ports", {})}
        return self.monitoring.doors.choose((f"server.{port}", name, ports[port]) for port in sorted(asked))

    def _install_companions(self, platform: Platform) -> dict[str, Door]:
        """Installs them and waits until they are ready; the doors of what this machine asks of them."""
        if not self._companions:
            return {}
        release = self._release(platform.slug, "detectors")
        services = {name: self._service(platform, one) for name, one in self._companions.items()}
        doors = self.monitoring.doors.choose(
            (f"{name}.{port}", f"{release.name}-{name}", number)
            for name, service in services.items()
            for port, number in service["ports"].items()
            if port != self._companions[name].file.copies
        )
        opened: dict[str, dict[str, int]] = {name: {} for name in services}
        for key, number in _node_ports(doors, whole=True).items():
            name, port = key.split(".")
            opened[name][port] = number
        values = {
            "platform": platform.slug,
            "services": services,
            "artifacts": {"configMap": self._artifacts(platform)},
            "service": {"nodePorts": opened},
        }
        release.install(self.workspace.charts / "detectors", [], values)
        return doors

    def _install_gateway(self, platform: Platform) -> dict[str, Door]:
        """Installs it and waits until gateway and companions are ready; the door of the gateway."""
        slug = platform.slug
        release = self._release(slug, "gateway")
        doors = self.monitoring.doors.choose([("gateway.main", release.name, GATEWAY_PORTS["main"])])
        values: dict[str, Any] = {"platform": slug, "service": {"nodePorts": _node_ports(doors)}}
        for one in self._companions.values():
            if one.file.copies:
                values["mirror"] = {
                    "enabled": True,
                    "port": self._service(platform, one)["ports"][one.file.copies],
                    "path": platform.file.predict.path,
                }
        release.install(self.workspace.charts / "gateway", [], values)
        release.wait_available(READY_SECONDS)
        if self._companions:
            self._release(slug, "detectors").wait_available(READY_SECONDS)
        return doors

    def _service(self, platform: Platform, one: companions.Companion) -> dict[str, Any]:
        """The values of the detectors' chart for one companion."""
        repository, _, tag = self._images[one.name].reference.rpartition(":")
        ports = {name: 8080 + at for at, name in enumerate(one.file.ports)}
        argv = one.argv(
            {
                "host": "0.0.0.0",
                **{f"{name}_port": str(number) for name, number in ports.items()},
                "artifacts": "/artifacts",
                "client": "/artifacts/client.py",
                "state": "/state",
                "ask": f"http://{platform.slug}-gateway:{GATEWAY_PORTS['internal']}{platform.file.predict.path}",
                "content_type": platform.file.predict.content_type,
            },
            local=True,
        )
        return {
            "image": {"repository": repository, "tag": tag},
            "args": argv[2:],
            "ports": ports,
            "metrics": {"port": one.file.metrics.port, "path": one.file.metrics.path},
            "ready": {"port": one.file.ready.port, "path": one.file.ready.path},
            "readySeconds": one.file.ready_seconds,
            "stopSeconds": one.file.stop_seconds,
        }

    def _artifacts(self, platform: Platform) -> str:
        """The ConfigMap with what companions know of model and platform."""
        folder = self.workspace.model / "artifacts"
        paths = [folder / "reference.npz", folder / "manifest.json", platform.folder / "client.py"]
        digest = hashlib.sha256("".join(digests.file_sha256(path) for path in paths).encode()).hexdigest()[:12]
        name = f"{platform.slug}-artifacts-{digest}"
        body = {
            "metadata": {
                "name": name,
                "labels": {"app.kubernetes.io/managed-by": "exhibit", OF: platform.slug},
            },
            "immutable": True,
            "binaryData": {path.name: base64.b64encode(path.read_bytes()).decode() for path in paths},
        }
        try:
            CoreV1Api(self.cluster.api).create_namespaced_config_map(NAMESPACE, body)
        except ApiException as error:
            if error.status != 409:  # it is there: the name tells the content
                raise
        return name

    def _forget_artifacts(self, slug: str) -> None:
        CoreV1Api(self.cluster.api).delete_collection_namespaced_config_map(NAMESPACE, label_selector=f"{OF}={slug}")

    def _image(self, platform: Platform) -> Image:
        if platform.slug not in self._images:
            base = load_versions(self.workspace).images["base"]
            context = images.platform_context(platform, self.model, base)
            self._images[platform.slug] = images.build(self.workspace, platform.slug, context, lambda _: None)
        return self._images[platform.slug]

    def _wait_until_right(self, platform: Platform, release: Release, door: Door) -> None:
        """Waits until a real prediction through `door` is right.

        Raises:
            ServerError: none was in time.
        """
        url, client = self.monitoring.doors.url(door), clients.load(platform.folder / "client.py")
        with httpx.Client(timeout=10, trust_env=False) as http:
            try:
                Retrying(
                    stop=stop_after_delay(PREDICTION_SECONDS),
                    wait=wait_fixed(0.05),
                    retry=retry_if_exception_type(NotReady),
                    reraise=True,
                )(require_right_prediction, http, url, platform, client, self.model.golden)
            except NotReady as reason:
                raise release.failure(
                    f"no right prediction at {url} after {PREDICTION_SECONDS} s: {reason}"
                ) from reason

    @contextmanager
    def _replica(self, platform: Platform) -> Iterator[KindDeployment]:
        release = self._release(platform.slug, f"replica-{next(_replicas)}")
        began = time.monotonic()
        try:
            # It leaves no gateway behind: SIGTERM is to reach it with requests in flight.
            release.wait(self._install(platform, release, {"drainSeconds": 0}), READY_SECONDS)
            listening = time.monotonic() - began
            doors = self._server_doors(platform, release.name)
            self._wait_until_right(platform, release, doors["server.main"])
            started = Started(round(listening, 3), round(time.monotonic() - began, 3))
            with self._deployment(platform, release, doors, started, {"drainSeconds": 0}) as deployment:
                yield deployment
        finally:
            with interrupts.deferred():
                self.monitoring.doors.close(services=re.compile(re.escape(release.name)))
                release.uninstall()

    def _deployment(
        self,
        platform: Platform,
        release: Release,
        doors: Mapping[str, Door],
        started: Started,
        values: Mapping[str, Any] = MappingProxyType({}),
    ) -> KindDeployment:
        """The release as criteria see it; `values` are those it was installed with besides the platform's."""
        urls = {name: self.monitoring.doors.url(door) for name, door in doors.items()}
        native, gateway_url = platform.file.capabilities.native_metrics, urls.get("gateway.main")
        beside: dict[str, dict[str, str]] = {}
        for key, url in urls.items():
            name, port = key.split(".")
            if name in self._companions:
                beside.setdefault(name, {})[port] = url
        gateway = self._release(platform.slug, "gateway")

        def recover() -> None:
            release.wait_available(READY_SECONDS)
            self._wait_until_right(platform, release, doors["server.main"])
            self._wait_until_right(platform, gateway, doors["gateway.main"])

        def attach(other: Release) -> KindDeployment:
            return self._deployment(platform, other, self._server_doors(platform, other.name), started)

        install = partial(self._install, platform)
        return KindDeployment(
            platform=platform,
            target=self.name,
            model=self.model,
            client=clients.load(platform.folder / "client.py"),
            url=urls["server.main"],
            gateway_url=gateway_url,
            metrics_url=urls[f"server.{native.port}"] + native.path if isinstance(native, NativeMetrics) else None,
            started=started,
            log=f"{release.show} logs --selector {INSTANCE}={release.name} --tail=-1",
            prometheus=self.monitoring.prometheus if gateway_url else None,
            scenarios=traffic.load_scenarios(self.workspace),
            companions=beside,
            image=self._image(platform),
            operator_lacking=self._operator_lacking(platform) if gateway_url else None,
            rollouts=KindRollouts(release, install, platform.file.artifact, attach) if gateway_url else None,
            release=release,
            start_replica=lambda: self._replica(platform),
            resize=lambda replicas: self._install(platform, release, {**values, "replicas": replicas}),
            recover=recover,
            read_deliveries=self.monitoring.deliveries,
        )

    def _operator_lacking(self, platform: Platform) -> str | None:
        """Why the platform's own operator is not what runs it here; None if it is, or if there is no such operator."""
        own = platform.file.capabilities.operator
        if isinstance(own, Absent) or own.name in _kind(platform).operators:
            return None
        return (
            f"The server was deployed by the chart {_kind(platform).chart}, not by its operator {own.name}. "
            f"Why, and how it is run by the operator, is in deployments/{platform.slug}/README.md."
        )

    def _identity(self, platform: Platform) -> dict[str, object]:
        """What a deployment is made from: one that was made from something else is not this checkout's."""
        folders = {
            "folder": platform.folder,
            "chart": self.workspace.charts / _kind(platform).chart,
            "gateway": self.workspace.charts / "gateway",
            "detectors": self.workspace.charts / "detectors",
            **{name: one.folder for name, one in self._companions.items()},
        }
        return {
            "cluster": self.cluster.name,
            "model_sha256": self.model.sha256,
            "sha256": {name: digests.folder_sha256(folder) for name, folder in folders.items()},
            "licences": {one.name: one.licence for one in self._companions.values()},
        }

    def _folder(self, slug: str) -> Path:
        return self.workspace.deployment_state(slug, self.name)


def _kind(platform: Platform) -> Kind:
    """How the platform runs in a cluster.

    Raises:
        ServerError: it does not.
    """
    if platform.file.kind is None:
        subject = f"deployments/{platform.slug}/platform.yaml"
        raise ServerError(subject, "no `kind`", "how it runs in a cluster", "Use TARGET=local, or write it.")
    return platform.file.kind


def _node_ports(doors: Mapping[str, Door], *, whole: bool = False) -> dict[str, int]:
    """The node ports of doors that have one, by the port's name (or the `whole` name of the door)."""
    return {
        name if whole else name.split(".")[1]: door.node_port
        for name, door in doors.items()
        if door.node_port is not None
    }
