"""Unsubscribe links of the system before: mails of years lie in mailboxes, and their links must go on working.

Whoever moved here points the old host at this app. GET shows the page of our own link, POST ends, one click as well
(RFC 8058). Where one old link led to several newsletters, it ends them all.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse

from distributor.audience.importing import ghost_link, listmonk_link
from distributor.bootstrap import Distributor

#: Scanners look at links with HEAD; an answer of 405 makes a good link look broken.
LOOKING = ["GET", "HEAD"]
#: What cannot be an identifier need not be looked for.
PART = re.compile(r"[0-9A-Za-z-]{1,128}")


def add_old_links(
    app: FastAPI, distributor: Distributor, ask: Callable[[str], Response], unknown: Callable[[], Response]
) -> None:
    """The addresses of listmonk and Ghost. `ask`: the page of a token; `unknown`: that of a link to nowhere."""
    links = OldLinks(distributor, ask, unknown)
    for path, look, leave in (
        ("/subscription/{campaign}/{subscriber}", links.listmonk, links.leave_listmonk),
        ("/unsubscribe", links.ghost, links.leave_ghost),
        ("/unsubscribe/", links.ghost, links.leave_ghost),
    ):
        app.add_api_route(path, look, methods=LOOKING, response_class=HTMLResponse, include_in_schema=False)
        app.add_api_route(path, leave, methods=["POST"], response_class=HTMLResponse, include_in_schema=False)


@dataclass(frozen=True)
class OldLinks:
    """Two methods a system."""

    distributor: Distributor
    ask: Callable[[str], Response]
    unknown: Callable[[], Response]

    def listmonk(self, subscriber: str) -> Response:
        return self._look(_of_listmonk(subscriber))

    def leave_listmonk(self, subscriber: str) -> Response:
        return self._leave(_of_listmonk(subscriber), "listmonk")

    def ghost(self, request: Request) -> Response:
        return self._look(_of_ghost(request))

    def leave_ghost(self, request: Request) -> Response:
        return self._leave(_of_ghost(request), "Ghost")

    def _look(self, link: str) -> Response:
        tokens = self.distributor.audience.tokens_of_old_link(link) if link else ()
        return self.ask(tokens[0]) if tokens else self.unknown()

    def _leave(self, link: str, system: str) -> Response:
        tokens = self.distributor.audience.tokens_of_old_link(link) if link else ()
        for token in tokens:
            self.distributor.reception.leave(token, f"a link of {system}")
        return self.ask(tokens[0]) if tokens else self.unknown()


def _of_listmonk(subscriber: str) -> str:
    return listmonk_link(subscriber) if PART.fullmatch(subscriber) else ""


def _of_ghost(request: Request) -> str:
    uuid, key = (request.query_params.get(name, "") for name in ("uuid", "key"))
    return ghost_link(uuid, key) if PART.fullmatch(uuid) and PART.fullmatch(key) else ""
