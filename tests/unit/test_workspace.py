"""One run at a time in a checkout; files are old or new, never half."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from exhibit import interrupts
from exhibit.errors import BusyError
from exhibit.workspace import Workspace, write_atomically


def test_a_second_run_is_told_who_holds_the_lock(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    with (
        workspace.lock(),
        pytest.raises(BusyError, match=rf"\(pid {os.getpid()}\), expected one run at a time.*kill -INT"),
        workspace.lock(),
    ):
        pass
    with workspace.lock():
        pass


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "evidence.json"
    write_atomically(path, "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_interrupts_are_held_back_and_then_felt() -> None:
    seen = []

    def block() -> None:
        with interrupts.deferred():
            os.kill(os.getpid(), signal.SIGTERM)
            seen.append("the block was finished")

    with pytest.raises(KeyboardInterrupt, match="SIGTERM"):
        block()
    assert seen == ["the block was finished"]
