"""The platforms of this checkout, for real: a model that cannot answer never gets as far as a caller."""

from __future__ import annotations

from pathlib import Path

import pytest
import toy

from exhibit import clients, demo, environments
from exhibit.contract import load_platforms
from exhibit.errors import ServerError
from exhibit.targets.local import server
from exhibit.workspace import Workspace

HERE = Workspace(toy.ROOT)
PLATFORMS = load_platforms(HERE)


@pytest.mark.parametrize("version", ["corrupt", "wrong_signature"])
@pytest.mark.parametrize("slug", PLATFORMS)
def test_a_bad_model_is_refused_at_start(slug: str, version: str, tmp_path: Path) -> None:
    """The server ends by itself; test_platforms.py has the same code serve the current model."""
    platform, model = PLATFORMS[slug], demo.ensure_model(HERE)
    environment, client = environments.ensure(HERE, slug, platform.lock), clients.load(platform.folder / "client.py")
    with pytest.raises(ServerError, match="the server ended by itself"):
        server.start(platform, toy.exported_as(model, version), client, environment, tmp_path)
