"""The process that imports alibi, once, and forks the workers: a new one costs milliseconds and little memory.

Started by pool.py, never by hand. It has one thread, so that forking is safe, and ends when the service is gone: the
end of the service closes the socket between them. Signals that a terminal or a supervisor sends to the whole group are
ignored here and in the workers, so that the service can let them finish their work.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import json
import os
import signal
import socket
import sys
import time
import traceback
from typing import TYPE_CHECKING

import frames
import options
from errors import DeadlinePassed, ExplainersError, InputRefused, ServedModelFailed

if TYPE_CHECKING:
    import asking  # what imports numpy and alibi is imported once signals are settled

KINDS = {InputRefused: "refused", ServedModelFailed: "failed", DeadlinePassed: "late"}
PR_SET_PDEATHSIG = 1
COMMAND_BYTES = 5
"""One letter, fork or kill, and the worker's number in four bytes; with fork comes the worker's end of a socket."""


def parse(argv: list[str]) -> argparse.Namespace:
    """What pool.py passes on of the service's options."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--control", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    options.add_model(parser)
    options.add_reference(parser)
    return parser.parse_args(argv)


class Nursery:
    """Forks and ends workers as it is told."""

    def __init__(self, chosen: argparse.Namespace) -> None:
        import asking
        import reference

        self.control = socket.socket(fileno=chosen.control)
        self.client = asking.load_client(chosen.client)
        codes = json.loads(chosen.codes.read_text(encoding="utf-8"))["codes"] if chosen.codes else None
        rows = reference.Reference.load(chosen.reference)

        import explaining  # takes seconds: what is wrong above is told at once

        self.explainer = explaining.Explainer(rows, codes)
        self.url, self.content_type = chosen.ask, chosen.content_type
        self.children: dict[int, int] = {}

    def run(self) -> None:
        """Works until the service is gone, then ends all workers."""
        gc.collect()
        gc.freeze()  # what is there stays: a collection in a worker would copy every page it marks
        self.control.sendall(b"r")
        try:
            while True:
                command, fds, _, _ = socket.recv_fds(self.control, COMMAND_BYTES, 1, socket.MSG_WAITALL)
                if len(command) < COMMAND_BYTES:
                    return
                number = int.from_bytes(command[1:], "big")
                self._reap()
                if command[:1] == b"f":
                    self._fork(number, fds[0])
                elif number in self.children:  # not yet reaped, so the pid is still its own
                    os.kill(self.children[number], signal.SIGKILL)
                    os.waitpid(self.children.pop(number), 0)
        finally:
            for pid in self.children.values():
                os.kill(pid, signal.SIGKILL)

    def _reap(self) -> None:
        for number, pid in list(self.children.items()):
            if os.waitpid(pid, os.WNOHANG)[0]:
                del self.children[number]

    def _fork(self, number: int, fd: int) -> None:
        own = os.getpid()
        pid = os.fork()
        if pid:
            os.close(fd)
            self.children[number] = pid
            return
        status = 1
        try:
            self.children = {}  # siblings are not this process's to end
            _die_with(own)
            self.control.close()
            self._work(socket.socket(fileno=fd))
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)

    def _work(self, connection: socket.socket) -> None:
        import asking

        model = asking.ServedModel(self.client, self.url, self.content_type)
        with connection, connection.makefile("rb") as stream:
            connection.sendall(frames.pack({}))  # it is there
            while (job := frames.read(stream)) is not None:
                with contextlib.suppress(BrokenPipeError):
                    connection.sendall(frames.pack(self._answer(model, job)))

    def _answer(self, model: asking.ServedModel, job: frames.Message) -> frames.Message:
        import numpy as np

        model.deadline, model.rows_asked = time.monotonic() + job["seconds"], 0
        try:
            rows, method = np.asarray(job["rows"], dtype=np.float32), job["method"]
            found = self.explainer.explain(model, model.forget, method, rows, job["seed"])
            answer = {"outcome": "ok", "explanations": found, "settings": self.explainer.settings(method)}
        except ExplainersError as error:
            answer = {"outcome": KINDS[type(error)], "reason": str(error)}
        except Exception as error:  # a fault of ours or of alibi's: the next request must not suffer from it
            traceback.print_exc()
            answer = {"outcome": "error", "reason": f"the explanation failed ({type(error).__name__}). See the log."}
        finally:
            model.forget()
        return {**answer, "rows_asked": model.rows_asked}


def _die_with(parent: int) -> None:
    """Have Linux end this process when its parent is ended by SIGKILL; elsewhere it ends with the service's socket."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def main() -> int:
    """Exit code 2 with a reason where the options do not do."""
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)
    chosen = parse(sys.argv[1:])
    _die_with(chosen.parent)
    try:
        nursery = Nursery(chosen)
    except (ExplainersError, OSError, ValueError, KeyError) as error:
        print(error if isinstance(error, ExplainersError) else repr(error), file=sys.stderr)
        return 2
    nursery.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
