"""Writing model files: whole or not at all, and with bytes that depend on the content alone."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def clean_up_when_ended(program: str) -> None:
    """On SIGINT and SIGTERM, leave by an exception: temporary folders are deleted, and one line is said."""

    def leave(number: int, _: object) -> None:
        sys.exit(f"{program}: ended by {signal.Signals(number).name}; nothing was replaced. Run it again.")

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, leave)


@contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """A temporary folder, beside `folder`, that takes its place if the block ends well and is deleted if not.

    A kill between the two renames leaves no `folder` at all, never a half-written one.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
        (staging := Path(temporary) / "new").mkdir()
        yield staging
        if folder.exists():
            folder.rename(Path(temporary) / "former")
        staging.rename(folder)


def write_text(path: Path, text: str) -> None:
    """Write `path` in one step: readers see the former text or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def write_estimator(estimator: Any, path: Path) -> None:
    """Save as skops, with bytes that depend on the estimator alone.

    skops itself numbers objects by their memory addresses and dates its zip entries: objects are numbered afresh in the
    order of the schema, and entries get zip's first date.
    """
    import skops.io

    numbers: dict[str, int] = {}

    def renumber(node: Any) -> Any:
        if isinstance(node, list):
            return [renumber(item) for item in node]
        if not isinstance(node, dict):
            return node
        node = {key: renumber(value) for key, value in node.items()}
        if "__id__" in node:
            node["__id__"] = numbers.setdefault(str(node["__id__"]), len(numbers))
        if isinstance(node.get("file"), str):
            stem, dot, suffix = node["file"].partition(".")
            node["file"] = f"{numbers.setdefault(stem, len(numbers))}{dot}{suffix}"
        return node

    with tempfile.TemporaryDirectory() as temporary:
        skops.io.dump(estimator, raw := Path(temporary) / "raw.skops")
        with zipfile.ZipFile(raw) as source, zipfile.ZipFile(path, "w") as target:
            schema = renumber(json.loads(source.read("schema.json")))
            contents = {"schema.json": json.dumps(schema, indent=2).encode()}
            for name in source.namelist():
                stem, dot, suffix = name.partition(".")
                if name != "schema.json":
                    contents[f"{numbers[stem]}{dot}{suffix}"] = source.read(name)
            for name, content in sorted(contents.items()):
                target.writestr(zipfile.ZipInfo(name), content)


def folder_sha256(folder: Path, names: Iterable[str] | None = None) -> str:
    """sha256 over the sorted lines "<relative posix path>\\0<file's sha256>\\n" of all files, or of those named."""
    files = [folder / name for name in names] if names else [path for path in folder.rglob("*") if path.is_file()]
    lines = [f"{p.relative_to(folder).as_posix()}\0{hashlib.sha256(p.read_bytes()).hexdigest()}\n" for p in files]
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()
