"""A grade follows from the evidence of a group alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from exhibit import scorecard
from exhibit.contract import load_platforms
from exhibit.criteria import Criterion, Finding, Outcome
from exhibit.evidence import Evidence
from exhibit.scorecard import Grade, Option
from exhibit.targets import Deployment
from exhibit.workspace import Workspace

ROOT = Path(__file__).resolve().parents[2]


def criterion(name: str, add_on: str | None = None) -> Criterion:
    def check(_: Deployment) -> Finding:
        raise NotImplementedError

    return Criterion("serving", name, "Does it?", {}, (), (), (), add_on, check)


def evidence(name: str, outcome: Outcome, add_on: str | None = None) -> Evidence:
    return Evidence(f"serving/{name}", "toy", "local", outcome, "It did 1 thing.", {}, {}, add_on, "make", {}, "log")


OWN, OTHER, ADDED = criterion("own"), criterion("other"), criterion("added", "gateway")
PASS, FAIL, UNSUPPORTED, ERROR, NOT_RUN = Outcome


@pytest.mark.parametrize(
    ("found", "grade", "reason"),
    [
        ([evidence("own", PASS), evidence("other", PASS)], Grade.NATIVE, ""),
        ([evidence("own", PASS), evidence("other", FAIL)], Grade.NO, "shown failing"),
        ([evidence("own", PASS), evidence("other", UNSUPPORTED)], Grade.NATIVE, ""),
        ([evidence("own", UNSUPPORTED)], Grade.NO, "declared absent"),
        # A criterion about an add-on is another way to the same end ...
        ([evidence("own", PASS), evidence("added", PASS, "gateway")], Grade.NATIVE, "1 by gateway"),
        ([evidence("own", UNSUPPORTED), evidence("added", PASS, "gateway")], Grade.ADD_ON, "gateway"),
        # ... a criterion about the platform that needed help is not the platform's own doing.
        ([evidence("own", PASS, "gateway"), evidence("other", PASS)], Grade.ADD_ON, "gateway"),
        ([evidence("own", ERROR)], Grade.NOT_RUN, "1 of 1 could not be told: It did 1 thing."),
        (
            [evidence("own", PASS), evidence("other", NOT_RUN)],
            Grade.NOT_RUN,
            "1 of 2 could not be told: It did 1 thing.",
        ),
        ([evidence("own", FAIL), evidence("other", ERROR)], Grade.NO, "shown failing"),
        ([], Grade.NOT_RUN, "no evidence yet"),
    ],
)
def test_grade(found: list[Evidence], grade: Grade, reason: str) -> None:
    platform = next(iter(load_platforms(Workspace(ROOT)).values()))
    option = Option("toy", "Toy", platform)
    assert scorecard._grade(option, found, [OWN, OTHER, ADDED]) == (grade, reason)


def test_an_option_without_a_folder_is_not_run_because_it_is_not_built() -> None:
    assert scorecard._grade(Option("toy", "Toy", None), [], [OWN]) == (Grade.NOT_RUN, scorecard.NOT_BUILT)


def test_every_option_has_a_cell_in_every_group_and_the_studys_mark_is_beside_it() -> None:
    card = scorecard.build(Workspace(ROOT))
    assert len(card.options) >= 10
    assert set(card.cells) == {(option.slug, group) for option in card.options for group in card.groups}
    assert card.cells["torchserve", "explainability"].study == "❓"
    assert card.cells["sagemaker", "model_metrics"].grade is Grade.NOT_RUN
    for group in card.groups.values():
        assert not group.study or set(group.study) == {
            option.slug for option in card.options if option.slug in group.study
        }
        assert len(group.study) in (0, 10)
