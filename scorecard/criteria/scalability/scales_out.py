"""Does the deployment get a second server under load, and give it back?

Why: Traffic comes in waves; who must be there to add a server adds it too late and forgets to take it away.
How: Autoscaling by CPU from 1 to 2 servers is switched on and as many callers ask, one after the other, as keep a
    server busy. Once two servers are ready they are asked together; then the callers leave.
Pass: Two servers are ready within 180 s, the answers are right throughout, and within 240 s of the callers' leaving one
    server is left.
Fix: Give the pods a CPU request (the autoscaler counts shares of it), have metrics-server running, and let the gateway
    ask all servers (a headless Service's addresses), not one connection's.
"""

from __future__ import annotations

import time

from exhibit.criteria import Finding, judge
from exhibit.flow import Flow
from exhibit.rollouts import until
from exhibit.targets import Deployment

REQUIRES = ("rollouts",)
REQUESTS_PER_SECOND, ROWS = 80, 16
UP_SECONDS, DOWN_SECONDS = 180.0, 240.0


def check(deployment: Deployment) -> Finding:
    rollouts = deployment.rollouts
    assert rollouts is not None
    with rollouts.autoscaled(2):
        began = time.monotonic()
        with Flow(deployment, requests_per_second=REQUESTS_PER_SECOND, rows=ROWS) as flow:
            up = until(lambda: rollouts.ready() == 2, UP_SECONDS)
            up_seconds = round(time.monotonic() - began)
            flow.wait(REQUESTS_PER_SECOND * 5 if up else 0)
        left = time.monotonic()
        down = up and until(lambda: rollouts.ready() == 1, DOWN_SECONDS)
        down_seconds = round(time.monotonic() - left)
    wrong = {reason: count for reason, count in flow.outcomes.items() if reason != "right"}
    told = f"The second server was ready after {up_seconds} s" if up else f"No second server in {up_seconds} s"
    if up:
        told += f" and gone {down_seconds} s after the load" if down else f" and still there {down_seconds} s after it"
    return judge(
        up and down and not wrong,
        f"{told}; of {flow.sent} requests {flow.outcomes['right']} were answered rightly.",
        observed={"second_server": up, "given_back": down, "not_right": wrong},
        expected={"second_server": True, "given_back": True, "not_right": {}},
    )
