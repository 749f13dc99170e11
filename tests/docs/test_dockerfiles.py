"""Each Dockerfile keeps the rules, and says of a server what the contract says of it: nothing is told in two ways."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import toy

from exhibit import companions, documents
from exhibit.contract import Platform, load_formats, load_platforms
from exhibit.environments import Environment
from exhibit.images import instructions
from exhibit.targets.local.server import process_environment
from exhibit.workspace import Workspace

ROOT = Path(__file__).resolve().parents[2]
WORKSPACE = Workspace(ROOT)
TOYS = Workspace(toy.SOURCE)
DOCKERFILES = sorted(
    path
    for place in ("deployments/*", "monitoring/*", "tests/toy/deployments/*")
    for path in ROOT.glob(f"{place}/Dockerfile")
)
PLATFORMS = [
    platform
    for workspace in (WORKSPACE, TOYS)
    for platform in load_platforms(workspace).values()
    if (platform.folder / "Dockerfile").exists()
]
PORTS = {"main": 8080, "grpc": 8081, "metrics": 8082}
VENV = Environment(Path("/opt/venv"))


@dataclass(frozen=True)
class Dockerfile:
    """The instructions of a Dockerfile: all of them, and those of its last stage."""

    all: list[tuple[str, str]]
    final: list[tuple[str, str]]

    def last(self, keyword: str) -> str | None:
        return next((argument for found, argument in reversed(self.final) if found == keyword), None)

    def words(self, keyword: str) -> list[str]:
        return [word for found, argument in self.final if found == keyword for word in shlex.split(argument)]

    @property
    def environment(self) -> dict[str, str]:
        return dict(word.split("=", 1) for word in self.words("ENV"))


def read(path: Path) -> Dockerfile:
    found = instructions(path.read_text(encoding="utf-8"))
    stages = [at for at, (keyword, _) in enumerate(found) if keyword == "FROM"]
    return Dockerfile(found, found[stages[-1] :])


def values_of(platform: Platform) -> Mapping[str, str]:
    """What the placeholders of platform.yaml stand for in a container."""
    artifact = "/model/" + load_formats(Workspace(platform.folder.parents[1]))[platform.file.artifact].path
    ports = {f"{name}_port": str(PORTS[name]) for name in platform.file.local.ports}
    main = {"host": "0.0.0.0", "port": str(PORTS["main"]), "model": artifact, "model_name": "flight-delay"}
    return {**main, **ports, "scratch": "/tmp"}


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_it_keeps_the_rules(path: Path) -> None:
    found = read(path)
    assert found.all[0] == ("ARG", "BASE"), "the base is named in versions.yaml alone"
    assert {argument.split()[0] for keyword, argument in found.all if keyword == "FROM"} == {"$BASE"}
    assert re.fullmatch(r"([1-9]\d*):([1-9]\d*)", found.last("USER") or ""), "a number, and not root's"
    starts = [json.loads(argument) for keyword, argument in found.final if keyword in ("CMD", "ENTRYPOINT")]
    assert starts
    assert all(isinstance(start, list) for start in starts), "exec form: the server gets the signals itself"
    assert not [keyword for keyword, _ in found.final if keyword in ("ARG", "ADD", "VOLUME")]
    keyword, test = found.final[-1]
    assert keyword == "RUN", "it ends with a self-test"
    assert "version" in json.loads(test)[-1], "that tells versions, without a shell"
    assert [argument for keyword, argument in found.final if keyword == "RUN"] == [test], (
        "only it runs in the last stage"
    )


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_packages_are_the_locked_ones_with_byte_code_and_nobody_keeps_the_index(path: Path) -> None:
    found = read(path)
    installs = [argument for keyword, argument in found.all if keyword == "RUN" and "pip" in argument]
    for install in installs:
        assert "--require-hashes" in install
        assert "compileall" in install
    assert not [argument for _, argument in found.final if "PIP_" in argument]
    assert installs or found.all.count(("FROM", "$BASE")) == 1


@pytest.mark.parametrize("platform", PLATFORMS, ids=lambda platform: platform.slug)
def test_a_platforms_image_runs_what_the_contract_says(platform: Platform) -> None:
    found, values = read(platform.folder / "Dockerfile"), values_of(platform)
    wanted = {**process_environment(platform, VENV, values), "HOST": "0.0.0.0"}
    for inherited in ("LANG", "TMPDIR"):
        wanted.pop(inherited, None)
    if "VIRTUAL_ENV" not in found.environment:  # it has nothing to install
        assert not [argument for keyword, argument in found.all if keyword == "RUN" and "pip" in argument]
        wanted = {name: value for name, value in wanted.items() if name not in ("PATH", "VIRTUAL_ENV")}
    assert found.environment == wanted
    assert json.loads(found.last("CMD") or "") == [part.format_map(values) for part in platform.file.local.command]
    assert found.last("ENTRYPOINT") is None
    assert found.words("WORKDIR") == ["/app"]
    assert found.words("EXPOSE") == [str(PORTS[name]) for name in ("main", *platform.file.local.ports)]
    copied = [tuple(argument.split()) for keyword, argument in found.final if keyword == "COPY"]
    assert {("serve/", "/app/"), ("model/", "/model/")} <= set(copied)


@pytest.mark.parametrize("platform", PLATFORMS, ids=lambda platform: platform.slug)
def test_a_platforms_chart_knows_the_images_ports(platform: Platform) -> None:
    if platform.values.exists():
        told = documents.plain(platform.values).get("ports", {})
        assert {"main": PORTS["main"], **told} == {name: PORTS[name] for name in ("main", *platform.file.local.ports)}


@pytest.mark.parametrize("name", companions.load(WORKSPACE))
def test_a_companions_arguments_follow_its_entrypoint(name: str) -> None:
    companion = companions.load(WORKSPACE)[name]
    found = read(companion.folder / "Dockerfile")
    assert json.loads(found.last("ENTRYPOINT") or "") == companion.file.command[:2]
    assert found.last("CMD") is None, "service.yaml is the one home of its arguments"
    assert found.words("EXPOSE") == [str(PORTS["main"] + at) for at in range(len(companion.file.ports))]
