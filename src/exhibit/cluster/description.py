"""What kind-config.yaml, a file of kind's own format, says of the cluster."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from exhibit.errors import ClusterError
from exhibit.workspace import Workspace

FILE = "kind-config.yaml"
VARIABLE = "EXHIBIT_CLUSTER"


@dataclass(frozen=True)
class Description:
    """The parts of the file that matter to the engine."""

    name: str
    ports: list[tuple[str, int]]
    """Address and port of this machine, of each port that is mapped to a node port."""


def load(workspace: Workspace) -> Description:
    """The file of the checkout.

    Raises:
        ClusterError: it is missing or no such file.
    """
    try:
        raw = YAML(typ="safe").load((workspace.root / FILE).read_text(encoding="utf-8"))
        mappings = [mapping for node in raw["nodes"] for mapping in node.get("extraPortMappings", [])]
        ports = [(str(one.get("listenAddress", "0.0.0.0")), int(one["hostPort"])) for one in mappings]
        return Description(str(raw["name"]), ports)
    except (OSError, YAMLError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ClusterError(
            FILE,
            f"cannot be read ({type(error).__name__}: {str(error).partition(chr(10))[0]})",
            "a cluster of kind.x-k8s.io/v1alpha4 with a name, nodes, and a hostPort in each port mapping",
            f"Correct it, or take the committed one back: git checkout {FILE}",
        ) from error


def default_name(workspace: Workspace) -> str:
    """The cluster that is meant where none is named: that of EXHIBIT_CLUSTER, else that of the file."""
    return os.environ.get(VARIABLE) or load(workspace).name
