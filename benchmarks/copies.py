"""What the gateway's copies cost a server, and what a detector that is not there costs its callers.

    .work/engine/bin/python benchmarks/copies.py cost bentoml      # copies on against off, interleaved pairs
    .work/engine/bin/python benchmarks/copies.py loss bentoml      # detectors dead, slow or refusing under load

Prints figures; nothing is written. The deployment is started for it and stopped at its end.
"""

from __future__ import annotations

import asyncio
import signal
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import httpx
import typer
from aiohttp import web

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from exhibit import interrupts, processes, traffic  # noqa: E402
from exhibit import model as models  # noqa: E402
from exhibit.console import out  # noqa: E402
from exhibit.contract import load_platforms  # noqa: E402
from exhibit.monitoring import Monitoring  # noqa: E402
from exhibit.processes import Running  # noqa: E402
from exhibit.targets.local import LocalTarget  # noqa: E402
from exhibit.targets.local.deployment import LocalDeployment  # noqa: E402
from exhibit.targets.local.gateway import Gateway  # noqa: E402
from exhibit.traffic import Phase, Report, Scenario  # noqa: E402
from exhibit.workspace import Workspace  # noqa: E402

app = typer.Typer(add_completion=False, help=__doc__, rich_markup_mode=None)


class State(StrEnum):
    """How the detectors fail."""

    DEAD = "dead"
    SLOW = "slow"
    REFUSING = "refusing"


@contextmanager
def deployed(slug: str) -> Iterator[LocalDeployment]:
    """The platform on this machine, with its companions."""
    workspace = Workspace(ROOT)
    target = LocalTarget(workspace, models.load(workspace), Monitoring(workspace), hurried=False)
    with workspace.lock():
        if running := target.noted_slugs():
            raise SystemExit(f"benchmark: {', '.join(running)} runs, expected nothing to run. Run: make down")
        try:
            target.monitoring.start()
            with target.deploy(load_platforms(workspace)[slug]) as deployment:
                yield deployment
        finally:
            target.down_all()


def noted(deployment: LocalDeployment, name: str) -> Running:
    """A process beside the server, by name."""
    found = processes.noted(deployment.server.folder)
    return next(one for one in found if one.note.name.startswith(f"{name}."))


def send(deployment: LocalDeployment, url: str, seconds: float, rate: float) -> Report:
    """Sends clean flights at `rate` a second, evenly, to the gateway at `url`."""
    phases = [Phase(seconds=min(seconds - at, 600), requests_per_second=rate) for at in range(0, int(seconds), 600)]
    scenario = Scenario(title="benchmark", flights="january_march", seed=1, arrival="uniform", phases=phases)
    flights = deployment.model.held_out(scenario.flights)
    return traffic.send("benchmark", scenario, flights, url, deployment.platform.file.predict, deployment.client)


@app.command()
def cost(slug: str, pairs: int = 10, seconds: float = 5, rate: float = 60) -> None:
    """CPU time a request of server and gateway with copies and without, in interleaved pairs on one server."""
    with deployed(slug) as deployment:
        plain = Gateway.start(Workspace(ROOT), deployment.server, deployment.server.folder / "plain")
        assert deployment.gateway_url is not None
        sides = {"on": (deployment.gateway_url, noted(deployment, "gateway")), "off": (plain.url, plain.running)}
        spent: dict[str, list[tuple[float, float]]] = {side: [] for side in sides}
        try:
            for side, (url, _) in sides.items():
                send(deployment, url, 2, rate)
                out.print(f"warmed up: copies {side}")
            for pair in range(pairs):
                for side in ("on", "off") if pair % 2 == 0 else ("off", "on"):
                    url, gateway = sides[side]
                    before = deployment.usage().cpu_seconds, processes.usage(gateway).cpu_seconds
                    report = send(deployment, url, seconds, rate)
                    # The detectors ask for what they took in last within two seconds.
                    time.sleep(3)
                    after = deployment.usage().cpu_seconds, processes.usage(gateway).cpu_seconds
                    assert report.all_right, report
                    server, own = ((b - a) / report.sent * 1000 for a, b in zip(before, after, strict=True))
                    spent[side].append((server, own))
                on, off = spent["on"][-1], spent["off"][-1]
                out.print(
                    f"pair {pair + 1:2d}: server {on[0]:.3f} / {off[0]:.3f} ms, gateway {on[1]:.3f} / {off[1]:.3f} ms"
                )
        finally:
            processes.stop(plain.running)
        ratios = sorted(on[0] / off[0] for on, off in zip(spent["on"], spent["off"], strict=True))
        gateways = {side: statistics.median(own for _, own in values) for side, values in spent.items()}
        out.print(
            f"{slug}: server's CPU a request, copies on / off: median ratio {statistics.median(ratios):.3f} "
            f"(from {ratios[0]:.3f} to {ratios[-1]:.3f}, {pairs} pairs); gateway's own: {gateways['on']:.3f} ms with "
            f"copies, {gateways['off']:.3f} ms without"
        )


