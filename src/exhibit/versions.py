"""versions.yaml: the versions that no lock can hold, and where each fact about what others publish was read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from typing import Annotated, Any

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from exhibit import documents
from exhibit.documents import Document, Text, Url
from exhibit.errors import ContractError, ExhibitError
from exhibit.workspace import Workspace

Named = Annotated[str, StringConstraints(pattern=r"^[a-z]+/\S+$")]
"""An object of a cluster as kubectl takes it: <kind>/<name>."""
Label = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]


def _pinned(reference: str) -> str:
    if not re.fullmatch(r"[^\s@]+:(?!latest\b)\w[\w.-]*(@sha256:[0-9a-f]{64})?", reference):
        raise ValueError("an image is written <name>:<tag>, and its tag always means the same image")
    return reference


Reference = Annotated[str, AfterValidator(_pinned)]


class Fact(Document):
    """Something others publish: where it was read, and when."""

    source: Url
    read: date
    unconfirmed: Text | None = Field(default=None, description="what the source does not say, and why it is taken")


class Chart(Fact):
    """A Helm chart of others and the values it is rendered with."""

    chart: Text = Field(description="oci://..., or its name in the repository")
    repository: Url | None = None
    version: Text
    namespace: Label
    values: dict[str, Any] = Field(default_factory=dict)
    workloads: list[Named] = Field(default_factory=list, description="what its operator makes, to be waited for")

    @model_validator(mode="after")
    def _is_found_in_one_place(self) -> Chart:
        if self.chart.startswith("oci://") == (self.repository is not None):
            raise ValueError("a chart is an oci:// address, or has a repository")
        return self


class Images(Fact):
    """The images an operator runs."""

    names: list[Reference] = Field(min_length=1)


class Operator(Document):
    """What is installed in a cluster beside the platforms' own charts."""

    version: Text
    licence: Text
    note: Named = Field(description="an object of the operator that bears the engine's note of what was installed")
    manifest: Text | None = Field(default=None, description="a file of this checkout; its image is of the same name")
    charts: dict[Label, Chart] = Field(default_factory=dict, description="charts of others, by release, in this order")
    images: Images | None = Field(default=None, description="what those charts need")

    @model_validator(mode="after")
    def _is_ours_or_of_others(self) -> Operator:
        if bool(self.manifest) == bool(self.charts) or bool(self.charts) != bool(self.images):
            raise ValueError("an operator has a manifest of ours, or charts of others with their images")
        return self


class Versions(Document):
    """versions.yaml."""

    python: list[Text]
    tools: dict[str, Text]
    """The oldest release of each program that will do, as ``<major>.<minor>``."""
    images: dict[str, Reference]
    sources: dict[str, Fact]
    operators: dict[Label, Operator]

    @model_validator(mode="after")
    def _images_are_complete(self) -> Versions:
        if different := sorted(self.images.keys() ^ self.sources.keys()):
            raise ValueError(f"images and sources have the same names, not {', '.join(different)} in one of them only")
        if absent := sorted(name for name, one in self.operators.items() if one.manifest and name not in self.images):
            raise ValueError(f"the image of an operator of ours is among images; not so: {', '.join(absent)}")
        return self

    def operator(self, name: str) -> Operator:
        """The operator of that name.

        Raises:
            ExhibitError: there is none.
        """
        if name not in self.operators:
            raise ExhibitError(
                f"operator {name!r}", "no such operator", f"one of {', '.join(self.operators)}", "See versions.yaml."
            )
        return self.operators[name]

    def facts(self) -> Iterator[tuple[str, Fact]]:
        """Every fact about others, and what it is about."""
        for name, fact in self.sources.items():
            yield f"image {self.images[name]}", fact
        for name, operator in self.operators.items():
            if operator.images:
                yield f"images of {name}", operator.images
            for release, chart in operator.charts.items():
                yield f"chart {release} {chart.version}", chart


def load(workspace: Workspace) -> Versions:
    """versions.yaml of the checkout.

    Raises:
        ContractError: every breach in it.
    """
    versions, breaches = documents.load(workspace.root / "versions.yaml", Versions, "versions.yaml")
    if versions is None:
        raise ContractError(breaches)
    return versions
