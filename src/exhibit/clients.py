"""Loads a platform's ``client.py``: how its requests are written and its answers read."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from exhibit.errors import ExhibitError


class Client(Protocol):
    """What each platform's client.py provides, with nothing but the standard library and numpy."""

    def encode(self, rows: npt.NDArray[np.floating[Any]]) -> bytes:
        """A request body for `rows` [n, k]; never validates, so that the checks can send what is wrong."""

    def decode(self, body: bytes) -> npt.NDArray[np.float64]:
        """P(late) [n] out of an answer's body."""

    def rows(self, body: bytes) -> npt.NDArray[np.float32]:
        """The rows [n, 12] out of a request's body."""


def load(path: Path) -> Client:
    """The module at `path`, under a name of its own.

    Raises:
        ExhibitError: it lacks one of the three functions.
    """
    spec = importlib.util.spec_from_file_location(f"client_{path.parent.name.replace('-', '_')}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ExhibitError(
            f"{path.parent.name}/{path.name}", f"{type(error).__name__}: {error}", "a module that loads", "Mend it."
        ) from error
    for name in ("encode", "decode", "rows"):
        if not callable(getattr(module, name, None)):
            raise ExhibitError(
                f"{path.parent.name}/{path.name}", f"no function {name}", "encode, decode and rows", f"Add {name}."
            )
    return cast(Client, module)


def read_explanation(client: Client, body: bytes) -> npt.NDArray[np.float64]:
    """What each feature contributed [n, k], out of a native explanation's body; not checked further.

    Raises:
        ValueError: client.py has no `explanation`, or it cannot read the body.
    """
    explanation = getattr(client, "explanation", None)
    if explanation is None:
        raise ValueError("client.py has no function `explanation`, which a platform that explains by itself must have")
    try:
        return np.asarray(explanation(body), dtype=np.float64)
    except Exception as error:  # whatever a platform's client stumbles over, the answer is what is wrong
        raise ValueError(f"explanation cannot be read ({error!r}): {body[:200]!r}") from error


def read(client: Client, body: bytes, count: int) -> npt.NDArray[np.float64]:
    """The `count` probabilities of an answer's body.

    Raises:
        ValueError: the client cannot read it, or it does not hold one probability a row.
    """
    try:
        answers = np.asarray(client.decode(body), dtype=np.float64)
    except Exception as error:  # whatever a platform's client stumbles over, the answer is what is wrong
        raise ValueError(f"answer cannot be read ({error!r}): {body[:200]!r}") from error
    if answers.shape != (count,):
        raise ValueError(f"answered {answers.shape} probabilities for {count} rows")
    return answers
