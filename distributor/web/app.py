"""The web app: verify, parse, call a story, answer.

Unsubscribing follows RFC 8058: a POST to the very URL of the mail's header ends the subscription at once, whatever the
body says, without cookie, login or redirect; again and again is harmless. A GET shows a page with a button: scanners
and link previews fetch every link of a mail.
"""

import html
import re
from collections.abc import Mapping

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import FileResponse, HTMLResponse, PlainTextResponse

from distributor.audience import masked
from distributor.bootstrap import Distributor
from distributor.dispatch.engine import UNSUBSCRIBE_URL, VIEW_URL
from distributor.errors import RequestRefused, ServiceDown
from distributor.model import Issue, SubscriptionState
from distributor.pictures import FOR_EVER
from distributor.pictures import NAME as PICTURE
from distributor.rendering import template_environment
from distributor.settings import Settings
from distributor.site import went_out
from distributor.web.describing import add_description
from distributor.web.hardening import DefaultHeaders
from distributor.web.limits import RequestLimits
from distributor.web.old_links import add_old_links
from distributor.web.problems import DATABASE_BACK, add_problems, is_machine, unavailable
from distributor.web.signup_webhook import signup_router
from distributor.web.site import add_site

#: Pages bring no script and load nothing from elsewhere; a mail's pictures are its editor's choice.
PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
MAIL_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src https: http:; base-uri 'none'; form-action 'none'"
)
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Robots-Tag": "noindex",
    "Cache-Control": "no-store",
    "Content-Security-Policy": PAGE_POLICY,
}

#: Scanners look at links with HEAD; an answer of 405 makes a good link look broken.
LOOKING = ["GET", "HEAD"]
#: What no token and no number is; a database may choke on the rest (NUL, numbers beyond 64 bits).
TOKEN = re.compile(r"[A-Za-z0-9_-]{1,64}")
NUMBER = re.compile(r"[0-9]{1,18}")


def create_app(distributor: Distributor) -> FastAPI:
    """The app for one installation."""
    app = FastAPI(title="distributor", docs_url=None, redoc_url=None, openapi_url=None)
    pages = Pages(distributor)
    app.add_api_route("/u/{token}", pages.ask, methods=LOOKING, response_class=HTMLResponse)
    app.add_api_route("/u/{token}", pages.leave, methods=["POST"], response_class=HTMLResponse)
    app.add_api_route("/u", pages.explain, methods=LOOKING, response_class=HTMLResponse)
    app.add_api_route("/issues/{number}", pages.issue, methods=LOOKING, response_class=HTMLResponse)
    if shows_pictures(distributor.settings):
        app.add_api_route("/pictures/{name}", pages.picture, methods=LOOKING, response_class=FileResponse)
    programs = APIRouter()
    programs.include_router(signup_router(distributor))
    app.include_router(programs)
    app.add_api_route("/healthz", pages.health, methods=LOOKING, response_class=PlainTextResponse)
    add_old_links(app, distributor, pages.ask, pages.unknown)
    add_site(app, distributor, pages.unknown)
    if distributor.settings.bot.mode == "webhook":
        from distributor.web.telegram import add_bot  # noqa: PLC0415 - 0.3 s, python-telegram-bot, that only a bot needs

        add_bot(app, distributor)
    app.add_exception_handler(ServiceDown, _service_down)
    add_problems(app)
    add_description(app, programs, pages.templates)
    app.add_middleware(DefaultHeaders, headers=HEADERS)
    web = distributor.settings.web
    # The last one added is the outermost.
    app.add_middleware(RequestLimits, most=web.most_body, seconds=web.receive_time.total_seconds())
    return app


def shows_pictures(settings: Settings) -> bool:
    """Whether readers get hosted pictures from this app."""
    table = settings.pictures
    return table.rehost == "folder" and settings.pictures_url == f"{settings.web.base_url}/pictures"


class Pages:
    """One method a page."""

    def __init__(self, distributor: Distributor) -> None:
        self.distributor = distributor
        self.templates = template_environment(distributor.settings.root)
        self.picture_folder = distributor.settings.path(distributor.settings.pictures.folder)

    def ask(self, token: str) -> HTMLResponse:
        """The human page of an unsubscribe link: a button, no effect."""
        found = self.distributor.audience.find(token) if TOKEN.fullmatch(token) else None
        if found is None:
            return self.unknown()
        left = found.state is SubscriptionState.UNSUBSCRIBED
        return self._page(
            "unsubscribed" if left else "unsubscribe",
            newsletter=found.newsletter,
            address=masked(found.address),
        )

    def leave(self, token: str) -> HTMLResponse:
        """RFC 8058's POST, and the button's."""
        why = "one click or the page's button"
        found = self.distributor.audience.unsubscribe(token, why) if TOKEN.fullmatch(token) else None
        if found is None:
            return self.unknown()
        return self._page("unsubscribed", newsletter=found.newsletter, address=masked(found.address))

    def explain(self) -> HTMLResponse:
        """Where the unsubscribe link of the browser's copy leads: that copy belongs to nobody."""
        return self._page("explain")

    def issue(self, number: str) -> HTMLResponse:
        """The mail as it was sent, without what belongs to one reader. What nobody let go is not shown.

        Cancelled or expired later on, it is: readers have it, and its links.
        """
        try:
            issue = self.distributor.ledger.issue(int(number) if NUMBER.fullmatch(number) else 0)
        except RequestRefused:
            return self.unknown()
        parts = self.distributor.ledger.messages(issue.id, "email").get("default")
        if not parts or not (went_out(issue) or issue.frozen_at):
            return self.unknown()
        response = HTMLResponse(self._without_reader(parts[0].content["html"], issue))
        response.headers["Content-Security-Policy"] = MAIL_POLICY
        return response

    def picture(self, name: str) -> Response:
        """A hosted picture. Its name is its hash: whoever has it may keep it for ever."""
        path = self.picture_folder / name
        if not (PICTURE.fullmatch(name) and path.is_file()):
            return PlainTextResponse("There is no such picture.\n", status_code=404)
        return FileResponse(path, headers={"Cache-Control": FOR_EVER})

    def health(self) -> PlainTextResponse:
        """200 when the database answers."""
        self.distributor.database.version()
        return PlainTextResponse("ok\n")

    def unknown(self) -> HTMLResponse:
        """For what is not there: one and the same page, whatever was asked."""
        return self._page("unknown", status=404)

    def _without_reader(self, text: str, issue: Issue) -> str:
        base = self.distributor.settings.web.base_url
        values: Mapping[str, str] = {UNSUBSCRIBE_URL: f"{base}/u", VIEW_URL: f"{base}/issues/{issue.id}"}
        for placeholder, value in values.items():
            text = text.replace(placeholder, html.escape(value))
        return text

    def _page(
        self, name: str, *, newsletter: str | None = None, address: str = "", status: int = 200
    ) -> HTMLResponse:
        known = self.distributor.settings.newsletters
        chosen = known.get(newsletter or "") or next(iter(known.values()))
        page = self.templates.get_template("web/page.html.j2")
        return HTMLResponse(
            page.render(page=name, newsletter=chosen, language=chosen.language, address=address),
            status_code=status,
        )


async def _service_down(request: Request, _error: Exception) -> Response:
    if is_machine(request):
        return unavailable().answer()
    return PlainTextResponse(
        "Not available right now; please try again in a minute.\n",
        status_code=503,
        headers={"Retry-After": str(DATABASE_BACK)},
    )
