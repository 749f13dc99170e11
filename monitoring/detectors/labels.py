"""Join the model's answers with what became of them, once it is known, and say since when the model ranks worse.

    python labels.py --answers answers.csv --outcomes outcomes.csv --quiet-until 90 --week-start 91 --alarm-day 125

`answers.csv` has the columns flight (any identifier), day (a whole number, such as the day of the year) and
probability; `outcomes.csv` has flight, known_day (when the outcome was learned) and late (0 or 1). Prints JSON: AUC by
week with its 95 % interval, the first week whose AUC has dropped, the day on which that could be known, and how many
days before it (or after it, if negative) the first drift alarm came.

An AUC has dropped if it is below what a quiet week would have: with `--quiet-until`, below the lower prediction limit
from the quiet weeks' AUCs; with `--baseline-auc`, if the whole interval is below that figure, which takes no account of
how much quiet weeks differ. Needs numpy alone.
"""

from __future__ import annotations

import argparse
import csv
import functools
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from errors import DetectorsError

WEEK_DAYS = 7
BOOTSTRAP_SAMPLES = 400
SEED = 2013
CONFIDENCE = 0.95
LEAST_WEEKS = 3  # quiet ones, for a prediction limit

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Joined:
    """Answers whose outcome is known; all arrays are [n]."""

    day: Ints
    known_day: Ints
    probability: Floats
    late: Bools

    def where(self, chosen: Bools) -> Joined:
        return Joined(self.day[chosen], self.known_day[chosen], self.probability[chosen], self.late[chosen])


@dataclass(frozen=True)
class Answers:
    flight: npt.NDArray[Any]
    day: Ints
    probability: Floats


@dataclass(frozen=True)
class Outcomes:
    flight: npt.NDArray[Any]
    known_day: Ints
    late: Bools


def read_columns(path: Path, names: Sequence[str]) -> list[list[str]]:
    """The columns `names` of a CSV file with a head; raises DetectorsError if it lacks one."""
    try:
        with path.open(newline="", encoding="utf-8") as lines:
            reader = csv.DictReader(lines)
            missing = [name for name in names if name not in (reader.fieldnames or ())]
            if missing:
                raise DetectorsError(path, f"no column {', '.join(missing)}", ", ".join(names), "Name them in line 1.")
            rows = [[row[name] for name in names] for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DetectorsError(path, f"unreadable ({error})", "a CSV file", "Give one.") from error
    return [list(column) for column in zip(*rows, strict=True)] or [[] for _ in names]


def numbers(path: Path, name: str, values: Sequence[str], low: float, high: float, whole: bool) -> Floats:
    """Column `name` as numbers from `low` to `high`; raises DetectorsError that names the first line that is not."""
    found = np.empty(len(values))
    for i, text in enumerate(values):
        try:
            found[i] = float(text)
        except (TypeError, ValueError):
            found[i] = np.nan
    wrong = ~((found >= low) & (found <= high)) | (whole & (found != np.rint(found)))
    if wrong.any():
        line = int(np.argmax(wrong))
        rule = f"{'a whole number' if whole else 'a number'} from {low:g} to {high:g}"
        raise DetectorsError(path, f"{name} {values[line]!r} in record {line + 1}", rule, "Correct the file.")
    return found


def unique(path: Path, flights: Sequence[str]) -> npt.NDArray[Any]:
    """Identifiers [n]; raises DetectorsError if one comes twice, for then no outcome belongs to one answer."""
    array = np.array(flights, dtype=str)
    known, counts = np.unique(array, return_counts=True)
    if (counts > 1).any():
        twice = str(known[int(np.argmax(counts > 1))])
        raise DetectorsError(path, f"flight {twice!r} more than once", "each once", "Give each answer an identifier.")
    return array


def read_answers(path: Path) -> Answers:
    """See the module's docstring; raises DetectorsError."""
    flight, day, probability = read_columns(path, ("flight", "day", "probability"))
    days = numbers(path, "day", day, -(10**7), 10**7, True).astype(np.int64)
    return Answers(unique(path, flight), days, numbers(path, "probability", probability, 0, 1, False))


def read_outcomes(path: Path) -> Outcomes:
    """See the module's docstring; raises DetectorsError."""
    flight, known_day, late = read_columns(path, ("flight", "known_day", "late"))
    days = numbers(path, "known_day", known_day, -(10**7), 10**7, True).astype(np.int64)
    return Outcomes(unique(path, flight), days, numbers(path, "late", late, 0, 1, True) == 1)


def join(answers: Answers, outcomes: Outcomes) -> Joined:
    """Answers with an outcome, in the order of their identifiers; either side's others are left out."""
    _, ours, theirs = np.intersect1d(answers.flight, outcomes.flight, assume_unique=True, return_indices=True)
    return Joined(answers.day[ours], outcomes.known_day[theirs], answers.probability[ours], outcomes.late[theirs])


class Ranking:
    """AUC of rows under any weights: sorted once, then one pass for each set of weights."""

    def __init__(self, probability: Floats, late: Bools) -> None:
        self._order = np.argsort(-probability, kind="stable")
        ranked = probability[self._order]
        self._ties = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])  # the first row of each run of equals
        self._late = late[self._order]

    def auc(self, weights: Floats) -> float:
        """P(a late row has the higher probability) + P(equal) / 2; NaN if only one kind of row has weight."""
        ordered = weights[self._order]
        hits = np.add.reduceat(ordered * self._late, self._ties)
        misses = np.add.reduceat(ordered * ~self._late, self._ties)
        pairs = hits.sum() * misses.sum()
        return float(np.sum(misses * (np.cumsum(hits) - hits / 2)) / pairs) if pairs else float("nan")


