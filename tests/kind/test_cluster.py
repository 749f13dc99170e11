"""A real kind cluster is made, found, mended and removed, whatever was done to it, and no other is touched."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import psutil
import pytest
from kubernetes.client import CoreV1Api

from exhibit import cluster, processes, versions
from exhibit.cluster import NAMESPACE, Cluster, ClusterError, connection, description, life
from exhibit.workspace import Workspace

from .conftest import MINE, NETWORK, OTHER, ROOT, eventually, exhibit, networks

IMAGE = "exhibit-h/loaded:1"
POD = """
apiVersion: v1
kind: Pod
metadata: {name: one, namespace: exhibit}
spec:
  securityContext: {runAsNonRoot: true, runAsUser: 10001, seccompProfile: {type: RuntimeDefault}}
  containers:
    - name: one
      image: none:1
      securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
"""


def in_kubectl(what: str) -> list[str]:
    """What a person's own kubectl knows."""
    done = subprocess.run(["kubectl", "config", *what.split()], capture_output=True, text=True, check=False)
    return done.stdout.split()


def test_a_repeat_keeps_what_is_there(checkout: Workspace, mine: Cluster) -> None:
    [before] = mine.nodes()
    said: list[str] = []
    assert cluster.ensure(checkout, say=said.append) == mine
    assert cluster.find(checkout) == mine
    [after] = mine.nodes()
    assert said == []
    assert (after.id, after.attrs["State"]["StartedAt"]) == (before.id, before.attrs["State"]["StartedAt"])
    assert mine.illness() is None


def test_its_node_ports_are_mapped_as_the_description_says(checkout: Workspace, mine: Cluster) -> None:
    described = [port for _, port in description.load(checkout).ports]
    assert mine.ports() == dict(zip(range(30080, 30100), described, strict=True))


def test_a_persons_kubectl_knows_it_and_keeps_its_current_context(mine: Cluster) -> None:
    assert {"elsewhere", f"kind-{MINE}"} <= set(in_kubectl("get-contexts --output=name"))
    assert in_kubectl("current-context") == ["elsewhere"]


def test_it_is_spoken_to_whatever_the_environment_names(mine: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "HELM_KUBEAPISERVER"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("HELM_KUBECONTEXT", "elsewhere")
    assert mine.kubectl("get", "nodes", "--output=name").split() == [f"node/{MINE}-control-plane"]
    assert [node.metadata.name for node in CoreV1Api(mine.api).list_node().items] == [f"{MINE}-control-plane"]
    assert mine.helm("list", "--all-namespaces", "--short") == ""
    script = subprocess.run(
        ["kubectl", "get", "nodes", "--output=name"],
        env={**os.environ, **mine.variables},
        capture_output=True,
        text=True,
    )
    assert script.stdout.split() == [f"node/{MINE}-control-plane"]


def test_what_kubernetes_refuses_is_told_in_its_words(mine: Cluster) -> None:
    with pytest.raises(ClusterError, match=r'`kubectl get nothing`: exit code 1(.*\n)+.*resource type "nothing"'):
        mine.kubectl("get", "nothing")


def test_the_namespace_takes_restricted_pods_alone(mine: Cluster) -> None:
    mine.ensure_namespace()
    mine.ensure_namespace()
    labels = CoreV1Api(mine.api).read_namespace(NAMESPACE).metadata.labels
    assert {labels[f"pod-security.kubernetes.io/{mode}"] for mode in ("enforce", "audit", "warn")} == {"restricted"}
    dry = ("apply", "--dry-run=server", "--filename=-")
    assert eventually(lambda: "serviceaccount/default" in mine.kubectl("get", "sa", "-n", NAMESPACE, "-o", "name"))
    assert "created" in mine.kubectl(*dry, input=POD)
    with pytest.raises(ClusterError, match="violates PodSecurity") as caught:
        mine.kubectl(*dry, input=POD.replace("runAsNonRoot: true", "runAsNonRoot: false"))
    assert "runAsNonRoot" in caught.value.detail


def test_a_namespace_that_is_being_deleted_is_waited_for(mine: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    mine.ensure_namespace()
    held = f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: held, namespace: {NAMESPACE}, finalizers: [exhibit/h]}}"
    mine.kubectl("apply", "--filename=-", input=held)
    mine.kubectl("delete", "namespace", NAMESPACE, "--wait=false")
    with monkeypatch.context() as shorter:
        shorter.setattr(connection, "NAMESPACE_SECONDS", 1)
        with pytest.raises(ClusterError, match=f"namespace {NAMESPACE}: still being deleted after 1 s"):
            mine.ensure_namespace()
    patch = ("patch", "configmap", "held", f"--namespace={NAMESPACE}", "--type=merge")
    let_go = threading.Timer(0.5, mine.kubectl, (*patch, '--patch={"metadata":{"finalizers":null}}'))
    let_go.start()
    mine.ensure_namespace()
    let_go.join()
    assert CoreV1Api(mine.api).read_namespace(NAMESPACE).status.phase == "Active"


