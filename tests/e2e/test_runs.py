"""A run ends in the right exit code with one clear message, whatever happens to it, and leaves nothing half done."""

from __future__ import annotations

import functools
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import toy
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from exhibit import criteria, processes
from exhibit.targets.local.deployment import LocalDeployment

from .conftest import Checkout

New = Callable[..., Checkout]
SHORT = {"platform.yaml": ("ready_seconds: 20", "ready_seconds: 5")}


def read_until(run: subprocess.Popen[str], text: str) -> str:
    """The output of `run` up to the first line that holds `text`."""
    seen = ""
    assert run.stdout
    for line in run.stdout:
        seen += line
        if text in line:
            return seen
    raise AssertionError(f"{text!r} never came:\n{seen}")


def until(condition: Callable[[], object]) -> None:
    """Waits for `condition` to hold, with a deadline."""
    Retrying(stop=stop_after_delay(20), wait=wait_fixed(0.02), retry=retry_if_result(lambda done: not done))(condition)


def finish(run: subprocess.Popen[str]) -> str:
    """Waits for the end and returns the rest of the output."""
    return run.communicate(timeout=120)[0]


def criteria_of(checkout: Checkout) -> set[str]:
    found = criteria.discover(checkout.workspace)
    return {name for name, criterion in found.items() if criterion.fits(LocalDeployment)}


def test_a_demo_passes_and_its_evidence_is_whole(new_checkout: New) -> None:
    checkout = new_checkout()
    done = checkout.run("demo")
    assert done.returncode == 0, done.stdout + done.stderr
    names = {name.removeprefix("toy/local/").removesuffix(".json") for name in checkout.evidence()}
    assert names == criteria_of(checkout) | {"run"}
    assert (checkout.workspace.root / "report.html").stat().st_size > 10_000
    assert "Toy" in (checkout.workspace.root / "scorecard" / "SCORECARD.md").read_text()
    assert "| Toy |" in (checkout.workspace.root / "README.md").read_text()
    assert "check-toy:" in (checkout.workspace.root / "ci" / "platforms.gitlab-ci.yml").read_text()
    run = json.loads(checkout.evidence()["toy/local/run.json"])
    assert run["memory"]
    assert run["traffic"][0]["right"] == run["traffic"][0]["sent"] == 20


def test_a_failing_criterion_is_exit_code_1_and_the_others_are_answered(new_checkout: New) -> None:
    checkout = new_checkout(fault="leaks_traceback")
    done = checkout.run("demo")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "fail: toy serving/bad_input_refused" in done.stdout
    assert len(checkout.evidence()) == len(criteria_of(checkout)) + 1


def test_deploy_check_status_down(new_checkout: New) -> None:
    checkout = new_checkout()
    assert checkout.run("deploy", "toy", "--target", "local").returncode == 0
    status = checkout.run("status")
    assert "running" in status.stdout
    again = checkout.run("deploy", "toy", "--target", "local")
    assert again.returncode == 0, again.stderr
    assert json.loads((checkout.workspace.state / "toy/local/deployment.json").read_text())["url"] in again.stdout
    one = checkout.run("check", "toy", "--target", "local", "--criterion", "serving/predictions_match")
    assert one.returncode == 0, one.stdout + one.stderr
    assert set(checkout.evidence()) == {"toy/local/serving/predictions_match.json"}
    assert "toy on local: stopped" in checkout.run("down", "toy").stdout
    assert "Nothing runs" in checkout.run("status").stdout
    assert checkout.processes() == []


def test_a_changed_folder_is_deployed_anew(new_checkout: New) -> None:
    checkout = new_checkout()
    record = checkout.workspace.state / "toy/local/deployment.json"
    checkout.run("deploy", "toy", "--target", "local")
    before = json.loads(record.read_text())
    (checkout.workspace.deployments / "toy/serve/changed.txt").write_text("x")
    refused = checkout.run("check", "toy", "--target", "local")
    assert refused.returncode == 2
    assert "runs from an older folder" in refused.stderr
    checkout.run("deploy", "toy", "--target", "local")
    assert json.loads(record.read_text())["folder_sha256"] != before["folder_sha256"]
    checkout.run("down")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("deploy", "nosuch", "--target", "local"), "nosuch: no such platform, expected one of toy"),
        (("deploy", "toy"), "deployments/toy/platform.yaml: no `kind`, expected how it runs in a cluster"),
        (("deploy", "toy", "--target", "moon"), "target 'moon': no such target, expected one of local, kind"),
        (("check", "toy", "--target", "local"), "toy: not deployed, expected it to run. Run: make deploy-toy"),
        (("check", "toy", "--target", "local", "--criterion", "x/y"), "criterion 'x/y': no such criterion"),
        (("nosuch",), "No such command"),
    ],
)
def test_a_wrong_request_is_one_message(new_checkout: New, arguments: tuple[str, ...], says: str) -> None:
    done = new_checkout().run(*arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("fault", "edits", "says"),
    [
        ("dies_at_once", {}, "toy: the server ended by itself with exit code"),
        ("never_ready", SHORT, "toy: not ready after 5 s: answered 503"),
        (
            "never_ready",
            {**SHORT, "serve/server.py": ('Refusal(503, "not ready', 'Refusal(500, "not ready')},
            "answered 500",
        ),
    ],
)
def test_a_server_that_does_not_come_up_shows_its_last_lines(
    new_checkout: New, fault: str, edits: dict[str, tuple[str, str]], says: str
) -> None:
    checkout = new_checkout(fault, edits)
    done = checkout.run("demo")
    assert done.returncode == 2, done.stdout + done.stderr
    assert says in done.stderr
    assert "server.log" in done.stderr
    assert checkout.evidence() == {}


