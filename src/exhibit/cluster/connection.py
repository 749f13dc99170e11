"""A kind cluster as the engine speaks to it: kubectl, helm, Kubernetes' API, images into its nodes."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import kubernetes
from docker.errors import DockerException, ImageNotFound
from docker.models.containers import Container
from kubernetes.client import ApiClient, CoordinationV1Api, CoreV1Api
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed
from urllib3.exceptions import HTTPError

from exhibit.cluster import tools
from exhibit.cluster.description import default_name
from exhibit.cluster.tools import ToolFailed
from exhibit.errors import ClusterError
from exhibit.workspace import Workspace

NAMESPACE = "exhibit"
NODE_PORTS = range(30000, 32768)
LOAD_SECONDS = 600
KUBECTL_SECONDS = 120
HELM_SECONDS = 600
CALL_SECONDS = 30
PROBE_SECONDS = 5
NAMESPACE_SECONDS = 90

_T = TypeVar("_T")
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]*")
_LOST = (HTTPError, ConfigException, *tools.LOST)


class _Unanswered(ClusterError):
    """A connection broke though the cluster is well."""


class _Api(ApiClient):  # type: ignore[misc]  # its types are not looked at, see pyproject.toml
    """Kubernetes' own client with a deadline for each call, whose failures say what is wrong with the cluster."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(_configuration(cluster))
        self.cluster = cluster

    def call_api(self, method: str, *request: Any, _request_timeout: Any = None, **options: Any) -> Any:
        ask = partial(super().call_api, method, *request, _request_timeout=_request_timeout or CALL_SECONDS, **options)
        try:
            with self.cluster.speaking():
                answer = ask()
        except _Unanswered:  # and yet the cluster is well: what only reads can be asked once more
            if method != "GET":
                raise
            with self.cluster.speaking():
                answer = ask()
        if answer.status == 401 or answer.status >= 500:
            self.cluster.require_well(f"The API server answered {answer.status} {answer.reason}.")
        return answer


