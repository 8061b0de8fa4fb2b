"""Where a confirmation mail leads: a button that begins what its reader asked for, and today's issue if they want it.

A look changes nothing: scanners and link previews fetch every link of a mail.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse

from distributor.audience import Asked, Visit, masked
from distributor.bootstrap import Distributor
from distributor.dispatch import send_today, todays_issue
from distributor.model import ConsentText
from distributor.settings import Newsletter
from distributor.web.client import ClientAddress
from distributor.web.pages import Pages
from distributor.web.visiting import LOOKING, TOKEN, SentForm, chosen_language

#: What the log of an issue says of a copy that a new reader asked for.
WHY_TODAY = "asked for after signing up"


def add_confirm(app: FastAPI, distributor: Distributor, pages: Pages, client: ClientAddress) -> None:
    """The pages below /confirm."""
    confirming = ConfirmPages(distributor, pages, client)
    for path, changes in (
        ("/confirm/{token}", confirming.confirm),
        ("/confirm/{token}/today", confirming.today),
    ):
        app.add_api_route(path, confirming.ask, methods=LOOKING, response_class=HTMLResponse)
        app.add_api_route(path, changes, methods=["POST"], response_class=HTMLResponse)


@dataclass(frozen=True)
class ConfirmPages:
    """One method a page."""

    distributor: Distributor
    pages: Pages
    client: ClientAddress

    def ask(self, request: Request, token: str) -> Response:
        """The button; or, pressed already, what is active."""
        asked = self._asked(token)
        if asked and (waiting := self._known(asked.waiting)):
            return self._button(asked, waiting)
        return self._confirmed(token, asked) if asked else self._gone(request)

    def confirm(self, request: Request, token: str, form: SentForm) -> Response:
        """The button's effect. If somebody asked for more since the page was shown, it is shown anew: nobody agrees unseen."""
        asked = self._asked(token)
        if asked is None:
            return self._gone(request)
        if waiting := self._known(asked.waiting):
            wording = self._wording(asked, waiting)
            if form.one("wording") != wording.version:
                return self._button(asked, waiting)
            visit = Visit(source="confirmation page", ip=self.client.of(request) or None, wording=wording)
            shown = [each.slug for each in waiting]
            if self.distributor.reception.confirm(token, visit, shown) is None:
                return self._gone(request)
            asked = self._asked(token)
        return self._confirmed(token, asked) if asked else self._gone(request)

    def today(self, request: Request, token: str, form: SentForm) -> Response:
        """Sends today's issue to this reader, once."""
        asked = self._asked(token)
        slug = form.one("newsletter")
        if asked is None or slug not in asked.active or not (known := self._known([slug])):
            return self._gone(request)
        found = send_today(self.distributor.engine, known[0], "email", asked.address, reason=WHY_TODAY)
        return self.pages.message(f"today_{found}", known[0], asked.language or "")

    def _asked(self, token: str) -> Asked | None:
        """None when the link leads nowhere: unknown, expired, suppressed, or nothing is left of it."""
        asked = self.distributor.audience.asked(token) if TOKEN.fullmatch(token) else None
        if asked is None or asked.expired:
            return None
        return asked if self._known([*asked.waiting, *asked.active]) else None

    def _known(self, slugs: Sequence[str]) -> Sequence[Newsletter]:
        """Those that the settings still have."""
        known = self.distributor.settings.newsletters
        return [known[slug] for slug in slugs if slug in known]

    def _wording(self, asked: Asked, waiting: Sequence[Newsletter]) -> ConsentText:
        language = self.pages.language(asked.language, waiting[0])
        return self.distributor.reception.wording([each.slug for each in waiting], language)

    def _button(self, asked: Asked, waiting: Sequence[Newsletter]) -> HTMLResponse:
        return self.pages.show(
            "confirm",
            waiting[0],
            asked.language or "",
            about=waiting,
            address=masked(asked.address),
            consent=self._wording(asked, waiting),
        )

    def _confirmed(self, token: str, asked: Asked) -> HTMLResponse:
        active = self._known(asked.active)
        engine = self.distributor.engine
        return self.pages.show(
            "confirmed",
            active[0] if active else None,
            asked.language or "",
            about=active,
            address=masked(asked.address),
            today=[each for each in active if todays_issue(engine, each)],
            token=token,
            preferences=f"/p/{asked.tokens[active[0].slug]}" if active else "",
        )

    def _gone(self, request: Request) -> HTMLResponse:
        language = chosen_language(request, self.pages.first.language)
        return self.pages.show(
            "gone", None, language, status=404, again=self.distributor.settings.signup.form
        )
