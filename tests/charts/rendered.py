"""The charts of this checkout, the values they are tried with, and what Helm makes of both.

Each chart of charts/ brings at least one ``ci/*.yaml`` to be rendered with; each platform adds its ``values.yaml``.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
CHARTS = ROOT / "charts"
KUBERNETES = "1.36"
NAMESPACE = "exhibit"
RELEASE = "late-flights"  # no chart's and no platform's name: what is named after those shows

needs_helm = pytest.mark.skipif(
    shutil.which("helm") is None, reason="helm is not on PATH: with Helm 3 or 4 the charts are rendered and tested"
)

Object = dict[str, Any]

_TEMPLATE = ("spec", "template")
_POD_TEMPLATES = {
    "Pod": (),
    "Deployment": _TEMPLATE,
    "StatefulSet": _TEMPLATE,
    "DaemonSet": _TEMPLATE,
    "ReplicaSet": _TEMPLATE,
    "Job": _TEMPLATE,
    "CronJob": ("spec", "jobTemplate", *_TEMPLATE),
}


class HelmError(Exception):
    """Helm refused; the text is what it said."""


@dataclass(frozen=True)
class Chart:
    """A folder of charts/."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def defaults(self) -> Object:
        return read(self.folder / "values.yaml")

    @property
    def schema(self) -> Object:
        return json.loads((self.folder / "values.schema.json").read_text(encoding="utf-8"))

    @property
    def examples(self) -> list[Example]:
        return [Example(self, path.stem, path) for path in sorted((self.folder / "ci").glob("*.yaml"))]


@dataclass(frozen=True)
class Example:
    """A chart with values it can be installed with: a file, and what only a deployment knows."""

    chart: Chart
    name: str
    file: Path
    more: str = "{}"

    def __str__(self) -> str:
        return f"{self.chart.name}-{self.name}"

    @property
    def values(self) -> Object:
        """All values, as the templates see them."""
        return merge(merge(self.chart.defaults, read(self.file)), json.loads(self.more))

    @property
    def objects(self) -> list[Object]:
        """What is rendered; shared by the tests, so none changes it."""
        return _objects(self.chart, self.file, self.more)


@dataclass(frozen=True)
class Pod:
    """The pods that an object leads to."""

    owner: str
    metadata: Object
    spec: Object

    @property
    def labels(self) -> dict[str, str]:
        return self.metadata.get("labels", {})

    @property
    def annotations(self) -> dict[str, str]:
        return self.metadata.get("annotations", {})

    @property
    def ports(self) -> dict[str, int]:
        """The containers' ports by name."""
        listed = [port for container in self.spec["containers"] for port in container.get("ports", [])]
        return {port.get("name", str(port["containerPort"])): port["containerPort"] for port in listed}

    def manifest(self, name: str) -> Object:
        """One such pod by itself, as a cluster is asked to admit it."""
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": self.labels},
            "spec": self.spec,
        }


def charts() -> list[Chart]:
    """Every chart of the checkout."""
    return [Chart(path.parent) for path in sorted(CHARTS.glob("*/Chart.yaml"))]


def platforms() -> list[Example]:
    """Every platform that is deployed by a chart, with a made-up image."""
    found = []
    for file in sorted((ROOT / "deployments").glob("*/values.yaml")):
        declared = read(file.with_name("platform.yaml")).get("kind")
        if declared:  # a test says so where it is missing
            image = {"image": {"repository": f"exhibit/{file.parent.name}", "tag": "0123456789ab"}}
            found.append(Example(Chart(CHARTS / declared["chart"]), file.parent.name, file, json.dumps(image)))
    return found


def examples() -> list[Example]:
    """Everything the charts are tried with."""
    return [*(example for chart in charts() for example in chart.examples), *platforms()]


def read(path: Path) -> Object:
    """A YAML file of one mapping; an empty one holds none."""
    return YAML(typ="safe").load(path.read_text(encoding="utf-8")) or {}


def merge(below: Object, above: Mapping[str, Any]) -> Object:
    """Values `above` over values `below`, as Helm does it: maps are merged, null removes."""
    merged = dict(below)
    for key, value in above.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), dict):
            merged[key] = merge(merged[key], value)
        elif value is None:
            merged.pop(key, None)
        else:
            merged[key] = value
    return merged


@cache
def template(chart: Chart, *files: Path, more: str = "{}", release: str = RELEASE) -> str:
    """What `helm template` prints for the chart with values of `files` and, over them, the JSON text `more`.

    Raises HelmError when Helm refuses.
    """
    given = [argument for file in files for argument in ("--values", str(file))]
    argv = ["helm", "template", release, str(chart.folder), "--namespace", NAMESPACE, "--kube-version", KUBERNETES]
    done = subprocess.run(
        [*argv, *given, "--values", "-"], input=more, capture_output=True, text=True, check=False, timeout=60
    )
    if done.returncode:
        raise HelmError(done.stderr)
    return done.stdout


@cache
def _objects(chart: Chart, file: Path, more: str) -> list[Object]:
    return documents(template(chart, file, more=more))


def render(chart: Chart, values: Mapping[str, Any], release: str = RELEASE) -> list[Object]:
    """The objects of the chart with `values`; raises HelmError when Helm refuses."""
    return documents(template(chart, more=json.dumps(values), release=release))


def documents(text: str) -> list[Object]:
    """The objects in the text. Read as Kubernetes does (`on` is true), but a key that stands twice is an error."""
    yaml = YAML(typ="safe", pure=True)
    yaml.version = "1.1"
    return [document for document in yaml.load_all(text) if document]


def only(objects: list[Object], kind: str, name: str | None = None) -> Object:
    """The one object of the kind (and name)."""
    [found] = [item for item in objects if item["kind"] == kind and name in (None, item["metadata"]["name"])]
    return found


def title(item: Object) -> str:
    return f"{item['kind']}/{item['metadata']['name']}"


def pods(objects: list[Object]) -> Iterator[Pod]:
    """The pods that the objects lead to, also those KServe makes of an InferenceService."""
    for item in objects:
        if item["kind"] == "InferenceService":
            yield from _kserve_pods(item)
        elif item["kind"] in _POD_TEMPLATES:
            found = item
            for key in _POD_TEMPLATES[item["kind"]]:
                found = found[key]
            yield Pod(title(item), found["metadata"], found["spec"])


def _kserve_pods(service: Object) -> Iterator[Pod]:
    name = service["metadata"]["name"]
    for component in {"predictor", "transformer", "explainer"} & service["spec"].keys():
        spec = dict(service["spec"][component])
        if "model" in spec:  # the container of a serving runtime
            spec["containers"] = [{"name": "kserve-container", **spec.pop("model")}, *spec.get("containers", [])]
        own = {
            "app": f"isvc.{name}-{component}",
            "component": component,
            "serving.kserve.io/inferenceservice": name,
        }
        metadata = {
            "labels": {**service["metadata"].get("labels", {}), **spec.get("labels", {}), **own},
            "annotations": {**service["metadata"].get("annotations", {}), **spec.get("annotations", {})},
        }
        yield Pod(f"{title(service)} {component}", metadata, spec)
