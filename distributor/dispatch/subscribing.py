"""How readers come: the story behind the form, the sign-up webhook and the bot."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from jinja2 import Environment

from distributor.audience import Answer, Audience, Received, SignUp, Subscription, Visit, normalise
from distributor.errors import RequestRefused
from distributor.model import ConsentText
from distributor.rendering import consent_text
from distributor.settings import Newsletter, Signup

#: The longest address that mail can have (RFC 5321 §4.5.3.1.3), and more than any name needs.
LONGEST_ADDRESS, LONGEST_NAME = 254, 100


@dataclass(frozen=True, kw_only=True)
class Request:
    """What somebody sent us, as they spelled it. `newsletters`: slugs; `language`: empty for the newsletter's own."""

    address: str
    newsletters: Sequence[str]
    source: str
    channel: str = "email"
    language: str = ""
    ip: str | None = None
    name: str = ""
    tags: Sequence[str] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)
    vouched: bool = False
    received: Received | None = None
    #: The words that were shown to the reader; None: ours (`Reception.wording`); empty: nobody knows them.
    words: str | None = None


@dataclass(frozen=True, kw_only=True)
class Reception:
    """Where readers come in, and where they leave."""

    audience: Audience
    newsletters: Mapping[str, Newsletter]
    settings: Signup
    templates: Environment

    def sign_up(self, request: Request) -> Answer:
        """Asks the reader to confirm, or, vouched for, begins at once. Raises RequestRefused for what cannot be meant."""
        asked = self._understood(request)
        return self.audience.sign_up(asked, welcome=self.settings.welcome)

    def confirm(
        self, token: str, visit: Visit, newsletters: Collection[str]
    ) -> Sequence[Subscription] | None:
        """The reader confirms the newsletters that they were shown. None for a link that leads nowhere (any more)."""
        return self.audience.confirm(token, visit, newsletters=newsletters, welcome=self.settings.welcome)

    def leave(self, token: str, reason: str, ip: str | None = None) -> Subscription | None:
        """Ends a subscription. None for an unknown token."""
        return self.audience.unsubscribe(token, reason, ip, goodbye=self.settings.goodbye)

    def wording(
        self, slugs: Sequence[str], language: str, channel: str = "email", *, ticked: bool = False
    ) -> ConsentText:
        """What a reader of these newsletters agrees to, or of those among them that they tick."""
        newsletters = [self.newsletters[slug] for slug in slugs]
        return consent_text(newsletters, language, self.templates, channel, ticked=ticked)

    @property
    def public(self) -> Sequence[Newsletter]:
        """Those that anybody may sign up for."""
        return [newsletter for newsletter in self.newsletters.values() if newsletter.public]

    def _understood(self, request: Request) -> SignUp:
        slugs = list(dict.fromkeys(request.newsletters))
        if not slugs:
            raise RequestRefused("name at least one newsletter")
        if unknown := [slug for slug in slugs if slug not in self.newsletters]:
            raise RequestRefused(f"there is no newsletter {unknown[0]!r}")
        if len(request.address) > LONGEST_ADDRESS:
            raise RequestRefused(f"an address has at most {LONGEST_ADDRESS} characters")
        own = self.newsletters[slugs[0]].language
        language = request.language or own
        return SignUp(
            channel=request.channel,
            address=normalise(request.channel, request.address),
            newsletters=slugs,
            language=language,
            source=request.source,
            ip=request.ip,
            wording=self._shown(request.words, slugs, language if language in {"zh-CN", "en"} else own),
            vouched=request.vouched,
            remind_after=self.settings.remind_after,
            name=request.name.strip()[:LONGEST_NAME],
            tags=request.tags,
            attributes=request.attributes,
            received=request.received,
        )

    def _shown(self, words: str | None, slugs: Sequence[str], language: str) -> ConsentText | None:
        if words is None:
            return self.wording(slugs, language)
        return ConsentText.of(words, language) if words else None
