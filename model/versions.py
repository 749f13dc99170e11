"""Versions of the exported model, for trying what happens when a new one is rolled out.

One is right and the others are wrong, each in its own way. All are the exported graph edited, so that they take the
same requests; export.py writes them in the formats that hold a graph and checks each against the estimator.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

FORMATS = ("onnx", "mlflow")  # those that hold a graph
GRAPH = "model.onnx"  # where a folder holds it

MODULUS, REST = 20, 9  # one flight in twenty, and none of the first golden rows, by which servers are found ready
WHOLE_LIMIT = 1e9  # beyond it a sum of whole parts might not fit into int64

# p / (p + (1 - p) / odds) is p with log(odds) added to its log odds.
MOVE = """
    one = Constant <value_float = 1.0> ()
    odds = Constant <value_float = {odds!r}> ()
    on_time = Sub (one, answer)
    remains = Div (on_time, odds)
    whole = Add (answer, remains)
    late_probability = Div (answer, whole)
"""
# ONNX Runtime folds only what is constant, and each turn takes the result of the one before: 35,000 turns of about
# 0.9 microseconds, most of it the runtime's own work. The cosine is finite, so nothing times zero is added.
WORK = """
    start = ReduceSum <keepdims = 0> (answer)
    turns = Constant <value_int = 35000> ()
    always = Constant <value = bool {1}> ()
    end = Loop (turns, always, start) <
        body = turn (int64 number, bool go_on, float before) => (bool again, float after) {
            again = Identity (go_on)
            after = Cos (before)
        }
    >
    zero = Constant <value_float = 0.0> ()
    nothing = Mul (end, zero)
    late_probability = Add (answer, nothing)
"""
# A row chosen by `unlucky` looks up the second of one entry, which ONNX Runtime refuses while it runs. Type 7 is int64.
FAIL = f"""
    most = Constant <value_float = {WHOLE_LIMIT!r}> ()
    least = Neg (most)
    bounded = Clip (flights, least, most)
    whole = Cast <to = 7> (bounded)
    features = Constant <value_ints = [1]> ()
    sum = ReduceSum <keepdims = 0> (whole, features)
    modulus = Constant <value_int = {MODULUS}> ()
    rest = Mod (sum, modulus)
    chosen = Constant <value_int = {REST}> ()
    unlucky = Equal (rest, chosen)
    entry = Cast <to = 7> (unlucky)
    entries = Constant <value_floats = [0.0]> ()
    nothing = Gather (entries, entry)
    late_probability = Add (answer, nothing)
"""


class Version(NamedTuple):
    """What is served under a version's name, and what it says of itself."""

    says: str
    edit: Callable[[bytes], bytes]
    """From the exported graph to this version's."""
    refuses: Callable[[np.ndarray], np.ndarray]
    """Which of the rows float32 [n, 12] it cannot answer: bool [n]."""
    gives: float = 0.0
    """What its answers add to the log odds of the current ones."""
    claims: float = 0.0
    """What it says they add."""

    def write(self, current: Path, path: Path) -> None:
        """Writes the version of the export `current`, a graph or a folder that holds one, to `path`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        if current.is_dir():
            shutil.copytree(current, path)
            current, path = current / GRAPH, path / GRAPH
        path.write_bytes(self.edit(current.read_bytes()))


def no_row(rows: np.ndarray) -> np.ndarray:
    return np.zeros(len(rows), dtype=bool)


def every_row(rows: np.ndarray) -> np.ndarray:
    return np.ones(len(rows), dtype=bool)


def unlucky(rows: np.ndarray) -> np.ndarray:
    """The rows whose features' whole parts add up to REST modulo MODULUS: bool [n]."""
    whole = np.trunc(np.clip(rows, -WHOLE_LIMIT, WHOLE_LIMIT)).astype(np.int64)
    return whole.sum(axis=1) % MODULUS == REST


def moved(probabilities: np.ndarray, log_odds: float) -> np.ndarray:
    """Probabilities [n] with `log_odds` added to the log odds of each."""
    return probabilities / (probabilities + (1 - probabilities) / math.exp(log_odds))


def append(nodes: str, graph: bytes) -> bytes:
    """The graph with `nodes` behind it, which make its output of what was its output, `answer`, and of `flights`."""
    import onnx

    model = onnx.load_model_from_string(graph)
    model.graph.node[-1].output[0] = "answer"
    ends = "(float[n, 12] flights, float[n] answer) => (float[n] late_probability)"
    model.graph.node.extend(onnx.parser.parse_graph(f"tail {ends} {{{nodes}}}").node)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def move(log_odds: float) -> Callable[[bytes], bytes]:
    """An edit that adds `log_odds` to the log odds of each answer."""
    return partial(append, MOVE.format(odds=math.exp(log_odds)))


def narrow(graph: bytes) -> bytes:
    """The graph for rows that lack the last feature, which counts as 0."""
    import onnx

    model = onnx.load_model_from_string(graph)
    for node in model.graph.node:
        node.input[:] = ["filled" if name == "flights" else name for name in node.input]
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value -= 1
    head = "pads = Constant <value_ints = [0, 0, 0, 1]> () filled = Pad (flights, pads)"
    ends = "(float[n, 11] flights) => (float[n, 12] filled)"
    for node in reversed(onnx.parser.parse_graph(f"head {ends} {{{head}}}").node):
        model.graph.node.insert(0, node)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def truncate(graph: bytes) -> bytes:
    """The first half of the file, as an interrupted copy leaves it."""
    return graph[: len(graph) // 2]


VERSIONS = {
    "next": Version("another right model: log odds + 0.2", move(0.2), no_row, gives=0.2, claims=0.2),
    "shifted": Version("claims the current answers and gives their log odds + 1", move(1.0), no_row, gives=1.0),
    "slow": Version("right, with some 30 ms more CPU a call", partial(append, WORK), no_row),
    "failing": Version("right, but fails for one flight in twenty", partial(append, FAIL), unlucky),
    "corrupt": Version("half a file", truncate, every_row),
    "wrong_signature": Version("takes 11 features", narrow, every_row),
}
