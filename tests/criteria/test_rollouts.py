"""Criteria about rollouts pass on a target that rolls out well, and fail on each way to do it badly."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import pytest
import toy
from toy import rollouts as standin

from exhibit import criteria
from exhibit.criteria import Outcome
from exhibit.targets.local.deployment import LocalDeployment
from exhibit.workspace import Workspace

CRITERIA = {
    name: criterion
    for name, criterion in criteria.discover(Workspace(toy.ROOT)).items()
    if "rollouts" in criterion.requires
}
# A stand-in needs no time to get ready, so fewer requests show the same.
QUICK = {
    "cicd/rollout_loses_no_request": {"UPDATES": 4, "REQUESTS": 120},
    "cicd/bad_canary_rolled_back": {"HEALTHY": 4, "REQUESTS_PER_SECOND": 150, "SEEN": 12},
    "scalability/scales_out": {"UP_SECONDS": 3.0, "DOWN_SECONDS": 3.0, "REQUESTS_PER_SECOND": 20},
    "serving/survives_pod_kill": {"BEFORE_SECONDS": 1.0, "AFTER_SECONDS": 2.0, "RECOVERY_SECONDS": 1.0},
    "serving/bad_model_never_ready": {},
    "deployment_focus/operator_restores_deployment": {"SECONDS": 2.0},
}


@dataclass(frozen=True)
class Failing:
    """A way to roll out badly, and what is said of it."""

    fault: str
    says: str
    constants: dict[str, Any] = field(default_factory=dict)


FAILING = {
    "cicd/rollout_loses_no_request": [
        Failing("loses_at_update", r"not so: .*status 503"),
        Failing("mixes_versions", r"not so: .*of neither version"),
        Failing("updates_nothing", r"next \(0\) or current \(\d+\)\."),
    ],
    "cicd/bad_canary_rolled_back": [
        Failing("canaries_are_the_old_version", "shifted: nothing was found"),
        Failing("canary_gets_half", r"shifted: .*golden ones of its version"),
        Failing("healthy_canaries_fail", r"[1-9] ended in a rollback: .*golden requests failed"),
        Failing("signals_count_errors", r"the gateway counted 5 errors"),
    ],
    "scalability/scales_out": [
        Failing("does_not_scale", "No second server"),
        Failing("does_not_scale_down", "and still there"),
    ],
    "serving/survives_pod_kill": [
        Failing("loses_at_kill", r"lost: .*status 503"),
        Failing("does_not_come_back", "did not come back"),
    ],
    "deployment_focus/operator_restores_deployment": [Failing("operator_sleeps", "still not served")],
    "serving/bad_model_never_ready": [
        Failing("takes_any_model", "corrupt: it got ready; wrong_signature: it got ready"),
        Failing("stops_for_bad_models", r"Meanwhile \d+ of \d+"),
    ],
}


def judged(
    name: str, deployment: LocalDeployment, fault: str, monkeypatch: pytest.MonkeyPatch, constants: dict[str, Any]
) -> criteria.Finding:
    criterion = CRITERIA[name]
    for constant, value in {**QUICK[name], **constants}.items():
        monkeypatch.setitem(criterion.check.__globals__, constant, value)
    with standin.rolled_out(deployment, fault) as rolled_out:
        return criteria.answer(criterion, rolled_out)


@pytest.mark.parametrize("name", CRITERIA)
def test_passes_where_rollouts_are_done_well(
    name: str, healthy: LocalDeployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    finding = judged(name, healthy, "", monkeypatch, {})
    assert finding.outcome is Outcome.PASS, finding.message


@pytest.mark.parametrize(
    ("name", "case"),
    [pytest.param(name, case, id=f"{name}: {case.fault}") for name, cases in FAILING.items() for case in cases],
)
def test_fails_on(name: str, case: Failing, healthy: LocalDeployment, monkeypatch: pytest.MonkeyPatch) -> None:
    finding = judged(name, healthy, case.fault, monkeypatch, case.constants)
    assert finding.outcome is Outcome.FAIL, finding.message
    assert re.search(case.says, finding.message), finding.message


def test_every_criterion_and_every_fault_is_shown() -> None:
    assert sorted(FAILING) == sorted(CRITERIA)
    assert {case.fault for cases in FAILING.values() for case in cases} == set(standin.FAULTS)


def test_they_are_not_asked_where_nothing_is_rolled_out() -> None:
    assert not [name for name, criterion in CRITERIA.items() if criterion.fits(LocalDeployment)]
