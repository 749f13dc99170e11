"""Making, finding, mending and removing a kind cluster; each step can be cut off anywhere and is mended by a repeat."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass

from docker.errors import APIError
from docker.models.containers import Container

from exhibit import interrupts, processes
from exhibit.cluster import description, tools
from exhibit.cluster.connection import Cluster, waited
from exhibit.cluster.tools import ToolFailed
from exhibit.errors import ClusterError, ExhibitError
from exhibit.workspace import Workspace, write_json

CREATE_SECONDS = 900
"""With the node's image to be pulled."""
KIND_SECONDS = 120
READY_SECONDS = 120
"""Of a node that is new or was started again."""
ANSWER_SECONDS = 20
"""Of a node that ran all along."""

Say = Callable[[str], object]


@dataclass(frozen=True)
class _Note:
    """What is remembered of a cluster, in its folder: ids that Docker gave."""

    nodes: list[str]
    """Its containers; empty while it is being made. Another cluster of the same name has others."""
    before: list[str] | None
    """The networks there were before it was made; None if it was not made here."""


def check_tools(workspace: Workspace) -> None:
    """Looks for all a new cluster needs.

    Raises:
        ClusterError: all that is missing, each with its remedy.
    """
    _require(tools.missing(workspace) + tools.cramped())


def find(workspace: Workspace, name: str = "") -> Cluster | None:
    """The cluster of that name (else of EXHIBIT_CLUSTER, else of kind-config.yaml), running or not.

    Where there is none (it was deleted behind our back, say), or its creation was cut off, None.

    Raises:
        ClusterError: no Docker engine answers.
    """
    cluster = Cluster(workspace, name or description.default_name(workspace))
    nodes = cluster.nodes()
    if not nodes:
        _forget(cluster)
    if not nodes or _unfinished(cluster):
        return None
    with contextlib.suppress(ToolFailed):  # a cluster that is ill: who speaks to it learns why
        _recognise(cluster, nodes)
    return cluster


def ensure(workspace: Workspace, name: str = "", say: Say = lambda _: None) -> Cluster:
    """The cluster of that name (see `find`), running: as it is, started again, or made (anew).

    Raises:
        ClusterError: something it needs is missing (all of that at once); it does not get ready; or it is broken and
            was not made here, so that it must not be deleted.
    """
    cluster = Cluster(workspace, name or description.default_name(workspace))
    lacks, nodes = tools.missing(workspace), list[Container]()
    with contextlib.suppress(ClusterError):  # no engine answers: that is named already
        nodes = cluster.nodes()
        lacks += [] if nodes else _taken_ports(workspace)
    if not any(node.status == "running" for node in nodes):
        lacks += tools.cramped()
    _require(lacks)
    if nodes:
        illness = _mend(cluster, nodes, say)
        if illness is None:
            return cluster
        if not _ours(cluster):
            expected = "it to run: it was not made by `make cluster`, which would make its own anew"
            remedy = f"Mend it, or delete it yourself: kind delete cluster --name {cluster.name}"
            raise ClusterError(f"cluster {cluster.name}", illness, expected, remedy)
        say(f"it {illness}, and is made anew")
    _delete(cluster)
    _create(cluster, say)
    return cluster


def remove(workspace: Workspace, name: str = "") -> bool:
    """Removes the cluster of that name (see `find`) and what was made for it; whether there was anything.

    That is: its containers and their volumes, port-forwards to it, its context in kubectl's configuration, and kind's
    network unless that was there before or another cluster is on it. Images stay: the next cluster needs them.

    Raises:
        ClusterError: it was not made by `ensure`; or no engine answers.
    """
    return _delete(Cluster(workspace, name or description.default_name(workspace)))


def remove_images() -> int:
    """Removes the images that were built of this project from the Docker engine; how many."""
    client = tools.engine()
    references = [tag for image in client.images.list(filters={"reference": "exhibit/*"}) for tag in image.tags]
    for reference in references:
        try:
            client.images.remove(reference)
        except APIError as error:
            found, remedy = f"not removed ({error.explanation})", "Remove the container that uses it, and try again."
            raise ClusterError(f"image {reference}", found, "it to be unused", remedy) from error
    return len(references)


def _require(lacks: list[ExhibitError]) -> None:
    if len(lacks) == 1:
        raise lacks[0]
    if lacks:
        remedy, lines = "Mend each line below and run the command again.", "\n".join(one.line() for one in lacks)
        raise ClusterError("what a cluster needs", f"{len(lacks)} things are missing", "none", remedy, lines)


def _taken_ports(workspace: Workspace) -> list[ExhibitError]:
    """The ports of this machine that the new cluster is to map and something else holds."""
    ports = [(address, port) for address, port in description.load(workspace).ports if ":" not in address]  # of IPv4
    taken = [port for address, port in ports if not processes.is_free(port, address)]
    if not taken:
        return []
    holders = set[str]()
    with contextlib.suppress(ClusterError):
        for container in tools.engine().containers.list(ignore_removed=True):
            bound = {int(one["HostPort"]) for bindings in container.ports.values() for one in bindings or []}
            holders |= {str(container.name)} if bound & set(taken) else set()
    return [tools.port_taken(", ".join(map(str, taken)), ", ".join(sorted(holders)))]


