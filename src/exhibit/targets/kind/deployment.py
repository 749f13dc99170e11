"""A platform running in a kind cluster, as criteria see it."""

from __future__ import annotations

import base64
import binascii
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from kubernetes.client import V1Pod

from exhibit import images
from exhibit.contract import OfflineBatch
from exhibit.errors import ServerError
from exhibit.model import Probabilities
from exhibit.processes import Usage
from exhibit.sink import Delivery
from exhibit.targets import AnswerError, Deployment
from exhibit.targets.kind import jobs, nodes
from exhibit.targets.kind.releases import Release, restarts

# Run in a container of the image: the metadata of what is installed there, not of what a file claims.
_READ_METADATA = """
import json, sys
from importlib.metadata import metadata
found = metadata(sys.argv[1])
print(json.dumps({name: found.get_all(name) for name in set(found.keys()) - {"Description"}}))
"""


@dataclass
class KindDeployment(Deployment):
    """See `Deployment`; `release` is what Helm installed, `start_replica` installs another one."""

    OFFERS: ClassVar[frozenset[str]] = frozenset({"image", "rollouts"})
    SAMPLE_SECONDS: ClassVar[float] = 2.0

    release: Release = None  # type: ignore[assignment]  # set by the target; dataclass inheritance asks for a default
    start_replica: Callable[[], AbstractContextManager[Deployment]] = None  # type: ignore[assignment]
    resize: Callable[[int], object] = None  # type: ignore[assignment]
    """Has it run as that many pods, and waits for nothing: by its chart, whose operator would undo any other change."""
    recover: Callable[[], None] = None  # type: ignore[assignment]
    """Waits until the server is there again and answers rightly, at the same address."""
    read_deliveries: Callable[[], list[Delivery] | None] = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        super().__post_init__()
        pods = self.release.pods()
        self._restarts = restarts(pods)
        self._first = pods[0].metadata.uid if pods else ""

    @property
    def version(self) -> str:
        return self.distribution()["Version"][0]

    def distribution(self) -> Mapping[str, list[str]]:
        return self._metadata

    @cached_property
    def _metadata(self) -> dict[str, list[str]]:
        assert self.image is not None
        name = self.platform.file.distribution
        code, said = images.run(self.image, ["python", "-c", _READ_METADATA, name])
        if code:
            raise ServerError(
                f"deployments/{self.platform.slug}/platform.yaml: distribution",
                f"{name!r} is not installed in {self.image.reference}",
                "a distribution of requirements.txt",
                "Name the one that is the server.",
                said,
            )
        return dict(json.loads(said))

    def ended(self) -> str | None:
        """In words, if a server was started again since this was attached to, or none is there.

        Kubernetes starts a server that died again within seconds: that it did is the trace of the death.
        """
        alone = self.gateway_url is None  # a replica is the one pod it was started as, until that has ended
        pods = self.release.pods(leaving=alone)
        if alone:
            pods = [pod for pod in pods if pod.metadata.uid == self._first and not _has_ended(pod)]
        for pod in pods:
            for container in pod.status.container_statuses or []:
                if container.restart_count > self._restarts.get(pod.metadata.uid, 0):
                    last = container.last_state.terminated
                    return f"ended with exit code {last.exit_code} ({last.reason})" if last else "was started again"
        return None if pods else "has no pod any more"

    def usage(self) -> Usage:
        return nodes.usage(self.release.pods())

    def terminate(self) -> None:
        self.resize(0)

    def deliveries(self) -> list[Delivery] | None:
        found = self.read_deliveries()
        return found and [one for one in found if (one.platform, one.target) == (self.platform.slug, self.target)]

    @contextmanager
    def outage(self) -> Iterator[None]:
        try:
            self.resize(0)
            self.release.wait_gone(within_seconds=60)
            yield
        finally:
            self.resize(1)
            self.recover()

    @contextmanager
    def replica(self) -> Iterator[Deployment]:
        with self.start_replica() as replica:
            yield replica

    def run_offline(self, rows: npt.NDArray[np.float32]) -> Probabilities:
        batch = self.platform.file.capabilities.offline_batch
        assert isinstance(batch, OfflineBatch)
        assert self.image is not None
        code, said = jobs.run(self.release, self.image, batch.command, rows)
        found = re.search(rf"^{jobs.MARK}(.*)$", said, re.MULTILINE)
        if code or not found:
            raise AnswerError(f"ended with exit code {code} when it scored offline: {said[-300:]}")
        try:
            return np.asarray(np.load(io.BytesIO(base64.b64decode(found[1]))), dtype=np.float64).reshape(-1)
        except (binascii.Error, ValueError) as error:
            raise AnswerError(f"wrote no array when it scored offline: {error}") from error


def _has_ended(pod: V1Pod) -> bool:
    return any(container.state.terminated for container in pod.status.container_statuses or [])
