"""Each companion's own tests, in its own environment, with the libraries of each licence."""

from __future__ import annotations

import os
import subprocess

import pytest
import toy

from exhibit import companions, environments
from exhibit.workspace import Workspace

HERE = Workspace(toy.ROOT)
COMPANIONS = companions.load(HERE)


@pytest.mark.parametrize(
    ("name", "licence"), [(name, licence) for name, one in COMPANIONS.items() for licence in one.file.licences]
)
def test_passes_its_own_tests(name: str, licence: str) -> None:
    libraries, folder = COMPANIONS[name].file.licences[licence], COMPANIONS[name].folder
    if not libraries.runs_here:
        pytest.skip(f"its {licence} libraries need Python {' or '.join(libraries.python or ())}")
    environment = environments.ensure(HERE, name, folder / libraries.lock)
    done = subprocess.run(
        [environment.python, "-m", "unittest", "discover"],
        cwd=folder,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-8000:]
    assert "OK" in done.stderr


@pytest.mark.parametrize("name", COMPANIONS)
def test_stands_alone(name: str) -> None:
    for path in COMPANIONS[name].folder.glob("*.py"):
        assert "exhibit" not in path.read_text(encoding="utf-8"), f"{path.name} names the engine"
