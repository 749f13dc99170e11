"""One virtual environment per lock: built once, found again by the lock's content."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from exhibit.errors import InstallError
from exhibit.workspace import Workspace

_READY = ".ready"


@dataclass(frozen=True)
class Environment:
    """A built virtual environment."""

    folder: Path

    @property
    def bin(self) -> Path:
        return self.folder / "bin"

    @property
    def python(self) -> Path:
        return self.bin / "python"


def find(workspace: Workspace, name: str, lock: Path) -> Environment | None:
    """The environment of `lock`, if it was built before."""
    folder = _folder(workspace, name, lock)
    return Environment(folder) if (folder / _READY).exists() else None


def ensure(workspace: Workspace, name: str, lock: Path) -> Environment:
    """The environment of `lock`, built with byte code compiled if there is none yet.

    Without byte code each start of a server recompiles its libraries: start-up is 3 to 8 times slower
    (and PYTHONDONTWRITEBYTECODE, set on some machines, keeps it so for ever).

    Raises:
        InstallError: the lock could not be installed; no half-built environment is left.
    """
    found = find(workspace, name, lock)
    if found:
        return found
    folder = _folder(workspace, name, lock)
    shutil.rmtree(folder, ignore_errors=True)
    try:
        _uv(name, "venv", "--quiet", "--python", sys.executable, str(folder))
        _uv(
            name, "pip", "sync", "--quiet", "--compile-bytecode", "--require-hashes", "--python", str(folder), str(lock)
        )
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    (folder / _READY).touch()
    return Environment(folder)


def _folder(workspace: Workspace, name: str, lock: Path) -> Path:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    content = hashlib.sha256(lock.read_bytes() + version.encode()).hexdigest()[:12]
    return workspace.state / "envs" / f"{name}-{content}"


def _uv(name: str, *arguments: str) -> None:
    # uv is part of the engine's own environment, so its version is locked like every other.
    uv = Path(sys.executable).parent / "uv"
    # pip's find-links, where a machine sets one, holds wheels that the index has only in much larger builds.
    found_links = {"UV_FIND_LINKS": links} if (links := os.environ.get("PIP_FIND_LINKS")) else {}
    environment = {**found_links, **os.environ}
    done = subprocess.run(
        [str(uv) if uv.exists() else "uv", *arguments], env=environment, text=True, capture_output=True, check=False
    )
    if done.returncode:
        raise InstallError(
            name,
            f"uv {arguments[0]} ended with exit code {done.returncode}",
            "the environment to be installed",
            "Check the network (a package index must be reachable) and the free disk space, then run it again.",
            "\n".join(done.stderr.strip().splitlines()[-20:]),
        )
