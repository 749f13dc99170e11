"""The detectors' own tests, run in their environment as a team would run them in a copy of the folder."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from exhibit import companions, environments
from exhibit.workspace import Workspace

ROOT = Path(__file__).resolve().parents[2]
WORKSPACE = Workspace(ROOT)
NAME = "detectors"
FOLDER = ROOT / "monitoring" / NAME


@pytest.mark.parametrize("licence", companions.load(WORKSPACE)[NAME].file.licences)
def test_the_folder_passes_its_own_tests_with_the_libraries_of(licence: str) -> None:
    companion = companions.load(WORKSPACE)[NAME]
    environment = environments.find(WORKSPACE, NAME, FOLDER / companion.file.licences[licence].lock)
    if environment is None and licence != companion.licence:
        pytest.skip(f"not built: run {companions.LICENCE_VARIABLE}={licence} make prepare")
    assert environment is not None, "not built: run make prepare"
    done = subprocess.run(
        [environment.python, "-m", "unittest", "discover"],
        cwd=FOLDER,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-8000:]


def test_the_folder_stands_alone() -> None:
    for path in FOLDER.glob("*.py"):
        assert "exhibit" not in path.read_text(encoding="utf-8"), f"{path.name} names the engine"
