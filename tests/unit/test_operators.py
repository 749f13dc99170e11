"""Operators and images of others in a cluster: the cluster and all programs are stand-ins, nothing is pulled."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from exhibit import bundle, operators
from exhibit.bundle import BundleError
from exhibit.errors import ClusterError, ExhibitError
from exhibit.operators import OperatorError, OperatorUnavailable
from exhibit.workspace import Workspace

CLOCK, SUN, MOON = "example/clock:v1", "example/sun:1", "example/moon:1"
VERSIONS = f"""\
python: ["3.11"]
tools: {{}}
images: {{clock: {CLOCK}, sun: {SUN}, moon: {MOON}, node: "example/node:v1"}}
sources:
  clock: &fact {{source: "https://example.test/", read: 2026-11-25}}
  sun: *fact
  moon: *fact
  node: *fact
operators:
  clock: {{version: v1, licence: MIT, note: apiservice/v1.clock, manifest: clock.yaml}}
  tower:
    version: v2
    licence: MIT
    note: namespace/tower
    charts: {{tower: {{<<: *fact, chart: "oci://example.test/tower", version: "2", namespace: above}}}}
    images: {{<<: *fact, names: ["example/tower:2"]}}
"""
MANIFEST = """\
kind: APIService
metadata: {name: v1.clock, labels: {app.kubernetes.io/managed-by: exhibit}}
"""


class StandIn:
    """A cluster that keeps the notes put on objects, and the images its nodes were given."""

    name = "town"

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.variables = {"KUBECONFIG": str(workspace.root / "kubeconfig")}
        self.objects: dict[str, dict[str, dict[str, str]]] = {}
        self.asked: list[str] = []
        self.held: set[str] = set()
        self.ill = ""

    def kubectl(self, *arguments: str, input: str = "", seconds: float = 0) -> str:
        verb, *rest = arguments
        self.asked.append(f"{verb} {input.splitlines()[0] if input else rest[-1]}")
        if verb == "get":
            found = self.objects.get(rest[0])
            return json.dumps({"metadata": found}) if found is not None else ""
        if verb == "apply":
            self.objects.setdefault("apiservice/v1.clock", {})["labels"] = {"app.kubernetes.io/managed-by": "exhibit"}
        if verb == "annotate":
            key, _, value = rest[-1].partition("=")
            self.objects.setdefault(rest[-2], {}).setdefault("annotations", {})[key] = value
        return ""

    def load(self, image: str) -> bool:
        self.asked.append(f"load {image}")
        self.held.add(image)
        return True

    def nodes(self) -> list[SimpleNamespace]:
        def run(argv: list[str]) -> SimpleNamespace:
            assert argv[:2] == ["crictl", "inspecti"]
            return SimpleNamespace(exit_code=0 if argv[2] in self.held else 1)

        return [SimpleNamespace(exec_run=run)]

    @contextmanager
    def speaking(self) -> Iterator[None]:
        yield

    def require_well(self, detail: str = "") -> None:
        if self.ill:
            raise ClusterError("cluster town", self.ill, "it to run", "Run make cluster.", detail)

    def since(self) -> list[str]:
        """What was asked of it since the last time."""
        asked, self.asked = self.asked, []
        return asked


def program(path: Path, script: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    (tmp_path / "versions.yaml").write_text(VERSIONS)
    (tmp_path / "clock.yaml").write_text(MANIFEST)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.delenv(bundle.VARIABLE, raising=False)
    engine(tmp_path)
    return StandIn(Workspace(tmp_path))


def engine(folder: Path, *images: str, registry: bool = False) -> None:
    """A Docker engine that holds `images`; it pulls nothing unless there is a registry."""
    (folder / "engine").write_text("".join(f"{image}\n" for image in images))
    pull = f'echo "$3" >>{folder}/engine; exit 0' if registry else "echo 'no such host' >&2; exit 1"
    program(
        folder / "bin" / "docker",
        f"""echo "docker $*" >>{folder}/docker
