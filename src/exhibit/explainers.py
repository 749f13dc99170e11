"""Asks the explainers beside a deployment why it answered as it did."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt

from exhibit.errors import ServerError
from exhibit.model import Probabilities, Rows
from exhibit.targets import AnswerError, Deployment

NAME = "explainers"
MOST_ROWS = 16
"""Rows the explainers take in one request."""
CALLERS = 2
"""Requests asked at once; the explainers take a few, and refuse more."""


@dataclass(frozen=True)
class Attributions:
    """Shapley values of answers: what each feature adds to or takes from the average answer."""

    values: npt.NDArray[np.float64]
    """[n, k]"""
    base_values: npt.NDArray[np.float64]
    """[n], the average answer over the explainers' background."""
    predictions: Probabilities
    """[n], the served model's answers as the explainer saw them."""


def attributions(deployment: Deployment, rows: Rows, seed: int = 0) -> Attributions:
    """KernelShap values of the served model's answers for `rows` [n, k].

    Raises:
        AnswerError: they are refused, or the answer is no explanation of each row.
    """
    # The same number of requests for each caller, of about the same size: none waits long for the other's last.
    rounds = -(-len(rows) // (MOST_ROWS * CALLERS))
    parts = np.array_split(rows, min(rounds * CALLERS, len(rows)))
    with ThreadPoolExecutor(CALLERS) as pool:
        answers = list(pool.map(lambda part: ask(deployment, part, "kernel_shap", seed), parts))
    found = [one for answer in answers for one in answer]
    try:
        read = Attributions(
            *(
                np.array([one[name] for one in found], dtype=np.float64)
                for name in ("values", "base_value", "prediction")
            )
        )
    except (KeyError, TypeError, ValueError) as error:
        raise AnswerError(f"had its explainers answer without values for each row: {error!r}") from error
    if read.values.shape != rows.shape or not np.isfinite(read.values).all():
        raise AnswerError(f"had its explainers answer values of shape {read.values.shape} for rows of {rows.shape}")
    return read


def ask(deployment: Deployment, rows: Rows, method: str, seed: int = 0) -> list[dict[str, Any]]:
    """The explainers' explanations of at most `MOST_ROWS` rows, as they give them.

    Raises:
        AnswerError: they are refused.
    """
    body = {"rows": rows.astype(float).tolist(), "method": method, "seed": seed}
    try:
        response = deployment.http.post(deployment.companions[NAME]["main"] + "/explain", json=body)
    except httpx.HTTPError as error:  # theirs, not the platform's
        raise ServerError(NAME, f"{type(error).__name__}: {error}", "an answer", "Look into their log.") from error
    if response.status_code != 200:
        raise AnswerError(f"had its explainers answer {response.status_code}: {response.text[:200]!r}")
    return list(response.json()["explanations"])
