"""Pages say what is so: generated ones are generated again and compared, commands exist, links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from exhibit import evidence, scorecard
from exhibit.contract import load_platforms
from exhibit.render import sync
from exhibit.targets.local.deployment import LocalDeployment
from exhibit.workspace import Workspace

ROOT = Path(__file__).resolve().parents[2]
WORKSPACE = Workspace(ROOT)
PLATFORMS = load_platforms(WORKSPACE)
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *WORKSPACE.deployments.glob("*/README.md"),
        ROOT / "scorecard/SCORECARD.md",
    ]
)


@pytest.mark.parametrize("path", sync.render(WORKSPACE), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_generated_files_are_current(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == sync.render(WORKSPACE)[path], "run make sync"


def test_evidence_speaks_of_this_checkout() -> None:
    """That of local, which any machine can renew; of the others the scorecard says that it is stale."""
    stale = {where: why for where, why in scorecard.build(WORKSPACE).stale.items() if where[1] == "local"}
    assert not stale, f"run make demo: {stale}"


def test_evidence_is_of_platforms_and_criteria_there_are() -> None:
    card = scorecard.build(WORKSPACE)
    for found in evidence.read(WORKSPACE):
        assert found.platform in PLATFORMS
        assert found.criterion in card.criteria


@pytest.mark.parametrize("slug", PLATFORMS)
def test_every_criterion_has_a_verdict(slug: str) -> None:
    """On local, where it can be asked there; else on kind, where the platform's operator may not be to be had."""
    card = scorecard.build(WORKSPACE)
    for name, criterion in card.criteria.items():
        target = "local" if criterion.fits(LocalDeployment) else "kind"
        found = card.outcome(slug, name, target)
        assert found is not None, f"{slug} {name}: run make demo TARGET={target}"
        verdicts = ("pass", "fail", "unsupported", *(["not-run"] if "operator" in criterion.uses else []))
        assert found.outcome in verdicts, f"{slug} {name}: {found.message}"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), f"{target} in {path.name}"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_commands_are_make_targets(path: Path) -> None:
    targets = re.findall(r"^([a-z][\w%-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    patterns = [re.compile(target.replace("%", r"[\w<>.-]+") + "$") for target in targets]
    text = path.read_text(encoding="utf-8")
    commands = re.findall(r"(?:^|`)\s*(?:\$ )?make ([a-z][\w<>%-]*)", text, re.MULTILINE)
    for command in commands:
        assert any(pattern.match(command) for pattern in patterns), f"make {command} in {path.name}"


@pytest.mark.parametrize("slug", PLATFORMS)
def test_a_platforms_page_has_its_headings(slug: str) -> None:
    headings = re.findall(
        r"^#+ (.+)$",
        re.sub(r"```.*?```", "", (PLATFORMS[slug].folder / "README.md").read_text(), flags=re.DOTALL),
        re.MULTILINE,
    )
    assert headings == [PLATFORMS[slug].title, "What it is", "Run it", "How it speaks", "Limits", "Copy this"]


def test_gitlab_accepts_the_pipeline() -> None:
    files = [".gitlab-ci.yml", *(path.relative_to(ROOT).as_posix() for path in (ROOT / "ci").glob("*.yml"))]
    argv = ["check-jsonschema", "--builtin-schema", "vendor.gitlab-ci", "--data-transform", "gitlab-ci"]
    done = subprocess.run(
        [Path(sys.executable).parent / argv[0], *argv[1:], *files],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_gitlabs_schema_can_refuse(tmp_path: Path) -> None:
    path = tmp_path / "bad.yml"
    path.write_text("job: {script: [true], retry: 9}\n")
    argv = ["check-jsonschema", "--builtin-schema", "vendor.gitlab-ci", "--data-transform", "gitlab-ci"]
    assert (
        subprocess.run(
            [Path(sys.executable).parent / argv[0], *argv[1:], path], capture_output=True, check=False
        ).returncode
        == 1
    )
