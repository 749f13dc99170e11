"""Operators in a cluster, and the images of others that pods there run: had from a bundle, or from registries.

What was installed is noted in the cluster, on an object of the operator's own: it goes when that goes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from exhibit import bundle, processes, versions
from exhibit.bundle import Say
from exhibit.cluster import Cluster, tools
from exhibit.cluster.tools import ToolFailed
from exhibit.errors import ExhibitError
from exhibit.versions import Operator

ANNOTATION = "exhibit/installed"
UNAVAILABLE = 3
"""The exit status by which a bundle says that it lacks a part that only its owner may hand out."""
INSTALL_SECONDS = 1800
ASK_SECONDS = 60
_READ_BYTES = 4 * 2**20
_MANAGED_BY = "app.kubernetes.io/managed-by"


class OperatorError(ExhibitError):
    """An operator, or an image that a cluster needs, could not be installed."""


class OperatorUnavailable(OperatorError):
    """An operator is not to be had on this machine: its bundle says so."""


def ensure(cluster: Cluster, names: Sequence[str], say: Say = lambda _: None) -> None:
    """Installs the named operators that the cluster does not have as this checkout and the bundle in use have them.

    Raises:
        OperatorUnavailable: one is not to be had here.
        ExhibitError: there is no such operator, one could not be installed, or the bundle lacks it.
    """
    found = versions.load(cluster.workspace)
    for name in names:
        operator = found.operator(name)
        if operator.manifest:
            _ensure_ours(cluster, operator, found.images[name], cluster.workspace.root / operator.manifest, say)
        else:
            _ensure_bundled(cluster, name, operator, say)


def ensure_images(cluster: Cluster, images: Sequence[str], say: Say = lambda _: None) -> None:
    """Sees to it that the cluster's nodes have these images of others.

    They are taken from the nodes themselves, the Docker engine, the bundle, a registry: whichever has them first.

    Raises:
        ExhibitError: one is nowhere to be had.
    """
    missing = [image for image in images if not _at_hand(cluster, image)]
    script, listed = bundle.images_script(cluster.workspace), bundle.listed_images(cluster.workspace)
    if missing and script and (listed is None or listed & set(missing)):
        say(f"from the bundle: {', '.join(missing)}")
        _run(script, cluster)
        missing = [image for image in missing if not _in_nodes(cluster, image)]
    for image in missing:
        _pull(cluster, image, say)


def available(cluster: Cluster, image: str, say: Say = lambda _: None) -> bool:
    """Whether the cluster's nodes have the image, or can be given it, which is done. For what one can do without."""
    try:
        if image in (bundle.listed_images(cluster.workspace) or ()):
            ensure_images(cluster, [image], say)
        elif not _at_hand(cluster, image):
            _pull(cluster, image, say)
    except bundle.BundleError:
        return False
    return True


def _ensure_ours(cluster: Cluster, operator: Operator, image: str, manifest: Path, say: Say) -> None:
    """Installs what a manifest of this checkout describes, unless the cluster has it from somebody else."""
    text = manifest.read_text(encoding="utf-8")
    wanted, metadata = _note(operator, [text.encode()]), _metadata(cluster, operator)
    foreign = bool(metadata) and (metadata.get("labels") or {}).get(_MANAGED_BY) != "exhibit"
    if foreign or _noted(metadata) == wanted:
        return
    ensure_images(cluster, [image], say)
    say(f"applying {manifest.name}")
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "--filename=-", input=text)
    for arguments in bundle.waits(text):
        cluster.kubectl(*arguments, seconds=INSTALL_SECONDS)
    _take_note(cluster, operator, wanted)


def _ensure_bundled(cluster: Cluster, name: str, operator: Operator, say: Say) -> None:
    """Lets the bundle install the operator, unless it has."""
    script = bundle.install_script(cluster.workspace, name, say)
    wanted = _note(operator, _contents(script.parent))
    if _noted(_metadata(cluster, operator)) != wanted:
        say(f"{operator.version} from {script.parent}")
        _run(script, cluster)
        _take_note(cluster, operator, wanted)


def _metadata(cluster: Cluster, operator: Operator) -> dict[str, Any]:
    """Of the object that bears the note; empty if there is no such object."""
    said = cluster.kubectl("get", operator.note, "--ignore-not-found", "--output=json")
    return dict(json.loads(said)["metadata"]) if said.strip() else {}


def _noted(metadata: Mapping[str, Any]) -> str | None:
    return (metadata.get("annotations") or {}).get(ANNOTATION)


def _take_note(cluster: Cluster, operator: Operator, note: str) -> None:
    cluster.kubectl("annotate", "--overwrite", operator.note, f"{ANNOTATION}={note}")


def _note(operator: Operator, contents: Iterable[bytes]) -> str:
    """What is noted of an operator: its version, and a digest of what installs it."""
    digest = hashlib.sha256()
    for part in contents:
        digest.update(hashlib.sha256(part).digest())
    return f"{operator.version}-{digest.hexdigest()[:12]}"


def _contents(place: Path) -> Iterator[bytes]:
    """What a part of a bundle is, without reading gigabytes: names, sizes, and the text of all but archives."""
    for path in sorted(path for path in place.rglob("*") if path.is_file()):
        size = path.stat().st_size
        yield f"{path.relative_to(place)} {size}".encode()
        if size <= _READ_BYTES:
            yield path.read_bytes()


def _at_hand(cluster: Cluster, image: str) -> bool:
    """Whether the nodes have the image, after the engine has given it to them if it could."""
    try:
        tools.run(["docker", "image", "inspect", image], seconds=ASK_SECONDS)
    except ToolFailed:
        return _in_nodes(cluster, image)
    cluster.load(image)
    return True


def _pull(cluster: Cluster, image: str, say: Say) -> None:
    say(f"pulling {image}")
    with bundle.pulling(f"image {image}"):
        tools.run(["docker", "pull", "--quiet", image], seconds=bundle.PULL_SECONDS)
    cluster.load(image)


def _in_nodes(cluster: Cluster, image: str) -> bool:
    with cluster.speaking():
        return all(node.exec_run(["crictl", "inspecti", image]).exit_code == 0 for node in cluster.nodes())


def _run(script: Path, cluster: Cluster) -> None:
    """Runs an executable of a bundle for the cluster.

    Raises:
        OperatorUnavailable, OperatorError: it says that something is not to be had here; it failed.
    """
    try:
        tools.run([str(script), cluster.name], seconds=INSTALL_SECONDS, environment={**os.environ, **cluster.variables})
    except ToolFailed as failure:
        said = failure.detail.splitlines()[-1:] or ["it did not say why"]
        if failure.found == processes.describe_exit(UNAVAILABLE):
            raise OperatorUnavailable(
                script.parent.name,
                f"not to be had here ({said[0]})",
                "all its parts in the bundle or the Docker engine",
                f"Have a bundle made where registries are reached (make bundle), and set {bundle.VARIABLE} to it.",
            ) from failure
        cluster.require_well(failure.detail)
        raise OperatorError(
            f"{script.parent.name}/{script.name}",
            failure.found,
            "it to end well",
            f"Mend what it says and run the command again; it is {script}.",
            failure.detail,
        ) from failure
