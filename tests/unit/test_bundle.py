"""Bundles: made with stand-ins for helm and docker, installed with some for kind and kubectl; nothing is pulled."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from exhibit import bundle
from exhibit.bundle import BundleError
from exhibit.errors import ExhibitError
from exhibit.workspace import Workspace

VERSIONS = """\
python: ["3.11"]
tools: {}
images: {base: "python:3", node: "example/node:v1.36.1@sha256:%s", clock: "example/clock:v1"}
sources:
  base: &fact {source: "https://example.test/", read: 2026-11-25}
  node: *fact
  clock: *fact
operators:
  clock: {version: v1, licence: MIT, note: apiservice/v1.clock, manifest: clock.yaml}
  tower:
    version: v2
    licence: Of Babel
    note: namespace/tower
    charts:
      ground: {<<: *fact, chart: "oci://example.test/ground", version: "1", namespace: below}
      tower:
        <<: *fact
        chart: tower
        repository: https://example.test/charts
        version: "2"
        namespace: above
        values: {floors: 7}
        workloads: [statefulset/storeys]
    images: {<<: *fact, names: ["example/ground:1", "example/tower:2"]}
""" % ("0" * 64)
GROUND = """\
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: stones.example.test}
---
# nothing but a comment
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: mason, namespace: below}
spec: {template: {spec: {initContainers: [{image: "example/ground:1"}], containers: [{image: "example/ground:1"}]}}}
"""
TOWER = "kind: Stone\nmetadata: {name: first}\nspec: {image: example/quarry:9}\n"


def program(path: Path, script: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


class Machine:
    """A machine whose programs are stand-ins that note how they were called."""

    def __init__(self, folder: Path) -> None:
        self.bin, self.calls = folder / "bin", folder / "calls"
        (folder / "ground.yaml").write_text(GROUND)
        (folder / "tower.yaml").write_text(TOWER)
        self.folder = folder
        self.stand_in("helm", f'cat >>{folder}/values; cat "{folder}/$2.yaml"')
        self.stand_in("docker", 'for each; do case $each in --output=*) echo saved >"${each#--output=}";; esac; done')

    def stand_in(self, name: str, script: str = "exit 0") -> None:
        program(self.bin / name, f'echo "{name} $*" >>{self.calls}\n{script}')

    def said(self) -> list[str]:
        """The calls since the last time."""
        lines = self.calls.read_text().splitlines() if self.calls.exists() else []
        self.calls.unlink(missing_ok=True)
        return lines


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    found = Machine(tmp_path)
    monkeypatch.setenv("PATH", f"{found.bin}:/usr/bin:/bin")
    monkeypatch.delenv(bundle.VARIABLE, raising=False)
    return found


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    (tmp_path / "versions.yaml").write_text(VERSIONS)
    return Workspace(tmp_path)


def silent(_: str) -> None:
    return None


def test_a_bundle_holds_manifests_images_and_the_scripts_for_both(workspace: Workspace, machine: Machine) -> None:
    heard: list[str] = []
    bundle.make(workspace, [], heard.append)
    place = workspace.state / "bundle"
    assert sorted(os.listdir(place)) == ["monitoring", "tower"]
    assert sorted(path.name for path in (place / "tower").rglob("*") if path.is_file()) == [
        "1-ground.waits",
        "1-ground.yaml",
        "2-tower.waits",
        "2-tower.yaml",
        "contents.json",
        "images.tar",
        "images.txt",
        "install",
    ]
    assert (place / "tower" / "manifests" / "1-ground.yaml").read_text().endswith(f"---\n{GROUND}")
    assert '"name": "below"' in (place / "tower" / "manifests" / "1-ground.yaml").read_text().splitlines()[0]
    assert (place / "tower" / "manifests" / "2-tower.waits").read_text().splitlines() == [
        "wait --timeout=300s --for=create --namespace=above statefulset/storeys",
        "rollout status --timeout=300s --namespace=above statefulset/storeys",
    ]
    assert (place / "tower" / "images.txt").read_text().split() == ["example/ground:1", "example/tower:2"]
    assert (place / "monitoring" / "images.txt").read_text().split() == ["example/clock:v1"]
    for script in ("tower/install", "monitoring/images"):
        assert os.access(place / script, os.X_OK), script
    assert "tower v2, licence: Of Babel" in heard
    said = machine.said()
    options = "--kube-version=v1.36.1 --include-crds --skip-tests --values=-"
    assert said[:2] == [
        f"helm template ground oci://example.test/ground --version=1 --namespace=below {options}",
        f"helm template tower tower --repo=https://example.test/charts --version=2 --namespace=above {options}",
    ]
    assert said[2:4] == ["docker pull --quiet example/ground:1", "docker pull --quiet example/tower:2"]
    assert (machine.folder / "values").read_text() == '{}{"floors": 7}'


def test_what_is_there_is_kept_until_it_is_to_be_something_else(workspace: Workspace, machine: Machine) -> None:
    bundle.make(workspace, [], silent)
    machine.said()
    bundle.make(workspace, [], silent)
    assert machine.said() == []
    versions = workspace.root / "versions.yaml"
    versions.write_text(VERSIONS.replace("read: 2026-11-25", "read: 2026-11-26"))
    bundle.make(workspace, [], silent)
    assert machine.said() == []
    versions.write_text(VERSIONS.replace("floors: 7", "floors: 8"))
    bundle.make(workspace, [], silent)
    assert [line.split()[0] for line in machine.said()] == ["helm", "helm", "docker", "docker", "docker", "docker"]
    assert sorted(os.listdir(workspace.state / "bundle")) == ["monitoring", "tower"]


def test_only_what_is_named_is_made(workspace: Workspace, machine: Machine) -> None:
    bundle.make(workspace, ["monitoring"], silent)
    assert os.listdir(workspace.state / "bundle") == ["monitoring"]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("clock", "It needs no bundle: clock.yaml is enough"),
        ("towre", "operator 'towre': no such operator, expected one of clock, tower"),
    ],
)
def test_what_cannot_be_in_a_bundle_is_refused_before_anything_is_done(
    workspace: Workspace, machine: Machine, name: str, told: str
) -> None:
    with pytest.raises(ExhibitError, match=told):
        bundle.make(workspace, ["tower", name], silent)
    assert machine.said() == []


@pytest.mark.parametrize(
    ("failing", "script", "told"),
    [
        ("helm", "echo 'lookup example.test: no such host' >&2; exit 1", "chart oci://example.test/ground 1"),
        ("helm", f'[ "$2" = ground ] && echo "{GROUND}" && exit 0; exit 1', "chart tower 2 of https://example.test/ch"),
        ("docker", "echo 'lookup example.test: no such host' >&2; exit 1", "image example/ground:1"),
        ("docker", '[ "$3" = example/tower:2 ] || exit 0; exit 1', "image example/tower:2"),
    ],
)
def test_what_cannot_be_pulled_is_named_with_the_way_out(
    workspace: Workspace, machine: Machine, failing: str, script: str, told: str
) -> None:
    machine.stand_in(failing, script)
    with pytest.raises(BundleError) as caught:
        bundle.make(workspace, ["tower"], silent)
    assert str(caught.value).startswith(told)
    assert "could not be pulled" in str(caught.value)
    assert "set EXHIBIT_BUNDLE to it" in str(caught.value)
    if "no such host" in script:
        assert "lookup example.test: no such host" in str(caught.value)
    assert os.listdir(workspace.state / "bundle") == []


def test_a_failure_leaves_the_part_that_was_there(workspace: Workspace, machine: Machine) -> None:
    bundle.make(workspace, [], silent)
    (workspace.root / "versions.yaml").write_text(VERSIONS.replace("floors: 7", "floors: 8"))
    machine.stand_in("docker", "exit 1")
    with pytest.raises(BundleError):
        bundle.make(workspace, [], silent)
    contents = json.loads((workspace.state / "bundle" / "tower" / "contents.json").read_text())
    assert contents["charts"]["tower"]["values"] == {"floors": 7}
    assert sorted(os.listdir(workspace.state / "bundle")) == ["monitoring", "tower"]


def test_a_missing_program_is_named(workspace: Workspace, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    (machine.bin / "helm").unlink()
    monkeypatch.setenv("PATH", str(machine.bin))
    with pytest.raises(BundleError, match="helm on PATH"):
        bundle.make(workspace, ["tower"], silent)


def test_a_chart_that_runs_an_image_nobody_pinned_is_refused(workspace: Workspace, machine: Machine) -> None:
    (machine.folder / "ground.yaml").write_text(GROUND.replace("example/ground:1", "example/ground:1.1", 1))
    with pytest.raises(BundleError, match=r"chart ground 1: runs image example/ground:1\.1"):
        bundle.make(workspace, ["tower"], silent)


def test_what_somebody_else_made_is_not_replaced(
    workspace: Workspace, machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path / "other" / "tower" / "install", "exit 0")
    monkeypatch.setenv(bundle.VARIABLE, str(tmp_path / "other"))
    with pytest.raises(BundleError, match="not made by `make bundle`"):
        bundle.make(workspace, ["tower"], silent)
    assert os.listdir(tmp_path / "other" / "tower") == ["install"]
    assert bundle.install_script(workspace, "tower", silent) == tmp_path / "other" / "tower" / "install"


def test_an_archive_is_of_one_platform_where_the_engine_can_be_asked_for_it(machine: Machine, tmp_path: Path) -> None:
    bundle.save(["example/a:1", "example/b:2"], tmp_path / "a.tar")
    assert machine.said()[-1] == f"docker save --output={tmp_path}/a.tar example/a:1 example/b:2"
    machine.stand_in("docker", 'case "$*" in *--help) echo "  --platform string";; version*) echo linux/arm64;; esac')
    bundle.save(["example/a:1"], tmp_path / "a.tar")
    assert machine.said()[-1] == f"docker save --platform=linux/arm64 --output={tmp_path}/a.tar example/a:1"


def test_what_is_waited_for_is_told_by_the_objects() -> None:
    manifest = GROUND + (
        "---\nkind: StatefulSet\nmetadata: {name: s}\n---\nkind: DaemonSet\nmetadata: {name: d, namespace: n}\n"
        "---\nkind: APIService\nmetadata: {name: v1.a}\n---\nkind: ConfigMap\nmetadata: {name: c, annotations: null}\n"
        "---\nkind: ValidatingWebhookConfiguration\n"
        "metadata: {name: w, annotations: {cert-manager.io/inject-ca-from: n/c}}\n"
    )
    assert [" ".join(line) for line in bundle.waits(manifest)] == [
        "wait --timeout=300s --for=condition=Established customresourcedefinition/stones.example.test",
        "rollout status --timeout=300s --namespace=below deployment/mason",
        "rollout status --timeout=300s --namespace=default statefulset/s",
        "rollout status --timeout=300s --namespace=n daemonset/d",
        "wait --timeout=300s --for=condition=Available apiservice/v1.a",
        "wait --timeout=300s --for=jsonpath={.webhooks[0].clientConfig.caBundle} validatingwebhookconfiguration/w",
    ]


# The scripts, which stand alone.


@pytest.fixture
def installed(workspace: Workspace, machine: Machine) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a script of a bundle that was carried elsewhere."""
    bundle.make(workspace, [], silent)
    elsewhere = machine.folder / "else where"
    (workspace.state / "bundle").rename(elsewhere)
    for name in ("kind", "kubectl", "sleep"):
        machine.stand_in(name)
    machine.said()

    def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(elsewhere / script), *arguments], cwd="/", capture_output=True, text=True, check=False
        )

    return run


