"""An HTTP server on 127.0.0.1 whose paths do as they like, and pictures to be had from it."""

import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from PIL import Image

CERTIFICATES = Path(__file__).parents[1] / "channels" / "certs"

Act = Callable[["Visitor"], None]


class Visitor(BaseHTTPRequestHandler):
    """One request; `answer` answers it, `stopped` says that the test is over."""

    protocol_version = "HTTP/1.1"
    owner: "PictureServer"

    def do_GET(self) -> None:
        self.owner.serve(self)

    def do_HEAD(self) -> None:
        self.owner.serve(self)

    def do_PUT(self) -> None:
        self.owner.serve(self)

    def answer(self, status: int = 200, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the stdlib's
        """Nothing on the terminal."""


@dataclass(frozen=True)
class Asked:
    """One request as it came."""

    verb: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass
class PictureServer:
    """A server with an act for each path; `asked` remembers every request."""

    acts: dict[str, Act] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    tls: bool = False

    def __post_init__(self) -> None:
        self.stopped = threading.Event()
        handler: Any = type("Handler", (Visitor,), {"owner": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.handle_error = lambda *_: None  # type: ignore[method-assign] # who hangs up early is no news
        if self.tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(CERTIFICATES / "localhost.pem", CERTIFICATES / "localhost.key")
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)

    @property
    def port(self) -> int:
        return int(self.server.server_address[1])

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}{path}"

    @property
    def paths(self) -> list[str]:
        return [request.path for request in self.asked]

    def shows(self, path: str, data: bytes, content_type: str = "application/octet-stream") -> str:
        """Puts a file there; returns its address."""
        self.acts[path] = lambda visitor: visitor.answer(200, data, Content_Type=content_type)
        return self.url(path)

    def leads(self, path: str, target: str, status: int = 302) -> str:
        self.acts[path] = lambda visitor: visitor.answer(status, Location=target)
        return self.url(path)

    def serve(self, visitor: Visitor) -> None:
        length = int(visitor.headers.get("Content-Length") or 0)
        body = visitor.rfile.read(length)
        self.asked.append(Asked(visitor.command, visitor.path, dict(visitor.headers), body))
        act = self.acts.get(visitor.path.partition("?")[0], self.acts.get("*"))
        act(visitor) if act else visitor.answer(404)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stopped.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def picture_file(
    kind: str = "PNG", size: tuple[int, int] = (40, 30), *, mode: str = "RGB", **options: Any
) -> bytes:
    """A picture of many colours."""
    image = Image.effect_noise(size, 90).convert("RGB")
    gradient = Image.linear_gradient("L").resize(size)
    image = Image.merge("RGB", (*image.split()[:2], gradient)).convert(mode)
    return saved(image, kind, **options)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()
