"""The committed calibration, its study and their page. What needs alibi-detect is tested in monitoring/detectors."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
DETECTORS = ROOT / "monitoring/detectors"
ARTIFACTS = ROOT / "model/artifacts"
CATEGORIES = ["carrier", "origin", "weekday"]
FEATURES = [*CATEGORIES, "hour", "distance", "temp", "dewp", "humid", "wind_speed", "precip", "pressure", "visib"]


@pytest.fixture(scope="module")
def calibration() -> dict[str, Any]:
    return json.loads((DETECTORS / "calibration.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def study() -> dict[str, Any]:
    return json.loads((DETECTORS / "study.json").read_text(encoding="utf-8"))


def chosen(entries: list[dict[str, Any]], key: str) -> dict[str, Any]:
    [entry] = [entry for entry in entries if entry[key].endswith("(chosen)")]
    return entry


def test_calibration_has_a_limit_and_a_range_for_each_feature(calibration: dict[str, Any]) -> None:
    assert list(calibration["ranges"]) == FEATURES
    assert list(calibration["drift_limits"]) == [*FEATURES, "prediction"]
    for name, limit in calibration["drift_limits"].items():
        assert 0 < limit < 1, name
    for name, known in calibration["ranges"].items():
        assert known == sorted(set(known)), name
        assert len(known) > 2 if name in CATEGORIES else len(known) == 2, name


def test_ranges_hold_the_reference(calibration: dict[str, Any]) -> None:
    if not (ARTIFACTS / "reference.npz").is_file():
        pytest.skip("model/artifacts/reference.npz is not there: the model has not been built in this tree")
    with np.load(ARTIFACTS / "reference.npz") as arrays:
        rows = arrays["rows"]
    for column, name in enumerate(FEATURES):
        known = np.array(calibration["ranges"][name], dtype=np.float32)
        if name in CATEGORIES:
            assert set(rows[:, column].tolist()) <= set(known.tolist()), name
        else:
            assert known[0] <= rows[:, column].min() <= rows[:, column].max() <= known[1], name


def test_study_meets_its_targets(study: dict[str, Any]) -> None:
    """Over 200 windows and more, the week judged held out of the calibration."""
    assert min(study["windows"].values()) >= 200
    assert study["window_rows"] == 500
    rule = chosen(study["rules"], "rule")
    assert rule["false"] <= 0.01
    assert rule["false_by_halves"] <= 0.01
    assert rule["found"] >= 0.95
    assert rule["found_by_halves"] >= 0.95
    detector = chosen(study["outliers"], "detector")
    assert detector["clean"] <= 0.06
    assert detector["corrupted"] >= 0.9


def test_study_shows_what_was_not_chosen(study: dict[str, Any]) -> None:
    """Each simpler limit fails a target: if one no longer does, it should be taken."""
    simpler = [entry for entry in study["rules"] if not entry["rule"].endswith("(chosen)")]
    assert len(simpler) >= 4
    for entry in simpler:
        false = max(entry["false"], entry.get("false_by_halves", 0))
        assert false > 0.01 or entry["found_by_halves"] < 0.95, entry["rule"]
    assert simpler[0]["false"] > 0.5, "p < .05 on quiet weeks"
    assert study["consecutive"]["alarms"] > study["consecutive"]["windows"] / 2


def test_calendar_has_every_week_from_january_to_july(study: dict[str, Any]) -> None:
    calendar = study["calendar"]
    assert len(calendar) == 31
    starts = [np.datetime64(week["start"]) for week in calendar]
    assert (np.diff(starts) == np.timedelta64(7, "D")).all()
    assert [week["days"] for week in calendar] == [6, *[7] * 29, 3]
    for week in calendar:
        assert week["alarm"] == (week["ratio"] > 1)
        assert week["feature"] in (*FEATURES, "prediction")
        assert 0 <= week["outliers"] <= 1
        assert week["low"] < week["auc"] < week["high"]


def test_lead_is_the_difference_of_the_two_days(study: dict[str, Any]) -> None:
    for entry in study["accuracy"]["leads"]:
        days = np.datetime64(entry["known"]) - np.datetime64(entry["alarm"])
        assert days / np.timedelta64(1, "D") == entry["lead_days"]


def test_page_says_what_the_study_says(study: dict[str, Any]) -> None:
    """Its prose repeats some figures of the tables, which are compared as a whole in the detectors' environment."""
    page = " ".join((ROOT / "docs/drift.md").read_text(encoding="utf-8").split())
    rule = chosen(study["rules"], "rule")
    said = "**False alarms {false:.1%}, June and July found {found:.0%}**; by halves {false_by_halves:.1%} and"
    assert said.format(**rule).replace("%", " %") in page
    first = study["accuracy"]["leads"][0]
    assert first["delay_days"] == 0
    assert f"The alarm comes {-first['lead_days']} days *after* the outcomes could have told." in page
