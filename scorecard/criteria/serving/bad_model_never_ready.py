"""Is a model that cannot work kept from the callers, while the old one goes on serving?

Why: A truncated upload or a model with another signature is found by whoever asks first; that must not be a caller.
How: The served model is to be replaced by a file cut in half, then by one that takes 11 features instead of 12, while
    the gateway is asked 20 times a second, open loop. Each attempt is taken back.
Pass: Neither gets ready, and every request is answered rightly by the old model throughout.
Fix: Load the model, check its signature and predict one row before the server calls itself ready; keep the old server
    until the new one is (maxUnavailable 0).
"""

from __future__ import annotations

from exhibit.criteria import Finding, judge
from exhibit.flow import Flow
from exhibit.targets import Deployment

REQUIRES = ("rollouts",)
BAD = ("corrupt", "wrong_signature")
REQUESTS_PER_SECOND = 20
WATCHED_SECONDS = 30.0
"""Longer than any server of ours takes to get ready; where it says earlier that it cannot, earlier."""


def check(deployment: Deployment) -> Finding:
    rollouts = deployment.rollouts
    assert rollouts is not None
    reasons = {}
    with Flow(deployment, requests_per_second=REQUESTS_PER_SECOND) as flow:
        for name in BAD:
            reasons[name] = rollouts.refused(deployment.model.version(name), WATCHED_SECONDS)
    ready = [name for name, reason in reasons.items() if reason is None]
    lost = {reason: count for reason, count in flow.outcomes.items() if reason != "right"}
    told = "; ".join(f"{name}: {'it got ready' if reason is None else reason}" for name, reason in reasons.items())
    return judge(
        not ready and not lost,
        f"Meanwhile {flow.outcomes['right']} of {flow.sent} requests were answered rightly by the old model. {told}.",
        observed={"got_ready": ready, "lost": lost},
        expected={"got_ready": [], "lost": {}},
    )
