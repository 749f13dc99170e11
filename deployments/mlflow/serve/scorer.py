"""The loaded model, in the shape that MLflow's scoring server expects."""

import logging
from typing import Any

import mlflow.pyfunc
import numpy as np
from metrics import PROBABILITY
from rows import MODEL_FAILED, Refusal

logger = logging.getLogger("uvicorn.error")


class Scorer:
    """An MLflow model of the ONNX flavour with one input [n, columns] and one output [n], whose answers are observed.

    Stands in for `mlflow.pyfunc.PyFuncModel`: the scoring server asks for `metadata` and `predict` only.
    """

    def __init__(self, path: str) -> None:
        self.model = mlflow.pyfunc.load_model(path)
        self.metadata = self.model.metadata
        session = self.model.get_raw_model()  # an onnxruntime.InferenceSession
        [tensor_in], [tensor_out] = session.get_inputs(), session.get_outputs()
        self.input, self.output, self.columns = tensor_in.name, tensor_out.name, tensor_in.shape[1]
        options = session.get_session_options()
        if (options.intra_op_num_threads, options.inter_op_num_threads) != (1, 1):
            # The flavour takes these from the MLmodel file alone; ONNX Runtime ignores cgroup limits when it guesses.
            logger.warning("ONNX Runtime picks its own number of threads: save the model with onnx_session_options=...")

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> dict[str, np.ndarray]:
        """Return {output: float32 [n]} for a float32 tensor [n, columns]; raise Refusal (500) when the model fails."""
        try:
            answer = self.model.predict(data, params)
        except Exception as error:
            logger.exception("The model failed on validated input")  # MLflow itself logs nothing: it tells the client
            raise Refusal(500, MODEL_FAILED) from error
        for probability in answer[self.output].tolist():
            PROBABILITY.observe(probability)
        return answer
