"""Pure ASGI middleware in front of KServe's server: a body limit, which it does not have over REST."""

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

BODY_LIMIT_BYTES = 1024 * 1024


class BodyLimit:
    """Refuses a body over the limit with 413, at the first byte too many, whatever Content-Length says."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            await self.app(scope, receive, send)
            return
        body, more = bytearray(), True
        size = int(Headers(scope=scope).get("content-length", 0))  # a number: the parser of uvicorn has seen to it
        while more and size <= BODY_LIMIT_BYTES:
            message = await receive()
            body += message.get("body", b"")
            size = max(size, len(body))  # a chunked body announces no length
            more = message.get("more_body", False)  # absent from http.disconnect: nobody waits for an answer
        if size > BODY_LIMIT_BYTES:
            answer = JSONResponse({"error": f"body: expected at most {BODY_LIMIT_BYTES} bytes"}, 413)
            await answer(scope, receive, send)
            return
        pending: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def replay() -> Message:
            return pending.pop() if pending else await receive()

        await self.app(scope, replay, send)
