"""Versions and replicas of a deployment in a kind cluster: Helm upgrades, a canary release, a kill."""

from __future__ import annotations

import base64
import hashlib
import http.client
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from kubernetes.client import AppsV1Api, CoreV1Api
from kubernetes.client.exceptions import ApiException
from kubernetes.stream import portforward

from exhibit import gateway, interrupts
from exhibit.cluster import NAMESPACE
from exhibit.errors import ServerError
from exhibit.model import Version
from exhibit.rollouts import Canary, Rollouts, until
from exhibit.targets import Deployment
from exhibit.targets.kind.releases import INSTANCE, OF, Release

READY_SECONDS = 120
KNOWN_SECONDS = 20.0

Install = Callable[[Release, Mapping[str, Any]], str]
"""Installs a release of the platform's chart with more values than its own; the revision of its pods."""


class KindRollouts(Rollouts):
    """See `Rollouts`. A version is a ConfigMap with the artifact's files, mounted over those of the image."""

    def __init__(
        self,
        release: Release,
        install: Install,
        format_name: str,
        attach: Callable[[Release], Deployment],
    ) -> None:
        """`attach` gives a release of the platform's chart that is ready as a deployment of its own."""
        self.release, self.install, self.format_name, self._attach = release, install, format_name, attach
        self._served: Mapping[str, Any] = {}

    def update(self, version: Version) -> None:
        values = {**self._served, **model_values(self.release, version, self.format_name)}
        before, self._served = self._served, values
        try:
            self.release.wait(self.install(self.release, values), READY_SECONDS)
        except ServerError:
            self._back(before)
            raise

    def refused(self, version: Version, within_seconds: float) -> str | None:
        before = self._served
        try:
            values = {**before, **model_values(self.release, version, self.format_name)}
            self.release.wait(self.install(self.release, values), within_seconds)
        except ServerError as error:
            return error.found
        finally:
            self._back(before)
        return None

    def _back(self, values: Mapping[str, Any]) -> None:
        with interrupts.deferred():
            self._served = values
            self.release.wait(self.install(self.release, values), READY_SECONDS)

    @contextmanager
    def canary(self, version: Version) -> Iterator[Canary]:
        release = Release(self.release.cluster, f"{self.release.name}-canary", self.release.folder)
        canary = KindCanary(self, release)
        try:
            canary.replace(version)
            with self._attach(release) as deployment:
                canary.deployment = deployment
                yield canary
        finally:
            with interrupts.deferred():
                canary.remove()

    @contextmanager
    def scaled(self, replicas: int) -> Iterator[None]:
        with self._with({"replicas": replicas}):
            yield

    @contextmanager
    def autoscaled(self, most: int) -> Iterator[None]:
        own = {"enabled": True, "minReplicas": 1, "maxReplicas": most, "scaleDownSeconds": 15}
        with self._with({"autoscaling": own}):
            yield

    @contextmanager
    def _with(self, values: Mapping[str, Any]) -> Iterator[None]:
        before = self._served
        try:
            self._served = {**before, **values}
            self.release.wait(self.install(self.release, self._served), READY_SECONDS)
            yield
        finally:
            self._back(before)

    def ready(self) -> int:
        return sum(
            any(one.type == "Ready" and one.status == "True" for one in pod.status.conditions or [])
            for pod in self.release.pods()
        )

    def delete_workload(self) -> None:
        before = {pod.metadata.uid for pod in self.release.pods()}
        for one in self.release.workloads():
            AppsV1Api(self.release.cluster.api).delete_namespaced_deployment(one.metadata.name, NAMESPACE)
        # Its pods are told to end a moment later: till then they would be taken for what was made again.
        until(lambda: before.isdisjoint(pod.metadata.uid for pod in self.release.pods()), READY_SECONDS)

    def kill_one(self) -> None:
        [*_, pod] = self.release.pods()
        CoreV1Api(self.release.cluster.api).delete_namespaced_pod(pod.metadata.name, NAMESPACE, grace_period_seconds=0)


