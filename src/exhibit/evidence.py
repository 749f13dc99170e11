"""Evidence, written here alone: one file a cell, ``scorecard/evidence/<platform>/<target>/<group>/<criterion>.json``.

Facts that change with every run (time, host, traffic, memory over time) stand in one ``run.json`` beside them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from exhibit import digests, interrupts
from exhibit.contract import Platform
from exhibit.criteria import Criterion, Finding, Outcome
from exhibit.errors import ExhibitError
from exhibit.model import Model
from exhibit.targets import Deployment
from exhibit.workspace import Workspace, write_json

RUN = "run.json"


@dataclass(frozen=True)
class Evidence:
    """What a run said of one platform, target and criterion; the fields stand in the file in this order."""

    criterion: str
    platform: str
    target: str
    outcome: Outcome
    message: str
    observed: Mapping[str, Any]
    expected: Mapping[str, Any]
    add_on: str | None
    reproduce: str
    versions: Mapping[str, str]
    log: str

    def stale(self, platform: Platform, model: Model | str) -> str | None:
        """Why this no longer speaks of the checkout's folder and model; None if it does.

        Args:
            platform: the platform's folder as it is now.
            model: the model as it is now, or its sha256.
        """
        if self.versions["folder_sha256"] != digests.folder_sha256(platform.folder):
            return f"deployments/{self.platform} has changed since"
        if self.versions["model_sha256"] != (model if isinstance(model, str) else model.sha256):
            return "the model has changed since"
        return None


def reproduce(slug: str, target: str, criterion: str) -> str:
    """The command that deploys a platform, if it does not run yet, and asks it one criterion again."""
    return f"make deploy-{slug} check-{slug} TARGET={target} CRITERION={criterion}"


def of(finding: Finding, criterion: Criterion, deployment: Deployment) -> Evidence:
    """The evidence that `finding` is, of `deployment` as it is now."""
    slug = deployment.platform.slug
    return Evidence(
        criterion=criterion.id,
        platform=slug,
        target=deployment.target,
        outcome=finding.outcome,
        message=finding.message,
        observed=finding.observed,
        expected=finding.expected,
        add_on=finding.add_on or criterion.add_on,
        reproduce=reproduce(slug, deployment.target, criterion.id),
        versions={
            "platform": deployment.version,
            "model_sha256": deployment.model.sha256,
            "folder_sha256": digests.folder_sha256(deployment.platform.folder),
        },
        log=deployment.log,
    )


def write(
    workspace: Workspace,
    slug: str,
    target: str,
    found: Sequence[Evidence],
    run: Mapping[str, Any] | None,
    *,
    replace: bool,
) -> None:
    """Writes the evidence of one run.

    Args:
        run: the volatile facts; None leaves those of the last whole run.
        replace: the run answered all criteria: what it does not name any more is removed.
    """
    folder = workspace.evidence / slug / target
    written = {folder / f"{evidence.criterion}.json" for evidence in found}
    with interrupts.deferred():
        for evidence in found:
            write_json(folder / f"{evidence.criterion}.json", asdict(evidence))
        if run is not None:
            write_json(folder / RUN, run)
        if replace:
            for path in set(folder.rglob("*.json")) - written - {folder / RUN}:
                path.unlink()


def read(workspace: Workspace) -> list[Evidence]:
    """All evidence of the checkout, by platform, target and criterion.

    Raises:
        ExhibitError: a file of it is not what the engine wrote.
    """
    return [_read(path, workspace.relative(path)) for path in sorted(workspace.evidence.glob("*/*/*/*.json"))]


def read_run(workspace: Workspace, slug: str, target: str) -> dict[str, Any] | None:
    """The volatile facts of a platform's last run; None if it was never run."""
    path = workspace.evidence / slug / target / RUN
    return dict(json.loads(path.read_text())) if path.exists() else None


def _read(path: Path, name: str) -> Evidence:
    try:
        fields = json.loads(path.read_text())
        return Evidence(**{**fields, "outcome": Outcome(fields["outcome"])})
    except (ValueError, KeyError, TypeError) as error:
        raise ExhibitError(
            name, f"unreadable ({error})", "evidence as the engine writes it", "Remove it, and run the check again."
        ) from error
