"""`make test` runs without Docker; what needs it, tests/docker and tests/kind, is run by `make test-kind`."""

from __future__ import annotations

import ast

import pytest
import toy

from exhibit import cluster
from exhibit.workspace import Workspace


def test_the_part_that_needs_docker_is_left_to_make_test_kind(request: pytest.FixtureRequest) -> None:
    """This machine could run it; it is skipped, with the reason and the number of tests, where it could not."""
    files = sorted(path for name in ("docker", "kind") for path in (toy.ROOT / "tests" / name).glob("test_*.py"))
    functions = [
        node for path in files for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)
    ]
    count = sum(function.name.startswith("test_") for function in functions)
    assert count
    if "tests/kind" not in " ".join(request.config.args):
        assert not [item for item in request.session.items if item.path in files]
    try:
        cluster.check_tools(Workspace(toy.ROOT))
    except cluster.ClusterError as error:
        reasons = "; ".join([error.line(), *error.detail.splitlines()])
        left = f"{count} tests of tests/docker and tests/kind"
        pytest.skip(f"{left} cannot be run on this machine by `make test-kind`: {reasons}")
