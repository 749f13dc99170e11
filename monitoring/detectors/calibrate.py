"""Find the limits of outliers and drift on quiet weeks, and study how well they do.

    python calibrate.py --held-out held_out.npz --reference reference.npz --out calibration.json
    ... --study study.json --docs ../../docs/drift.md

The first writes the limits. The second also repeats the study: false alarms with the week judged left out of the
calibration, power on shifted weeks, the choice of the outlier detector, the calendar; and renews the tables of a page.
For each period `held_out.npz` holds `<period>_rows` [n, 12], `<period>_expected` [n] and `<period>_day` [n], the day of
the year; none of the rows may have trained the model. The same files give the same bytes.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import json
import sys
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import one_thread  # noqa: F401 (before numpy)

# isort: split
import detection
import labels
import numpy as np
from alibi_detect.od import IForest, Mahalanobis
from alibi_detect.od._gmm import GMM
from detection import CATEGORIES, FALSE_ALARMS, FEATURES, PREDICTION, Calibration, Drift, Floats, Outliers, Reference
from errors import DetectorsError
from scipy import stats

YEAR = 2013
QUIET, SHIFTED, CORRUPTED = "january_march", "june_july", "corrupted"
CALENDAR = (QUIET, "april_may", SHIFTED)
NEW_YEAR = datetime.date(YEAR, 1, 1)
WINDOW_ROWS = 500
DRAWS = 25  # windows a week: 300 quiet and 200 shifted ones
HALVINGS = 200
DELAYS_DAYS = (0, 7, 14, 30)  # until a flight's outcome is learned: here it lands; elsewhere it takes weeks
CLEAN_FLAGGED = 0.02  # the share of quiet rows that may count as outliers
NAMES = (*FEATURES, PREDICTION)
SCHEDULE = (
    "carrier",
    "origin",
    "weekday",
    "hour",
    "distance",
)  # repeat from week to week; all else goes as the weather
KINDS = (
    [column for column, name in enumerate(NAMES) if name in SCHEDULE],
    [column for column, name in enumerate(NAMES) if name not in SCHEDULE],
)
MARKS = ("<!-- generated: calibration -->", "<!-- /generated -->")


@dataclass
class Week:
    """A calendar week, Monday to Sunday, of one or two periods."""

    start: datetime.date
    rows: detection.Rows = field(default_factory=lambda: np.zeros((0, len(FEATURES)), np.float32))
    predictions: Floats = field(default_factory=lambda: np.zeros(0))
    days: set[int] = field(default_factory=set)
    periods: list[str] = field(default_factory=list)
    distances: Floats = field(default_factory=lambda: np.zeros((0, len(NAMES))))
    """[DRAWS, 13], of windows drawn from it"""
    improbable: list[bool] = field(default_factory=list)
    """[DRAWS], whether the library's own test rejects such a window at p = .05 with Bonferroni's correction"""

    @property
    def whole(self) -> bool:
        return len(self.days) == 7

    def of(self, period: str) -> bool:
        """Whether it is a whole week of that period alone."""
        return self.whole and self.periods == [period]


def load_held_out(path: Path, periods: Sequence[str], parts: Sequence[str]) -> dict[str, np.ndarray]:
    """The arrays of held_out.npz; raises DetectorsError if it lacks one of `<period>_<part>`."""
    remedy = "Give the file that model/train.py writes, or one of your own rows."
    try:
        with np.load(path, allow_pickle=False) as arrays:
            held_out = dict(arrays)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DetectorsError(path, f"unreadable ({error})", "held-out rows", remedy) from error
    missing = [f"{period}_{part}" for period in periods for part in parts if f"{period}_{part}" not in held_out]
    if missing:
        raise DetectorsError(path, f"no {', '.join(missing)}", "rows of each period", remedy)
    return held_out


def load_weeks(held_out: Mapping[str, np.ndarray], periods: Sequence[str]) -> list[Week]:
    """The weeks of `periods` in order."""
    weeks: dict[int, Week] = {}
    monday = NEW_YEAR - datetime.timedelta(NEW_YEAR.weekday())
    for period in periods:
        rows, predictions, days = (held_out[f"{period}_{part}"] for part in ("rows", "expected", "day"))
        numbers = (days.astype(int) - 1 + NEW_YEAR.weekday()) // 7
        for number in np.unique(numbers).tolist():
            week = weeks.setdefault(number, Week(monday + datetime.timedelta(weeks=number)))
            chosen = numbers == number
            week.rows = np.vstack([week.rows, rows[chosen]])
            week.predictions = np.r_[week.predictions, predictions[chosen]]
            week.days |= set(days[chosen].tolist())
            week.periods.append(period)
    return [weeks[number] for number in sorted(weeks)]


def draw_window(count: int, seed: Sequence[int]) -> np.ndarray:
    """Which WINDOW_ROWS of `count` rows a reservoir holds at the end (Vitter 1985, algorithm R): int [<= WINDOW_ROWS].

    Row i replaces a random one of those held with probability WINDOW_ROWS / (i + 1).
    """
    kept = np.arange(min(count, WINDOW_ROWS))
    later = np.arange(len(kept), count)
    places = np.random.default_rng(seed).integers(0, later + 1)
    inside = places < WINDOW_ROWS
    kept[places[inside]] = later[inside]  # where a place comes twice, numpy keeps the last
    return kept


def measure(weeks: Sequence[Week], reference: Reference) -> None:
    """Fill in the weeks' distances."""
    drift = Drift(reference, Calibration(np.inf, {}, WINDOW_ROWS, {}, ""))
    for week in weeks:
        found = []
        for number in range(DRAWS):
            kept = draw_window(len(week.rows), [week.start.toordinal(), number])
            distances, p_values = drift.measure(week.rows[kept], week.predictions[kept])
            found.append([distances[name] for name in NAMES])
            week.improbable.append(min(p_values.values()) < 0.05 / len(NAMES))
        week.distances = np.array(found)


