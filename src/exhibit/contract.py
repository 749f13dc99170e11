"""The contract of a platform folder: every fact the engine knows of a platform stands in its ``platform.yaml``.

The slug is the folder's name. A capability is either described or declared absent with a reason a reader can check:
``request_batching: {none: "why", source: https://...}``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from string import Formatter
from typing import Annotated, Any

from pydantic import Discriminator, Field, RootModel, StringConstraints, Tag, field_validator, model_validator

from exhibit import documents
from exhibit.documents import Document, Text, Url
from exhibit.errors import ContractError, ExhibitError
from exhibit.workspace import Workspace

SLUG = re.compile(r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")
UrlPath = Annotated[str, StringConstraints(pattern=r"^/[^\s?#]*$")]
PortName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9]*$")]

# What the engine fills into argv and environment values; `<name>_port` is added for each of `local.ports`.
PLACEHOLDERS = frozenset({"host", "port", "model", "model_name", "scratch"})
BATCH_PLACEHOLDERS = frozenset({"input", "output", "url"})


class Absent(Document):
    """A capability the platform does not have."""

    none: Text = Field(description="why, so that a reader can check it")
    source: Url


class Present(Document):
    """A capability the platform has, by itself or by code of ours around it."""

    added_by: Text | None = Field(
        default=None, description="the file of serve/ that adds what the platform lacks; None: the platform's own"
    )


class NativeMetrics(Present):
    """Prometheus metrics the platform's own server exposes."""

    path: UrlPath
    port: PortName = Field(default="main", description="'main' or one of local.ports")
    requests: Text = Field(description="PromQL selector of the counter of prediction requests")


class WebApp(Present):
    """A page for people, beside the model, served by the platform."""

    path: UrlPath


class OpenInference(Present):
    """Open Inference Protocol V2 over REST, under /v2 of the main port."""

    model: Text = Field(description="the model's name in the protocol's paths")


class OfflineBatch(Present):
    """The platform's own way to score a file; ``{input}`` is .npy float32 [n,12], ``{output}`` .npy float [n]."""

    command: list[Text] = Field(min_length=1)


class RequestBatching(Present):
    """Requests of several callers answered by one call of the model."""

    path: UrlPath
    metric: Text = Field(description="histogram of the batch size in the native metrics, without _sum and _count")


class NativeExplanation(Present):
    """Explanations by the platform's own server; client.py reads them by ``explanation(body) -> [n, k]``."""

    path: UrlPath


class OwnOperator(Present):
    """An operator of the platform's own, which makes deployments of the platform's resources."""

    name: Text = Field(description="an operator of versions.yaml")


def _presence(value: Any) -> str:
    none = "none" in value if isinstance(value, Mapping) else isinstance(value, Absent)
    return "absent" if none else "present"


def _or_absent(model: type[Document]) -> Any:
    return Annotated[Annotated[Absent, Tag("absent")] | Annotated[model, Tag("present")], Discriminator(_presence)]


class Capabilities(Document):
    """What a criterion may need of a platform (its ``NEEDS``)."""

    native_metrics: _or_absent(NativeMetrics)  # type: ignore[valid-type]
    web_app: _or_absent(WebApp)  # type: ignore[valid-type]
    open_inference: _or_absent(OpenInference)  # type: ignore[valid-type]
    offline_batch: _or_absent(OfflineBatch)  # type: ignore[valid-type]
    request_batching: _or_absent(RequestBatching)  # type: ignore[valid-type]
    native_explanation: _or_absent(NativeExplanation)  # type: ignore[valid-type]
    operator: _or_absent(OwnOperator)  # type: ignore[valid-type]

    def absent(self) -> dict[str, Absent]:
        """The capabilities declared absent, by name."""
        return {name: value for name, value in self._all().items() if isinstance(value, Absent)}

    def added(self) -> dict[str, str]:
        """The files of serve/ that add capabilities the platform itself lacks, by capability."""
        return {
            name: value.added_by for name, value in self._all().items() if isinstance(value, Present) and value.added_by
        }

    def _all(self) -> dict[str, Absent | Present]:
        return {name: getattr(self, name) for name in type(self).model_fields}


class Local(Document):
    """How the platform's server runs as a process of this machine."""

    command: list[Text] = Field(min_length=1, description="argv, run in serve/; never a shell string")
    environment: dict[str, str] = Field(default_factory=dict)
    ports: list[PortName] = Field(default_factory=list)
    ready_seconds: int = Field(gt=0, le=600, description="deadline until the first right prediction")
    stop_seconds: int = Field(gt=0, le=120, description="grace after SIGTERM, before SIGKILL")


class Kind(Document):
    """How the platform's server runs in a kind cluster; what its chart needs to know stands in values.yaml."""

    chart: Text = Field(description="a folder of charts/")
    operators: list[Text] = Field(default_factory=list, description="operators of versions.yaml that the chart needs")


class Predict(Document):
    """The request that asks for predictions; its body is written and read by client.py."""

    path: UrlPath
    content_type: Text


