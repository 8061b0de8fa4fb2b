"""What is there to read: the browser's copy of a mail, its pictures, and whether we are well."""

import html
from dataclasses import dataclass

from fastapi import FastAPI, Response
from fastapi.responses import FileResponse, HTMLResponse, PlainTextResponse

from distributor.bootstrap import Distributor
from distributor.dispatch.engine import PREFERENCES_URL, UNSUBSCRIBE_URL, VIEW_URL
from distributor.errors import RequestRefused
from distributor.model import Issue
from distributor.pictures import FOR_EVER
from distributor.pictures import NAME as PICTURE
from distributor.settings import Settings
from distributor.site import went_out
from distributor.web.pages import Pages
from distributor.web.visiting import LOOKING, NUMBER

#: A mail brings its styles along, and its pictures are its editor's choice.
MAIL_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src https: http:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


def add_reading(app: FastAPI, distributor: Distributor, pages: Pages) -> None:
    """/issues, /pictures, /healthz, and where the copy's links lead."""
    reading = ReadingPages(distributor, pages)
    app.add_api_route("/issues/{number}", reading.issue, methods=LOOKING, response_class=HTMLResponse)
    app.add_api_route("/u", reading.explain_leaving, methods=LOOKING, response_class=HTMLResponse)
    app.add_api_route("/p", reading.explain_preferences, methods=LOOKING, response_class=HTMLResponse)
    if shows_pictures(distributor.settings):
        app.add_api_route("/pictures/{name}", reading.picture, methods=LOOKING, response_class=FileResponse)
    app.add_api_route("/healthz", reading.health, methods=LOOKING, response_class=PlainTextResponse)


def shows_pictures(settings: Settings) -> bool:
    """Whether readers get hosted pictures from this app."""
    table = settings.pictures
    return table.rehost == "folder" and settings.pictures_url == f"{settings.web.base_url}/pictures"


@dataclass(frozen=True)
class ReadingPages:
    """One method a page."""

    distributor: Distributor
    pages: Pages

    def issue(self, number: str) -> HTMLResponse:
        """The mail as it was sent, without what belongs to one reader. What nobody let go is not shown.

        Cancelled or expired later on, it is: readers have it, and its links.
        """
        try:
            issue = self.distributor.ledger.issue(int(number) if NUMBER.fullmatch(number) else 0)
        except RequestRefused:
            return self.pages.unknown()
        parts = self.distributor.ledger.messages(issue.id, "email").get("default")
        if not parts or not (went_out(issue) or issue.frozen_at):
            return self.pages.unknown()
        text = self._without_reader(parts[0].content["html"], issue)
        return HTMLResponse(text, headers={"Content-Security-Policy": MAIL_POLICY})

    def explain_leaving(self) -> HTMLResponse:
        """Where the unsubscribe link of the browser's copy leads: that copy belongs to nobody."""
        return self.pages.show("explain", what="explain_leave")

    def explain_preferences(self) -> HTMLResponse:
        """The same for the preferences link."""
        return self.pages.show("explain", what="explain_preferences")

    def picture(self, name: str) -> Response:
        """A hosted picture. Its name is its hash: whoever has it may keep it for ever."""
        settings = self.distributor.settings
        path = settings.path(settings.pictures.folder) / name
        if not (PICTURE.fullmatch(name) and path.is_file()):
            return PlainTextResponse("There is no such picture.\n", status_code=404)
        return FileResponse(path, headers={"Cache-Control": FOR_EVER})

    def health(self) -> PlainTextResponse:
        """200 when the database answers."""
        self.distributor.database.version()
        return PlainTextResponse("ok\n")

    def _without_reader(self, text: str, issue: Issue) -> str:
        base = self.distributor.settings.web.base_url
        values = {
            UNSUBSCRIBE_URL: f"{base}/u",
            PREFERENCES_URL: f"{base}/p",
            VIEW_URL: f"{base}/issues/{issue.id}",
        }
        for placeholder, value in values.items():
            text = text.replace(placeholder, html.escape(value))
        return text
