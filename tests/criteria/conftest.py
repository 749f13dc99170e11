"""Toy deployments behind a real gateway and a real Prometheus: one healthy for the session, one for each fault."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator, Mapping, Set
from pathlib import Path

import pytest
import toy
from filelock import FileLock

from exhibit import companions
from exhibit import model as models
from exhibit.contract import load_platforms
from exhibit.monitoring import Monitoring
from exhibit.targets.local import LocalTarget
from exhibit.targets.local.deployment import LocalDeployment
from exhibit.workspace import Workspace

_numbers = itertools.count(1)
Deploy = Callable[..., LocalDeployment]


@pytest.fixture(scope="session")
def _workspace(tmp_path_factory: pytest.TempPathFactory, building: FileLock) -> Workspace:
    """The healthy toy's checkout, whose environments the others share."""
    workspace = toy.make(tmp_path_factory.mktemp("healthy"), companions=True)
    toy.share_prometheus(workspace)
    with building:
        toy.share_environments(workspace)
    return workspace


@pytest.fixture(scope="session")
def _monitoring(_workspace: Workspace) -> Iterator[Monitoring]:
    """What watches every deployment that is to be watched."""
    monitoring = Monitoring(_workspace)
    try:
        monitoring.start()
        yield monitoring
    finally:
        monitoring.stop()


@pytest.fixture(scope="session")
def _target(_workspace: Workspace, _monitoring: Monitoring) -> Iterator[LocalTarget]:
    target = LocalTarget(_workspace, models.load(_workspace), _monitoring)
    try:
        with target.deploy(load_platforms(_workspace)[toy.SLUG]):
            yield target
    finally:
        target.down(toy.SLUG)


@pytest.fixture
def healthy(_target: LocalTarget) -> Iterator[LocalDeployment]:
    """The healthy toy; the object may be changed by a test, the server runs on."""
    deployment = _target.attach(load_platforms(_target.workspace)[toy.SLUG])
    assert deployment is not None
    with deployment:
        yield deployment


@pytest.fixture
def deploy(_workspace: Workspace, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Deploy]:
    """Deploys the toy with a fault, in a checkout of its own that shares the healthy one's environments.

    Companions take seconds each to start: only those named in `beside` are there.
    """
    started: list[tuple[LocalTarget, LocalDeployment]] = []

    def start(
        fault: str,
        edits: Mapping[str, tuple[str, str]] | None = None,
        *,
        watched: bool = False,
        beside: Set[str] = frozenset(),
    ) -> LocalDeployment:
        # In Prometheus a deployment is known by its slug, so a watched one needs one of its own (and an environment).
        slug = f"{toy.SLUG}-{fault.replace('_', '-') or next(_numbers)}" if watched else toy.SLUG
        workspace = toy.make(tmp_path / "checkout", slug=slug, fault=fault, edits=edits, companions=bool(beside))
        for name in companions.load(workspace):
            if name not in beside:
                shutil.rmtree(workspace.root / "monitoring" / name)
        workspace.state.mkdir()
        (workspace.state / "envs").symlink_to(_workspace.state / "envs")
        monitoring = request.getfixturevalue("_monitoring") if watched else Monitoring(workspace)
        target = LocalTarget(workspace, models.load(workspace), monitoring)
        deployment = target.deploy(load_platforms(workspace)[slug])
        started.append((target, deployment))
        return deployment

    yield start
    for target, deployment in started:
        deployment.http.close()
        target.down(deployment.platform.slug)
