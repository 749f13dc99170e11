"""monitoring/detectors/labels.py: answers joined with what became of them. Needs numpy alone, as the program does."""

import csv
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

FOLDER = Path(__file__).resolve().parents[2] / "monitoring/detectors"


@pytest.fixture(scope="module")
def labels() -> Iterator[ModuleType]:
    """The module, found as the program finds it; its neighbour `errors` has a common name and is taken out again."""
    before = sys.modules.pop("errors", None)
    sys.path.insert(0, str(FOLDER))
    try:
        spec = importlib.util.spec_from_file_location("delayed_labels", FOLDER / "labels.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["delayed_labels"] = module
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(FOLDER))
        sys.modules.pop("delayed_labels", None)
        sys.modules.pop("errors", None)
        if before is not None:
            sys.modules["errors"] = before


def slow_auc(probability: np.ndarray, late: np.ndarray, weights: np.ndarray) -> float:
    """Every pair of a late and a punctual row, one by one."""
    won = pairs = 0.0
    for p, w in zip(probability[late], weights[late], strict=True):
        for q, v in zip(probability[~late], weights[~late], strict=True):
            won += w * v * (1.0 if p > q else 0.5 if p == q else 0.0)
            pairs += w * v
    return won / pairs


def flights(quality: Sequence[float], rows: int = 400, seed: int = 0, delay_days: int = 0) -> dict[str, np.ndarray]:
    """Weeks from day 1 on in which a model ranks as well as `quality` says (0: by chance)."""
    draw = np.random.default_rng(seed)
    count = rows * len(quality)
    day = 1 + np.repeat(np.arange(len(quality)), rows) * 7 + np.tile(np.arange(rows) % 7, len(quality))
    late = draw.random(count) < 0.25
    score = draw.normal(size=count) + np.repeat(np.asarray(quality), rows) * late
    return {"day": day, "known_day": day + delay_days, "probability": 1 / (1 + np.exp(-score)), "late": late}


