"""A KServe predictor of the flight model, an ONNX graph [n, 12] -> [n]: `python model.py`.

PORT, HOST, MODEL_PATH and MODEL_NAME come from the environment; KServe's own options (--timeout-keep-alive) work too.
"""

import logging
import os
from pathlib import Path
from typing import Any

import kserve
import numpy as np
import onnxruntime
from fastapi.responses import HTMLResponse
from guard import BodyLimit
from kserve.errors import InferenceError, InvalidInput, ModelNotFound
from kserve.logging import configure_logging
from kserve.model_server import app
from kserve.utils.utils import generate_uuid
from prometheus_client import Histogram
from rows import FEATURES, read_rows

FOLDER = Path(__file__).parent
PAGE = FOLDER.joinpath("page.html").read_text(encoding="utf-8")
STOP_SECONDS = 8
INPUT = {"name": "flights", "datatype": "FP32", "shape": [-1, FEATURES]}
OUTPUT = {"name": "late_probability", "datatype": "FP32", "shape": [-1]}
TENTHS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
PROBABILITY = Histogram("flight_delay_probability", "Predicted probability of a late arrival.", buckets=TENTHS)


class FlightDelay(kserve.Model):
    """The probability that a flight arrives more than 15 minutes late, from the ONNX graph at `path`."""

    def __init__(self, name: str, path: str) -> None:
        super().__init__(name)
        self.path = path
        self.load()

    def load(self) -> bool:
        """Make the session and have it answer a row; the process ends, before its port is open, when that fails.

        Raises ONNX Runtime's error for a file that is no graph or has another signature, ValueError for another answer.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1  # a row takes microseconds: threads only wait
        self.session = onnxruntime.InferenceSession(self.path, options)
        answer = self.score(np.zeros((1, FEATURES), dtype=np.float32))
        if answer.shape != (1,) or not 0 <= answer[0] <= 1:
            raise ValueError(f"{self.path}: a row is answered {answer}, expected one probability")
        self.ready = True
        return self.ready

    def score(self, rows: np.ndarray) -> np.ndarray:
        """Return P(late) float32 [n] of `rows` float32 [n, 12]."""
        [probabilities] = self.session.run([OUTPUT["name"]], {INPUT["name"]: rows})
        return probabilities

    def get_input_types(self) -> list[dict[str, Any]]:
        return [INPUT]

    def get_output_types(self) -> list[dict[str, Any]]:
        return [OUTPUT]

    # Async: the model runs in the event loop, where a row takes less time than a thread would to take it over.
    async def predict(
        self, payload: Any, headers: dict[str, str] | None = None, response_headers: dict[str, str] | None = None
    ) -> dict[str, Any] | kserve.InferResponse:
        """Answer a V1 request with a dict and a V2 request with an InferResponse, as KServe expects it."""
        rows = read_rows(payload)
        try:
            probabilities = self.score(rows)
        except Exception as error:  # KServe would send its text to the caller
            raise InferenceError("the model failed; the reason is in the server's log") from error
        for probability in probabilities.tolist():
            PROBABILITY.observe(probability)
        if isinstance(payload, dict):
            return {"predictions": probabilities.tolist()}
        output = kserve.InferOutput(OUTPUT["name"], [len(rows)], OUTPUT["datatype"], probabilities)
        return kserve.InferResponse(
            payload.id or generate_uuid(),
            self.name,
            [output],
            requested_outputs=payload.request_outputs,
            use_binary_outputs=payload.use_binary_outputs,
        )


class Server(kserve.ModelServer):
    """KServe's server, listening at HOST: it has no option for that, and private names change, so it is pinned."""

    async def _serve(self) -> None:
        self._rest_server.config.host = os.environ["HOST"]
        await super()._serve()


def hide_refusals(record: logging.LogRecord) -> bool:
    """Keep refused requests out of the log: KServe writes a traceback for each."""
    return not (record.exc_info and isinstance(record.exc_info[1], InvalidInput | ModelNotFound | NotImplementedError))


@app.get("/web", include_in_schema=False)
async def page() -> HTMLResponse:
    return HTMLResponse(PAGE)


if __name__ == "__main__":
    configure_logging(str(FOLDER / "log_config.yaml"))
    logging.getLogger("kserve").addFilter(hide_refusals)
    app.add_middleware(BodyLimit)
    model = FlightDelay(os.environ["MODEL_NAME"], os.environ["MODEL_PATH"])
    server = Server(
        http_port=int(os.environ["PORT"]), enable_grpc=False, enable_latency_logging=False, grace_period=STOP_SECONDS
    )
    server.start([model])
