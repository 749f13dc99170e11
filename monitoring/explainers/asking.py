"""The served model, asked over HTTP: no row twice, in batches below the gateway's body limit, until a deadline."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt
import urllib3
from errors import DeadlinePassed, ExplainersError, ServedModelFailed

BATCH_ROWS = 1000
"""Measured through the gateway: 500 to 2000 rows cost the same time, less or more costs more."""
BODY_BYTES = 1_000_000
"""Largest body sent; the gateway refuses more than 1 MiB."""
ANSWER_BYTES = 2**20
"""Largest answer read: some 20 bytes a row are usual."""
SLACK = 1e-6
"""By how much a probability may leave [0, 1], as the last bit of a float32 may."""
REMEDY = "See the log of the served model, then ask again."


class Client(Protocol):
    """What a platform's client.py defines."""

    def encode(self, rows: npt.NDArray[np.float32]) -> bytes:
        """The body of a request for rows float32 [n, k]."""

    def decode(self, body: bytes) -> npt.NDArray[np.float64]:
        """The predictions float64 [n] in an answer; any exception when it holds none."""


def load_client(path: Path) -> Client:
    """The client defined in the file `path`; it is run, so it must be yours.

    Raises:
        ExplainersError: there is no such file, it cannot be imported, or lacks a function.
    """
    remedy = "Give --client a Python file that defines them."
    specification = importlib.util.spec_from_file_location("client", path)
    assert specification
    assert specification.loader
    module = importlib.util.module_from_spec(specification)
    try:
        specification.loader.exec_module(module)
    except Exception as error:
        raise ExplainersError(path, f"{type(error).__name__}: {error}", "functions encode and decode", remedy) from None
    for name in ("encode", "decode"):
        if not callable(getattr(module, name, None)):
            raise ExplainersError(path, f"no function {name}", "functions encode and decode", remedy)
    return cast(Client, module)


class ServedModel:
    """Rows float32 [n, k] -> predictions float64 [n] of the model at `url`. For one thread.

    Answers are remembered until `forget`, so that a row is asked once however often an explainer wants it.
    """

    def __init__(self, client: Client, url: str, content_type: str) -> None:
        self.url = url
        self.deadline = float("inf")
        """When to give up, by `time.monotonic`."""
        self.rows_asked = 0
        self._client, self._headers = client, {"Content-Type": content_type}
        self._pool = urllib3.PoolManager(maxsize=1, retries=False)
        self._known: dict[bytes, float] = {}

    def forget(self) -> None:
        """Ask anew for every row from now on."""
        self._known = {}

    def __call__(self, rows: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """The predictions [n] for `rows` [n, k].

        Raises:
            ServedModelFailed: there is no connection, or the answer is not one probability a row.
            DeadlinePassed: the time is over.
        """
        self._check_time()  # also where every answer is known already
        rows = np.ascontiguousarray(rows, dtype=np.float32)
        keys = rows.view(np.dtype((np.void, rows.shape[1] * rows.itemsize))).ravel().tolist()
        missing = [key for key in dict.fromkeys(keys) if key not in self._known]
        asked = np.frombuffer(b"".join(missing), dtype=np.float32).reshape(-1, rows.shape[1])
        for start in range(0, len(asked), BATCH_ROWS):
            answers = self._ask(asked[start : start + BATCH_ROWS])
            self._known.update(zip(missing[start : start + BATCH_ROWS], answers, strict=True))
        return np.array([self._known[key] for key in keys])

    def _ask(self, rows: npt.NDArray[np.float32]) -> Iterable[float]:
        body = self._client.encode(rows)
        if len(body) > BODY_BYTES and len(rows) > 1:
            half = len(rows) // 2
            return [*self._ask(rows[:half]), *self._ask(rows[half:])]
        answer = self._post(body)
        try:
            answers = np.asarray(self._client.decode(answer), dtype=np.float64)
        except Exception as error:  # whatever a client stumbles over, the answer is what is wrong
            raise self._failed(f"an answer that cannot be read ({error}): {answer[:200]!r}") from error
        if answers.shape != (len(rows),):
            raise self._failed(f"an answer of shape {answers.shape} to {len(rows)} rows")
        if not (np.isfinite(answers).all() and answers.min() >= -SLACK and answers.max() <= 1 + SLACK):
            raise self._failed(f"answers from {answers.min()} to {answers.max()}")
        self.rows_asked += len(rows)
        return answers.tolist()

    def _post(self, body: bytes) -> bytes:
        """The body of the answer; sent a second time where the connection was closed before there was one."""
        try:
            return self._post_once(body)
        except urllib3.exceptions.ProtocolError:  # a connection kept from the last explanation, usually
            pass
        try:
            return self._post_once(body)
        except urllib3.exceptions.ProtocolError as error:
            raise self._failed(f"a connection that breaks ({error})") from error

    def _post_once(self, body: bytes) -> bytes:
        left = self._check_time()
        try:
            response = self._pool.request(
                "POST",
                self.url,
                body=body,
                headers=self._headers,
                timeout=urllib3.Timeout(left if left < float("inf") else None),
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
            answer = response.read(ANSWER_BYTES + 1)
            if len(answer) > ANSWER_BYTES:
                response.close()
                raise self._failed(f"an answer of more than {ANSWER_BYTES} bytes")
            response.drain_conn()
            response.release_conn()
        except urllib3.exceptions.TimeoutError as error:
            if isinstance(error, urllib3.exceptions.NewConnectionError):
                raise self._failed(f"no connection ({error})") from error
            raise self._late() from error
        except urllib3.exceptions.ProtocolError:
            raise
        except urllib3.exceptions.HTTPError as error:
            raise self._failed(f"no answer ({error})") from error
        if response.status != 200:
            raise self._failed(f"status {response.status} ({answer[:200].decode(errors='replace')!r})")
        return answer

    def _check_time(self) -> float:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise self._late()
        return left

    def _failed(self, found: str) -> ServedModelFailed:
        return ServedModelFailed(f"the served model at {self.url}", found, "one probability a row", REMEDY)

    def _late(self) -> DeadlinePassed:
        return DeadlinePassed(
            f"the served model at {self.url}",
            f"not all answers in time, {self.rows_asked} rows so far",
            "them before the deadline",
            "Ask for fewer rows at once, or raise --deadline-seconds.",
        )
