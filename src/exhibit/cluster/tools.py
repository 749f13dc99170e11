"""What a cluster is driven by: a Docker engine, kind, kubectl, helm; found, recent enough, run with a deadline."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import docker
import psutil
import requests

from exhibit import processes, versions
from exhibit.cluster import description
from exhibit.errors import ClusterError, ExhibitError
from exhibit.workspace import Workspace

GIB = 2**30
DISK_BYTES = 10 * GIB
"""Free where the engine keeps images: the node's, and those of platforms twice (in the engine and in the node)."""
MEMORY_BYTES = 3 * GIB
"""Available: for a node with monitoring and one platform."""
ENGINE_SECONDS = 60
VERSION_SECONDS = 20
TAIL_LINES = 20
OTHER_ENGINE = "KIND_EXPERIMENTAL_PROVIDER"
LOST = (docker.errors.DockerException, requests.RequestException)
"""What a client of the engine raises where that does not answer, or refuses."""


class ToolFailed(ClusterError):
    """A program could not be run, took too long or ended with an error; `detail` has the last lines of what it said."""


@dataclass(frozen=True)
class _Tool:
    asked: Sequence[str]
    """Arguments after which it prints its version, the first ``v<major>.<minor>`` of its output."""
    page: str
    """How to install it."""


_TOOLS = {
    "kind": _Tool(["version"], "https://kind.sigs.k8s.io/docs/user/quick-start/#installation"),
    "kubectl": _Tool(["version", "--client", "--output=json"], "https://kubernetes.io/docs/tasks/tools/"),
    "helm": _Tool(["version", "--short"], "https://helm.sh/docs/intro/install/"),
}
_PORT_TAKEN = re.compile(
    r"(?:\d+\.){3}\d+:(\d+)[^\n]*?(?:port is already allocated|address already in use)", re.IGNORECASE
)


def engine() -> docker.DockerClient:
    """A client of the Docker engine: that of DOCKER_HOST or of the current Docker context.

    Raises:
        ClusterError: none answers.
    """
    try:
        client = docker.from_env(timeout=ENGINE_SECONDS)
        client.ping()
    except LOST as error:
        raise silent(error) from error
    return client


def silent(error: Exception) -> ClusterError:
    """The error for an engine that does not answer."""
    return ClusterError(
        "Docker engine",
        f"does not answer ({_reason(error)})",
        "one that runs and lets this user in",
        "Start Docker, see that `docker info` answers, and run the command again.",
    )


def missing(workspace: Workspace) -> list[ExhibitError]:
    """What a cluster needs and is not there, or is too old: engine and programs, each with its remedy."""
    found: list[ExhibitError | None] = []
    try:
        engine()
    except ClusterError as error:
        found.append(error)
    if not shutil.which("docker"):  # kind runs it
        found.append(_absent("docker", "Docker's command line", "https://docs.docker.com/engine/install/"))
    minima = versions.load(workspace).tools
    found += [_inspect(name, tool, minima[name]) for name, tool in _TOOLS.items()]
    return [one for one in found if one is not None]


def cramped() -> list[ExhibitError]:
    """Of what a new cluster needs, that of which too little is free: disk, memory."""
    try:
        info = engine().info()
    except ClusterError:  # `missing` names it; what its machine has is not known
        info = {}
    folder = Path(info.get("DockerRootDir", "/"))
    if folder.is_dir():
        available = psutil.virtual_memory().available
    else:  # an engine in a machine of its own (Docker Desktop): known is what that has, not what of it is free
        folder, available = Path("/"), info.get("MemTotal", MEMORY_BYTES)
    disk, found = shutil.disk_usage(folder).free, list[ExhibitError]()
    if disk < DISK_BYTES:
        remedy = "Free some: `docker system df` shows what Docker holds, `docker system prune` removes what is unused."
        found.append(ClusterError(f"disk of {folder}", f"{_gib(disk)} free", _gib(DISK_BYTES), remedy))
    if available < MEMORY_BYTES:
        remedy = "End other programs, or give Docker's machine more."
        found.append(ClusterError("memory", f"{_gib(available)} available", _gib(MEMORY_BYTES), remedy))
    return found


