"""Which features a served model uses most, over many rows: permutation importance, written as a report.

`python importance.py --client client.py --ask URL --data held_out.npz --prefix january_march_ --out report.html`

One feature's values change places between rows, and what that does to the answers is measured (Breiman, "Random
Forests", 2001; alibi's PermutationImportance): how far they move, for which no labels are needed, and how much worse
they tell the late from the punctual. The served model is asked for ``rows * (1 + features * repeats)`` rows.
"""

from __future__ import annotations

import argparse
import html
import json
import sys
import time
from pathlib import Path
from typing import Any

import one_thread  # noqa: F401  before numpy

# isort: split
import arrays
import asking
import library
import numpy as np
import numpy.typing as npt
import options
import without_ray  # noqa: F401

# isort: split
from alibi.explainers import PermutationImportance
from errors import ExplainersError
from features import FEATURES

REPEATS = 10
MOST_ROWS = 2000


def load(path: Path, prefix: str) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """The arrays `<prefix>rows` float32 [n, k] and `<prefix>late` bool [n] of an .npz file.

    Raises:
        ExplainersError: they are not there, or not of these shapes, or not of two classes.
    """
    rule = f"arrays {prefix}rows [n, {len(FEATURES)}] and {prefix}late [n] with flights of both kinds"
    remedy = "Give --data and --prefix of labelled rows."
    rows, late = arrays.load(path, (f"{prefix}rows", f"{prefix}late"), rule, remedy)
    rows, late = rows.astype(np.float32), late.astype(bool)
    if rows.ndim != 2 or rows.shape[1] != len(FEATURES) or late.shape != (len(rows),) or late.all() or not late.any():
        raise ExplainersError(path, f"shapes {rows.shape} and {late.shape}, {int(late.sum())} late", rule, remedy)
    return rows, late


def area_under_curve(late: npt.NDArray[np.bool_], answers: npt.NDArray[np.float64]) -> float:
    """The share of pairs of a late and a punctual row [n] that `answers` [n] order rightly; a tie counts as half."""
    _, rank, count = np.unique(answers, return_inverse=True, return_counts=True)
    middle = np.cumsum(count) - (count - 1) / 2
    positives, negatives = int(late.sum()), int((~late).sum())
    return float((middle[rank][late].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def measure(
    model: asking.ServedModel, rows: npt.NDArray[np.float32], late: npt.NDArray[np.bool_], repeats: int, seed: int
) -> dict[str, Any]:
    """The report: by feature, mean and standard deviation over `repeats` of the change of answers and the loss of AUC.

    Raises:
        ServedModelFailed, DeadlinePassed: the model did not answer.
    """
    answers = model(rows)
    # alibi hands each metric the truth of the permuted rows: the label and the answer to the row as it was.
    truth = np.column_stack([late, answers])

    def auc(y_true: npt.NDArray[np.float64], y_score: npt.NDArray[np.float64]) -> float:
        return area_under_curve(y_true[:, 0] > 0.5, y_score)

    def change(y_true: npt.NDArray[np.float64], y_pred: npt.NDArray[np.float64]) -> float:
        return float(np.abs(y_pred - y_true[:, 1]).mean())

    explainer = PermutationImportance(
        model, loss_fns={"change": change}, score_fns={"auc": auc}, feature_names=list(FEATURES)
    )
    np.random.seed(seed)
    found = explainer.explain(rows, truth, method="estimate", kind="difference", n_repeats=repeats)
    by_metric = dict(zip(found.metric_names, found.feature_importance, strict=True))
    features = [
        {
            "feature": name,
            **{key: {part: float(by_metric[metric][index][part]) for part in ("mean", "std")} for key, metric in KEYS},
        }
        for index, name in enumerate(FEATURES)
    ]
    return {
        "model": model.url,
        "library": library.describe(),
        "rows": len(rows),
        "repeats": repeats,
        "seed": seed,
        "rows_asked": model.rows_asked,
        "auc": area_under_curve(late, answers),
        "features": sorted(features, key=lambda one: -one["change"]["mean"]),
    }


KEYS = (("change", "change"), ("auc_loss", "auc"))


def render(report: dict[str, Any]) -> str:
    """The report as one HTML page without scripts or anything loaded from elsewhere."""
    longest = max(one["change"]["mean"] for one in report["features"]) or 1.0
    lines = [
        f"<tr><th>{html.escape(one['feature'])}<td><i style='width:{200 * one['change']['mean'] / longest:.0f}px'></i>"
        f"<td>{one['change']['mean']:.4f} ± {one['change']['std']:.4f}"
        f"<td>{one['auc_loss']['mean']:.4f} ± {one['auc_loss']['std']:.4f}"
        for one in report["features"]
    ]
    about = report["library"]
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Permutation importance</title>
<style>body{{font:16px sans-serif;margin:2em;max-width:50em}}th{{text-align:left}}td,th{{padding:.2em .8em .2em 0}}
i{{display:block;height:1em;background:#36c}}</style>
<h1>Permutation importance</h1>
<p>Asked: {html.escape(report["model"])}. {report["rows"]} rows, each feature's values exchanged {report["repeats"]}
times (seed {report["seed"]}); AUC of the answers as they are: {report["auc"]:.4f}.
Made with {html.escape(about["name"])} {html.escape(about["version"])} ({html.escape(about["licence"])}).</p>
<table><tr><th>Feature<th><th>Mean change of the answer<th>Loss of AUC
{chr(10).join(lines)}
</table></html>
"""


def parse(argv: list[str]) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    options.add_model(parser)
    parser.add_argument("--data", type=Path, required=True, help=".npz with the arrays rows and late")
    parser.add_argument("--prefix", default="", help="what the arrays' names begin with, such as january_march_")
    parser.add_argument(
        "--rows", type=options.at_least_one, default=MOST_ROWS, help="how many, drawn by seed (%(default)s)"
    )
    parser.add_argument("--repeats", type=int, default=REPEATS, help="exchanges of a feature's values (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit-seconds", type=options.seconds, default=600, help="when to give up (%(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="report.html or report.json")
    chosen = parser.parse_args(argv)
    if chosen.out.suffix not in (".html", ".json"):
        parser.error(f"--out: {chosen.out.name}, expected a name that ends in .html or .json. Rename it.")
    if chosen.repeats < 2 or chosen.rows < 2:
        parser.error("--repeats and --rows: less than 2, expected at least 2. Take more.")
    return chosen


def main(argv: list[str]) -> int:
    """Exit code 1 with a reason where there is no report."""
    chosen = parse(argv)
    try:
        rows, late = load(chosen.data, chosen.prefix)
        drawn = np.random.default_rng(chosen.seed).permutation(len(rows))[: chosen.rows]
        model = asking.ServedModel(asking.load_client(chosen.client), chosen.ask, chosen.content_type)
        model.deadline = time.monotonic() + chosen.limit_seconds
        report = measure(model, rows[drawn], late[drawn], chosen.repeats, chosen.seed)
    except ExplainersError as error:
        print(error, file=sys.stderr)
        return 1
    text = json.dumps(report, indent=2) + "\n" if chosen.out.suffix == ".json" else render(report)
    chosen.out.write_text(text, encoding="utf-8")
    print(f"wrote {chosen.out}: {report['features'][0]['feature']} matters most")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
