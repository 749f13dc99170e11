"""What goes wrong while one deploys is one clear message with exit code 2, and a repeat mends it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from exhibit.workspace import Workspace

from .conftest import DEPLOYED, HEALTHY, TOY, exhibit


@pytest.fixture
def checkout(bench: Workspace) -> Iterator[Workspace]:
    """The toy's, whose values and server a test may spoil."""
    yield bench
    mend(bench)


def mend(checkout: Workspace) -> None:
    spoil(checkout)
    (checkout.deployments / TOY / "serve" / "note.txt").unlink(missing_ok=True)


def spoil(checkout: Workspace, **values: object) -> None:
    """Writes values of the toy's chart: the healthy ones, but for these."""
    (checkout.deployments / TOY / "values.yaml").write_text(json.dumps({**HEALTHY, **values}))


def refused(checkout: Workspace, **environment: str) -> str:
    """The message with which a deployment is refused."""
    done = exhibit(checkout, "deploy", TOY, **environment)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def require_deployed(checkout: Workspace) -> None:
    done = exhibit(checkout, "deploy", TOY)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_value_of_the_wrong_type_is_named(checkout: Workspace) -> None:
    spoil(checkout, stopSeconds="long")
    said = refused(checkout)
    assert "stopSeconds" in said
    assert "got string, want integer" in said or "expected integer" in said.lower()
    mend(checkout)
    require_deployed(checkout)


def test_a_server_that_does_not_start_tells_why(checkout: Workspace) -> None:
    spoil(checkout, environment={"FAULT": "dies_at_once"})
    said = refused(checkout)
    assert said.startswith(f"{TOY}: server waits: CrashLoopBackOff, expected its pods to be ready. Look further with:")
    assert f"kubectl --context kind-{DEPLOYED} --namespace exhibit describe pods --selector" in said
    assert "BackOff" in said.splitlines()[1:][0] or "Back-off restarting" in said
    assert "the toy was told to end at once" in said
    mend(checkout)
    require_deployed(checkout)


def test_no_room_for_the_image_is_told_with_what_to_free(checkout: Workspace, tmp_path: Path) -> None:
    """The node's disk is full, as far as kind can tell."""
    (checkout.deployments / TOY / "serve" / "note.txt").write_text("It makes another image.")
    real = shutil.which("kind")
    full = tmp_path / "kind"
    full.write_text(
        f'#!/bin/sh\nif [ "$1" != load ]; then exec {real} "$@"; fi\n'
        "echo 'ERROR: failed to load image: write /tmp/images.tar: no space left on device' >&2; exit 1\n"
    )
    full.chmod(0o755)
    said = refused(checkout, PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert "no space left on the disk, expected room for the image" in said
    assert "docker system df" in said
    require_deployed(checkout)


def test_an_engine_that_is_gone_is_named(checkout: Workspace, tmp_path: Path) -> None:
    said = refused(checkout, DOCKER_HOST=f"unix://{tmp_path}/none.sock")
    assert said.startswith("Docker engine: does not answer")
    require_deployed(checkout)


def test_a_cluster_that_was_deleted_behind_our_back_is_named(checkout: Workspace) -> None:
    require_deployed(checkout)
    subprocess.run(["kind", "delete", "cluster", f"--name={DEPLOYED}"], capture_output=True, check=True)
    assert refused(checkout).startswith(f"cluster {DEPLOYED}: there is none, expected one to deploy to. Make it with")
    assert exhibit(checkout, "status").returncode == 0
    done = exhibit(checkout, "cluster")
    assert done.returncode == 0, done.stdout + done.stderr
    require_deployed(checkout)


def test_values_that_are_no_yaml_are_named(checkout: Workspace) -> None:
    (checkout.deployments / TOY / "values.yaml").write_text("probes: {ready: [}")
    assert f"deployments/{TOY}/values.yaml" in refused(checkout)
