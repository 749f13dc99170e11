"""Explanations of single predictions by alibi: KernelShap and anchors.

KernelShap (Lundberg and Lee, "A Unified Approach to Interpreting Model Predictions", 2017) says what each feature adds
to or takes from the average prediction. Anchors (Ribeiro, Singh and Guestrin, "Anchors: High-Precision Model-Agnostic
Explanations", 2018) are conditions under which the model nearly always decides as it did.

An explanation depends on the row, the seed, the reference and the served model, and on nothing that was explained
before: alibi's explainers keep state and share numpy's global random numbers, so each row gets a new explainer, whose
`fit` seeds them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import without_ray  # noqa: F401

# isort: split
from alibi.explainers import AnchorTabular, KernelShap
from errors import ExplainersError, InputRefused, ServedModelFailed
from features import CATEGORIES, FEATURES
from reference import BACKGROUND_ROWS, Reference, Rows, choose_background

SAMPLES = 500
PRECISION = 0.95
MOST_CONDITIONS = 6
"""More conditions hold for hardly a flight in a thousand, and take seconds to find."""
QUARTILES = (25, 50, 75)
SAME = 1e-5
"""By how much an answer to the same row may differ: served models agree with each other within it, not to the bit."""
ADDITIVE = 1e-6

Model = Callable[[npt.NDArray[np.floating]], npt.NDArray[np.float64]]

logging.getLogger("alibi").setLevel(logging.ERROR)  # it warns of each anchor that misses PRECISION: ours say so


def _decide_nothing(rows: npt.NDArray[np.floating]) -> npt.NDArray[np.int64]:
    return np.zeros(len(rows), dtype=np.int64)


class Explainer:
    """Explains what `model` answers to single rows. For one thread and one process (see the module)."""

    def __init__(self, reference: Reference, codes: Mapping[str, Sequence[str]] | None = None) -> None:
        """`codes` names the categories: by feature the name of code 0, 1, ...; numbers are said where there is none.

        Raises:
            ExplainersError: the reference has codes without a name.
        """
        self.reference = reference
        self.background = choose_background(reference)
        self.threshold = float(reference.expected.mean())
        """Anchors explain on which side of it a prediction lies: half would call nearly every flight punctual."""
        self._names = {FEATURES.index(name): self._name(name, (codes or {}).get(name)) for name in CATEGORIES}
        self._edges = {
            index: np.unique(np.percentile(reference.rows[:, index], QUARTILES))
            for index, name in enumerate(FEATURES)
            if name not in CATEGORIES
        }

    def explain(
        self, model: Model, forget: Callable[[], None], method: str, rows: Rows, seed: int
    ) -> list[dict[str, Any]]:
        """One explanation a row [n, k]; see README.md for what each method says.

        `model` may remember answers until `forget` is called: the row and the background are asked again at the end,
        since an explanation of two models, one exchanged for the other meanwhile, would be one of neither.

        Raises:
            InputRefused: anchors cannot be sought for such a row.
            ServedModelFailed: the model changed meanwhile. And whatever `model` raises.
        """
        explain = {"kernel_shap": self._attribute, "anchors": self._anchor}[method]
        if method == "anchors":
            for row in rows:
                self._check_occurs(row)
        explanations = []
        for row in rows:
            forget()
            witnesses = np.vstack([row, self.background])
            before = model(witnesses)
            explanations.append({**explain(model, row, seed), "prediction": float(before[0])})
            forget()
            change = np.abs(model(witnesses) - before).max()
            if change > SAME:
                raise ServedModelFailed(
                    "the served model",
                    f"other answers to the same rows (by up to {change:.1e}) after an explanation than before",
                    "one model throughout",
                    "Ask again when its exchange is done.",
                )
        return explanations

    def settings(self, method: str) -> dict[str, Any]:
        """What a reader of an explanation must know of how it was made."""
        if method == "kernel_shap":
            return {"background_rows": BACKGROUND_ROWS, "samples": SAMPLES}
        return {"threshold": self.threshold, "wanted_precision": PRECISION, "most_conditions": MOST_CONDITIONS}

    def _attribute(self, model: Model, row: npt.NDArray[np.float32], seed: int) -> dict[str, Any]:
        explainer = KernelShap(lambda rows: model(rows)[:, None], feature_names=list(FEATURES), seed=seed)
        explainer.fit(self.background)
        # Without regularisation: 500 samples are plenty for 12 values, and a lasso would silence the small ones.
        found = explainer.explain(row[None], nsamples=SAMPLES, l1_reg=False, silent=True)
        base, values = float(found.expected_value[0]), found.shap_values[0][0]
        gap = abs(base + values.sum() - float(model(row[None])[0]))
        if not gap <= ADDITIVE:
            raise RuntimeError(f"the parts of an explanation miss its whole by {gap}")
        return {"base_value": base, "values": values.tolist()}

    def _anchor(self, model: Model, row: npt.NDArray[np.float32], seed: int) -> dict[str, Any]:
        def decide(rows: npt.NDArray[np.floating]) -> npt.NDArray[np.int64]:
            return (model(rows) > self.threshold).astype(np.int64)

        # It tries its predictor on a row of zeros, which no model need answer: it gets the real one afterwards.
        explainer = AnchorTabular(_decide_nothing, list(FEATURES), categorical_names=dict(self._names), seed=seed)
        explainer.fit(self.reference.rows, disc_perc=QUARTILES)
        explainer.samplers[0].predictor = decide
        found = explainer.explain(row, threshold=PRECISION, max_anchor_size=MOST_CONDITIONS)
        # For a condition that always holds the precision is an array, for others a number.
        precision, coverage = (float(np.ravel(value)[0]) for value in (found.precision, found.coverage))
        return {
            "conditions": list(found.anchor),
            "precision": precision,
            "coverage": coverage,
            "above_threshold": bool(explainer.instance_label),
        }

    def _check_occurs(self, row: npt.NDArray[np.float32]) -> None:
        """Refuses a row with a value in whose bin the reference has no row.

        For such a bin alibi takes values from anywhere, and would state a precision that says nothing of it.
        """
        for index, name in enumerate(FEATURES):
            column, value = self.reference.rows[:, index], row[index]
            if name in CATEGORIES:
                occurs = bool((column == value).any())
            else:
                edges = self._edges[index]
                occurs = bool((np.searchsorted(edges, column) == np.searchsorted(edges, value)).any())
            if not occurs:
                raise InputRefused(
                    name,
                    f"{value:g}",
                    f"a value like those of the {len(column)} reference rows, which anchors are made of",
                    "Ask for kernel_shap.",
                )

    def _name(self, feature: str, names: Sequence[str] | None) -> list[str]:
        greatest = int(self.reference.rows[:, FEATURES.index(feature)].max())
        if names is None:
            return [str(code) for code in range(greatest + 1)]
        if len(names) <= greatest:
            raise ExplainersError(
                f"codes of {feature}",
                f"{len(names)} names",
                f"one for each code up to {greatest}",
                "Give --codes and --reference of the same training.",
            )
        return list(names)
