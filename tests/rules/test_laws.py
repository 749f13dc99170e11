"""The one law and its corollaries: a platform is one folder, a criterion is one file, nothing is listed twice."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from exhibit import criteria, locks, versions
from exhibit.contract import load_platforms
from exhibit.workspace import Workspace

ROOT = Path(__file__).resolve().parents[2]
WORKSPACE = Workspace(ROOT)
PLATFORMS = load_platforms(WORKSPACE)
CRITERIA = criteria.discover(WORKSPACE)


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def test_the_engine_never_names_a_platform() -> None:
    words = [*PLATFORMS, *(slug.split("-")[0] for slug in PLATFORMS)]
    for path in (ROOT / "src").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            text = path.read_text(encoding="utf-8").lower()
            found = [word for word in words if re.search(rf"(?<![a-z]){re.escape(word)}(?![a-z])", text)]
            assert not found, f"{path.relative_to(ROOT)} names {found}"


def test_criteria_name_no_platform_and_no_target() -> None:
    for path in WORKSPACE.criteria.rglob("*.py"):
        text = path.read_text(encoding="utf-8").lower()
        assert not [slug for slug in PLATFORMS if slug in text], path
        assert "deployment.target" not in text, f"{path} asks which target it is on"


def test_facts_stand_in_yaml_and_decisions_not_in_make() -> None:
    recipes = [line for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith("\t")]
    assert not [line for line in recipes if re.search(r"\b(for|if|while|case)\b", line)]
    assert not [line for line in recipes if line.endswith("\\")]


@pytest.mark.parametrize(("name", "lines"), [("README.md", 150), ("Makefile", 70), (".gitlab-ci.yml", 40)])
def test_short_files_stay_short(name: str, lines: int) -> None:
    assert len((ROOT / name).read_text().splitlines()) <= lines


def test_nothing_names_this_machine_or_a_package_index() -> None:
    machine = re.compile(
        r"(?:^|[^\w./-])/(?:work|farm|root|home)/|https?://[^ \"]*/simple/?[\"#\s]|files\.pythonhosted\.org",
        re.MULTILINE,
    )
    for path in tracked():
        text = path.read_bytes().decode("utf-8", errors="ignore")
        if path == Path(__file__):
            continue
        assert not machine.search(text), f"{path.relative_to(ROOT)}: {machine.search(text)}"


def test_no_model_data_is_pickled() -> None:
    assert not [path for path in tracked() if path.suffix in (".pkl", ".pickle", ".joblib")]


@pytest.mark.parametrize("source", locks.sources(WORKSPACE), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_locks_are_fresh(source: Path, tmp_path: Path) -> None:
    lock = source.with_suffix(".txt")
    again = tmp_path / "requirements.txt"
    again.write_text(lock.read_text())
    locks.compile(source, again)
    assert again.read_text() == lock.read_text(), f"{source.relative_to(ROOT)} has changed: run make lock"


def test_the_makefile_shows_help_for_every_target() -> None:
    text = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^([a-z][\w%-]*):", text, re.MULTILINE)
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert [target for target in targets if f"make {target} " not in shown] == []


def test_every_verb_explains_itself() -> None:
    argv = [sys.executable, "-m", "exhibit"]
    helped = subprocess.run(
        [*argv, "--help"], cwd=ROOT, capture_output=True, text=True, check=True, env={"PYTHONPATH": str(ROOT / "src")}
    )
    verbs = re.findall(r"^\s+([a-z]+)\s{2,}\S", helped.stdout, re.MULTILINE)
    assert {"demo", "deploy", "check", "down", "status"} <= set(verbs)


@pytest.mark.parametrize("argv", [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]], ids=" ".join)
def test_style_and_types(argv: list[str]) -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / argv[0], *argv[1:]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_copies_of_the_page_have_not_drifted() -> None:
    """Each folder stands alone and so has its own page: the same, but for where and how it asks."""
    own = re.compile(r'(?<=<form action=")[^"]*|<script>.*?</script>', re.DOTALL)
    pages = {own.sub("", path.read_text(encoding="utf-8")) for path in WORKSPACE.deployments.glob("*/serve/page.html")}
    assert len(pages) == 1


def test_a_version_has_one_home() -> None:
    found = versions.load(WORKSPACE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    supported = SpecifierSet(project["requires-python"])
    assert [minor for minor in range(8, 16) if f"3.{minor}.0" in supported] == [
        int(version.removeprefix("3.")) for version in found.python
    ]
