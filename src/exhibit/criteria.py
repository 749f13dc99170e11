"""A criterion is one file: ``scorecard/criteria/<group>/<criterion>.py``.

Its docstring is its documentation: the question in the first line, then ``Why:``, ``How:``, ``Pass:``, ``Fix:``. It has
``check(deployment) -> Finding`` and may define ``NEEDS`` (capabilities; a platform that declares one absent is
*unsupported* and the check is not run), ``USES`` (what must run beside the deployment: ``prometheus``, ``alerts`` or a
companion's name; where it does not, the check is *not run*), ``REQUIRES`` (what the target must offer: ``image`` or
``rollouts``; on one that does not, the question makes no sense and is not asked) and ``ADD_ON`` (the part of this
repository whose work is shown, where it is not the platform's own).
"""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import httpx

from exhibit.contract import Capabilities
from exhibit.errors import ExhibitError
from exhibit.targets import OFFERS, AnswerError, Deployment
from exhibit.workspace import Workspace

SECTIONS = ("Why", "How", "Pass", "Fix")


class Outcome(StrEnum):
    """The five ways a check can end; "the platform cannot", "we could not tell" and "not tried" never blur."""

    PASS = "pass"
    FAIL = "fail"
    UNSUPPORTED = "unsupported"
    ERROR = "error"
    NOT_RUN = "not-run"


@dataclass(frozen=True)
class Finding:
    """What a check saw: `message` is a full sentence with the number in it."""

    outcome: Outcome
    message: str
    observed: Mapping[str, Any]
    expected: Mapping[str, Any]
    add_on: str | None = None
    """The part of this repository without which it would not have passed."""


def judge(
    passed: bool, message: str, *, observed: Mapping[str, Any], expected: Mapping[str, Any], add_on: str | None = None
) -> Finding:
    """The finding of a check that could tell: pass or fail."""
    return Finding(Outcome.PASS if passed else Outcome.FAIL, message, observed, expected, add_on)


@dataclass(frozen=True)
class Criterion:
    """One question, loaded from its file."""

    group: str
    name: str
    question: str
    sections: Mapping[str, str]
    needs: tuple[str, ...]
    uses: tuple[str, ...]
    requires: tuple[str, ...]
    add_on: str | None
    check: Callable[[Deployment], Finding]

    @property
    def id(self) -> str:
        return f"{self.group}/{self.name}"

    def fits(self, target: type[Deployment]) -> bool:
        """Whether it can be asked of deployments of that target."""
        return target.OFFERS.issuperset(self.requires)


def answer(criterion: Criterion, deployment: Deployment) -> Finding:
    """Runs the check, or says why it is not run; never raises for what a platform or this machine does."""
    absent = deployment.platform.file.capabilities.absent()
    for need in criterion.needs:
        if need in absent:
            return Finding(
                Outcome.UNSUPPORTED,
                absent[need].none,
                {"declared": "none", "source": absent[need].source},
                {"capability": need},
            )
    for part in criterion.uses:
        if lacking := deployment.lacks(part):
            return Finding(Outcome.NOT_RUN, lacking, {}, {})
    added = deployment.platform.file.capabilities.added()
    helped = [f"serve/{added[need]}" for need in criterion.needs if need in added]
    try:
        finding = criterion.check(deployment)
        return replace(finding, add_on=finding.add_on or ", ".join(helped) or None)
    except AnswerError as wrong:
        return Finding(
            Outcome.FAIL, f"{deployment.platform.title} {wrong}.", {"answer": str(wrong)}, {"answer": "predictions"}
        )
    except httpx.HTTPError as error:
        # With the server alive, a connection that is dropped or an answer that never comes is its failure; with the
        # server gone, this check cannot tell whose it was.
        outcome = Outcome.FAIL if deployment.alive() else Outcome.ERROR
        return Finding(outcome, f"{deployment.platform.title} did not answer: {type(error).__name__}: {error}", {}, {})
    except Exception as error:  # of the check itself or of this machine: shown as such, and the other checks go on
        return Finding(Outcome.ERROR, f"The check could not be completed: {type(error).__name__}: {error}", {}, {})


def discover(workspace: Workspace) -> dict[str, Criterion]:
    """All criteria of the checkout by id, in alphabetical order.

    Raises:
        ExhibitError: a file lacks its documentation or its check, or needs a capability there is not.
    """
    paths = sorted(workspace.criteria.glob("*/*.py"))
    return {criterion.id: criterion for criterion in (_load(workspace, path) for path in paths)}


def _load(workspace: Workspace, path: Path) -> Criterion:
    name = workspace.relative(path)
    spec = importlib.util.spec_from_file_location(f"criterion_{path.parent.name}_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where pydantic looks up annotations
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ExhibitError(name, f"{type(error).__name__}: {error}", "a module that loads", "Mend it.") from error
    question, sections = _documentation(module.__doc__ or "")
    missing = [section for section in SECTIONS if section not in sections]
    if not question.endswith("?") or missing:
        raise ExhibitError(
            name,
            f"docstring without {', '.join(missing) or 'a question'}",
            "a question, then Why:, How:, Pass: and Fix:",
            "Write it.",
        )
    needs = tuple(getattr(module, "NEEDS", ()))
    unknown = [need for need in needs if need not in Capabilities.model_fields]
    if unknown:
        raise ExhibitError(
            name, f"NEEDS {unknown[0]!r}", f"one of {', '.join(Capabilities.model_fields)}", "Correct it."
        )
    if not callable(getattr(module, "check", None)):
        raise ExhibitError(name, "no function check", "check(deployment) -> Finding", "Write it.")
    uses = tuple(getattr(module, "USES", ()))
    requires = tuple(getattr(module, "REQUIRES", ()))
    if unknown := [one for one in requires if one not in OFFERS]:
        raise ExhibitError(name, f"REQUIRES {unknown[0]!r}", f"one of {', '.join(sorted(OFFERS))}", "Correct it.")
    add_on = getattr(module, "ADD_ON", None)
    return Criterion(path.parent.name, path.stem, question, sections, needs, uses, requires, add_on, module.check)


def _documentation(docstring: str) -> tuple[str, dict[str, str]]:
    question, *rest = re.split(rf"^({'|'.join(SECTIONS)}):", docstring.strip(), flags=re.MULTILINE)
    texts = [" ".join(text.split()) for text in rest]
    return " ".join(question.split()), dict(zip(texts[::2], texts[1::2], strict=True))
