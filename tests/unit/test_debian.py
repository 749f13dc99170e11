"""Programs of a Debian package: found on PATH, unpacked, or missing with a remedy. The package here is made up."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from exhibit import debian
from exhibit.debian import Package, PackageMissing, find_or_unpack

PACKAGE = Package("clock", (("clockd", "debian-clockd"), ("clocktool",)))
REMEDY = "Install the Debian package clock, or put the folder of both programs on PATH"


def program(path: Path, script: str = "exit 0") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The one folder of PATH, empty."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path / "bin"


def package_tools(path: Path, version: str = "exit 0") -> None:
    """apt-get and dpkg-deb that give a package whose first program answers as `version` says."""
    program(path / "apt-get", "PATH=/usr/bin:/bin; touch clock_1_amd64.deb")
    program(
        path / "dpkg-deb",
        f"""PATH=/usr/bin:/bin; mkdir -p "$3/usr/bin"
for name in debian-clockd clocktool; do printf '#!/bin/sh\\n{version}\\n' > "$3/usr/bin/$name"; done
chmod 755 "$3"/usr/bin/*""",
    )


@pytest.mark.parametrize("name", ["clockd", "debian-clockd"])
def test_programs_on_path_come_first_under_any_of_their_names(path: Path, tmp_path: Path, name: str) -> None:
    for each in (name, "clocktool"):
        program(path / each)
    binaries = find_or_unpack(PACKAGE, tmp_path / "cache")
    assert binaries == path
    assert debian.program(binaries, PACKAGE.programs[0]) == path / name
    assert not (tmp_path / "cache").exists()


def test_half_of_the_programs_on_path_is_not_enough(path: Path, tmp_path: Path) -> None:
    program(path / "clockd")
    package_tools(path)
    assert find_or_unpack(PACKAGE, tmp_path / "cache") == tmp_path / "cache" / "usr" / "bin"


def test_an_unpacked_package_is_used_again(path: Path, tmp_path: Path) -> None:
    package_tools(path)
    first = find_or_unpack(PACKAGE, tmp_path / "cache")
    assert debian.program(first, PACKAGE.programs[0]).name == "debian-clockd"
    # Without any program to fetch or unpack with.
    for name in ("apt-get", "dpkg-deb"):
        (path / name).unlink()
    assert find_or_unpack(PACKAGE, tmp_path / "cache") == first
    assert sorted(os.listdir(tmp_path)) == ["bin", "cache"]


def test_a_package_is_adapted_before_it_is_tried(path: Path, tmp_path: Path) -> None:
    package_tools(path, version="exit 3")

    def adapt(unpacked: Path) -> None:
        program(unpacked / "usr" / "bin" / "debian-clockd", "exit 0")

    find_or_unpack(Package(PACKAGE.name, PACKAGE.programs, adapt), tmp_path / "cache")
    with pytest.raises(PackageMissing, match="debian-clockd: exit code 3"):
        find_or_unpack(PACKAGE, tmp_path / "other")


@pytest.mark.parametrize(
    ("apt", "dpkg", "reason"),
    [
        (None, None, "apt-get: No such file or directory"),
        ("echo 'W: old lists' >&2; echo 'E: no route to host' >&2; exit 100", None, "apt-get: E: no route to host"),
        ("exit 0", None, "apt-get downloaded nothing"),
        ("touch clock_1_amd64.deb", "echo 'dpkg-deb: error: not an archive' >&2; exit 2", "error: not an archive"),
        ("touch clock_1_amd64.deb", "exit 0", "clock_1_amd64.deb does not hold them"),
    ],
    ids=["no apt", "apt fails", "apt does nothing", "broken package", "wrong package"],
)
def test_without_the_package_the_remedy_is_named(
    path: Path, tmp_path: Path, apt: str | None, dpkg: str | None, reason: str
) -> None:
    for name, script in {"apt-get": apt, "dpkg-deb": dpkg}.items():
        if script is not None:
            program(path / name, f"PATH=/usr/bin:/bin; {script}")
    with pytest.raises(PackageMissing, match=REMEDY) as caught:
        find_or_unpack(PACKAGE, tmp_path / "state" / "cache")
    assert reason in str(caught.value)
    assert "expected clockd and clocktool" in str(caught.value)
    # Nothing half-done is left for the next run to stumble over.
    assert list((tmp_path / "state").iterdir()) == []


def test_stale_package_lists_are_replaced_by_own_ones(path: Path, tmp_path: Path) -> None:
    said = tmp_path / "said"
    package_tools(path)
    program(
        path / "apt-get",
        f"""PATH=/usr/bin:/bin; echo "$*" >> {said}
case "$*" in
*Dir::State::lists=*download*) touch clock_1_amd64.deb ;;
*update*) ;;
*) echo 'E: 404  Not Found' >&2; exit 100 ;;
esac""",
    )
    assert find_or_unpack(PACKAGE, tmp_path / "state" / "cache") == tmp_path / "state" / "cache" / "usr" / "bin"
    assert [line.split()[-1] for line in said.read_text().splitlines()] == ["clock", "update", "clock"]
    assert os.listdir(tmp_path / "state") == ["cache"]


def test_a_run_that_was_faster_is_kept_and_a_torso_replaced(tmp_path: Path) -> None:
    for name in ("clockd", "clocktool"):
        program(tmp_path / "slow" / "usr" / "bin" / name)
        program(tmp_path / "cache" / "usr" / "bin" / name)
    first = (tmp_path / "cache").stat().st_ino
    debian._put(PACKAGE, tmp_path / "slow", tmp_path / "cache")
    assert (tmp_path / "cache").stat().st_ino == first
    (tmp_path / "cache" / "usr" / "bin" / "clocktool").unlink()
    debian._put(PACKAGE, tmp_path / "slow", tmp_path / "cache")
    assert sorted(os.listdir(tmp_path / "cache" / "usr" / "bin")) == ["clockd", "clocktool"]