def write(path: Path, names: Sequence[str], columns: Sequence[Sequence[Any]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows(zip(*columns, strict=True))
    return path


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "labels.py", *map(str, arguments)]
    return subprocess.run(argv, cwd=FOLDER, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("seed", range(5))
def test_auc_is_the_share_of_pairs_in_the_right_order(labels: ModuleType, seed: int) -> None:
    draw = np.random.default_rng(seed)
    probability, late = np.round(draw.random(150), 1), draw.random(150) < 0.3
    weights = draw.integers(0, 4, 150).astype(float)
    ranking = labels.Ranking(probability, late)
    for each in (weights, np.ones(150)):
        assert ranking.auc(each) == pytest.approx(slow_auc(probability, late, each), abs=1e-12)


def test_auc_of_rows_that_all_ended_alike_is_unknown(labels: ModuleType) -> None:
    for late in (np.ones(9, bool), np.zeros(9, bool), np.zeros(0, bool)):
        nobody = np.zeros(len(late), dtype=np.int64)
        assert labels.auc_with_interval(labels.Joined(nobody, nobody, np.linspace(0, 1, len(late)), late)) is None


def test_interval_draws_days_and_not_rows(labels: ModuleType) -> None:
    """Rows copied a hundred times within their day bring no new knowledge, so the interval keeps its width."""
    made = flights([1.0], rows=210)
    _, low, high = labels.auc_with_interval(labels.Joined(**made))
    copied = labels.Joined(**{name: np.repeat(values, 100) for name, values in made.items()})
    _, copied_low, copied_high = labels.auc_with_interval(copied)
    assert copied_high - copied_low == pytest.approx(high - low, rel=0.02)
    assert 0.03 < high - low < 0.4


@pytest.mark.parametrize(
    ("probability", "freedom", "quantile"),
    [
        (0.975, 1, 12.7062),
        (0.975, 3, 3.18245),
        (0.975, 11, 2.20099),
        (0.995, 11, 3.10581),
        (0.5, 7, 0.0),
        (0.05, 4, -2.13185),
    ],
)
def test_quantiles_of_students_t_are_those_of_the_tables(
    labels: ModuleType, probability: float, freedom: int, quantile: float
) -> None:
    assert labels.student_t(probability, freedom) == pytest.approx(quantile, abs=2e-4)


def test_lower_limit_fails_a_quiet_week_as_rarely_as_promised(labels: ModuleType) -> None:
    draw, below, rounds = np.random.default_rng(0), 0, 600
    logits = draw.normal(1.0, 0.2, (rounds, 11))
    aucs = 1 / (1 + np.exp(-logits))
    for week in aucs:
        below += week[-1] < labels.lower_limit(week[:-1].tolist())
    assert below / rounds == pytest.approx(0.025, abs=0.02)


def test_a_drop_is_found_in_its_week_and_not_before(labels: ModuleType) -> None:
    made = labels.Joined(**flights([1.0] * 10 + [0.0] * 3))
    report = labels.judge(made, 1, quiet_until=49, alarm_days=[77, 98])
    assert [week["first_day"] for week in report["weeks"]] == list(range(1, 92, 7))
    assert [week["drop"] for week in report["weeks"]] == [False] * 10 + [True] * 3
    assert [week["quiet"] for week in report["weeks"]] == [True] * 7 + [False] * 6
    assert report["drop"] == {"first_day": 71, "last_day": 77, "known_day": 77}
    assert report["lead_days"] == 0


@pytest.mark.parametrize("seed", range(4))
def test_no_drop_is_found_where_there_is_none(labels: ModuleType, seed: int) -> None:
    made = labels.Joined(**flights([1.0] * 14, seed=seed))
    report = labels.judge(made, 1, quiet_until=49, alarm_days=[60])
    assert report["drop"] is None
    assert report["lead_days"] is None


def test_a_better_model_is_no_drop(labels: ModuleType) -> None:
    report = labels.judge(labels.Joined(**flights([0.5] * 8 + [2.0] * 4)), 1, quiet_until=56)
    assert report["drop"] is None


@pytest.mark.parametrize(("delay_days", "lead_days"), [(0, -7), (7, 0), (30, 23)])
def test_late_labels_give_the_alarm_its_lead(labels: ModuleType, delay_days: int, lead_days: int) -> None:
    made = labels.Joined(**flights([1.0] * 10 + [0.0] * 3, delay_days=delay_days))
    report = labels.judge(made, 1, quiet_until=49, alarm_days=[91, 84])
    assert report["alarm_day"] == 84
    assert report["drop"]["known_day"] == 77 + delay_days
    assert report["lead_days"] == lead_days


def test_a_quiet_week_is_judged_by_the_others(labels: ModuleType) -> None:
    """A bad week among those said to be quiet shows, and is not taken for the drop."""
    made = labels.Joined(**flights([1.0] * 4 + [0.0] + [1.0] * 6))
    report = labels.judge(made, 1, quiet_until=56)
    assert [week["drop"] for week in report["weeks"]] == [False] * 4 + [True] + [False] * 6
    assert report["drop"] is None


def test_a_baseline_alone_is_enough(labels: ModuleType) -> None:
    made = labels.Joined(**flights([1.0] * 5 + [0.0] * 2, rows=1000))
    report = labels.judge(made, 1, baseline_auc=0.7)
    assert report["drop"]["first_day"] == 36
    assert report["limit"] == report["baseline_auc"] == 0.7


def test_too_few_quiet_weeks_are_refused(labels: ModuleType) -> None:
    with pytest.raises(Exception, match=r"^quiet weeks: 3 whole weeks up to day 21, expected more than 3\. "):
        labels.judge(labels.Joined(**flights([1.0] * 6)), 1, quiet_until=21)


def test_program_joins_two_files(tmp_path: Path) -> None:
    made = flights([1.0] * 8 + [0.0] * 2, delay_days=3)
    names = [f"flight {number}" for number in range(len(made["day"]))]
    answers = write(
        tmp_path / "answers.csv", ("flight", "day", "probability"), (names, made["day"], made["probability"])
    )
    order = np.random.default_rng(1).permutation(len(names))[5:]  # other order, and five flights are not known yet
    learned = [("1", "a stranger", 1)]
    learned += [(str(int(made["late"][i])), names[i], made["known_day"][i]) for i in order]
    outcomes = write(tmp_path / "outcomes.csv", ("late", "flight", "known_day"), list(zip(*learned, strict=True)))
    done = run("--answers", answers, "--outcomes", outcomes, "--quiet-until", 56, "--alarm-day", 56)
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    counts = (len(names), len(names) - 4, len(names) - 5)
    assert (report["answers"], report["outcomes"], report["joined"]) == counts
    assert report["drop"]["known_day"] == 66
    assert report["lead_days"] == 10
    early = run(
        "--answers", answers, "--outcomes", outcomes, "--quiet-until", 56, "--today", 59, "--out", tmp_path / "r"
    )
    assert (early.returncode, early.stdout) == (0, "")
    assert json.loads((tmp_path / "r").read_text())["drop"] is None, "it was not known by day 59"


@pytest.mark.parametrize(
    ("answers", "outcomes", "message"),
    [
        ("flight,day\na,1\n", "", r"answers.csv: no column probability, expected flight, day, probability\. "),
        (
            "flight,day,probability\na,1,nan\n",
            "",
            r"answers.csv: probability 'nan' in record 1, expected a number from 0",
        ),
        ("flight,day,probability\na,1,.5\nb,1.5,.5\n", "", r"day '1.5' in record 2, expected a whole number"),
        ("flight,day,probability\na,1,1.2\n", "", r"probability '1.2' in record 1"),
        ("flight,day,probability\na,1\n", "", r"probability None in record 1"),
        ("flight,day,probability\na,1,.5\na,2,.5\n", "", r"flight 'a' more than once, expected each once"),
        ("flight,day,probability\na,1,.5\n", "flight,known_day,late\na,1,2\n", r"outcomes.csv: late '2' in record 1"),
        ("flight,day,probability\na,1,.5\n", "flight,known_day,late\n", r"quiet weeks: 0 whole weeks"),
        ("", "", r"answers.csv: no column flight, day, probability"),
    ],
)
def test_program_names_what_it_cannot_read(tmp_path: Path, answers: str, outcomes: str, message: str) -> None:
    (tmp_path / "answers.csv").write_text(answers)
    (tmp_path / "outcomes.csv").write_text(outcomes)
    done = run("--answers", tmp_path / "answers.csv", "--outcomes", tmp_path / "outcomes.csv", "--quiet-until", 56)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert re.search(message, done.stderr), done.stderr


def test_program_needs_numpy_alone() -> None:
    """So that it starts at once, and runs where alibi-detect is not allowed."""
    code = "import sys, labels; print(sorted(m for m in ('scipy', 'pandas', 'alibi_detect') if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=FOLDER, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
