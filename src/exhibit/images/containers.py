"""Runs a container of an image as a plain ``docker run`` does, and leaves nothing of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import httpx
from docker.errors import APIError, NotFound
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from exhibit import interrupts
from exhibit.cluster import engine
from exhibit.errors import ServerError
from exhibit.images.building import Image, speaking

HOST = "127.0.0.1"
TAIL_LINES = 20
RUN_SECONDS = 120
LABEL = "exhibit.run"
"""On every container that is started here."""


@dataclass(frozen=True)
class Process:
    """A process of a container."""

    user: int
    """As the kernel knows it, whatever the image says."""
    pid: int
    command: str


@dataclass(frozen=True)
class Container:
    """A running container."""

    url: str
    """Where its port is on this machine: scheme, host and port."""
    handle: Any
    """Docker's own object."""

    def processes(self) -> list[Process]:
        """Its processes, the one it was started as first."""
        listed = self.handle.top(ps_args="-eo pid,uid,args")["Processes"]
        found = [Process(int(user), int(pid), command) for pid, user, command in listed]
        self.handle.reload()
        first = self.handle.attrs["State"]["Pid"]
        return sorted(found, key=lambda process: process.pid != first)

    def ended(self) -> str | None:
        """How it ended, in words, if it does not run any more."""
        self.handle.reload()
        state = self.handle.attrs["State"]
        if state["Running"]:
            return None
        return f"ended with exit code {state['ExitCode']}{': ' + state['Error'] if state['Error'] else ''}"

    def log(self) -> str:
        """The last lines it wrote."""
        return str(self.handle.logs(tail=TAIL_LINES).decode(errors="replace")).strip()


def answers_http(url: str) -> bool:
    """Whether a GET of `url` is answered at all now, whatever the status."""
    try:
        httpx.get(url, trust_env=False, timeout=2)
    except httpx.TransportError:
        return False
    return True


@contextmanager
def running(
    image: Image,
    *,
    port: int = 8080,
    ready: Callable[[str], bool] = answers_http,
    within_seconds: float = 60,
    command: Sequence[str] | None = None,
    environment: Mapping[str, str] | None = None,
    mounts: Mapping[str, str] | None = None,
    user: str | None = None,
    read_only: bool = False,
    tmpfs: Sequence[str] = (),
    cap_drop: Sequence[str] = (),
    no_new_privileges: bool = False,
) -> Iterator[Container]:
    """A container of `image` with its `port` at a free one of 127.0.0.1; removed when the block is left.

    Args:
        ready: asked with its URL until it is true.
        command: arguments in place of the image's own.
        mounts: what of the engine's machine is seen in it, read-only: its path there, by the path in the container.
        tmpfs: paths in it that can be written to, in memory.

    Raises:
        ServerError: it did not start, ended, or was not ready in time; with the last lines it wrote.
        ImageError: the engine failed.
    """
    options = {
        "command": command and list(command),
        "environment": dict(environment or {}),
        "ports": {f"{port}/tcp": (HOST, None)},
        "volumes": [f"{here}:{there}:ro" for there, here in (mounts or {}).items()],
        "user": user,
        "read_only": read_only,
        "tmpfs": dict.fromkeys(tmpfs, ""),
        "cap_drop": list(cap_drop),
        "security_opt": ["no-new-privileges"] if no_new_privileges else [],
    }
    with _started(image, options) as handle:
        [binding] = handle.attrs["NetworkSettings"]["Ports"].get(f"{port}/tcp") or [{"HostPort": 0}]
        container = Container(f"http://{HOST}:{binding['HostPort']}", handle)
        _wait(image, container, ready, within_seconds)
        yield container


def run(image: Image, argv: Sequence[str]) -> tuple[int, str]:
    """The exit code of `argv` in a container of `image` that writes to /tmp only, and what it printed.

    What it printed as errors is left out if it succeeded.

    Raises:
        ServerError: there is no such program in it.
        ImageError: the engine failed.
    """
    options = {"entrypoint": list(argv[:1]), "command": list(argv[1:]), "read_only": True, "tmpfs": {"/tmp": ""}}
    with _started(image, options) as handle, speaking(image.reference):
        code = int(handle.wait(timeout=RUN_SECONDS)["StatusCode"])
        return code, str(handle.logs(stdout=True, stderr=bool(code)).decode(errors="replace"))


@contextmanager
def _started(image: Image, options: Mapping[str, Any]) -> Iterator[Any]:
    """Docker's object for a container that was started; it is removed when the block is left."""
    handle = None
    try:
        with speaking(image.reference):
            try:
                with interrupts.deferred():
                    handle = engine().containers.create(image.id, labels={LABEL: image.reference}, **options)
                handle.start()
            except APIError as error:
                if isinstance(error, NotFound) and handle is None:  # the image is gone
                    raise
                explanation = str(error.explanation or error)
                raise ServerError(image.reference, f"did not start ({explanation})", "it to run", "Mend it.") from error
            handle.reload()
        yield handle
    finally:
        if handle is not None:
            with interrupts.deferred(), suppress(NotFound):
                handle.remove(force=True, v=True)


def _wait(image: Image, container: Container, ready: Callable[[str], bool], within_seconds: float) -> None:
    is_ready = Retrying(
        stop=stop_after_delay(within_seconds),
        wait=wait_fixed(0.1),
        retry=retry_if_result(lambda done: not done),
        retry_error_callback=lambda _: False,
    )(lambda: container.ended() or ready(container.url))
    if is_ready is not True:
        found = is_ready or f"not ready after {within_seconds:g} s"
        raise ServerError(image.reference, str(found), "it to answer", "Read its last lines below.", container.log())
