"""A run: scenarios are sent to a deployment, the criteria asked of it, and the evidence written whole at the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from exhibit import criteria, detectors, evidence, explainers, records
from exhibit.console import out, step
from exhibit.criteria import Criterion, Finding, Outcome
from exhibit.errors import ExhibitError, ExitCode
from exhibit.evidence import Evidence
from exhibit.targets import Deployment
from exhibit.traffic import Report
from exhibit.workspace import Workspace

_MARKS = {
    Outcome.PASS: "[green]✔ pass[/green]",
    Outcome.FAIL: "[red]✘ fail[/red]",
    Outcome.UNSUPPORTED: "– unsupported",
    Outcome.ERROR: "[red]! error[/red]",
    Outcome.NOT_RUN: "[yellow]○ not run[/yellow]",
}


@dataclass
class Run:
    """What was learnt of one deployment in one run."""

    evidence: list[Evidence] = field(default_factory=list)
    check_seconds: dict[str, float] = field(default_factory=dict)
    memory: list[tuple[float, float]] = field(default_factory=list)
    """(seconds since the start of the run, resident MiB of the process tree)"""
    pictures: dict[str, Any] = field(default_factory=dict)
    """What the report draws of it beside traffic and memory."""
    seconds: float = 0.0


def everything(
    workspace: Workspace,
    deployment: Deployment,
    asked: Mapping[str, Criterion],
) -> list[Evidence]:
    """Sends the plain scenarios, asks every criterion, and writes the evidence of this platform and target anew."""
    began, began_at = time.monotonic(), time.time()
    run = Run()
    with _sampling(deployment, run, began):
        _send_plain(deployment)
        _ask(deployment, [one for one in asked.values() if one.fits(type(deployment))], run)
        _picture(workspace, deployment, run, began_at)
    run.seconds = round(time.monotonic() - began, 1)
    slug = deployment.platform.slug
    evidence.write(workspace, slug, deployment.target, run.evidence, _record(deployment, run), replace=True)
    return run.evidence


def single(workspace: Workspace, deployment: Deployment, criterion: Criterion) -> list[Evidence]:
    """Sends the plain scenarios (some checks count their answers), asks one criterion and writes its evidence alone.

    Raises:
        ExhibitError: it cannot be asked on this target.
    """
    if not criterion.fits(type(deployment)):
        raise ExhibitError(
            criterion.id,
            f"asked on target {deployment.target}",
            f"a target that offers {' and '.join(criterion.requires)}",
            "Ask it with TARGET=kind.",
        )
    run = Run()
    _send_plain(deployment)
    _ask(deployment, [criterion], run)
    evidence.write(workspace, deployment.platform.slug, deployment.target, run.evidence, None, replace=False)
    return run.evidence


def exit_code(found: Iterable[Evidence]) -> ExitCode:
    """What the evidence means for a shell: a failure outweighs what could not be run; unsupported is an answer."""
    outcomes = {one.outcome for one in found}
    if outcomes & {Outcome.FAIL, Outcome.ERROR}:
        return ExitCode.FAILED
    return ExitCode.COULD_NOT_RUN if Outcome.NOT_RUN in outcomes else ExitCode.PASSED


def _send_plain(deployment: Deployment) -> None:
    """Sends the scenarios that no criterion sends itself."""
    for name, scenario in deployment.scenarios.items():
        if not scenario.by_criterion:
            with step(f"  {scenario.title}"):
                report = deployment.send(name)
            out.print(f"    {report.right} of {report.sent} answers right{_trouble(report)}")


def _trouble(report: Report) -> str:
    parts = [f"{report.wrong} wrong"] if report.wrong else []
    parts += [f"{report.dropped} not sent"] if report.dropped else []
    parts += [f"{count} {reason}" for reason, count in report.failures.items()]
    return f" ({', '.join(parts)})" if parts else ""


def _ask(deployment: Deployment, asked: Iterable[Criterion], run: Run) -> None:
    """Asks one criterion after the other; once the server is gone, the rest is not run, and that is said once."""
    died, left = _death(deployment, "the traffic before the checks"), list(asked)
    while left and not died:
        criterion = left.pop(0)
        began = time.monotonic()
        finding = criteria.answer(criterion, deployment)
        died = _death(deployment, criterion.id)
        if died and finding.outcome is not Outcome.FAIL:
            finding = Finding(Outcome.ERROR, died, {"server": deployment.ended()}, {"server": "running"})
        run.check_seconds[criterion.id] = round(time.monotonic() - began, 2)
        run.evidence.append(evidence.of(finding, criterion, deployment))
        out.print(f"  {_MARKS[finding.outcome]}  {criterion.id}  [dim]{run.check_seconds[criterion.id]:.1f} s[/dim]")
        out.print(f"      {finding.message}", markup=False, style="dim")
    if left:
        finding = Finding(Outcome.NOT_RUN, f"Not asked. {died}", {}, {})
        run.evidence += [evidence.of(finding, criterion, deployment) for criterion in left]
        out.print(f"  {_MARKS[finding.outcome]}  the other {len(left)}: the server is gone")


def _death(deployment: Deployment, during: str) -> str | None:
    ended = deployment.ended()
    return (
        f"The server of {deployment.platform.slug} {ended} during {during}; its log: {deployment.log}."
        if ended
        else None
    )


@contextmanager
def _sampling(deployment: Deployment, run: Run, began: float) -> Iterator[None]:
    """Notes the resident memory of the server while the block runs."""
    done = threading.Event()

    def sample() -> None:
        while not done.wait(deployment.SAMPLE_SECONDS):
            with suppress(Exception):  # a cluster may not answer in the middle of a rollout: that sample is missing
                if resident := deployment.usage().resident_bytes:
                    run.memory.append((round(time.monotonic() - began, 2), round(resident / 2**20, 1)))

    thread = threading.Thread(target=sample, name="memory-sampler", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _picture(workspace: Workspace, deployment: Deployment, run: Run, began_at: float) -> None:
    """Notes what the report draws: the run as it was watched, and the model over the year.

    The answers are in by now: whatever goes wrong here is said, and costs no more than its own picture.
    """
    if not deployment.alive():
        return
    until = time.time()
    parts: dict[str, Callable[[], Any]] = {
        "sent": lambda: records.sent(deployment, began_at),
        "windows": lambda: records.windows(deployment, began_at),
        "outliers": lambda: records.outliers(deployment, began_at, until),
        "alerts": lambda: records.alerts(deployment, began_at),
        "signals": lambda: records.signals(workspace, deployment, began_at, until),
    }
    titles = {}
    if explainers.NAME in deployment.companions:
        titles["explanation"] = "  one late flight explained"
        parts["explanation"] = lambda: records.explanation(deployment)
    if detectors.NAME in deployment.companions:
        titles["weeks"] = "  accuracy week by week, once the outcomes are known"
        parts["weeks"] = lambda: records.weeks(workspace, deployment)
    for name, part in parts.items():
        try:
            with step(titles[name]) if name in titles else nullcontext():
                run.pictures[name] = part()
        except Exception as error:
            out.print(f"  no picture of {name}: {type(error).__name__}: {error}", style="yellow", markup=False)


def _record(deployment: Deployment, run: Run) -> dict[str, Any]:
    return {
        "platform": deployment.platform.slug,
        "target": deployment.target,
        "finished_at": records.now(),
        "seconds": run.seconds,
        "host": records.machine_facts(),
        "versions": {"platform": deployment.version},
        "start": asdict(deployment.started),
        "memory": run.memory,
        "traffic": records.traffic(deployment),
        "check_seconds": run.check_seconds,
        **run.pictures,
    }
