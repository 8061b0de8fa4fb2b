"""Subscribers as a program sees them: an address with its subscriptions, page by page."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, and_, exists, select

from distributor.audience.describing import NOTHING, Describing, Description
from distributor.model import SubscriptionState
from distributor.tables import subscribers, subscriptions, suppressions


@dataclass(frozen=True, kw_only=True)
class SubscriptionRecord:
    """A subscription, without its token: that one opens a reader's pages."""

    newsletter: str
    state: SubscriptionState
    source: str
    consent_at: datetime
    activated_at: datetime | None
    ended_at: datetime | None
    end_reason: str | None
    tags: Sequence[str]
    attributes: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Record:
    """An address on a channel, and everything it subscribed to."""

    id: int
    channel: str
    address: str
    name: str
    language: str | None
    created_at: datetime
    suppressed: str | None
    subscriptions: Sequence[SubscriptionRecord]


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which records: every field that is set narrows them."""

    newsletter: str | None = None
    state: SubscriptionState | None = None
    channel: str | None = None
    address: str | None = None


class Records(Describing):
    """Reading many, or one."""

    def records(self, wanted: Wanted, *, after: int = 0, limit: int = 100) -> Sequence[Record]:
        """In order of their number, from behind `after`."""
        query = _subscribers(wanted).where(subscribers.c.id > after).order_by(subscribers.c.id).limit(limit)
        with self.database.read() as connection:
            rows = connection.execute(query).all()
            found = self._subscriptions(connection, [row.id for row in rows])
        return [_record(row, found.get(row.id, ())) for row in rows]

    def record(self, number: int) -> Record | None:
        """The subscriber with that number."""
        with self.database.read() as connection:
            row = connection.execute(_subscribers(Wanted()).where(subscribers.c.id == number)).first()
            found = self._subscriptions(connection, [number])
        return _record(row, found.get(number, ())) if row else None

    def token_of(self, number: int, newsletter: str) -> str | None:
        """The token of a subscription; for stories, never for an answer."""
        query = select(subscriptions.c.token).where(
            subscriptions.c.subscriber_id == number, subscriptions.c.newsletter == newsletter
        )
        with self.database.read() as connection:
            return connection.execute(query).scalar_one_or_none()

    def _subscriptions(
        self, connection: Connection, numbers: Collection[int]
    ) -> Mapping[int, list[SubscriptionRecord]]:
        query = (
            select(subscriptions)
            .where(subscriptions.c.subscriber_id.in_(numbers))
            .order_by(subscriptions.c.newsletter)
        )
        rows = connection.execute(query).all()
        described = self._descriptions(connection, [row.id for row in rows])
        found: dict[int, list[SubscriptionRecord]] = {}
        for row in rows:
            found.setdefault(row.subscriber_id, []).append(_subscription(row, described.get(row.id, NOTHING)))
        return found


def _subscribers(wanted: Wanted) -> Select[Any]:
    query = select(subscribers, suppressions.c.reason.label("suppressed")).outerjoin(
        suppressions,
        and_(
            suppressions.c.channel == subscribers.c.channel, suppressions.c.address == subscribers.c.address
        ),
    )
    if wanted.channel:
        query = query.where(subscribers.c.channel == wanted.channel)
    if wanted.address:
        query = query.where(subscribers.c.address == wanted.address)
    if wanted.newsletter or wanted.state:
        has = exists().where(subscriptions.c.subscriber_id == subscribers.c.id)
        if wanted.newsletter:
            has = has.where(subscriptions.c.newsletter == wanted.newsletter)
        if wanted.state:
            has = has.where(subscriptions.c.state == wanted.state)
        query = query.where(has)
    return query


def _record(row: Any, found: Sequence[SubscriptionRecord]) -> Record:
    return Record(
        id=row.id,
        channel=row.channel,
        address=row.address,
        name=row.name,
        language=row.language,
        created_at=row.created_at,
        suppressed=row.suppressed,
        subscriptions=found,
    )


def _subscription(row: Any, described: Description) -> SubscriptionRecord:
    return SubscriptionRecord(
        newsletter=row.newsletter,
        state=SubscriptionState(row.state),
        source=row.source,
        consent_at=row.consent_at,
        activated_at=row.activated_at,
        ended_at=row.ended_at,
        end_reason=row.end_reason,
        tags=described.tags,
        attributes=described.attributes,
    )
