"""What every part of the audience works with."""

import hashlib
import secrets
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Select, and_, bindparam, case, event, func, insert, or_, select, update

from distributor.audience.addresses import HASHED, domain_of, fingerprint
from distributor.audience.values import NewSubscriber, Subscription, Visit
from distributor.db import Database, insert_ignore, one_or_many
from distributor.model import (
    ConsentKind,
    DeliveryState,
    EventKind,
    Letter,
    LinkPurpose,
    SubscriptionState,
    SuppressionReason,
)
from distributor.tables import (
    Utc,
    consent_texts,
    consents,
    events,
    installation,
    letters,
    links,
    subscribers,
    subscriptions,
    suppressions,
)
from distributor.webhooks import Webhooks

#: 16 random bytes: 22 characters keep `List-Unsubscribe` on one line (facts: RFC 8058 headers, 77 characters).
TOKEN_BYTES = 16
#: Versions of consent texts that a process knows to be written down.
MOST_WORDS = 1000

#: Why nothing may be sent to an address, or to one that was erased; another reason goes before that one.
SUPPRESSED = (
    select(suppressions.c.reason)
    .where(
        suppressions.c.channel == bindparam("channel"),
        or_(suppressions.c.address == bindparam("address"), suppressions.c.address == bindparam("erased")),
    )
    .order_by(suppressions.c.reason == SuppressionReason.ERASED)
    .limit(1)
)
TIME_AND_SUPPRESSED = select(func.clock_timestamp(type_=Utc()), SUPPRESSED.scalar_subquery())


