"""MLServer runtimes of the flight model: an ONNX graph [n, 12] -> [n], its web page, a variant that batches requests.

Blocking the event loop is deliberate: a row takes microseconds, a hand-over to a thread or another process longer.
"""

from pathlib import Path

import numpy as np
import onnxruntime
from metrics import BATCH_SIZE, PROBABILITY
from mlserver import MLModel
from mlserver.handlers import custom_handler
from mlserver.types import InferenceRequest, InferenceResponse, RequestInput, ResponseOutput
from mlserver.utils import get_model_uri
from rows import FEATURES, read_rows
from starlette.responses import HTMLResponse

PAGE = Path(__file__).with_name("page.html").read_text(encoding="utf-8")


class OnnxModel(MLModel):
    """The ONNX graph at the model's `uri` (MLSERVER_MODEL_URI), or `model.onnx` beside model-settings.json."""

    async def load(self) -> bool:
        """Make the session and have it answer a row.

        Raises ONNX Runtime's error for a file that is no graph or has another signature, ValueError for another answer.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        path = await get_model_uri(self.settings, wellknown_filenames=["model.onnx"])
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        [answer] = self._session.run(["late_probability"], {"flights": np.zeros((1, FEATURES), dtype=np.float32)})
        if answer.shape != (1,) or not 0 <= answer[0] <= 1:
            raise ValueError(f"{path}: a row is answered {answer}, expected one probability")
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer the tensor `flights` FP32 [n, 12] with `late_probability` FP32 [n]; InferenceError for bad input."""
        [probabilities] = self._session.run(["late_probability"], {"flights": read_rows(payload)})
        answer = probabilities.tolist()
        for probability in answer:
            PROBABILITY.observe(probability)
        output = ResponseOutput(name="late_probability", datatype="FP32", shape=[len(answer)], data=answer)
        return InferenceResponse(model_name=self.name, outputs=[output])


class FlightDelay(OnnxModel):
    """The model, with a page for people."""

    @custom_handler(rest_path="/web", rest_method="GET")
    async def page(self) -> HTMLResponse:
        return HTMLResponse(PAGE)


class BatchedFlightDelay(OnnxModel):
    """The model behind MLServer's adaptive batching: requests that arrive together share one call of the graph."""

    async def load(self) -> bool:
        # By now MLServer has put its batcher in front of predict(). It merges all it gets: a bad request would fail
        # the good ones beside it, and data that does not fill its shape would hand one caller another's answers.
        self._batched_predict, self.predict = self.predict, self._predict_checked
        return await super().load()

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer one merged request."""
        response = await super().predict(payload)
        BATCH_SIZE.observe(response.outputs[0].shape[0])
        return response

    async def _predict_checked(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer one caller's request by way of the batcher."""
        rows = read_rows(payload)
        tensor = RequestInput(name="flights", datatype="FP32", shape=list(rows.shape), data=rows.ravel().tolist())
        return await self._batched_predict(InferenceRequest(id=payload.id, inputs=[tensor]))
