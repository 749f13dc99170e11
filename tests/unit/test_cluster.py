"""The kind cluster, without one: programs on PATH play what the real ones were seen to print, and a stand-in engine
answers for what only a broken one would. What a real engine can show is in tests/kind.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from docker.errors import APIError, ImageNotFound
from kubernetes.client import CoreV1Api
from ruamel.yaml import YAML

from exhibit import cluster, processes, versions
from exhibit.cluster import Cluster, ClusterError, description, life, tools
from exhibit.cluster.tools import ToolFailed
from exhibit.workspace import Workspace

ROOT = Path(__file__).parents[2]
SAID = {
    "kind version": "kind v0.33.0 go1.26.8 linux/amd64",
    "kubectl version": '{"clientVersion": {"major": "1", "gitVersion": "v1.36.1"}, "kustomizeVersion": "v5.8.1"}',
    "helm version": "v3.21.4+g1a2b3c4",
    "docker ": "",
}
"""What programs of today print, by their name and first argument."""
PORT_ALLOCATED = """\
Deleted nodes: ["exhibit-control-plane"]
ERROR: failed to create cluster: command "docker run --name exhibit-control-plane --publish=127.0.0.1:30080:30080/TCP \
--publish=127.0.0.1:33321:6443/TCP kindest/node:v1.36.1" failed with error: exit status 125

Command Output: 900e1593cc4063a2073cf7133d0f4fc2231ff5cf66cafb3492258582105017ff
docker: Error response from daemon: driver failed programming external connectivity on endpoint exhibit-control-plane \
(d64cd844bbca): Bind for 127.0.0.1:30085 failed: port is already allocated

Run 'docker run --help' for more information"""
PORT_IN_USE = PORT_ALLOCATED.replace(
    "Bind for 127.0.0.1:30085 failed: port is already allocated",
    "Error starting userland proxy: listen tcp4 127.0.0.1:30085: bind: address already in use",
)
PORT_OF_DOCKER_28 = PORT_ALLOCATED.replace(
    "Bind for 127.0.0.1:30085 failed: port is already allocated",
    "failed to bind host port for 127.0.0.1:30085:172.18.0.2:30085/tcp: address already in use",
)
PORT_OF_DESKTOP = PORT_ALLOCATED.replace(
    "Bind for 127.0.0.1:30085 failed: port is already allocated",
    "Ports are not available: exposing port TCP 127.0.0.1:30085 -> 127.0.0.1:0: listen tcp 127.0.0.1:30085: bind: "
    "address already in use",
)
NO_SPACE = """\
Image: "exhibit/toy:1" with ID "sha256:0b823bcdbab1" not yet present on node "exhibit-control-plane", loading...
ERROR: command "docker save -o /tmp/images-tar3196336822/images.tar exhibit/toy:1" failed with error: exit status 1

Command Output: write /tmp/images-tar3196336822/.tmp-images.tar3401464486: no space left on device"""
NO_REGISTRY = """\
 ✗ Ensuring node image (kindest/node:v1.36.1) 🖼️
ERROR: failed to create cluster: failed to pull image "kindest/node:v1.36.1": command "docker pull \
kindest/node:v1.36.1" failed with error: exit status 1

