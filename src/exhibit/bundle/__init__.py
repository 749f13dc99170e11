"""Bundles: what installs operators in a cluster, pulled where registries are reached and used where they may not be.

A bundle is a folder with a folder for each operator, in it an executable ``install CLUSTER``, and a folder
``monitoring``, in it an executable ``images [CLUSTER]`` for the images that our own charts name. Nothing else is asked
of one, whoever made it. `make` makes one of the charts and images of versions.yaml, and a connected machine installs
from it as well: what it gets and what an air-gapped one gets cannot differ.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from exhibit import versions
from exhibit.cluster import tools
from exhibit.cluster.tools import ToolFailed
from exhibit.errors import ExhibitError
from exhibit.versions import Chart, Fact, Versions
from exhibit.workspace import Workspace

VARIABLE = "EXHIBIT_BUNDLE"
MONITORING = "monitoring"
PULL_SECONDS = 1800
SAVE_SECONDS = 600
RENDER_SECONDS = 120
_CONTENTS = "contents.json"
"""What a part was made of: by it one of ours is known, and whether it is still current."""
_LISTED = "images.txt"
_NOTES = set(Fact.model_fields)
"""What is known about a chart and does not change what is made of it."""
_ELSEWHERE = frozenset({"base", "ci", "node"})
"""Images of versions.yaml that no cluster runs: what others are built on, where CI runs, what a cluster is made of."""
_WAIT = "--timeout=300s"

Say = Callable[[str], object]


class BundleError(ExhibitError):
    """A bundle lacks something, or cannot be made here."""


def folder(workspace: Workspace) -> Path:
    """The bundle in use: that of EXHIBIT_BUNDLE, else the one `make` makes."""
    chosen = os.environ.get(VARIABLE)
    return Path(chosen).resolve() if chosen else workspace.state / "bundle"


def install_script(workspace: Workspace, name: str, say: Say) -> Path:
    """The executable that installs the operator. Where the bundle is not somebody else's, the operator is put into it.

    Raises:
        BundleError: there is none, and none can be made.
    """
    place = folder(workspace)
    if not os.environ.get(VARIABLE):
        make(workspace, [name], say)
    script = place / name / "install"
    if not os.access(script, os.X_OK):
        raise BundleError(
            f"bundle {place}",
            f"no executable {name}/install",
            f"one that installs {name}",
            f"Set {VARIABLE} to a bundle that has it, or unset it to have one made here (needs registries).",
        )
    return script


def images_script(workspace: Workspace) -> Path | None:
    """The executable that loads the images our charts name; None where the bundle has none."""
    script = folder(workspace) / MONITORING / "images"
    return script if os.access(script, os.X_OK) else None


def listed_images(workspace: Workspace) -> set[str] | None:
    """The images that executable loads; None where it does not say."""
    listed = folder(workspace) / MONITORING / _LISTED
    return set(listed.read_text().split()) if listed.exists() else None


def make(workspace: Workspace, names: Sequence[str], say: Say) -> None:
    """Puts the named parts (all that there can be, if none is named) into the bundle, unless they are there already.

    Raises:
        BundleError: a chart or an image could not be pulled, or what is there was not made here.
        ExhibitError: there is no such operator.
    """
    found = versions.load(workspace)
    every = [*(name for name, operator in found.operators.items() if operator.charts), MONITORING]
    for part in [_part(found, name) for name in names or every]:
        place = folder(workspace) / part.name
        if not part.is_current(place):
            say(part.title)
            place.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=place.parent, prefix=f".{part.name}.") as scratch:
                whole = Path(scratch) / part.name
                part.write(whole, say)
                shutil.rmtree(place, ignore_errors=True)
                whole.rename(place)


def waits(manifest: str) -> Iterator[list[str]]:
    """What kubectl is to be asked, in this order, to know that the manifest's objects do what they are for."""
    for item in _objects(manifest):
        kind, name = item["kind"].lower(), f"{item['kind'].lower()}/{item['metadata']['name']}"
        namespace = f"--namespace={item['metadata'].get('namespace', 'default')}"
        if kind == "customresourcedefinition":
            yield ["wait", _WAIT, "--for=condition=Established", name]
        elif kind in ("deployment", "statefulset", "daemonset"):
            yield ["rollout", "status", _WAIT, namespace, name]
        elif kind == "apiservice":
            yield ["wait", _WAIT, "--for=condition=Available", name]
        elif "cert-manager.io/inject-ca-from" in (item["metadata"].get("annotations") or {}):
            # Until then the API server trusts no answer of the webhook, and refuses all that it is to be asked about.
            yield ["wait", _WAIT, "--for=jsonpath={.webhooks[0].clientConfig.caBundle}", name]


