"""Toy deployments behind a real gateway and a real Prometheus: one healthy for the session, one for each fault."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import toy

from exhibit import criteria
from exhibit import model as models
from exhibit.contract import load_platforms
from exhibit.criteria import Criterion
from exhibit.monitoring import Monitoring
from exhibit.targets.local import LocalTarget
from exhibit.targets.local.deployment import LocalDeployment
from exhibit.workspace import Workspace

_numbers = itertools.count(1)
Deploy = Callable[..., LocalDeployment]


@pytest.fixture(scope="session")
def asked() -> dict[str, Criterion]:
    """The criteria of this checkout."""
    return criteria.discover(Workspace(toy.ROOT))


@pytest.fixture(scope="session")
def _target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalTarget]:
    workspace = toy.make(tmp_path_factory.mktemp("healthy"), companions=True)
    toy.share_prometheus(workspace)
    toy.share_environments(workspace)
    target = LocalTarget(workspace, models.load(workspace), Monitoring(workspace))
    target.monitoring.start()
    try:
        with target.deploy(load_platforms(workspace)[toy.SLUG]):
            yield target
    finally:
        target.down_all()


@pytest.fixture
def healthy(_target: LocalTarget) -> Iterator[LocalDeployment]:
    """The healthy toy; the object may be changed by a test, the server runs on."""
    deployment = _target.attach(load_platforms(_target.workspace)[toy.SLUG])
    assert deployment is not None
    with deployment:
        yield deployment


@pytest.fixture
def deploy(_target: LocalTarget, tmp_path: Path) -> Iterator[Deploy]:
    """Deploys the toy with a fault, in a checkout of its own that shares the healthy one's environments."""
    started: list[tuple[LocalTarget, LocalDeployment]] = []

    def start(
        fault: str,
        edits: Mapping[str, tuple[str, str]] | None = None,
        *,
        watched: bool = False,
        companions: bool = False,
    ) -> LocalDeployment:
        # In Prometheus a deployment is known by its slug, so a watched one needs one of its own (and an environment).
        slug = f"{toy.SLUG}-{fault.replace('_', '-') or next(_numbers)}" if watched else toy.SLUG
        workspace = toy.make(tmp_path / "checkout", slug=slug, fault=fault, edits=edits, companions=companions)
        workspace.state.mkdir()
        (workspace.state / "envs").symlink_to(_target.workspace.state / "envs")
        monitoring = _target.monitoring if watched else Monitoring(workspace)
        target = LocalTarget(workspace, models.load(workspace), monitoring)
        deployment = target.deploy(load_platforms(workspace)[slug])
        started.append((target, deployment))
        return deployment

    yield start
    for target, deployment in started:
        deployment.http.close()
        target.down(deployment.platform.slug)
