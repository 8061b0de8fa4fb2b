"""The preview as a page on this machine: every channel side by side, anew whenever a file is saved."""

import asyncio
import socket
import threading
import webbrowser
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import date
from typing import Any
from urllib.parse import urlencode, urlsplit

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, PlainTextResponse, StreamingResponse
from starlette.middleware.trustedhost import TrustedHostMiddleware

from distributor.errors import RequestRefused
from distributor.preview import likeness
from distributor.preview.board import Board, Desk
from distributor.preview.watching import EVERY
from distributor.rendering import WORDING, template_environment
from distributor.settings import packaged

HOST = "127.0.0.1"
#: A page of another site may reach this server by a name of its own that leads here (DNS rebinding); not under these.
NAMES = (HOST, "localhost")
#: The page's own script and style come from this server. Pictures are the post's: a cover in a Telegram bubble.
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src https: http: data:; frame-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
#: What a mail or an article may do in its frame, and alone in a window: look good, and open links. `allow-same-origin`
#: lets the page keep the frame's place while it reloads; without `allow-scripts` nothing in the frame can use it.
SANDBOX = "allow-same-origin allow-popups allow-popups-to-escape-sandbox"
FRAME_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src https: http: data:; form-action 'none'; "
    f"frame-ancestors 'self'; sandbox {SANDBOX}"
)
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
#: Seconds without news after which a line goes out all the same: who has left is noticed when one cannot be written.
QUIET = 15.0
ASSETS = {"page.css": "text/css", "page.js": "text/javascript"}

Handler = Callable[[Request], Awaitable[Response]]


def serve(desk: Desk, port: int, *, ready: Callable[[str], None], browser: bool = False) -> None:
    """Serves until Ctrl-C. `ready` gets the page's address. Raises RequestRefused when the port is taken."""
    listening = listen(port)
    address = f"http://{HOST}:{listening.getsockname()[1]}/"
    server = make_server(desk)
    ready(address)
    if browser:  # from a thread: some browsers hold whoever opens them
        threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
    server.run([listening])


def listen(port: int) -> socket.socket:
    """The port on 127.0.0.1, taken now; 0 takes any. Raises RequestRefused."""
    try:
        return socket.create_server((HOST, port))
    except OSError as error:
        raise RequestRefused(
            f"cannot listen on {HOST}:{port}: {error.strerror}; choose another with --port"
        ) from None


def make_server(desk: Desk) -> uvicorn.Server:
    """A server whose event streams end when it is told to stop."""
    app = FastAPI(title="preview", docs_url=None, redoc_url=None, openapi_url=None)
    server = uvicorn.Server(
        uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=3)
    )
    add_pages(app, Pages(desk, lambda: server.should_exit))
    return server


def add_pages(app: FastAPI, pages: "Pages") -> None:
    app.add_api_route("/", pages.page, response_class=HTMLResponse)
    app.add_api_route("/events", pages.events)
    app.add_api_route("/mail/{scheme}", pages.mail, response_class=HTMLResponse)
    app.add_api_route("/article", pages.article, response_class=HTMLResponse)
    app.add_api_route("/article/source", pages.article_source, response_class=PlainTextResponse)
    app.add_api_route("/{name}", pages.asset)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=NAMES)

    @app.middleware("http")
    async def harden(request: Request, call_next: Handler) -> Response:
        response = foreign() if is_foreign(request.headers) else await call_next(request)
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        response.headers.setdefault("Content-Security-Policy", PAGE_POLICY)
        return response


def is_foreign(headers: Mapping[str, str]) -> bool:
    """Whether a page of another site asks, as browsers tell. A person who follows a link there is welcome."""
    if headers.get("sec-fetch-site") != "cross-site":
        return False
    return (headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")) != ("navigate", "document")


def foreign() -> PlainTextResponse:
    return PlainTextResponse("this page is for nobody but this machine\n", 403)


class Pages:
    """One method an address. `post` is the key of a post; empty for the one that the command named."""

    def __init__(self, desk: Desk, stopping: Callable[[], bool]) -> None:
        self.desk, self.stopping = desk, stopping
        self._templates = template_environment()
        self._templates.filters.update(unit=unit, number="{:,}".format, host=host, day=spoken_day)

    def page(self, post: str = "") -> HTMLResponse:
        return HTMLResponse(self._render("page", board=self.desk.board(post), asked=post))

    def mail(self, scheme: str, post: str = "") -> Response:
        """The mail alone; `scheme` is light or dark."""
        html = content_of(self.desk.board(post), "email", "html")
        if html is None or scheme not in {"light", "dark"}:
            return missing()
        return frame(likeness.mail(html, dark=scheme == "dark"))

    def article(self, post: str = "") -> Response:
        """The Official Account article as a phone shows it."""
        board = self.desk.board(post)
        if content_of(board, "wechat", "content") is None:
            return missing()
        return frame(self._render("article", board=board))

    def article_source(self, post: str = "") -> Response:
        """The article's HTML as text: what the copy button puts on the clipboard."""
        content = content_of(self.desk.board(post), "wechat", "content")
        return missing() if content is None else PlainTextResponse(content)

    def asset(self, name: str) -> Response:
        if name not in ASSETS:
            return missing()
        return Response((packaged("templates") / "preview" / name).read_bytes(), media_type=ASSETS[name])

    async def events(self) -> StreamingResponse:
        """Server-sent events: `changed`, with the new stamp, at once and after each change."""
        return StreamingResponse(self._changes(), media_type="text/event-stream")

    async def _changes(self) -> AsyncIterator[str]:
        seen, quiet = "", 0.0
        while not self.stopping():
            stamp = await run_in_threadpool(self.desk.watch.stamp)
            quiet += EVERY
            if stamp != seen or quiet >= QUIET:
                yield f"event: changed\ndata: {stamp}\n\n" if stamp != seen else ": nothing new\n\n"
                seen, quiet = stamp, 0.0
            await asyncio.sleep(EVERY)

    def _render(self, name: str, *, board: Board, **values: Any) -> str:
        template = self._templates.get_template(f"preview/{name}.html.j2")
        words = WORDING[board.language if board.language in WORDING else "en"]
        return template.render(
            board=board, words=words, likeness=likeness, sandbox=SANDBOX, query=query, **values
        )


def content_of(board: Board, channel: str, key: str) -> str | None:
    """That text of the channel's first message that has one."""
    panel = board.panel(channel)
    found = (view.content[key] for view in (panel.views if panel else ()) if key in view.content)
    return next(found, None)


def frame(html: str) -> HTMLResponse:
    return HTMLResponse(html, headers={"Content-Security-Policy": FRAME_POLICY})


def missing() -> PlainTextResponse:
    return PlainTextResponse("there is nothing here\n", 404)


def unit(name: str) -> str:
    """`utf8_bytes` → bytes, `digest utf8_bytes` → digest bytes."""
    return name.replace("utf8_bytes", "bytes").replace("utf16_units", "UTF-16 units")


def host(address: str) -> str:
    return urlsplit(address).hostname or address


def spoken_day(day: date | None) -> str:
    return f"{day:%Y-%m-%d}" if day else "no date"


def query(path: str, **values: str) -> str:
    return f"{path}?{urlencode(values)}"
