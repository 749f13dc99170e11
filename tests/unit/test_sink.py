"""The webhook that writes down what Alertmanager delivers, without an Alertmanager."""

from __future__ import annotations

import ast
import asyncio
import json
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from exhibit import sink

MESSAGE: dict[str, Any] = {
    "version": "4",
    "status": "firing",
    "alerts": [
        {
            "status": "firing",
            "labels": {"alertname": "TooHot", "platform": "alpha", "target": "local", "source": "a"},
            "annotations": {"summary": "zu heiß"},
            "startsAt": "2026-01-02T03:04:05.123456789Z",
            "endsAt": "0001-01-01T00:00:00Z",
        },
        {
            "status": "resolved",
            "labels": {"alertname": "TooHot", "source": "b"},
            "annotations": {},
            "startsAt": "2026-01-02T04:04:05.5+01:00",
            "endsAt": "2026-01-02T03:04:09.5Z",
        },
    ],
}


def served(file: Path, ask: Callable[[TestClient[Any, Any]], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        async with TestClient(TestServer(sink.application(file))) as client:
            await ask(client)

    asyncio.run(run())


def test_a_message_becomes_one_line_an_alert(tmp_path: Path) -> None:
    file = tmp_path / "deliveries.jsonl"

    async def ask(client: TestClient[Any, Any]) -> None:
        assert (await client.get("/ready")).status == 200
        for _ in range(2):
            assert (await client.post("/", json=MESSAGE)).status == 200

    served(file, ask)
    assert len(file.read_text().splitlines()) == 4
    firing, resolved, *again = sink.read(file)
    assert (firing.status, firing.alertname, firing.platform, firing.target) == ("firing", "TooHot", "alpha", "local")
    assert (firing.started_at, firing.ended_at) == (1767323045.123456, None)
    assert firing.labels["source"] == "a"
    assert firing.annotations == {"summary": "zu heiß"}
    assert (resolved.status, resolved.platform, resolved.target) == ("resolved", "", "")
    assert (resolved.started_at, resolved.ended_at) == (1767323045.5, 1767323049.5)
    assert firing.received_at == resolved.received_at < again[0].received_at


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"7", b"{}", b'{"alerts": 3}', b'{"alerts": [{}]}', b'{"alerts": ["a"]}', b"\xff\xfe"],
)
def test_what_is_no_message_is_refused_and_not_written(tmp_path: Path, body: bytes) -> None:
    async def ask(client: TestClient[Any, Any]) -> None:
        response = await client.post("/", data=body, headers={"content-type": "application/json"})
        assert response.status == 400
        assert "expected a message of Alertmanager's webhook" in await response.text()

    served(tmp_path / "deliveries.jsonl", ask)
    assert sink.read(tmp_path / "deliveries.jsonl") == []


def test_half_a_message_is_not_written(tmp_path: Path) -> None:
    broken = json.loads(json.dumps(MESSAGE))
    broken["alerts"][1]["startsAt"] = "yesterday"

    async def ask(client: TestClient[Any, Any]) -> None:
        assert (await client.post("/", json=broken)).status == 400
        assert (await client.post("/", data=b"x" * (sink.BODY_LIMIT_BYTES + 1))).status == 413

    served(tmp_path / "deliveries.jsonl", ask)
    assert sink.read(tmp_path / "deliveries.jsonl") == []


def test_what_was_delivered_can_be_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "deliveries.jsonl"

    async def ask(client: TestClient[Any, Any]) -> None:
        url = str(client.make_url("")).rstrip("/")
        assert await asyncio.to_thread(sink.fetch, url) == []
        assert (await client.post("/", json=MESSAGE)).status == 200
        assert await asyncio.to_thread(sink.fetch, url) == sink.read(file) != []
        with file.open("ab") as appended:  # a line that is being written
            appended.write('{"status": "ß'.encode()[:-1])
        assert await asyncio.to_thread(sink.fetch, url) == sink.read(file) != []
        for path in ("/deliveries/", "/deliveries.jsonl"):
            assert (await client.get(path)).status == 404

    served(file, ask)
    with pytest.raises(OSError, match="refused"):
        sink.fetch("http://127.0.0.1:1")


def test_a_proxy_of_the_environment_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")

    async def ask(client: TestClient[Any, Any]) -> None:
        assert await asyncio.to_thread(sink.fetch, str(client.make_url("")).rstrip("/")) == []

    served(tmp_path / "deliveries.jsonl", ask)


def test_it_stands_alone() -> None:
    """The webhook's image has this file and what its requirements name."""
    tree = ast.parse(Path(sink.__file__).read_text(encoding="utf-8"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    others = {name.split(".")[0] for name in imported} - sys.stdlib_module_names
    wanted = (Path(__file__).parents[2] / "monitoring" / "webhook" / "requirements.in").read_text()
    assert others == {line for line in wanted.splitlines() if line and not line.startswith("#")}


def test_what_cannot_be_written_is_to_be_sent_again(tmp_path: Path) -> None:
    async def ask(client: TestClient[Any, Any]) -> None:
        assert (await client.post("/", json=MESSAGE)).status == 500

    served(tmp_path / "no such folder" / "deliveries.jsonl", ask)


def test_a_line_that_is_being_written_waits(tmp_path: Path) -> None:
    file = tmp_path / "deliveries.jsonl"
    assert sink.read(file) == []
    file.touch()
    assert sink.read(file) == []

    async def ask(client: TestClient[Any, Any]) -> None:
        assert (await client.post("/", json=MESSAGE)).status == 200

    served(file, ask)
    whole = file.read_bytes()
    # Cut within a character of two bytes, too.
    for length in (len(whole) - 1, whole.index("ß".encode()) + 1, 1):
        file.write_bytes(whole[:length])
        assert len(sink.read(file)) == whole[:length].count(b"\n")