case "$1" in
image) grep -qxF "$3" {folder}/engine ;;
pull) {pull} ;;
save) for each; do case $each in --output=*) echo saved >"${{each#--output=}}";; esac; done ;;
esac""",
    )


def pulled(folder: Path) -> list[str]:
    """What the engine was asked to pull since the last time."""
    calls = folder / "docker"
    lines = calls.read_text().splitlines() if calls.exists() else []
    calls.unlink(missing_ok=True)
    return [line.removeprefix("docker pull --quiet ") for line in lines if line.startswith("docker pull")]


def made_elsewhere(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> Path:
    """A bundle in use whose tower/install does this."""
    monkeypatch.setenv(bundle.VARIABLE, str(folder))
    program(folder / "tower" / "install", script)
    return folder


# Operators of ours: a manifest in the checkout.


def test_ours_is_applied_waited_for_and_noted(cluster: StandIn, tmp_path: Path) -> None:
    engine(tmp_path, CLOCK)
    operators.ensure(cluster, ["clock"])
    asked = cluster.since()
    assert asked[:-1] == [
        "get --output=json",
        f"load {CLOCK}",
        "apply kind: APIService",
        "wait apiservice/v1.clock",
    ]
    assert asked[-1].startswith("annotate exhibit/installed=v1-")


def test_ours_is_left_alone_until_it_is_another(cluster: StandIn, tmp_path: Path) -> None:
    engine(tmp_path, CLOCK)
    operators.ensure(cluster, ["clock"])
    cluster.since()
    operators.ensure(cluster, ["clock"])
    assert cluster.since() == ["get --output=json"]
    (tmp_path / "clock.yaml").write_text(f"# changed\n{MANIFEST}")
    operators.ensure(cluster, ["clock"])
    assert "apply # changed" in cluster.since()


def test_what_somebody_else_installed_is_left_alone(cluster: StandIn) -> None:
    for labels in ({}, {"labels": {"app.kubernetes.io/managed-by": "Helm"}}, {"labels": None}):
        cluster.objects["apiservice/v1.clock"] = {"annotations": {"of": "another"}, **labels}
        operators.ensure(cluster, ["clock"])
        assert cluster.since() == ["get --output=json"]


def test_what_was_cut_off_is_done_again(cluster: StandIn, tmp_path: Path) -> None:
    engine(tmp_path, CLOCK)
    cluster.objects["apiservice/v1.clock"] = {"labels": {"app.kubernetes.io/managed-by": "exhibit"}}
    operators.ensure(cluster, ["clock"])
    assert "apply kind: APIService" in cluster.since()


# Operators from a bundle.


def test_a_bundle_installs_in_this_cluster_once(
    cluster: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = made_elsewhere(monkeypatch, tmp_path / "other", f'echo "$1 $KUBECONFIG" >>{tmp_path}/installed')
    heard: list[str] = []
    operators.ensure(cluster, ["tower"], heard.append)
    assert (tmp_path / "installed").read_text() == f"town {tmp_path}/kubeconfig\n"
    assert heard == [f"v2 from {place}/tower"]
    operators.ensure(cluster, ["tower"])
    assert len((tmp_path / "installed").read_text().splitlines()) == 1
    (place / "tower" / "more.yaml").write_text("kind: Stone")
    operators.ensure(cluster, ["tower"])
    cluster.objects.clear()  # as a cluster made anew
    operators.ensure(cluster, ["tower"])
    assert len((tmp_path / "installed").read_text().splitlines()) == 3


def test_a_bundle_that_lacks_an_owners_part_says_so_by_status_3(
    cluster: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_elsewhere(
        monkeypatch, tmp_path / "other", "echo first >&2; echo 'image example/tower:2 is not here' >&2; exit 3"
    )
    with pytest.raises(OperatorUnavailable) as caught:
        operators.ensure(cluster, ["tower"])
    assert str(caught.value).startswith("tower: not to be had here (image example/tower:2 is not here), expected ")
    assert cluster.objects == {}


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("echo first >&2; echo 'timed out waiting' >&2; exit 1", "exit code 1"),
        ("kill -KILL $$", "SIGKILL"),
    ],
)
def test_a_failed_installation_is_told_with_its_last_lines(
    cluster: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, told: str
) -> None:
    place = made_elsewhere(monkeypatch, tmp_path / "other", script)
    with pytest.raises(OperatorError) as caught:
        operators.ensure(cluster, ["tower"])
    assert not isinstance(caught.value, OperatorUnavailable)
    assert told in str(caught.value)
    assert str(place / "tower" / "install") in str(caught.value)
    if "timed out" in script:
        assert str(caught.value).endswith("\nfirst\ntimed out waiting")
    assert cluster.objects == {}


def test_a_cluster_that_is_gone_is_the_cause_that_is_told(
    cluster: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_elsewhere(monkeypatch, tmp_path / "other", "exit 1")
    cluster.ill = "is gone"
    with pytest.raises(ClusterError, match="cluster town: is gone"):
        operators.ensure(cluster, ["tower"])


def test_a_bundle_without_the_operator_is_told(
    cluster: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = made_elsewhere(monkeypatch, tmp_path / "other", "exit 0")
    (place / "tower" / "install").chmod(0o644)
    with pytest.raises(BundleError, match=rf"bundle {place}: no executable tower/install.*EXHIBIT_BUNDLE"):
        operators.ensure(cluster, ["tower"])


def test_without_a_bundle_one_is_made_where_registries_are_reached(cluster: StandIn, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"chart oci://example\.test/tower 2: could not be pulled"):
        operators.ensure(cluster, ["tower"])
    engine(tmp_path, registry=True)
    program(tmp_path / "bin" / "helm", "echo 'kind: Stone'; echo 'metadata: {name: first}'")
    for name in ("kind", "kubectl"):
        program(tmp_path / "bin" / name, f'echo "{name} $1" >>{tmp_path}/installed')
    operators.ensure(cluster, ["tower"])
    operators.ensure(cluster, ["tower"])
    assert (tmp_path / "installed").read_text().splitlines() == ["kind load", "kubectl apply"]
    assert pulled(tmp_path) == ["example/tower:2"]


def test_an_operator_nobody_knows_is_refused(cluster: StandIn) -> None:
    with pytest.raises(ExhibitError, match="operator 'towre': no such operator"):
        operators.ensure(cluster, ["towre"])


# Images.


def test_images_come_from_engine_and_nodes_first(cluster: StandIn, tmp_path: Path) -> None:
    engine(tmp_path, SUN)
    cluster.held.add(MOON)
    operators.ensure_images(cluster, [SUN, MOON])
    assert cluster.since() == [f"load {SUN}"]
    assert pulled(tmp_path) == []


def test_images_come_from_the_bundle_before_a_registry(
    cluster: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(bundle.VARIABLE, str(tmp_path / "other"))
    script = tmp_path / "other" / "monitoring" / "images"
    program(script, f'echo "$1" >>{tmp_path}/loaded')
    engine(tmp_path, registry=True)
    monkeypatch.setattr(operators, "_in_nodes", lambda _, image: image == SUN and (tmp_path / "loaded").exists())
    operators.ensure_images(cluster, [SUN, MOON])
    assert (tmp_path / "loaded").read_text() == "town\n"
    assert pulled(tmp_path) == [MOON]
    (script.parent / "images.txt").write_text(f"{CLOCK}\n")  # one that says what it has is not asked for other things
    (tmp_path / "loaded").unlink()
    operators.ensure_images(cluster, ["example/stars:1"])
    assert not (tmp_path / "loaded").exists()
    program(script, "echo 'disk full' >&2; exit 1")
    with pytest.raises(OperatorError, match=r"monitoring/images: exit code 1(.|\n)*disk full"):
        operators.ensure_images(cluster, [CLOCK])


def test_an_image_that_is_nowhere_is_named(cluster: StandIn) -> None:
    with pytest.raises(BundleError, match=rf"image {MOON}: could not be pulled(.|\n)*no such host"):
        operators.ensure_images(cluster, [MOON])


def test_what_one_can_do_without_may_be_missing(
    cluster: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(bundle.VARIABLE, str(tmp_path / "other"))
    program(tmp_path / "other" / "monitoring" / "images", f"touch {tmp_path}/loaded")
    assert not operators.available(cluster, MOON)
    assert not (tmp_path / "loaded").exists()  # whose bundle it is does not say that it has it
    (tmp_path / "other" / "monitoring" / "images.txt").write_text(f"{MOON}\n")
    monkeypatch.setattr(operators, "_in_nodes", lambda _, image: image == MOON and (tmp_path / "loaded").exists())
    assert operators.available(cluster, MOON)
    assert pulled(tmp_path) == [MOON]  # the one attempt before
    engine(tmp_path, registry=True)
    assert operators.available(cluster, SUN)
    assert pulled(tmp_path) == [SUN]
    assert cluster.since() == [f"load {SUN}"]
