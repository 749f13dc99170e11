"""An environment is built once for a lock's content; one that cannot be built is one message and leaves nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from exhibit import environments
from exhibit.errors import InstallError
from exhibit.workspace import Workspace


def test_it_is_built_once_and_found_again_by_the_locks_content(tmp_path: Path) -> None:
    workspace, lock = Workspace(tmp_path), tmp_path / "requirements.txt"
    lock.write_text("# nothing\n")
    assert environments.find(workspace, "toy", lock) is None
    built = environments.ensure(workspace, "toy", lock)
    assert built.python.exists()
    marker = built.folder / "marker"
    marker.touch()
    assert environments.ensure(workspace, "toy", lock) == built
    assert marker.exists()
    lock.write_text("# nothing, said otherwise\n")
    assert environments.find(workspace, "toy", lock) is None


def test_no_network_is_one_message_with_uvs_own_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_INDEX_URL", "http://127.0.0.1:9/index")
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/index")
    monkeypatch.setenv("UV_NO_CACHE", "1")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    for name in ("PIP_FIND_LINKS", "UV_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    lock = tmp_path / "requirements.txt"
    lock.write_text("six==1.17.0 --hash=sha256:4721f391ed90541fddacab5acf947aa0d3dc7d27b2e1e8eda2be8970586c3274\n")
    with pytest.raises(
        InstallError, match=r"toy: uv pip ended with exit code \d, expected .* Check the network"
    ) as caught:
        environments.ensure(Workspace(tmp_path), "toy", lock)
    assert "127.0.0.1:9" in caught.value.detail
    assert list((tmp_path / ".work" / "envs").iterdir()) == []


def test_a_lock_without_hashes_is_refused(tmp_path: Path) -> None:
    lock = tmp_path / "requirements.txt"
    lock.write_text("six==1.17.0\n")
    with pytest.raises(InstallError) as caught:
        environments.ensure(Workspace(tmp_path), "toy", lock)
    assert "hash" in caught.value.detail