def auc_with_interval(joined: Joined) -> tuple[float, float, float] | None:
    """AUC and the ends of its 95 % interval; None if all rows ended alike.

    The interval is a percentile bootstrap that draws days, not rows (a cluster bootstrap): rows of a day share what
    made that day, and intervals for independent rows, such as DeLong's, are too narrow. With a week's seven days this
    one is still somewhat narrow.
    """
    if not len(joined.day) or joined.late.all() or not joined.late.any():
        return None
    ranking = Ranking(joined.probability, joined.late)
    days, of_day = np.unique(joined.day, return_inverse=True)
    draw = np.random.default_rng(SEED)
    shares = [1 / len(days)] * len(days)
    drawn = [ranking.auc(draw.multinomial(len(days), shares)[of_day].astype(float)) for _ in range(BOOTSTRAP_SAMPLES)]
    low, high = np.nanpercentile(drawn, [50 * (1 - CONFIDENCE), 100 - 50 * (1 - CONFIDENCE)])
    return ranking.auc(np.ones(len(joined.day))), float(low), float(high)


@functools.cache
def student_t(probability: float, freedom: int) -> float:
    """Quantile of Student's t: with x = sqrt(freedom) tan(a) its density is cos(a)^(freedom - 1), summed up here."""
    angles = np.linspace(-np.pi / 2, np.pi / 2, 200_001)
    density = np.abs(np.cos(angles)) ** (freedom - 1)
    area = np.r_[0, np.cumsum(density[1:] + density[:-1])]
    return float(np.sqrt(freedom) * np.tan(np.interp(probability * area[-1], area, angles)))


def lower_limit(aucs: Sequence[float]) -> float:
    """The AUC below which one more quiet week falls with a probability of 2.5 %.

    The lower prediction limit for one future observation (Hahn and Meeker, Statistical Intervals) on the logit.
    """
    inside = np.clip(np.array(aucs), 1e-3, 1 - 1e-3)
    scaled, count = np.log(inside / (1 - inside)), len(aucs)
    margin = student_t((1 + CONFIDENCE) / 2, count - 1) * scaled.std(ddof=1) * np.sqrt(1 + 1 / count)
    return float(1 / (1 + np.exp(margin - scaled.mean())))


def by_week(joined: Joined, week_start: int, quiet_until: int | None) -> list[dict[str, Any]]:
    """What each week's outcomes say; weeks whose AUC cannot be told are left out. Week k starts at week_start + 7 k."""
    weeks = []
    numbers_of_weeks = (joined.day - week_start) // WEEK_DAYS
    for number in np.unique(numbers_of_weeks).tolist():
        rows = joined.where(numbers_of_weeks == number)
        figures = auc_with_interval(rows)
        if figures is None:
            continue
        first = week_start + WEEK_DAYS * number
        last = first + WEEK_DAYS - 1
        week = {"first_day": first, "last_day": last, "days": len(np.unique(rows.day)), "rows": len(rows.day)}
        week["known_day"] = max(last, int(rows.known_day.max()))
        week["quiet"] = quiet_until is not None and last <= quiet_until
        week |= {"late_share": float(rows.late.mean()), "mean_probability": float(rows.probability.mean())}
        weeks.append(week | dict(zip(("auc", "low", "high"), figures, strict=True)))
    return weeks


