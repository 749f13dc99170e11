"""Messages between the service and its workers: four bytes of length, then JSON (which keeps every bit of a float)."""

from __future__ import annotations

import asyncio
import json
import struct
from typing import Any, BinaryIO

Message = dict[str, Any]
_LENGTH = struct.Struct("!I")


def pack(message: Message) -> bytes:
    """The bytes of a message."""
    body = json.dumps(message).encode()
    return _LENGTH.pack(len(body)) + body


def read(stream: BinaryIO) -> Message | None:
    """The next message; None where the other side is gone."""
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(head)
    body = stream.read(length)
    return json.loads(body) if len(body) == length else None


async def receive(reader: asyncio.StreamReader) -> Message:
    """The next message.

    Raises:
        EOFError, ConnectionError: the other side is gone.
    """
    (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    message: Message = json.loads(await reader.readexactly(length))
    return message