class KindCanary(Canary):
    """A release of the platform's chart beside the stable one; the gateway knows both by their Services."""

    def __init__(self, rollouts: KindRollouts, release: Release) -> None:
        self._rollouts, self.release = rollouts, release
        # A client of its own: while it forwards a port, Kubernetes' client is of no use to other threads.
        self._forwarding = CoreV1Api(replace(release.cluster).api)

    def replace(self, version: Version) -> None:
        # The gateway looks names up each second. Until it has, it would ask a pod that is gone, or of another version.
        self.remove()
        own = model_values(self._rollouts.release, version, self._rollouts.format_name)
        self.release.wait(self._rollouts.install(self.release, {**own, "drainSeconds": 0}), READY_SECONDS)
        self._until_known(1)
        self.version, self._before = version, self._counted()

    def remove(self) -> None:
        """Takes its share of the requests, then its pods, and waits until the gateway knows of none."""
        self.share(0)
        if self.release.uninstall():
            self._until_known(0)

    def _until_known(self, servers: int) -> None:
        def known() -> bool:
            gauge = f'envoy_cluster_membership_healthy{{envoy_cluster_name="canary"}} {servers}'
            return gauge in self._admin("GET", "/stats/prometheus").splitlines()

        if not until(known, KNOWN_SECONDS):
            raise ServerError(
                f"{self._rollouts.release.name}-gateway",
                f"does not know of {servers} canaries after {KNOWN_SECONDS:g} s",
                "it to look names up each second",
                "Look whether the cluster's DNS answers.",
            )

    def share(self, percent: int) -> None:
        self._admin("POST", gateway.share(percent))

    def signals(self) -> Mapping[str, float]:
        grown = {code: count - self._before.get(code, 0) for code, count in self._counted().items()}
        return {"requests": sum(grown.values()), "errors": grown.get("5", 0)}

    def _counted(self) -> dict[str, int]:
        """Answers of canaries so far, by class of status.

        Asked of the gateway itself: what a scrape tells is a second old, and this decides what callers get.
        """
        found = re.findall(
            r'^envoy_cluster_upstream_rq_xx\{envoy_response_code_class="(\d)",envoy_cluster_name="canary"\} (\d+)',
            self._admin("GET", "/stats/prometheus"),
            re.MULTILINE,
        )
        return {code: int(count) for code, count in found}

    def _admin(self, method: str, path: str) -> str:
        """Asks Envoy's own address, which is open within its pod alone.

        Raises:
            ServerError: the gateway is not there, or refuses.
        """
        api = self._forwarding
        name = f"{self._rollouts.release.name}-gateway"
        pods = api.list_namespaced_pod(NAMESPACE, label_selector=f"{INSTANCE}={name}").items
        pods = [pod for pod in pods if pod.metadata.deletion_timestamp is None]
        texts = []
        for pod in pods:
            forward = portforward(
                api.connect_get_namespaced_pod_portforward, pod.metadata.name, NAMESPACE, ports=str(gateway.ADMIN_PORT)
            )
            connection = http.client.HTTPConnection(name)
            connection.sock = forward.socket(gateway.ADMIN_PORT)
            try:
                connection.request(method, path, headers={"Connection": "close"})
                answer = connection.getresponse()
                texts.append(answer.read().decode())
            finally:
                connection.close()
                forward.close()
            if answer.status != 200:
                raise ServerError(name, f"answered {answer.status} to {path}", "200", "Deploy it again.", texts[-1])
        if not texts:
            raise ServerError(name, "has no pod", "one that runs", "Deploy it again.")
        return "\n".join(texts)


def model_values(release: Release, version: Version, format_name: str) -> dict[str, Any]:
    """Chart values by which `version` is served; its ConfigMap, which goes with the platform's `release`, is made."""
    if version.name == "current":
        return {"model": {"configMap": ""}}
    files = version.files(format_name)
    digest = hashlib.sha256(b"".join(name.encode() + b"\0" + files[name] for name in sorted(files))).hexdigest()[:12]
    name = f"{release.name}-model-{version.name.replace('_', '-')}-{digest}"
    body = {
        "metadata": {"name": name, "labels": {"app.kubernetes.io/managed-by": "exhibit", OF: release.name}},
        "immutable": True,
        "binaryData": {name: base64.b64encode(content).decode() for name, content in files.items()},
    }
    try:
        CoreV1Api(release.cluster.api).create_namespaced_config_map(NAMESPACE, body)
    except ApiException as error:
        if error.status != 409:  # it is there: the name tells the content
            raise
    return {"model": {"configMap": name}}
