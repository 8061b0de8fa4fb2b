"""The words of the glossary as values: frozen dataclasses, enums, and the legal moves between states.

What exists once a delivery is a named tuple: making one costs a quarter of a frozen dataclass.

Nothing here knows SQL, HTTP, Celery or the clock.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple


class DeliveryState(StrEnum):
    """Where a delivery stands. The letters are those of the drawing in docs/architecture.md."""

    PENDING = "pending"  # waits for its turn, or for its retry
    SENDING = "sending"  # intent is committed; a worker that holds the lease may be handing it over
    SENT = "sent"  # the transport accepted it
    FAILED = "failed"  # gave up: permanent refusal, or too many tries
    UNCONFIRMED = "unconfirmed"  # handed over, answer lost: it may have gone
    SKIPPED = "skipped"  # not tried, on purpose; the reason stands beside it


LEGAL_MOVES: Mapping[DeliveryState, frozenset[DeliveryState]] = {
    DeliveryState.PENDING: frozenset({DeliveryState.SENDING, DeliveryState.SKIPPED}),  # a, b
    DeliveryState.SENDING: frozenset(
        {
            DeliveryState.SENT,  # c: accepted
            DeliveryState.FAILED,  # d: refused for good
            DeliveryState.UNCONFIRMED,  # e: the answer was lost
            DeliveryState.PENDING,  # f: a retry, with a time
        }
    ),
    DeliveryState.UNCONFIRMED: frozenset(
        {
            DeliveryState.SENT,
            DeliveryState.FAILED,
            DeliveryState.PENDING,
        }  # h: proof, or a person says so; i: resend
    ),
    DeliveryState.FAILED: frozenset({DeliveryState.PENDING}),  # i: resend
    DeliveryState.SENT: frozenset({DeliveryState.PENDING}),  # i: resend
    DeliveryState.SKIPPED: frozenset(
        {DeliveryState.PENDING}
    ),  # g: expired news that a person wants out all the same
}

#: States that need no more work from a worker.
SETTLED = frozenset(
    {DeliveryState.SENT, DeliveryState.FAILED, DeliveryState.UNCONFIRMED, DeliveryState.SKIPPED}
)


class IssueState(StrEnum):
    """Where an issue stands."""

    WAITING = "waiting"  # rendered and frozen; waits for a person's approval
    OPENING = "opening"  # the audience is being written down, window by window
    SENDING = "sending"  # all deliveries exist; workers are at it
    FINISHED = "finished"  # every delivery is settled
    CANCELLED = "cancelled"  # a person stopped it; what was pending is skipped(cancelled)
    EXPIRED = "expired"  # too old to be news; what was pending is skipped(expired)


#: States of an issue of which nothing more goes out, unless a person resends.
OVER = frozenset({IssueState.FINISHED, IssueState.CANCELLED, IssueState.EXPIRED})


class SkipReason(StrEnum):
    """Why a delivery was not tried."""

    UNSUBSCRIBED = "unsubscribed"
    SUPPRESSED = "suppressed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    INVALID_ADDRESS = "invalid address"


class SubscriptionState(StrEnum):
    """Where a subscription stands."""

    PENDING = "pending"  # asked, not confirmed
    ACTIVE = "active"
    UNSUBSCRIBED = "unsubscribed"


class ConsentKind(StrEnum):
    """What a row of evidence says about a subscription."""

    ASKED = "asked"  # somebody typed the address in
    CONFIRMED = "confirmed"  # the reader did, by a link that only they have
    ASSERTED = "asserted"  # a caller that we trust says that they did
    IMPORTED = "imported"  # another system's record says so
    WITHDRAWN = "withdrawn"


class LinkPurpose(StrEnum):
    """What a one-time address is for."""

    CONFIRM = "confirm"
    TELEGRAM = "telegram"  # connects a chat to an e-mail subscriber


class Letter(StrEnum):
    """What a subscriber hears from us besides issues."""

    CONFIRM = "confirm"
    REMIND = "remind"  # the same once more, when nothing came
    WELCOME = "welcome"
    GOODBYE = "goodbye"


class SuppressionReason(StrEnum):
    """Why an address must not be used."""

    BOUNCED = "bounced"  # there is no such mailbox
    UNDELIVERABLE = "undeliverable"  # refused for now, too often
    BLOCKED = "blocked"  # the reader blocked the bot
    COMPLAINED = "complained"
    MANUAL = "manual"
    ERASED = "erased"  # the person asked to be forgotten; only they themselves may come back


class EventKind(StrEnum):
    """What happened to a mail after it was handed over, in the words of django-anymail."""

    QUEUED = "queued"
    SENT = "sent"
    REJECTED = "rejected"  # the provider did not try: its own list has the address, or its rules the content
    FAILED = "failed"  # the provider could not do its work
    BOUNCED = "bounced"
    DEFERRED = "deferred"  # refused for now; the provider tries again
    DELIVERED = "delivered"
    AUTORESPONDED = "autoresponded"
    OPENED = "opened"
    CLICKED = "clicked"
    COMPLAINED = "complained"
    UNSUBSCRIBED = "unsubscribed"
    SUBSCRIBED = "subscribed"
    UNKNOWN = "unknown"
    UNSUPPRESSED = "unsuppressed"  # our own: a person says that the address works again


class Permanence(StrEnum):
    """How long a refusal lasts, and whose fault it is."""

    PERMANENT = "permanent"  # there is no such mailbox
    TEMPORARY = "temporary"  # the mailbox is full, its server away: another day it may work
    POLICY = "policy"  # reputation, content, pace: ours to mend; the address is as good as before


class Trigger(StrEnum):
    """Why an attempt began."""

    SCHEDULED = "scheduled"
    RETRY = "retry"
    RESEND = "resend"


class OpenedBy(StrEnum):
    """Who opened an issue."""

    SCHEDULER = "scheduler"
    PERSON = "person"


class Permission(StrEnum):
    """What a token of the operators' interface allows: its scopes."""

    SUBSCRIBERS_READ = "subscribers:read"
    SUBSCRIBERS_WRITE = "subscribers:write"
    ISSUES_READ = "issues:read"
    ISSUES_WRITE = "issues:write"  # resend, pause, resume, cancel
    DELIVERIES_READ = "deliveries:read"
    EVENTS_READ = "events:read"
    WEBHOOKS_READ = "webhooks:read"


