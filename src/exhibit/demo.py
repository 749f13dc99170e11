"""The main job: train the model, start each server, send traffic, answer the criteria, write the report."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

from exhibit import criteria, environments, runs
from exhibit import model as models
from exhibit.console import err, out, step
from exhibit.contract import Platform
from exhibit.criteria import Outcome
from exhibit.errors import ExhibitError, ExitCode
from exhibit.evidence import Evidence
from exhibit.model import Model
from exhibit.render import report as reports
from exhibit.render import sync
from exhibit.targets import Target
from exhibit.workspace import Workspace


def run(workspace: Workspace, target: Target, platforms: Sequence[Platform]) -> ExitCode:
    """Runs `platforms` one after another on `target`; whatever happens, nothing is left running.

    A platform that cannot be run is reported and the others go on.

    Raises:
        ExhibitError: no criteria, or a file breaks the contract: nothing can be run.
    """
    began = time.monotonic()
    asked = criteria.discover(workspace)
    found: list[Evidence] = []
    failures: list[ExhibitError] = []
    try:
        target.down_all()
        target.prepare([])
        with step("monitoring"):
            target.watch()
        for platform in platforms:
            out.rule(f"[bold]{platform.title}[/bold]", align="left", characters="─")
            try:
                found += _run_one(workspace, target, platform, asked)
            except ExhibitError as error:
                failures.append(error)
                err.print(str(error), markup=False, style="red")
    finally:
        target.down_all()
        sync.write(workspace)  # of what was answered before an interrupt too: evidence and its tables stay together
    with step("report"):
        reports.write(workspace, workspace.root / reports.FILE)
    _summarise(workspace, found, failures, time.monotonic() - began)
    code = runs.exit_code(found)
    return ExitCode.COULD_NOT_RUN if failures and code is ExitCode.PASSED else code


def ensure_model(workspace: Workspace, *, retrain: bool = False) -> Model:
    """The exported model, trained first if there is none or if its sources have changed.

    Raises:
        ModelError: training failed, or an export is not what was checked when it was made.
    """
    if not retrain and models.is_current(workspace):
        with step("model is current"):
            return models.load(workspace)
    with step("model: environment"):
        environments.ensure(workspace, "model", workspace.model / "requirements.txt")
    with step("model: trained and exported") as say:
        return models.train(workspace, say)


def _run_one(
    workspace: Workspace, target: Target, platform: Platform, asked: dict[str, criteria.Criterion]
) -> list[Evidence]:
    target.prepare([platform])
    try:
        with step("  first right prediction"):
            deployment = target.deploy(platform)
        with deployment:
            return runs.everything(workspace, deployment, asked)
    finally:
        target.down(platform.slug)


def _summarise(
    workspace: Workspace, found: Sequence[Evidence], failures: Sequence[ExhibitError], seconds: float
) -> None:
    out.rule(characters="─")
    counts = Counter(one.outcome for one in found)
    out.print(
        ", ".join(f"{counts[outcome]} {outcome}" for outcome in Outcome if counts[outcome])
        or "no criterion was answered"
    )
    for one in found:
        if one.outcome in (Outcome.FAIL, Outcome.ERROR):
            out.print(f"  {one.outcome}: {one.platform} {one.criterion}: {one.message}", markup=False)
    if failures:
        out.print(f"  could not run (see above): {', '.join(failure.subject for failure in failures)}", markup=False)
    out.print(f"scorecard  {workspace.relative(sync.scorecard_path(workspace))}")
    out.print(f"report     {reports.FILE}   [dim](open it in a browser; {seconds:.0f} s in all)[/dim]")