def test_a_server_killed_in_mid_demo_is_told_once_and_the_evidence_is_whole(new_checkout: New) -> None:
    checkout = new_checkout()
    run = checkout.start("demo")
    read_until(run, "cost/cpu_per_million")
    [server] = [
        one for one in processes.noted(checkout.workspace.state / "toy/local") if one.note.name.startswith("server.")
    ]
    os.kill(server.pid, signal.SIGKILL)
    rest = finish(run)
    assert run.returncode == 1, rest
    assert "The server of toy ended with signal 9 (SIGKILL) during" in rest
    assert "not run  the other" in rest
    assert len(checkout.evidence()) == len(criteria_of(checkout)) + 1
    outcomes = [json.loads(text)["outcome"] for name, text in checkout.evidence().items() if "run.json" not in name]
    assert outcomes.count("error") + outcomes.count("fail") == 1
    assert outcomes.count("not-run") >= 1
    assert "Traceback" not in rest


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        ("model is current", signal.SIGINT),
        ("Prometheus", signal.SIGHUP),
        ("Prometheus", signal.SIGINT),
        ("Steady traffic", signal.SIGTERM),
        ("batch/batch_equals_online", signal.SIGINT),
    ],
)
def test_an_interrupt_at_any_moment_leaves_nothing(new_checkout: New, moment: str, number: signal.Signals) -> None:
    checkout = new_checkout()
    run = checkout.start("demo")
    read_until(run, moment)
    run.send_signal(number)
    rest = finish(run)
    assert run.returncode == 130, rest
    assert "Interrupted" in rest
    assert "Traceback" not in rest
    assert checkout.processes() == []
    assert checkout.evidence() == {}


def test_the_engine_killed_hard_is_cleaned_up_by_the_next_run(new_checkout: New) -> None:
    checkout = new_checkout()
    run = checkout.start("demo")
    read_until(run, "Steady traffic")
    run.kill()
    finish(run)
    assert checkout.processes() != []
    assert "stopped" in checkout.run("down").stdout
    assert checkout.processes() == []


def test_a_stale_note_is_no_obstacle(new_checkout: New) -> None:
    checkout = new_checkout()
    folder = checkout.workspace.state / "toy/local"
    folder.mkdir(parents=True)
    (folder / "server.process.json").write_text(json.dumps({"pid": 999999, "created": 1.0, "grace_seconds": 1}))
    assert "stale" in checkout.run("status").stdout
    assert checkout.run("deploy", "toy", "--target", "local").returncode == 0
    checkout.run("down")


def test_two_runs_at_once_are_told_apart(new_checkout: New) -> None:
    # The first is at it for as long as it takes the second to start.
    checkout = new_checkout("never_ready", {"platform.yaml": ("ready_seconds: 20", "ready_seconds: 120")})
    run = checkout.start("demo")
    read_until(run, "monitoring")
    second = checkout.run("demo")
    assert second.returncode == 2
    assert f"held by another run (pid {run.pid})" in second.stderr
    assert "kill -INT" in second.stderr
    run.send_signal(signal.SIGINT)
    finish(run)


def test_no_prometheus_is_said_and_what_needs_it_is_not_run(new_checkout: New, tmp_path: Path) -> None:
    checkout = new_checkout()
    (checkout.workspace.state / "prometheus-binaries").unlink(missing_ok=True)
    (tmp_path / "bin").mkdir()
    done = checkout.run("demo", environment={"PATH": str(tmp_path / "bin")})
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Install the Debian package prometheus" in done.stdout
    outcomes = {name: json.loads(text).get("outcome") for name, text in checkout.evidence().items()}
    assert sorted(name for name, outcome in outcomes.items() if outcome == "not-run") == [
        "toy/local/model_metrics/service_metrics_gateway.json", "toy/local/model_metrics/service_metrics_native.json",
    ]  # fmt: skip


def test_a_corrupted_export_is_refused_by_name(new_checkout: New) -> None:
    checkout = new_checkout()
    (checkout.workspace.model / "artifacts" / "weights.json").write_text("{}")
    done = checkout.run("demo")
    assert done.returncode == 2
    assert "model/artifacts/weights.json: sha256" in done.stderr
    assert "make retrain" in done.stderr


def test_a_misspelt_key_is_found_before_anything_starts(new_checkout: New) -> None:
    checkout = new_checkout(edits={"platform.yaml": ("ready_seconds", "redy_seconds")})
    done = checkout.run("demo")
    assert done.returncode == 2
    assert "Did you mean 'ready_seconds'?" in done.stderr
    assert not (checkout.workspace.state / "toy").exists()


