"""Events into the database: the row and its effect in one transaction.

Every effect follows from the set of events alone, so that their order and their repetition are of no matter: reasons of
suppressions have ranks, failures are counted from all that is known, and an address is written to by one process at a
time.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any

from sqlalchemy import Connection, Row, and_, func, select

from distributor.audience import Audience, normalise
from distributor.channels.email.identity import delivery_of_message_id
from distributor.db import Database, insert_ignore
from distributor.errors import RequestRefused
from distributor.events.alarms import Alarms, Heard, Tell
from distributor.events.counting import Mail, Standing, gives_up
from distributor.ledger import PROOFS, Ledger
from distributor.model import (
    LETTER_MARK,
    DeliveryId,
    DeliveryState,
    Event,
    EventKind,
    Permanence,
    SuppressionReason,
)
from distributor.tables import deliveries, events, issues, letters, subscribers

log = logging.getLogger(__name__)

#: Kept as rows. That a mail was queued is no news, and who opened what is not ours to know.
KEPT = frozenset(EventKind) - {EventKind.QUEUED, EventKind.SENT, EventKind.OPENED, EventKind.CLICKED}
#: Kinds that a count of failures depends on.
COUNTED = frozenset({EventKind.BOUNCED, EventKind.DEFERRED, EventKind.DELIVERED})
#: Addresses that are written to in one transaction.
BATCH = 50
#: Deliveries of an address that are looked through for a provider's id, and for failures in a row.
RECENT = 100
#: Events of an address that are looked through.
MOST_EVENTS = 500


class Events:
    """Records what providers and bounces say; `tell` is for the operator."""

    def __init__(
        self, database: Database, ledger: Ledger, audience: Audience, tell: Tell = lambda *_: None
    ) -> None:
        self.database, self.ledger, self.audience = database, ledger, audience
        self.alarms = Alarms(ledger, tell)

    def record(self, found: Sequence[Event]) -> int:
        """Records events with their effects; returns how many were new. Raises ServiceDown.

        One that speaks of a delivery that is not there (its bounce is genuine, and the delivery forgotten) has none.
        """
        grouped = groupby(sorted(self._addressed(found), key=_who), _who)
        by_address = [(who, [event for _address, event in group]) for who, group in grouped]
        return sum(
            self._record(by_address[start : start + BATCH]) for start in range(0, len(by_address), BATCH)
        )

    def _record(self, batch: Sequence[tuple[tuple[str, str], Sequence[Event]]]) -> int:
        """A transaction; then, each in one of its own, what it proves: that waits for the worker that holds the chunk."""
        news: list[Heard] = []
        proven: list[tuple[DeliveryId, str]] = []
        with self.database.write() as connection:
            for (channel, address), told in batch:
                known = _Address(self.database, self.audience, connection, channel, address)
                news += known.record(told)
                proven += known.proven(told)
        for identity, who in proven:
            self.ledger.prove_sent(identity, who)
        self.alarms.look(news)
        return len(news)

    def _addressed(self, found: Iterable[Event]) -> Iterable[tuple[str, Event]]:
        """Each event with the address it is about, in our spelling: a bounce is about its delivery's, whoever it names."""
        for event in found:
            address = self._address_of(event.delivery) if event.delivery else _spelled(event)
            if address is None:
                log.warning("event_of_nobody provider=%s id=%s", event.provider, event.event_id)
            else:
                yield address, event

    def _address_of(self, identity: DeliveryId) -> str | None:
        if identity.issue_id:
            query = select(deliveries.c.address).where(
                deliveries.c.issue_id == identity.issue_id, deliveries.c.seq == identity.seq
            )
        elif identity.resend == LETTER_MARK:
            to = select(letters.c.subscriber_id).where(letters.c.id == identity.seq)
            query = select(subscribers.c.address).where(subscribers.c.id == to.scalar_subquery())
        else:  # a test send, a notice to the operator
            return None
        with self.database.read() as connection:
            return connection.execute(query).scalar_one_or_none()