class PlatformFile(Document):
    """platform.yaml."""

    title: Text
    summary: Text
    homepage: Url
    source: Url
    distribution: Text = Field(
        description="installed Python distribution that is the server: names version and licence"
    )
    artifact: Text = Field(description="a format of model/formats.yaml")
    local: Local
    kind: Kind | None = Field(default=None, description="None: it is not deployed to a cluster")
    predict: Predict
    capabilities: Capabilities

    @field_validator("local")
    @classmethod
    def _local_names_known_placeholders(cls, local: Local) -> Local:
        allowed = PLACEHOLDERS | {f"{name}_port" for name in local.ports}
        for value in (*local.command, *local.environment.values()):
            check_placeholders(value, allowed)
        return local

    @model_validator(mode="after")
    def _capabilities_fit_local(self) -> PlatformFile:
        metrics, batch = self.capabilities.native_metrics, self.capabilities.offline_batch
        if isinstance(metrics, NativeMetrics) and metrics.port not in ("main", *self.local.ports):
            raise ValueError(f"capabilities.native_metrics.port to be main or one of local.ports {self.local.ports}")
        if isinstance(batch, OfflineBatch):
            for value in batch.command:
                check_placeholders(value, PLACEHOLDERS | BATCH_PLACEHOLDERS)
        return self


class Fact(Document):
    """A vendor's statement nobody can run here."""

    statement: Text
    url: Url
    read: date
    expires: date


class Release(Document):
    version: Text
    date: date


class FactsFile(Document):
    """facts.yaml."""

    licence: Text = Field(description="SPDX identifier")
    newest_release: Release
    maintenance: Text
    facts: list[Fact] = Field(min_length=1)


class Format(Document):
    path: Text
    title: Text
    why: Text


class FormatsFile(RootModel[dict[str, Format]]):
    """model/formats.yaml."""


def check_placeholders(value: str, allowed: frozenset[str] | set[str]) -> None:
    """Refuses a value with a placeholder that nothing fills in.

    Raises:
        ValueError: names the placeholder and the ones there are.
    """
    unknown = [name for _, name, _, _ in Formatter().parse(value) if name is not None and name not in allowed]
    if unknown:
        raise ValueError(f"placeholders out of {', '.join(sorted(allowed))}, not {{{unknown[0]}}} in {value!r}")


@dataclass(frozen=True)
class Platform:
    """A platform folder, read and checked."""

    slug: str
    folder: Path
    file: PlatformFile
    facts: FactsFile

    @property
    def title(self) -> str:
        return self.file.title

    @property
    def serve(self) -> Path:
        return self.folder / "serve"

    @property
    def lock(self) -> Path:
        return self.folder / "requirements.txt"

    @property
    def values(self) -> Path:
        """What differs from its chart's defaults."""
        return self.folder / "values.yaml"


def load_formats(workspace: Workspace) -> dict[str, Format]:
    """The formats the model is exported to, by name (model/formats.yaml).

    Raises:
        ContractError: every breach in the file.
    """
    path = workspace.model / "formats.yaml"
    formats, breaches = documents.load(path, FormatsFile, workspace.relative(path))
    if formats is None:
        raise ContractError(breaches)
    return formats.root


def load_platforms(workspace: Workspace) -> dict[str, Platform]:
    """All platforms of the checkout by slug, in alphabetical order.

    Raises:
        ContractError: every breach of every platform folder, before anything is started.
    """
    formats = load_formats(workspace)
    platforms: dict[str, Platform] = {}
    breaches: list[ExhibitError] = []
    for folder in sorted(path for path in workspace.deployments.iterdir() if not path.name.startswith((".", "__"))):
        platform, found = _load_platform(workspace, folder, formats)
        breaches += found
        if platform:
            platforms[platform.slug] = platform
    if breaches:
        raise ContractError(breaches)
    return platforms


def _load_platform(
    workspace: Workspace, folder: Path, formats: Mapping[str, Format]
) -> tuple[Platform | None, list[ExhibitError]]:
    name = workspace.relative(folder)
    breaches = []
    if not folder.is_dir() or not SLUG.match(folder.name):
        return None, [
            ExhibitError(name, "not a platform folder", f"a folder named like {SLUG.pattern}", "Move it away.")
        ]
    file, found = documents.load(folder / "platform.yaml", PlatformFile, f"{name}/platform.yaml")
    breaches += found
    facts, found = documents.load(folder / "facts.yaml", FactsFile, f"{name}/facts.yaml")
    breaches += found
    for part in ("serve", "client.py", "requirements.in", "requirements.txt", "README.md"):
        if not (folder / part).exists():
            breaches.append(ExhibitError(f"{name}/{part}", "missing", "every platform folder to hold it", "Create it."))
    for capability, added_by in (file.capabilities.added() if file else {}).items():
        if not (folder / "serve" / added_by).is_file():
            breaches.append(
                ExhibitError(
                    f"{name}/platform.yaml: capabilities.{capability}.added_by",
                    f"found {added_by!r}",
                    "a file of serve/",
                    "Name the file whose lines add the capability, or leave the key out.",
                )
            )
    if file and file.artifact not in formats:
        breaches.append(
            ExhibitError(
                f"{name}/platform.yaml: artifact",
                f"found {file.artifact!r}",
                f"one of {', '.join(sorted(formats))}",
                "Use one of them, or add the format to model/formats.yaml.",
            )
        )
    if file and file.kind:
        for needed in (folder / "Dockerfile", folder / "values.yaml", workspace.charts / file.kind.chart):
            if not needed.exists():
                subject, missing = f"{name}/platform.yaml: kind", f"no {workspace.relative(needed)}"
                remedy = "Write it, or leave `kind` out."
                breaches.append(ExhibitError(subject, missing, "what it is deployed by", remedy))
    if breaches or file is None or facts is None:
        return None, breaches
    return Platform(folder.name, folder, file, facts), []
