"""Worker processes and the queue in front of them, seen from the service's event loop."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import math
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import frames

LOG = logging.getLogger("explainers")
GRACE_SECONDS = 1.0
"""How long after the deadline a worker may still answer that it passed, before it counts as hanging and is killed."""
END_SECONDS = 1.0
"""How long its processes may take to end when they are told to."""


class Busy(Exception):
    """As many requests as may wait are waiting."""


class Late(Exception):
    """The deadline passed before there was an answer."""


class WorkerLost(Exception):
    """The worker ended before it answered."""


class NurseryFailed(Exception):
    """No worker can be had."""


class _Worker:
    def __init__(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.number = number
        self.lost = False
        self._reader, self._writer = reader, writer
        self._answer: asyncio.Future[frames.Message] | None = None

    async def ask(self, message: frames.Message) -> frames.Message:
        self._answer = asyncio.get_running_loop().create_future()
        self._writer.write(frames.pack(message))
        return await self._answer

    async def follow(self) -> None:
        """Hands on answers until the process is gone."""
        try:
            while True:
                answer = await frames.receive(self._reader)
                if self._answer and not self._answer.done():
                    self._answer.set_result(answer)
        except (EOFError, OSError):
            pass
        finally:
            self.lost = True
            self.close()
            if self._answer and not self._answer.done():
                self._answer.set_exception(WorkerLost())

    def close(self) -> None:
        self._writer.close()


class Pool:
    """Keeps `workers` processes; lets at most `queue` more requests wait for them.

    A worker that ends, hangs beyond the deadline, or works for a caller who has left is replaced.
    """

    def __init__(self, arguments: Sequence[str], workers: int, queue: int) -> None:
        """`arguments`: what nursery.py is started with."""
        self.alive = 0
        """Workers there are, at work or not."""
        self.accepted = 0
        """Requests at work or waiting."""
        self.replaced = 0
        """Workers that ended and were replaced since the start."""
        self.workers, self.places = workers, workers + queue
        self._arguments = arguments
        self._numbers = itertools.count(1)
        self._idle: asyncio.Queue[_Worker] = asyncio.Queue()
        self._ready = asyncio.Event()
        self._control: socket.socket | None = None

    @property
    def waiting(self) -> int:
        """Requests without a worker."""
        return max(0, self.accepted - self.workers)

    async def run(self) -> None:
        """Keeps the processes until cancelled, then ends them.

        Raises:
            NurseryFailed: they cannot be started.
        """
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._keep_nursery())
                for _ in range(self.workers):
                    group.create_task(self._keep_worker())
        except* NurseryFailed as failures:
            raise failures.exceptions[0] from None

    async def ask(self, message: frames.Message, seconds: float) -> frames.Message:
        """A worker's answer to `message`, within `seconds` from now.

        Cancelling it ends the worker that is at it.

        Raises:
            Busy, Late, WorkerLost: there is none; each says why.
        """
        if self.accepted >= self.places:
            raise Busy
        clock = asyncio.get_running_loop().time
        deadline = clock() + seconds
        self.accepted += 1
        try:
            async with asyncio.timeout_at(deadline):
                worker = await self._idle.get()
                while worker.lost:
                    worker = await self._idle.get()
            answered = False
            try:
                left = max(0.0, deadline - clock())
                async with asyncio.timeout_at(deadline + GRACE_SECONDS):
                    answer = await worker.ask({**message, "seconds": left})
                answered = True
            finally:
                if answered:
                    self._idle.put_nowait(worker)
                elif not worker.lost:
                    self._kill(worker)
        except TimeoutError:
            raise Late from None
        finally:
            self.accepted -= 1
        return answer

    def _kill(self, worker: _Worker) -> None:
        self._command(b"k", worker.number)
        worker.close()

    def _command(self, letter: bytes, number: int, fds: Sequence[int] = ()) -> None:
        """Tells the nursery; where it is gone, so are the workers it could end.

        Raises:
            OSError: it is gone, and a worker was wanted of it.
        """
        try:
            if self._control is None:
                raise ConnectionError("no nursery")
            socket.send_fds(self._control, [letter + number.to_bytes(4, "big")], fds)
        except OSError:
            if fds:
                raise

    async def _keep_worker(self) -> None:
        while True:
            await self._ready.wait()
            try:
                worker = await self._fork()
            except (OSError, EOFError):
                await asyncio.sleep(0.1)  # the end of the nursery is noticed meanwhile
                continue
            self._idle.put_nowait(worker)
            self.alive += 1
            try:
                await worker.follow()
            finally:
                self.alive -= 1
            self.replaced += 1
            LOG.warning("worker %d is gone: replaced", worker.number)

    async def _fork(self) -> _Worker:
        number = next(self._numbers)
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._command(b"f", number, [theirs.fileno()])
            except OSError:
                ours.close()
                raise
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        try:
            await frames.receive(reader)  # that it is there
        except BaseException:
            writer.close()
            raise
        return _Worker(number, reader, writer)

    async def _keep_nursery(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            ours, theirs = socket.socketpair()
            with ours, theirs:
                ours.setblocking(False)
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    str(Path(__file__).with_name("nursery.py")),
                    *self._arguments,
                    "--control",
                    str(theirs.fileno()),
                    "--parent",
                    str(os.getpid()),
                    pass_fds=[theirs.fileno()],
                    stdin=asyncio.subprocess.DEVNULL,
                    env={**os.environ, "PYTHONHASHSEED": "0"},
                )
                theirs.close()
                try:
                    started = await loop.sock_recv(ours, 1)
                    if started:
                        self._control = ours
                        self._ready.set()
                        await loop.sock_recv(ours, 1)  # nothing ever comes: returns when the process is gone
                finally:
                    self._ready.clear()
                    self._control = None
                    ours.close()
                    await _end(process)
            if not started:
                raise NurseryFailed(f"alibi's process ended with exit code {process.returncode} before it was ready")
            LOG.warning("alibi's process is gone (exit code %s): started again", process.returncode)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Waits until `process` has ended, which it does when its socket is closed; not for ever."""
    try:
        async with asyncio.timeout(END_SECONDS):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def retry_seconds(pool: Pool, usual_seconds: float) -> int:
    """When it is worth asking again, where a request usually takes `usual_seconds`."""
    return max(1, math.ceil(usual_seconds * (pool.waiting + 1) / pool.workers))
