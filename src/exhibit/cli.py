"""The command line: each verb is a Make target of the same name and the stem of a CI job's name."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from exhibit import bundle, companions, criteria, demo, interrupts, locks, runs
from exhibit import cluster as clusters
from exhibit import model as models
from exhibit.console import err, out, step
from exhibit.contract import Platform, WebApp, load_platforms
from exhibit.errors import ExhibitError, ExitCode, ServerError
from exhibit.model import Model
from exhibit.monitoring import Monitoring
from exhibit.render import report as reports
from exhibit.render import sync as generated
from exhibit.targets import Target
from exhibit.targets.kind import KindTarget
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
TargetName = Annotated[str, typer.Option("--target", help="where it runs: local or kind; kind, if empty")]
DemoTarget = Annotated[str, typer.Option("--target", help="where it runs: local or kind; local, if empty")]
ClusterName = Annotated[
    str, typer.Option("--name", envvar=clusters.VARIABLE, help="the kind cluster; that of kind-config.yaml, if empty")
]


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


def _targets(place: Workspace, model: Model | None) -> dict[str, Target]:
    """All targets by name; stopping and showing what runs needs no model."""
    return {one.name: one for one in (LocalTarget(place, model, Monitoring(place)), KindTarget(place, model))}


def _target(place: Workspace, name: str, model: Model | None = None) -> Target:
    targets = _targets(place, model)
    name = name or KindTarget.name
    if name not in targets:
        raise ExhibitError(f"target {name!r}", "no such target", f"one of {', '.join(targets)}", "Correct TARGET.")
    return targets[name]


@app.command("demo")
def run_demo(
    platforms: Annotated[
        list[str] | None, typer.Argument(metavar="[PLATFORM]...", help="all of them, if none is named")
    ] = None,
    target: DemoTarget = "",
) -> None:
    """Train the model, start each server, send traffic, answer the criteria, write the report."""
    place = workspace()
    chosen = [_platform(place, slug) for slug in platforms] if platforms else list(load_platforms(place).values())
    with place.lock():
        demo.ensure_model(place)
        _announce_licences(place)
        raise typer.Exit(demo.run(place, _target(place, target or LocalTarget.name, models.load(place)), chosen))


@app.command()
def prepare(target: DemoTarget = "") -> None:
    """Build the model, every environment (or image) and Prometheus: later commands need no network and no wait."""
    place = workspace()
    with place.lock():
        demo.ensure_model(place)
        _announce_licences(place)
        _target(place, target or LocalTarget.name, models.load(place)).prepare(list(load_platforms(place).values()))


@app.command()
def model(retrain: Annotated[bool, typer.Option(help="train even if the model is current")] = False) -> None:
    """Train and export the model, if it is not current."""
    place = workspace()
    with place.lock():
        demo.ensure_model(place, retrain=retrain)


@app.command()
def deploy(slug: Slug, target: TargetName = "") -> None:
    """Start one platform behind its gateway; it is ready when a real prediction is right."""
    place = workspace()
    platform = _platform(place, slug)
    with place.lock():
        demo.ensure_model(place)
        destination, deployment = _target(place, target, models.load(place)), None
        with suppress(ServerError):
            deployment = destination.attach(platform)
        if deployment:
            out.print(f"{platform.title} runs already, from this very folder and model")
        else:
            _announce_licences(place)
            destination.prepare([platform])
            try:
                destination.watch()
                with step(f"{platform.title}: first right prediction"):
                    deployment = destination.deploy(platform)
            finally:
                destination.release_monitoring()
    out.print(f"  gateway   {deployment.gateway_url}{platform.file.predict.path}")
    out.print(f"  platform  {deployment.url}{platform.file.predict.path}")
    page = platform.file.capabilities.web_app
    if isinstance(page, WebApp):
        out.print(f"  page      {deployment.url}{page.path}")
    if destination.prometheus_url:
        out.print(f"  metrics   {destination.prometheus_url}/api/v1/query?query=platform:requests:rate1m")
    out.print(f"  next      make check-{slug} TARGET={destination.name}   make down-{slug} TARGET={destination.name}")


@app.command()
def check(
    slug: Slug,
    target: TargetName = "",
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
        destination = _target(place, target, models.load(place))
        deployment = destination.attach(platform)
        if deployment is None:
            raise ExhibitError(slug, "not deployed", "it to run", f"Run: make deploy-{slug} TARGET={destination.name}")
        with deployment:
            if criterion:
                found = runs.single(place, deployment, asked[criterion])
            else:
                found = runs.everything(place, deployment, asked)
        generated.write(place)
    raise typer.Exit(runs.exit_code(found))


@app.command()
def down(
    slug: Annotated[str, typer.Argument(help="a platform; all of them, if none is named", metavar="[PLATFORM]")] = "",
    target: Annotated[str, typer.Option("--target", help="where it runs; everywhere, if none is named")] = "",
) -> None:
    """Stop one platform, or everything this checkout started (the cluster stays: make cluster-down)."""
    place = workspace()
    with place.lock(), interrupts.deferred():
        targets = _targets(place, None)
        for destination in [_target(place, target)] if target else targets.values():
            for name in [slug] if slug else destination.noted_slugs():
                ended = destination.down(name)
                if ended or (slug and target):
                    what = f"stopped ({', '.join(ended)})" if ended else "was not running"
                    out.print(f"{name} on {destination.name}: {what}", markup=False)
            destination.release_monitoring()


@app.command()
def status() -> None:
    """Show what runs: platform, target, state, addresses, memory."""
    place = workspace()
    lines = [line for target in _targets(place, None).values() for line in target.status()]
    if not lines:
        out.print("Nothing runs. Start a platform with: make deploy-<platform> TARGET=local")
        return
    table = Table(box=None, pad_edge=False)
    for title in ("platform", "target", "state", "gateway", "platform itself", "MiB"):
        table.add_column(title, no_wrap=True)
    for line in lines:
        mebibytes = str(line.resident_bytes // 2**20)
        table.add_row(line.platform, line.target, line.state, line.gateway_url, line.url, mebibytes)
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


@app.command("bundle")
def make_bundle(
    parts: Annotated[
        list[str] | None,
        typer.Argument(metavar="[OPERATOR]...", help="all of them and the monitoring's images, if none is named"),
    ] = None,
) -> None:
    """Pull what clusters need besides this checkout, for machines that cannot (.work/bundle, or EXHIBIT_BUNDLE)."""
    place = workspace()
    with place.lock(), step("bundle") as say:
        bundle.make(place, parts or [], say)
    out.print(f"  bundle    {bundle.folder(place)}")


@app.command("cluster")
def make_cluster(name: ClusterName = "") -> None:
    """Make the kind cluster; one that is there is kept, one that is stopped started, a broken one made anew."""
    place = workspace()
    with place.lock():
        with step("cluster") as say:
            cluster = clusters.ensure(place, name, say)
        target = KindTarget(place, None, name)
        target.watch()
    out.print(f"  metrics   {target.prometheus_url}/api/v1/query?query=up")
    out.print(f"  kubectl   kubectl --context {cluster.context} --namespace {clusters.NAMESPACE} get pods")
    out.print("  next      make deploy-<platform>   make cluster-down", markup=False)


@app.command("cluster-down")
def remove_cluster(
    name: ClusterName = "",
    images: Annotated[bool, typer.Option("--images", help="the images that were built here, too")] = False,
) -> None:
    """Remove the kind cluster and all that was made for it; built images stay, for the next one."""
    place = workspace()
    with place.lock(), interrupts.deferred():
        with step("cluster-down"):
            removed = clusters.remove(place, name)
            count = clusters.remove_images() if images else 0
        out.print("removed" if removed else "there was none")
        if images:
            out.print(f"{count} images removed")


def _announce_licences(place: Workspace) -> None:
    for notice in companions.notices(place):
        out.print(f"[yellow]{notice}[/yellow]")


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
