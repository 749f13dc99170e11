"""Where this machine reaches what runs in a kind cluster: node ports that kind maps to loopback, else port-forwards."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kubernetes.client import CoreV1Api

from exhibit import processes, readiness
from exhibit.cluster import NAMESPACE, Cluster
from exhibit.errors import ServerError

HOST = "127.0.0.1"
FORWARD_SECONDS = 20
# A forward leads to one pod, and ends when it is asked after that pod has: begun anew, it leads to another.
_AGAIN = ("sh", "-c", 'while :; do "$@"; sleep 1; done', "forward")


@dataclass(frozen=True)
class Door:
    """A port of a Service, and the node port it is opened at; None where the cluster has no mapped port left."""

    service: str
    port: int
    node_port: int | None


class Doors:
    """The doors of one cluster. A port-forward is a process noted in `folder`; with a pod it loses one request."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder

    def choose(self, wanted: Iterable[tuple[str, str, int]]) -> dict[str, Door]:
        """A door for each of `wanted`: (name, Service, port of it).

        Node ports that a Service of these names already has are kept, so that a repeated deployment changes nothing.
        """
        wanted = list(wanted)
        taken, kept = set[int](), dict[tuple[str, int], int]()
        for service in CoreV1Api(self.cluster.api).list_service_for_all_namespaces().items:
            for port in service.spec.ports or []:
                if port.node_port:
                    taken.add(port.node_port)
                    kept[service.metadata.name, port.port] = port.node_port
        mapped = self.cluster.ports()
        free = iter(sorted(set(mapped) - taken))
        chosen = {}
        for name, service, port in wanted:
            had = kept.get((service, port))
            chosen[name] = Door(service, port, had if had in mapped else next(free, None))
        return chosen

    def url(self, door: Door) -> str:
        """Scheme, host and port at which this machine reaches the door; a port-forward is started if need be.

        Raises:
            ServerError: it does not get ready.
        """
        mapped = self.cluster.ports()
        if door.node_port in mapped:
            return f"http://{HOST}:{mapped[door.node_port]}"
        return f"http://{HOST}:{self._forward(door)}"

    def close(self, services: re.Pattern[str]) -> None:
        """Ends the port-forwards to Services of these names."""
        for running in processes.noted(self.folder):
            if services.fullmatch(running.note.name.split(".")[0]):
                processes.stop(running)

    def _forward(self, door: Door) -> int:
        """The local port of a port-forward that runs."""
        name = f"{door.service}.{door.port}"
        for running in processes.noted(self.folder):
            if running.note.name.startswith(f"{name}.") and running.process():
                return int(running.note.name.split(".")[2])
        [port] = processes.free_ports(1, HOST)
        kubectl = shutil.which("kubectl") or "kubectl"
        running = processes.start(
            f"{name}.{port}",
            [
                *_AGAIN,
                kubectl,
                *self.cluster.options,
                f"--namespace={NAMESPACE}",
                "port-forward",
                f"--address={HOST}",
                f"service/{door.service}",
                f"{port}:{door.port}",
            ],
            environment={"PATH": "/usr/bin:/bin", "HOME": str(self.folder)},
            cwd=self.folder.parent,
            folder=self.folder,
            grace_seconds=2,
        )
        if not readiness.wait(running, lambda: processes.listens(running, port), FORWARD_SECONDS):
            log = self.folder / f"{name}.{port}.log"
            said = processes.last_lines(log)
            processes.stop(running)
            raise ServerError(name, "no port-forward to it", "one", "Look whether its pods are ready.", said)
        return port


def noted(doors: Mapping[str, Door]) -> dict[str, dict[str, Any]]:
    """`doors` as JSON has them."""
    return {name: asdict(door) for name, door in doors.items()}


def read(doors: Mapping[str, Mapping[str, Any]]) -> dict[str, Door]:
    """What `noted` wrote."""
    return {name: Door(**door) for name, door in doors.items()}
