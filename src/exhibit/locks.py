"""Locks: hashed requirement files made from ``requirements.in`` by uv, without addresses of any index."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from exhibit.errors import InstallError
from exhibit.workspace import Workspace

_OPTIONS = (
    "--universal",
    "--python-version",
    "3.11",
    "--generate-hashes",
    "--no-emit-index-url",
    "--no-emit-find-links",
    "--no-annotate",
    "--custom-compile-command",
    "make lock",
    "--quiet",
)


def sources(workspace: Workspace) -> list[Path]:
    """Every requirements.in of the checkout: the engine's, the model's, each platform's, each companion's."""
    folders = (
        workspace.root,
        workspace.model,
        *workspace.deployments.glob("*"),
        *workspace.deployments.glob("*/explainer"),
        *workspace.root.glob("monitoring/*"),
    )
    return sorted(source for folder in folders for source in folder.glob("requirements*.in"))


def compile(source: Path, lock: Path) -> None:
    """Locks `source` into `lock`, keeping the versions that `lock` already names where they still fit.

    Raises:
        InstallError: no solution, or no package index.
    """
    uv = Path(sys.executable).parent / "uv"
    links = os.environ.get("PIP_FIND_LINKS")
    done = subprocess.run(
        [str(uv), "pip", "compile", *_OPTIONS, source.name, "--output-file", str(lock)],
        cwd=source.parent,
        text=True,
        capture_output=True,
        check=False,
        env={**({"UV_FIND_LINKS": links} if links else {}), **os.environ},
    )
    if done.returncode:
        raise InstallError(
            str(source), "cannot be locked", "versions that fit together", "Read uv's words below.", done.stderr
        )