@app.command()
def loss(
    slug: str,
    state: Annotated[State, typer.Option(help="how the detectors fail")] = State.DEAD,
    seconds: float = 600,
    rate: float = 30,
) -> None:
    """Requests lost, memory gained and copies counted while the detectors fail."""
    with deployed(slug) as deployment:
        assert deployment.gateway_url is not None
        send(deployment, deployment.gateway_url, 10, rate)
        companion = noted(deployment, "detectors")
        port = int(deployment.companions["detectors"]["copies"].rpartition(":")[2])
        processes.stop(companion)
        gateway = noted(deployment, "gateway")
        with failing(port, state):
            # Once with the failure, so that what is allocated for it once is not taken for growth.
            send(deployment, deployment.gateway_url, 20, rate)
            copies = settled(deployment)
            memory = deployment.usage().resident_bytes, processes.usage(gateway).resident_bytes
            report = send(deployment, deployment.gateway_url, seconds, rate)
            grown = [
                (after - before) / 2**20
                for before, after in zip(
                    memory, (deployment.usage().resident_bytes, processes.usage(gateway).resident_bytes), strict=True
                )
            ]
            tried, delivered = (after - before for before, after in zip(copies, settled(deployment), strict=True))
        out.print(
            f"{slug}, detectors {state} for {seconds:g} s at {rate:g} requests/s: {report.right} of {report.sent} "
            f"right, failures {dict(report.failures)}, not sent {report.dropped}; copies counted {tried:g}, of these "
            f"lost {tried - delivered:g}; resident memory: server {grown[0]:+.1f} MiB, gateway {grown[1]:+.1f} MiB"
        )


def settled(deployment: LocalDeployment) -> tuple[float, float]:
    """Copies tried and delivered, by the gateway's own page, once none is under way any more."""
    gateway = deployment.server.folder / "envoy.yaml"
    admin = next(line for line in gateway.read_text().splitlines() if "address: {socket_address" in line)
    port = admin.rpartition("port_value: ")[2].rstrip("}")
    deadline = time.monotonic() + 60
    while True:
        page = httpx.get(f"http://127.0.0.1:{port}/stats/prometheus", trust_env=False).text
        mirrored = [line for line in page.splitlines() if 'envoy_cluster_name="mirror"' in line]
        active = _sum(mirrored, "envoy_cluster_upstream_rq_active{") + _sum(
            mirrored, "envoy_cluster_upstream_rq_pending_active{"
        )
        if time.monotonic() > deadline:
            raise SystemExit("benchmark: copies are still under way after 60 s, expected them to have ended")
        if not active:
            return (
                _sum(mirrored, "envoy_cluster_upstream_rq_completed{"),
                _sum(mirrored, 'envoy_cluster_upstream_rq_xx{envoy_response_code_class="2"'),
            )
        time.sleep(0.2)


def _sum(lines: list[str], begin: str) -> float:
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(begin))


@contextmanager
def failing(port: int, state: State) -> Iterator[None]:
    """A server in the detectors' place that fails as told; none for `State.DEAD`."""
    if state is State.DEAD:
        yield
        return
    loop = asyncio.new_event_loop()

    async def take(request: web.Request) -> web.Response:
        await request.read()
        if state is State.SLOW:
            await asyncio.sleep(10)
        return web.Response(status=500 if state is State.REFUSING else 202)

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", take)
    runner = web.AppRunner(application, shutdown_timeout=0)

    async def serve() -> None:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()

    loop.run_until_complete(serve())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


if __name__ == "__main__":
    interrupts.install()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    app()
