"""Companions: services of ``monitoring/`` that run beside each deployment, such as detectors and explainers.

A companion is one folder with a ``service.yaml``, by which it is found; it stands alone, as a platform's ``serve/``
does. Its libraries can come under several licences: each has a lock of its own, and one setting chooses.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints, model_validator

from exhibit import documents
from exhibit.contract import PortName, UrlPath, check_placeholders
from exhibit.documents import Document, Text
from exhibit.errors import ContractError, ExhibitError
from exhibit.workspace import Workspace

LICENCE_VARIABLE = "EXHIBIT_LICENCE"
"""The one setting: under which licence the companions' libraries are to come; the first of service.yaml unless set."""
FILE = "service.yaml"
RUNNING = f"{sys.version_info.major}.{sys.version_info.minor}"
PLACEHOLDERS = frozenset({"host", "artifacts", "client", "state", "ask", "content_type"})


class Page(Document):
    """A page of the service."""

    port: PortName
    path: UrlPath


class Libraries(Document):
    """The service's libraries as one licence allows to use them."""

    lock: Text
    python: list[Annotated[str, StringConstraints(pattern=r"^3\.\d+$")]] | None = Field(
        default=None, description="the versions of Python these libraries run on; None: all that are supported"
    )
    notice: Text | None = Field(default=None, description="what whoever installs them must be told")

    @property
    def runs_here(self) -> bool:
        """Whether this engine's version of Python runs them."""
        return self.python is None or RUNNING in self.python


class CompanionFile(Document):
    """monitoring/<name>/service.yaml."""

    title: Text
    command: list[Text] = Field(min_length=1, description="argv, run in the folder; never a shell string")
    local: list[Text] = Field(default_factory=list, description="more argv on the local target, where time is short")
    ports: list[PortName] = Field(min_length=1)
    copies: PortName | None = Field(default=None, description="the port that takes the gateway's copies of requests")
    metrics: Page
    ready: Page
    ready_seconds: int = Field(gt=0, le=600)
    stop_seconds: int = Field(gt=0, le=120)
    licences: dict[str, Libraries] = Field(min_length=1, description="the first is used unless the setting says else")

    @model_validator(mode="after")
    def _names_are_declared(self) -> CompanionFile:
        for name in (self.copies, self.metrics.port, self.ready.port):
            if name is not None and name not in self.ports:
                raise ValueError(f"every port named to be one of ports {self.ports}, not {name!r}")
        for value in (*self.command, *self.local):
            check_placeholders(value, PLACEHOLDERS | {f"{name}_port" for name in self.ports})
        return self


@dataclass(frozen=True)
class Companion:
    """A companion's folder, read and checked."""

    name: str
    folder: Path
    file: CompanionFile
    licence: str

    @property
    def libraries(self) -> Libraries:
        return self.file.licences[self.licence]

    @property
    def lock(self) -> Path:
        return self.folder / self.libraries.lock

    def argv(self, values: Mapping[str, str], *, local: bool) -> list[str]:
        """The command with its placeholders filled in."""
        return [part.format_map(values) for part in (*self.file.command, *(self.file.local if local else ()))]


def load(workspace: Workspace) -> dict[str, Companion]:
    """The companions of the checkout by name; none where their folders were left out.

    Raises:
        ContractError: every breach in every service.yaml.
        ExhibitError: the setting names a licence a companion has no libraries for, or ones that this Python cannot run.
    """
    companions, breaches = {}, list[ExhibitError]()
    for path in sorted((workspace.root / "monitoring").glob(f"*/{FILE}")):
        file, found = documents.load(path, CompanionFile, workspace.relative(path))
        breaches += found
        if file:
            companions[path.parent.name] = Companion(path.parent.name, path.parent, file, _licence(path, file))
    if breaches:
        raise ContractError(breaches)
    return companions


def notices(workspace: Workspace) -> list[str]:
    """What whoever installs the companions must be told of their licences."""
    return [notice for companion in load(workspace).values() if (notice := companion.libraries.notice)]


def _licence(path: Path, file: CompanionFile) -> str:
    chosen = os.environ.get(LICENCE_VARIABLE) or next(iter(file.licences))
    if chosen not in file.licences:
        raise ExhibitError(
            LICENCE_VARIABLE,
            f"found {chosen!r}",
            f"one of {', '.join(file.licences)} (monitoring/{path.parent.name}/{FILE})",
            "Set it (or LICENCE of make) to one of them, or leave it out.",
        )
    if not file.licences[chosen].runs_here:
        raise ExhibitError(
            f"monitoring/{path.parent.name}",
            f"its {chosen} libraries on Python {RUNNING}",
            f"Python {' or '.join(file.licences[chosen].python or ())}",
            "Build the engine with it (remove .work/engine, then: make PYTHON=python3.11), or choose another licence.",
        )
    return chosen
