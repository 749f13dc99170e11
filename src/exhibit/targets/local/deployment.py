"""A platform running as a local process, as criteria see it."""

from __future__ import annotations

import json
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from exhibit import interrupts, processes
from exhibit.contract import OfflineBatch
from exhibit.environments import Environment
from exhibit.errors import ServerError
from exhibit.model import Probabilities
from exhibit.processes import Usage
from exhibit.sink import Delivery
from exhibit.targets import AnswerError, Deployment
from exhibit.targets.local import server as servers
from exhibit.targets.local.server import Server

OFFLINE_SECONDS = 120.0

# Run by the platform's own interpreter: the metadata of what is installed there, not of what a file claims.
_READ_METADATA = """
import json, sys
from importlib.metadata import metadata
found = metadata(sys.argv[1])
print(json.dumps({name: found.get_all(name) for name in set(found.keys()) - {"Description"}}))
"""


@dataclass
class LocalDeployment(Deployment):
    """See `Deployment`; `server` is the process, `start_replica` starts another one."""

    server: Server = None  # type: ignore[assignment]  # set by the target; dataclass inheritance asks for a default
    environment: Environment = None  # type: ignore[assignment]
    start_replica: Callable[[], AbstractContextManager[Deployment]] = None  # type: ignore[assignment]
    restart: Callable[[Server], Server] = None  # type: ignore[assignment]
    """Starts the server again where the one given was."""
    read_deliveries: Callable[[], list[Delivery] | None] = None  # type: ignore[assignment]

    @property
    def version(self) -> str:
        return self.distribution()["Version"][0]

    def distribution(self) -> Mapping[str, list[str]]:
        return self._metadata

    @cached_property
    def _metadata(self) -> dict[str, list[str]]:
        done = subprocess.run(
            [str(self.environment.python), "-c", _READ_METADATA, self.platform.file.distribution],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise ServerError(
                f"deployments/{self.platform.slug}/platform.yaml: distribution",
                f"{self.platform.file.distribution!r} is not installed",
                "a distribution of requirements.txt",
                "Name the one that is the server.",
            )
        return dict(json.loads(done.stdout))

    def ended(self) -> str | None:
        if self.server.running.process() is not None:
            return None
        child, code = self.server.running.child, None
        if child:
            with suppress(subprocess.TimeoutExpired):  # it is gone; how it went is known a moment later
                code = child.wait(timeout=1)
        return f"ended with {processes.describe_exit(code)}"

    def usage(self) -> Usage:
        return processes.usage(self.server.running)

    def terminate(self) -> None:
        process = self.server.running.process()
        if process:
            process.send_signal(signal.SIGTERM)

    def deliveries(self) -> list[Delivery] | None:
        found = self.read_deliveries()
        return found and [one for one in found if (one.platform, one.target) == (self.platform.slug, self.target)]

    @contextmanager
    def outage(self) -> Iterator[None]:
        try:
            with interrupts.deferred():
                processes.stop(self.server.running)
            yield
        finally:
            self.server = self.restart(self.server)

    @contextmanager
    def replica(self) -> Iterator[Deployment]:
        with self.start_replica() as replica:
            yield replica

    def run_offline(self, rows: npt.NDArray[np.float32]) -> Probabilities:
        batch = self.platform.file.capabilities.offline_batch
        assert isinstance(batch, OfflineBatch)
        with tempfile.TemporaryDirectory(dir=self.server.folder) as folder:
            source, sink = Path(folder) / "flights.npy", Path(folder) / "probabilities.npy"
            np.save(source, rows)
            placeholders = {
                **servers.values(self.platform, self.model, self.server.ports, Path(folder)),
                "input": str(source),
                "output": str(sink),
                "url": self.url,
            }
            variables = servers.process_environment(self.platform, self.environment, placeholders)
            argv = [argument.format_map(placeholders) for argument in batch.command]
            argv[0] = str(self.environment.bin / argv[0]) if (self.environment.bin / argv[0]).exists() else argv[0]
            running = processes.start(
                "offline", argv, environment=variables, cwd=self.platform.serve, folder=Path(folder), grace_seconds=1
            )
            try:
                assert running.child is not None
                code: int | None = running.child.wait(OFFLINE_SECONDS)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                with interrupts.deferred():
                    processes.stop(running)
            if code is None:
                raise AnswerError(f"did not end within {OFFLINE_SECONDS:g} s when it scored offline (`{argv[0]}`)")
            if code or not sink.exists():
                said = processes.last_lines(Path(folder) / "offline.log")[-300:]
                raise AnswerError(f"ended with {processes.describe_exit(code)} when it scored offline: {said}")
            return np.asarray(np.load(sink), dtype=np.float64).reshape(-1)
