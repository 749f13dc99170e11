"""Offline scoring: `MODEL_PATH=... python batch.py flights.npy probabilities.npy`, no server involved.

Uses `mlflow.pyfunc.load_model(...).predict(...)`, MLflow's inference interface, in this process. The command
`mlflow models predict` reads only JSON and CSV text: a .npy tensor would have to be written out as JSON first, and its
CSV form fails for a model with one tensor input.
"""

import os
import sys

import mlflow.pyfunc
import numpy as np

CHUNK_ROWS = 100_000  # bounds the memory of intermediate tensors, however long the file


def predict_file(model_path: str, source: str, target: str) -> None:
    """Read rows [n, 12] from `source` and write P(late) float32 [n] to `target`.

    Raises ValueError for a value that is not finite and MlflowException for a shape other than the model's signature.
    """
    model = mlflow.pyfunc.load_model(model_path)
    rows = np.load(source, mmap_mode="r", allow_pickle=False)
    answers = [np.empty(0, dtype=np.float32)]  # no rows, no answers
    for start in range(0, len(rows), CHUNK_ROWS):
        chunk = np.asarray(rows[start : start + CHUNK_ROWS], dtype=np.float32)
        if not np.isfinite(chunk).all():
            raise ValueError(f"{source}: a value in rows {start} to {start + len(chunk) - 1} is not finite")
        [answer] = model.predict(chunk).values()
        answers.append(answer)
    np.save(target, np.concatenate(answers))


if __name__ == "__main__":
    predict_file(os.environ["MODEL_PATH"], *sys.argv[1:3])