class AiUse(StrEnum):
    """How much of a post a machine wrote, as readers are told (China's labelling measures of 2025; EU AI Act, art. 50)."""

    GENERATED = "generated"
    ASSISTED = "assisted"
    NONE = "none"


class ResendScope(StrEnum):
    """What `resend --only` takes."""

    FAILED = "failed"
    UNCONFIRMED = "unconfirmed"
    EXPIRED = "expired"  # skipped because the issue was too old by then
    MISSING = "missing"  # active now, not in the frozen audience
    ALL = "all"


class Hosted(NamedTuple):
    """Where readers get a picture from, its size in pixels where that is known, and what went wrong with it.

    With a `trouble`, `address` is still the one in the post, or that of an older copy.
    """

    address: str
    width: int | None = None
    height: int | None = None
    trouble: str = ""

    def within(self, column: int) -> tuple[int, int] | None:
        """(width, height) in a column of so many pixels: never enlarged. None when the size is not known."""
        if not self.width or not self.height:
            return None
        width = min(self.width, column)
        return width, max(1, round(self.height * width / self.width))


@dataclass(frozen=True, kw_only=True)
class ConsentText:
    """The words that were shown to whoever agreed, with their version: the first 16 digits of their SHA-256."""

    version: str
    language: str
    text: str

    @classmethod
    def of(cls, text: str, language: str) -> "ConsentText":
        return cls(version=hashlib.sha256(text.encode()).hexdigest()[:16], language=language, text=text)


