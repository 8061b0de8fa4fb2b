"""An HTTP server on 127.0.0.1 that answers each request with the next line of its script, and remembers them all."""

import json
import threading
from collections import deque
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, ClassVar, Self
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True)
class Answer:
    """A status and a body; or, with `status` 0, a hang-up without a word. `silent` waits until the server stops."""

    status: int = 200
    body: bytes = b""
    silent: bool = False

    @classmethod
    def of(cls, answer: object, status: int = 200) -> "Answer":
        return cls(status, json.dumps(answer).encode())


HANG_UP = Answer(status=0)
SILENCE = Answer(silent=True)


@dataclass(frozen=True)
class Request:
    """One request as it came."""

    path: str
    query: dict[str, list[str]]
    body: bytes

    @property
    def form(self) -> dict[str, str]:
        return {name: values[0] for name, values in parse_qs(self.body.decode()).items()}

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class ScriptedHttp:
    """A server with the given answers in order; the last one is repeated.

    The question of who a bot is, which opens a connection, is no request: it has an answer of its own.
    """

    GREETED: ClassVar[dict[str, object]] = {
        "ok": True,
        "result": {"id": 1, "is_bot": True, "first_name": "Bot", "username": "daily_bot"},
    }

    def __init__(self, *answers: Answer) -> None:
        self.requests: list[Request] = []
        self.greetings = 0
        self.peers: set[tuple[str, int]] = set()
        self.stopped = threading.Event()
        self._answers = deque(answers)
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                owner._handle(self)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the stdlib's
                """Nothing on the terminal."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stopped.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _handle(self, handler: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(handler.path)
        body = handler.rfile.read(int(handler.headers["Content-Length"]))
        self.peers.add((handler.client_address[0], handler.client_address[1]))
        if parts.path.endswith("/getMe"):
            self.greetings += 1
            answer = Answer.of(self.GREETED)
        else:
            self.requests.append(Request(parts.path, parse_qs(parts.query), body))
            answer = self._answers.popleft() if len(self._answers) > 1 else self._answers[0]
        if answer.silent:
            self.stopped.wait()
        if answer.silent or not answer.status:
            handler.close_connection = True
            return
        handler.send_response(answer.status)
        handler.send_header("Content-Length", str(len(answer.body)))
        handler.end_headers()
        handler.wfile.write(answer.body)
