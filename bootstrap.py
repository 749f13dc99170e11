"""Builds the engine's own environment (.work/engine) with nothing but Python 3.11 or 3.12: called by the Makefile.

uv is taken from PATH, else installed at the version locked in requirements.txt into a folder of the project.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
STATE = ROOT / ".work"
LOCK = ROOT / "requirements.txt"
# A flat line of YAML, read without a YAML library: nothing is installed yet.
SUPPORTED = [
    (int(major), int(minor))
    for line in (ROOT / "versions.yaml").read_text().splitlines()
    if line.startswith("python:")
    for major, minor in re.findall(r"(\d+)\.(\d+)", line)
]


def interpreter() -> str:
    """A supported Python: the one running this, else one on PATH."""
    if sys.version_info[:2] in SUPPORTED:
        return sys.executable
    for major, minor in SUPPORTED:
        # A version manager's shim may be on PATH for a version that is not installed: ask it.
        found = shutil.which(f"python{major}.{minor}")
        if found and subprocess.run([found, "-V"], capture_output=True, check=False).returncode == 0:
            return found
    raise SystemExit(
        f"python: found {sys.version.split()[0]}, expected {' or '.join(f'{x}.{y}' for x, y in SUPPORTED)}. "
        "Install one of them, or name it: make PYTHON=/path/to/python"
    )


def uv() -> str:
    """uv from PATH, else from an environment of its own."""
    found = shutil.which("uv")
    if found:
        return found
    folder = STATE / "uv"
    if not (folder / "bin" / "uv").exists():
        version = re.search(r"^uv==(\S+)", LOCK.read_text(), re.MULTILINE)
        assert version, f"{LOCK.name} does not lock uv"
        venv.create(folder, with_pip=True, clear=True)
        run(str(folder / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", f"uv=={version[1]}")
    return str(folder / "bin" / "uv")


def run(*argv: str) -> None:
    """Runs a command; its failure ends this script with one line that says what to do."""
    links = os.environ.get("PIP_FIND_LINKS")
    environment = {**({"UV_FIND_LINKS": links} if links else {}), **os.environ}
    if subprocess.run(argv, env=environment, check=False).returncode:
        raise SystemExit(
            f"engine environment: `{Path(argv[0]).name} {argv[1]}` failed, expected a success (lock: {LOCK.name}). "
            "Check the network (a package index must be reachable) and the free disk space, then run the command again."
        )


def main() -> None:
    """Builds the environment, prints how long it took, and marks it as ready for make."""
    began = time.monotonic()
    engine = STATE / "engine"
    tool = uv()
    run(tool, "venv", "--quiet", "--allow-existing", "--python", interpreter(), str(engine))
    # With byte code: without it every start of the engine compiles its libraries anew.
    run(tool, "pip", "sync", "--quiet", "--compile-bytecode", "--require-hashes", "--python", str(engine), str(LOCK))
    (engine / ".ready").touch()
    print(f"engine environment  {time.monotonic() - began:.1f} s")


if __name__ == "__main__":
    try:
        main()
    except SystemExit as failure:
        # 2 is "could not run", as for every command of the engine.
        print(failure.code, file=sys.stderr)
        sys.exit(2)
