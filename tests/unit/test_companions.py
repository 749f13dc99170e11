"""service.yaml of a companion: every breach is named, and one setting chooses the licence of its libraries."""

from __future__ import annotations

from pathlib import Path

import pytest

from exhibit import companions
from exhibit.errors import ContractError, ExhibitError
from exhibit.workspace import Workspace

FILE = """
title: Listener
command: [python, service.py, --port, "{main_port}", --state, "{state}"]
local: [--quick]
ports: [main]
copies: main
metrics: {port: main, path: /metrics}
ready: {port: main, path: /ready}
ready_seconds: 5
stop_seconds: 5
licences:
  bsl-1.1: {lock: requirements.txt, notice: Not for production.}
  apache-2.0: {lock: requirements-apache.txt}
"""


@pytest.fixture(autouse=True)
def no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(companions.LICENCE_VARIABLE, raising=False)


def write(root: Path, text: str = FILE) -> Workspace:
    (root / "monitoring" / "listener").mkdir(parents=True)
    (root / "monitoring" / "listener" / "service.yaml").write_text(text)
    (root / "monitoring" / "rules").mkdir()
    return Workspace(root)


def test_a_folder_with_a_service_is_found_and_others_are_not(tmp_path: Path) -> None:
    [companion] = companions.load(write(tmp_path)).values()
    assert (companion.name, companion.licence) == ("listener", "bsl-1.1")
    values = {"main_port": "8", "state": "here"}
    assert companion.argv(values, local=False) == ["python", "service.py", "--port", "8", "--state", "here"]
    assert companion.argv(values, local=True)[-1] == "--quick"


def test_without_companions_there_are_none(tmp_path: Path) -> None:
    assert companions.load(Workspace(tmp_path)) == {}


def test_one_setting_chooses_the_licence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = write(tmp_path)
    assert companions.notices(workspace) == ["Not for production."]
    monkeypatch.setenv(companions.LICENCE_VARIABLE, "apache-2.0")
    assert companions.load(workspace)["listener"].lock.name == "requirements-apache.txt"
    assert companions.notices(workspace) == []


def test_an_unknown_licence_names_those_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(companions.LICENCE_VARIABLE, "mit")
    with pytest.raises(ExhibitError, match=r"EXHIBIT_LICENCE: found 'mit', expected one of bsl-1.1, apache-2.0"):
        companions.load(write(tmp_path))


def test_libraries_that_this_python_cannot_run_are_refused(tmp_path: Path) -> None:
    text = FILE.replace("{lock: requirements.txt,", '{lock: requirements.txt, python: ["3.1"],')
    with pytest.raises(ExhibitError, match=r"expected Python 3\.1\. .*choose another licence"):
        companions.load(write(tmp_path, text))


@pytest.mark.parametrize(
    ("right", "wrong", "says"),
    [
        ("copies: main", "copies: other", "not 'other'"),
        ("{state}", "{home}", "{home}"),
        ("{main_port}", "{other_port}", "{other_port}"),
        ("title: Listener", "titel: Listener", "titel"),
        ("ready_seconds: 5", "ready_seconds: soon", "soon"),
        ("path: /ready", "path: ready", "ready"),
    ],
)
def test_a_breach_is_named(tmp_path: Path, right: str, wrong: str, says: str) -> None:
    assert right in FILE
    with pytest.raises(ContractError) as caught:
        companions.load(write(tmp_path, FILE.replace(right, wrong)))
    assert "monitoring/listener/service.yaml" in str(caught.value)
    assert says in str(caught.value)
