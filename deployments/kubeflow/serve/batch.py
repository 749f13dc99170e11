"""Offline scoring: `MODEL_PATH=... python batch.py flights.npy probabilities.npy`, no server involved.

KServe itself has nothing for files. Its model is a class: called in this process, it scores the same way.
"""

import os
import sys

import numpy as np

from model import FlightDelay

CHUNK_ROWS = 100_000  # bounds the memory of intermediate tensors, however long the file


def predict_file(model_path: str, source: str, target: str) -> None:
    """Read rows [n, 12] from `source` and write P(late) float32 [n] to `target`.

    Raises ValueError for a value that is not finite, and ONNX Runtime's error for rows of another length.
    """
    model = FlightDelay("offline", model_path)
    rows = np.load(source, mmap_mode="r", allow_pickle=False)
    answers = np.empty(len(rows), dtype=np.float32)
    for start in range(0, len(rows), CHUNK_ROWS):
        chunk = np.asarray(rows[start : start + CHUNK_ROWS], dtype=np.float32)
        if not np.isfinite(chunk).all():
            raise ValueError(f"{source}: a value in rows {start} to {start + len(chunk) - 1} is not finite")
        answers[start : start + len(chunk)] = model.score(chunk)
    np.save(target, answers)


if __name__ == "__main__":
    predict_file(os.environ["MODEL_PATH"], *sys.argv[1:3])
