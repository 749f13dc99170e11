"""What an image is built from: the files of its context, and the name of its base."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from exhibit import digests, versions
from exhibit.companions import Companion
from exhibit.contract import Platform
from exhibit.errors import ExhibitError
from exhibit.model import Model
from exhibit.workspace import Workspace

DOCKERFILE, LOCK = "Dockerfile", "requirements.txt"
LINKS_VARIABLES = ("PIP_FIND_LINKS", "UV_FIND_LINKS")


@dataclass(frozen=True)
class Context:
    """Sources as they are now: a file that changes, comes or goes makes another image of it."""

    sources: Mapping[str, Path]
    """Files and folders, by their path in the context."""
    base: str
    """The image it is built on: build argument ``BASE`` of the Dockerfile."""

    def files(self) -> dict[str, Path]:
        """Every file by its path in the context, sorted."""
        found = {}
        for place, source in self.sources.items():
            for path in source.rglob("*") if source.is_dir() else [source]:
                if path.is_file() and path.parent.name != "__pycache__":
                    found[(Path(place) / path.relative_to(source)).as_posix()] = path
        return dict(sorted(found.items()))

    def digest(self) -> str:
        """Twelve hexadecimal digits over the paths and bytes of all files and the base's name."""
        lines = [f"{place}\0{digests.file_sha256(path)}\n" for place, path in self.files().items()]
        return hashlib.sha256("".join([*lines, self.base]).encode()).hexdigest()[:12]

    def write(self, file: IO[bytes]) -> None:
        """Writes it as a tar archive in which owners, times and modes are the same on every machine."""
        with tarfile.open(fileobj=file, mode="w") as archive:
            for place, path in self.files().items():
                member = tarfile.TarInfo(place)
                member.size, member.mode = path.stat().st_size, 0o644
                with path.open("rb") as content:
                    archive.addfile(member, content)

    @property
    def self_test(self) -> list[str] | None:
        """The command by which the image shows that it can work, if the Dockerfile ends with one."""
        *_, (keyword, argument) = instructions(self.sources[DOCKERFILE].read_text(encoding="utf-8"))
        if keyword != "RUN":
            return None
        return list(json.loads(argument)) if argument.startswith("[") else ["/bin/sh", "-c", argument]


def platform_context(platform: Platform, model: Model, base: str) -> Context:
    """Server, environment and model of a platform.

    Raises:
        ExhibitError: its folder has no Dockerfile.
        ModelError: the model was not exported to the platform's format.
    """
    artifact = model.artifact(platform.file.artifact)
    sources = {"serve": platform.serve, f"model/{artifact.name}": artifact}
    return _context(platform.folder, platform.lock, sources, base)


def companion_context(companion: Companion, base: str) -> Context:
    """A companion's sources with the libraries of the licence that was chosen.

    Raises:
        ExhibitError: its folder has no Dockerfile.
    """
    sources = {path.name: path for pattern in ("*.py", "*.json") for path in companion.folder.glob(pattern)}
    served = {name: path for name, path in sources.items() if not name.startswith("test_")}
    return _context(companion.folder, companion.lock, served, base)


def webhook_context(workspace: Workspace) -> Context:
    """The receiver of alerts.

    Raises:
        ExhibitError: its folder has no Dockerfile.
    """
    folder = workspace.root / "monitoring" / "webhook"
    sources = {"sink.py": Path(__file__).parents[1] / "sink.py"}
    return _context(folder, folder / LOCK, sources, versions.load(workspace).images["base"])


def instructions(dockerfile: str) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile, each its keyword in capitals and its argument on one line."""
    lines = [line for line in dockerfile.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    whole = re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines()
    return [
        (keyword.upper(), argument.strip()) for keyword, _, argument in (line.strip().partition(" ") for line in whole)
    ]


def _context(folder: Path, lock: Path, sources: Mapping[str, Path], base: str) -> Context:
    dockerfile = folder / DOCKERFILE
    if not dockerfile.is_file():
        raise ExhibitError(
            f"{folder.parent.name}/{folder.name}/{DOCKERFILE}",
            "no such file",
            "what its image is built by",
            "Write it.",
        )
    return Context({DOCKERFILE: dockerfile, LOCK: lock, **_local_wheels(lock), **sources}, base)


def _local_wheels(lock: Path) -> dict[str, Path]:
    """The wheels of this machine's find-links folders that `lock` names by their digest, as ``wheels/<name>``.

    A build cannot see these folders, and the index may have no such wheel (or only a much larger one).
    """
    text, found = lock.read_text(encoding="utf-8"), {}
    folders = re.split(r"[\s,]+", " ".join(os.environ.get(name, "") for name in LINKS_VARIABLES))
    for wheel in sorted(
        path for folder in folders if folder for path in Path(folder.removeprefix("file://")).glob("*.whl")
    ):
        try:
            name, *_ = parse_wheel_filename(wheel.name)
        except InvalidWheelFilename:
            continue
        if re.search(rf"^{name}==", text, re.MULTILINE) and f"sha256:{digests.file_sha256(wheel)}" in text:
            found[f"wheels/{wheel.name}"] = wheel
    return found
