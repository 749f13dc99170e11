"""The command line: each verb is a Make target of the same name and the stem of a CI job's name."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from exhibit import criteria, demo, environments, interrupts, locks, runs
from exhibit import model as models
from exhibit.console import err, out, step
from exhibit.contract import Platform, WebApp, load_platforms
from exhibit.errors import ExhibitError, ExitCode, ServerError
from exhibit.monitoring import Monitoring
from exhibit.render import report as reports
from exhibit.render import sync as generated
from exhibit.targets.local import LocalTarget
from exhibit.workspace import Workspace

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="One trained model through ten deployment options; each claim of the comparison is a check that ran.",
)
Slug = Annotated[str, typer.Argument(help="a folder of deployments/", metavar="PLATFORM")]
TargetName = Annotated[str, typer.Option("--target", help="where it runs: local")]


def workspace() -> Workspace:
    """The checkout the command is run in: the nearest folder upwards that holds deployments/ and model/."""
    for folder in (Path.cwd(), *Path.cwd().parents):
        if (folder / "deployments").is_dir() and (folder / "model").is_dir():
            return Workspace(folder)
    raise ExhibitError(
        str(Path.cwd()), "not inside a checkout", "a folder with deployments/ and model/", "Change into it."
    )


def _platform(place: Workspace, slug: str) -> Platform:
    platforms = load_platforms(place)
    if slug not in platforms:
        raise ExhibitError(
            slug, "no such platform", f"one of {', '.join(platforms)}", f"Add deployments/{slug}, or correct it."
        )
    return platforms[slug]


def _target(place: Workspace, name: str) -> LocalTarget:
    if name != LocalTarget.name:
        raise ExhibitError(
            f"target {name!r}", "not built yet", "TARGET=local", "Run the command again with TARGET=local."
        )
    return LocalTarget(place, models.load(place), Monitoring(place))


@app.command("demo")
def run_demo(
    platforms: Annotated[
        list[str] | None, typer.Argument(metavar="[PLATFORM]...", help="all of them, if none is named")
    ] = None,
) -> None:
    """Train the model, start each server, send traffic, answer the criteria, write the report."""
    place = workspace()
    chosen = [_platform(place, slug) for slug in platforms] if platforms else list(load_platforms(place).values())
    with place.lock():
        raise typer.Exit(demo.run(place, chosen))


@app.command()
def prepare() -> None:
    """Build the model, every environment and Prometheus, so that later commands need no network and no wait."""
    place = workspace()
    platforms = load_platforms(place)
    with place.lock():
        demo.ensure_model(place)
        demo.ensure_companions(place)
        for slug, platform in platforms.items():
            with step(f"{platform.title}: environment"):
                environments.ensure(place, slug, platform.lock)
        monitoring = Monitoring(place)
        with step("Prometheus: programs"):
            monitoring.binaries()
        _warn_if_missing(monitoring)


@app.command()
def model(retrain: Annotated[bool, typer.Option(help="train even if the model is current")] = False) -> None:
    """Train and export the model, if it is not current."""
    place = workspace()
    with place.lock():
        demo.ensure_model(place, retrain=retrain)


@app.command()
def deploy(slug: Slug, target: TargetName = "kind") -> None:
    """Start one platform behind its gateway; it is ready when a real prediction is right."""
    place = workspace()
    platform = _platform(place, slug)
    with place.lock():
        destination, deployment = _target(place, target), None
        demo.ensure_companions(place)
        with step(f"{platform.title}: environment"):
            environments.ensure(place, slug, platform.lock)
        try:
            destination.monitoring.start()
            _warn_if_missing(destination.monitoring)
            with suppress(ServerError):
                deployment = destination.attach(platform)
            if deployment:
                out.print(f"{platform.title} runs already, from this very folder and model")
            else:
                with step(f"{platform.title}: first right prediction"):
                    deployment = destination.deploy(platform)
        finally:
            destination.release_monitoring()
    out.print(f"  gateway   {deployment.gateway_url}{platform.file.predict.path}")
    out.print(f"  platform  {deployment.url}{platform.file.predict.path}")
    page = platform.file.capabilities.web_app
    if isinstance(page, WebApp):
        out.print(f"  page      {deployment.url}{page.path}")
    if destination.monitoring.url:
        out.print(f"  metrics   {destination.monitoring.url}/api/v1/query?query=platform:requests:rate1m")
    out.print(f"  next      make check-{slug} TARGET={target}   make down-{slug} TARGET={target}")


@app.command()
def check(
    slug: Slug,
    target: TargetName = "kind",
    criterion: Annotated[str, typer.Option(help="group/name; all, if empty")] = "",
) -> None:
    """Answer the criteria for a deployed platform and write the evidence."""
    place = workspace()
    platform = _platform(place, slug)
    asked = criteria.discover(place)
    if criterion and criterion not in asked:
        raise ExhibitError(
            f"criterion {criterion!r}", "no such criterion", f"one of {', '.join(asked)}", "Name one of them."
        )
    with place.lock():
        deployment = _target(place, target).attach(platform)
        if deployment is None:
            raise ExhibitError(slug, "not deployed", "it to run", f"Run: make deploy-{slug} TARGET={target}")
        with deployment:
            log = place.relative(deployment.log)
            if criterion:
                found = runs.single(place, deployment, asked[criterion], log)
            else:
                found = runs.everything(place, deployment, asked, log)
        generated.write(place)
    raise typer.Exit(runs.exit_code(found))


@app.command()
def down(
    slug: Annotated[str, typer.Argument(help="a platform; all of them, if none is named", metavar="[PLATFORM]")] = "",
    target: TargetName = "local",
) -> None:
    """Stop one platform, or everything this checkout started."""
    place = workspace()
    if target != LocalTarget.name:
        _target(place, target)
    with place.lock(), interrupts.deferred():
        local = LocalTarget(place, None, Monitoring(place))
        for name in [slug] if slug else local.noted_slugs():
            stops = local.down(name)
            out.print(f"{name}: {'stopped' if stops else 'was not running'}")
            for stop in stops:
                if stop.killed:
                    out.print(f"  [yellow]ended by SIGKILL after {stop.seconds} s: SIGTERM was not enough[/yellow]")
        local.release_monitoring()


@app.command()
def status() -> None:
    """Show what runs: platform, state, addresses, memory."""
    place = workspace()
    lines = LocalTarget(place, None, Monitoring(place)).status()
    if not lines:
        out.print("Nothing runs. Start a platform with: make deploy-<platform> TARGET=local")
        return
    table = Table(box=None, pad_edge=False)
    for title in ("platform", "state", "gateway", "platform itself", "pid", "MiB"):
        table.add_column(title, no_wrap=True)
    for line in lines:
        mebibytes = str(line.resident_bytes // 2**20)
        table.add_row(line.platform, line.state, line.gateway_url, line.url, str(line.pid or ""), mebibytes)
    out.print(table)


@app.command()
def report() -> None:
    """Write report.html from the evidence."""
    place = workspace()
    reports.write(place, place.root / reports.FILE)
    out.print(f"report  {place.root / reports.FILE}")


@app.command()
def sync(
    check: Annotated[
        bool, typer.Option("--check", help="change nothing; exit code 1 if something is out of date")
    ] = False,
) -> None:
    """Generate scorecard, README table, CI include and criteria page anew."""
    place = workspace()
    outdated = generated.outdated(place)
    for path in outdated:
        out.print(f"{'out of date' if check else 'generated'}  {place.relative(path)}")
    if not check:
        generated.write(place)
    raise typer.Exit(ExitCode.FAILED if check and outdated else ExitCode.PASSED)


@app.command()
def lock() -> None:
    """Lock every requirements.in anew."""
    place = workspace()
    for source in locks.sources(place):
        with step(f"lock {place.relative(source)}"):
            locks.compile(source, source.with_suffix(".txt"))


def _warn_if_missing(monitoring: Monitoring) -> None:
    if monitoring.missing:
        out.print(f"[yellow]{monitoring.missing}[/yellow]")


def main() -> None:
    """Runs the command line; every end is an exit code and, where it is not 0, one message."""
    interrupts.install()
    try:
        code = app(standalone_mode=False)
    except ExhibitError as error:
        err.print(str(error), markup=False)
        code = error.exit_code
    except KeyboardInterrupt:
        code = ExitCode.INTERRUPTED
    except OSError as error:
        err.print(
            f"{error.filename or 'this machine'}: {error.strerror}, expected it to be readable and writable. "
            "Mend it and run the command again.",
            markup=False,
        )
        code = ExitCode.COULD_NOT_RUN
    except Exception as error:
        if hasattr(error, "show"):  # click's usage errors know how to show themselves
            error.show()
        else:  # a defect of the engine: its traceback is what its authors need
            err.print_exception()
        code = ExitCode.COULD_NOT_RUN
    if code == ExitCode.INTERRUPTED:  # typer, too, makes this of an interrupt
        err.print("Interrupted: what was started was stopped; the evidence of the unfinished part was not written.")
    sys.exit(int(code or 0))
