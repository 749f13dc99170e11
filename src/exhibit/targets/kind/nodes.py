"""What containers of a kind cluster use, read where it is exact and fresh: in the control groups of their node.

The kubelet's own figures are up to 15 s old, and a program run in the container would be counted as the server's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

import docker
from kubernetes.client import V1Pod

from exhibit.processes import Usage

# Version 1 has one tree a controller, version 2 one for all.
_FILES = ("cpuacct.usage", "cpu.stat", "memory.stat")
_FIND = """
for folder in $(find /sys/fs/cgroup -type d -path '*{id}*'); do
  for name in {files}; do if [ -f $folder/$name ]; then echo $folder/$name; fi; done
done
"""


def usage(pods: Sequence[V1Pod]) -> Usage:
    """CPU seconds (user and system) and resident bytes summed over the containers of `pods` that run."""
    cpu, resident = 0.0, 0
    for pod in pods:
        for container in pod.status.container_statuses or []:
            if container.state.running and container.container_id:
                one = _read(pod.spec.node_name, container.container_id.rpartition("/")[2])
                cpu, resident = cpu + one.cpu_seconds, resident + one.resident_bytes
    return Usage(cpu, resident)


def _read(node: str, container: str) -> Usage:
    paths = _paths(node, container)
    if not paths:
        return Usage(0.0, 0)
    text = _run(node, ["cat", *paths])
    # 1: nanoseconds, alone on the first line. 2: microseconds.
    first = re.match(r"(\d+)\n", text)
    micro = re.search(r"^usage_usec (\d+)$", text, re.MULTILINE)
    cpu = int(first[1]) / 1e9 if first else int(micro[1]) / 1e6 if micro else 0.0
    # What processes hold: their own memory and the files (libraries) they have mapped, as a resident set does.
    memory = dict(re.findall(r"^(\w+) (\d+)$", text, re.MULTILINE))
    names = ("total_rss", "total_mapped_file") if "total_rss" in memory else ("anon", "file_mapped")
    return Usage(cpu, sum(int(memory.get(name, 0)) for name in names))


@cache
def _paths(node: str, container: str) -> tuple[str, ...]:
    found = _run(node, ["sh", "-c", _FIND.format(id=container, files=" ".join(_FILES))]).split()
    # The CPU's file first: it has no name in it.
    return tuple(sorted(found, key=lambda path: (not path.endswith(_FILES[:2]), path)))


def _run(node: str, argv: Sequence[str]) -> str:
    done = docker.from_env().containers.get(node).exec_run(list(argv))
    return str(done.output.decode("utf-8", errors="replace"))
