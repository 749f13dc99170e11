"""Helm releases of the cluster, and whether what they ask for runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubernetes.client import AppsV1Api, CoreV1Api, V1Deployment, V1Pod
from kubernetes.client.exceptions import ApiException
from tenacity import Retrying, retry_if_exception_type, retry_if_result, stop_after_delay, wait_fixed

from exhibit.cluster import NAMESPACE, Cluster
from exhibit.errors import ClusterError, ServerError
from exhibit.workspace import write_atomically

INSTANCE = "app.kubernetes.io/instance"
SOURCE = "exhibit/source"
REVISION = "exhibit/revision"
"""Annotation of pods: a digest of everything they were made from, by which a rollout is known to be over."""
OF = "exhibit/of"
"""Label of what is made for a platform beside its releases, by which it goes with them."""
LOG_LINES = 20
PENDING = "another operation (install/upgrade/rollback) is in progress"
HOPELESS = frozenset(
    {
        "CrashLoopBackOff",
        "CreateContainerConfigError",
        "CreateContainerError",
        "ErrImageNeverPull",
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "RunContainerError",
    }
)
"""Reasons for a container to wait that do not pass by waiting."""


class _NotYet(Exception):
    """Why a release is not ready yet."""


@dataclass(frozen=True)
class Release:
    """One Helm release: a chart with values. The pods of its workload carry the label `SOURCE`."""

    cluster: Cluster
    name: str
    folder: Path
    """Where the values it was given are kept."""

    @property
    def show(self) -> str:
        """How a person asks the cluster about its objects."""
        return f"kubectl --context {self.cluster.context} --namespace {NAMESPACE}"

    def install(self, chart: Path, values_files: Sequence[Path], values: Mapping[str, Any]) -> None:
        """Installs the release, or changes it to `chart` with these values; returns before anything is ready.

        Raises:
            ClusterError: Helm or the cluster refuses it, a value of the wrong type for example.
        """
        own = self.folder / f"{self.name}.values.json"
        write_atomically(own, json.dumps(values, indent=2))
        files = [part for path in (*values_files, own) for part in ("--values", str(path))]
        argv = ("upgrade", "--install", self.name, str(chart), "--namespace", NAMESPACE, *files)
        try:
            self.cluster.helm(*argv)
        except ClusterError as error:
            if PENDING not in error.detail:
                raise
            self.uninstall()  # an earlier command was killed in the middle: Helm holds that for ever to go on
            self.cluster.helm(*argv)

    def uninstall(self) -> bool:
        """Removes all of it and waits until it is gone; whether there was anything."""
        there = self.name in self.cluster.helm("list", "--namespace", NAMESPACE, "--all", "--short").split()
        if there:
            self.cluster.helm("uninstall", self.name, "--namespace", NAMESPACE, "--wait", "--timeout", "90s")
        return there

    def pods(self, *, leaving: bool = False) -> list[V1Pod]:
        """The pods of its workload, oldest first; with those being ended if `leaving`."""
        found = CoreV1Api(self.cluster.api).list_namespaced_pod(
            NAMESPACE, label_selector=f"{INSTANCE}={self.name},{SOURCE}"
        )
        pods = [pod for pod in found.items if leaving or pod.metadata.deletion_timestamp is None]
        return sorted(pods, key=lambda pod: pod.metadata.creation_timestamp)

    def workloads(self) -> list[V1Deployment]:
        """The Deployments that make its pods: the chart's own, or those an operator made of the chart's resource."""
        found = AppsV1Api(self.cluster.api).list_namespaced_deployment(NAMESPACE)
        return [one for one in found.items if (one.spec.template.metadata.labels or {}).get(INSTANCE) == self.name]

    def wait(self, revision: str, within_seconds: float) -> None:
        """Waits until all its pods are of `revision` and ready, and no other is left but those being ended.

        Raises:
            ServerError: they did not get ready in time, or cannot: with the pods' events, the last lines of their log
                and the command that shows more.
        """
        try:
            Retrying(
                stop=stop_after_delay(within_seconds),
                wait=wait_fixed(0.3),
                retry=retry_if_exception_type(_NotYet),
                reraise=True,
            )(self._require_rolled_out, revision)
        except _NotYet as reason:
            raise self.failure(f"not ready after {within_seconds:g} s: {reason}", revision) from None

    def wait_available(self, within_seconds: float) -> None:
        """Waits until every Deployment and StatefulSet of the release is as its chart asks.

        Raises:
            ServerError: see `wait`.
        """
        kinds = ("list_namespaced_deployment", "list_namespaced_stateful_set")

        def unready() -> list[str]:
            api, selector = AppsV1Api(self.cluster.api), f"{INSTANCE}={self.name}"
            found = [one for kind in kinds for one in getattr(api, kind)(NAMESPACE, label_selector=selector).items]
            return [one.metadata.name for one in found if not _available(one)] if found else ["nothing yet"]

        left = Retrying(
            stop=stop_after_delay(within_seconds),
            wait=wait_fixed(0.3),
            retry=retry_if_result(bool),
            retry_error_callback=lambda state: state.outcome.result() if state.outcome else [],
        )(unready)
        if left:
            raise self.failure(f"{', '.join(left)} not ready after {within_seconds:g} s")

    def wait_gone(self, within_seconds: float) -> None:
        """Waits until none of its pods is left, those being ended included.

        Raises:
            ServerError: one still is.
        """
        gone = Retrying(
            stop=stop_after_delay(within_seconds),
            wait=wait_fixed(0.2),
            retry=retry_if_result(lambda gone: not gone),
            retry_error_callback=lambda _: False,
        )(lambda: not self.pods(leaving=True))
        if not gone:
            raise self.failure(f"still has pods after {within_seconds:g} s")

    def failure(self, found: str, revision: str | None = None) -> ServerError:
        """The error that says what is known of pods that do not get ready."""
        pods = self._of(revision) or self.pods()
        return ServerError(
            self.name,
            found,
            "its pods to be ready",
            f"Look further with: {self.show} describe pods --selector {INSTANCE}={self.name}",
            "\n".join(line for pod in pods[-1:] for line in (*self._events(pod), *self._log(pod))),
        )

    def _of(self, revision: str | None) -> list[V1Pod]:
        return [pod for pod in self.pods() if (pod.metadata.annotations or {}).get(REVISION) == revision]

    def _require_rolled_out(self, revision: str) -> None:
        workloads = self.workloads()
        if not workloads:
            raise _NotYet("no Deployment yet")
        for one in workloads:
            status, wanted = one.status, one.spec.replicas
            if (one.spec.template.metadata.annotations or {}).get(REVISION) != revision:
                raise _NotYet(f"Deployment {one.metadata.name} is of an older revision")
            for condition in status.conditions or []:
                if condition.type == "ReplicaFailure" and condition.status == "True":
                    raise self.failure(f"its pods are refused: {condition.message}", revision)
            if (status.observed_generation or 0) < one.metadata.generation:
                raise _NotYet(f"Deployment {one.metadata.name} was not looked at yet")
            counts = (status.updated_replicas or 0, status.available_replicas or 0, status.replicas or 0)
            if counts != (wanted, wanted, wanted):
                for pod in self._of(revision):
                    for container in pod.status.container_statuses or []:
                        waiting = container.state.waiting
                        if waiting and waiting.reason in HOPELESS:
                            raise self.failure(f"{container.name} waits: {waiting.reason}", revision)
                raise _NotYet(f"{counts[0]} of {wanted} pods are new, {counts[1]} ready, {counts[2]} there")

    def _events(self, pod: V1Pod) -> list[str]:
        events = CoreV1Api(self.cluster.api).list_namespaced_event(
            NAMESPACE, field_selector=f"involvedObject.name={pod.metadata.name}"
        )
        return [f"{event.type} {event.reason}: {event.message}" for event in events.items[-8:]]

    def _log(self, pod: V1Pod) -> list[str]:
        """The last lines of its first container: of the run before, where that crashed."""
        core, lines = CoreV1Api(self.cluster.api), list[str]()
        for container in (pod.status.container_statuses or [])[:1]:
            crashed = bool(container.restart_count) and not container.ready
            try:
                text = core.read_namespaced_pod_log(
                    pod.metadata.name,
                    NAMESPACE,
                    container=container.name,
                    previous=crashed,
                    tail_lines=LOG_LINES,
                )
            except ApiException:  # it never ran
                continue
            lines += text.splitlines()
        return lines


def _available(workload: Any) -> bool:
    """Whether a Deployment or StatefulSet has as many ready pods of its newest template as it asks for."""
    status, wanted = workload.status, workload.spec.replicas
    return (status.observed_generation or 0) >= workload.metadata.generation and (
        (status.updated_replicas or 0, status.ready_replicas or 0) == (wanted, wanted)
    )


def restarts(pods: Sequence[V1Pod]) -> dict[str, int]:
    """How often containers of each pod were started again, by the pod's uid."""
    return {
        pod.metadata.uid: sum(container.restart_count for container in pod.status.container_statuses or [])
        for pod in pods
    }
