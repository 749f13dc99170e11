"""Is a new version of the model rolled out without a lost request?

Why: A team that loses requests at each release releases seldom. The gap is between a server that has been told to stop
    and a gateway that has not heard of it.
How: The served version is replaced 20 times, to and fro between the current model and another right one, while the
    gateway is asked for four rows at a time, open loop, until it has been asked 10,000 times.
Pass: Every request is answered; each answer is wholly the old version's or wholly the new one's (1e-5), and both are
    seen.
Fix: maxUnavailable 0, readiness after the first prediction, a preStop pause longer than the gateway takes to forget a
    server, and a server that finishes what it has begun.
"""

from __future__ import annotations

import numpy as np

from exhibit.criteria import Finding, judge
from exhibit.flow import Flow
from exhibit.model import TOLERANCE, Probabilities
from exhibit.targets import Deployment

REQUIRES = ("rollouts",)
UPDATES, REQUESTS = 20, 10_000
REQUESTS_PER_SECOND, ROWS = 60, 4


def check(deployment: Deployment) -> Finding:
    rollouts, model = deployment.rollouts, deployment.model
    assert rollouts is not None
    versions = [model.version("next"), model.version("current")]

    def name(answers: Probabilities, expected: Probabilities) -> str:
        for version in versions:
            if np.abs(answers - version.expected(expected)).max() <= TOLERANCE:
                return version.name
        return "of neither version"

    with Flow(deployment, requests_per_second=REQUESTS_PER_SECOND, rows=ROWS, name=name) as flow:
        for at in range(UPDATES):
            rollouts.update(versions[at % 2])
        flow.wait(max(REQUESTS - flow.sent, 0))
    seen = {version.name: flow.outcomes[version.name] for version in versions}
    lost = {reason: count for reason, count in flow.outcomes.items() if reason not in seen}
    return judge(
        not lost and all(seen.values()),
        f"During {UPDATES} updates {flow.sent} requests were sent and answered wholly by "
        f"{' or '.join(f'{name} ({count})' for name, count in seen.items())}{f', not so: {lost}' if lost else ''}.",
        observed={"lost": lost, "both_versions_seen": all(seen.values())},
        expected={"lost": {}, "both_versions_seen": True},
    )
