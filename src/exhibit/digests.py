"""sha256 of files and folders: the identity of what was served and of the folder that served it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

# Left behind by running Python in a folder; a README explains a folder and does not change what it serves.
_IGNORED_FOLDERS = frozenset({"__pycache__", ".ruff_cache", ".mypy_cache", ".pytest_cache"})
_IGNORED_FILES = frozenset({"README.md"})


def file_sha256(path: Path) -> str:
    """Hexadecimal sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_sha256(root: Path, paths: Iterable[Path]) -> str:
    """sha256 over the sorted lines ``<path relative to root>\\0<sha256 of the file>\\n``."""
    lines = sorted(f"{path.relative_to(root).as_posix()}\0{file_sha256(path)}\n" for path in paths)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def path_sha256(path: Path) -> str:
    """sha256 of a file, or of all files of a folder."""
    if path.is_dir():
        return files_sha256(path, (file for file in path.rglob("*") if file.is_file()))
    return file_sha256(path)


def folder_sha256(folder: Path) -> str:
    """sha256 of what a platform's folder holds, leaving out its README and what running it leaves behind."""
    return files_sha256(
        folder,
        (
            file
            for file in folder.rglob("*")
            if file.is_file()
            and file.name not in _IGNORED_FILES
            and not _IGNORED_FOLDERS & set(file.relative_to(folder).parts)
        ),
    )
