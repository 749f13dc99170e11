"""How long is it from starting the server to its first right prediction?

Why: That is how late a scaled-up replica helps, how long a rollout takes, and how long an outage lasts after a crash.
How: The time from starting the process to the first right answer, polled every 50 ms, of two starts: the deployment's
    own and a second instance's. Installing and downloading are done before and do not count.
Pass: The median is at most 60 s.
Fix: Compile byte code when the environment is built, import less, load the model before the port is opened.
"""

from __future__ import annotations

from statistics import median

from exhibit.criteria import Finding, judge
from exhibit.targets import Deployment

CEILING_SECONDS = 60.0


def check(deployment: Deployment) -> Finding:
    with deployment.replica() as replica:
        starts = [deployment.started, replica.started]
    listening = float(f"{median(start.listening_seconds for start in starts):.2g}")
    predicting = float(f"{median(start.first_prediction_seconds for start in starts):.2g}")
    return judge(
        predicting <= CEILING_SECONDS,
        f"The first right prediction came {predicting:g} s after the start, the port was open after {listening:g} s "
        f"(median of {len(starts)} starts).",
        observed={"first_prediction_seconds": predicting, "listening_seconds": listening},
        expected={"first_prediction_seconds": f"at most {CEILING_SECONDS:g}"},
    )
