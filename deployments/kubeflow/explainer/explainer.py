"""A KServe explainer of the flight model: what each feature adds to a prediction, by alibi's KernelShap.

KServe starts it beside the predictor with --model_name, --predictor_host and --http_port, and it asks the model that is
served: `POST /v1/models/<name>:explain` {"instances": [[12 numbers], ...]}. alibi 0.9.6 is under the Business Source
License 1.1: free for non-production use only.
"""

import argparse
import asyncio
from pathlib import Path
from typing import Any

import httpx
import kserve
import numpy as np
from alibi.explainers import KernelShap
from kserve.errors import InferenceError, InvalidInput

FEATURES = 12
MOST_ROWS = 64
BACKGROUND_ROWS, SAMPLES = 20, 500
BATCH_ROWS = 1000  # a request stays well below the predictor's limit of 1 MiB
DEADLINE_SECONDS = 30


class Explainer(kserve.Model):
    """Explains what the predictor answers; `reference` is an .npz file with `rows` [n, 12] and `expected` [n]."""

    def __init__(self, name: str, predictor: str, reference: Path) -> None:
        super().__init__(name)
        with np.load(reference, allow_pickle=False) as file:
            order = np.argsort(file["expected"], kind="stable")
            # One row from the middle of each twentieth by prediction: together they predict what all do on average.
            middles = [part[len(part) // 2] for part in np.array_split(order, BACKGROUND_ROWS)]
            self.background = file["rows"][middles]
        self.predictor = httpx.Client(base_url=predictor, timeout=DEADLINE_SECONDS)
        self.one_at_a_time = asyncio.Lock()  # alibi shares numpy's random numbers
        self.ready = True

    async def explain(self, payload: Any, headers: dict[str, str] | None = None) -> dict[str, Any]:
        """Answer {"explanations": [{"base_value": x, "values": [12]}]}, which add up to each row's prediction."""
        rows = read_rows(payload)
        async with self.one_at_a_time:
            try:
                return {"explanations": await asyncio.to_thread(self.attribute, rows)}
            except httpx.HTTPError as error:
                raise InferenceError("the predictor cannot be asked; the reason is in the explainer's log") from error

    def attribute(self, rows: np.ndarray) -> list[dict[str, Any]]:
        """Return the explanation of each of `rows` [n, 12]."""
        explainer = KernelShap(self.ask, seed=0)
        explainer.fit(self.background)
        found = explainer.explain(rows, nsamples=SAMPLES, l1_reg=False, silent=True)
        base = float(np.ravel(found.expected_value)[0])
        return [{"base_value": base, "values": values.tolist()} for values in found.shap_values[0]]

    def ask(self, rows: np.ndarray) -> np.ndarray:
        """Return the predictor's answers [n, 1] to `rows` [n, 12], each different row asked once."""
        asked, places = np.unique(rows.astype(np.float32), axis=0, return_inverse=True)
        answers = []
        for start in range(0, len(asked), BATCH_ROWS):
            instances = asked[start : start + BATCH_ROWS].tolist()
            answer = self.predictor.post(f"/v1/models/{self.name}:predict", json={"instances": instances})
            answers += answer.raise_for_status().json()["predictions"]
        return np.asarray(answers)[places.ravel(), None]


def read_rows(payload: Any) -> np.ndarray:
    """Return the rows float32 [n, 12] of a V1 request; raise InvalidInput, which KServe answers with 400."""
    try:
        rows = np.asarray(payload["instances"], dtype=np.float32)
    except (KeyError, OverflowError, TypeError, ValueError):
        rows = np.empty(0)
    if rows.ndim != 2 or rows.shape[1] != FEATURES or not 1 <= len(rows) <= MOST_ROWS or not np.isfinite(rows).all():
        raise InvalidInput(f"instances: expected 1 to {MOST_ROWS} rows of {FEATURES} finite numbers")
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(parents=[kserve.model_server.parser])
    parser.add_argument("--reference", type=Path, default=Path("/artifacts/reference.npz"))
    arguments, _ = parser.parse_known_args()
    model = Explainer(arguments.model_name, f"http://{arguments.predictor_host}", arguments.reference)
    kserve.ModelServer(enable_grpc=False).start([model])