def run(argv: Sequence[str], *, seconds: float, input: str = "", environment: dict[str, str] | None = None) -> str:
    """What a program prints to stdout; in its environment kind takes Docker, which is what else is asked here.

    Raises:
        ToolFailed: see there; after `seconds` it is killed.
    """
    shown = f"`{' '.join([argv[0], *(part for part in argv[1:] if not part.startswith('-'))])[:80]}`"
    try:
        child = subprocess.Popen(
            argv,
            env={name: value for name, value in (environment or os.environ).items() if name != OTHER_ENGINE},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        raise ToolFailed(shown, str(error.strerror), f"{argv[0]} on PATH", "Install it.") from error
    with child:
        try:
            out, said = child.communicate(input, timeout=seconds)
        except subprocess.TimeoutExpired as error:
            _end(child)
            remedy = "Look whether the machine is overloaded, and run the command again."
            said = error.stderr.decode(errors="replace") if error.stderr else ""
            raise ToolFailed(shown, f"not done after {seconds:g} s", "it to end", remedy, _tail(said)) from error
        except BaseException:
            _end(child)
            raise
    if child.returncode:
        remedy = "Mend what it says, and run the command again."
        raise ToolFailed(shown, processes.describe_exit(child.returncode), "0", remedy, _tail(said or out))
    return out


def _end(child: subprocess.Popen[str]) -> None:
    """Ends a program and those it has started, by SIGTERM first: Helm then marks what it was doing as failed."""
    for number, seconds in ((signal.SIGTERM, 5), (signal.SIGKILL, 5)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(seconds)


def explain(failure: ToolFailed) -> ClusterError:
    """A failure of kind or Docker by its cause, where what was said tells one that a person can mend."""
    if port := _PORT_TAKEN.search(failure.detail):
        return port_taken(port[1])
    if "no space left on device" in failure.detail.lower():
        return ClusterError(
            failure.subject,
            "no space left on the disk",
            "room for the image in Docker's folder, in the node and, during the copy, among temporary files",
            "Free some: `docker system df` shows what Docker holds; TMPDIR names another folder for temporary files.",
            failure.detail,
        )
    return failure


def port_taken(ports: str, holder: str = "") -> ClusterError:
    """The error for ports of this machine (as text) that are to be mapped to node ports and are not free."""
    return ClusterError(
        f"port {ports} of this machine",
        f"taken{f' by the container {holder}' if holder else ''}",
        "it to be free for the cluster's node",
        f"Stop what holds it (`docker ps` and `ss -ltnp` show it), or change the hostPort in {description.FILE} "
        "and run `make cluster-down cluster`.",
    )


def _inspect(name: str, tool: _Tool, minimum: str) -> ExhibitError | None:
    """What is wrong with one program."""
    if not shutil.which(name):
        return _absent(name, f"{name} {minimum} or newer", tool.page)
    try:
        said = run([name, *tool.asked], seconds=VERSION_SECONDS)
    except ToolFailed as error:
        return error
    version = re.search(r"\bv(\d+)\.(\d+)", said)
    remedy = f"Install a newer one: {tool.page}"
    if version is None:
        return ClusterError(name, f"its version cannot be read in {said[:80]!r}", f"{minimum} or newer", remedy)
    if tuple(map(int, version.groups())) < tuple(map(int, minimum.split("."))):
        return ClusterError(name, f"version {version[0].removeprefix('v')}", f"{minimum} or newer", remedy)
    return None


def _reason(error: BaseException) -> str:
    """What the operating system said, which the layers above wrap up: that permission was denied, say."""
    cause: BaseException | None = error
    while cause:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return str(error)


def _absent(name: str, expected: str, page: str) -> ClusterError:
    return ClusterError(name, "not on PATH", expected, f"Install it: {page}")


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"


def _tail(said: str) -> str:
    return "\n".join(said.strip().splitlines()[-TAIL_LINES:])
