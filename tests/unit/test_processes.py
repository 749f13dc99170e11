"""Processes are known by pid and start time, ended with all they started, and never taken for another."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from exhibit import processes
from exhibit.errors import ServerError
from exhibit.processes import Running

SLEEP = "print('ready', flush=True); time.sleep(60)"
QUIET = f"import time; {SLEEP}"
STUBBORN = f"import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEP}"
CHILD = "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])"
WITH_CHILD = f"import subprocess, sys, time; {CHILD}; {SLEEP}"
LISTENING = f"import socket, time; s = socket.socket(); s.bind(('127.0.0.1', PORT)); s.listen(); {SLEEP}"


def until(condition: Callable[[], object], seconds: float = 10) -> None:
    """Waits for `condition` to hold, with a deadline."""
    Retrying(stop=stop_after_delay(seconds), wait=wait_fixed(0.02), retry=retry_if_result(lambda done: not done))(
        condition
    )


def start(folder: Path, code: str, grace_seconds: float = 5) -> Running:
    running = processes.start(
        "server",
        [sys.executable, "-c", code],
        environment={"PATH": os.environ["PATH"]},
        cwd=folder,
        folder=folder,
        grace_seconds=grace_seconds,
    )
    until(lambda: "ready" in (folder / "server.log").read_text())
    return running


def test_sigterm_ends_a_process_and_its_note(tmp_path: Path) -> None:
    running = start(tmp_path, QUIET)
    assert processes.noted(tmp_path) == [running]
    stop = processes.stop(running)
    assert (stop.exit_code, stop.killed) == (-signal.SIGTERM, False)
    assert processes.noted(tmp_path) == []


def test_a_process_that_ignores_sigterm_is_killed_and_the_kill_is_told(tmp_path: Path) -> None:
    stop = processes.stop(start(tmp_path, STUBBORN, grace_seconds=0.2))
    assert (stop.exit_code, stop.killed) == (-signal.SIGKILL, True)


def test_children_do_not_outlive_their_parent(tmp_path: Path) -> None:
    running = start(tmp_path, WITH_CHILD)
    until(lambda: len(running.tree()) == 2)
    child = running.tree()[1]
    assert processes.stop(running).killed
    until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def test_orphans_of_a_parent_killed_from_outside_are_found_by_their_session(tmp_path: Path) -> None:
    running = start(tmp_path, WITH_CHILD)
    until(lambda: len(running.tree()) == 2)
    child = running.tree()[1]
    os.kill(running.pid, signal.SIGKILL)
    assert running.child
    running.child.wait()
    processes.stop(running)
    until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def test_a_stale_note_whose_pid_now_belongs_to_another_stops_nobody(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True) as stranger:
        note = tmp_path / "server.process.json"
        note.write_text(json.dumps({"pid": stranger.pid, "created": 1.0, "grace_seconds": 1}))
        processes.stop(processes.noted(tmp_path)[0])
        assert stranger.poll() is None
        assert not note.exists()
        stranger.kill()


def test_no_such_program_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="nosuch: no such program, expected"):
        processes.start("server", ["nosuch"], environment={}, cwd=tmp_path, folder=tmp_path, grace_seconds=1)
    assert processes.noted(tmp_path) == []


def test_a_full_disk_while_noting_leaves_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []
    real = subprocess.Popen

    def spy(*args: object, **kwargs: object) -> subprocess.Popen[bytes]:
        started.append(real(*args, **kwargs))  # type: ignore[call-overload]
        return started[-1]

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(subprocess, "Popen", spy)
    monkeypatch.setattr(processes, "write_json", full)
    with pytest.raises(OSError, match="No space left"):
        processes.start(
            "server", [sys.executable, "-c", QUIET], environment={}, cwd=tmp_path, folder=tmp_path, grace_seconds=1
        )
    assert started[0].poll() is not None


def test_usage_counts_the_whole_tree(tmp_path: Path) -> None:
    running = start(tmp_path, WITH_CHILD)
    until(lambda: len(running.tree()) == 2)
    alone = psutil.Process(running.pid).memory_info().rss
    assert processes.usage(running).resident_bytes > alone
    processes.stop(running)
    assert processes.usage(running) == processes.Usage(0.0, 0)


def test_free_ports_are_different_and_a_taken_one_is_not_free() -> None:
    assert len(set(processes.free_ports(5))) == 5
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert not processes.is_free(port)
    assert processes.is_free(port)


def test_listens_tells_ones_own_port_from_a_strangers(tmp_path: Path) -> None:
    port = processes.free_ports(1)[0]
    running = start(tmp_path, LISTENING.replace("PORT", str(port)))
    other = start(tmp_path / "other", QUIET)
    assert processes.listens(running, port)
    assert not processes.listens(other, port)
    processes.stop(running)
    processes.stop(other)


def test_exit_codes_are_told_in_words() -> None:
    assert processes.describe_exit(3) == "exit code 3"
    assert processes.describe_exit(-9) == "signal 9 (SIGKILL)"
    assert processes.describe_exit(None) == "an unknown exit code"
