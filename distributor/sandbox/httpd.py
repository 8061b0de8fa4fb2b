"""A small HTTP server that can also do what a web framework never would: answer late, answer rubbish, or not at all."""

import json
import logging
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.parser import BytesParser
from email.policy import HTTP
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

LARGEST_BODY = 50 * 1024 * 1024

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Request:
    """What came in; `path` is decoded."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    content_type: str = ""
    body: bytes = b""
    is_ours: bool = False  # comes from a page of this very server, as far as the browser says

    def fields(self) -> dict[str, Any]:
        """The parameters of query and body, from JSON, a form or multipart. Raises ValueError."""
        read = _BODIES.get(self.content_type.partition(";")[0].strip().lower())
        return {**self.query, **(read(self) if read and self.body else {})}


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What goes out, `delay` seconds late."""

    status: int = 200
    content_type: str = "application/json"
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0

    def encode(self) -> bytes:
        head = {
            "Content-Type": self.content_type,
            "Content-Length": len(self.body),
            "Cache-Control": "no-store",
            **self.headers,
        }
        lines = [f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}"]
        lines += [f"{name}: {value}" for name, value in head.items()]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + self.body


def json_reply(data: object, status: int = 200, **more: Any) -> Reply:
    return Reply(status=status, body=json.dumps(data, ensure_ascii=False).encode(errors="replace"), **more)


#: None breaks the connection without an answer.
Handler = Callable[[Request], Reply | None]


class HttpServer:
    """Serves `handle` on `host:port` (0: any free one), a thread for each connection, from `start()` to `stop()`.

    Raises OSError when the port is taken.
    """

    def __init__(self, handle: Handler, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self._server = _Server((host, port), handle)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, name="sandbox-http"
        )

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Gives the port back when `start()` was never called."""
        self._server.server_close()

    def stop(self) -> None:
        self._server.stopping.set()
        self._server.shutdown()
        self._server.hang_up()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingMixIn, TCPServer):
    # TCPServer, because HTTPServer asks the resolver for this machine's name.
    allow_reuse_address = True
    request_queue_size = 128
    daemon_threads = False  # server_close() waits for the connections' threads

    def __init__(self, address: tuple[str, int], handle: Handler) -> None:
        self.handle = handle
        self.stopping = threading.Event()
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()
        super().__init__(address, _Connection)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        """Wakes the threads that wait for a next request."""
        with self._lock:
            for connection in self._connections:
                _shut(connection)

    def handle_error(self, _request: Any, _client_address: Any) -> None:
        # A client that went away in the middle is what the faults are for.
        logger.debug("a connection ended early")


class _Connection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _Server

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the overridden name
        """The path holds tokens and keys: nothing is logged."""

    def _serve(self) -> None:
        size = self.headers.get("Content-Length", "0")
        if not size.isdigit() or int(size) > LARGEST_BODY or "Transfer-Encoding" in self.headers:
            self.close_connection = True
            self.wfile.write(json_reply({"error": "a body needs a Content-Length"}, 411).encode())
            return
        reply = self._answer(self._request(int(size)))
        if reply is None:
            self.close_connection = True
            return
        if reply.delay:
            self.server.stopping.wait(reply.delay)
        data = reply.encode()
        self.wfile.write(data[: -len(reply.body)] if self.command == "HEAD" and reply.body else data)

    do_GET = do_HEAD = do_POST = do_DELETE = _serve  # noqa: N815 - the base class finds them by name

    def _request(self, size: int) -> Request:
        parts = urlsplit(self.path)
        return Request(
            method="GET" if self.command == "HEAD" else self.command,
            path=unquote(parts.path),
            query=dict(parse_qsl(parts.query, keep_blank_values=True)),
            content_type=self.headers.get("Content-Type", ""),
            body=self.rfile.read(size) if size else b"",
            is_ours=self.headers.get("Sec-Fetch-Site") == "same-origin",
        )

    def _answer(self, request: Request) -> Reply | None:
        try:
            return self.server.handle(request)
        except Exception:
            logger.exception("the sandbox failed at a request")
            return json_reply({"error": "the sandbox failed; its log says why"}, 500)


def _shut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        logger.debug("the client was faster")


def _json_fields(request: Request) -> dict[str, Any]:
    data = json.loads(request.body)
    if not isinstance(data, dict):
        raise ValueError("not an object")  # noqa: TRY004 - callers treat every malformed body alike
    return data


def _form_fields(request: Request) -> dict[str, Any]:
    return dict(parse_qsl(request.body.decode(), keep_blank_values=True))


def _multipart_fields(request: Request) -> dict[str, Any]:
    head = f"Content-Type: {request.content_type}\r\n\r\n".encode("latin-1")
    message = BytesParser(policy=HTTP).parsebytes(head + request.body)
    parts = message.iter_parts() if message.is_multipart() else ()
    return {
        str(part.get_param("name", "", "content-disposition")): _payload(part.get_payload(decode=True))
        for part in parts
    }


def _payload(payload: Any) -> str:
    return payload.decode() if isinstance(payload, bytes) else ""


_BODIES: Mapping[str, Callable[[Request], dict[str, Any]]] = {
    "application/json": _json_fields,
    "application/x-www-form-urlencoded": _form_fields,
    "multipart/form-data": _multipart_fields,
}