class Store:
    """Subscribers and their subscriptions in one database."""

    def __init__(self, database: Database, webhooks: Webhooks | None = None) -> None:
        self.database = database
        self.webhooks = webhooks or Webhooks(database)
        self._known_words: set[str] = set()
        self._key: str | None = None

    def key(self, connection: Connection) -> str:
        """The random key of this installation, made with its tables: of fingerprints and of signed forms."""
        if self._key is None:
            query = select(installation.c.value).where(installation.c.name == "key")
            self._key = str(connection.execute(query).scalar_one())
        return self._key

    def secret(self) -> bytes:
        """The same, from outside a transaction. Raises ServiceDown."""
        with self.database.read() as connection:
            return self.key(connection).encode()

    def _insert(
        self, connection: Connection, newsletter: str, new: Sequence[tuple[NewSubscriber, str]], now: datetime
    ) -> int:
        """Inserts subscribers and active subscriptions that are not there yet; returns the new subscriptions.

        Not those who were erased: only they themselves come back.
        """
        new = self._without_erased(connection, new)
        insert_ignore(
            self.database,
            subscribers,
            [subscriber_row(item, address, now) for item, address in new],
            connection,
        )
        by_channel: dict[str, list[str]] = {}
        for item, address in new:
            by_channel.setdefault(item.channel, []).append(address)
        ids = {
            (channel, row.address): row.id
            for channel, addresses in by_channel.items()
            for row in connection.execute(
                select(subscribers.c.id, subscribers.c.address).where(
                    subscribers.c.channel == channel, subscribers.c.address.in_(addresses)
                )
            )
        }
        rows = [subscription_row(newsletter, item, ids[item.channel, address], now) for item, address in new]
        return insert_ignore(self.database, subscriptions, rows, connection)

    def _without_erased(
        self, connection: Connection, new: Sequence[tuple[NewSubscriber, str]]
    ) -> Sequence[tuple[NewSubscriber, str]]:
        hashed = suppressions.c.address.startswith(HASHED)
        if not connection.execute(select(suppressions.c.id).where(hashed).limit(1)).first():
            return new
        key = self.key(connection)
        spellings = [fingerprint(key, item.channel, address) for item, address in new]
        query = select(suppressions.c.address).where(suppressions.c.address.in_(spellings))
        erased = set(connection.execute(query).scalars())
        return [one for one, spelling in zip(new, spellings, strict=True) if spelling not in erased]

    def _reactivate(
        self, connection: Connection, found: Subscription, new: NewSubscriber, now: datetime
    ) -> None:
        connection.execute(
            update(subscriptions)
            .where(subscriptions.c.token == found.token)
            .values(
                state=SubscriptionState.ACTIVE,
                activated_at=now,
                consent_at=new.consent_at or now,
                source=new.source,
                ended_at=None,
                end_reason=None,
            )
        )

    def _suppression(self, connection: Connection, channel: str, address: str) -> str | None:
        """Why nothing may be sent there; also when the address itself was erased."""
        return connection.execute(SUPPRESSED, self._spelled(connection, channel, address)).scalar()

    def _look(self, connection: Connection, channel: str, address: str) -> tuple[datetime, str | None]:
        """(the database's time, `_suppression`), asked for together."""
        if not self.database.has_clock:
            return self.database.now(connection), self._suppression(connection, channel, address)
        moment, reason = connection.execute(
            TIME_AND_SUPPRESSED, self._spelled(connection, channel, address)
        ).one()
        return moment, reason

    def _spelled(self, connection: Connection, channel: str, address: str) -> Mapping[str, str]:
        erased = fingerprint(self.key(connection), channel, address)
        return {"channel": channel, "address": address, "erased": erased}

    def _kept_spelling(self, connection: Connection, channel: str, address: str) -> str:
        """What may be written down of an address: its fingerprint when it was erased and has not come back."""
        erased = fingerprint(self.key(connection), channel, address)
        query = select(suppressions.c.id).where(
            suppressions.c.channel == channel, suppressions.c.address == erased
        )
        return erased if connection.execute(query).first() else address

    def _one(self, connection: Connection, newsletter: str, channel: str, address: str) -> Subscription:
        query = subscription_query(newsletter).where(
            subscribers.c.channel == channel, subscribers.c.address == address
        )
        return subscription_of(connection.execute(query).one())

    def _of_token(self, connection: Connection, token: str) -> Subscription | None:
        query = subscription_query(None).where(subscriptions.c.token == token)
        row = connection.execute(query).first()
        return subscription_of(row) if row else None

    def _end(self, connection: Connection, token: str, reason: str, now: datetime) -> bool:
        """Whether there was something to end."""
        ended = (
            update(subscriptions)
            .where(subscriptions.c.token == token, subscriptions.c.state != SubscriptionState.UNSUBSCRIBED)
            .values(state=SubscriptionState.UNSUBSCRIBED, ended_at=now, end_reason=reason)
        )
        return connection.execute(ended).rowcount > 0

    def _left(self, connection: Connection, left: Subscription, visit: Visit, now: datetime) -> None:
        """Evidence of a subscription that has just ended."""
        self._record(connection, EventKind.UNSUBSCRIBED, left, now, visit.source)
        self._consent(connection, ConsentKind.WITHDRAWN, [(left.subscriber_id, left.newsletter)], visit, now)

    def _activate(
        self,
        connection: Connection,
        of: Sequence[Subscription],
        kind: ConsentKind,
        visit: Visit,
        now: datetime,
    ) -> None:
        """Begins subscriptions, with their evidence. Who was asked to confirm keeps the source that brought them."""
        waited = subscriptions.c.state == SubscriptionState.PENDING
        connection.execute(
            update(subscriptions)
            .where(subscriptions.c.token.in_([found.token for found in of]))
            .values(
                state=SubscriptionState.ACTIVE,
                activated_at=now,
                consent_at=now,
                source=case((waited, subscriptions.c.source), else_=visit.source),
                ended_at=None,
                end_reason=None,
            )
        )
        self._consent(connection, kind, [(found.subscriber_id, found.newsletter) for found in of], visit, now)
        for found in of:
            self._record(connection, EventKind.SUBSCRIBED, found, now, visit.source)

    def _record(
        self, connection: Connection, kind: EventKind, found: Subscription, now: datetime, detail: str
    ) -> None:
        """Writes down what happened to a subscription."""
        row = {
            "provider": "distributor",
            "provider_event_id": _name_of(kind, found, now),
            "kind": kind,
            "channel": found.channel,
            "address": found.address,
            "newsletter": found.newsletter,
            "occurred_at": now,
            "received_at": now,
            "detail": detail,
        }
        insert_ignore(self.database, events, [row], connection)
        self._announce(connection, kind, found, now, detail)

    def _announce(
        self, connection: Connection, kind: EventKind, found: Subscription, now: datetime, source: str
    ) -> None:
        """Tells the endpoints of the configuration."""
        told = {"channel": found.channel, "address": found.address, "source": source}
        name = _name_of(kind, found, now)
        self.webhooks.add(connection, f"subscription.{kind}", name, found.newsletter, told, now)

    def _consent(
        self,
        connection: Connection,
        kind: ConsentKind,
        of: Iterable[tuple[int, str]],
        visit: Visit,
        now: datetime,
        detail: str = "",
    ) -> None:
        """Evidence for each (subscriber, newsletter): who agreed to what, when, where, in which words."""
        words = visit.wording
        if words and words.version not in self._known_words:
            row = {"version": words.version, "language": words.language, "text": words.text, "first_at": now}
            insert_ignore(self.database, consent_texts, [row], connection)
            self._know_words(connection, words.version)
        rows = [
            {
                "subscriber_id": subscriber,
                "newsletter": newsletter,
                "kind": kind,
                "at": now,
                "source": visit.source,
                "ip": visit.ip,
                "wording": words.version if words else None,
                "detail": detail,
            }
            for subscriber, newsletter in of
        ]
        if rows:
            connection.execute(insert(consents), one_or_many(rows))

    def _know_words(self, connection: Connection, version: str) -> None:
        """From the commit on, and no sooner: evidence must not name words that were rolled back."""

        def remember(_connection: Connection) -> None:
            if len(self._known_words) >= MOST_WORDS:  # callers may bring words of their own
                self._known_words.clear()
            self._known_words.add(version)

        event.listen(connection, "commit", remember, once=True)

    def _letter(
        self,
        connection: Connection,
        kind: Letter,
        subscriber: int,
        newsletter: str,
        language: str,
        now: datetime,
        due_in: timedelta = timedelta(0),
    ) -> None:
        """A mail to a reader: written down, sent by whoever looks next, `due_in` so long."""
        row = {
            "kind": kind,
            "subscriber_id": subscriber,
            "newsletter": newsletter,
            "language": language,
            "state": DeliveryState.PENDING,
            "tries": 0,
            "due_at": now + due_in,
            "created_at": now,
            "relay": "",
            "code": "",
            "text": "",
        }
        connection.execute(insert(letters), row)

    def _link(
        self,
        connection: Connection,
        purpose: LinkPurpose,
        subscriber: int,
        newsletter: str | None,
        now: datetime,
        lasts: timedelta,
    ) -> str:
        """The token of a new one-time address. It stands nowhere but in the mail or on the page: we keep its hash."""
        token = new_token()
        row = {
            "hash": hashed(token),
            "purpose": purpose,
            "subscriber_id": subscriber,
            "newsletter": newsletter,
            "created_at": now,
            "expires_at": now + lasts,
        }
        connection.execute(insert(links), row)
        return token


