"""What a reader gets and where: newsletters, channels, language, and what is kept about them.

The token of a mail's link is the credential. A mail that is passed on passes it on as well: the page shows addresses
masked, never an IP, and nothing on it is lost that its reader could not set right again.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse

from distributor.audience import CONNECT_WITHIN, Evidence, Place, Preferences, Subscription, Visit, masked
from distributor.bootstrap import Distributor
from distributor.dispatch import takes_subscribers
from distributor.model import ConsentText, LinkPurpose
from distributor.rendering import WORDING
from distributor.settings import Newsletter
from distributor.web.client import ClientAddress
from distributor.web.pages import Pages
from distributor.web.visiting import LOOKING, TOKEN, SentForm
from distributor.web.words import WORDS

SOURCE = "preferences page"

#: A subscription, whether it exists or not: (subscriber's number, newsletter).
Choice = tuple[int, str]


def add_preferences(app: FastAPI, distributor: Distributor, pages: Pages, client: ClientAddress) -> None:
    """The pages below /p."""
    preferring = PreferencePages(distributor, pages, client)
    for path, changes in (
        ("/p/{token}", preferring.save),
        ("/p/{token}/leave", preferring.leave_all),
        ("/p/{token}/telegram", preferring.connect),
    ):
        app.add_api_route(path, preferring.show, methods=LOOKING, response_class=HTMLResponse)
        app.add_api_route(path, changes, methods=["POST"], response_class=HTMLResponse)


@dataclass(frozen=True)
class PreferencePages:
    """One method a page."""

    distributor: Distributor
    pages: Pages
    client: ClientAddress

    def show(self, token: str) -> Response:
        """The form with what is chosen."""
        found, chosen = self._find(token)
        return self._page(found, chosen) if found and chosen else self.pages.unknown()

    def save(self, request: Request, token: str, form: SentForm) -> Response:
        """Of what the form showed, what is ticked begins or stays, and the rest ends. What it did not show stays as it is."""
        found, chosen = self._find(token)
        if not (found and chosen):
            return self.pages.unknown()
        allowed = {_value(choice): choice for choice in self._choices(chosen)}
        shown = [allowed[value] for value in form.all("shown") if value in allowed]
        wanted = {choice: _value(choice) in form.all("wanted") for choice in shown}
        language = form.one("language") if form.one("language") in WORDS else None
        visit = self._visit(request, self._wording(found, chosen))
        return self._told(found, self.distributor.audience.choose(token, wanted, language, visit))

    def leave_all(self, request: Request, token: str) -> Response:
        """Ends everything, on every channel."""
        found, chosen = self._find(token)
        if not (found and chosen):
            return self.pages.unknown()
        ended = dict.fromkeys(chosen.tokens, False)
        chosen = self.distributor.audience.choose(token, ended, None, self._visit(request))
        return self._told(found, chosen)

    def connect(self, token: str) -> Response:
        """A link that connects the chat of whoever opens it first."""
        found, _ = self._find(token)
        if found is None or not self._bot:
            return self.pages.unknown()
        start = self.distributor.audience.new_link(token, LinkPurpose.TELEGRAM, CONNECT_WITHIN)
        return self.pages.show(
            "telegram",
            self.pages.newsletter(found.newsletter),
            found.language or "",
            link=f"https://t.me/{self._bot}?start={start}",
            preferences=f"/p/{token}",
        )

    @property
    def _bot(self) -> str:
        """The name of the bot that readers talk to; empty without one, or when nothing can be had there."""
        newsletters = self.distributor.settings.newsletters.values()
        has_readers = any(takes_subscribers(each, "telegram") for each in newsletters)
        return self.distributor.settings.bot.username if has_readers else ""

    def _find(self, token: str) -> tuple[Subscription | None, Preferences | None]:
        if not TOKEN.fullmatch(token):
            return None, None
        return self.distributor.audience.find(token), self.distributor.audience.preferences(token)

    def _visit(self, request: Request, wording: ConsentText | None = None) -> Visit:
        return Visit(source=SOURCE, ip=self.client.of(request) or None, wording=wording)

    def _choices(self, chosen: Preferences) -> Iterator[Choice]:
        """What may be chosen: at each place the public newsletters, and those that the reader has had."""
        for place in chosen.places:
            for newsletter in self._offered(place, chosen):
                yield place.subscriber_id, newsletter.slug

    def _offered(self, place: Place, chosen: Preferences) -> Sequence[Newsletter]:
        return [
            each
            for each in self.distributor.settings.newsletters.values()
            if takes_subscribers(each, place.channel)
            and (each.public or (place.subscriber_id, each.slug) in chosen.tokens)
        ]

    def _wording(self, found: Subscription, chosen: Preferences) -> ConsentText | None:
        """The words above the button, or None when there is nothing to tick."""
        slugs = list(dict.fromkeys(slug for _, slug in self._choices(chosen)))
        if not slugs:
            return None
        language = self.pages.language(chosen.language, self.pages.newsletter(found.newsletter))
        channel = "" if len(chosen.places) > 1 else chosen.places[0].channel
        return self.distributor.reception.wording(slugs, language, channel, ticked=True)

    def _told(self, found: Subscription, chosen: Preferences | None) -> Response:
        if chosen is None:
            return self.pages.unknown()
        return self._page(found, chosen, "saved" if chosen.active else "saved_none")

    def _page(self, found: Subscription, chosen: Preferences, told: str = "") -> HTMLResponse:
        newsletter = self.pages.newsletter(found.newsletter)
        language = self.pages.language(chosen.language, newsletter)
        return self.pages.show(
            "preferences",
            newsletter,
            language,
            token=found.token,
            told=told,
            places=[self._place(place, chosen) for place in chosen.places],
            usable=any(not place.suppressed for place in chosen.places),
            languages={name: known.name for name, known in WORDS.items()},
            consent=self._wording(found, chosen),
            telegram=bool(self._bot),
            any_active=bool(chosen.active),
            kept=[
                self._kept(each, language, newsletter)
                for each in self.distributor.audience.evidence(found.token)
            ],
        )

    def _place(self, place: Place, chosen: Preferences) -> Mapping[str, Any]:
        return {
            "channel": place.channel,
            "shown": masked(place.address),
            "suppressed": place.suppressed,
            "choices": [
                {
                    "value": _value((place.subscriber_id, each.slug)),
                    "active": (place.subscriber_id, each.slug) in chosen.active,
                    "newsletter": each,
                }
                for each in self._offered(place, chosen)
            ],
        }

    def _kept(self, evidence: Evidence, language: str, newsletter: Newsletter) -> Mapping[str, Any]:
        """A line about one act of the reader. Who else took part stands there as the operator named them."""
        place, _, _ = evidence.source.partition(":")
        about = self.distributor.settings.newsletters.get(evidence.newsletter)
        return {
            "date": WORDING[language].date(evidence.at.astimezone(newsletter.zone).date()),
            "what": WORDS[language].kinds[evidence.kind],
            "title": about.title if about else evidence.newsletter,
            "language": about.language if about else "",
            "source": WORDS[language].sources.get(place, evidence.source),
        }


def _value(choice: Choice) -> str:
    """How the form names it."""
    return f"{choice[0]}:{choice[1]}"
