"""The monitoring of a cluster: one Helm release with Prometheus, Alertmanager and a webhook, for all deployments."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import partial

from exhibit import alertmanager, digests, images, operators, prometheus, readiness, sink
from exhibit.cluster import Cluster
from exhibit.console import step
from exhibit.monitoring import TIME_SCALE
from exhibit.prometheus import Prometheus
from exhibit.rollouts import until
from exhibit.sink import Delivery
from exhibit.targets.kind import addresses
from exhibit.targets.kind.addresses import Doors
from exhibit.targets.kind.releases import Release
from exhibit.versions import load as load_versions
from exhibit.workspace import Workspace, write_json

NAME = "monitoring"
READY_SECONDS = 120
ANSWER_SECONDS = 30.0
PORTS = {"prometheus": 9090, "alertmanager": 9093, "webhook": 8080}
OPERATORS = ("metrics-server",)
"""What every cluster gets: autoscaling and `kubectl top` ask it."""


class KindMonitoring:
    """What watches the deployments of one cluster; its doors are noted in `.work/kind/<cluster>/`."""

    def __init__(self, workspace: Workspace, cluster: Cluster) -> None:
        self.workspace, self.cluster = workspace, cluster
        self.doors = Doors(cluster, cluster.folder / "forwards")
        self.release = Release(cluster, NAME, cluster.folder)
        self._note = cluster.folder / "monitoring.json"

    @property
    def url(self) -> str | None:
        """Where Prometheus answers; None if it was not installed."""
        if not self._note.exists():
            return None
        return self.doors.url(addresses.read(json.loads(self._note.read_text())["doors"])["prometheus"])

    @property
    def prometheus(self) -> Prometheus | None:
        """A client for it; None if it was not installed."""
        return Prometheus(self.url) if self.url else None

    def deliveries(self) -> list[Delivery] | None:
        """What Alertmanager has delivered so far, oldest first."""
        if not self._note.exists():
            return None
        door = addresses.read(json.loads(self._note.read_text())["doors"])["webhook"]
        return sink.fetch(self.doors.url(door))

    def ensure(self) -> None:
        """Installs it, or changes it to what is in this checkout; nothing is done where it already is that.

        Raises:
            ClusterError, InstallError, ServerError: it cannot be had, or did not get ready.
        """
        if self._runs():
            return
        versions = load_versions(self.workspace)
        with step("metrics-server") as say:
            operators.ensure(self.cluster, OPERATORS, say)
        with step("images of the monitoring") as say:
            wanted = [versions.images[name] for name in ("envoy", "prometheus", "alertmanager")]
            operators.ensure_images(self.cluster, wanted, say)
            context = images.webhook_context(self.workspace)
            webhook = images.build(self.workspace, "webhook", context, say)
            self.cluster.load(webhook.reference)
        with step("monitoring: ready"):
            doors = self.doors.choose((name, f"{NAME}-{name}", port) for name, port in PORTS.items())
            self.release.install(self.workspace.charts / NAME, [], self._values(doors, webhook))
            self.release.wait_available(READY_SECONDS)
            self._wait_for_answers(doors)
            write_json(self._note, {"doors": addresses.noted(doors), "digest": self._digest()})

    def _values(self, doors: dict[str, addresses.Door], webhook: images.Image) -> dict[str, object]:
        source = self.workspace.root / "monitoring"
        repository, _, tag = webhook.reference.rpartition(":")
        nodes = {name: {"nodePort": door.node_port} for name, door in doors.items()}
        return {
            "prometheus": nodes["prometheus"],
            "alertmanager": {
                **nodes["alertmanager"],
                "config": alertmanager.render(
                    source / "alertmanager" / "alertmanager.yaml.j2",
                    webhook_url=f"http://{NAME}-webhook:{PORTS['webhook']}/",
                    time_scale=TIME_SCALE,
                ),
            },
            "webhook": {**nodes["webhook"], "image": {"repository": repository, "tag": tag}},
            "rules": {"alerts": prometheus.render_alerts(source / "prometheus" / "alerts.yaml.j2", TIME_SCALE)},
            "grafana": {"enabled": operators.available(self.cluster, load_versions(self.workspace).images["grafana"])},
        }

    def _digest(self) -> str:
        folders = (self.workspace.charts / NAME, self.workspace.root / "monitoring" / "prometheus")
        return hashlib.sha256("".join(digests.folder_sha256(folder) for folder in folders).encode()).hexdigest()

    def _runs(self) -> bool:
        if not self._note.exists() or json.loads(self._note.read_text())["digest"] != self._digest():
            return False
        client = self.prometheus
        return client is not None and client.ready()

    def _wait_for_answers(self, doors: Mapping[str, addresses.Door]) -> None:
        """Waits until this machine is answered: a node port leads to a pod some time after that is ready."""
        pages = {"prometheus": "/-/ready", "alertmanager": "/-/ready", "webhook": "/ready"}
        for name, page in pages.items():
            url = self.doors.url(doors[name]) + page
            if not until(partial(readiness.answers, url), ANSWER_SECONDS):
                raise self.release.failure(f"{url} does not answer after {ANSWER_SECONDS:g} s")