def judge(
    joined: Joined,
    week_start: int,
    *,
    quiet_until: int | None = None,
    baseline_auc: float | None = None,
    alarm_days: Sequence[int] = (),
) -> dict[str, Any]:
    """The report that main prints; exactly one of `quiet_until` and `baseline_auc` is given.

    A quiet week is judged by the other quiet weeks, so that false alarms show; only whole ones make the limit.
    `lead_days` is from the first of `alarm_days` to the day on which the first drop can be known: negative if the
    outcomes said so first, None if there is no drop or no alarm.

    Raises:
        DetectorsError: fewer than LEAST_WEEKS whole quiet weeks besides one to be judged.
    """
    weeks = by_week(joined, week_start, quiet_until)
    if baseline_auc is not None:
        limit = baseline_auc
        for week in weeks:
            week["drop"] = week["high"] < baseline_auc
    else:
        whole = [week for week in weeks if week["quiet"] and week["days"] == WEEK_DAYS]
        if len(whole) <= LEAST_WEEKS:
            found = f"{len(whole)} whole weeks up to day {quiet_until}"
            raise DetectorsError(
                "quiet weeks", found, f"more than {LEAST_WEEKS}", "Give earlier answers, or a baseline."
            )
        limit = lower_limit([week["auc"] for week in whole])
        for week in weeks:
            others = [other["auc"] for other in whole if other is not week]
            week["drop"] = week["auc"] < (lower_limit(others) if week["quiet"] else limit)
        baseline_auc = float(np.mean([week["auc"] for week in whole]))
    drops = [week for week in weeks if week["drop"] and not week["quiet"]]
    first = min(drops, key=lambda week: week["known_day"], default=None)
    alarm = min(alarm_days, default=None)
    return {
        "baseline_auc": baseline_auc,
        "limit": limit,
        "weeks": weeks,
        "drop": first and {name: first[name] for name in ("first_day", "last_day", "known_day")},
        "alarm_day": alarm,
        "lead_days": first["known_day"] - alarm if first is not None and alarm is not None else None,
    }


def rounded(value: Any) -> Any:
    """`value` with every figure in it to four decimals."""
    if isinstance(value, dict):
        return {name: rounded(part) for name, part in value.items()}
    if isinstance(value, list):
        return [rounded(part) for part in value]
    return round(value, 4) if isinstance(value, float) else value


def main() -> int:
    """Join, judge and print; returns the exit code: 0, or 2 with one line on stderr."""
    description, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=description, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--answers", type=Path, required=True, help="CSV: flight, day, probability")
    parser.add_argument("--outcomes", type=Path, required=True, help="CSV: flight, known_day, late")
    rule = parser.add_mutually_exclusive_group(required=True)
    rule.add_argument(
        "--quiet-until", type=int, metavar="DAY", help="weeks up to this day were quiet and are compared with"
    )
    rule.add_argument("--baseline-auc", type=float, metavar="AUC", help="the AUC to compare with, if there are none")
    parser.add_argument(
        "--week-start", type=int, default=1, metavar="DAY", help="a day on which a week starts (%(default)s)"
    )
    parser.add_argument("--today", type=int, metavar="DAY", help="take only outcomes known by then (all)")
    parser.add_argument(
        "--alarm-day", type=int, action="append", default=[], metavar="DAY", help="of a drift alarm; repeatable"
    )
    parser.add_argument("--out", type=Path, help="JSON file to write (stdout)")
    options = parser.parse_args()
    try:
        answers, outcomes = read_answers(options.answers), read_outcomes(options.outcomes)
        joined = join(answers, outcomes)
        if options.today is not None:
            joined = joined.where(joined.known_day <= options.today)
        rules = {"quiet_until": options.quiet_until, "baseline_auc": options.baseline_auc}
        report = judge(joined, options.week_start, **rules, alarm_days=options.alarm_day)
        counts = {"answers": len(answers.flight), "outcomes": len(outcomes.flight), "joined": len(joined.day)}
        text = json.dumps(rounded(counts | report), indent=1) + "\n"
        if options.out:
            options.out.write_text(text, encoding="utf-8")
        else:
            sys.stdout.write(text)
    except (DetectorsError, OSError) as error:
        print(f"labels.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
