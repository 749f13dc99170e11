"""The loaded model, in the shape that MLflow's scoring server expects."""

import logging
from typing import Any

import mlflow.pyfunc
import numpy as np
from metrics import PROBABILITY
from rows import MODEL_FAILED, Refusal

logger = logging.getLogger("uvicorn.error")


class Scorer:
    """An MLflow model of the ONNX flavour, its signature one input [n, columns] and one output [n].

    Stands in for `mlflow.pyfunc.PyFuncModel`: the scoring server asks for `metadata` and `predict` only. Observes each
    answer. Raises what MLflow or ONNX Runtime does, or ValueError, for a graph that does not keep the signature.
    """

    def __init__(self, path: str) -> None:
        self.model = mlflow.pyfunc.load_model(path)
        self.metadata = self.model.metadata
        [tensor_in], [tensor_out] = self.metadata.signature.inputs.inputs, self.metadata.signature.outputs.inputs
        self.input, self.output, self.columns = tensor_in.name, tensor_out.name, tensor_in.shape[1]
        # The signature stands beside the graph: only a prediction tells whether they agree.
        answer = self.model.predict({self.input: np.zeros((1, self.columns), dtype=np.float32)})[self.output]
        if answer.shape != (1,) or not 0 <= answer[0] <= 1:
            raise ValueError(f"{path}: a row is answered {answer}, expected one probability")
        options = self.model.get_raw_model().get_session_options()  # of an onnxruntime.InferenceSession
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
