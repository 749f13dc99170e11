"""The local target, shown by the toy: a server that never serves is told, and nothing is left of it."""

from __future__ import annotations

from pathlib import Path

import pytest

import toy
from exhibit import model as models
from exhibit import processes
from exhibit.contract import load_platforms
from exhibit.errors import ServerError
from exhibit.monitoring import Monitoring
from exhibit.targets.local import LocalTarget


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("dies_at_once", r"ended by itself with exit code 1.*\n.*the toy was told to end at once"),
        ("never_ready", r"not ready after 3 s: answered 503"),
    ],
)
def test_a_server_that_never_serves_is_told_and_leaves_nothing(tmp_path: Path, fault: str, says: str) -> None:
    edits = {"platform.yaml": ("ready_seconds: 20", "ready_seconds: 3")}
    workspace = toy.make(tmp_path, fault=fault, edits=edits)
    target = LocalTarget(workspace, models.load(workspace), Monitoring(workspace))
    with pytest.raises(ServerError, match=says):
        target.deploy(load_platforms(workspace)[toy.SLUG])
    assert processes.noted(workspace.state) == []