def test_an_operator_is_installed_in_order(
    installed: Callable[..., subprocess.CompletedProcess[str]], machine: Machine
) -> None:
    done = installed("tower/install", "town")
    assert done.returncode == 0, done.stderr
    place = f"{machine.folder}/else where/tower"
    assert machine.said() == [
        f"kind load image-archive --name town {place}/images.tar",
        f"kubectl apply --server-side --force-conflicts -f {place}/manifests/1-ground.yaml",
        "kubectl wait --timeout=300s --for=condition=Established customresourcedefinition/stones.example.test",
        "kubectl rollout status --timeout=300s --namespace=below deployment/mason",
        f"kubectl apply --server-side --force-conflicts -f {place}/manifests/2-tower.yaml",
        "kubectl wait --timeout=300s --for=create --namespace=above statefulset/storeys",
        "kubectl rollout status --timeout=300s --namespace=above statefulset/storeys",
    ]


def test_a_manifest_is_applied_again_until_the_cluster_takes_it(
    installed: Callable[..., subprocess.CompletedProcess[str]], machine: Machine
) -> None:
    machine.stand_in("kubectl", f'[ "$1" != apply ] || [ $(grep -c "kubectl apply" {machine.calls}) -ge 4 ]')
    assert installed("tower/install", "town").returncode == 0
    assert [line.split()[0:2] for line in machine.said()].count(["sleep", "2"]) == 3
    machine.stand_in("kubectl", "echo 'no kind Stone is served' >&2; exit 1")
    done = installed("tower/install", "town")
    assert done.returncode != 0
    assert "no kind Stone is served" in done.stderr
    assert 20 <= len([line for line in machine.said() if line.startswith("kubectl")]) <= 40


def test_what_does_not_get_ready_is_a_failure(
    installed: Callable[..., subprocess.CompletedProcess[str]], machine: Machine
) -> None:
    machine.stand_in("kubectl", '[ "$1" != rollout ]')
    assert installed("tower/install", "town").returncode != 0
    assert "2-tower" not in "".join(machine.said())
    machine.stand_in("kind", "echo 'no nodes found' >&2; exit 1")
    assert "no nodes found" in installed("tower/install", "town").stderr
    assert machine.said()[1:] == []
    assert "usage: install CLUSTER" in installed("tower/install").stderr


def test_images_go_into_the_engine_or_into_a_cluster(
    installed: Callable[..., subprocess.CompletedProcess[str]], machine: Machine
) -> None:
    archive = f"{machine.folder}/else where/monitoring/images.tar"
    assert installed("monitoring/images").stdout == "example/clock:v1\n"
    assert machine.said() == [f"docker load --quiet --input {archive}"]
    assert installed("monitoring/images", "town").stdout == "example/clock:v1\n"
    assert machine.said() == [f"kind load image-archive --name town {archive}"]
    machine.stand_in("kind", "exit 1")
    assert installed("monitoring/images", "town").returncode != 0
