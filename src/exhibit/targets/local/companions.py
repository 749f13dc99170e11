"""The companions of a local deployment: each a process beside the server, fed and asked through the gateway."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from exhibit import environments, processes, readiness
from exhibit.companions import Companion
from exhibit.contract import Platform
from exhibit.errors import ServerError
from exhibit.processes import Running
from exhibit.targets.local.server import HOST, process_path
from exhibit.workspace import Workspace


@dataclass(frozen=True)
class Started:
    """A started companion."""

    companion: Companion
    running: Running
    ports: Mapping[str, int]

    @property
    def addresses(self) -> dict[str, str]:
        """Where it answers, by name of the port."""
        return {name: f"http://{HOST}:{port}" for name, port in self.ports.items()}


def choose_ports(companions: Mapping[str, Companion]) -> dict[str, dict[str, int]]:
    """Free ports for each companion, by its name and the port's."""
    free = iter(processes.free_ports(sum(len(one.file.ports) for one in companions.values()), HOST))
    return {name: {port: next(free) for port in one.file.ports} for name, one in companions.items()}


def start(
    workspace: Workspace,
    companions: Mapping[str, Companion],
    ports: Mapping[str, Mapping[str, int]],
    platform: Platform,
    asked: str,
    folder: Path,
    *,
    hurried: bool,
) -> dict[str, Started]:
    """Starts all of them and waits until each is ready.

    Args:
        ports: see `choose_ports`.
        asked: where they ask the served model: scheme, host and port of the gateway's internal listener.
        hurried: with what service.yaml adds on the local target.
        folder: the deployment's; each has its state in a folder of its own there, which outlives it.

    Raises:
        InstallError, ServerError: one could not be installed, ended, or was not ready in time.
    """
    started = {}
    for name, companion in companions.items():
        environment = environments.ensure(workspace, name, companion.lock)
        # What an earlier deployment's callers sent says nothing of this one's.
        shutil.rmtree(folder / name, ignore_errors=True)
        state = folder / name / "state"
        state.mkdir(parents=True)
        values = {
            "host": HOST,
            **{f"{port}_port": str(number) for port, number in ports[name].items()},
            "artifacts": str(workspace.model / "artifacts"),
            "client": str(platform.folder / "client.py"),
            "state": str(state),
            "ask": asked + platform.file.predict.path,
            "content_type": platform.file.predict.content_type,
        }
        argv = companion.argv(values, local=hurried)
        path = process_path(environment)
        argv[0] = shutil.which(argv[0], path=path) or argv[0]
        running = processes.start(
            name,
            argv,
            environment={"PATH": path, "HOME": str(state), "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"},
            cwd=companion.folder,
            folder=folder,
            grace_seconds=companion.file.stop_seconds,
        )
        started[name] = Started(companion, running, ports[name])
    for one in started.values():
        _wait_until_ready(one, folder)
    return started


def metrics_addresses(started: Iterable[Started]) -> dict[str, tuple[str, str]]:
    """What Prometheus scrapes of each: (host:port, path) by name."""
    return {
        one.companion.name: (f"{HOST}:{one.ports[one.companion.file.metrics.port]}", one.companion.file.metrics.path)
        for one in started
    }


def _wait_until_ready(one: Started, folder: Path) -> None:
    page, deadline = one.companion.file.ready, one.companion.file.ready_seconds
    if not readiness.wait(one.running, lambda: readiness.answers(one.addresses[page.port] + page.path), deadline):
        log = folder / f"{one.companion.name}.log"
        found = f"not ready after {deadline} s" if one.running.process() else "ended by itself"
        raise ServerError(one.companion.name, found, "it to answer", f"Look into {log}.", processes.last_lines(log))