def test_an_image_is_copied_once_and_again_when_it_is_another(mine: Cluster) -> None:
    def make(content: bytes) -> None:
        layer = io.BytesIO()
        with tarfile.open(fileobj=layer, mode="w") as archive:
            entry = tarfile.TarInfo("content")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        repository, tag = IMAGE.split(":")
        client.api.import_image_from_data(layer.getvalue(), repository=repository, tag=tag)

    client = cluster.engine()
    with pytest.raises(ClusterError, match=f"image {IMAGE}: not in the Docker engine"):
        mine.load(IMAGE)
    try:
        make(b"one")
        assert [mine.load(IMAGE), mine.load(IMAGE)] == [True, False]
        make(b"two")
        assert [mine.load(IMAGE), mine.load(IMAGE)] == [True, False]
        [node] = mine.nodes()
        status, said = node.exec_run(["crictl", "inspecti", IMAGE])
        assert status == 0
        assert str(client.images.get(IMAGE).id).encode() in said
    finally:
        client.images.remove(IMAGE)


def test_damaged_credentials_are_fetched_anew(checkout: Workspace, mine: Cluster) -> None:
    mine.kubeconfig.write_text("{")
    with pytest.raises(ClusterError, match="does not answer"):
        mine.kubectl("get", "nodes")
    assert cluster.ensure(checkout).kubectl("get", "nodes")
    assert mine.kubeconfig.stat().st_mode & 0o077 == 0


def test_a_stopped_node_is_named_by_each_call_and_started_again(checkout: Workspace, mine: Cluster) -> None:
    mine.ensure_namespace()
    core = CoreV1Api(mine.api)
    [node] = mine.nodes()
    node.stop(timeout=2)
    for call in (
        lambda: mine.kubectl("get", "nodes", "--request-timeout=2s"),
        lambda: core.list_node(_request_timeout=2),
        lambda: mine.require_well(),
    ):
        with pytest.raises(
            ClusterError, match=rf"^cluster {MINE}: has a stopped node \({MINE}-control-plane"
        ) as caught:
            call()
        assert "`make cluster` starts it again" in caught.value.remedy
    said: list[str] = []
    again = cluster.ensure(checkout, say=said.append)
    assert len(said) == 1
    assert [one.id for one in again.nodes()] == [node.id]
    assert core.read_namespace(NAMESPACE).status.phase == "Active"


