"""Whole runs from the command line, in a small checkout of the toy platform; nothing may be left running."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psutil
import pytest
import toy

from exhibit import criteria
from exhibit import model as models
from exhibit.workspace import Workspace

ROOT = toy.ROOT
_IGNORED = shutil.ignore_patterns("__pycache__", "evidence")


class Checkout:
    """A checkout in a temporary folder, and its command line."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace

    def environment(self, changes: Mapping[str, str] | None = None) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(ROOT / "src"), **(changes or {})}

    def run(self, *arguments: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Runs a verb to its end."""
        return subprocess.run(
            [sys.executable, "-m", "exhibit", *arguments], cwd=self.workspace.root, env=self.environment(environment),
            capture_output=True, text=True, check=False, timeout=1200,
        )  # fmt: skip

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Starts a verb whose output can be read as it comes; in a session of its own, as a terminal's job is."""
        return subprocess.Popen(
            [sys.executable, "-m", "exhibit", *arguments], cwd=self.workspace.root, env=self.environment(),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip

    def processes(self) -> list[str]:
        """What still runs out of this checkout."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                place = [*process.cmdline(), process.cwd()]
                if process.status() != psutil.STATUS_ZOMBIE and any(str(self.workspace.root) in one for one in place):
                    found.append(" ".join(process.cmdline()))
        return found

    def evidence(self) -> dict[str, str]:
        """The text of each evidence file by its path."""
        folder = self.workspace.evidence
        return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*.json")}


def complete(workspace: Workspace) -> Workspace:
    """Adds what a run needs beside platform, model and monitoring: criteria, scenarios, pages, a shared Prometheus."""
    for name in ("scorecard", "ci", "docs"):
        shutil.copytree(ROOT / name, workspace.root / name, ignore=_IGNORED)
    for name in ("README.md", "pyproject.toml", "versions.yaml"):
        shutil.copy(ROOT / name, workspace.root)
    # What needs companions, or waits for alerts, is asked of the toy in tests/criteria and of the platforms in whole.
    for criterion in criteria.discover(workspace).values():
        if set(criterion.uses) - {"prometheus"}:
            (workspace.criteria / f"{criterion.id}.py").unlink()
    traffic = workspace.root / "traffic"
    shutil.rmtree(traffic)
    traffic.mkdir()
    (traffic / "steady.yaml").write_text(
        "title: Steady traffic\nflights: january_march\nseed: 1\narrival: poisson\n"
        "phases: [{seconds: 0.5, requests_per_second: 40}]\n"
    )
    (workspace.model / "requirements.txt").write_text("# nothing\n")
    manifest_path = workspace.model / "artifacts" / "manifest.json"
    manifest = json.loads(manifest_path.read_text())
    manifest_path.write_text(json.dumps({**manifest, "inputs_sha256": models.inputs_sha256(workspace)}))
    toy.share_prometheus(workspace)
    return workspace


@pytest.fixture(scope="session")
def environments_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the toy's environment is built once for all tests of the session."""
    return tmp_path_factory.mktemp("environments")


@pytest.fixture
def new_checkout(tmp_path: Path, environments_folder: Path) -> Iterator[Callable[..., Checkout]]:
    """Makes a toy checkout with a fault; nothing of it may run when the test is over."""
    made: list[Checkout] = []

    def new(fault: str = "", edits: Mapping[str, tuple[str, str]] | None = None) -> Checkout:
        workspace = complete(toy.make(tmp_path / "checkout", fault=fault, edits=edits))
        (workspace.state / "envs").symlink_to(environments_folder)
        made.append(Checkout(workspace))
        return made[-1]

    yield new
    for checkout in made:
        left = checkout.processes()
        if left:
            checkout.run("down")
        assert left == []
