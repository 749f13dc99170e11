"""Starts, watches and stops server processes; knows them again after the engine is gone.

A process is known by pid *and* start time, so that a stale state file never stops a stranger that got the same pid.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from exhibit import interrupts
from exhibit.errors import ServerError
from exhibit.workspace import write_json

LOG_LINES = 20
LEFT_BEHIND_SECONDS = 1.0
_NOTE = ".process.json"


@dataclass(frozen=True)
class Running:
    """A started process and the note by which a later command finds it."""

    pid: int
    created: float
    """Start time, seconds since the epoch, as the operating system tells it."""
    grace_seconds: float
    """How long SIGTERM may take before SIGKILL."""
    note: Path
    """Where this is written down while the process runs."""
    child: subprocess.Popen[bytes] | None = field(default=None, compare=False)
    """The handle by which the exit code is learnt; None if another command started the process."""

    def process(self) -> psutil.Process | None:
        """The process, if it still runs and is the one that was started."""
        try:
            process = psutil.Process(self.pid)
            alive = process.status() != psutil.STATUS_ZOMBIE and abs(process.create_time() - self.created) < 1
        except psutil.NoSuchProcess:
            return None
        return process if alive else None

    def tree(self) -> list[psutil.Process]:
        """The process and all its descendants, the process first; empty if it is gone."""
        process = self.process()
        if process is None:
            return []
        with contextlib.suppress(psutil.NoSuchProcess):
            return [process, *process.children(recursive=True)]
        return []


@dataclass(frozen=True)
class Stop:
    """How a process ended."""

    seconds: float
    exit_code: int | None
    """None where the process was not this engine's child; negative is the signal that ended it."""
    killed: bool
    """True if SIGTERM was not enough: the process took longer than its grace, or left others behind."""


@dataclass(frozen=True)
class Usage:
    """What a process tree uses."""

    cpu_seconds: float
    resident_bytes: int


def start(
    name: str,
    argv: Sequence[str],
    *,
    environment: Mapping[str, str],
    cwd: Path,
    folder: Path,
    grace_seconds: float,
    append: bool = False,
) -> Running:
    """Starts `argv` in a session of its own (it outlives this command); its output goes to ``folder/<name>.log``.

    The process is noted in ``folder/<name>.process.json`` before an interrupt can be felt. With `append` the log goes
    on where that of an earlier process ended.

    Raises:
        ServerError: there is no such program, or it may not be executed.
        OSError: log or note cannot be written (a full disk, say); no process is left.
    """
    folder.mkdir(parents=True, exist_ok=True)
    note = folder / f"{name}{_NOTE}"
    with interrupts.deferred(), (folder / f"{name}.log").open("ab" if append else "wb") as output:
        try:
            child = subprocess.Popen(
                argv,
                env=dict(environment),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except (FileNotFoundError, PermissionError) as error:
            found = "no such program" if isinstance(error, FileNotFoundError) else "may not be executed"
            raise ServerError(
                argv[0], found, "a program in the environment's bin folder", "Check `command` and requirements.in."
            ) from error
        try:
            running = Running(child.pid, psutil.Process(child.pid).create_time(), grace_seconds, note, child)
            write_json(note, {"pid": running.pid, "created": running.created, "grace_seconds": grace_seconds})
        except OSError:
            child.kill()
            child.wait()
            raise
        return running


def noted(folder: Path) -> list[Running]:
    """The processes noted in `folder` and its subfolders, whether or not they still run."""
    return [Running(**json.loads(note.read_text()), note=note) for note in sorted(folder.rglob(f"*{_NOTE}"))]


def stop(noted: Running) -> Stop:
    """Ends a process by SIGTERM, and by SIGKILL if it takes longer than its grace; with it all it started.

    What outlives the process in its session has been left behind by it, and is ended by SIGKILL too.
    """
    began = time.monotonic()
    tree = noted.tree()
    if tree:
        with contextlib.suppress(psutil.NoSuchProcess):
            tree[0].send_signal(signal.SIGTERM)
    _, late = psutil.wait_procs(tree[:1], timeout=noted.grace_seconds)
    # Helpers that end by themselves when their parent is gone get a moment for it.
    _, left = psutil.wait_procs(_session_members(noted) + tree[1:], timeout=0 if late else LEFT_BEHIND_SECONDS)
    for process in (killed := {*late, *left}):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(list(killed), timeout=5)
    reaped = noted.child.wait(timeout=5) if noted.child else None
    # psutil waits for a child itself, after which Popen can no longer learn how it ended.
    exit_code = int(getattr(tree[0], "returncode")) if tree and noted.child else reaped
    noted.note.unlink(missing_ok=True)
    return Stop(round(time.monotonic() - began, 3), exit_code, killed=bool(killed))


def _session_members(noted: Running) -> list[psutil.Process]:
    """What runs in the session the process was started in, itself included.

    A pid is not given out again while it names a session: if it now is another process, nothing of ours is left.
    """
    with contextlib.suppress(psutil.NoSuchProcess):
        if abs(psutil.Process(noted.pid).create_time() - noted.created) >= 1:
            return []
    members = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError, PermissionError):
            if os.getsid(process.pid) == noted.pid and process.status() != psutil.STATUS_ZOMBIE:
                members.append(process)
    return members


def usage(noted: Running) -> Usage:
    """CPU seconds (user and system) and resident bytes summed over the process tree."""
    cpu, resident = 0.0, 0
    for process in noted.tree():
        with contextlib.suppress(psutil.NoSuchProcess), process.oneshot():
            times = process.cpu_times()
            cpu += times.user + times.system
            resident += process.memory_info().rss
    return Usage(cpu, resident)


def listens(noted: Running, port: int) -> bool:
    """Whether the process tree itself listens on `port`: another server that holds the port must not answer for it."""
    for process in noted.tree():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if any(
                connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
                for connection in process.net_connections(kind="tcp")
            ):
                return True
    return False


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """`count` different free ports, chosen by the operating system."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((host, 0))
        return [int(one.getsockname()[1]) for one in sockets]


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could bind `port` now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def last_lines(log: Path, count: int = LOG_LINES) -> str:
    """The last lines of a log, for an error message."""
    if not log.exists():
        return ""
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-count:])


def describe_exit(code: int | None) -> str:
    """An exit code in words: ``exit code 3`` or ``SIGKILL``."""
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return f"signal {-code} ({signal.Signals(-code).name})"
    return "an unknown exit code" if code is None else f"exit code {code}"
