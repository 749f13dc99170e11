"""A model whose files are not what its manifest says is refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from exhibit import digests
from exhibit import model as models
from exhibit.errors import ModelError
from exhibit.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    artifacts = tmp_path / "model" / "artifacts"
    (artifacts / "saved").mkdir(parents=True)
    (artifacts / "model.onnx").write_bytes(b"graph")
    (artifacts / "saved" / "part").write_bytes(b"part")
    (artifacts / "versions" / "next").mkdir(parents=True)
    (artifacts / "versions" / "next" / "model.onnx").write_bytes(b"another graph")

    def made(**paths: str) -> dict[str, dict[str, str]]:
        return {name: {"path": path, "sha256": digests.path_sha256(artifacts / path)} for name, path in paths.items()}

    versions = {"next": {"claimed_log_odds": 0.2, "artifacts": made(onnx="versions/next/model.onnx")}}
    exports = made(onnx="model.onnx", saved="saved")
    for name in ("formats.yaml", "requirements.txt"):
        (tmp_path / "model" / name).write_text("")
    manifest = {"model": "flight-delay", "inputs_sha256": models.inputs_sha256(Workspace(tmp_path))}
    (artifacts / "manifest.json").write_text(json.dumps({**manifest, "artifacts": exports, "versions": versions}))
    np.savez(
        artifacts / "held_out.npz",
        june_july_rows=np.zeros((2, 12)),
        june_july_expected=[0.1, 0.2],
        june_july_late=[True, False],
    )
    return Workspace(tmp_path)


def test_exports_are_found_by_their_format(workspace: Workspace) -> None:
    model = models.load(workspace)
    assert model.artifact("onnx") == workspace.model / "artifacts" / "model.onnx"
    assert len(model.held_out("june_july")) == 2


@pytest.mark.parametrize(
    ("path", "name"),
    [("model.onnx", "onnx"), ("saved/part", "saved"), ("versions/next/model.onnx", "next onnx")],
)
def test_a_corrupted_export_is_refused_by_name(workspace: Workspace, path: str, name: str) -> None:
    (workspace.model / "artifacts" / path).write_bytes(b"tampered")
    with pytest.raises(
        ModelError, match=rf"model/artifacts/\S+: sha256 \w+, expected .*the {name} export.* make retrain"
    ):
        models.load(workspace)


def test_a_missing_export_is_refused_by_name(workspace: Workspace) -> None:
    (workspace.model / "artifacts" / "model.onnx").unlink()
    with pytest.raises(ModelError, match=r"model/artifacts/model\.onnx: no such file"):
        models.load(workspace)


def test_no_model_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no model yet, expected a trained one\. Run: make model"):
        models.load(Workspace(tmp_path))


def test_a_version_hands_its_files_over_and_says_what_it_answers(workspace: Workspace) -> None:
    model = models.load(workspace)
    current, following = model.version("current"), model.version("next")
    assert current.files("saved") == {"part": b"part"}
    assert following.files("onnx") == {"model.onnx": b"another graph"}
    answers = np.array([0.0, 0.2, 0.5, 1.0])
    assert current.expected(answers) == pytest.approx(answers)
    log_odds = np.log(answers[1:3] / (1 - answers[1:3])) + 0.2
    assert following.expected(answers) == pytest.approx([0, *(1 / (1 + np.exp(-log_odds))), 1])


def test_a_version_or_format_that_was_not_made_names_those_that_were(workspace: Workspace) -> None:
    model = models.load(workspace)
    with pytest.raises(ModelError, match="no version 'last', expected one of current, next"):
        model.version("last")
    with pytest.raises(ModelError, match="'next': not made as 'saved', expected one of onnx"):
        model.version("next").files("saved")


@pytest.mark.parametrize("missing", ["versions/next/model.onnx", "model.onnx"])
def test_a_model_without_one_of_its_files_is_not_current(workspace: Workspace, missing: str) -> None:
    assert models.is_current(workspace)
    (workspace.model / "artifacts" / missing).unlink()
    assert not models.is_current(workspace)


def test_a_model_exported_before_there_were_versions_is_not_current(workspace: Workspace) -> None:
    path = workspace.model / "artifacts" / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["versions"]
    path.write_text(json.dumps(manifest))
    assert not models.is_current(workspace)
    assert models.load(workspace).version("current").files("onnx") == {"model.onnx": b"graph"}


def test_an_unknown_period_names_those_there_are(workspace: Workspace) -> None:
    with pytest.raises(ModelError, match="no period 'may', expected one of june_july"):
        models.load(workspace).held_out("may")


def test_flights_begin_anew_where_they_run_out(workspace: Workspace) -> None:
    assert list(models.load(workspace).held_out("june_july").take(3, start=1).expected) == [0.2, 0.1, 0.2]
