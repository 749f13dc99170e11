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
    entries = {
        name: {"path": path, "sha256": digests.path_sha256(artifacts / path)}
        for name, path in {"onnx": "model.onnx", "saved": "saved"}.items()
    }
    (artifacts / "manifest.json").write_text(json.dumps({"model": "flight-delay", "artifacts": entries}))
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


@pytest.mark.parametrize(("path", "name"), [("model.onnx", "onnx"), ("saved/part", "saved")])
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


def test_an_unknown_period_names_those_there_are(workspace: Workspace) -> None:
    with pytest.raises(ModelError, match="no period 'may', expected one of june_july"):
        models.load(workspace).held_out("may")


def test_flights_begin_anew_where_they_run_out(workspace: Workspace) -> None:
    assert list(models.load(workspace).held_out("june_july").take(3, start=1).expected) == [0.2, 0.1, 0.2]
