"""The Open Inference Protocol (V2, REST), which MLflow stopped offering when it dropped `--enable-mlserver`."""

import asyncio
from typing import Any

import mlflow
import numpy as np
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from guard import answer_refusal
from rows import Refusal, check_rows, parse_object
from scorer import Scorer


def read_tensor(request: dict[str, Any], scorer: Scorer) -> np.ndarray:
    """Return the one input tensor [n, columns] of an infer request, its data flat or nested; raise Refusal (400)."""
    tensors = request.get("inputs")
    if not (isinstance(tensors, list) and len(tensors) == 1 and isinstance(tensors[0], dict)):
        raise Refusal(400, "inputs must be a list of one tensor")
    tensor = tensors[0]
    if (tensor.get("name"), tensor.get("datatype")) != (scorer.input, "FP32"):
        raise Refusal(400, f"the tensor must be named {scorer.input} and have datatype FP32")
    data, shape, columns = tensor.get("data"), tensor.get("shape"), scorer.columns
    if not isinstance(data, list):
        raise Refusal(400, "data must be a list")
    if data and not isinstance(data[0], list):
        data = [data[at : at + columns] for at in range(0, len(data), columns)]
    if shape != [len(data), columns]:
        raise Refusal(400, f"shape must be [n, {columns}] and agree with data")
    if request.get("outputs", [{"name": scorer.output}]) != [{"name": scorer.output}]:
        raise Refusal(400, f"the only output is {scorer.output}")
    return check_rows(data, columns)


def add_routes(app: FastAPI, scorer: Scorer, model_name: str) -> None:
    """Add the routes under /v2 for the one model to MLflow's application."""

    def check_name(name: str) -> None:
        if name != model_name:
            raise Refusal(404, "no such model")

    @app.exception_handler(Refusal)
    async def refuse(request: Request, refusal: Refusal) -> JSONResponse:
        return answer_refusal(request.url.path, refusal)

    @app.get("/v2")
    async def server() -> dict[str, Any]:
        return {"name": "mlflow", "version": mlflow.__version__, "extensions": []}

    @app.get("/v2/health/live")
    async def live() -> dict[str, Any]:
        return {"live": True}

    @app.get("/v2/health/ready")
    async def ready() -> dict[str, Any]:
        return {"ready": True}  # the model was loaded before the port was opened

    @app.get("/v2/models/{name}")
    async def model(name: str) -> dict[str, Any]:
        check_name(name)
        inputs = [{"name": scorer.input, "datatype": "FP32", "shape": [-1, scorer.columns]}]
        outputs = [{"name": scorer.output, "datatype": "FP32", "shape": [-1]}]
        return {"name": name, "versions": [], "platform": "onnx_onnxv1", "inputs": inputs, "outputs": outputs}

    @app.get("/v2/models/{name}/ready")
    async def model_ready(name: str) -> dict[str, Any]:
        check_name(name)
        return {"name": name, "ready": True}

    @app.post("/v2/models/{name}/infer")
    async def infer(name: str, request: Request) -> JSONResponse:
        check_name(name)
        body = parse_object(await request.body(), request.headers.get("content-type", ""))
        rows = read_tensor(body, scorer)
        answer = await asyncio.to_thread(scorer.predict, rows)
        data = answer[scorer.output].tolist()
        output = {"name": scorer.output, "datatype": "FP32", "shape": [len(data)], "data": data}
        identity = {"id": body["id"]} if isinstance(body.get("id"), str) else {}
        return JSONResponse({"model_name": name, **identity, "outputs": [output]})
