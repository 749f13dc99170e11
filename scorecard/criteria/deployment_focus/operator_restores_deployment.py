"""Does the platform's own operator make the deployment again when it is deleted by mistake?

Why: An operator is worth its rights in the cluster if what is declared stays so without anybody looking; a chart alone
    installs once.
How: The Kubernetes Deployment that the operator made of the platform's resource is deleted, as a careless person would.
Pass: Within 60 s a server is ready again and the golden rows are answered rightly through the gateway.
Fix: Look whether the operator runs, whether it owns what it made (ownerReferences), and what it says in its log.
"""

from __future__ import annotations

import time

import httpx

from exhibit.criteria import Finding, judge
from exhibit.model import TOLERANCE, difference
from exhibit.rollouts import until
from exhibit.targets import AnswerError, Deployment

NEEDS = ("operator",)
USES = ("operator",)
REQUIRES = ("rollouts",)
SECONDS = 60.0


def check(deployment: Deployment) -> Finding:
    rollouts, golden = deployment.rollouts, deployment.model.golden.take(100)
    assert rollouts is not None

    def right() -> bool:
        try:
            answers = deployment.predict(golden.rows, via="gateway")
        except (AnswerError, httpx.HTTPError):
            return False
        return difference(answers, golden.expected) <= TOLERANCE

    rollouts.delete_workload()
    began = time.monotonic()
    restored = until(lambda: rollouts.ready() > 0 and right(), SECONDS)
    seconds = round(time.monotonic() - began, 1)
    return judge(
        restored,
        f"{seconds:g} s after its Deployment was deleted the model was served again."
        if restored
        else f"{seconds:g} s after its Deployment was deleted the model was still not served.",
        observed={"restored": restored},
        expected={"restored": True},
    )
