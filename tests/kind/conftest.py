"""Real kind clusters, with names, ports and a Docker network of their own: none that a person uses is touched."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import toy

from exhibit import cluster, processes
from exhibit import model as models
from exhibit.cluster import Cluster, ClusterError
from exhibit.contract import Platform, load_platforms
from exhibit.targets.kind import KindTarget
from exhibit.targets.kind.deployment import KindDeployment
from exhibit.workspace import Workspace

ROOT = toy.ROOT
MINE, OTHER = "exhibit-h1", "exhibit-h2"
NETWORK = "exhibit-h"
DEPLOYED = "exhibit-t"
"""The cluster that things are deployed to, and its network: made once for all tests of this folder."""
TOY = "toy-t"
"""Its slug: that of an image which no other test builds or removes."""
IN_A_CLUSTER = {"platform.yaml": ("predict: {", "kind: {chart: model-server}\npredict: {")}
HEALTHY = {
    "probes": {
        "ready": {"path": "/v2/models/flight-delay/ready"},
        "live": {"path": "/v2/health/live"},
        "startSeconds": 20,
        "periodSeconds": 1,
    },
    "stopSeconds": 5,
    "drainSeconds": 5,
}
"""Values of the toy's chart."""
Deploy = Callable[..., KindDeployment]
ELSEWHERE = """\
apiVersion: v1
kind: Config
clusters: [{name: elsewhere, cluster: {server: "https://127.0.0.1:1"}}]
users: [{name: elsewhere, user: {token: none}}]
contexts: [{name: elsewhere, context: {cluster: elsewhere, user: elsewhere}}]
current-context: elsewhere
"""
"""A person's configuration of kubectl."""


@pytest.fixture(scope="session", autouse=True)
def what_it_takes() -> None:
    """Skips everything here, with the reason, where no cluster can be made."""
    try:
        cluster.check_tools(Workspace(ROOT))
    except ClusterError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def checkout(what_it_takes: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A checkout whose cluster is `MINE`; of it and of `OTHER` nothing may be left in the end."""
    root = tmp_path_factory.mktemp("checkout")
    for name in ("deployments", "model"):
        (root / name).mkdir()
    describe(root, MINE)
    with apart(root, NETWORK):
        workspace = Workspace(root)
        clear(workspace)
        yield workspace
        clear(workspace)
    assert [node.name for name in (MINE, OTHER) for node in Cluster(workspace, name).nodes()] == []
    assert networks() == []


@pytest.fixture
def mine(checkout: Workspace) -> Cluster:
    """The cluster, made or mended if need be: whatever the test before did to it."""
    return cluster.ensure(checkout)


def describe(root: Path, name: str) -> None:
    """Writes what a checkout says of its cluster: this one's, under another name and with ports that are free."""
    shutil.copy(ROOT / "versions.yaml", root)
    config = (ROOT / "kind-config.yaml").read_text().replace("name: exhibit\n", f"name: {name}\n")
    ports = iter(processes.free_ports(config.count("hostPort")))
    (root / "kind-config.yaml").write_text(re.sub(r"hostPort: \d+", lambda _: f"hostPort: {next(ports)}", config))


@contextmanager
def apart(root: Path, network: str) -> Iterator[None]:
    """What the environment says of clusters is of no person's: another configuration of kubectl, another network."""
    (root / "kubeconfig").write_text(ELSEWHERE)
    with pytest.MonkeyPatch.context() as environment:
        environment.delenv(cluster.VARIABLE, raising=False)
        environment.setenv("KUBECONFIG", str(root / "kubeconfig"))
        environment.setenv("KIND_EXPERIMENTAL_DOCKER_NETWORK", network)
        yield


def eventually(holds: Callable[[], object], seconds: float = 60) -> bool:
    deadline = time.monotonic() + seconds
    while not (done := holds()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return bool(done)


def exhibit(checkout: Workspace, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a verb in the checkout."""
    return subprocess.run(
        [sys.executable, "-m", "exhibit", *arguments],
        cwd=checkout.root,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


def clear(workspace: Workspace) -> None:
    """Removes both clusters and their network: in the end, or what a run that was killed has left."""
    subprocess.run(["kind", "delete", "cluster", f"--name={OTHER}"], capture_output=True, check=True)
    cluster.remove(workspace)
    for network in cluster.engine().networks.list(names=[NETWORK]):
        network.remove()


def networks(name: str = NETWORK) -> list[str]:
    """Networks that these tests' clusters have made."""
    return [str(network.name) for network in cluster.engine().networks.list(names=[name])]


@pytest.fixture(scope="session")
def bench(what_it_takes: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A toy's checkout whose cluster, `DEPLOYED`, runs and is watched; nothing of it is left in the end."""
    workspace = toy.make(tmp_path_factory.mktemp("toys"), slug=TOY, edits=IN_A_CLUSTER)
    complete(workspace)
    with apart(workspace.root, DEPLOYED):
        cluster.remove(workspace)  # what a run that was killed has left
        for network in cluster.engine().networks.list(names=[DEPLOYED]):
            network.remove()
        try:
            cluster.ensure(workspace)
            KindTarget(workspace, models.load(workspace)).watch()
            yield workspace
        finally:
            cluster.remove(workspace)
            for image in cluster.engine().images.list(filters={"reference": f"exhibit/{TOY}"}):
                cluster.engine().images.remove(image.id, force=True)
        assert Cluster(workspace, DEPLOYED).nodes() == []
        assert networks(DEPLOYED) == []


@pytest.fixture
def toys(bench: Workspace) -> KindTarget:
    """Deploys to that cluster as it is now: with what it had before a test deleted it, another would be wrong."""
    return KindTarget(bench, models.load(bench))


@pytest.fixture
def deploy(toys: KindTarget) -> Iterator[Deploy]:
    """Deploys the toy with values of its chart beside the healthy ones: anew, where others were before."""
    with ExitStack() as stack:

        def start(**values: Any) -> KindDeployment:
            platform = platform_of(toys.workspace)
            platform.values.write_text(json.dumps({**HEALTHY, **values}))
            toys.prepare([platform])
            return stack.enter_context(toys.deploy(platform))

        yield start


@pytest.fixture
def healthy(deploy: Deploy) -> KindDeployment:
    """The toy as it should be."""
    return deploy()


def complete(workspace: Workspace) -> None:
    """Adds what a cluster needs to the toy's checkout."""
    shutil.copytree(ROOT / "charts", workspace.charts)
    (workspace.deployments / TOY / "values.yaml").write_text(json.dumps(HEALTHY))
    (workspace.model / "requirements.txt").write_text("# nothing\n")
    manifest = workspace.model / "artifacts" / "manifest.json"
    current = {"inputs_sha256": models.inputs_sha256(workspace)}
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), **current}))
    describe(workspace.root, DEPLOYED)


def copied(bench: Workspace, root: Path, *, companions: bool) -> Workspace:
    """This checkout's platforms and model, with a state of their own: they are deployed to the same cluster."""
    left_out = () if companions else (file.parent.name for file in ROOT.glob("monitoring/*/service.yaml"))
    for name in ("deployments", "model", "charts", "monitoring", "traffic"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__", *left_out))
    shutil.copy(ROOT / "versions.yaml", root)
    shutil.copy(bench.root / "kind-config.yaml", root)
    return Workspace(root)


def platform_of(workspace: Workspace) -> Platform:
    """The toy of the checkout."""
    return load_platforms(workspace)[TOY]