@dataclass(frozen=True, kw_only=True)
class Post:
    """A Markdown source, as read from its file.

    `date` is aware (the newsletter's zone when the file names none) and None when the post has no date at all.
    `body` is Markdown without front matter; its first line is line `body_line` of the file (from 1).
    """

    slug: str
    title: str
    date: datetime | None
    body: str
    path: Path
    body_line: int = 1
    categories: Sequence[str] = ()
    cover_image: str | None = None
    url: str | None = None
    description: str | None = None
    language: str | None = None
    draft: bool = False
    ai: AiUse | None = None
    extra: Mapping[str, object] = field(default_factory=dict)
    #: Address as the post has it → where readers get that picture from; empty: from there.
    pictures: Mapping[str, Hosted] = field(default_factory=dict)

    def with_pictures(self, hosted: Mapping[str, Hosted]) -> "Post":
        """The post with its pictures at other places; asked for a second time, these stay where they are."""
        pictures = {**hosted, **{found.address: found for found in hosted.values()}}
        cover = pictures.get(self.cover_image or "")
        return replace(self, pictures=pictures, cover_image=cover.address if cover else self.cover_image)

    @property
    def hash(self) -> str:
        """SHA-256 (hex) over what readers would see; an edited post has another one."""
        seen = (self.title, str(self.date), self.cover_image, self.url, self.description, self.body)
        ai = (self.ai,) if self.ai else ()  # only then: posts that were sent before keep their hash
        return hashlib.sha256("\0".join(str(part) for part in (*seen, *ai)).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Message:
    """One part of a post rendered for one channel and variant; frozen with its hash before the first send.

    `content` holds the named texts the channel's transport needs (e-mail: subject, html, text, headers …).
    What differs by recipient stands in it as a placeholder, such as `__UNSUBSCRIBE_URL__`, listed in `placeholders`.
    """

    channel: str
    variant: str
    content: Mapping[str, str]
    part: int = 1
    parts: int = 1
    placeholders: Sequence[str] = ()
    warnings: Sequence[str] = ()

    @property
    def hash(self) -> str:
        """SHA-256 (hex) over everything that is sent."""
        frozen = [self.channel, self.variant, self.part, self.parts, sorted(self.content.items())]
        return hashlib.sha256(json.dumps(frozen, ensure_ascii=False).encode()).hexdigest()


class Recipient(NamedTuple):
    """An address frozen into an issue: a subscriber's, or a destination from the configuration."""

    channel: str
    address: str
    variant: str = "default"
    subscriber_id: int | None = None
    destination: str | None = None
    token: str | None = None


class DeliveryId(NamedTuple):
    """The identity of one delivery: issue, its number within the issue, and the resend number (0: the first)."""

    issue_id: int
    seq: int
    resend: int = 0

    def __str__(self) -> str:
        return f"{self.issue_id}.{self.seq}.{self.resend}"


#: The resend number of a letter to a reader, whose issue is 0: it tells letters from notices and test sends.
LETTER_MARK = 999_999_999


@dataclass(frozen=True, kw_only=True)
class Event:
    """News from outside about a mail and its reader.

    (`provider`, `event_id`) tells events apart: a repeated one has no second effect. `address` is as the provider writes
    it. `detail` is text of others: control characters are out, and it is cut.

    What finds the delivery, each where it is told: `message_id`, ours; `receipt`, the provider's own id of the mail, as
    the transport's receipt has it; `delivery`, proven by a bounce's envelope. `mirrors`: the provider refuses the address
    since its own list has it for this reason.
    """

    provider: str
    event_id: str
    kind: EventKind
    address: str
    occurred_at: datetime
    channel: str = "email"
    permanence: Permanence | None = None
    code: str = ""
    detail: str = ""
    message_id: str = ""
    receipt: str = ""
    delivery: DeliveryId | None = None
    newsletter: str | None = None
    mirrors: SuppressionReason | None = None


@dataclass(frozen=True, kw_only=True)
class Relay:
    """A way out of a channel: a mail relay, a bot. Of several that may carry a recipient, one is chosen by weight.

    `domains`: it carries these recipient domains, and those are carried by nobody else; empty: it carries all others.
    `daily_cap`: deliveries a day (UTC) over all workers; 0: no cap.
    """

    name: str
    weight: int = 1
    daily_cap: int = 0
    domains: frozenset[str] = frozenset()


class Parcel(NamedTuple):
    """What one send needs: the frozen message (one part), who gets it, and the delivery's identity.

    `sent_date` is the same for every try of one delivery and resend number (so that a repeated mail is recognisable).
    `receipts` are the provider's ids of the parts before this one, where there are any.
    """

    message: Message
    recipient: Recipient
    identity: DeliveryId
    sent_date: datetime
    values: Mapping[str, str] = MappingProxyType({})
    receipts: Sequence[str] = ()


class Receipt(NamedTuple):
    """A transport's proof that it accepted one part, with the provider's id when there is one.

    `address` is set when the provider told us that the recipient lives elsewhere now (a migrated Telegram chat).
    `whole`: what was sent stands for all parts that are left. `retry_after`: the provider asks to wait so long before
    anything else is sent with the same login.
    """

    provider_id: str | None = None
    code: str = ""
    text: str = ""
    address: str | None = None
    whole: bool = False
    retry_after: timedelta | None = None


class Delivery(NamedTuple):
    """One row of the ledger, as a worker reads it: who gets which message, and how far it came."""

    identity: DeliveryId
    recipient: Recipient
    tries: int
    first_try_at: datetime | None
    parts_sent: int
    receipts: Sequence[str] = ()
    resend_id: int | None = None
    skip: SkipReason | None = None


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """A key range of one issue's deliveries on one channel, leased to one worker until a time."""

    id: int
    issue_id: int
    channel: str
    pace_group: str
    lo: int
    hi: int
    token: str


class Outcome(NamedTuple):
    """How one attempt ended; the ledger turns it into the delivery's state and an attempt row.

    `retry_in` (from when it is written down) is set exactly when the state is pending. `counts` says whether the attempt uses up a try.
    """

    delivery: Delivery
    state: DeliveryState
    started_at: datetime
    duration_ms: int
    parts_sent: int
    receipts: Sequence[str] = ()
    code: str = ""
    text: str = ""
    reason: SkipReason | None = None
    retry_in: timedelta | None = None
    counts: bool = True
    suppress: SuppressionReason | None = None
    new_address: str | None = None
    relay: str = ""


@dataclass(frozen=True, kw_only=True)
class Tally:
    """Deliveries counted by state. `planned` is what was frozen; the sum of the others must equal it."""

    planned: int = 0
    pending: int = 0
    sending: int = 0
    sent: int = 0
    failed: int = 0
    unconfirmed: int = 0
    skipped: int = 0

    @property
    def counted(self) -> int:
        return self.pending + self.sending + self.sent + self.failed + self.unconfirmed + self.skipped

    @property
    def balanced(self) -> bool:
        """Whether nothing was lost: planned = sent + failed + skipped + unconfirmed + sending + pending."""
        return self.planned == self.counted

    @property
    def open(self) -> int:
        return self.pending + self.sending

    def __add__(self, other: "Tally") -> "Tally":
        names = ("planned", "pending", "sending", "sent", "failed", "unconfirmed", "skipped")
        return Tally(**{name: getattr(self, name) + getattr(other, name) for name in names})


@dataclass(frozen=True, kw_only=True)
class Issue:
    """A post going out: one per newsletter and local date; extras of a day carry a number above 0."""

    id: int
    newsletter: str
    local_date: date
    extra: int
    slug: str
    title: str
    post_hash: str
    state: IssueState
    opened_by: OpenedBy
    opened_at: datetime
    expires_at: datetime
    frozen_at: datetime | None = None
    finished_at: datetime | None = None
    approved_by: str | None = None
    paused: bool = False
    hold: str | None = None