class _Address:
    """One address within a transaction."""

    def __init__(
        self, database: Database, audience: Audience, connection: Connection, channel: str, address: str
    ) -> None:
        self.database, self.audience, self.connection = database, audience, connection
        self.channel, self.address = channel, address
        self._found: dict[str, Row[Any] | None] = {}

    def record(self, told: Sequence[Event]) -> Sequence[Heard]:
        """Those that are new."""
        if self.audience.is_erased(self.connection, self.channel, self.address):
            return []
        self._wait_for_our_turn()
        new = [event for event in told if event.kind in KEPT and self._insert(event)]
        for event in new:
            self._take_effect(event)
            self._announce(event)
        if any(event.kind in COUNTED for event in new):
            self._count_failures()
        return [Heard(event, self.address, self._issue_of(event)) for event in new]

    def _issue_of(self, event: Event) -> int | None:
        delivery = self.delivery(event)
        return delivery.issue_id if delivery else None

    def proven(self, told: Iterable[Event]) -> Iterator[tuple[DeliveryId, str]]:
        """Deliveries that were unconfirmed until now, and who has news of them. What is missed here the sweep finds."""
        for event in told:
            row = self.delivery(event) if event.kind in PROOFS else None
            if row is None or row.state != DeliveryState.UNCONFIRMED:
                continue
            identity = _named(event)
            if identity is None or identity.resend == row.resend:
                yield DeliveryId(row.issue_id, row.seq, row.resend), event.provider

    def delivery(self, event: Event) -> Row[Any] | None:
        """The delivery to this address that an event speaks of."""
        if event.event_id not in self._found:
            self._found[event.event_id] = self._find(event)
        return self._found[event.event_id]

    def _find(self, event: Event) -> Row[Any] | None:
        if identity := _named(event):
            which = and_(deliveries.c.issue_id == identity.issue_id, deliveries.c.seq == identity.seq)
            return self.connection.execute(self._deliveries().where(which)).first()
        if not event.receipt:
            return None
        newest = self._deliveries().order_by(deliveries.c.issue_id.desc()).limit(RECENT)
        return next((row for row in self.connection.execute(newest) if event.receipt in row.receipts), None)

    def _wait_for_our_turn(self) -> None:
        """Two processes that count at once would each miss what the other writes. SQLite has one writer anyway."""
        if not self.database.sqlite:
            key = func.hashtextextended(f"{self.channel} {self.address}", 0)
            self.connection.execute(select(func.pg_advisory_xact_lock(key)))

    def _insert(self, event: Event) -> bool:
        delivery = self.delivery(event)
        row = {
            "provider": event.provider,
            "provider_event_id": event.event_id,
            "kind": event.kind,
            "channel": self.channel,
            "address": self.address,
            "newsletter": delivery.newsletter if delivery else event.newsletter,
            "issue_id": delivery.issue_id if delivery else None,
            "seq": delivery.seq if delivery else None,
            "occurred_at": event.occurred_at,
            "received_at": self.database.now(self.connection),
            "detail": event.detail,
            "permanence": event.permanence,
            "code": event.code,
        }
        return bool(insert_ignore(self.database, events, [row], self.connection))

    def _take_effect(self, event: Event) -> None:
        if event.kind is EventKind.BOUNCED and event.permanence is Permanence.PERMANENT:
            self._suppress(SuppressionReason.BOUNCED, event.detail)
        if event.kind is EventKind.REJECTED and event.mirrors:
            self._suppress(event.mirrors, f"on the list of {event.provider}: {event.detail}")
        if event.kind is EventKind.COMPLAINED:
            self._suppress(SuppressionReason.COMPLAINED, event.detail)
        if event.kind is EventKind.COMPLAINED or event.mirrors is SuppressionReason.COMPLAINED:
            self._end_subscriptions(f"complained, says {event.provider}")
        if event.kind is EventKind.UNSUBSCRIBED:
            delivery = self.delivery(event)
            self._end_subscriptions(
                f"left, says {event.provider}",
                newsletter=delivery.newsletter if delivery else event.newsletter,
                began_by=event.occurred_at,
            )

    def _announce(self, event: Event) -> None:
        """Tells the endpoints of the configuration what became of a delivery."""
        delivery = self.delivery(event) if self.audience.webhooks.wants(f"delivery.{event.kind}") else None
        if delivery is None:
            return
        data = {
            "issue": delivery.issue_id,
            "delivery": str(DeliveryId(delivery.issue_id, delivery.seq, delivery.resend)),
            "channel": self.channel,
            "address": self.address,
            "provider": event.provider,
            "permanence": event.permanence,
            "code": event.code,
            "text": event.detail,
        }
        name, now = f"{event.provider} {event.event_id}", self.database.now(self.connection)
        self.audience.webhooks.add(
            self.connection, f"delivery.{event.kind}", name, delivery.newsletter, data, now
        )

    def _suppress(self, reason: SuppressionReason, note: str) -> None:
        self.audience.suppress_within(self.connection, self.channel, self.address, reason, note)

    def _end_subscriptions(
        self, why: str, *, newsletter: str | None = None, began_by: datetime | None = None
    ) -> None:
        self.audience.end_all(
            self.connection, self.channel, self.address, why, newsletter=newsletter, began_by=began_by
        )

    def _count_failures(self) -> None:
        """Suppresses the address, or takes that back when a delivery turns out to have come between the failures."""
        told = self._told()
        if not any(row.permanence == Permanence.TEMPORARY for row in told):
            return  # nearly always: the address takes its mail
        if gives_up(self._mails(told)):
            self._suppress(SuppressionReason.UNDELIVERABLE, "refused for now, too often")
            return
        self.audience.lift_counted(self.connection, self.channel, self.address)

    def _mails(self, events_told: Sequence[Row[Any]]) -> Sequence[Mail]:
        """What is known of the mails to this address since a person last said that it works."""
        heard: dict[object, list[Row[Any]]] = {}
        for row in events_told:
            # What belongs to no delivery of ours counts once a day.
            key = (row.issue_id, row.seq) if row.issue_id else row.occurred_at.date()
            heard.setdefault(key, []).append(row)
        mails = []
        for row in self.connection.execute(self._handed_over()):
            told = heard.pop((row.issue_id, row.seq), [])
            if at := row.first_try_at or (told[0].occurred_at if told else None):
                mails.append(Mail(at, _standing(told)))
        # And those that are not among them: too old, or not yet written down as sent.
        return mails + [Mail(told[0].occurred_at, _standing(told)) for told in heard.values()]

    def _told(self) -> Sequence[Row[Any]]:
        ours = and_(events.c.address == self.address, events.c.channel == self.channel)
        lifted = select(events.c.occurred_at).where(ours, events.c.kind == EventKind.UNSUPPRESSED)
        since = self.connection.execute(lifted.order_by(events.c.occurred_at.desc()).limit(1)).scalar()
        query = select(events).where(ours, events.c.kind.in_(COUNTED))
        if since is not None:
            query = query.where(events.c.occurred_at > since)
        newest = self.connection.execute(query.order_by(events.c.occurred_at.desc()).limit(MOST_EVENTS)).all()
        # Of the same moment, the delivery is the last word.
        return sorted(newest, key=lambda row: (row.occurred_at, row.kind == EventKind.DELIVERED))

    def _handed_over(self) -> Any:
        states = (DeliveryState.SENT, DeliveryState.UNCONFIRMED)
        newest = self._deliveries().where(deliveries.c.state.in_(states))
        return newest.order_by(deliveries.c.issue_id.desc()).limit(RECENT)

    def _deliveries(self) -> Any:
        return (
            select(
                deliveries.c.issue_id,
                deliveries.c.seq,
                deliveries.c.resend,
                deliveries.c.state,
                deliveries.c.receipts,
                deliveries.c.first_try_at,
                issues.c.newsletter,
            )
            .join(issues, issues.c.id == deliveries.c.issue_id)
            .where(deliveries.c.address == self.address, deliveries.c.channel == self.channel)
        )


def _who(item: tuple[str, Event]) -> tuple[str, str]:
    address, event = item
    return event.channel, address


def _named(event: Event) -> DeliveryId | None:
    return event.delivery or delivery_of_message_id(event.message_id)


def _spelled(event: Event) -> str | None:
    try:
        return normalise(event.channel, event.address)
    except RequestRefused:
        return event.address.lower() or None


def _standing(rows: Sequence[Row[Any]]) -> Standing:
    """By the last word about a mail; a refusal for policy is none about the address."""
    words = [row for row in rows if row.permanence != Permanence.POLICY]
    if not words:
        return Standing.SILENT
    last = words[-1]
    if last.kind == EventKind.DELIVERED:
        return Standing.DELIVERED
    return Standing.FAILED if last.permanence == Permanence.TEMPORARY else Standing.SILENT
