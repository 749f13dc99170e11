"""Arrays of an .npz file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from errors import ExplainersError


def load(path: Path, names: Sequence[str], rule: str, remedy: str) -> list[npt.NDArray[np.generic]]:
    """The arrays `names` of the file `path`; nothing in it is run (no pickle).

    Raises:
        ExplainersError: it cannot be read or lacks one; `rule` and `remedy` say what is expected.
    """
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            return [file[name] for name in names]
    except Exception as error:  # a damaged file fails in many ways, by zipfile, zlib or numpy
        raise ExplainersError(path, f"{type(error).__name__}: {error}", rule, remedy) from None
