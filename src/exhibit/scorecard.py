"""The scorecard: what the evidence says of each option and group, beside the mark the study gave.

A grade is computed from a group's evidence, never written by hand, and there is no weighted total: counts only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from pydantic import Field

from exhibit import criteria, documents, evidence
from exhibit.contract import Platform, load_platforms
from exhibit.criteria import Criterion, Outcome
from exhibit.digests import file_sha256
from exhibit.documents import Document, Text
from exhibit.errors import ContractError, ExhibitError
from exhibit.evidence import Evidence
from exhibit.workspace import Workspace

NOT_BUILT = "not built yet"


class Grade(StrEnum):
    """What a group's evidence amounts to."""

    NATIVE = "native"
    """The platform did it."""
    ADD_ON = "add-on"
    """It works with a named part of this repository."""
    NO = "no"
    """Shown failing, or declared absent with a reason."""
    CITED = "cited"
    """A vendor's claim with a dated link; nobody can run it here."""
    NOT_RUN = "not run"


class Group(Document):
    title: Text
    question: Text
    study: dict[str, str] = Field(default_factory=dict)


class Study(Document):
    """scorecard/study.yaml: the options, the groups, and the study's marks by option."""

    options: dict[str, str]
    groups: dict[str, Group]


@dataclass(frozen=True)
class Option:
    """A column: a deployment option, built or not."""

    slug: str
    title: str
    platform: Platform | None


@dataclass(frozen=True)
class Cell:
    """One option and one group."""

    grade: Grade
    reason: str
    """Why there is no evidence, which add-on was used, or how many of a native cell's passes were by one; or empty."""
    passed: int
    answered: int
    """Criteria of the group that were answered: pass, fail or unsupported."""
    study: str
    """The study's own mark; empty where it gave none."""
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True)
class Scorecard:
    """All cells, by option slug and group."""

    options: tuple[Option, ...]
    groups: Mapping[str, Group]
    criteria: Mapping[str, Criterion]
    cells: Mapping[tuple[str, str], Cell]
    stale: Mapping[tuple[str, str, str], str]
    """Why evidence is stale, by platform, target and criterion; absent where it is fresh."""

    def outcome(self, slug: str, criterion: str, target: str = "local") -> Evidence | None:
        """The evidence of one option, criterion and target, if there is any."""
        group = criterion.split("/", maxsplit=1)[0]
        return next(
            (e for e in self.cells[slug, group].evidence if e.criterion == criterion and e.target == target), None
        )


def build(workspace: Workspace) -> Scorecard:
    """Reads study, platforms, criteria and evidence of the checkout.

    Raises:
        ContractError: the study's file or a platform folder breaks its schema.
        ExhibitError: a criterion's group is not a row of the study's file.
    """
    study, breaches = documents.load(workspace.root / "scorecard/study.yaml", Study, "scorecard/study.yaml")
    if study is None:
        raise ContractError(breaches)
    platforms, asked = load_platforms(workspace), criteria.discover(workspace)
    for criterion in asked.values():
        if criterion.group not in study.groups:
            raise ExhibitError(
                f"scorecard/criteria/{criterion.id}.py",
                f"group {criterion.group!r}",
                f"one of {', '.join(study.groups)}",
                "Move it, or add the group to scorecard/study.yaml.",
            )
    titles = {**study.options, **{slug: platform.title for slug, platform in platforms.items()}}
    options = tuple(Option(slug, title, platforms.get(slug)) for slug, title in titles.items())
    found = [e for e in evidence.read(workspace) if e.platform in platforms and e.criterion in asked]
    model_sha256 = file_sha256(workspace.model / "golden" / "golden.json")
    stale = {
        (e.platform, e.target, e.criterion): reason
        for e in found
        if (reason := e.stale(platforms[e.platform], model_sha256))
    }
    cells = {
        (option.slug, name): _cell(option, group, name, found, asked)
        for option in options
        for name, group in study.groups.items()
    }
    return Scorecard(options, study.groups, asked, cells, stale)


def _cell(option: Option, group: Group, name: str, found: Sequence[Evidence], asked: Mapping[str, Criterion]) -> Cell:
    mine = tuple(e for e in found if e.platform == option.slug and e.criterion.startswith(f"{name}/"))
    grade, reason = _grade(option, mine, [c for c in asked.values() if c.group == name])
    answered = [e for e in mine if e.outcome in (Outcome.PASS, Outcome.FAIL, Outcome.UNSUPPORTED)]
    passed = sum(e.outcome is Outcome.PASS for e in answered)
    return Cell(grade, reason, passed, len(answered), group.study.get(option.slug, ""), mine)


def _add_ons(passes: Sequence[Evidence]) -> str:
    return ", ".join(sorted({e.add_on for e in passes if e.add_on}))


def _grade(option: Option, mine: Sequence[Evidence], asked: Sequence[Criterion]) -> tuple[Grade, str]:
    if option.platform is None:
        return Grade.NOT_RUN, NOT_BUILT
    if not asked:
        return Grade.NOT_RUN, "no criterion yet"
    outcomes = {e.outcome for e in mine}
    if Outcome.FAIL in outcomes:
        return Grade.NO, "shown failing"
    untold = [e for e in mine if e.outcome in (Outcome.ERROR, Outcome.NOT_RUN)]
    if untold:
        return Grade.NOT_RUN, f"{len(untold)} of {len(mine)} could not be told: {untold[0].message}"
    passes = [e for e in mine if e.outcome is Outcome.PASS]
    # A criterion about an add-on (the gateway's metrics, say) is another way to the same end: it does not lower what
    # the platform does by itself. A criterion about the platform that passed only with an add-on does.
    alternatives = {criterion.id for criterion in asked if criterion.add_on}
    own = [e for e in passes if e.criterion not in alternatives]
    helped = _add_ons(own or passes)
    if helped:
        return Grade.ADD_ON, helped
    if passes:
        others = [e for e in passes if e not in own]
        return Grade.NATIVE, f"{len(others)} by {_add_ons(others)}" if others else ""
    if Outcome.UNSUPPORTED in outcomes:
        return Grade.NO, "declared absent"
    return Grade.NOT_RUN, "no evidence yet"
