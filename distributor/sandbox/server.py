"""The sandbox as one thing: SMTP and HTTP on loopback, one inbox, one set of faults."""

import json
import re
import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from distributor.sandbox.faults import KINDS, Fault, Faults
from distributor.sandbox.httpd import HttpServer, Reply, Request, json_reply
from distributor.sandbox.inbox import CHANNELS, Inbox
from distributor.sandbox.limits import Limits
from distributor.sandbox.pages import (
    CSP,
    article_page,
    chat_page,
    inbox_page,
    mail_page,
    missing_page,
    robot_page,
)
from distributor.sandbox.smtp import SmtpServer
from distributor.sandbox.talking import Unknown, act
from distributor.sandbox.telegram import TelegramApi
from distributor.sandbox.wechat import WechatApi
from distributor.sandbox.wecom import WecomRobot

MOST_ENTRIES = 1000

Route = Callable[[Request, str], Reply | None]


class Sandbox:
    """A context manager. Port 0 takes any free one; read `smtp_port`, `http_port` and `url` inside the `with`.

    Without a folder everything is kept in memory. Raises OSError when a port is taken.
    """

    def __init__(
        self,
        folder: Path | None,
        *,
        smtp_port: int = 0,
        http_port: int = 0,
        limits: Limits | None = None,
        faults: Sequence[Fault] = (),
        host: str = "127.0.0.1",
        pipelining: bool = False,
    ) -> None:
        limits = limits or Limits()
        self.inbox = Inbox(folder)
        self.faults = Faults(faults)
        self._telegram = TelegramApi(self.inbox, self.faults, limits)
        self.talking = self._telegram.talking
        self._wecom = WecomRobot(self.inbox, self.faults, limits)
        self._wechat = WechatApi(self.inbox, self.faults)
        try:
            self._http = HttpServer(self._handle, host=host, port=http_port)
        except OSError:
            self.inbox.close()
            raise
        try:
            self._smtp = SmtpServer(
                self.inbox, self.faults, limits, host=host, port=smtp_port, pipelining=pipelining
            )
        except OSError:
            self._http.close()
            self.inbox.close()
            raise
        self.smtp_port, self.http_port = self._smtp.port, self._http.port
        self.url = f"http://{host}:{self.http_port}"

    def __enter__(self) -> Self:
        self._smtp.start()
        self._http.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._smtp.stop()
        self.talking.close()
        self._http.stop()
        self.inbox.close()

    def _handle(self, request: Request) -> Reply | None:
        for method, pattern, route in self._routes:
            match = pattern.fullmatch(request.path) if method == request.method else None
            if match:
                return route(self, request, match[1] if pattern.groups else "")
        return json_reply({"error": f"nothing answers {request.method} here"}, 404)

    def _bot(self, request: Request, _: str) -> Reply | None:
        return self._telegram.handle(request)

    def _robot(self, request: Request, _: str) -> Reply | None:
        return self._wecom.handle(request)

    def _account(self, request: Request, _: str) -> Reply | None:
        return self._wechat.handle(request)

    def _health(self, _: Request, __: str) -> Reply:
        return json_reply({"ok": True})

    def _counts(self, _: Request, __: str) -> Reply:
        return json_reply(self.inbox.counts())

    def _entries(self, request: Request, _: str) -> Reply:
        query = request.query
        found = self.inbox.entries(query.get("channel") or None, query.get("address") or None)
        offset = _number(query.get("offset"), 0)
        limit = min(_number(query.get("limit"), 100), MOST_ENTRIES)
        shown = [entry.to_json() for entry in found[offset : offset + limit]]
        return json_reply({"total": len(found), "entries": shown})

    def _raw_mail(self, _: Request, number: str) -> Reply:
        try:
            return Reply(content_type="message/rfc822", body=self.inbox.mail(int(number)))
        except KeyError:
            return json_reply({"error": "no mail has this number"}, 404)

    def _show_faults(self, _: Request, __: str) -> Reply:
        return json_reply({"faults": [rule.to_json() for rule in self.faults.rules], "kinds": KINDS})

    def _add_faults(self, request: Request, _: str) -> Reply:
        """One rule or a list of them. JSON only: a browser asks before it sends that across sites."""
        if not request.content_type.startswith("application/json"):
            return json_reply({"error": "send application/json"}, 415)
        try:
            data = json.loads(request.body)
            rules = [Fault.from_json(one) for one in (data if isinstance(data, list) else [data])]
        except ValueError as error:
            return json_reply({"error": str(error)}, 422)
        self.faults.add(*rules)
        return self._show_faults(request, "")

    def _clear_faults(self, request: Request, _: str) -> Reply:
        self.faults.clear()
        return self._show_faults(request, "")

    def _inbox_page(self, request: Request, _: str) -> Reply:
        channel = request.query.get("channel", "")
        return _page(
            inbox_page,
            self.inbox,
            channel=channel if channel in CHANNELS else "",
            search=request.query.get("search", "").strip(),
            page=_number(request.query.get("page"), 1),
            talks=self.talking.is_heard,
        )

    def _mail_page(self, _: Request, number: str) -> Reply:
        return _page(mail_page, self.inbox, int(number))

    def _chat_page(self, _: Request, address: str) -> Reply:
        return _page(chat_page, self.inbox, address, self.talking)

    def _act(self, request: Request, chat: str) -> Reply:
        """A user of Telegram does something: JSON of a program, or a form of the chat's own page.

        `do`: say (text, language), press (data, message), block, unblock, move (status, title).
        """
        if not request.content_type.startswith("application/json") and not request.is_ours:
            return json_reply({"error": "send application/json"}, 415)
        try:
            update = act(self.talking, chat, request.fields())
        except Unknown as error:
            return json_reply({"error": str(error)}, 409)
        except (KeyError, ValueError) as error:
            return json_reply({"error": f"cannot be done: {error}"}, 422)
        if request.content_type.startswith("application/json"):
            return json_reply(update)
        return Reply(status=303, headers={"Location": f"/chat/{chat}#end"})

    def _toasts(self, _: Request, __: str) -> Reply:
        return json_reply([{"chat": chat, "text": text} for chat, text in self.talking.toasts])

    def _article_page(self, _: Request, number: str) -> Reply:
        return _page(article_page, self.inbox, int(number), self._wechat.pictures)

    def _robot_page(self, _: Request, address: str) -> Reply:
        return _page(robot_page, self.inbox, address)

    _routes = tuple(
        (method, re.compile(pattern), route)
        for method, pattern, route in (
            ("GET", r"/bot.*", _bot),
            ("POST", r"/bot.*", _bot),
            ("POST", r"/cgi-bin/webhook/send", _robot),
            ("GET", r"/cgi-bin/.*", _account),
            ("POST", r"/cgi-bin/.*", _account),
            ("GET", r"/healthz", _health),
            ("GET", r"/api/counts", _counts),
            ("GET", r"/api/entries", _entries),
            ("GET", r"/api/mail/(\d{1,9})", _raw_mail),
            ("GET", r"/faults", _show_faults),
            ("POST", r"/faults", _add_faults),
            ("DELETE", r"/faults", _clear_faults),
            ("GET", r"/", _inbox_page),
            ("GET", r"/mail/(\d{1,9})", _mail_page),
            ("GET", r"/chat/([^/]+)", _chat_page),
            ("POST", r"/chat/(-?[1-9]\d{0,18})", _act),
            ("GET", r"/api/toasts", _toasts),
            ("GET", r"/robot/([^/]+)", _robot_page),
            ("GET", r"/article/(\d{1,9})", _article_page),
        )
    )


def run_sandbox(
    folder: Path | None,
    smtp_port: int,
    http_port: int,
    faults: Sequence[Fault] = (),
    *,
    host: str = "127.0.0.1",
    announce: Callable[[Sandbox], None] | None = None,
) -> None:
    """Serves until SIGINT or SIGTERM, in the main thread; `announce` is called once everything listens."""
    stop = threading.Event()
    caught = (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.signal(number, lambda *_: stop.set()) for number in caught}
    try:
        with Sandbox(folder, smtp_port=smtp_port, http_port=http_port, faults=faults, host=host) as sandbox:
            if announce:
                announce(sandbox)
            stop.wait()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _page(render: Callable[..., str], *args: object, **values: object) -> Reply:
    status = 200
    try:
        text = render(*args, **values)
    except KeyError as error:
        status, text = 404, missing_page(str(error.args[0]))
    headers = {
        "Content-Security-Policy": CSP,
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }
    return Reply(
        status=status,
        content_type="text/html; charset=utf-8",
        body=text.encode(errors="replace"),
        headers=headers,
    )


def _number(text: str | None, default: int) -> int:
    return int(text) if text and re.fullmatch(r"\d{1,9}", text) else default
