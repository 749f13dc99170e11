"""The BentoML service: `bentoml serve service:FlightDelay`."""

import logging
import os
from pathlib import Path

import bentoml
import numpy as np
import onnxruntime
import open_inference
from guard import Guard, hide_refusals
from prometheus_client import Histogram
from rows import COLUMNS, Probabilities, Rows
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route

PAGE = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
TIMEOUT_SECONDS = 10
TENTHS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
PROBABILITY = Histogram("flight_delay_probability", "Predicted probability of a late arrival.", buckets=TENTHS)


async def page(request: Request) -> HTMLResponse:
    return HTMLResponse(PAGE)


def load_model() -> onnxruntime.InferenceSession:
    """Return a session that has answered a row.

    Raises ONNX Runtime's error for a file that is no graph or has another signature, ValueError for another answer.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # a row takes microseconds: threads only wait
    session = onnxruntime.InferenceSession(os.environ["MODEL_PATH"], options)
    [answer] = session.run(["late_probability"], {"flights": np.zeros((1, COLUMNS), dtype=np.float32)})
    if answer.shape != (1,) or not 0 <= answer[0] <= 1:
        raise ValueError(f"MODEL_PATH: a row is answered {answer}, expected one probability")
    return session


# Mounted at the root, between BentoML's endpoints and its index, whose page loads Google Tag Manager: ours replaces it.
pages = [Route("/", page), Route("/web", page)]
mounted = Starlette(routes=[*pages, *open_inference.routes], exception_handlers=open_inference.handlers)


@bentoml.service(
    envs=[{"name": "MODEL_PATH"}, {"name": "MODEL_NAME"}],  # checked at start
    traffic={"timeout": TIMEOUT_SECONDS},  # a timer lives that long for each request: short saves memory
    logging={"access": {"enabled": False}},
    tracing={"excluded_urls": ".*"},  # spans nobody collects take half of a request's CPU
)
@bentoml.asgi_app(mounted, path="/")
class FlightDelay:
    """The probability that a flight arrives more than 15 minutes late, from an ONNX model with 12 features."""

    def __init__(self) -> None:
        self.session = load_model()

    @bentoml.on_deployment
    @staticmethod
    def check_model() -> None:
        """Load the model once before there are workers: one that cannot answer would be restarted for ever."""
        load_model()

    def score(self, rows: Rows | np.ndarray) -> list[float]:
        """Return P(late) [n] of `rows` [n, 12], and observe each."""
        [probabilities] = self.session.run(None, {"flights": np.asarray(rows, dtype=np.float32)})
        answer = probabilities.tolist()
        for probability in answer:
            PROBABILITY.observe(probability)
        return answer

    # Async, so that the model runs in the event loop: a thread would cost more than the prediction.
    @bentoml.api
    async def predict(self, rows: Rows) -> Probabilities:
        """Return P(late) [n] of `rows` [n, 12]."""
        return self.score(rows)

    # Not async: while a batch is scored in a thread, the next one gathers. What is expected to wait for longer than
    # max_latency_ms is answered 503: as long as the timeout, a burst is not shed.
    @bentoml.api(batchable=True, max_batch_size=1024, max_latency_ms=TIMEOUT_SECONDS * 1000)
    def predict_batched(self, rows: Rows) -> Probabilities:
        """Return P(late) [n] of `rows` [n, 12], scored together with the rows of other callers."""
        return self.score(rows)


FlightDelay.add_asgi_middleware(Guard, post_only={api.route for api in FlightDelay.apis.values()})
logging.getLogger("bentoml._internal.server.http_app").addFilter(hide_refusals)
