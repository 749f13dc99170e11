"""Each companion's own tests, in its own environment, as a team would run them in a copy of its folder."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
import toy
from filelock import FileLock

from exhibit import companions, environments
from exhibit.workspace import Workspace

HERE = Workspace(toy.ROOT)
COMPANIONS = companions.load(HERE)


def run_tests(building: FileLock, name: str, licence: str, *modules: str) -> None:
    libraries, folder = COMPANIONS[name].file.licences[licence], COMPANIONS[name].folder
    if not libraries.runs_here:
        pytest.skip(f"its {licence} libraries need Python {' or '.join(libraries.python or ())}")
    with building:
        environment = environments.ensure(HERE, name, folder / libraries.lock)
    done = subprocess.run(
        [environment.python, "-m", "unittest", *(modules or ["discover"])],
        cwd=folder,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-8000:]
    assert re.search(r"Ran [1-9]\d* tests?", done.stderr), done.stderr


@pytest.mark.long
@pytest.mark.parametrize("name", COMPANIONS)
def test_passes_its_own_tests(name: str, building: FileLock) -> None:
    run_tests(building, name, COMPANIONS[name].licence)


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "licence"),
    [(name, licence) for name, one in COMPANIONS.items() for licence in one.file.licences if licence != one.licence],
)
def test_what_uses_the_library_passes_under_the_other_licence(name: str, licence: str, building: FileLock) -> None:
    """Those of its tests that import a module which imports alibi; the others do not see the difference."""
    sources = {path.stem: path.read_text(encoding="utf-8") for path in COMPANIONS[name].folder.glob("*.py")}
    users = [module for module, text in sources.items() if re.search(r"^from alibi", text, re.MULTILINE)]
    imports = re.compile(rf"^(?:from|import) (?:{'|'.join(users)})\b", re.MULTILINE)
    modules = [module for module, text in sources.items() if module.startswith("test_") and imports.search(text)]
    assert modules, f"no test of {name} uses {users}"
    run_tests(building, name, licence, *modules)


@pytest.mark.parametrize(
    "path", [path for one in COMPANIONS.values() for path in one.folder.glob("*.py")], ids=lambda path: path.stem
)
def test_stands_alone(path: Path) -> None:
    assert "exhibit" not in path.read_text(encoding="utf-8"), f"{path.name} names the engine"
