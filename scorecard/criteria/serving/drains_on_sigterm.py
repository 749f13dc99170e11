"""Does a server that is told to stop finish what it has begun?

Why: Every rollout and every scaling down ends servers by SIGTERM; what is lost then is lost at each release.
How: A second instance gets six requests of 2,000 rows: three without their last byte, three without their second half.
    A request sent and answered after them shows that they were taken up; its connection stays open and idle, as a
    gateway's does. Then last bytes, SIGTERM, second halves, while two callers keep sending on new connections.
Pass: All six are answered rightly. The callers get right answers until they are refused, and no 5xx, wrong or cut one.
    (A new connection closed before a byte of an answer was still in the system's queue: legal HTTP, not held against
    it.) The server ends by itself within its grace (local.stop_seconds) and nothing listens afterwards.
Fix: Give the server's own graceful shutdown less time than the grace and more than a request takes; let it get the
    signal itself (exec, no shell in front); close the model after the connections, not before.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from math import ceil
from time import monotonic, sleep
from urllib.parse import urlsplit

import httpx

from exhibit.criteria import Finding, judge
from exhibit.model import TOLERANCE, difference
from exhibit.targets import AnswerError, Deployment

RIGHT, CLOSED = "right", "closed before any answer"


class Request:
    """A request on a connection of its own; a part of its body, one byte at least, is held back until `release`."""

    def __init__(self, deployment: Deployment, rows: int, held_share: float = 0.0) -> None:
        self.deployment, self.flights = deployment, deployment.model.golden.take(rows)
        file, body = deployment.platform.file, deployment.client.encode(self.flights.rows)
        first = min(int(len(body) * (1 - held_share)), len(body) - 1)
        self.rest = body[first:]
        self.connection = HTTPConnection(urlsplit(deployment.url).netloc, timeout=file.local.stop_seconds)
        headers = {"Content-Type": file.predict.content_type, "Content-Length": str(len(body))}
        self.connection.request("POST", file.predict.path, body[:first], headers)

    def release(self) -> None:
        with suppress(ConnectionError):  # then there is no answer either, and that is what counts
            self.connection.send(self.rest)

    def outcome(self) -> str:
        try:
            answer = self.connection.getresponse()
            found = self.deployment.read(httpx.Response(answer.status, content=answer.read()), len(self.flights))
        except ConnectionError:
            return CLOSED
        except (AnswerError, HTTPException, OSError) as error:
            return f"{type(error).__name__}: {error}"
        return RIGHT if difference(found, self.flights.expected) <= TOLERANCE else "wrong"


def check(deployment: Deployment) -> Finding:
    grace = deployment.platform.file.local.stop_seconds
    with deployment.replica() as replica, ThreadPoolExecutor(2) as pool:
        complete, halves = ([Request(replica, 2000, share) for _ in range(3)] for share in (0.0, 0.5))
        idle = Request(replica, 1)
        idle.release()
        beside = idle.outcome()
        callers = [pool.submit(_call_until_refused, replica, monotonic() + grace) for _ in range(2)]
        for request in complete:
            request.release()
        replica.terminate()
        began = monotonic()
        for request in halves:
            request.release()
        outcomes = [request.outcome() for request in complete + halves]
        while not (ended := replica.ended()) and monotonic() < began + grace:
            sleep(0.02)
        seconds = ceil(monotonic() - began)
        observed = {
            "beside_the_six": beside,
            "in_flight": {outcome: outcomes.count(outcome) for outcome in sorted(set(outcomes))},
            "callers_harmed": sorted({outcome for caller in callers for outcome in caller.result()} - {RIGHT, CLOSED}),
            "ended_by_itself": bool(ended),
            "listens_afterwards": _accepts(replica),
        }
    expected = {
        "beside_the_six": RIGHT,
        "in_flight": {RIGHT: 6},
        "callers_harmed": [],
        "ended_by_itself": True,
        "listens_afterwards": False,
    }
    wrong = [f"{name.replace('_', ' ')}: {found}" for name, found in observed.items() if found != expected[name]]
    message = (
        f"Of 6 requests in flight at SIGTERM {outcomes.count(RIGHT)} were answered rightly, and the server "
        f"{f'ended within {seconds} s' if ended else 'went on'} (grace {grace} s)"
    )
    return judge(not wrong, f"{'; '.join([message, *wrong])}.", observed=observed, expected=expected)


def _call_until_refused(replica: Deployment, deadline: float) -> set[str]:
    outcomes = set()
    while monotonic() < deadline:
        try:
            request = Request(replica, 1)
        except OSError:
            break
        request.release()
        outcomes.add(outcome := request.outcome())
        request.connection.close()
        if outcome == CLOSED and not _accepts(replica):
            break
    return outcomes


def _accepts(replica: Deployment) -> bool:
    """Whether a new connection is kept open, as by a server that waits for a request.

    What merely leads to a server (a port that is mapped into a container) takes connections itself, and drops them.
    """
    connection = HTTPConnection(urlsplit(replica.url).netloc, timeout=1)
    try:
        connection.connect()
        return bool(connection.sock.recv(1))
    except TimeoutError:
        return True
    except OSError:
        return False
    finally:
        connection.close()
