"""Where readers leave, and come back when it was a mistake.

Unsubscribing follows RFC 8058: a POST to the very URL of the mail's header ends the subscription at once, whatever the
body says, without cookie, login or redirect; again and again is harmless. A GET shows a page with a button.
"""

from dataclasses import dataclass

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse

from distributor.audience import Subscription, Visit, masked
from distributor.bootstrap import Distributor
from distributor.model import ConsentText, SubscriptionState
from distributor.web.client import ClientAddress
from distributor.web.pages import Pages
from distributor.web.visiting import LOOKING, TOKEN, Form, SentForm
from distributor.web.words import REASONS


def add_unsubscribe(app: FastAPI, distributor: Distributor, pages: Pages, client: ClientAddress) -> None:
    """The pages below /u."""
    leaving = UnsubscribePages(distributor, pages, client)
    for path, changes in (
        ("/u/{token}", leaving.leave),
        ("/u/{token}/resubscribe", leaving.come_back),
    ):
        app.add_api_route(path, leaving.ask, methods=LOOKING, response_class=HTMLResponse)
        app.add_api_route(path, changes, methods=["POST"], response_class=HTMLResponse)


@dataclass(frozen=True)
class UnsubscribePages:
    """One method a page."""

    distributor: Distributor
    pages: Pages
    client: ClientAddress

    def ask(self, token: str) -> Response:
        """The button; or, pressed already, the way back."""
        found = self._find(token)
        if found is None:
            return self.pages.unknown()
        return self._page("unsubscribed" if _has_left(found) else "unsubscribe", found)

    def leave(self, request: Request, token: str, form: SentForm) -> Response:
        """RFC 8058's POST, and the button's."""
        if not TOKEN.fullmatch(token):
            return self.pages.unknown()
        ip = self.client.of(request) or None
        left = self.distributor.reception.leave(token, _source(form), ip)
        return self._page("unsubscribed", left) if left else self.pages.unknown()

    def come_back(self, request: Request, token: str) -> Response:
        """The reader begins again, on the words above the button. The link from our mail proves the address."""
        found = self._find(token)
        if found is None:
            return self.pages.unknown()
        wording = self._wording(found)
        if wording is None or found.suppressed:
            return self._page("unsubscribed", found)
        visit = Visit(source="unsubscribe page", ip=self.client.of(request) or None, wording=wording)
        back = self.distributor.audience.resubscribe(token, visit)
        return self._page("resubscribed" if back else "unsubscribed", back or found)

    def _find(self, token: str) -> Subscription | None:
        return self.distributor.audience.find(token) if TOKEN.fullmatch(token) else None

    def _wording(self, found: Subscription) -> ConsentText | None:
        """None for a newsletter that is gone from the settings: nobody can come back to it."""
        newsletter = self.distributor.settings.newsletters.get(found.newsletter)
        if newsletter is None:
            return None
        language = self.pages.language(found.language, newsletter)
        return self.distributor.reception.wording([newsletter.slug], language, found.channel)

    def _page(self, name: str, found: Subscription) -> HTMLResponse:
        return self.pages.show(
            name,
            self.pages.newsletter(found.newsletter),
            found.language or "",
            address=masked(found.address),
            token=found.token,
            preferences=f"/p/{found.token}",
            consent=self._wording(found),
            suppressed=bool(found.suppressed),
        )


def _has_left(found: Subscription) -> bool:
    return found.state is SubscriptionState.UNSUBSCRIBED


def _source(form: Form) -> str:
    """Where it was done, and on the page also why, in words of ours."""
    if not form.one("page"):
        return "one click"
    reason = form.one("reason")
    return f"unsubscribe page: {reason}" if reason in REASONS else "unsubscribe page"
