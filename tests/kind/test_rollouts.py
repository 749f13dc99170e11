"""Rollouts on a real cluster: each criterion about them passes on a good deployment, and fails on one with a defect."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import toy

from exhibit import criteria
from exhibit import model as models
from exhibit.criteria import Outcome
from exhibit.targets.kind import KindTarget
from exhibit.targets.kind.deployment import KindDeployment
from exhibit.workspace import Workspace

from .conftest import DEPLOYED, IN_A_CLUSTER, TOY, Deploy, complete, platform_of

CRITERIA = {
    name: criterion
    for name, criterion in criteria.discover(Workspace(toy.ROOT)).items()
    if "rollouts" in criterion.requires and "operator" not in criterion.uses  # test_kubeflow.py has one
}
# Fewer of everything: the toy starts in a second, and shows the same.
QUICK: dict[str, dict[str, Any]] = {
    "cicd/rollout_loses_no_request": {"UPDATES": 4, "REQUESTS": 1500},
    "cicd/bad_canary_rolled_back": {"BAD": ("shifted", "failing"), "HEALTHY": 3, "REQUESTS_PER_SECOND": 60},
    "scalability/scales_out": {"REQUESTS_PER_SECOND": 20},
    "serving/survives_pod_kill": {"AFTER_SECONDS": 4.0},
    "serving/bad_model_never_ready": {},
}

# No load that this machine can make would need two servers as light as the toy.
HEAVY = {"scalability/scales_out": {"environment": {"FAULT": "burns_cpu"}}}


@dataclass(frozen=True)
class Failing:
    """A defect of a deployment, and what is said of it."""

    says: str
    values: Mapping[str, Any]
    """Of the chart, in place of the healthy ones."""
    constants: Mapping[str, Any] = field(default_factory=dict)


FAILING = {
    "cicd/rollout_loses_no_request": Failing(
        # It ends at once, with what it has begun, and while the gateway still knows of it.
        "not so: .*status 503",
        {"drainSeconds": 0, "stopSeconds": 0, "environment": {"FAULT": "drops_in_flight"}},
    ),
    "cicd/bad_canary_rolled_back": Failing(
        # The version is mounted where no server looks: every canary is the stable version.
        "shifted: nothing was found",
        {"model": {"mountPath": "/elsewhere"}},
        {"BAD": ("shifted",), "HEALTHY": 0},
    ),
    "scalability/scales_out": Failing(
        # An autoscaler that is content with any load.
        "No second server in 40 s",
        {"autoscaling": {"cpuPercent": 1000}},
        {"UP_SECONDS": 40.0},
    ),
    "serving/survives_pod_kill": Failing(
        # The number of servers is an autoscaler's, which may not have two.
        "lost: .*status 503",
        {"autoscaling": {"enabled": True, "maxReplicas": 1}},
        {"RECOVERY_SECONDS": 4.0},
    ),
}


def judged(
    name: str, deployment: KindDeployment, monkeypatch: pytest.MonkeyPatch, constants: Mapping[str, Any]
) -> criteria.Finding:
    criterion = CRITERIA[name]
    for constant, value in {**QUICK[name], **constants}.items():
        monkeypatch.setitem(criterion.check.__globals__, constant, value)
    return criteria.answer(criterion, deployment)


@pytest.mark.parametrize("name", CRITERIA)
def test_passes_where_rollouts_are_done_well(name: str, deploy: Deploy, monkeypatch: pytest.MonkeyPatch) -> None:
    finding = judged(name, deploy(**HEAVY.get(name, {})), monkeypatch, {})
    assert finding.outcome is Outcome.PASS, finding


@pytest.mark.parametrize("name", FAILING)
def test_fails_on_a_defect(name: str, deploy: Deploy, monkeypatch: pytest.MonkeyPatch) -> None:
    case = FAILING[name]
    finding = judged(name, deploy(**HEAVY.get(name, {}), **case.values), monkeypatch, case.constants)
    assert finding.outcome is Outcome.FAIL, finding
    assert re.search(case.says, finding.message), finding.message


def test_a_chart_alone_restores_nothing(healthy: KindDeployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """The criterion about operators passes in test_kubeflow.py."""
    criterion = criteria.discover(Workspace(toy.ROOT))["deployment_focus/operator_restores_deployment"]
    monkeypatch.setitem(criterion.check.__globals__, "SECONDS", 10.0)
    finding = criterion.check(healthy)
    assert finding.outcome is Outcome.FAIL, finding
    assert "still not served" in finding.message


def test_a_server_that_does_not_look_at_its_model_takes_a_bad_one(
    toys: KindTarget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unchecked = {"serve/weights.py": ("\npredict([(0.0,) * COLUMNS])", "\n")}
    workspace = toy.make(tmp_path / "unchecked", slug=TOY, edits=IN_A_CLUSTER | unchecked)
    complete(workspace)
    target = KindTarget(workspace, models.load(workspace), DEPLOYED)
    platform = platform_of(workspace)
    target.prepare([platform])
    with target.deploy(platform) as deployment:
        finding = judged("serving/bad_model_never_ready", deployment, monkeypatch, {"BAD": ("wrong_signature",)})
    assert finding.outcome is Outcome.FAIL, finding
    assert "wrong_signature: it got ready" in finding.message
