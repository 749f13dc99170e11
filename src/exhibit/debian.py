"""Programs of a Debian package, for use without root: those of PATH, else unpacked into a folder, nothing installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from exhibit.errors import ExhibitError

SECONDS = 120


class PackageMissing(ExhibitError):
    """The programs of a package cannot be had on this machine."""


@dataclass(frozen=True)
class Package:
    """A Debian package and those of its programs that are wanted."""

    name: str
    programs: Sequence[Sequence[str]]
    """The names each program goes by, in the order they are looked for; the first is run once, to see that it can."""
    adapt: Callable[[Path], None] | None = None
    """Changes the unpacked folder where its programs expect to be installed."""

    def title(self) -> str:
        """The programs as a reader knows them."""
        return " and ".join(names[0] for names in self.programs)


def find_or_unpack(package: Package, cache: Path) -> Path:
    """The folder that holds the programs of `package`: that of PATH if it has all; else one in `cache`, filled once.

    Raises:
        PackageMissing: neither is to be had; the message has the reason and the remedy.
    """
    for name in package.programs[0]:
        found = shutil.which(name)
        if found and _complete(Path(found).parent, package):
            return Path(found).parent
    binaries = cache / "usr" / "bin"
    if not _complete(binaries, package):
        cache.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache.parent, prefix=f".{cache.name}.") as scratch:
            unpacked = _unpack(package, _download(package, Path(scratch)), Path(scratch) / "unpacked")
            _put(package, unpacked, cache)
    return binaries


def program(binaries: Path, names: Sequence[str]) -> Path:
    """The program in `binaries` that goes by the first of `names` that is there; by the first name, if none is."""
    return next((path for name in names if os.access(path := binaries / name, os.X_OK)), binaries / names[0])


def _put(package: Package, unpacked: Path, cache: Path) -> None:
    """Moves the folder into place at once; where another run was faster, its folder stays: both hold the same."""
    if not _complete(cache / "usr" / "bin", package):
        shutil.rmtree(cache, ignore_errors=True)
        try:
            unpacked.rename(cache)
        except OSError:
            if not _complete(cache / "usr" / "bin", package):
                raise


def _complete(folder: Path, package: Package) -> bool:
    return all(os.access(program(folder, names), os.X_OK) for names in package.programs)


def _download(package: Package, scratch: Path) -> Path:
    """The Debian package, fetched with the machine's package lists or, if those are missing or stale, with own ones."""
    apt = ["apt-get", "-oAcquire::Retries=1", "-oAcquire::http::Timeout=20"]
    reason = _run([*apt, "download", package.name], scratch)
    if reason is not None and shutil.which("apt-get"):
        lists, archives = scratch / "lists", scratch / "cache"
        for folder in (lists / "partial", archives / "archives" / "partial"):
            folder.mkdir(parents=True)
        # As root, apt hands downloads to a user of its own that may not write here.
        apt += [f"-oDir::State::lists={lists}", f"-oDir::Cache={archives}", "-oAPT::Sandbox::User=root"]
        # A list that cannot be had is a warning to apt; as an error it is the reason to tell, if it comes to that.
        outdated = _run([*apt, "-oAPT::Update::Error-Mode=any", "update"], scratch)
        reason = _run([*apt, "download", package.name], scratch)
        reason = reason and (outdated or reason)
    archives_found = sorted(scratch.glob(f"{package.name}_*.deb"))
    if reason is not None or not archives_found:
        raise _missing(package, reason or "apt-get downloaded nothing")
    return archives_found[-1]


def _unpack(package: Package, archive: Path, folder: Path) -> Path:
    binaries = folder / "usr" / "bin"
    reason = _run(["dpkg-deb", "-x", str(archive), str(folder)], archive.parent)
    if reason is None and not _complete(binaries, package):
        reason = f"{archive.name} does not hold them"
    if reason is None and package.adapt:
        package.adapt(folder)
    # A package for another system unpacks well and does not run.
    reason = reason or _run([str(program(binaries, package.programs[0])), "--version"], archive.parent)
    if reason is not None:
        raise _missing(package, reason)
    return folder


def _run(argv: Sequence[str], cwd: Path) -> str | None:
    """Runs a command; why it failed, in one line, or None."""
    try:
        done = subprocess.run(
            argv,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS,
            check=False,
        )
    except OSError as error:
        return f"{Path(argv[0]).name}: {error.strerror}"
    except subprocess.TimeoutExpired:
        return f"{Path(argv[0]).name}: not done after {SECONDS} s"
    if done.returncode == 0:
        return None
    said = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    # apt names its errors "E:", after any number of warnings.
    errors = [line for line in said if line.startswith("E:")] or said or [f"exit code {done.returncode}"]
    return f"{Path(argv[0]).name}: {errors[0]}"


def _missing(package: Package, reason: str) -> PackageMissing:
    return PackageMissing(
        package.name,
        f"not on PATH, and its Debian package could not be unpacked ({reason})",
        package.title(),
        f"Install the Debian package {package.name}, or put the folder of both programs on PATH.",
    )
