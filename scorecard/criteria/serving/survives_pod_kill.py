"""Does a service of two servers go on when one of them is killed without a warning?

Why: Machines fail and the kernel kills for memory; neither sends SIGTERM. What was in flight there may be lost, what
    comes after must not be, and nobody should have to start the server again.
How: The deployment is scaled to two servers and asked 30 times a second through the gateway, open loop. One server is
    killed with no grace. A request without an answer is sent once more, as any client of an idempotent service does.
Pass: Every request is answered rightly at the first or second try, at most 1 in 100 needed the second, and within 60 s
    two servers are ready again.
Fix: Run two replicas; keep readiness honest, so that only servers that answer are asked; have the gateway notice a
    server that is gone (health checks, short DNS refresh).
"""

from __future__ import annotations

import time

from exhibit.criteria import Finding, judge
from exhibit.flow import Flow
from exhibit.rollouts import until
from exhibit.targets import Deployment

REQUIRES = ("rollouts",)
REQUESTS_PER_SECOND = 30
BEFORE_SECONDS, AFTER_SECONDS, RECOVERY_SECONDS = 3.0, 10.0, 60.0
LARGEST_SHARE = 0.01


def check(deployment: Deployment) -> Finding:
    rollouts = deployment.rollouts
    assert rollouts is not None
    with rollouts.scaled(2), Flow(deployment, requests_per_second=REQUESTS_PER_SECOND, tries=2) as flow:
        flow.wait(REQUESTS_PER_SECOND * BEFORE_SECONDS)
        rollouts.kill_one()
        killed = time.monotonic()
        recovered = until(lambda: rollouts.ready() >= 2, RECOVERY_SECONDS)
        seconds = round(time.monotonic() - killed, 1)
        flow.wait(REQUESTS_PER_SECOND * AFTER_SECONDS)
    right, again = flow.outcomes["right"], flow.retried
    lost = {reason: count for reason, count in flow.outcomes.items() if reason != "right"}
    return judge(
        not lost and again <= LARGEST_SHARE * right and recovered,
        f"Of {flow.sent} requests around the kill of one of two servers {right} were answered rightly, {again} of them "
        f"at the second try{f'; lost: {lost}' if lost else ''}. "
        + (
            f"Two servers were ready again after {seconds:g} s."
            if recovered
            else "The second server did not come back."
        ),
        observed={
            "lost": lost,
            "second_tries_at_most_1_percent": again <= LARGEST_SHARE * right,
            "recovered": recovered,
        },
        expected={"lost": {}, "second_tries_at_most_1_percent": True, "recovered": True},
    )
