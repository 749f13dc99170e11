"""One server process of a platform: its command, its environment, its readiness."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from exhibit import processes
from exhibit.clients import Client
from exhibit.contract import Platform
from exhibit.environments import Environment
from exhibit.errors import ServerError
from exhibit.model import Model
from exhibit.processes import Running
from exhibit.targets import Started
from exhibit.targets.first_prediction import NotReady, require_right_prediction

HOST = "127.0.0.1"
POLL_SECONDS = 0.05
# A port found free can be taken before the server binds it; each further try takes other ports.
START_TRIES = 3


@dataclass(frozen=True)
class Server:
    """A started server process."""

    running: Running
    ports: Mapping[str, int]
    """By name; the predict port is ``main``."""
    folder: Path
    """Its log, its note and its scratch folder."""

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.ports['main']}"

    @property
    def log(self) -> Path:
        return self.folder / "server.log"

    @property
    def scratch(self) -> Path:
        return self.folder / "scratch"


def values(platform: Platform, model: Model, ports: Mapping[str, int], scratch: Path) -> dict[str, str]:
    """What the placeholders of the contract stand for."""
    return {
        "host": HOST,
        "port": str(ports["main"]),
        **{f"{name}_port": str(port) for name, port in ports.items() if name != "main"},
        "model": str(model.artifact(platform.file.artifact)),
        "model_name": model.name,
        "scratch": str(scratch),
    }


def process_path(environment: Environment) -> str:
    """PATH of a process that runs in `environment`."""
    return f"{environment.bin}:/usr/local/bin:/usr/bin:/bin"


def process_environment(
    platform: Platform, environment: Environment, placeholders: Mapping[str, str]
) -> dict[str, str]:
    """The few variables a server gets: what it serves does not depend on the shell it was started from."""
    inherited = {name: os.environ[name] for name in ("LANG", "TMPDIR") if name in os.environ}
    ports = {name.upper(): value for name, value in placeholders.items() if name == "port" or name.endswith("_port")}
    return {
        **inherited,
        "PATH": process_path(environment),
        "VIRTUAL_ENV": str(environment.folder),
        "HOME": placeholders["scratch"],
        "PYTHONUNBUFFERED": "1",
        # serve/ is source: running it leaves nothing in it.
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOST": HOST,
        **ports,
        "MODEL_PATH": placeholders["model"],
        "MODEL_NAME": placeholders["model_name"],
        **{name: value.format_map(placeholders) for name, value in platform.file.local.environment.items()},
    }


def spawn(
    platform: Platform,
    model: Model,
    environment: Environment,
    folder: Path,
    again: Mapping[str, int] | None = None,
) -> Server:
    """Starts the platform's server with free ports, or `again` with those it had; it is not ready yet."""
    names = ["main", *platform.file.local.ports]
    ports = again or dict(zip(names, processes.free_ports(len(names), HOST), strict=True))
    scratch = folder / "scratch"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    placeholders = values(platform, model, ports, scratch)
    argv = [argument.format_map(placeholders) for argument in platform.file.local.command]
    variables = process_environment(platform, environment, placeholders)
    # Popen looks the program up on the engine's PATH, not on the one given to the process.
    argv[0] = shutil.which(argv[0], path=variables["PATH"]) or argv[0]
    running = processes.start(
        "server",
        argv,
        environment=variables,
        cwd=platform.serve,
        folder=folder,
        grace_seconds=platform.file.local.stop_seconds,
        append=bool(again),
    )
    return Server(running, ports, folder)


def start(
    platform: Platform,
    model: Model,
    client: Client,
    environment: Environment,
    folder: Path,
    ports: Mapping[str, int] | None = None,
) -> tuple[Server, Started]:
    """Starts the platform's server and waits until its first prediction is right.

    Args:
        ports: those of a server that ran before and is to be found where it was; free ones unless given.

    Raises:
        ServerError: it died, or was not ready in time; the process is gone, the last log lines are the detail.
    """
    for last_try in [False] * (START_TRIES - 1) + [True]:
        server = None
        try:
            began = time.monotonic()
            server = spawn(platform, model, environment, folder, ports)
            return server, _wait_until_ready(platform, model, client, server, began)
        except BaseException as error:
            # An interrupt felt inside `spawn` leaves its note, from which the target's own clean-up stops the process.
            if server is None:
                raise
            processes.stop(server.running)
            held_by_others = [port for port in server.ports.values() if not processes.is_free(port, HOST)]
            if last_try or not held_by_others or not isinstance(error, ServerError):
                raise
    raise AssertionError("unreachable: the last try returns or raises")


def _wait_until_ready(platform: Platform, model: Model, client: Client, server: Server, began: float) -> Started:
    listening: float | None = None
    deadline = platform.file.local.ready_seconds
    with httpx.Client(timeout=deadline, trust_env=False) as http:
        try:
            for attempt in Retrying(
                stop=stop_after_delay(deadline),
                wait=wait_fixed(POLL_SECONDS),
                retry=retry_if_exception_type(NotReady),
                reraise=True,
            ):
                with attempt:
                    _require_alive(platform, server)
                    if not processes.listens(server.running, server.ports["main"]):
                        raise NotReady("does not listen on its port")
                    listening = listening or time.monotonic() - began
                    require_right_prediction(http, server.url, platform, client, model.golden)
        except NotReady as reason:
            raise ServerError(
                platform.slug,
                f"not ready after {deadline} s: {reason}",
                "its first prediction to be right",
                f"Look into {server.log}, or raise local.ready_seconds.",
                processes.last_lines(server.log),
            ) from reason
    assert listening is not None
    return Started(round(listening, 3), round(time.monotonic() - began, 3))


def _require_alive(platform: Platform, server: Server) -> None:
    code = server.running.child.poll() if server.running.child else None
    if code is not None or server.running.process() is None:
        raise ServerError(
            platform.slug,
            f"the server ended by itself with {processes.describe_exit(code)}",
            "it to keep running",
            f"Look into {server.log}.",
            processes.last_lines(server.log),
        )
