"""A platform of this checkout and the toy in one cluster: answered for, deployed again, side by side, and gone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kubernetes.client import CoreV1Api

from exhibit import criteria, processes, runs
from exhibit import model as models
from exhibit.cluster import NAMESPACE, Cluster
from exhibit.contract import Platform, load_platforms
from exhibit.criteria import Outcome
from exhibit.model import TOLERANCE, difference
from exhibit.targets.kind import KindTarget
from exhibit.targets.kind.deployment import KindDeployment
from exhibit.workspace import Workspace

from .conftest import ROOT, TOY, Deploy, copied, eventually, platform_of

PLATFORM = next(
    platform
    for platform in load_platforms(Workspace(ROOT)).values()
    if platform.file.kind and platform.file.kind.chart == "model-server"
)
SHORT = {
    name: criterion
    for name, criterion in criteria.discover(Workspace(ROOT)).items()
    if criterion.fits(KindDeployment) and "rollouts" not in criterion.requires  # test_rollouts.py has those
}
KINDS = "deployment,replicaset,pod,service,configmap,secret,serviceaccount,networkpolicy,poddisruptionbudget,hpa,job"


@pytest.fixture(scope="module")
def served(bench: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[KindTarget, Platform]]:
    """A platform of this checkout with everything beside it, deployed from a checkout with a state of its own."""
    workspace = copied(bench, tmp_path_factory.mktemp("platforms"), companions=True)
    target, platform = KindTarget(workspace, models.load(workspace)), load_platforms(workspace)[PLATFORM.slug]
    target.prepare([platform])
    target.watch()
    try:
        with target.deploy(platform):
            yield target, platform
    finally:
        target.down(platform.slug)


@pytest.fixture
def real(served: tuple[KindTarget, Platform]) -> Iterator[KindDeployment]:
    target, platform = served
    deployment = target.attach(platform)
    assert deployment is not None
    with deployment:
        yield deployment


def pods(target: KindTarget, slug: str, *, leaving: bool = False) -> dict[str, str]:
    """The uid of each pod of a platform and of what is beside it, by its name; with those being ended if `leaving`."""
    found = CoreV1Api(target.cluster.api).list_namespaced_pod(NAMESPACE, label_selector=f"exhibit/platform={slug}")
    return {
        pod.metadata.name: pod.metadata.uid for pod in found.items if leaving or not pod.metadata.deletion_timestamp
    }


def right(deployment: KindDeployment) -> bool:
    golden = deployment.model.golden.take(20)
    answers = [deployment.predict(golden.rows), deployment.predict(golden.rows, via="gateway")]
    return all(difference(one, golden.expected) <= TOLERANCE for one in answers)


def test_the_criteria_are_answered(served: tuple[KindTarget, Platform], real: KindDeployment) -> None:
    found = runs.everything(served[0].workspace, real, SHORT)
    assert len(found) == len(SHORT)
    good = (Outcome.PASS, Outcome.UNSUPPORTED)
    assert {one.criterion: (one.outcome, one.message) for one in found if one.outcome not in good} == {}


def test_deploying_again_changes_nothing(served: tuple[KindTarget, Platform]) -> None:
    target, platform = served
    with target.deploy(platform):  # a check may have left it with other values
        before = pods(target, platform.slug)
    with target.deploy(platform) as deployment:
        assert right(deployment)
    assert pods(target, platform.slug) == before
    assert len(before) >= 2


def test_two_platforms_answer_at_once(real: KindDeployment, healthy: KindDeployment) -> None:
    assert right(real)
    assert right(healthy)
    assert len({real.url, real.gateway_url, healthy.url, healthy.gateway_url}) == 4


def test_down_leaves_nothing(toys: KindTarget, deploy: Deploy) -> None:
    def there() -> set[str]:
        return set(toys.cluster.kubectl("get", KINDS, f"--namespace={NAMESPACE}", "--output=name").split())

    toys.down(TOY)
    assert eventually(lambda: not pods(toys, TOY, leaving=True))
    before = there()
    deployment = deploy()
    assert deployment.rollouts is not None
    deployment.rollouts.update(deployment.model.version("next"))
    assert {f"service/{TOY}", f"service/{TOY}-gateway"} < there() - before
    assert toys.down(TOY) == [TOY, f"{TOY}-gateway"]
    assert eventually(lambda: not pods(toys, TOY, leaving=True))
    assert there() - before == set()
    assert toys.attach(platform_of(toys.workspace)) is None
    assert toys.down(TOY) == []


def test_where_no_port_is_mapped_a_forward_leads_there(
    toys: KindTarget, deploy: Deploy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a cluster made by a plain `kind create cluster`."""
    folder = toys.cluster.folder / "forwards"
    monkeypatch.setattr(Cluster, "ports", lambda _: {})
    deployment = deploy()
    assert right(deployment)
    forwards = {".".join(running.note.name.split(".")[:2]): running for running in processes.noted(folder)}
    assert forwards.keys() >= {f"{TOY}.8080", f"{TOY}-gateway.8000"}
    [pod] = deployment.release.pods()
    CoreV1Api(toys.cluster.api).delete_namespaced_pod(pod.metadata.name, NAMESPACE, grace_period_seconds=0)
    deployment.recover()
    assert right(deployment)
    toys.down(TOY)
    assert [running.note.name for running in processes.noted(folder) if running.note.name.startswith(TOY)] == []
