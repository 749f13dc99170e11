"""versions.yaml: read strictly, each fact with its source, and the same in every file that must repeat it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from exhibit import versions
from exhibit.contract import load_platforms
from exhibit.errors import ContractError, ExhibitError
from exhibit.workspace import Workspace

ROOT = Path(__file__).parents[2]
FOUND = versions.load(Workspace(ROOT))

GOOD = """\
python: ["3.11"]
tools: {kind: "0.27"}
images: {base: "python:3", clock: "example.test:5000/clock:v1"}
sources:
  base: {source: "https://example.test/base", read: 2026-11-25}
  clock: {source: "https://example.test/clock", read: 2026-11-25, unconfirmed: "that it ticks"}
operators:
  clock: {version: v1, licence: MIT, note: apiservice/v1.clock, manifest: clock.yaml}
  tower:
    version: v2
    licence: MIT
    note: namespace/tower
    charts:
      tower: {chart: "oci://example.test/tower", version: "2", namespace: t, source: "https://example.test/t", read: 2026-11-25}
    images: {names: ["example/tower:v2"], source: "https://example.test/t", read: 2026-11-25}
"""  # noqa: E501


def load(folder: Path, text: str) -> versions.Versions:
    (folder / "versions.yaml").write_text(text)
    return versions.load(Workspace(folder))


def test_what_is_right_is_read(tmp_path: Path) -> None:
    found = load(tmp_path, GOOD)
    assert found.operator("tower").charts["tower"].namespace == "t"
    assert dict(found.facts()).keys() == {
        "image python:3",
        "image example.test:5000/clock:v1",
        "images of tower",
        "chart tower 2",
    }


@pytest.mark.parametrize(
    ("was", "put", "told"),
    [
        ("kind: ", "knd: kind: ", "valid YAML"),
        ('"python:3"', '"python:latest"', "its tag always means the same image"),
        ('"python:3"', '"python:latest@sha256:' + "0" * 64 + '"', "its tag always means the same image"),
        ('"python:3"', '"python"', "its tag always means the same image"),
        ('"example/tower:v2"', '"example/tower"', "its tag always means the same image"),
        ('base: "python:3", ', "", "the same names, not base"),
        ('  base: {source: "https://example.test/base", read: 2026-11-25}\n', "", "the same names, not base"),
        ("read: 2026-11-25}\n  clock", 'read: "2026-11-25"}\n  clock', "sources.base.read"),
        ("read: 2026-11-25}\n  clock", "read: 2026-11-25, seen: today}\n  clock", "unknown key 'seen'"),
        ('"https://example.test/base"', '"example.test/base"', "sources.base.source"),
        ("  clock: {version", "  watch: {version", "not so: watch"),
        (", manifest: clock.yaml", "", "a manifest of ours, or charts of others"),
        (
            "    images: {names",
            "    manifest: tower.yaml\n    images: {names",
            "a manifest of ours, or charts of others",
        ),
        ("oci://example.test/tower", "tower", "an oci:// address, or has a repository"),
        (
            "namespace: t,",
            'namespace: t, repository: "https://example.test",',
            "an oci:// address, or has a repository",
        ),
        ("namespace: t,", "namespace: T,", "namespace"),
        ("apiservice/v1.clock", "v1.clock", "operators.clock.note"),
    ],
)
def test_what_is_wrong_is_told(tmp_path: Path, was: str, put: str, told: str) -> None:
    assert was in GOOD
    with pytest.raises(ContractError) as caught:
        load(tmp_path, GOOD.replace(was, put, 1))
    assert told in str(caught.value)


def test_an_operator_that_is_none_is_refused_by_its_name() -> None:
    with pytest.raises(ExhibitError, match=r"operator 'clock': no such operator, expected one of .*kserve"):
        FOUND.operator("clock")


def test_nothing_was_read_in_the_future() -> None:
    assert [about for about, fact in FOUND.facts() if fact.read > date.today()] == []


def test_platforms_ask_for_operators_there_are() -> None:
    for slug, platform in load_platforms(Workspace(ROOT)).items():
        if platform.file.kind:
            assert set(platform.file.kind.operators) <= FOUND.operators.keys(), slug


def references(path: Path) -> Iterator[str]:
    """The images that a file names: `<name>:<tag>`, or a mapping with `repository` and `tag`."""
    if path.suffix == ".yaml":
        for document in YAML(typ="safe").load_all(path.read_text(encoding="utf-8")):
            yield from _in(document)
    else:
        yield from re.findall(r"^FROM (\S+)", path.read_text(encoding="utf-8"), re.MULTILINE)


def _in(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if node.keys() >= {"repository", "tag"} and node["tag"]:
            yield f"{node['repository']}:{node['tag']}"
        for key, value in node.items():
            if key == "image" and isinstance(value, str):
                yield value
            yield from _in(value)
    elif isinstance(node, list):
        for value in node:
            yield from _in(value)


def name_and_tag(reference: str) -> tuple[str, str]:
    name, _, tag = reference.partition("@")[0].rpartition(":")
    return name.removeprefix("docker.io/"), tag


@pytest.mark.parametrize(
    "path",
    [
        ROOT / "kind-config.yaml",
        ROOT / "monitoring" / "metrics-server.yaml",
        *sorted(ROOT.glob("charts/*/values.yaml")),
        *sorted(ROOT.glob("deployments/*/Dockerfile")),
        *sorted(ROOT.glob("monitoring/*/Dockerfile")),
    ],
    ids=lambda path: path.relative_to(ROOT).as_posix(),
)
def test_an_image_has_the_same_tag_everywhere(path: Path) -> None:
    pinned: dict[str, set[str]] = {}
    for reference in FOUND.images.values():
        name, tag = name_and_tag(reference)
        pinned.setdefault(name, set()).add(tag)
    for reference in references(path):
        name, tag = name_and_tag(reference)
        if name in pinned and "$" not in reference:
            assert tag in pinned[name], f"{reference}: versions.yaml has {pinned[name]}"


def test_images_are_found_in_both_ways_of_writing(tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    values.write_text(
        'a: {image: {repository: x/y, tag: "1"}}\nb: [{image: "z:2@sha256:0"}]\nc: {repository: "", tag: ""}'
    )
    assert list(references(values)) == ["x/y:1", "z:2@sha256:0"]
