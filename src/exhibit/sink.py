"""A webhook that writes down what Alertmanager delivers, for the demo, the report and the tests.

``python -m exhibit.sink --port N --file deliveries.jsonl`` takes messages at ``/`` until SIGTERM; `read` reads the
file, `fetch` asks for it where the file is out of reach. It stands where a team has its pager or chat.

The image of monitoring/webhook holds this one file: it imports nothing else of ours.
"""

from __future__ import annotations

import argparse
import json
import time
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from aiohttp import web

BODY_LIMIT_BYTES = 4 * 2**20
FETCH_SECONDS = 10
FILE = web.AppKey("file", Path)


@dataclass(frozen=True)
class Delivery:
    """One alert of one message. Alertmanager repeats an alert in each message of its group, until it is resolved."""

    received_at: float
    """Seconds since the epoch, by this machine's clock."""
    status: str
    """``firing`` or ``resolved``."""
    alertname: str
    platform: str
    target: str
    started_at: float
    """When the alert began to fire, seconds since the epoch."""
    ended_at: float | None
    """When it was resolved; None while it fires."""
    labels: Mapping[str, str]
    annotations: Mapping[str, str]


def read(path: Path) -> list[Delivery]:
    """What was delivered so far, oldest first; empty if there is no such file. A line that is being written waits."""
    return _parse(path.read_bytes()) if path.exists() else []


def fetch(url: str) -> list[Delivery]:
    """What was delivered so far to the webhook at `url` (scheme, host, port), oldest first.

    Raises:
        OSError: it cannot be reached, or does not answer 200.
    """
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(f"{url}/deliveries", timeout=FETCH_SECONDS) as response:
        return _parse(response.read())


def _parse(lines: bytes) -> list[Delivery]:
    # In bytes: what is not yet whole may end within a character.
    whole, _, _ = lines.rpartition(b"\n")
    return [Delivery(**json.loads(line)) for line in whole.split(b"\n") if line]


def deliveries(message: Mapping[str, Any], received_at: float) -> list[Delivery]:
    """The alerts of a message of Alertmanager's webhook (version 4).

    Raises:
        KeyError, TypeError, ValueError: it is no such message.
    """
    return [
        Delivery(
            received_at=received_at,
            status=str(alert["status"]),
            alertname=str(alert["labels"]["alertname"]),
            platform=str(alert["labels"].get("platform", "")),
            target=str(alert["labels"].get("target", "")),
            started_at=_seconds(alert["startsAt"]),
            ended_at=_seconds(alert["endsAt"]) if alert["status"] == "resolved" else None,
            labels=dict(alert["labels"]),
            annotations=dict(alert["annotations"]),
        )
        for alert in message["alerts"]
    ]


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def application(file: Path) -> web.Application:
    """The webhook: POST / writes to `file`, GET /deliveries gives it, GET /ready answers 200."""
    app = web.Application(client_max_size=BODY_LIMIT_BYTES)
    app[FILE] = file
    app.add_routes([web.post("/", _take), web.get("/deliveries", _give), web.get("/ready", _ready)])
    return app


async def _take(request: web.Request) -> web.Response:
    try:
        found = deliveries(await request.json(), time.time())
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        # A 4xx: Alertmanager does not send the same message again, as it would after a 5xx.
        expected = "expected a message of Alertmanager's webhook, version 4"
        return web.Response(status=400, text=f"body: {error!r}, {expected}\n")
    text = "".join(json.dumps(asdict(one), ensure_ascii=False) + "\n" for one in found)
    # One write, so that messages never mix; a full disk is a 500, and Alertmanager tries again.
    with request.app[FILE].open("ab") as file:
        file.write(text.encode("utf-8"))
    return web.Response()


async def _give(request: web.Request) -> web.Response:
    file = request.app[FILE]
    lines = file.read_bytes() if file.exists() else b""
    return web.Response(body=lines, content_type="application/jsonl", charset="utf-8")


async def _ready(request: web.Request) -> web.Response:
    return web.Response(text="ready\n")


def main(argv: Sequence[str] | None = None) -> None:
    """Serves the webhook until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m exhibit.sink", description="A webhook that keeps its messages.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--file", type=Path, required=True, help="one JSON line an alert delivered; appended to")
    chosen = parser.parse_args(argv)
    chosen.file.parent.mkdir(parents=True, exist_ok=True)
    chosen.file.touch()
    web.run_app(application(chosen.file), host=chosen.host, port=chosen.port, print=None, shutdown_timeout=1)


if __name__ == "__main__":
    main()
