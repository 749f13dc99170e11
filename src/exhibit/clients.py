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
    spec.loader.exec_module(module)
    for name in ("encode", "decode", "rows"):
        if not callable(getattr(module, name, None)):
            raise ExhibitError(
                f"{path.parent.name}/{path.name}", f"no function {name}", "encode, decode and rows", f"Add {name}."
            )
    return cast(Client, module)
