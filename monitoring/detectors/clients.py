"""A platform's client.py, loaded by path: it reads rows from a request and speaks to the served model."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt
from errors import DetectorsError

FUNCTIONS = ("encode", "decode", "rows")


class Client(Protocol):
    """What a client.py defines; it is code of the operator and is trusted, the bodies it reads are not."""

    def encode(self, rows: npt.NDArray[np.float32]) -> bytes:
        """The body of a request for rows float32 [n, k]."""
        ...

    def decode(self, body: bytes) -> npt.NDArray[np.float64]:
        """The predictions float64 [n] in an answer; any exception when it holds none."""
        ...

    def rows(self, body: bytes) -> npt.NDArray[np.float32]:
        """The rows float32 [n, k] in a request; any exception when it holds none."""
        ...


def load(path: Path) -> Client:
    """The client defined in the file `path`.

    Raises:
        DetectorsError: there is no such file, it cannot be imported, or it lacks one of the three functions.
    """
    remedy = f"Give --client a Python file that defines {', '.join(FUNCTIONS)}."
    if not path.is_file():
        raise DetectorsError(path, "no such file", "the client.py of the served model", remedy)
    specification = importlib.util.spec_from_file_location("client", path)
    assert specification is not None and specification.loader is not None  # noqa: PT018
    module = importlib.util.module_from_spec(specification)
    try:
        specification.loader.exec_module(module)
    except Exception as error:
        raise DetectorsError(path, f"{type(error).__name__}: {error}", "a file that can be imported", remedy) from error
    missing = [name for name in FUNCTIONS if not callable(getattr(module, name, None))]
    if missing:
        raise DetectorsError(path, f"no {', '.join(missing)}", "the functions encode, decode and rows", remedy)
    return cast(Client, module)
