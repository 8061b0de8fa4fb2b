"""What was heard from outside: events beside the deliveries, and what they prove about them."""

from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy import Connection, and_, func, select, tuple_, update

from distributor.errors import AWAITING
from distributor.ledger.rows import chunk_of, event_from, is_delivery
from distributor.ledger.tables import Tables
from distributor.ledger.values import RecordedEvent
from distributor.model import DeliveryId, DeliveryState, EventKind
from distributor.tables import chunks, deliveries, events, issues

#: A mail that one of these is said of was accepted, whatever we know.
PROOFS = frozenset(
    {
        EventKind.SENT,
        EventKind.BOUNCED,
        EventKind.DEFERRED,
        EventKind.DELIVERED,
        EventKind.AUTORESPONDED,
        EventKind.OPENED,
        EventKind.CLICKED,
        EventKind.COMPLAINED,
    }
)
#: What the report of an issue counts.
COUNTED = (EventKind.DELIVERED, EventKind.BOUNCED, EventKind.COMPLAINED, EventKind.UNSUBSCRIBED)
#: Issues that are looked at for proofs: about a month of a daily newsletter.
RECENT = 32


class News(Tables):
    """Events, read; and unconfirmed deliveries that they settle."""

    def heard(self, issue_id: int, kinds: Sequence[EventKind] = COUNTED) -> Mapping[EventKind, int]:
        """Of how many deliveries of an issue each kind of news was heard; what was not heard is not there."""
        query = (
            select(events.c.kind, func.count(func.distinct(events.c.seq)))
            .where(events.c.issue_id == issue_id, events.c.kind.in_(kinds))
            .group_by(events.c.kind)
        )
        with self.database.read() as connection:
            found = {row[0]: row[1] for row in connection.execute(query)}
        return {kind: found[kind] for kind in kinds if kind in found}

    def events(
        self,
        *,
        address: str | None = None,
        channel: str | None = None,
        newsletter: str | None = None,
        kinds: Iterable[EventKind] = (),
        issue_id: int | None = None,
        before: int | None = None,
        limit: int = 100,
    ) -> Sequence[RecordedEvent]:
        """The events, the newest first; `before` goes on behind the number of an earlier one."""
        query = select(events).order_by(events.c.id.desc()).limit(limit)
        wanted = list(kinds)
        if address is not None:
            query = query.where(events.c.address == address)
        if channel is not None:
            query = query.where(events.c.channel == channel)
        if newsletter is not None:
            query = query.where(events.c.newsletter == newsletter)
        if wanted:
            query = query.where(events.c.kind.in_(wanted))
        if issue_id is not None:
            query = query.where(events.c.issue_id == issue_id)
        if before is not None:
            query = query.where(events.c.id < before)
        with self.database.read() as connection:
            return [event_from(row) for row in connection.execute(query)]

    def prove_sent(self, identity: DeliveryId, who: str) -> bool:
        """An unconfirmed delivery was sent after all: somebody outside has news of it. Returns whether it was unconfirmed."""
        with self.database.write() as connection:
            # As a worker does: the chunk first, then its deliveries.
            connection.execute(
                select(chunks.c.id).where(chunk_of(identity.issue_id, identity.seq)).with_for_update()
            )
            changed = connection.execute(
                update(deliveries)
                .where(
                    *is_delivery(identity),
                    deliveries.c.resend == identity.resend,
                    deliveries.c.state == DeliveryState.UNCONFIRMED,
                    deliveries.c.code != AWAITING,
                )
                .values(
                    state=DeliveryState.SENT,
                    code="proven",
                    text=f"{who} has news of it",
                    updated_at=self.database.now(connection),
                )
            ).rowcount
            if changed:
                self._recount(connection, chunk_of(identity.issue_id, identity.seq))
        return bool(changed)

    def proven_late(self) -> Sequence[tuple[DeliveryId, str]]:
        """Deliveries that are unconfirmed although there is news of them, and who brought it: it came before the doubt."""
        newest = select(issues.c.id).order_by(issues.c.id.desc()).limit(RECENT)
        query = (
            select(deliveries.c.issue_id, deliveries.c.seq, deliveries.c.resend, func.min(events.c.provider))
            .select_from(chunks)
            .join(
                events,
                and_(events.c.issue_id == chunks.c.issue_id, events.c.seq.between(chunks.c.lo, chunks.c.hi)),
            )
            .join(
                deliveries,
                and_(deliveries.c.issue_id == events.c.issue_id, deliveries.c.seq == events.c.seq),
            )
            .where(
                chunks.c.unconfirmed > 0,
                chunks.c.issue_id.in_(newest.scalar_subquery()),
                deliveries.c.state == DeliveryState.UNCONFIRMED,
                deliveries.c.code != AWAITING,
                deliveries.c.first_try_at <= events.c.occurred_at,  # of this resend, not of one before
                events.c.kind.in_(PROOFS),
            )
            .group_by(deliveries.c.issue_id, deliveries.c.seq, deliveries.c.resend)
        )
        with self.database.read() as connection:
            return [(DeliveryId(*row[:3]), row[3]) for row in connection.execute(query)]

    def _heard_of(
        self, connection: Connection, keys: Sequence[tuple[int, int]]
    ) -> Mapping[tuple[int, int], Sequence[RecordedEvent]]:
        found: dict[tuple[int, int], list[RecordedEvent]] = {}
        query = select(events).where(
            events.c.issue_id.in_({issue for issue, _seq in keys}),
            tuple_(events.c.issue_id, events.c.seq).in_(list(keys)),
        )
        for row in connection.execute(query.order_by(events.c.occurred_at, events.c.id)) if keys else ():
            found.setdefault((row.issue_id, row.seq), []).append(event_from(row))
        return found
