"""Pure ASGI middleware that stands between the network and MLflow's scoring server."""

from rows import MODEL_FAILED, Refusal, check_rows, parse_object
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

BODY_LIMIT_BYTES = 1024 * 1024


def answer_refusal(path: str, refusal: Refusal) -> JSONResponse:
    """Return `refusal` as the error object of the protocol that `path` speaks."""
    if path.startswith("/v2"):
        return JSONResponse({"error": refusal.reason}, refusal.status)
    error_code = "INTERNAL_ERROR" if refusal.status >= 500 else "BAD_REQUEST"
    return JSONResponse({"error_code": error_code, "message": refusal.reason}, refusal.status)


async def read_body(headers: Headers, receive: Receive) -> bytes:
    """Return the whole body; raise Refusal (413) at the first byte over the limit, whatever Content-Length says."""
    body = bytearray()
    more = True
    while more and max(len(body), int(headers.get("content-length", 0))) <= BODY_LIMIT_BYTES:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)  # absent from http.disconnect: nobody waits for an answer
    if more or len(body) > BODY_LIMIT_BYTES:
        raise Refusal(413, f"the body must not exceed {BODY_LIMIT_BYTES} bytes")
    return bytes(body)


def check_invocation(body: bytes, content_type: str, columns: int) -> None:
    """Accept the two tensor forms of MLflow's protocol; raise Refusal (400, 415) for all else.

    The DataFrame forms (dataframe_split, dataframe_records, CSV, Parquet) cost about twice the CPU and guess types.
    Further keys are refused since some of them ("messages", "input", ...) make MLflow treat the body as a chat.
    """
    request = parse_object(body, content_type)
    if list(request) not in (["inputs"], ["instances"]):
        raise Refusal(400, 'the body must be an object with the one key "inputs" (or "instances")')
    check_rows(next(iter(request.values())), columns)


class Guard:
    """Limits bodies, validates /invocations, and replaces MLflow's error bodies.

    Those bodies carry stack traces, file paths and the caller's data. After validation an error is the server's own.
    """

    def __init__(self, app: ASGIApp, columns: int) -> None:
        self.app = app
        self.columns = columns

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            await self.app(scope, receive, send)
            return
        headers, path = Headers(scope=scope), scope["path"]
        invocation = path == "/invocations" and scope["method"] == "POST"
        try:
            body = await read_body(headers, receive)
            if invocation:
                check_invocation(body, headers.get("content-type", ""), self.columns)
        except Refusal as refusal:
            await answer_refusal(path, refusal)(scope, receive, send)
            return
        pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        failed = False

        async def replay() -> Message:
            return pending.pop() if pending else await receive()

        async def send_clean(message: Message) -> None:
            nonlocal failed
            failed = failed or (invocation and message.get("status", 0) >= 400)
            if not failed:
                await send(message)

        await self.app(scope, replay, send_clean)
        if failed:
            await answer_refusal(path, Refusal(500, MODEL_FAILED))(scope, receive, send)
