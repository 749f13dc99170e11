"""How `make test` shares the cores among tests (pytest-xdist), and what it leaves out."""

from __future__ import annotations

import re
from typing import Any

import pytest
import toy
from filelock import FileLock
from xdist.scheduler import LoadScopeScheduling

from exhibit.workspace import Workspace

# These need a Docker engine; `make test-kind` names them.
collect_ignore = ["docker", "kind"]
# These ask one healthy toy, with companions and monitoring, that each worker which runs one of them starts for itself.
# Those that start a toy of their own take the most time, and do not wait for these.
TOGETHER = re.compile(r"tests/criteria/\w+\.py(?!::test_(?:fails_on_a_broken_toy|companions_under))")


class Scheduling(LoadScopeScheduling):
    """Gives a worker that has nothing left to do the next test, or all of those that go together.

    xdist_group, which is made for this, is not heeded by pytest-xdist 3.8 under pytest 9.2.
    """

    def _split_scope(self, nodeid: str) -> str:
        together = TOGETHER.match(nodeid)
        return together[0] if together else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling:
    return Scheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Starts with what takes minutes: last, it would keep one worker busy while the others have nothing left to do."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture(scope="session")
def building() -> FileLock:
    """To be held where an environment of this checkout is asked for: another worker may be building it."""
    state = Workspace(toy.ROOT).state
    state.mkdir(exist_ok=True)
    return FileLock(state / "building")