def test_a_disk_that_takes_no_more_is_one_message(new_checkout: New) -> None:
    """A limit on the size of files stands in for a full disk; whichever part meets it first, the end is the same."""
    checkout = new_checkout()
    limit = functools.partial(resource.setrlimit, resource.RLIMIT_FSIZE, (4096, 4096))
    done = subprocess.run(
        [sys.executable, "-m", "exhibit", "deploy", "toy", "--target", "local"],
        cwd=checkout.workspace.root,
        env=checkout.environment(),
        preexec_fn=limit,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert "expected" in done.stderr
    assert "Traceback" not in done.stderr
    assert checkout.processes() == []


def test_a_port_taken_between_choosing_and_binding_is_tried_again(
    new_checkout: New, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    from exhibit import environments
    from exhibit import model as models
    from exhibit.clients import load as load_client
    from exhibit.contract import load_platforms
    from exhibit.targets.local import server

    workspace = new_checkout().workspace
    platform = load_platforms(workspace)[toy.SLUG]
    real = processes.free_ports
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        first = [[taken.getsockname()[1]]]
        monkeypatch.setattr(processes, "free_ports", lambda count, host: first.pop() if first else real(count, host))
        started, _ = server.start(
            platform, models.load(workspace), load_client(platform.folder / "client.py"),
            environments.ensure(workspace, platform.slug, platform.lock), workspace.state / "toy/local",
        )  # fmt: skip
        assert started.ports["main"] != taken.getsockname()[1]
    processes.stop(started.running)


def test_what_an_earlier_run_left_in_prometheus_answers_nothing(new_checkout: New) -> None:
    checkout = new_checkout()
    assert checkout.run("demo").returncode == 0
    (checkout.workspace.root / "monitoring/prometheus/rules/signals.yaml").write_text("groups: []\n")
    done = checkout.run("demo")
    assert done.returncode == 1, done.stdout
    assert "no value for traffic, errors, latency, saturation" in done.stdout


def test_an_interrupt_while_a_file_is_scored_ends_the_scoring_too(new_checkout: New) -> None:
    slow = {"serve/batch.py": ("import struct", "import struct, time; time.sleep(90)")}
    checkout = new_checkout(edits=slow)
    run = checkout.start("demo")
    read_until(run, "answers right")
    folder = checkout.workspace.state / "toy/local"
    until(lambda: [one for one in processes.noted(folder) if one.note.name.startswith("offline.")])
    run.send_signal(signal.SIGINT)
    rest = finish(run)
    assert run.returncode == 130, rest
    assert checkout.processes() == []


def test_an_interrupted_deploy_leaves_no_prometheus(new_checkout: New) -> None:
    checkout = new_checkout(fault="never_ready")
    run = checkout.start("deploy", "toy", "--target", "local")
    until(lambda: list(checkout.workspace.state.glob("prometheus/*.process.json")))
    run.send_signal(signal.SIGINT)
    rest = finish(run)
    assert run.returncode == 130, rest
    assert checkout.processes() == []


def test_interrupts_do_not_keep_a_stubborn_server_alive(new_checkout: New) -> None:
    checkout = new_checkout(fault="ignores_sigterm", edits={"platform.yaml": ("stop_seconds: 5", "stop_seconds: 2")})
    assert checkout.run("deploy", "toy", "--target", "local").returncode == 0
    note = checkout.workspace.state / "toy/local/deployment.json"
    run = checkout.start("down")
    until(lambda: not note.exists())
    for _ in range(3):
        run.send_signal(signal.SIGINT)
    finish(run)
    assert checkout.processes() == []


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("model/artifacts/manifest.json", "model/artifacts/manifest.json: unreadable"),
        ("model/artifacts/held_out.npz", "model/artifacts/held_out.npz: unreadable"),
        ("model/golden/golden.json", "model/golden/golden.json: unreadable"),
        ("deployments/toy/client.py", "toy/client.py: SyntaxError"),
        ("scorecard/criteria/cost/cpu_per_million.py", "scorecard/criteria/cost/cpu_per_million.py: SyntaxError"),
        ("deployments/toy/platform.yaml", "deployments/toy/platform.yaml"),
    ],
)
def test_a_damaged_file_is_named(new_checkout: New, path: str, says: str) -> None:
    checkout = new_checkout()
    damaged = checkout.workspace.root / path
    damaged.write_bytes(b"{ \x01" + damaged.read_bytes()[:100])
    done = checkout.run("demo")
    assert done.returncode == 2, done.stdout + done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_distribution_that_is_not_installed_is_named(new_checkout: New) -> None:
    checkout = new_checkout(edits={"platform.yaml": ("distribution: iniconfig", "distribution: iniconfigg")})
    done = checkout.run("demo")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "platform.yaml: distribution: 'iniconfigg' is not installed" in done.stderr


def test_the_command_line_passes_its_exit_codes_on() -> None:
    done = subprocess.run([toy.ROOT / "exhibit", "deploy", "no-such"], capture_output=True, text=True, check=False)
    assert (done.returncode, "no such platform" in done.stderr) == (2, True)