Command Output: Error response from daemon: Get "https://registry-1.docker.io/v2/": dial tcp: no such host"""


@dataclass
class Node:
    """A container of the stand-in engine."""

    name: str = "exhibit-control-plane"
    status: str = "running"
    id: str = "first"
    labels: dict[str, str] = field(default_factory=dict)
    ports: dict[str, list[dict[str, str]] | None] = field(default_factory=dict)
    images: dict[str, dict[str, Any]] = field(default_factory=dict)
    network: str = "network of kind"
    refusal: str = ""

    def start(self) -> None:
        if self.refusal:
            raise APIError("500", explanation=self.refusal)
        self.status = "running"

    def unpause(self) -> None:
        assert self.status == "paused"
        self.status = "running"

    def exec_run(self, argv: list[str], demux: bool) -> tuple[int, tuple[bytes, bytes]]:
        assert argv[:2] == ["crictl", "inspecti"]
        if argv[2] not in self.images:
            return 1, (b"", b"no such image")
        return 0, (json.dumps({"status": self.images[argv[2]]}).encode(), b"")


class Engine:
    """As much of a Docker client as is asked."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.local: dict[str, str] = {}
        self.made_networks: dict[str, str] = {"network of bridge": "bridge"}
        self.folder = "/"
        self.containers = SimpleNamespace(list=self._containers)
        self.images = SimpleNamespace(get=self._image)
        self.networks = SimpleNamespace(list=self._networks)

    def info(self) -> dict[str, Any]:
        return {"DockerRootDir": self.folder, "MemTotal": 2 * tools.GIB}

    def _containers(
        self, all: bool = False, filters: dict[str, str] | None = None, ignore_removed: bool = False
    ) -> Any:
        found = [node for node in self.nodes if all or node.status == "running"]
        if filters and "network" in filters:
            return [node for node in found if node.network == filters["network"]]
        if filters:
            name = filters["label"].removeprefix("io.x-k8s.kind.cluster=")
            return [node for node in found if node.name == f"{name}-control-plane"]
        return found

    def _image(self, name: str) -> Any:
        if name not in self.local:
            raise ImageNotFound(name)
        return SimpleNamespace(id=self.local[name])

    def _networks(self, names: list[str] | None = None) -> Any:
        def remove(id: str) -> Callable[[], object]:
            return lambda: self.made_networks.pop(id)

        return [
            SimpleNamespace(id=id, name=name, remove=remove(id))
            for id, name in self.made_networks.items()
            if names is None or any(one in name for one in names)
        ]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A checkout; on PATH are the programs of today, and no engine answers."""
    for name in ("versions.yaml", description.FILE):
        shutil.copy(ROOT / name, tmp_path)
    [port] = processes.free_ports(1)
    config = (ROOT / description.FILE).read_text().replace("hostPort: 30080", f"hostPort: {port}")
    kept = [line for line in config.splitlines() if "hostPort: 30" not in line]
    (tmp_path / description.FILE).write_text("\n".join(kept) + "\n")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    monkeypatch.delenv(description.VARIABLE, raising=False)
    monkeypatch.setattr(tools, "DISK_BYTES", 0)
    monkeypatch.setattr(tools, "MEMORY_BYTES", 0)
    for asked, said in SAID.items():
        program(tmp_path, asked.split(" ")[0], f"echo '{said}'")
    return Workspace(tmp_path)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    """An engine that answers, without any container."""
    made = Engine()
    monkeypatch.setattr(tools, "engine", lambda: made)
    return made


def program(folder: Path, name: str, script: str) -> None:
    """A program on PATH; the arguments it is called with are noted."""
    path = folder / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f'#!/bin/sh\necho "{name} $*" >> {folder}/called\nPATH=/usr/bin:/bin\n{script}\n')
    path.chmod(0o755)


def called(place: Workspace) -> list[str]:
    log = place.root / "called"
    return log.read_text().splitlines() if log.exists() else []


def playing(said: str, code: int = 1) -> str:
    return f"cat >&2 <<'END'\n{said}\nEND\nexit {code}"


def making(engine: Engine, monkeypatch: pytest.MonkeyPatch, place: Workspace, then: str = "") -> None:
    """kind that makes and deletes the stand-in engine's node; every cluster made is well."""
    run = tools.run

    def kind(argv: Any, **options: Any) -> str:
        said = run(argv, **options)
        if list(argv[:3]) == ["kind", "create", "cluster"]:
            name = argv[4].removeprefix("--name=")
            engine.nodes.append(Node(f"{name}-control-plane", id=f"made {len(called(place))}"))
            engine.made_networks["network of kind"] = "kind"
            Path(argv[5].removeprefix("--kubeconfig=")).write_text("made")
        if list(argv[:3]) == ["kind", "delete", "cluster"]:
            name = argv[3].removeprefix("--name=")
            engine.nodes[:] = [node for node in engine.nodes if node.name != f"{name}-control-plane"]
        return said

    monkeypatch.setattr(tools, "run", kind)
    monkeypatch.setattr(Cluster, "illness", lambda self: None)
    program(place.root, "kind", f'[ "$1" != version ] || echo {SAID["kind version"]}\n{then}')


# --- what is needed ---------------------------------------------------------------------------------------------------


