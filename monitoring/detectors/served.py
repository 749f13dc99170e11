"""The served model, asked for its predictions of the rows that were copied; never at the expense of the statistics."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import time

import aiohttp
import numpy as np
import numpy.typing as npt
from clients import Client

LOG = logging.getLogger("detectors")

REQUEST_ROWS = 512
"""Some 130 KB of JSON: an eighth of what the gateway lets through."""
ANSWER_BYTES = 2**20
BUDGET_SECONDS = 2.0
"""How long the rows of one micro-batch may be asked about altogether."""
LONGEST_PAUSE_SECONDS = 5.0


class _NoAnswerError(Exception):
    """The message says why; `refused` that the request was, `late` that waiting again would take as long again."""

    def __init__(self, reason: str, *, refused: bool = False, late: bool = False) -> None:
        super().__init__(reason)
        self.refused, self.late = refused, late


class ServedModel:
    """Asks at `url`; used by one thread, while its connections live in the event loop `loop`.

    A request without an answer is sent once more at most. After a failure nothing is asked for 1, 2, 4, then 5 s, so
    that a model in trouble is left alone and a dead one costs no time.
    """

    def __init__(
        self, url: str, content_type: str, client: Client, loop: asyncio.AbstractEventLoop, answer_seconds: float
    ) -> None:
        self.url, self.client, self.answer_seconds = url, client, answer_seconds
        self._headers = {"Content-Type": content_type}
        self._loop = loop
        self._session: aiohttp.ClientSession | None = None
        self._current: concurrent.futures.Future[bytes] | None = None
        self._end = float("inf")
        self._failures = 0
        self._pause_until = 0.0

    def predictions(self, rows: npt.NDArray[np.float32], usual: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        """The served model's predictions of rows [n, k], float64 [n]; NaN where it gave none.

        `usual` [n] says which rows lie in their ranges: where the server refuses a request, these are asked about
        again without the others, since a single row may be why.
        """
        answers = np.full(len(rows), np.nan)
        deadline = min(time.monotonic() + BUDGET_SECONDS, self._end)
        for start in range(0, len(rows), REQUEST_ROWS):
            now = time.monotonic()
            if now < self._pause_until or now >= deadline:
                break
            part = slice(start, start + REQUEST_ROWS)
            answers[part] = self._ask_twice(rows[part], usual[part], deadline)
        return answers

    def end(self, seconds: float) -> None:
        """From `seconds` from now on nothing is asked, and an answer is waited for no longer (event loop only)."""
        self._end = time.monotonic() + seconds
        self._loop.call_later(seconds, self._cancel)

    async def close(self) -> None:
        """Closes the connections (event loop only)."""
        if self._session:
            await self._session.close()

    def _cancel(self) -> None:
        if self._current:
            self._current.cancel()

    def _ask_twice(
        self, rows: npt.NDArray[np.float32], usual: npt.NDArray[np.bool_], deadline: float
    ) -> npt.NDArray[np.float64]:
        answers = np.full(len(rows), np.nan)
        try:
            answers[:] = self._ask(rows, deadline)
        except _NoAnswerError as failure:
            again = usual if failure.refused else np.ones(len(rows), np.bool_)
            useless = failure.late or not again.any() or (failure.refused and again.all())
            try:
                if useless:
                    raise
                answers[again] = self._ask(rows[again], deadline)
            except _NoAnswerError as reason:
                self._fail(reason)
                return answers
        if self._failures:
            LOG.info("%s: answers again.", self.url)
        self._failures, self._pause_until = 0, 0.0
        return answers

    def _fail(self, reason: Exception) -> None:
        if not self._failures:
            LOG.warning("%s: %s, expected predictions. The statistics go on without.", self.url, reason)
        pause = min(2.0**self._failures, LONGEST_PAUSE_SECONDS)
        self._failures = min(self._failures + 1, 10)
        self._pause_until = time.monotonic() + pause

    def _ask(self, rows: npt.NDArray[np.float32], deadline: float) -> npt.NDArray[np.float64]:
        seconds = min(self.answer_seconds, deadline - time.monotonic())
        if seconds <= 0:
            raise _NoAnswerError("no time left", late=True)
        try:
            body = self.client.encode(rows)
            self._current = asyncio.run_coroutine_threadsafe(self._post(body, seconds), self._loop)
            answer = self._current.result()
            found = np.asarray(self.client.decode(answer), np.float64)
        except _NoAnswerError:
            raise
        except (TimeoutError, concurrent.futures.CancelledError):
            raise _NoAnswerError(f"no answer within {seconds:.1f} s", late=True) from None
        except Exception as error:  # of the connection, or of client.py about an answer that is none
            raise _NoAnswerError(f"{type(error).__name__}: {error}"[:300]) from error
        finally:
            self._current = None
        if found.shape != (len(rows),):
            raise _NoAnswerError(f"an answer of shape {list(found.shape)} to {len(rows)} rows")
        return np.where(np.isfinite(found), found, np.nan)

    async def _post(self, body: bytes, seconds: float) -> bytes:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                cookie_jar=aiohttp.DummyCookieJar(), connector=aiohttp.TCPConnector(limit=1)
            )
        async with self._session.post(
            self.url,
            data=body,
            headers=self._headers,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=seconds),
        ) as response:
            answer = bytearray()
            async for piece in response.content.iter_any():
                answer += piece
                if len(answer) > ANSWER_BYTES:
                    raise _NoAnswerError(f"an answer of more than {ANSWER_BYTES} bytes")
            if response.status != 200:
                words = bytes(answer[:200]).decode(errors="replace")
                raise _NoAnswerError(f"answered {response.status}: {words!r}", refused=400 <= response.status < 500)
            return bytes(answer)