@dataclass(frozen=True)
class Cluster:
    """A kind cluster by its name."""

    workspace: Workspace
    name: str

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ClusterError(
                f"cluster {self.name!r}", "no name of a cluster", "lower case letters, digits, . and -", "Correct it."
            )

    @property
    def context(self) -> str:
        """What kind calls it in a kubeconfig."""
        return f"kind-{self.name}"

    @property
    def folder(self) -> Path:
        """What is kept of it here. It goes with the cluster; processes noted in it (port-forwards) are stopped then."""
        return self.workspace.state / "kind" / self.name

    @property
    def kubeconfig(self) -> Path:
        """The engine's own, with this one context."""
        return self.folder / "kubeconfig"

    @property
    def options(self) -> list[str]:
        """Options by which kubectl speaks to this cluster."""
        return [f"--kubeconfig={self.kubeconfig}", f"--context={self.context}"]

    @property
    def variables(self) -> dict[str, str]:
        """Environment variables by which kubectl and helm in a script do."""
        return {"KUBECONFIG": str(self.kubeconfig), "HELM_KUBECONTEXT": self.context}

    @cached_property
    def api(self) -> ApiClient:
        """A client for its API server: a failure to connect is a ClusterError, any other its ApiException."""
        with self.speaking():
            return _Api(self)

    def nodes(self) -> list[Container]:
        """Its containers, in whatever state; none if there is no such cluster.

        Raises:
            ClusterError: no Docker engine answers.
        """
        client, label = tools.engine(), f"io.x-k8s.kind.cluster={self.name}"
        try:
            found = client.containers.list(all=True, filters={"label": label}, ignore_removed=True)
        except tools.LOST as error:
            raise tools.silent(error) from error
        return sorted(found, key=lambda node: str(node.name))

    def ports(self) -> dict[int, int]:
        """By node port, the port of this machine's loopback interface that is mapped to it."""
        return {
            int(inside.removesuffix("/tcp")): int(binding["HostPort"])
            for node in self.nodes()
            for inside, bindings in node.ports.items()
            for binding in bindings or []
            if inside.endswith("/tcp")
            and int(inside.removesuffix("/tcp")) in NODE_PORTS
            and binding["HostIp"] in ("127.0.0.1", "0.0.0.0", "")
        }

    def kubectl(self, *arguments: str, input: str = "", seconds: float = KUBECTL_SECONDS) -> str:
        """What ``kubectl <arguments>`` prints, asked of this cluster.

        Raises:
            ClusterError: it failed, with what it said; or the cluster did.
        """
        return self._run("kubectl", *self.options, *arguments, input=input, seconds=seconds)

    def helm(self, *arguments: str, seconds: float = HELM_SECONDS) -> str:
        """What ``helm <arguments>`` prints, asked of this cluster.

        Raises:
            ClusterError: it failed, with what it said; or the cluster did.
        """
        options = (f"--kubeconfig={self.kubeconfig}", f"--kube-context={self.context}")
        return self._run("helm", *options, *arguments, seconds=seconds)

    def load(self, image: str) -> bool:
        """Copies an image of the Docker engine into each node; False if they have it.

        Raises:
            ClusterError: there is no such image, no room for it, or no such cluster.
        """
        try:
            wanted = tools.engine().images.get(image)
        except ImageNotFound as error:
            raise ClusterError(
                f"image {image}", "not in the Docker engine", "it to be there", "Build or pull it, and try again."
            ) from error
        with self.speaking():
            nodes = _members(self.nodes())
            if nodes and all(_holds(node, image, str(wanted.id)) for node in nodes):
                return False
        try:
            self._run("kind", "load", "docker-image", image, f"--name={self.name}", seconds=LOAD_SECONDS)
        except ToolFailed as failure:
            raise tools.explain(failure) from failure
        return True

    def ensure_namespace(self, namespace: str = NAMESPACE) -> None:
        """The namespace, which refuses pods that do not keep to the Pod Security Standard "restricted".

        Its rules are those of the cluster's Kubernetes, whose version is pinned where the cluster is described.
        """
        rules = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "audit", "warn")}
        labels = {**rules, "app.kubernetes.io/managed-by": "exhibit"}
        body = {"metadata": {"name": namespace, "labels": labels}}
        core = CoreV1Api(self.api)

        def deleted() -> bool:
            """Whether it is still being deleted: what was put into it would go with it."""
            try:
                core.create_namespace(body)
                return False
            except ApiException as error:
                if error.status != 409:
                    raise
            return bool(core.patch_namespace(namespace, body).status.phase == "Terminating")

        if waited(deleted, NAMESPACE_SECONDS):
            raise ClusterError(
                f"namespace {namespace}",
                f"still being deleted after {NAMESPACE_SECONDS} s",
                "it to be gone",
                f"See what holds it: kubectl --context {self.context} get namespace {namespace} --output yaml",
            )

    @contextlib.contextmanager
    def speaking(self) -> Iterator[None]:
        """For a block that speaks to cluster or engine: if that is lost, a ClusterError says why."""
        try:
            yield
        except _LOST as error:
            self.require_well(str(error))
            if isinstance(error, DockerException):  # all is well: the engine refused, which is its caller's affair
                raise
            raise self._silent(error) from error
        except ApiException as error:
            if error.status:
                raise
            self.require_well(str(error.reason))
            raise self._silent(error) from error

    def require_well(self, detail: str = "") -> None:
        """Looks whether the cluster is at fault; `detail` is what made one ask.

        Raises:
            ClusterError: the engine does not answer; or the cluster is gone, stopped, or does not answer.
        """
        if found := self.illness():
            own = "" if self.name == default_name(self.workspace) else f" CLUSTER={self.name}"
            remedy = f"`make cluster{own}` starts it again or makes it anew; then run the command again."
            said = "".join(detail.strip().splitlines()[-1:])  # kubectl says the same thing five times before
            raise ClusterError(f"cluster {self.name}", found, "it to run", remedy, said)

    def illness(self) -> str | None:
        """What is wrong with it, in words, else None: its containers, its API server, each node.

        Raises:
            ClusterError: no Docker engine answers.
        """
        nodes = self.nodes()
        if not nodes:
            return "is gone (no container of it is left)"
        for node in nodes:
            if node.status != "running":
                return f"has a stopped node ({node.name}: {node.status})"
        try:
            with ApiClient(_configuration(self)) as api:
                answer = api.call_api("GET", f"{api.configuration.host}/readyz", _request_timeout=PROBE_SECONDS)
                if answer.status != 200:
                    return f"is not ready (its API server answers {answer.status})"
                unready = _unready(api, _members(nodes))
        except (ApiException, *_LOST) as error:
            return f"does not answer ({_first_line(error)})"
        return f"has a node that is not ready ({', '.join(unready)})" if unready else None

    def _silent(self, error: Exception) -> ClusterError:
        found = f"did not answer ({_first_line(error)})"
        return _Unanswered(f"cluster {self.name}", found, "an answer", "Run the command again.")

    def _run(self, *argv: str, seconds: float, input: str = "") -> str:
        # Where it is not told, Helm takes from its environment what to speak to: another cluster's server, say.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HELM_KUBE")}
        try:
            return tools.run(argv, seconds=seconds, input=input, environment=environment)
        except ToolFailed as failure:
            self.require_well(failure.detail)
            raise