def test_what_is_there_and_new_enough_is_no_complaint(place: Workspace, engine: Engine) -> None:
    cluster.check_tools(place)


def test_all_that_is_missing_is_named_at_once(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    (place.root / "bin" / "helm").unlink()
    (place.root / "bin" / "docker").unlink()
    program(place.root, "kind", "echo 'kind v0.20.0 go1.20.4 linux/amd64'")
    program(place.root, "kubectl", playing("error: unknown flag: --output"))
    monkeypatch.setattr(tools, "DISK_BYTES", 2**60)
    monkeypatch.setattr(tools, "MEMORY_BYTES", 2**50)
    with pytest.raises(ClusterError, match="7 things are missing") as caught:
        cluster.ensure(place)
    lines = caught.value.detail.splitlines()
    wanted = {
        "Docker engine: does not answer": "docker info",
        "docker: not on PATH": "https://docs.docker.com",
        "kind: version 0.20, expected 0.27 or newer": "https://kind.sigs.k8s.io",
        "`kubectl version`: exit code 1": "Mend what it says",
        "helm: not on PATH, expected helm 3.14 or newer": "https://helm.sh",
        "disk of /": "docker system prune",
        "memory": "End other programs",
    }
    assert len(lines) == len(wanted)
    for line, (found, remedy) in zip(lines, wanted.items(), strict=True):
        assert line.startswith(found)
        assert remedy in line


@pytest.mark.parametrize(
    ("name", "said", "complaint"),
    [
        ("kind", "kind v0.27.0 go1.23.6 linux/amd64", None),
        ("kind", "kind v0.33.0-alpha+d5f3b2c1 go1.26.1 darwin/arm64", None),
        (
            "kind",
            "kind v0.26.0 go1.23.4 linux/amd64",
            "kind: version 0.26, expected 0.27 or newer. Install a newer one",
        ),
        ("kubectl", '{"clientVersion": {"gitVersion": "v1.31.5-gke.100"}}', None),
        ("kubectl", '{"clientVersion": {"gitVersion": "v1.30.14"}}', "kubectl: version 1.30, expected 1.31"),
        ("kubectl", "Client Version: version.Info{}", "kubectl: its version cannot be read in 'Client Version"),
        ("helm", "v3.14.0+g3fc9f4b", None),
        ("helm", "v4.0.1+g12500dd", None),
        ("helm", "v3.9.4+gdbc6d8e", "helm: version 3.9, expected 3.14 or newer"),
    ],
)
def test_versions_are_read_as_each_program_prints_them(
    place: Workspace, engine: Engine, name: str, said: str, complaint: str | None
) -> None:
    program(place.root, name, f"echo '{said}'")
    found = [one.line() for one in tools.missing(place)]
    if complaint is None:
        assert found == []
    else:
        assert len(found) == 1
        assert found[0].startswith(complaint)


def test_one_thing_that_is_missing_is_the_message_itself(place: Workspace, engine: Engine) -> None:
    (place.root / "bin" / "helm").unlink()
    with pytest.raises(ClusterError, match=r"^helm: not on PATH, expected helm 3\.14 or newer\. Install it: https"):
        cluster.ensure(place)


@pytest.mark.parametrize(
    ("folder", "found"),
    [
        ("/", "memory: {available} available, expected 3.0 GiB"),
        ("/no/such/folder", "memory: 2.0 GiB available, expected 3.0 GiB"),
    ],
    ids=["engine of this machine", "engine in a machine of its own"],
)
def test_memory_is_that_of_the_machine_the_engine_runs_on(
    place: Workspace, engine: Engine, monkeypatch: pytest.MonkeyPatch, folder: str, found: str
) -> None:
    engine.folder = folder
    monkeypatch.setattr(tools, "MEMORY_BYTES", 3 * tools.GIB)
    monkeypatch.setattr(tools.psutil, "virtual_memory", lambda: SimpleNamespace(available=tools.GIB))
    [complaint] = tools.cramped()
    assert complaint.line().startswith(found.format(available="1.0 GiB"))


def test_a_running_cluster_needs_no_room_for_another(
    place: Workspace, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    making(engine, monkeypatch, place)
    made = cluster.ensure(place)
    monkeypatch.setattr(tools, "MEMORY_BYTES", 2**60)
    assert cluster.ensure(place) == made
    engine.nodes[0].status = "exited"
    with pytest.raises(ClusterError, match="memory"):
        cluster.ensure(place)


# --- programs that are run --------------------------------------------------------------------------------------------


def test_a_program_that_takes_too_long_is_ended_with_all_it_started(place: Workspace) -> None:
    program(place.root, "kind", f"echo begun >&2; sleep 60 & echo $! > {place.root}/child; wait")
    with pytest.raises(ToolFailed, match=r"`kind load`: not done after 1 s, expected it to end") as caught:
        tools.run(["kind", "load"], seconds=1)
    assert caught.value.detail == "begun"
    child = int((place.root / "child").read_text())
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and Path(f"/proc/{child}").exists():
        time.sleep(0.05)
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def test_a_failing_programs_last_words_are_kept(place: Workspace) -> None:
    program(place.root, "helm", playing("\n".join(f"line {number}" for number in range(30)), code=3))
    with pytest.raises(ToolFailed, match=r"^`helm upgrade toy`: exit code 3, expected 0") as caught:
        tools.run(["helm", "--kubeconfig=x", "upgrade", "toy", "--wait"], seconds=10)
    assert caught.value.detail.splitlines() == [f"line {number}" for number in range(10, 30)]
    assert caught.value.exit_code == 2
    with pytest.raises(ToolFailed, match=r"`nothing`: No such file or directory"):
        tools.run(["nothing"], seconds=10)


def test_kind_is_not_sent_to_another_engine(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIND_EXPERIMENTAL_PROVIDER", "podman")
    program(place.root, "kind", "echo provider: $KIND_EXPERIMENTAL_PROVIDER; cat")
    assert tools.run(["kind"], seconds=10, input="asked") == "provider:\nasked"


@pytest.mark.parametrize("said", [PORT_ALLOCATED, PORT_IN_USE, PORT_OF_DOCKER_28, PORT_OF_DESKTOP])
def test_a_taken_port_is_named_with_rule_and_remedy(said: str) -> None:
    explained = tools.explain(ToolFailed("kind", "exit code 1", "0", "", said))
    assert explained.line() == (
        "port 30085 of this machine: taken, expected it to be free for the cluster's node. Stop what holds it "
        "(`docker ps` and `ss -ltnp` show it), or change the hostPort in kind-config.yaml and run "
        "`make cluster-down cluster`."
    )


def test_a_full_disk_is_named_and_what_is_unknown_is_left_as_it_is() -> None:
    full = tools.explain(ToolFailed("`kind load`", "exit code 1", "0", "", NO_SPACE))
    assert full.line().startswith("`kind load`: no space left on the disk, expected room for the image")
    assert "docker system df" in full.remedy
    unknown = ToolFailed("kind", "exit code 1", "0", "", NO_REGISTRY)
    assert tools.explain(unknown) is unknown


# --- the description --------------------------------------------------------------------------------------------------


def test_the_committed_description_maps_node_ports_to_loopback_alone() -> None:
    raw = YAML(typ="safe").load((ROOT / description.FILE).read_text())
    [node] = raw["nodes"]
    assert node["role"] == "control-plane"
    assert node["image"] == versions.load(Workspace(ROOT)).images["node"]
    assert [(one["containerPort"], one["hostPort"]) for one in node["extraPortMappings"]] == [
        (port, port) for port in range(30080, 30100)
    ]
    found = description.load(Workspace(ROOT))
    assert found.name == "exhibit"
    assert found.ports == [("127.0.0.1", port) for port in range(30080, 30100)]


@pytest.mark.parametrize(
    "text", [None, "kind: [", "kind: Cluster", "name: x\nnodes: [{extraPortMappings: [{containerPort: 1}]}]", "[]"]
)
def test_a_description_that_is_none_is_refused(place: Workspace, text: str | None) -> None:
    path = place.root / description.FILE
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(ClusterError, match=r"^kind-config\.yaml: cannot be read .* git checkout kind-config\.yaml"):
        cluster.default_name(place)


def test_the_environment_names_another_cluster(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cluster.default_name(place) == "exhibit"
    monkeypatch.setenv(description.VARIABLE, "")
    assert cluster.default_name(place) == "exhibit"
    monkeypatch.setenv(description.VARIABLE, "mine")
    assert cluster.default_name(place) == "mine"


@pytest.mark.parametrize("name", ["", "../elsewhere", "Mine", "-x", "a/b"])
def test_a_name_that_is_none_is_refused(place: Workspace, name: str) -> None:
    with pytest.raises(ClusterError, match="no name of a cluster"):
        Cluster(place, name)


# --- speaking to it ---------------------------------------------------------------------------------------------------


def test_kubectl_and_helm_are_told_the_cluster(
    place: Workspace, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HELM_KUBEAPISERVER", "https://elsewhere")
    monkeypatch.setenv("HELM_KUBECONTEXT", "elsewhere")
    program(place.root, "kubectl", "cat")
    program(place.root, "helm", "env | grep -c HELM_KUBE; exit 0")
    mine = Cluster(place, "exhibit")
    assert mine.kubectl("apply", "--filename=-", input="kind: Pod") == "kind: Pod"
    assert mine.helm("list") == "0\n"
    own = f"{place.root}/.work/kind/exhibit/kubeconfig"
    assert called(place) == [
        f"kubectl --kubeconfig={own} --context=kind-exhibit apply --filename=-",
        f"helm --kubeconfig={own} --kube-context=kind-exhibit list",
    ]
    assert mine.variables == {"KUBECONFIG": own, "HELM_KUBECONTEXT": "kind-exhibit"}


def test_a_call_that_fails_tells_what_was_said(
    place: Workspace, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Cluster, "illness", lambda self: None)
    program(place.root, "helm", playing("Error: values don't meet the specifications of the schema(s)"))
    with pytest.raises(ClusterError, match="`helm upgrade toy`: exit code 1") as caught:
        Cluster(place, "exhibit").helm("upgrade", "toy")
    assert caught.value.detail == "Error: values don't meet the specifications of the schema(s)"


@pytest.mark.parametrize(
    ("nodes", "found"),
    [
        ([], "is gone"),
        ([Node(status="exited")], r"has a stopped node \(exhibit-control-plane: exited\)"),
        ([Node()], r"does not answer \(.*kubeconfig"),
    ],
    ids=["deleted", "stopped", "without credentials"],
)
@pytest.mark.parametrize(
    "call",
    [
        lambda one: one.kubectl("get", "pods"),
        lambda one: one.helm("list"),
        lambda one: one.api,
        lambda one: one.ensure_namespace(),
        lambda one: one.load("exhibit/toy:1"),
    ],
    ids=["kubectl", "helm", "api", "namespace", "load"],
)
def test_whichever_call_finds_the_cluster_ill_says_so_and_what_helps(
    place: Workspace, engine: Engine, nodes: list[Node], found: str, call: Callable[[Cluster], object]
) -> None:
    engine.nodes, engine.local = nodes, {"exhibit/toy:1": "sha256:1"}
    for name in ("kubectl", "helm", "kind"):
        program(place.root, name, playing("first\nThe connection to the server 127.0.0.1:41321 was refused"))
    with pytest.raises(ClusterError, match=rf"^cluster exhibit: {found}") as caught:
        call(Cluster(place, "exhibit"))
    assert "`make cluster` starts it again or makes it anew" in caught.value.remedy
    assert len(str(caught.value).splitlines()) <= 2
    assert caught.value.exit_code == 2


def test_the_remedy_names_the_cluster_that_was_asked_for(place: Workspace, engine: Engine) -> None:
    with pytest.raises(ClusterError, match="`make cluster CLUSTER=mine` starts it again"):
        Cluster(place, "mine").require_well()


def test_an_engine_that_was_stopped_is_what_any_call_complains_of(place: Workspace) -> None:
    program(place.root, "kubectl", playing("refused"))
    mine = Cluster(place, "exhibit")
    for call in (
        lambda: mine.kubectl("get", "pods"),
        mine.nodes,
        lambda: mine.load("x:1"),
        lambda: cluster.find(place),
    ):
        with pytest.raises(
            ClusterError, match=r"^Docker engine: does not answer \(No such file or directory\).* Start D"
        ):
            call()


@pytest.fixture
def flaky(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Cluster, list[str]]]:
    """A cluster that is well, whose server drops the first connection; and what it was asked."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self) -> None:
            asked.append(self.command)
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if len(asked) > 1:
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(b'{"kind": "NamespaceList", "items": []}')

        do_GET = do_POST = answer

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        made = Cluster(place, "exhibit")
        made.folder.mkdir(parents=True)
        context = {"name": made.context, "context": {"cluster": "it", "user": "it"}}
        address = {"name": "it", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}
        made.kubeconfig.write_text(
            json.dumps({"clusters": [address], "users": [{"name": "it", "user": {}}], "contexts": [context]})
        )
        monkeypatch.setattr(Cluster, "illness", lambda self: None)
        yield made, asked
        server.shutdown()


def test_a_question_is_asked_again_if_a_connection_breaks(flaky: tuple[Cluster, list[str]]) -> None:
    mine, asked = flaky
    assert CoreV1Api(mine.api).list_namespace().items == []
    assert asked == ["GET", "GET"]


def test_a_change_is_not_made_twice(flaky: tuple[Cluster, list[str]]) -> None:
    mine, asked = flaky
    with pytest.raises(ClusterError, match=r"^cluster exhibit: did not answer \(.*\), expected an answer"):
        CoreV1Api(mine.api).create_namespace({"metadata": {"name": "one"}})
    assert asked == ["POST"]


def test_only_node_ports_on_loopback_are_mapped(place: Workspace, engine: Engine) -> None:
    def bound(address: str, port: int) -> list[dict[str, str]]:
        return [{"HostIp": address, "HostPort": str(port)}]

    engine.nodes = [
        Node(
            ports={
                "6443/tcp": bound("127.0.0.1", 41321),
                "30080/tcp": bound("127.0.0.1", 41080),
                "30081/tcp": bound("0.0.0.0", 41081) + bound("::", 41081),
                "30082/udp": bound("127.0.0.1", 41082),
                "30083/tcp": bound("192.0.2.1", 41083),
                "30084/tcp": None,
                "80/tcp": bound("127.0.0.1", 8080),
            }
        )
    ]
    assert Cluster(place, "exhibit").ports() == {30080: 41080, 30081: 41081}


@pytest.mark.parametrize(
    ("held", "copied"),
    [
        ({"id": "sha256:config", "repoDigests": None}, False),
        ({"id": "sha256:other", "repoDigests": ["docker.io/library/import-2026-11-25@sha256:config"]}, False),
        ({"id": "sha256:other", "repoDigests": ["docker.io/library/import-2026-11-25@sha256:another"]}, True),
        (None, True),
    ],
    ids=["same", "same, by containerd's image store", "another under this name", "none"],
)
def test_an_image_is_copied_unless_every_node_has_it(
    place: Workspace, engine: Engine, held: dict[str, Any] | None, copied: bool
) -> None:
    engine.local = {"exhibit/toy:1": "sha256:config"}
    complete = {"exhibit/toy:1": {"id": "sha256:config", "repoDigests": None}}
    balancer = Node("exhibit-external-load-balancer", labels={"io.x-k8s.kind.role": "external-load-balancer"})
    engine.nodes = [Node(images=complete), Node(images={"exhibit/toy:1": held} if held else {}), balancer]
    assert Cluster(place, "exhibit").load("exhibit/toy:1") is copied
    assert called(place) == (["kind load docker-image exhibit/toy:1 --name=exhibit"] if copied else [])


def test_an_image_that_is_nowhere_or_finds_no_room(
    place: Workspace, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Cluster, "illness", lambda self: None)
    engine.local, engine.nodes = {"exhibit/toy:1": "sha256:config"}, [Node()]
    program(place.root, "kind", playing(NO_SPACE))
    with pytest.raises(ClusterError, match=r"image exhibit/other:1: not in the Docker engine"):
        Cluster(place, "exhibit").load("exhibit/other:1")
    with pytest.raises(ClusterError, match=r"`kind load docker-image exhibit/toy:1`: no space left on the disk"):
        Cluster(place, "exhibit").load("exhibit/toy:1")


# --- its life ---------------------------------------------------------------------------------------------------------


def test_one_is_made_for_the_engine_and_made_known_to_kubectl(
    place: Workspace, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    making(engine, monkeypatch, place)
    kubectl = f"[ \"$2\" = current-context ] && echo elsewhere || echo '{SAID['kubectl version']}'"
    program(place.root, "kubectl", kubectl)
    made = cluster.ensure(place)
    calls = [line for line in called(place) if " version" not in line]
    assert calls == [
        f"kind create cluster --config={place.root}/kind-config.yaml --name=exhibit --kubeconfig={made.kubeconfig}",
        "kubectl config current-context",
        "kind export kubeconfig --name=exhibit",
        "kubectl config set current-context elsewhere",
    ]
    assert cluster.find(place) == made


def test_a_taken_port_is_found_before_anything_is_made(
    place: Workspace, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    making(engine, monkeypatch, place)
    [(address, port)] = description.load(place).ports
    with socket.socket() as other:
        other.bind((address, port))
        other.listen()
        with pytest.raises(ClusterError, match=rf"^port {port} of this machine: taken, expected it to be free"):
            cluster.ensure(place)
        engine.nodes = [Node("web", ports={"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": str(port)}]}), Node("idle")]
        with pytest.raises(ClusterError, match=rf"^port {port} of this machine: taken by the container web, expected"):
            cluster.ensure(place)
    assert not [line for line in called(place) if "create" in line]


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (PORT_ALLOCATED, "^port 30085 of this machine: taken"),
        (NO_SPACE, "no space left on the disk"),
        (NO_REGISTRY, r"`kind create cluster`: exit code 1.*\n(.*\n)*.*failed to pull image"),
    ],
    ids=["port", "space", "registry"],
)
def test_of_one_that_cannot_be_made_nothing_is_left(
    place: Workspace, engine: Engine, monkeypatch: pytest.MonkeyPatch, said: str, message: str
) -> None:
    making(engine, monkeypatch, place, then=f'[ "$1" != create ] || {{ {playing(said)}\n}}')
    with pytest.raises(ClusterError, match=message):
        cluster.ensure(place)
    assert not (place.state / "kind" / "exhibit").exists()
    assert cluster.find(place) is None


def test_an_interrupt_leaves_nothing(place: Workspace, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    making(engine, monkeypatch, place)

    def interrupt(self: Cluster) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Cluster, "illness", interrupt)
    with pytest.raises(KeyboardInterrupt):
        cluster.ensure(place)
    assert engine.nodes == []
    assert engine.made_networks == {"network of bridge": "bridge"}
    assert not (place.state / "kind" / "exhibit").exists()


def test_one_whose_creation_was_cut_off_is_made_anew(
    place: Workspace, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    making(engine, monkeypatch, place)
    made = cluster.ensure(place)
    life._remember(made, life._Note([], []))
    assert cluster.find(place) is None
    said: list[str] = []
    cluster.ensure(place, say=said.append)
    assert said[0] == "it was not made to its end, and is made anew"
    assert len([line for line in called(place) if line.startswith("kind create")]) == 2


def test_what_was_kept_of_a_deleted_one_goes_and_port_forwards_end(
    place: Workspace, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    making(engine, monkeypatch, place)
    made = cluster.ensure(place)
    argv = [sys.executable, "-c", "import time; time.sleep(60)"]
    forward = processes.start(
        "forward", argv, environment={}, cwd=place.root, folder=made.folder / "forwards", grace_seconds=5
    )
    engine.nodes.clear()
    assert cluster.find(place) is None
    assert forward.process() is None
    assert not made.folder.exists()
    assert engine.made_networks == {"network of bridge": "bridge"}


def test_one_made_anew_by_hand_is_recognised_as_another(
    place: Workspace, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    making(engine, monkeypatch, place)
    monkeypatch.setenv(description.VARIABLE, "mine")
    made = cluster.ensure(place)
    (made.folder / "monitoring.json").write_text("{}")
    engine.nodes = [Node("mine-control-plane", id="another")]
    assert cluster.find(place) == made
    assert not (made.folder / "monitoring.json").exists()
    assert called(place)[-1] == f"kind export kubeconfig --name=mine --kubeconfig={made.kubeconfig}"
    with pytest.raises(ClusterError, match="cluster mine: not made by `make cluster`"):
        cluster.remove(place)


def test_a_stopped_node_is_started_again_unless_its_port_was_taken_meanwhile(
    place: Workspace, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    making(engine, monkeypatch, place)
    cluster.ensure(place)
    [node] = engine.nodes
    node.status, node.refusal = "exited", PORT_ALLOCATED.splitlines()[-3]
    with pytest.raises(ClusterError, match=r"^port 30085 of this machine: taken"):
        cluster.ensure(place)
    said: list[str] = []
    node.status = "paused"
    cluster.ensure(place, say=said.append)
    node.status, node.refusal = "exited", ""
    cluster.ensure(place, say=said.append)
    assert said == [f"exhibit-control-plane is {how}, and is started again" for how in ("paused", "exited")]
    assert engine.nodes == [node]


def test_a_node_that_does_not_start_is_replaced(
    place: Workspace, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    making(engine, monkeypatch, place)
    cluster.ensure(place)
    [node] = engine.nodes
    node.status, node.refusal = "exited", "network b4c433694d9d not found"
    said: list[str] = []
    cluster.ensure(place, say=said.append)
    assert said[1] == "it has a node that does not start (network b4c433694d9d not found), and is made anew"
    assert engine.nodes != [node]


def test_a_broken_one_of_others_is_left_alone(
    place: Workspace, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    making(engine, monkeypatch, place)
    monkeypatch.setattr(life, "ANSWER_SECONDS", 0)
    monkeypatch.setattr(Cluster, "illness", lambda self: "does not answer (refused)")
    engine.nodes = [Node("mine-control-plane")]
    with pytest.raises(
        ClusterError, match=r"cluster mine: does not answer \(refused\), .*kind delete cluster --name mine"
    ):
        cluster.ensure(place, "mine")
    with pytest.raises(ClusterError, match="cluster mine: not made by `make cluster`"):
        cluster.remove(place, "mine")
    assert not [line for line in called(place) if "delete" in line or "create" in line]


@pytest.mark.parametrize(
    ("before", "others", "stays"),
    [(False, [], False), (True, [], True), (False, [Node("kind-control-plane", status="exited")], True)],
    ids=["made with ours", "there before", "another's stopped node is on it"],
)
def test_kinds_network_goes_if_it_is_ours_alone(
    place: Workspace, engine: Engine, monkeypatch: pytest.MonkeyPatch, before: bool, others: list[Node], stays: bool
) -> None:
    making(engine, monkeypatch, place)
    if before:
        engine.made_networks["network of kind"] = "kind"
    cluster.ensure(place)
    engine.nodes += others
    assert cluster.remove(place) is True
    assert ("network of kind" in engine.made_networks) is stays
    assert engine.nodes == others
    assert cluster.remove(place) is False


def test_images_of_ours_go_if_asked_and_one_in_use_is_named(engine: Engine) -> None:
    removed: list[str] = []

    def listed(filters: dict[str, str]) -> list[Any]:
        assert filters == {"reference": "exhibit/*"}
        return [SimpleNamespace(tags=["exhibit/toy:1", "exhibit/toy:2"]), SimpleNamespace(tags=["exhibit/web:1"])]

    engine.images = SimpleNamespace(list=listed, remove=removed.append)
    assert cluster.remove_images() == 3
    assert removed == ["exhibit/toy:1", "exhibit/toy:2", "exhibit/web:1"]

    def refuse(reference: str) -> None:
        raise APIError("409", explanation="container 1b2c is using it")

    engine.images.remove = refuse
    with pytest.raises(ClusterError, match=r"image exhibit/toy:1: not removed \(container 1b2c is using it\)"):
        cluster.remove_images()


@pytest.fixture(autouse=True)
def nothing_is_left_running(tmp_path: Path) -> Iterator[None]:
    yield
    for running in processes.noted(tmp_path):
        with contextlib.suppress(Exception):
            processes.stop(running)


def test_the_verbs_end_with_one_message_and_exit_code_2(place: Workspace) -> None:
    for name in ("deployments", "model"):
        (place.root / name).mkdir()
    for verb in ("cluster", "cluster-down"):
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "EXHIBIT_CLUSTER": ""}
        done = subprocess.run(
            [sys.executable, "-m", "exhibit", verb], cwd=place.root, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 2, done.stderr
        assert done.stderr.startswith("Docker engine: does not answer")
        assert "Traceback" not in done.stderr