@dataclass(frozen=True)
class _Part:
    """A folder of the bundle, by what it is made of."""

    name: str
    title: str
    kubernetes: str
    """The version of Kubernetes that charts are rendered for."""
    images: Sequence[str]
    charts: Mapping[str, Chart]

    @property
    def contents(self) -> dict[str, Any]:
        """What it is made of, to be written beside it."""
        charts = {release: chart.model_dump(mode="json", exclude=_NOTES) for release, chart in self.charts.items()}
        return {"kubernetes": self.kubernetes, "images": list(self.images), "charts": charts}

    def is_current(self, place: Path) -> bool:
        """Whether it is there, made of the same.

        Raises:
            BundleError: what is there was not made here; it is not for us to replace.
        """
        if not place.exists():
            return False
        if not (place / _CONTENTS).exists():
            remedy = f"Set {VARIABLE} to another folder, or unset it."
            raise BundleError(str(place), "not made by `make bundle`", "one that was", remedy)
        return bool(json.loads((place / _CONTENTS).read_text()) == self.contents)

    def write(self, place: Path, say: Say) -> None:
        """Makes it in a new folder.

        Raises:
            BundleError: a chart or an image could not be pulled; a chart needs an image that is not pinned.
        """
        place.mkdir()
        if self.charts:
            (place / "manifests").mkdir()
        for at, (release, chart) in enumerate(self.charts.items(), 1):
            say(f"chart {release} {chart.version}")
            manifest = _render(release, chart, self.kubernetes)
            self._require_pinned(f"chart {release} {chart.version}", manifest)
            lines = [*waits(manifest), *_waits_for_made(chart)]
            namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": chart.namespace}}
            (place / "manifests" / f"{at}-{release}.yaml").write_text(f"{json.dumps(namespace)}\n---\n{manifest}")
            (place / "manifests" / f"{at}-{release}.waits").write_text("".join(f"{' '.join(line)}\n" for line in lines))
        for image in self.images:
            say(f"image {image}")
            with pulling(f"image {image}"):
                tools.run(["docker", "pull", "--quiet", image], seconds=PULL_SECONDS)
        say(f"saving {len(self.images)} images")
        save(self.images, place / "images.tar")
        (place / _LISTED).write_text("".join(f"{image}\n" for image in self.images))
        script = place / ("install" if self.charts else "images")
        shutil.copy(Path(__file__).with_name(script.name), script)
        script.chmod(0o755)
        (place / _CONTENTS).write_text(json.dumps(self.contents, indent=2))

    def _require_pinned(self, chart: str, manifest: str) -> None:
        for image in sorted(_images_run_by(manifest) - set(self.images)):
            expected, remedy = "only those that versions.yaml names", "Add it to the operator's images there."
            raise BundleError(chart, f"runs image {image}", expected, remedy)


def _part(found: Versions, name: str) -> _Part:
    kubernetes = found.images["node"].partition("@")[0].rpartition(":")[2]
    if name == MONITORING:
        images = [image for key, image in found.images.items() if key not in _ELSEWHERE]
        return _Part(name, "images of our charts", kubernetes, images, {})
    operator = found.operator(name)
    if operator.images is None:
        remedy = f"It needs no bundle: {operator.manifest} is enough."
        raise BundleError(name, "not made of charts of others", "an operator that is", remedy)
    title = f"{name} {operator.version}, licence: {operator.licence}"
    return _Part(name, title, kubernetes, operator.images.names, operator.charts)


def _waits_for_made(chart: Chart) -> Iterator[list[str]]:
    """As `waits`, for what the chart's operator makes once it runs."""
    namespace = f"--namespace={chart.namespace}"
    for workload in chart.workloads:
        yield ["wait", _WAIT, "--for=create", namespace, workload]
        yield ["rollout", "status", _WAIT, namespace, workload]


def _render(release: str, chart: Chart, kubernetes: str) -> str:
    repository = [f"--repo={chart.repository}"] if chart.repository else []
    argv = ["helm", "template", release, chart.chart, *repository, f"--version={chart.version}"]
    argv += [f"--namespace={chart.namespace}", f"--kube-version={kubernetes}", "--include-crds", "--skip-tests"]
    home = f" of {chart.repository}" if chart.repository else ""
    with pulling(f"chart {chart.chart} {chart.version}{home}"):
        return tools.run([*argv, "--values=-"], seconds=RENDER_SECONDS, input=json.dumps(chart.values))


def save(images: Sequence[str], archive: Path) -> None:
    """Writes images of the Docker engine to one archive that `kind load image-archive` takes.

    Raises:
        ToolFailed: the engine does not have one of them, or there is no room.
    """
    # Of an image for many platforms an engine whose image store is containerd's holds one, and saves a list that names
    # all: a node's containerd refuses it (github.com/kubernetes-sigs/kind issue 3795). Such an engine can be asked for
    # the one platform, and its command line offers that only where it can.
    platform = []
    if "--platform" in tools.run(["docker", "save", "--help"], seconds=RENDER_SECONDS):
        ours = tools.run(["docker", "version", "--format={{.Server.Os}}/{{.Server.Arch}}"], seconds=RENDER_SECONDS)
        platform = [f"--platform={ours.strip()}"]
    tools.run(["docker", "save", *platform, f"--output={archive}", *images], seconds=SAVE_SECONDS)


@contextmanager
def pulling(what: str) -> Iterator[None]:
    """Makes of a program's failure in the block an error that says what could not be pulled, and the way out.

    Raises:
        BundleError: it failed.
    """
    try:
        yield
    except ToolFailed as error:
        raise BundleError(
            what,
            "could not be pulled",
            "its registry to be reached",
            f"Run `make bundle` where it is, carry the folder over, and set {VARIABLE} to it.",
            error.detail or error.line(),
        ) from error


def _objects(manifest: str) -> Iterator[dict[str, Any]]:
    return (item for item in YAML(typ="safe").load_all(manifest) if item)


def _images_run_by(manifest: str) -> set[str]:
    """The images of the manifest's own workloads; those an operator is told of elsewhere are not among them."""
    found = set()
    for item in _objects(manifest):
        template = (item.get("spec") or {}).get("template") or {}
        for kind in ("initContainers", "containers"):
            found |= {container["image"] for container in (template.get("spec") or {}).get(kind) or []}
    return found
