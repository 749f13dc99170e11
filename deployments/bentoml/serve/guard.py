"""Pure ASGI middleware in front of the service: refuses what should not reach BentoML's parsers."""

import logging

from pydantic import ValidationError
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

BODY_LIMIT_BYTES = 1024 * 1024


async def read_body(headers: Headers, receive: Receive) -> bytes:
    """Return the whole body; raise HTTPException (413) as soon as it is over the limit, (400) if the client leaves."""
    body, size, more = bytearray(), int(headers.get("content-length", 0)), True
    while more and size <= BODY_LIMIT_BYTES:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise HTTPException(400, "the body ended early")  # nobody reads it, but BentoML's timer waits for an answer
        body += message.get("body", b"")
        size = max(size, len(body))  # a chunked body announces no length
        more = message.get("more_body", False)
    if size > BODY_LIMIT_BYTES:
        raise HTTPException(413, f"the body must not exceed {BODY_LIMIT_BYTES} bytes")
    return bytes(body)


class Guard:
    """Lets only JSON bodies up to the limit through, and only POST to the paths in `post_only`.

    BentoML itself reads a body of any size, and picks a parser (multipart, pickle, ...) by the caller's content type.
    """

    def __init__(self, app: ASGIApp, post_only: set[str]) -> None:
        self.app = app
        self.post_only = post_only

    def check_head(self, scope: Scope, headers: Headers) -> None:
        """Raise HTTPException (405, 415) for a request that is refused whatever its body."""
        if scope["method"] != "POST" and scope["path"] in self.post_only:
            raise HTTPException(405, "use POST", {"Allow": "POST"})
        content_type = headers.get("content-type", "application/json").split(";")[0].strip().lower()
        if scope["method"] not in ("GET", "HEAD") and content_type != "application/json":
            raise HTTPException(415, "the content type must be application/json")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            self.check_head(scope, headers)
            body = await read_body(headers, receive)
        except HTTPException as refusal:
            answer = JSONResponse({"error": refusal.detail}, refusal.status_code, refusal.headers)
            await answer(scope, receive, send)
            return
        pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return pending.pop() if pending else await receive()

        await self.app(scope, replay, send)


def hide_refusals(record: logging.LogRecord) -> bool:
    """Keep refused requests out of the log: BentoML would write a traceback that quotes the caller's data for each."""
    error = record.exc_info[1] if record.exc_info else None
    return not (isinstance(error, ValidationError) and error.title == "Input")
