"""Where things lie in a checkout, and the lock that keeps two runs apart."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from exhibit.errors import BusyError

# A list of nothing but numbers, as json.dumps indents it. In a string a line break is escaped, so that none is found.
_NUMBERS = re.compile(r"\[\n[\s\d.,eE+-]+\]")


@dataclass(frozen=True)
class Workspace:
    """The paths of one checkout; everything a run leaves behind lies under ``state`` (git-ignored)."""

    root: Path

    @property
    def state(self) -> Path:
        return self.root / ".work"

    @property
    def deployments(self) -> Path:
        return self.root / "deployments"

    @property
    def model(self) -> Path:
        return self.root / "model"

    @property
    def charts(self) -> Path:
        return self.root / "charts"

    @property
    def criteria(self) -> Path:
        return self.root / "scorecard" / "criteria"

    @property
    def evidence(self) -> Path:
        return self.root / "scorecard" / "evidence"

    def relative(self, path: Path) -> str:
        """`path` as a reader of the repository names it; absolute if it lies outside."""
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)

    def deployment_state(self, platform: str, target: str) -> Path:
        return self.state / platform / target

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Holds the workspace for one run.

        Raises:
            BusyError: another run holds it; the message names that run's pid.
        """
        self.state.mkdir(parents=True, exist_ok=True)
        holder = self.state / "lock.pid"
        lock = FileLock(self.state / "lock")
        try:
            with lock.acquire(timeout=0):
                holder.write_text(str(os.getpid()))
                yield
        except Timeout:
            pid = holder.read_text().strip() if holder.exists() else "unknown"
            raise BusyError(
                self.relative(self.state / "lock"),
                f"held by another run (pid {pid})",
                "one run at a time in a checkout",
                f"Wait for it to end, or interrupt it with: kill -INT {pid}",
            ) from None


def write_atomically(path: Path, text: str) -> None:
    """Writes `text` so that a reader sees the old file or the new one, never a half; a full disk leaves the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """`value` as JSON with the key order of its dictionaries kept, so that diffs show only what changed.

    A list of numbers takes one line, however long: one a line, a run's samples would be most of a repository.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False)
    write_atomically(path, _NUMBERS.sub(lambda found: " ".join(found[0].split()), text) + "\n")
