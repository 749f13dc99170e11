"""Is bad input refused with a reason, without harm to the server?

Why: A server that predicts from NaN or eleven columns misleads in silence; one that answers 500 or dies can be stopped
    by any caller; one that shows a traceback tells strangers how it is built.
How: Nine bad requests go directly to the platform: wrong width, NaN, infinity, a number beyond float32, text in a row,
    no rows, no body, no JSON, 2 MiB. One that the platform accepts is sent through the gateway as well.
Pass: Each is answered 4xx with a reason in words and without traceback or path; afterwards the server still runs and
    answers the golden rows rightly. What only the gateway refuses counts as an add-on.
Fix: Check shape and finiteness (after the cast to float32) before the model is called, and limit the body's size.
"""

from __future__ import annotations

import re
from typing import Any

import httpx
import numpy as np

from exhibit.criteria import Finding, judge
from exhibit.model import TOLERANCE, difference
from exhibit.targets import AnswerError, Deployment, Via

MARKER = b"31337.0"
LEAK = re.compile(r'Traceback|File "|/site-packages/|/[\w.-]+/[\w.-]+\.py\b')
REFUSED = re.compile(r"4\d\d")
SKIPPED = "skipped: numbers are no text in this protocol"


def check(deployment: Deployment) -> Finding:
    observed, helped = dict[str, str](), []
    for case, body in _cases(deployment).items():
        observed[case] = SKIPPED if body is None else _send(deployment, body, "platform")
        if body is not None and observed[case].startswith("2") and deployment.gateway_url:
            behind = _send(deployment, body, "gateway")
            observed[case] += f", gateway {behind}"
            helped += [case] if REFUSED.fullmatch(behind) else []
    native = [case for case, found in observed.items() if REFUSED.fullmatch(found)]
    observed["afterwards"] = _afterwards(deployment)
    fine = [*native, *helped, *(case for case, found in observed.items() if found in (SKIPPED, "right"))]
    wrong = "; ".join(f"{case}: {found}" for case, found in observed.items() if case not in fine)
    return judge(
        not wrong,
        f"Of {len(observed) - 1} bad requests the platform refused {len(native)} with a reason"
        f"{', the gateway alone ' + ', '.join(helped) if helped else ''}; "
        f"{wrong or 'afterwards the golden rows were answered rightly'}.",
        observed=observed,
        expected={case: "right" if case == "afterwards" else "4xx with a reason" for case in observed},
        add_on="gateway" if helped and not wrong else None,
    )


def _cases(deployment: Deployment) -> dict[str, bytes | None]:
    golden, encode = deployment.model.golden.rows, deployment.client.encode
    rows: Any = golden[:2].astype(np.float64)  # float64, so that a number beyond float32 can be sent

    def broken(value: float) -> bytes:
        return encode(np.where(np.arange(24).reshape(2, 12) == 12, value, rows))

    marked = broken(31337.0)
    large = np.tile(golden, (2 * 2**20 // len(encode(golden)) + 2, 1))
    return {
        "11 columns": encode(rows[:, :11]),
        "NaN": broken(np.nan),
        "infinity": broken(np.inf),
        "1e39": broken(1e39),
        "text in a row": marked.replace(MARKER, b'"late"') if MARKER in marked else None,
        "no rows": encode(rows[:0]),
        "empty body": b"",
        "not JSON": b"not a request",
        "2 MiB": encode(large),
    }


def _send(deployment: Deployment, body: bytes, via: Via) -> str:
    """The status; more words where a refusal is not as it should be."""
    try:
        # Each on its own connection: what one bad request does to it is not blamed on the next.
        response = deployment.post(body, via=via, headers={"Connection": "close"})
    except httpx.TransportError as error:
        return f"no answer ({type(error).__name__})"
    leak = " and shows a traceback or path" if LEAK.search(response.text) else ""
    silent = " without a reason" if response.is_client_error and not re.search(r"[A-Za-z]{3}", response.text) else ""
    return f"{response.status_code}{leak}{silent}"


def _afterwards(deployment: Deployment) -> str:
    golden = deployment.model.golden
    if ended := deployment.ended():
        return f"the server {ended}"
    try:
        off = difference(deployment.predict(golden.rows), golden.expected)
    except (AnswerError, httpx.TransportError) as error:
        return f"{type(error).__name__}: {error}"
    return "right" if off <= TOLERANCE else f"wrong by {off}"
