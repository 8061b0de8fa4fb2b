"""What a request may take: bytes of head and body, seconds to arrive."""

import asyncio
import json
from http import HTTPStatus
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

#: Bytes of a head: URL and headers. h11 refuses more only while the end of it has not come.
MOST_HEAD = 16 * 1024
#: Seconds in which we go on reading what a client sends that has been refused. A connection closed on bytes that nobody
#: read is reset, and the reset may overtake the answer.
LINGER = 1.0


class Refused(Exception):
    """A body we do not wait for."""

    def __init__(self, status: HTTPStatus, why: str) -> None:
        super().__init__(why)
        self.status, self.why = status, why


class RequestLimits:
    """ASGI middleware: takes the body in, up to `most` bytes and `seconds`, before anybody below sees the request.

    It belongs outside of all others. A body that says its length is refused without a byte of it; the others when they
    pass it. The answer is a problem document (RFC 9457), 413, 408 or, for a head, 431; and the connection ends.
    """

    def __init__(self, app: ASGIApp, *, most: int, seconds: float) -> None:
        self.app, self.most, self.seconds = app, most, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            taken_in = await self._take_in(scope, receive)
        except Refused as refused:
            await _answer(refused, receive, send)
            return
        if taken_in is not None:
            await self.app(scope, taken_in, send)

    async def _take_in(self, scope: Scope, receive: Receive) -> Receive | None:
        """What gives the body once more, now that it is all here; None when the client has gone."""
        if _head_size(scope) > MOST_HEAD:
            why = f"the URL and the headers are larger than {MOST_HEAD} bytes"
            raise Refused(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, why)
        headers = Headers(scope=scope)
        if not _has_body(headers):
            return receive
        body = await self._take_in_body(headers, receive)
        return None if body is None else _after(body, receive)

    async def _take_in_body(self, headers: Headers, receive: Receive) -> bytes | None:
        if _length(headers) > self.most:
            raise self._too_large()
        try:
            async with asyncio.timeout(self.seconds):
                return await self._read(receive)
        except TimeoutError:
            why = f"the body did not arrive within {self.seconds:g} seconds"
            raise Refused(HTTPStatus.REQUEST_TIMEOUT, why) from None

    async def _read(self, receive: Receive) -> bytes | None:
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            if len(body) > self.most:
                raise self._too_large()
            if not message.get("more_body"):
                return bytes(body)

    def _too_large(self) -> Refused:
        return Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body is larger than {self.most} bytes")


class PunctualProtocol(H11Protocol):
    """uvicorn's protocol, for clients that finish a request's head in HEAD_TIME; the others' connections are closed.

    uvicorn waits for a head for ever, and each connection costs a file descriptor. Pass a subclass as `http` of its Config.
    """

    HEAD_TIME = 15.0
    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_watching()
        super().connection_lost(exc)

    def _watch(self) -> None:
        """Between two requests, uvicorn's own timer waits for the next one's first byte; ours for its last."""
        at_work = self.cycle is not None and not self.cycle.response_complete
        idle = self.timeout_keep_alive_task is not None
        if at_work or idle:
            self._stop_watching()
        elif self._late is None:
            self._late = self.loop.call_later(self.HEAD_TIME, self.transport.close)

    def _stop_watching(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


def punctual(seconds: float) -> type[PunctualProtocol]:
    """The protocol, with that much time for a head."""
    return type("Punctual", (PunctualProtocol,), {"HEAD_TIME": seconds})


def _head_size(scope: Scope) -> int:
    lines = sum(len(name) + len(value) for name, value in scope["headers"])
    return lines + len(scope.get("raw_path") or b"") + len(scope["query_string"])


def _has_body(headers: Headers) -> bool:
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"


def _length(headers: Headers) -> int:
    """What the client says; h11 lets nothing but digits through."""
    said = headers.get("content-length", "0")
    return int(said[:20]) if said.isdecimal() else 0


def _after(body: bytes, receive: Receive) -> Receive:
    """The body in one message, and then whatever else comes: that the client has gone."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return messages.pop() if messages else await receive()

    return replayed


async def _answer(refused: Refused, receive: Receive, send: Send) -> None:
    problem: dict[str, Any] = {
        "type": "about:blank",
        "title": refused.status.phrase,
        "status": refused.status,
        "detail": refused.why,
    }
    body = json.dumps(problem).encode()
    headers = {
        "content-type": "application/problem+json",
        "content-length": str(len(body)),
        "cache-control": "no-store",
        "x-content-type-options": "nosniff",
        "connection": "close",
    }
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": refused.status, "headers": raw})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    if refused.status is HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        await _linger(receive)
    await send({"type": "http.response.body", "body": b""})


async def _linger(receive: Receive) -> None:
    try:
        async with asyncio.timeout(LINGER):
            while (message := await receive())["type"] == "http.request" and message.get("more_body"):
                pass
    except TimeoutError:
        return