def _name_of(kind: EventKind, found: Subscription, now: datetime) -> str:
    return f"{kind} {found.subscriber_id} {found.newsletter} {now.isoformat()}"


def new_token() -> str:
    """For a link: short, random, never derived."""
    return secrets.token_urlsafe(TOKEN_BYTES)


def hashed(token: str) -> str:
    """What is kept of a token: SHA-256 is enough for 128 random bits."""
    return hashlib.sha256(token.encode()).hexdigest()


def subscriber_row(new: NewSubscriber, address: str, now: datetime) -> dict[str, Any]:
    return {
        "channel": new.channel,
        "address": address,
        "domain": domain_of(new.channel, address),
        "name": new.name,
        "language": new.language,
        "created_at": now,
    }


def subscription_row(
    newsletter: str, new: NewSubscriber, subscriber_id: int, now: datetime
) -> dict[str, Any]:
    return {
        "subscriber_id": subscriber_id,
        "newsletter": newsletter,
        "state": SubscriptionState.ACTIVE,
        "token": new_token(),
        "source": new.source,
        "consent_at": new.consent_at or now,
        "activated_at": now,
    }


def subscription_query(newsletter: str | None) -> Select[Any]:
    query = (
        select(
            subscribers.c.id.label("subscriber_id"),
            subscribers.c.channel,
            subscribers.c.address,
            subscribers.c.name,
            subscribers.c.language,
            subscriptions.c.newsletter,
            subscriptions.c.state,
            subscriptions.c.token,
            subscriptions.c.source,
            subscriptions.c.consent_at,
            subscriptions.c.activated_at,
            subscriptions.c.ended_at,
            subscriptions.c.end_reason,
            suppressions.c.reason.label("suppressed"),
        )
        .join(subscriptions, subscriptions.c.subscriber_id == subscribers.c.id)
        .outerjoin(
            suppressions,
            and_(
                suppressions.c.channel == subscribers.c.channel,
                suppressions.c.address == subscribers.c.address,
            ),
        )
    )
    return query if newsletter is None else query.where(subscriptions.c.newsletter == newsletter)


def subscription_of(row: Any) -> Subscription:
    values = dict(row._mapping)  # noqa: SLF001 - the documented way to a row's names
    return Subscription(**{**values, "state": SubscriptionState(values["state"])})
