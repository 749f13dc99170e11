"""The contract reports every breach of every platform at once, each with file, line, value, rule and remedy."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from exhibit import clients, documents
from exhibit import model as models
from exhibit.contract import PlatformFile, load_platforms
from exhibit.errors import ContractError
from exhibit.workspace import Workspace

ROOT = Path(__file__).resolve().parents[2]
PLATFORMS = load_platforms(Workspace(ROOT))


@pytest.fixture
def copy(tmp_path: Path) -> Workspace:
    """A copy of the checkout's platform folders and formats, to be broken."""
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("deployments", "charts"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignore)
    (tmp_path / "model").mkdir()
    shutil.copy(ROOT / "model" / "formats.yaml", tmp_path / "model")
    return Workspace(tmp_path)


def breaches(workspace: Workspace) -> list[str]:
    with pytest.raises(ContractError) as caught:
        load_platforms(workspace)
    return [breach.line() for breach in caught.value.breaches]


def edit(path: Path, old: str, new: str) -> int:
    """Replaces `old`, which must be there once, and returns its line."""
    text = path.read_text()
    assert text.count(old) == 1, f"{old!r} in {path}"
    path.write_text(text.replace(old, new))
    return text[: text.index(old)].count("\n") + 1


def test_a_misspelt_key_is_named_with_its_line_and_the_key_that_was_meant(copy: Workspace) -> None:
    slug = next(iter(PLATFORMS))
    line = edit(copy.deployments / slug / "platform.yaml", "ready_seconds:", "redy_seconds:")
    found = breaches(copy)
    assert any(
        one.startswith(f"deployments/{slug}/platform.yaml:{line}: local.redy_seconds: unknown key") for one in found
    )
    assert any("Did you mean 'ready_seconds'?" in one for one in found)


def test_all_errors_of_all_platforms_come_at_once(copy: Workspace) -> None:
    slugs = list(PLATFORMS)[:2]
    assert len(slugs) == 2
    edit(copy.deployments / slugs[0] / "platform.yaml", "homepage: https://", "homepage: ftp://")
    edit(copy.deployments / slugs[0] / "platform.yaml", "stop_seconds: ", "stop_seconds: -")
    (copy.deployments / slugs[1] / "client.py").unlink()
    (copy.deployments / "stray.txt").write_text("x")
    found = "\n".join(breaches(copy))
    for part in (
        f"{slugs[0]}/platform.yaml",
        "homepage",
        "stop_seconds",
        f"{slugs[1]}/client.py: missing",
        "stray.txt: not a platform",
    ):
        assert part in found


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("{port}", "{prt}", "placeholders out of"),
        ("artifact: ", "artifact: nosuch-", "expected one of"),
        ("title: ", "title: [", "expected valid YAML"),
        ("ready_seconds: ", "ready_seconds: soon # ", "input to be a valid integer"),
    ],
)
def test_a_wrong_value_is_shown_with_its_rule(copy: Workspace, old: str, new: str, expected: str) -> None:
    path = copy.deployments / next(iter(PLATFORMS)) / "platform.yaml"
    path.write_text(path.read_text().replace(old, new, 1))
    assert any(expected in one for one in breaches(copy))


def test_a_capability_declared_absent_needs_a_reason(tmp_path: Path) -> None:
    path = tmp_path / "platform.yaml"
    path.write_text("capabilities:\n  web_app: {none: '', source: nowhere}\n")
    _, found = documents.load(path, PlatformFile, "platform.yaml")
    lines = [one.line() for one in found]
    assert any("web_app.none" in line and "at least 1 character" in line for line in lines)
    assert any("web_app.source" in line for line in lines)


def test_a_missing_file_is_a_breach_and_not_a_traceback(copy: Workspace) -> None:
    slug = next(iter(PLATFORMS))
    (copy.deployments / slug / "facts.yaml").unlink()
    name = f"deployments/{slug}/facts.yaml"
    assert breaches(copy) == [f"{name}: no such file, expected every platform folder to hold one. Create {name}."]


@pytest.mark.parametrize("slug", PLATFORMS)
def test_client_round_trips_the_golden_rows_without_a_server(slug: str) -> None:
    client = clients.load(PLATFORMS[slug].folder / "client.py")
    golden = models.Model(ROOT / "model", {}).golden
    body = client.encode(golden.rows)
    assert isinstance(body, bytes)
    assert client.rows(body).dtype == golden.rows.dtype
    assert (client.rows(body) == golden.rows).all()


@pytest.mark.parametrize("slug", PLATFORMS)
def test_a_platform_is_lifted_out_by_copying_its_folder(slug: str) -> None:
    for path in PLATFORMS[slug].serve.rglob("*.py"):
        assert "exhibit" not in path.read_text().lower(), f"{path} mentions this repository"
