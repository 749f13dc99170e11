"""The copies port: any request is a copy, answered 202 at once, whatever becomes of it."""

from __future__ import annotations

import asyncio

from aiohttp import web
from intake import BODY_BYTES, Intake

BODY_SECONDS = 10.0
LINGERING_SECONDS = 2.0
"""How long what is left of a dropped body is read, so that its sender sees an answer and not a broken connection."""
HEADER_BYTES = 2**17
"""More than the gateway lets through: a request refused here for its header would not be counted."""
SERVER_OPTIONS = {
    "access_log": None,
    "auto_decompress": False,  # a small body may be huge when decompressed
    "lingering_time": LINGERING_SECONDS,
    "max_line_size": HEADER_BYTES,
    "max_field_size": HEADER_BYTES,
    "max_headers": 1000,
}


class _DroppedError(Exception):
    """The reason is the message."""


class Copies:
    """Handler of `aiohttp.web.Server`, which knows no paths and no methods: nothing of a request becomes a label."""

    def __init__(self, intake: Intake, body_seconds: float = BODY_SECONDS) -> None:
        self.intake, self.body_seconds = intake, body_seconds

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Queues the body of `request` or counts it as dropped."""
        try:
            self.intake.put(await self._body(request))
        except _DroppedError as dropped:
            self.intake.drop(str(dropped))
        except Exception:  # the sender hung up, was too slow, or broke the rules of its transfer encoding
            self.intake.drop("unreadable")
        except BaseException:
            self.intake.drop("unreadable")
            raise
        return web.Response(status=202)

    async def _body(self, request: web.BaseRequest) -> bytes:
        if (request.content_length or 0) > BODY_BYTES:
            raise _DroppedError("too_large")
        if request.content.is_eof():  # all of it came with the header, which is nearly always so
            return request.content.read_nowait()
        pieces: list[bytes] = []
        held_bytes = 0
        try:
            async with asyncio.timeout(self.body_seconds):
                while piece := await request.content.readany():
                    if held_bytes + len(piece) > BODY_BYTES:
                        raise _DroppedError("too_large")
                    if not self.intake.hold(len(piece)):
                        raise _DroppedError("queue_full")
                    held_bytes += len(piece)
                    pieces.append(piece)
        finally:
            self.intake.release(held_bytes)
        return b"".join(pieces)