def _mend(cluster: Cluster, nodes: list[Container], say: Say) -> str | None:
    """Starts nodes that are stopped and waits for the cluster; what is still wrong with it then, else None."""
    if _unfinished(cluster):
        return "was not made to its end"
    asleep = [node for node in nodes if node.status != "running"]
    for node in asleep:
        say(f"{node.name} is {node.status}, and is started again")
        try:
            node.unpause() if node.status == "paused" else node.start()
        except APIError as error:
            failure = ToolFailed(str(node.name), "not started", "it to start", "", str(error.explanation))
            explained = tools.explain(failure)
            if explained is not failure:  # made anew, it would fail in the same way
                raise explained from error
            return f"has a node that does not start ({error.explanation})"

    def illness() -> str | None:
        with contextlib.suppress(ToolFailed):
            _recognise(cluster, cluster.nodes())
        found = cluster.illness()
        if found:  # the fault may be the kubeconfig's: it is fetched anew
            cluster.kubeconfig.unlink(missing_ok=True)
        return found

    return waited(illness, READY_SECONDS if asleep else ANSWER_SECONDS)


def _create(cluster: Cluster, say: Say) -> None:
    """Makes the cluster; where that fails or is interrupted nothing of it is left."""
    say("kind makes it; the node's image is pulled first, if it is not there")
    before = [str(network.id) for network in tools.engine().networks.list()]
    _remember(cluster, _Note([], before))
    config = cluster.workspace.root / description.FILE
    argv = ("kind", "create", "cluster", f"--config={config}", f"--name={cluster.name}")
    try:
        tools.run([*argv, f"--kubeconfig={cluster.kubeconfig}"], seconds=CREATE_SECONDS)
        if found := waited(cluster.illness, READY_SECONDS):
            raise ClusterError(
                f"new cluster {cluster.name}", found, f"it to be ready in {READY_SECONDS} s", "Try again."
            )
        _introduce(cluster, say)
        _remember(cluster, _Note(_ids(cluster.nodes()), before))
    except BaseException as error:
        with interrupts.deferred(), contextlib.suppress(ClusterError):  # the first error is the one to tell
            _delete(cluster)
        if not isinstance(error, ToolFailed):
            raise
        tools.engine()  # it may have been stopped meanwhile
        raise tools.explain(error) from error


def _introduce(cluster: Cluster, say: Say) -> None:
    """Makes the cluster known to the user's kubectl. What was its current context stays it; where none was, this is."""
    with interrupts.deferred():
        current = ""
        with contextlib.suppress(ToolFailed):  # none is set
            current = tools.run(["kubectl", "config", "current-context"], seconds=KIND_SECONDS).strip()
        try:
            tools.run(["kind", "export", "kubeconfig", f"--name={cluster.name}"], seconds=KIND_SECONDS)
            if current:
                tools.run(["kubectl", "config", "set", "current-context", current], seconds=KIND_SECONDS)
        except ToolFailed as failure:  # the engine has its own
            say(f"kubectl was not told of it: {failure.detail.splitlines()[-1:]}")


def _delete(cluster: Cluster) -> bool:
    """See `remove`."""
    nodes, known = cluster.nodes(), cluster.folder.exists()
    if nodes and not _ours(cluster):
        raise ClusterError(
            f"cluster {cluster.name}",
            "not made by `make cluster`",
            "it to be ours: no other is deleted",
            f"Delete it yourself: kind delete cluster --name {cluster.name}",
        )
    if nodes:
        tools.run(["kind", "delete", "cluster", f"--name={cluster.name}"], seconds=KIND_SECONDS)
    _forget(cluster)
    return bool(nodes) or known


def _forget(cluster: Cluster) -> None:
    """Ends the port-forwards to a cluster that is gone, and removes its folder and the network that was made for it."""
    with interrupts.deferred():
        for running in processes.noted(cluster.folder):
            processes.stop(running)
        note = _noted(cluster)
        if note and note.before is not None:
            _release_network(note.before)
        shutil.rmtree(cluster.folder, ignore_errors=True)
        cluster.__dict__.pop("api", None)


def _release_network(before: list[str]) -> None:
    """Removes kind's network if it was made with our cluster and no container, running or not, is on it.

    All kind clusters share it, and kind leaves it behind; a stopped node would not start again without it.
    """
    client, name = tools.engine(), os.environ.get("KIND_EXPERIMENTAL_DOCKER_NETWORK", "kind")
    for network in client.networks.list(names=[name]):
        used = client.containers.list(all=True, filters={"network": network.id}, ignore_removed=True)
        if network.name == name and network.id not in before and not used:
            with contextlib.suppress(APIError):  # a cluster that is being made just now has taken it
                network.remove()


def _recognise(cluster: Cluster, nodes: list[Container]) -> None:
    """Forgets an earlier cluster of the same name, and gets the kubeconfig of this one if there is none.

    Raises:
        ToolFailed: it cannot be had.
    """
    note = _noted(cluster)
    if note is None or note.nodes != _ids(nodes):
        _forget(cluster)
        _remember(cluster, _Note(_ids(nodes), None))
    if not cluster.kubeconfig.exists() and all(node.status == "running" for node in nodes):
        cluster.__dict__.pop("api", None)
        argv = ("kind", "export", "kubeconfig", f"--name={cluster.name}", f"--kubeconfig={cluster.kubeconfig}")
        tools.run(argv, seconds=KIND_SECONDS)


def _ids(nodes: list[Container]) -> list[str]:
    return sorted(str(node.id) for node in nodes)


def _noted(cluster: Cluster) -> _Note | None:
    with contextlib.suppress(OSError, ValueError, TypeError):
        return _Note(**json.loads((cluster.folder / "cluster.json").read_text()))
    return None


def _remember(cluster: Cluster, note: _Note) -> None:
    write_json(cluster.folder / "cluster.json", asdict(note))


def _ours(cluster: Cluster) -> bool:
    """Whether it may be deleted: it was made here, or has the name that kind-config.yaml gives to ours."""
    note = _noted(cluster)
    return cluster.name == description.load(cluster.workspace).name or (note is not None and note.before is not None)


def _unfinished(cluster: Cluster) -> bool:
    note = _noted(cluster)
    return note is not None and not note.nodes
