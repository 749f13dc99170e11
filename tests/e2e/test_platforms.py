"""The platforms of this checkout, for real: the whole demo, each folder lifted out, one more platform added."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import toy

from exhibit import clients, criteria, demo, environments, processes
from exhibit.contract import Platform, load_platforms
from exhibit.criteria import Outcome
from exhibit.targets.local import server
from exhibit.targets.local.deployment import LocalDeployment
from exhibit.workspace import Workspace

from .conftest import Checkout

ROOT = toy.ROOT
HERE = Workspace(ROOT)
PLATFORMS = load_platforms(HERE)
MUST_PASS = (
    "serving/predictions_match",
    "serving/bad_input_refused",
    "serving/drains_on_sigterm",
    "model_metrics/service_metrics_gateway",
)


def copy_of_this_checkout(root: Path) -> Checkout:
    """The files git knows or would know, with this checkout's environments: building them again shows nothing new."""
    argv = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, root / name)
    workspace = Workspace(root)
    toy.share_prometheus(workspace)
    (HERE.state / "envs").mkdir(exist_ok=True)
    (workspace.state / "envs").symlink_to(HERE.state / "envs")
    return Checkout(workspace)


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Checkout]:
    made = copy_of_this_checkout(tmp_path / "checkout")
    yield made
    left = made.processes()
    if left:
        made.run("down")
    assert left == []


def outcomes_in(files: dict[str, str], slug: str) -> dict[str, str]:
    """Outcome by criterion of one platform's evidence on local."""
    own = f"{slug}/local/"
    found = {name.removeprefix(own).removesuffix(".json"): text for name, text in files.items() if name.startswith(own)}
    return {name: json.loads(text)["outcome"] for name, text in found.items() if name != "run"}


@pytest.mark.long
def test_the_demo_trains_serves_and_answers(checkout: Checkout) -> None:
    """From nothing but the files of the checkout (it has no model yet), with the outcomes that are committed."""
    committed = checkout.evidence()
    shutil.rmtree(checkout.workspace.evidence)
    done = checkout.run("demo")
    assert "trained and exported" in done.stdout, done.stdout + done.stderr
    answered: set[str] = set()
    for slug in PLATFORMS:
        outcomes, before = outcomes_in(checkout.evidence(), slug), outcomes_in(committed, slug)
        asked = criteria.discover(checkout.workspace)
        assert set(outcomes) == {name for name, criterion in asked.items() if criterion.fits(LocalDeployment)}
        assert all(outcomes[criterion] == Outcome.PASS for criterion in MUST_PASS), f"{slug}: {outcomes}"
        # Facts about the market have a date on which they expire; all else is as it was when it was committed.
        changed = {name for name in outcomes if outcomes[name] != before.get(name) and not name.startswith("market/")}
        assert changed == set(), f"{slug}: {outcomes}"
        answered |= set(outcomes.values())
        # Each panel of the dashboard asked the live Prometheus of this run and got data; no other picture is missing.
        run = json.loads(checkout.evidence()[f"{slug}/local/run.json"])
        without = [panel["title"] for panel in run["signals"] if not panel["series"]]
        assert run["signals"], done.stdout
        assert without == [], f"{slug}: no data for {without}"
        for picture in ("windows", "outliers", "alerts", "explanation", "weeks"):
            assert run[picture], f"{slug}: no {picture}"
    assert answered <= {Outcome.PASS, Outcome.FAIL, Outcome.UNSUPPORTED}
    assert done.returncode == (1 if Outcome.FAIL in answered else 0)
    golden = "model/golden/golden.json"
    retrained, kept = ((root / golden).read_bytes() for root in (checkout.workspace.root, ROOT))
    assert retrained == kept, "retraining gave another model"
    assert (checkout.workspace.root / "model/CARD.md").read_text() == (ROOT / "model/CARD.md").read_text()


@pytest.mark.long
def test_the_models_own_tests_pass() -> None:
    """A tampered export is refused, retraining gives the same predictions: in the model's own environment."""
    environment = environments.ensure(HERE, "model", HERE.model / "requirements.txt")
    argv = [str(environment.python), "-m", "unittest", "test_export"]
    done = subprocess.run(argv, cwd=HERE.model, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "OK" in done.stderr


@pytest.mark.parametrize("slug", PLATFORMS)
def test_a_folder_copied_out_serves_with_only_its_own_requirements(slug: str, tmp_path: Path) -> None:
    """The folder alone in an empty directory; its environment holds what its requirements.txt names, nothing else."""
    model = demo.ensure_model(HERE)
    folder = shutil.copytree(
        PLATFORMS[slug].folder, tmp_path / "taken" / slug, ignore=shutil.ignore_patterns("__pycache__")
    )
    platform = Platform(slug, folder, PLATFORMS[slug].file, PLATFORMS[slug].facts)
    environment = environments.ensure(HERE, slug, folder / "requirements.txt")
    client = clients.load(folder / "client.py")
    before = sorted(path.relative_to(folder) for path in folder.rglob("*"))
    started, _ = server.start(platform, model, client, environment, tmp_path / "state")
    try:
        listening = {
            connection.laddr.ip.removeprefix("::ffff:")  # IPv4 on a socket that can do both
            for process in started.running.tree()
            for connection in process.net_connections(kind="inet")
            if connection.status == psutil.CONN_LISTEN
        }
        assert listening == {"127.0.0.1"}
    finally:
        assert not processes.stop(started.running).killed
    assert sorted(path.relative_to(folder) for path in folder.rglob("*")) == before, (
        "serving left something in the folder"
    )


def test_adding_a_platform_is_adding_a_folder(checkout: Checkout) -> None:
    folder = checkout.workspace.deployments / "one-more"
    shutil.copytree(toy.SOURCE / "deployments" / toy.SLUG, folder, ignore=shutil.ignore_patterns("__pycache__"))
    text = (folder / "platform.yaml").read_text()
    (folder / "platform.yaml").write_text(
        text.replace("title: Toy", "title: One More").replace("artifact: weights", "artifact: onnx")
    )
    assert checkout.run("sync").returncode == 0
    root = checkout.workspace.root
    assert "| One More |" in (root / "README.md").read_text()
    assert "**One More**" in (root / "scorecard" / "SCORECARD.md").read_text()
    assert "check-one-more:" in (root / "ci" / "platforms.gitlab-ci.yml").read_text()
    assert checkout.run("report").returncode == 0
    assert "One More" in (root / "report.html").read_text()
    assert "one-more" in checkout.run("deploy", "no-such", "--target", "local").stderr
    assert checkout.run("sync", "--check").returncode == 0
