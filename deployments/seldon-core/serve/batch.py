"""Offline scoring: `python batch.py http://host:port flights.npy probabilities.npy`, against a running server.

Drives `mlserver infer`, MLServer's own command for files: one V2 request a line in, one answer a line out. MLServer
calls it experimental and deprecated. Answers come in the order they finish; `batch_index`, the number of the input
line, puts each back in its place. A failed request is a line with an `error`, and the command still ends with 0.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

CHUNK_ROWS = 1000  # about 0.2 MiB of JSON a request, below the body limits of common proxies
MODEL = "flight-delay"


def write_requests(rows: np.ndarray, path: Path) -> None:
    """Write one V2 request a line, each for at most CHUNK_ROWS of `rows` [n, 12]; ValueError for a value not finite."""
    with path.open("w", encoding="utf-8") as lines:
        for start in range(0, len(rows), CHUNK_ROWS):
            chunk = np.asarray(rows[start : start + CHUNK_ROWS], dtype=np.float32)
            if not np.isfinite(chunk).all():  # `mlserver infer` would drop the line
                raise ValueError(f"rows {start} to {start + len(chunk) - 1}: a value is not finite as float32")
            tensor = {"name": "flights", "datatype": "FP32", "shape": chunk.shape, "data": chunk.ravel().tolist()}
            lines.write(json.dumps({"inputs": [tensor]}) + "\n")


def read_answers(path: Path, count: int) -> np.ndarray:
    """Return P(late) float32 [count] in the order of the requests; ValueError when a request failed or is missing."""
    with path.open(encoding="utf-8") as lines:
        answers = sorted(map(json.loads, lines), key=lambda answer: answer["parameters"]["batch_index"])
    for answer in answers:
        if "outputs" not in answer:
            raise ValueError(f"request {answer['parameters']['batch_index']} failed: {answer['error']['msg']}")
    probabilities = np.concatenate([answer["outputs"][0]["data"] for answer in answers]).astype(np.float32)
    if len(probabilities) != count:
        raise ValueError(f"{len(probabilities)} answers, expected {count}: see the log of `mlserver infer` above")
    return probabilities


def predict_file(url: str, source: str, target: str) -> None:
    """Read rows float32 [n, 12] from `source` and write P(late) float32 [n] to `target`, both .npy."""
    rows = np.load(source, mmap_mode="r", allow_pickle=False)
    with tempfile.TemporaryDirectory() as folder:
        requests, answers = Path(folder, "requests.jsonl"), Path(folder, "answers.jsonl")
        write_requests(rows, requests)
        server = url.removeprefix("http://").rstrip("/")
        options = ["--url", server, "--model-name", MODEL, "--workers", "2"]
        files = ["--input-data-path", str(requests), "--output-data-path", str(answers)]
        subprocess.run(["mlserver", "infer", *options, *files], check=True)
        np.save(target, read_answers(answers, len(rows)))


if __name__ == "__main__":
    try:
        predict_file(*sys.argv[1:4])
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        sys.exit(f"batch.py: {error}")
