"""The one exception tree of the engine, and its exit codes.

    ExhibitError            could not run: exit code 2
    ├── ContractError       a file of a person breaks its schema (all breaches at once)
    ├── ModelError          the model, its golden answers or an export is not what the manifest says
    ├── InstallError        an environment could not be installed
    ├── ServerError         a server did not start, did not get ready, or died
    ├── ClusterError        the kind cluster, or a program it needs, is missing, broken or refused something
    ├── PrometheusError     (exhibit.prometheus)
    ├── AlertmanagerMissing (exhibit.alertmanager)
    ├── BundleError         a bundle of operators lacks something, or cannot be made here (exhibit.bundle)
    ├── OperatorError       an operator of a cluster could not be installed, or is not to be had (exhibit.operators)
    ├── PackageMissing      the programs of a Debian package cannot be had (exhibit.debian)
    └── BusyError           another run holds the workspace

A message reads ``<subject>: <found>, expected <expected>. <remedy>``.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum


class ExitCode(IntEnum):
    """What a shell or a pipeline learns: all passed, some failed, or something could not be run."""

    PASSED = 0
    FAILED = 1
    COULD_NOT_RUN = 2
    INTERRUPTED = 130


class ExhibitError(Exception):
    """A condition the reader can act on; shown without a traceback."""

    exit_code = ExitCode.COULD_NOT_RUN

    def __init__(self, subject: str, found: str, expected: str, remedy: str, detail: str = "") -> None:
        self.subject, self.found, self.expected, self.remedy, self.detail = subject, found, expected, remedy, detail
        super().__init__(self.line())

    def line(self) -> str:
        """The message as one line, without ``detail`` (log lines, tool output)."""
        return f"{self.subject}: {self.found}, expected {self.expected}. {self.remedy}"

    def __str__(self) -> str:
        return f"{self.line()}\n{self.detail}" if self.detail else self.line()


class ContractError(ExhibitError):
    """All breaches found in all files, each with file, line, value, rule and remedy."""

    def __init__(self, breaches: Sequence[ExhibitError]) -> None:
        self.breaches = tuple(breaches)
        count = f"{len(breaches)} error{'s' if len(breaches) != 1 else ''}"
        super().__init__(
            "contract",
            count,
            "none",
            "Mend each line below and run the command again.",
            "\n".join(breach.line() for breach in breaches),
        )


class ModelError(ExhibitError):
    """The model's files and its manifest or golden answers disagree."""


class InstallError(ExhibitError):
    """An environment could not be installed from its lock."""


class ServerError(ExhibitError):
    """A server did not start, never answered rightly in time, or died."""


class ClusterError(ExhibitError):
    """The kind cluster, or a program it is driven by, is missing, broken or refused something."""


class BusyError(ExhibitError):
    """Another run holds the workspace's lock."""
