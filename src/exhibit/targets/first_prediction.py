"""When a server is ready: once a real prediction of it is right."""

from __future__ import annotations

import httpx

from exhibit import clients
from exhibit.clients import Client
from exhibit.contract import Platform
from exhibit.model import TOLERANCE, Flights, difference

ROWS = 4


class NotReady(Exception):
    """Why a server is not ready yet."""


def require_right_prediction(http: httpx.Client, url: str, platform: Platform, client: Client, golden: Flights) -> None:
    """Asks the server at `url` (scheme, host and port) some of the `golden` rows.

    Raises:
        NotReady: it does not answer, or not rightly.
    """
    predict, asked = platform.file.predict, golden.take(ROWS)
    headers = {"Content-Type": predict.content_type}
    try:
        response = http.post(url + predict.path, content=client.encode(asked.rows), headers=headers)
    except httpx.TransportError as error:
        raise NotReady(f"{type(error).__name__}: {error}") from error
    if response.status_code != 200:
        raise NotReady(f"answered {response.status_code}: {response.text[:200]!r}")
    try:
        off = difference(clients.read(client, response.content, len(asked)), asked.expected)
    except ValueError as error:
        raise NotReady(str(error)) from error
    if off > TOLERANCE:
        raise NotReady(f"predictions differ from the golden answers by {off} (at most {TOLERANCE})")
