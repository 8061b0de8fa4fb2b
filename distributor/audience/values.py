"""What the audience is asked and what it answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import Select

from distributor.model import ConsentKind, ConsentText, SubscriptionState

#: A query for (subscriber_id, address, domain); a story hands it from the audience to the ledger unread.
AudienceQuery = Select[Any]


class Answer(StrEnum):
    """What became of a sign-up. Whoever asked from outside is never told which."""

    ASKED = "asked"  # a confirmation is on its way
    WAITS = "waits"  # noted; the confirmation of today, or of a reminder, covers it
    ACTIVATED = "activated"  # the caller vouched for the consent
    ACTIVE = "active"  # nothing to do
    SUPPRESSED = "suppressed"  # nothing may be sent there
    REPEATED = "repeated"  # the same webhook came before
    CONFLICT = "conflict"  # its id came before, with another body


@dataclass(frozen=True, kw_only=True)
class Received:
    """A webhook as it came in: who sent it, its id, and the SHA-256 (hex) of its body."""

    source: str
    key: str
    body_hash: str


@dataclass(frozen=True, kw_only=True)
class SignUp:
    """Somebody asks for newsletters. `address` in its one spelling (`normalise`).

    `source` says where: "form", "webhook shop", "telegram". `vouched`: the caller asserts that the reader has
    confirmed. `remind_after`: who has not confirmed by then is asked once more; zero: never.
    """

    channel: str = "email"
    address: str
    newsletters: Sequence[str]
    language: str
    source: str
    ip: str | None = None
    wording: ConsentText | None = None
    vouched: bool = False
    remind_after: timedelta = timedelta(0)
    name: str = ""
    tags: Sequence[str] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)
    received: Received | None = None


@dataclass(frozen=True, kw_only=True)
class Visit:
    """Who acts on a page, and on what words: for the consent row. `source` says from where."""

    source: str
    ip: str | None = None
    wording: ConsentText | None = None


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a confirmation link is about: the newsletters that wait for it, those that are active already."""

    subscriber_id: int
    address: str
    language: str | None
    waiting: Sequence[str]
    active: Sequence[str]
    tokens: Mapping[str, str]  # of the active ones
    expired: bool = False


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """One row of evidence, without what only the operator needs."""

    newsletter: str
    kind: ConsentKind
    at: datetime
    source: str


@dataclass(frozen=True, kw_only=True)
class Subscription:
    """A subscriber's link to a newsletter, as a page or a listing shows it."""

    subscriber_id: int
    newsletter: str
    channel: str
    address: str
    name: str
    language: str | None
    state: SubscriptionState
    token: str
    source: str
    consent_at: datetime
    activated_at: datetime | None
    ended_at: datetime | None
    end_reason: str | None
    suppressed: str | None = None


@dataclass(frozen=True, kw_only=True)
class NewSubscriber:
    """One line of an import: an address that somebody says has asked for the newsletter."""

    channel: str
    address: str
    source: str
    name: str = ""
    language: str | None = None
    consent_at: datetime | None = None
