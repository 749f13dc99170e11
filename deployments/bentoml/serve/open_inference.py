"""The Open Inference Protocol (V2, REST) for the one model, which BentoML does not speak itself."""

import os
from typing import Any, Literal

import bentoml
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator
from rows import COLUMNS, Rows
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

INPUT = {"name": "flights", "datatype": "FP32", "shape": [-1, COLUMNS]}
OUTPUT = {"name": "late_probability", "datatype": "FP32", "shape": [-1]}


class Tensor(BaseModel):
    name: Literal["flights"]
    datatype: Literal["FP32"]
    shape: tuple[int, int]
    data: Rows

    @field_validator("data", mode="before")
    @classmethod
    def nest(cls, data: Any) -> Any:
        """Return flat data as rows; the protocol allows both."""
        if isinstance(data, list) and data and not isinstance(data[0], list):
            return [data[start : start + COLUMNS] for start in range(0, len(data), COLUMNS)]
        return data

    @model_validator(mode="after")
    def check_shape(self) -> "Tensor":
        if self.shape != (len(self.data), COLUMNS):
            raise ValueError(f"shape must be [n, {COLUMNS}] and agree with data")
        return self


class RequestedOutput(BaseModel):
    name: Literal["late_probability"]


class InferRequest(BaseModel):
    id: str | None = None
    inputs: list[Tensor] = Field(min_length=1, max_length=1)
    outputs: list[RequestedOutput] = Field(default=[], max_length=1)


def check_name(request: Request) -> str:
    """Return the model's name in the path; raise HTTPException (404) when it is another one."""
    name: str = request.path_params["name"]
    if name != os.environ["MODEL_NAME"]:
        raise HTTPException(404, "no such model")
    return name


async def server(request: Request) -> JSONResponse:
    return JSONResponse({"name": "bentoml", "version": bentoml.__version__, "extensions": []})


async def live(request: Request) -> JSONResponse:
    return JSONResponse({"live": True})


async def ready(request: Request) -> JSONResponse:
    return JSONResponse({"ready": True})  # the model was loaded before the server began to answer


async def model(request: Request) -> JSONResponse:
    tensors = {"inputs": [INPUT], "outputs": [OUTPUT]}
    return JSONResponse({"name": check_name(request), "versions": [], "platform": "onnx_onnxv1", **tensors})


async def model_ready(request: Request) -> JSONResponse:
    return JSONResponse({"name": check_name(request), "ready": True})


async def infer(request: Request) -> JSONResponse:
    name = check_name(request)
    question = InferRequest.model_validate_json(await request.body())
    data = bentoml.get_current_service().score(question.inputs[0].data)
    answer: dict[str, Any] = {"model_name": name, "outputs": [{**OUTPUT, "shape": [len(data)], "data": data}]}
    return JSONResponse(answer if question.id is None else {"id": question.id, **answer})


async def refuse_input(request: Request, error: ValidationError) -> JSONResponse:
    [first, *_] = error.errors(include_url=False, include_context=False, include_input=False)
    place = ".".join(map(str, first["loc"]))
    return JSONResponse({"error": f"{place}: {first['msg']}" if place else first["msg"]}, 400)


async def refuse(request: Request, error: HTTPException) -> JSONResponse:
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


routes = [
    Route("/v2", server),
    Route("/v2/health/live", live),
    Route("/v2/health/ready", ready),
    Route("/v2/models/{name}", model),
    Route("/v2/models/{name}/ready", model_ready),
    Route("/v2/models/{name}/infer", infer, methods=["POST"]),
]
handlers = {ValidationError: refuse_input, HTTPException: refuse}