def spread_out(distances: Floats) -> Floats:
    """Distances [..., 13] on a scale without ends: the logit of those from 0 to 1, the logarithm of the categories'."""
    inside = np.clip(distances, 1e-3, 1 - 1e-3)
    scaled = np.log(inside / (1 - inside))
    for name in CATEGORIES:
        scaled[..., NAMES.index(name)] = np.log(np.maximum(distances[..., NAMES.index(name)], 1e-3))
    return scaled


def drawn_in(scaled: Floats) -> Floats:
    """The inverse of spread_out: [13]."""
    inner = 1 / (1 + np.exp(-scaled))
    for name in CATEGORIES:
        inner[NAMES.index(name)] = np.exp(scaled[NAMES.index(name)])
    return inner


def limits_of(distances: Floats, kinds: Sequence[Sequence[int]] = KINDS, false_alarms: float = FALSE_ALARMS) -> Floats:
    """Limits [13] that a window of one more quiet week stays below with probability 1 - `false_alarms`.

    From the `distances` [weeks, draws, 13] of quiet weeks: the upper prediction limit for one future observation,
    mean + t * s * sqrt(1 + 1/weeks) (Hahn and Meeker, Statistical Intervals), on the scale of spread_out, shared out
    over the features by Bonferroni. The variance s^2, between weeks and within, is pooled over the features of a kind:
    a dozen weeks say too little of each alone, and a feature that happened to be calm would get too narrow a limit.
    """
    scaled = spread_out(distances)
    weeks, draws, _ = scaled.shape
    variance = scaled.mean(axis=1).var(axis=0, ddof=1) + scaled.var(axis=1, ddof=1).mean(axis=0) * (1 - 1 / draws)
    margin = np.zeros(len(NAMES))
    for columns in kinds:
        quantile = stats.t.ppf(1 - false_alarms / len(NAMES), (weeks - 1) * len(columns))
        margin[list(columns)] = quantile * np.sqrt(variance[list(columns)].mean() * (1 + 1 / weeks))
    return drawn_in(scaled.mean(axis=(0, 1)) + margin)


def write_calibration(path: Path, weeks: Sequence[Week], reference: Reference) -> Calibration:
    """Write calibration.json from quiet weeks whose distances are measured; returns what was written, read back."""
    rows = np.vstack([week.rows for week in weeks])
    scores = Outliers(reference, Calibration(np.inf, {}, WINDOW_ROWS, {}, "")).scores(rows)
    limits = limits_of(np.stack([week.distances for week in weeks]))
    known, ranges = np.vstack([rows, reference.rows]), {}
    for column, name in enumerate(FEATURES):
        values = np.unique(known[:, column])
        ranges[name] = [float(str(value)) for value in (values if name in CATEGORIES else values[[0, -1]])]
    content = {
        "generated_by": "calibrate.py",
        "quiet_weeks": [week.start.isoformat() for week in weeks],
        "window_rows": WINDOW_ROWS,
        "outlier_limit": round(float(np.quantile(scores, 1 - CLEAN_FLAGGED)), 2),
        "drift_limits": {name: round(float(limit), 3) for name, limit in zip(NAMES, limits, strict=True)},
        "ranges": ranges,
    }
    write(path, json.dumps(content, indent=2) + "\n")
    return Calibration.load(path)