def test_a_broken_one_is_made_anew_and_said_so(
    checkout: Workspace, mine: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    [node] = mine.nodes()
    kill = "for one in /proc/[0-9]*; do grep -qs ^kube-apiserver $one/cmdline && kill -9 ${one#/proc/}; done; true"
    assert node.exec_run(["sh", "-c", f"systemctl stop kubelet && {kill}"]).exit_code == 0
    with pytest.raises(ClusterError, match=f"^cluster {MINE}: does not answer"):
        mine.kubectl("get", "nodes")
    monkeypatch.setattr(life, "ANSWER_SECONDS", 2)
    said: list[str] = []
    again = cluster.ensure(checkout, say=said.append)
    assert "and is made anew" in said[0]
    assert [one.id for one in again.nodes()] != [node.id]
    assert again.illness() is None


def test_one_that_was_deleted_behind_our_back_is_noticed(checkout: Workspace, mine: Cluster) -> None:
    core = CoreV1Api(mine.api)
    subprocess.run(["kind", "delete", "cluster", f"--name={MINE}"], capture_output=True, check=True)
    for call in (lambda: mine.kubectl("get", "nodes"), lambda: mine.helm("list"), core.list_node):
        with pytest.raises(ClusterError, match=f"^cluster {MINE}: is gone"):
            call()
    assert cluster.find(checkout) is None
    assert not mine.folder.exists()
    assert networks() == []


def test_an_engine_that_was_stopped_is_named_by_each_call(
    checkout: Workspace, mine: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{checkout.root}/none.sock")
    for call in (
        lambda: mine.kubectl("get", "nothing"),
        lambda: mine.load(IMAGE),
        lambda: cluster.find(checkout),
        lambda: cluster.ensure(checkout),
        lambda: cluster.remove(checkout),
    ):
        with pytest.raises(ClusterError, match=r"^Docker engine: does not answer.*Start Docker"):
            call()
    assert mine.folder.exists()


def test_cluster_down_leaves_nothing(checkout: Workspace, mine: Cluster) -> None:
    [node] = mine.nodes()
    volumes = [mount["Name"] for mount in node.attrs["Mounts"] if mount["Type"] == "volume"]
    assert volumes
    system = "--namespace=kube-system"
    mine.kubectl("rollout", "status", "deployment/coredns", system, "--timeout=100s")
    [port] = processes.free_ports(1)
    forward = processes.start(
        "forward",
        ["kubectl", *mine.options, system, "port-forward", "service/kube-dns", f"{port}:53"],
        environment={"PATH": os.environ["PATH"]},
        cwd=checkout.root,
        folder=mine.folder / "forwards",
        grace_seconds=5,
    )
    assert eventually(lambda: processes.listens(forward, port)), processes.last_lines(
        forward.note.parent / "forward.log"
    )
    done = exhibit(checkout, "cluster-down")
    assert (done.returncode, done.stderr) == (0, "")
    assert "removed" in done.stdout
    assert mine.nodes() == []
    assert forward.process() is None
    assert not mine.folder.exists()
    client = cluster.engine()
    assert not {volume.name for volume in client.volumes.list()} & set(volumes)
    assert networks() == []
    assert in_kubectl("get-contexts --output=name") == ["elsewhere"]
    assert in_kubectl("current-context") == ["elsewhere"]
    again = exhibit(checkout, "cluster-down")
    assert (again.returncode, again.stderr) == (0, "")
    assert "there was none" in again.stdout


def test_where_kubectl_had_no_context_the_clusters_becomes_current(
    checkout: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.remove(checkout)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "new"))
    cluster.ensure(checkout)
    assert in_kubectl("current-context") == [f"kind-{MINE}"]
    cluster.remove(checkout)
    assert in_kubectl("current-context") == []


def test_another_cluster_is_used_if_it_is_named_and_never_deleted(checkout: Workspace, mine: Cluster) -> None:
    image = versions.load(checkout).images["node"]
    subprocess.run(
        ["kind", "create", "cluster", f"--name={OTHER}", f"--image={image}"], capture_output=True, check=True
    )
    try:
        assert in_kubectl("current-context") == [f"kind-{OTHER}"]
        assert mine.kubectl("get", "nodes", "--output=name").split() == [f"node/{MINE}-control-plane"]
        theirs = cluster.find(checkout, OTHER)
        assert theirs is not None
        assert theirs.kubectl("get", "nodes", "--output=name").split() == [f"node/{OTHER}-control-plane"]
        assert theirs.ports() == {}
        [node] = theirs.nodes()
        with pytest.raises(ClusterError, match=f"cluster {OTHER}: not made by `make cluster`"):
            cluster.remove(checkout, OTHER)
        node.stop(timeout=2)
        # Its stopped node needs the network that was made with ours.
        cluster.remove(checkout)
        assert in_kubectl("current-context") == [f"kind-{OTHER}"]
        cluster.ensure(checkout, OTHER)
        assert [one.id for one in theirs.nodes()] == [node.id]
        assert theirs.illness() is None
    finally:
        subprocess.run(["kind", "delete", "cluster", f"--name={OTHER}"], capture_output=True, check=True)
        subprocess.run(["kubectl", "config", "set", "current-context", "elsewhere"], capture_output=True, check=True)
        cluster.remove(checkout)
        for network in cluster.engine().networks.list(names=[NETWORK]):
            network.remove()


def test_ports_that_another_cluster_holds_are_named_and_nothing_is_made(checkout: Workspace, mine: Cluster) -> None:
    ports = ", ".join(str(port) for _, port in description.load(checkout).ports)
    done = exhibit(checkout, "cluster", "--name", OTHER)
    assert done.returncode == 2
    assert done.stderr.startswith(
        f"port {ports} of this machine: taken by the container {MINE}-control-plane, expected"
    )
    assert Cluster(checkout, OTHER).nodes() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_creation_that_is_cut_off_leaves_nothing_that_a_repeat_does_not_mend(
    checkout: Workspace, number: signal.Signals
) -> None:
    cluster.remove(checkout)
    making = "import sys, pathlib; from exhibit import cluster, interrupts, workspace; interrupts.install(); "
    making += "cluster.ensure(workspace.Workspace(pathlib.Path(sys.argv[1])))"
    argv = [sys.executable, "-c", making, str(checkout.root)]
    child = subprocess.Popen(argv, env={**os.environ, "PYTHONPATH": str(ROOT / "src")}, stderr=subprocess.DEVNULL)
    try:
        assert eventually(lambda: bool(Cluster(checkout, MINE).nodes()))
        child.send_signal(number)
        assert child.wait(timeout=60) != 0
    finally:
        child.kill()
    if number == signal.SIGTERM:
        assert Cluster(checkout, MINE).nodes() == []
        assert networks() == []
        assert not Cluster(checkout, MINE).folder.exists()
        return
    assert cluster.find(checkout) is None
    said: list[str] = []
    assert cluster.ensure(checkout, say=said.append).illness() is None
    assert said[0] == "it was not made to its end, and is made anew"

    def kind_runs() -> bool:
        return any(f"--name={MINE}" in (one.info["cmdline"] or []) for one in psutil.process_iter(["cmdline"]))

    assert eventually(lambda: not kind_runs())
