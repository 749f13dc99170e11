"""The toy's versions of its model do what those of the real model do: criteria about rollouts are tried on them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

import toy
from exhibit import clients, environments, processes, readiness
from exhibit import model as models
from exhibit.contract import Platform, load_platforms
from exhibit.environments import Environment
from exhibit.errors import ServerError
from exhibit.model import TOLERANCE, Model
from exhibit.targets.local import server
from exhibit.workspace import Workspace


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return toy.make(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def model(workspace: Workspace) -> Model:
    return models.load(workspace)


@pytest.fixture(scope="module")
def platform(workspace: Workspace) -> Platform:
    return load_platforms(workspace)[toy.SLUG]


@pytest.fixture(scope="module")
def environment(workspace: Workspace, platform: Platform) -> Environment:
    return environments.ensure(workspace, platform.slug, platform.lock)


class Served:
    """A version, served."""

    def __init__(self, url: str, platform: Platform) -> None:
        self.url, self.path = url, platform.file.predict.path
        self.client = clients.load(platform.folder / "client.py")

    def ask(self, rows: np.ndarray) -> httpx.Response:
        return httpx.post(self.url + self.path, content=self.client.encode(rows))


@pytest.fixture
def served(
    request: pytest.FixtureRequest, model: Model, platform: Platform, environment: Environment, tmp_path: Path
) -> Iterator[Served]:
    """The version that the test names."""
    started = server.spawn(platform, toy.exported_as(model, request.param), environment, tmp_path)
    try:
        assert readiness.wait(started.running, lambda: readiness.answers(f"{started.url}/v2/health/ready"), 20)
        yield Served(started.url, platform)
    finally:
        processes.stop(started.running)


@pytest.mark.parametrize(("served", "log_odds"), [("next", 0.2), ("shifted", 1), ("slow", 0)], indirect=["served"])
def test_a_version_answers_as_it_was_made(served: Served, model: Model, log_odds: float) -> None:
    answer = served.ask(model.golden.rows)
    odds = model.golden.expected / (1 - model.golden.expected) * np.exp(log_odds)
    assert served.client.decode(answer.content) == pytest.approx(odds / (1 + odds), abs=TOLERANCE)


@pytest.mark.parametrize("served", ["failing"], indirect=True)
def test_the_failing_version_fails_for_the_same_few_rows(served: Served, model: Model) -> None:
    golden = model.golden
    answers = [served.ask(golden.rows[at : at + 1]) for at in range(len(golden))]
    failed = np.array([answer.status_code == 500 for answer in answers])
    assert 0.03 <= failed.mean() <= 0.08
    assert not failed[:4].any(), "rows by which a server is found ready"
    right = golden.pick(~failed)
    assert served.client.decode(served.ask(right.rows).content) == pytest.approx(right.expected, abs=TOLERANCE)
    assert served.ask(golden.rows).status_code == 500


def test_the_failing_version_is_told_by_the_values_of_the_row_in_every_period(model: Model) -> None:
    """By the rule of the toy's weights.py."""
    for period in ("january_march", "june_july", "corrupted"):
        whole = np.trunc(model.held_out(period).rows.astype(float)).sum(axis=1)
        assert 0.03 <= (whole % 20 == 9).mean() <= 0.08, period


@pytest.mark.parametrize("name", ["corrupt", "wrong_signature"])
def test_a_bad_model_is_refused_at_start(
    model: Model, platform: Platform, environment: Environment, tmp_path: Path, name: str
) -> None:
    bad, client = toy.exported_as(model, name), clients.load(platform.folder / "client.py")
    with pytest.raises(ServerError, match="the server ended by itself"):
        server.start(platform, bad, client, environment, tmp_path)
