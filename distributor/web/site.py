"""The site's pages over HTTP: public, cached for a few minutes, and nothing about a reader in them."""

import hashlib
from collections.abc import Callable

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from distributor.bootstrap import Distributor
from distributor.site import POLICY

#: A correction, and a post taken down, is everywhere after five minutes.
CACHED = "public, max-age=300"
LOOKING = ["GET", "HEAD"]


def add_site(app: FastAPI, distributor: Distributor, unknown: Callable[[], Response]) -> None:
    """Adds the pages below /archive/, unless `site.serve` says no. `unknown` is the page for what is not there."""
    if not distributor.settings.site.serve:
        return
    site = SitePages(distributor, unknown)
    for path, page in (
        ("/archive/", site.home),
        ("/archive/{newsletter}/", site.index),
        ("/archive/{newsletter}/feed.xml", site.feed),
        ("/archive/{newsletter}/{name}/", site.post),
    ):
        app.add_api_route(path, page, methods=LOOKING, response_class=HTMLResponse)


class SitePages:
    """One method a page."""

    def __init__(self, distributor: Distributor, unknown: Callable[[], Response]) -> None:
        self.distributor, self.site, self.unknown = distributor, distributor.site, unknown

    def home(self, request: Request) -> Response:
        return self._answer(request, self.site.home())

    def index(self, request: Request, newsletter: str) -> Response:
        return self._answer(request, self.site.index(newsletter))

    def feed(self, request: Request, newsletter: str) -> Response:
        return self._answer(request, self.site.feed(newsletter), "application/atom+xml; charset=utf-8")

    def post(self, request: Request, newsletter: str, name: str) -> Response:
        """Where there is no page any more, the frozen mail is shown instead: the links that readers have must not die."""
        page = self.site.post(newsletter, name)
        if page is None and (number := self.site.issue_of_page(newsletter, name)) and self._has_mail(number):
            return RedirectResponse(f"{self.distributor.settings.web.base_url}/issues/{number}", 302)
        return self._answer(request, page)

    def _has_mail(self, number: int) -> bool:
        return bool(self.distributor.ledger.messages(number, "email"))

    def _answer(
        self, request: Request, page: bytes | None, kind: str = "text/html; charset=utf-8"
    ) -> Response:
        if page is None:
            return self.unknown()
        tag = f'"{hashlib.sha256(page).hexdigest()[:32]}"'
        headers = {
            "ETag": tag,
            "Cache-Control": CACHED,
            "Content-Security-Policy": f"{POLICY}; frame-ancestors 'none'",
            "X-Robots-Tag": "all" if self.distributor.settings.site.index else "noindex",
        }
        if tag in _known(request):
            return Response(status_code=304, headers=headers)
        return Response(page, media_type=kind, headers=headers)


def _known(request: Request) -> list[str]:
    """The tags of what the browser has; a proxy that compresses makes them weak."""
    tags = request.headers.get("If-None-Match", "").split(",")
    return [tag.strip().removeprefix("W/") for tag in tags]