def write(path: Path, text: str) -> None:
    """Write in one step: a service that reads the file meanwhile gets the former text or the new one."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def largest_of(distances: Floats) -> Floats:
    """The plainest rule: the largest distance [13] that any quiet window had."""
    return distances.max(axis=(0, 1))


def limits_alone(distances: Floats) -> Floats:
    """limits_of with each feature's own variance."""
    return limits_of(distances, [[column] for column in range(len(NAMES))])


RULES: dict[str, Callable[[Floats], Floats]] = {
    "largest distance of the other quiet weeks": largest_of,
    f"prediction limit, each feature's own variance, 1 in {1 / FALSE_ALARMS:.0f}": limits_alone,
    "prediction limit, variance pooled by kind, 1 in 50": partial(limits_of, false_alarms=0.02),
    "prediction limit, variance pooled by kind, 1 in 100": partial(limits_of, false_alarms=0.01),
    f"prediction limit, variance pooled by kind, 1 in {1 / FALSE_ALARMS:.0f} (chosen)": limits_of,
}


def alarms(distances: Floats, limits: Floats) -> float:
    """The share of windows [..., 13] with a distance beyond its limit [13]."""
    return float((distances > limits).any(axis=-1).mean())


def study_rules(quiet: Floats, shifted: Floats, improbable: Sequence[Sequence[bool]]) -> list[dict[str, Any]]:
    """False alarms and power of each rule, no week being judged by limits that it had a part in.

    `quiet` and `shifted` are [weeks, draws, 13]; `improbable` says for both what the library's test says.
    """
    each = range(len(quiet))
    orders = [np.random.default_rng([YEAR, number]).permutation(len(quiet)) for number in range(HALVINGS)]
    halves = [(order[: len(quiet) // 2], order[len(quiet) // 2 :]) for order in orders]
    figures = [{"rule": "p < .05 with Bonferroni's correction (the library's)"}]
    figures[0] |= dict(zip(("false", "found"), (round(float(np.mean(one)), 4) for one in improbable), strict=True))
    for title, rule in RULES.items():
        others = [alarms(quiet[week], rule(np.delete(quiet, week, axis=0))) for week in each]
        split = [(rule(quiet[first]), second) for first, second in halves]
        shares = {
            "false": np.mean(others),
            "found": alarms(shifted, rule(quiet)),
            "false_by_halves": np.mean([alarms(quiet[rest], limits) for limits, rest in split]),
            "found_by_halves": np.mean([alarms(shifted, limits) for limits, _ in split]),
        }
        figures.append({"rule": title} | {name: round(float(share), 4) for name, share in shares.items()})
    return figures


def study_consecutive(held_out: Mapping[str, np.ndarray], drift: Drift) -> dict[str, int]:
    """What becomes of quiet windows that are runs of rows in the order of time instead of reservoirs."""
    rows, predictions = held_out[f"{QUIET}_rows"], held_out[f"{QUIET}_expected"]
    order = np.argsort(held_out[f"{QUIET}_day"], kind="stable")
    runs = [order[start : start + WINDOW_ROWS] for start in range(0, len(rows) - WINDOW_ROWS + 1, WINDOW_ROWS)]
    return {"windows": len(runs), "alarms": sum(drift.judge(rows[run], predictions[run]).drifted for run in runs)}


def scorer(detector: Any, known: Floats) -> Callable[[Floats], Floats]:
    """Fit a detector to `known` and return what scores rows.

    alibi-detect's Mahalanobis learns from the rows it scores, also within a batch: each batch of 500 gets a fresh copy.
    """
    with detection.seeded():
        if not isinstance(detector, Mahalanobis):
            detector.fit(known)
            return detector.score
    detector.score(known)
    size = 500
    return lambda rows: np.concatenate(
        [copy.deepcopy(detector).score(rows[start : start + size]) for start in range(0, len(rows), size)]
    )


def study_outliers(
    quiet: Sequence[Week], corrupted: Sequence[Week], shifted: Sequence[Week], reference: Reference
) -> list[dict[str, Any]]:
    """What each detector flags, each week with the limit that the other quiet weeks give it."""
    known = reference.rows[:, detection.MEASURED].astype(np.float64)
    mean, spread = known.mean(axis=0), known.std(axis=0)
    detectors = {
        "isolation forest, 100 trees": IForest(threshold=0.0, n_estimators=100),
        "Mahalanobis, 3 principal components (the library's default)": Mahalanobis(threshold=1.0, n_components=3),
        "Mahalanobis, all 9": Mahalanobis(threshold=1.0, n_components=9),
        **{f"mixture of {n} normal{'s' * (n > 1)}": GMM(n_components=n, backend="sklearn") for n in (1, 2, 3, 5, 8)},
    }
    figures = []
    for title, detector in detectors.items():
        score = scorer(detector, (known - mean) / spread)
        clean, wrong, moved = (
            [score((week.rows[:, detection.MEASURED] - mean) / spread) for week in weeks]
            for weeks in (quiet, corrupted, shifted)
        )
        others = [np.concatenate(clean[:week] + clean[week + 1 :]) for week in range(len(quiet))]
        limits = [np.quantile(scores, 1 - CLEAN_FLAGGED) for scores in others]
        flagged = [[s > limit for s, limit in zip(scores, limits, strict=True)] for scores in (clean, wrong)]
        limit = np.quantile(np.concatenate(clean), 1 - CLEAN_FLAGGED)
        chosen = " (chosen)" if title.startswith(f"mixture of {detection.COMPONENTS} ") else ""
        shares = {
            "clean": np.concatenate(flagged[0]).mean(),
            "clean_worst_week": max(week.mean() for week in flagged[0]),
            "corrupted": np.concatenate(flagged[1]).mean(),
            "shifted": (np.concatenate(moved) > limit).mean(),
        }
        figures.append({"detector": title + chosen} | {name: round(float(share), 4) for name, share in shares.items()})
    return figures


def study_calendar(weeks: Sequence[Week], quiet: Sequence[Week], outliers: Outliers) -> list[dict[str, Any]]:
    """The year as it went: each week's first window, judged by limits from the quiet weeks other than itself."""
    calendar = []
    for week in weeks:
        limits = limits_of(np.stack([other.distances for other in quiet if other is not week]))
        ratios = week.distances[0] / limits
        entry = {
            "start": week.start.isoformat(),
            "days": len(week.days),
            "period": "+".join(week.periods),
            "rows": len(week.rows),
            "ratio": round(float(ratios.max()), 3),
            "feature": NAMES[int(ratios.argmax())],
            "alarm": bool(ratios.max() > 1),
            "draws": round(alarms(week.distances, limits), 4),
            "outliers": round(float(outliers.flags(week.rows).mean()), 4),
        }
        calendar.append(entry)
    return calendar


def study_accuracy(held_out: Mapping[str, np.ndarray], calendar: list[dict[str, Any]]) -> dict[str, Any]:
    """When the outcomes show that the model ranks worse, beside the first drift alarm; adds each week's AUC to it."""
    day, late, probability = (
        np.concatenate([held_out[f"{period}_{part}"] for period in CALENDAR]) for part in ("day", "late", "expected")
    )
    day, quiet_until = day.astype(np.int64), int(held_out[f"{QUIET}_day"].max())
    alarms_on = [day_of(entry["start"]) + 6 for entry in calendar if entry["alarm"] and entry["period"] != QUIET]

    def report(delay_days: int, **rule: Any) -> dict[str, Any]:
        joined = labels.Joined(day, day + delay_days, probability, late)
        return labels.judge(joined, 1 - NEW_YEAR.weekday(), **rule, alarm_days=alarms_on)

    overall = labels.Ranking(probability[day <= quiet_until], late[day <= quiet_until])
    baseline = overall.auc(np.ones(int((day <= quiet_until).sum())))
    reports = {"prediction": report(0, quiet_until=quiet_until), "interval": report(0, baseline_auc=baseline)}
    rules = []
    for name, found in reports.items():
        quiet = [week for week in found["weeks"] if week["days"] == 7 and week["last_day"] <= quiet_until]
        later = [week for week in found["weeks"] if week["last_day"] > quiet_until]
        first = next(week for week in later if week["drop"])
        counts = {"quiet_weeks": len(quiet), "false": sum(week["drop"] for week in quiet)}
        rules.append({"rule": name, "limit": found["limit"]} | counts | {"first": date_of(first["first_day"])})
    for entry, week in zip(calendar, reports["prediction"]["weeks"], strict=True):
        entry |= labels.rounded({name: week[name] for name in ("auc", "low", "high", "drop")})
    leads = []
    for delay_days in DELAYS_DAYS:
        found = report(delay_days, quiet_until=quiet_until)
        known, alarm = date_of(found["drop"]["known_day"]), date_of(found["alarm_day"])
        leads.append({"delay_days": delay_days, "known": known, "alarm": alarm, "lead_days": found["lead_days"]})
    return labels.rounded({"rules": rules, "leads": leads})


def day_of(date: str) -> int:
    """The day of the year of an ISO date."""
    return (datetime.date.fromisoformat(date) - NEW_YEAR).days + 1


def date_of(day: int) -> str:
    """The inverse of day_of."""
    return (NEW_YEAR + datetime.timedelta(day - 1)).isoformat()


def study_features(quiet: Floats, shifted: Floats, calibration: Calibration) -> list[dict[str, Any]]:
    """Each feature's distances, least and greatest, in quiet and in shifted windows."""
    figures = []
    for column, name in enumerate(NAMES):
        ranges = [[round(float(end(d[..., column])), 3) for end in (np.min, np.max)] for d in (quiet, shifted)]
        limit = calibration.drift_limits[name]
        above = round(float((shifted[..., column] > limit).mean()), 4)
        figures.append({"feature": name, "quiet": ranges[0], "limit": limit, "shifted": ranges[1], "found": above})
    return figures


def table(rows: Sequence[Sequence[str]]) -> str:
    """Markdown; the first row is the head, and all columns but the first are to the right."""
    head, *body = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([head, f"|---|{'---:|' * (len(rows[0]) - 1)}", *body])


def percent(share: float | None) -> str:
    """`0.0149` as `1.5 %`."""
    return "" if share is None else f"{100 * share:.1f} %"


def render(study: Mapping[str, Any]) -> str:
    """The tables of docs/drift.md."""
    rules = [["limit", "false alarms", "found", "false alarms, halves", "found, halves"]]
    for entry in study["rules"]:
        shares = (entry.get(name) for name in ("false", "found", "false_by_halves", "found_by_halves"))
        rules.append([entry["rule"], *map(percent, shares)])
    features = [["feature", "quiet weeks", "limit", "June and July", "beyond the limit"]]
    for entry in study["features"]:
        quiet, shifted = (f"{low:.2f} to {high:.2f}" for low, high in (entry["quiet"], entry["shifted"]))
        features.append([f"`{entry['feature']}`", quiet, f"{entry['limit']:.2f}", shifted, percent(entry["found"])])
    outliers = [["detector", "clean", "clean, worst week", "corrupted", "June and July"]]
    for entry in study["outliers"]:
        shares = (entry[name] for name in ("clean", "clean_worst_week", "corrupted", "shifted"))
        outliers.append([entry["detector"], *map(percent, shares)])
    calendar = [["week from", "days", "flights", "outliers", "ratio", "largest", "alarm", "draws", "AUC", "drop"]]
    for entry in study["calendar"]:
        cells = (entry["start"], str(entry["days"]), str(entry["rows"]), percent(entry["outliers"]))
        drift = (f"{entry['ratio']:.2f}", f"`{entry['feature']}`", "yes" if entry["alarm"] else "")
        auc = f"{entry['auc']:.3f} ({entry['low']:.3f} to {entry['high']:.3f})"
        calendar.append([*cells, *drift, percent(entry["draws"]), auc, "yes" if entry["drop"] else ""])
    drops = [["an AUC has dropped if", "AUC", "quiet weeks said to have", "first week so, from"]]
    names = {
        "prediction": "it is below the lower prediction limit of quiet weeks (chosen)",
        "interval": "its 95 % interval is below the AUC of January to March",
    }
    for entry in study["accuracy"]["rules"]:
        counts = f"{entry['false']} of {entry['quiet_weeks']}"
        drops.append([names[entry["rule"]], f"{entry['limit']:.3f}", counts, entry["first"]])
    leads = [["outcomes known after", "drop known on", "drift alarm on", "lead of the alarm"]]
    for entry in study["accuracy"]["leads"]:
        leads.append([f"{entry['delay_days']} days", entry["known"], entry["alarm"], f"{entry['lead_days']} days"])
    titles = ("Limits of drift", "Distances by feature", "Detectors of outliers", "Calendar", "Drops", "Lead")
    parts = zip(titles, (rules, features, outliers, calendar, drops, leads), strict=True)
    runs = "Of {windows} quiet windows of consecutive rows, {alarms} alarm.".format(**study["consecutive"])
    return "\n\n".join([*(f"**{title}**\n\n{table(rows)}" for title, rows in parts), runs])


def renew(page: Path, tables: str) -> None:
    """Replace what stands between MARKS in a page; raises DetectorsError if they are not there once each, in order."""
    text = page.read_text(encoding="utf-8")
    before, opened, rest = text.partition(MARKS[0])
    _, closed, after = rest.partition(MARKS[1])
    if not (opened and closed) or MARKS[0] in after:
        raise DetectorsError(page, "no place for the tables", f"{MARKS[0]} and {MARKS[1]}", "Put them there, once.")
    write(page, f"{before}{MARKS[0]}\n\n{tables}\n\n{MARKS[1]}{after}")


def study(
    held_out: Mapping[str, np.ndarray], weeks: Sequence[Week], reference: Reference, calibration: Calibration
) -> dict[str, Any]:
    """All figures of the study, rounded; `weeks` are measured."""
    quiet, shifted = ([week for week in weeks if week.of(period)] for period in (QUIET, SHIFTED))
    distances = [np.stack([week.distances for week in some]) for some in (quiet, shifted)]
    starts = {week.start for week in quiet}
    corrupted = [week for week in load_weeks(held_out, [CORRUPTED]) if week.start in starts]
    improbable = [[flag for week in some for flag in week.improbable] for some in (quiet, shifted)]
    calendar = study_calendar(weeks, quiet, Outliers(reference, calibration))
    return {
        "generated_by": "calibrate.py",
        "window_rows": WINDOW_ROWS,
        "windows": {"quiet": len(quiet) * DRAWS, "shifted": len(shifted) * DRAWS},
        "rules": study_rules(*distances, improbable),
        "consecutive": study_consecutive(held_out, Drift(reference, calibration)),
        "features": study_features(*distances, calibration),
        "outliers": study_outliers(quiet, corrupted, shifted, reference),
        "accuracy": study_accuracy(held_out, calendar),
        "calendar": calendar,
    }


def main() -> int:
    """Calibrate and, if asked to, study; returns the exit code: 0, or 2 with one line on stderr."""
    description, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=description, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--held-out", type=Path, required=True, help="rows that did not train the model, by period")
    parser.add_argument("--reference", type=Path, required=True, help="a sample of those that did")
    parser.add_argument("--out", type=Path, required=True, help="calibration.json to write")
    parser.add_argument("--study", type=Path, help="study.json to write")
    parser.add_argument("--docs", type=Path, help="a page whose tables to renew; needs --study")
    options = parser.parse_args()
    if options.docs and not options.study:
        parser.error("--docs: given without --study, expected both. Add --study study.json.")
    start = time.monotonic()

    def progress(text: str) -> None:
        print(f"{time.monotonic() - start:5.1f} s  {text}", flush=True)

    try:
        reference = Reference.load(options.reference)
        periods = CALENDAR if options.study else (QUIET,)
        parts = ("rows", "expected", "day", *(("late",) if options.study else ()))
        held_out = load_held_out(options.held_out, (*periods, *((CORRUPTED,) if options.study else ())), parts)
        weeks = load_weeks(held_out, periods)
        progress(f"{len(weeks)} weeks; measuring {DRAWS} windows of each")
        measure(weeks, reference)
        calibration = write_calibration(options.out, [week for week in weeks if week.of(QUIET)], reference)
        progress(f"wrote {options.out}, version {calibration.version}")
        if options.study:
            progress("studying false alarms, power and outliers")
            found = study(held_out, weeks, reference, calibration)
            write(options.study, json.dumps(found, indent=1) + "\n")
            progress(f"wrote {options.study}")
        if options.docs:
            renew(options.docs, render(found))
            progress(f"renewed {options.docs}")
    except (DetectorsError, OSError) as error:
        print(f"calibrate.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