def waited(still: Callable[[], _T], seconds: float) -> _T:
    """Asks until `still()` is false or the time is over; what it was in the end."""
    return Retrying(
        stop=stop_after_delay(seconds),
        wait=wait_fixed(0.5),
        retry=retry_if_result(bool),
        retry_error_callback=lambda state: state.outcome and state.outcome.result(),
    )(still)


def _configuration(cluster: Cluster) -> Any:
    """How Kubernetes' client reaches the cluster: directly, whatever proxy the environment names; each call once."""
    configuration = kubernetes.client.Configuration()
    options = {"client_configuration": configuration, "persist_config": False}
    try:
        kubernetes.config.load_kube_config(str(cluster.kubeconfig), cluster.context, **options)
    except Exception as error:  # whatever is wrong with the file: it is fetched anew by who mends the cluster
        raise ConfigException(f"{cluster.kubeconfig}: {error}") from error
    configuration.proxy, configuration.retries = None, False
    return configuration


def _members(nodes: list[Container]) -> list[Container]:
    """Those that are nodes to Kubernetes: several control planes have a load balancer before them."""
    return [node for node in nodes if node.labels.get("io.x-k8s.kind.role") != "external-load-balancer"]


def _unready(api: ApiClient, nodes: list[Container]) -> list[str]:
    """Names of the nodes that do not say they are ready, or have not said so since they were started.

    For a minute after a stop the API server repeats what a node said before it; only a renewed lease tells.
    """
    leases = CoordinationV1Api(api).list_namespaced_lease("kube-node-lease", _request_timeout=PROBE_SECONDS).items
    renewed = {lease.metadata.name: lease.spec.renew_time for lease in leases}
    ready = {
        node.metadata.name
        for node in CoreV1Api(api).list_node(_request_timeout=PROBE_SECONDS).items
        if any(condition.type == "Ready" and condition.status == "True" for condition in node.status.conditions)
    }
    never = datetime.min.replace(tzinfo=UTC)
    return [
        str(node.name)
        for node in nodes
        if node.name not in ready
        or renewed.get(node.name, never) < datetime.fromisoformat(node.attrs["State"]["StartedAt"])
    ]


def _holds(node: Container, image: str, image_id: str) -> bool:
    """Whether the node has the image under this name.

    To the engine's older image store an id is the digest of the image's configuration, as it is to the node; to the one
    that is containerd's it is the digest of its index or manifest, under which the node has noted the import.
    """
    found, (said, _) = node.exec_run(["crictl", "inspecti", image], demux=True)
    if found:
        return False
    status = json.loads(said)["status"]
    return image_id in {status["id"], *(name.partition("@")[2] for name in status["repoDigests"] or [])}


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
