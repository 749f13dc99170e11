"""Does it speak the Open Inference Protocol, so that callers need not know which server answers?

Why: One protocol (V2, of KServe, Triton and others) makes the server a part that can be exchanged.
How: Over REST: health, server and model metadata, inference on the golden rows with the tensor's data flat and nested,
    an unknown model, and tensors of the wrong shape.
Pass: Health, metadata (input flights, output late_probability, both FP32) and answers are as the protocol and the model
    say, an unknown model is 404, a wrong shape 4xx. An id may be left out of the answer but not changed.
Fix: https://github.com/kserve/open-inference-protocol names each path and field; serve them beside the own protocol.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from exhibit.criteria import Finding, judge
from exhibit.model import TOLERANCE, difference
from exhibit.targets import Deployment

NEEDS = ("open_inference",)
ID = "golden-rows"


def check(deployment: Deployment) -> Finding:
    name = deployment.platform.file.capabilities.open_inference.model
    rows, model = deployment.model.golden.rows, f"/v2/models/{name}"

    def infer(data: list[Any], shape: list[int], path: str = model) -> tuple[int, dict[str, Any]]:
        tensor = {"name": "flights", "datatype": "FP32", "shape": shape, "data": data}
        return _ask(deployment, f"{path}/infer", {"id": ID, "inputs": [tensor]})

    answered = {
        "live": _ask(deployment, "/v2/health/live")[0] == 200,
        "ready": _ask(deployment, "/v2/health/ready")[0] == 200,
        "model ready": _ask(deployment, f"{model}/ready")[0] == 200,
        "server metadata": _ask(deployment, "/v2")[1].keys() >= {"name", "version", "extensions"},
        "model metadata": _describes_model(_ask(deployment, model)[1], name),
        "flat data": _is_right(deployment, infer(rows.ravel().tolist(), [*rows.shape])),
        "nested data": _is_right(deployment, infer(rows.tolist(), [*rows.shape])),
        "unknown model is 404": infer(rows[:1].tolist(), [1, 12], "/v2/models/no-such-model")[0] == 404,
        "11 columns are 4xx": infer(rows[:1, :11].tolist(), [1, 11])[0] // 100 == 4,
        "shape unlike data is 4xx": infer(rows[:1].ravel().tolist(), [2, 12])[0] // 100 == 4,
    }
    wrong = [what for what, fine in answered.items() if not fine]
    return judge(
        not wrong,
        f"{len(answered) - len(wrong)} of {len(answered)} parts of the protocol are as they should be"
        f"{'; not so: ' + ', '.join(wrong) if wrong else ''}.",
        observed=answered,
        expected=dict.fromkeys(answered, True),
    )


def _ask(deployment: Deployment, path: str, body: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
    """Status and JSON object of an answer; an empty one where it is none."""
    response = deployment.http.request("POST" if body else "GET", deployment.address(path), json=body)
    try:
        found = response.json()
    except (json.JSONDecodeError, UnicodeDecodeError):
        found = None
    return response.status_code, found if isinstance(found, dict) else {}


def _describes_model(found: dict[str, Any], name: str) -> bool:
    inputs, outputs = [("flights", "FP32", [-1, 12])], [("late_probability", "FP32", [-1])]
    return (found.get("name"), _tensors(found, "inputs"), _tensors(found, "outputs")) == (name, inputs, outputs)


def _tensors(found: dict[str, Any], side: str) -> list[tuple[Any, ...]]:
    return [tuple(tensor.get(field) for field in ("name", "datatype", "shape")) for tensor in found.get(side) or []]


def _is_right(deployment: Deployment, answer: tuple[int, dict[str, Any]]) -> bool:
    golden, (status, found) = deployment.model.golden, answer
    if status != 200 or _tensors(found, "outputs") != [("late_probability", "FP32", [len(golden)])]:
        return False
    try:
        answers = np.asarray(found["outputs"][0]["data"], dtype=np.float64).reshape(len(golden))
    except (KeyError, TypeError, ValueError):
        return False
    return found.get("id", ID) == ID and difference(answers, golden.expected) <= TOLERANCE
