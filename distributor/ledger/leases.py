"""Leases: a worker takes a chunk, commits its intent, writes how it ended; a successor takes over what was lost.

What a worker writes is fenced by its lease: `begin` and `finish` raise LeaseLost when somebody else holds the chunk.
"""

import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    Connection,
    Select,
    Table,
    and_,
    case,
    exists,
    func,
    insert,
    null,
    or_,
    select,
    update,
)

from distributor.db import (
    attempts,
    channel_stops,
    chunks,
    deliveries,
    insert_ignore,
    issues,
    subscribers,
    subscriptions,
    suppressions,
)
from distributor.ledger.rows import (
    as_utc,
    attempt_row,
    chunk_from,
    delivery_columns,
    delivery_from,
    is_delivery,
)
from distributor.ledger.tables import Tables
from distributor.ledger.values import (
    LeaseLost,
    Postponed,
)
from distributor.model import (
    Chunk,
    Delivery,
    DeliveryState,
    IssueState,
    Outcome,
    SkipReason,
    SubscriptionState,
)

LEASE_LOST_TEXT = "the worker that held it stopped answering; it may have gone"


class Leases(Tables):
    """Chunks in the hands of workers."""

    def due_channels(self) -> Mapping[str, int]:
        """Channel → chunks that a worker could take now."""
        with self.database.read() as connection:
            now = self.database.now(connection)
            rows = connection.execute(
                select(chunks.c.channel, func.count())
                .join(issues, issues.c.id == chunks.c.issue_id)
                .where(
                    ~_stopped(now),
                    chunks.c.due_at <= now,
                    chunks.c.lease_token.is_(None),
                    issues.c.state.in_([IssueState.OPENING, IssueState.SENDING]),
                    issues.c.paused.is_(False),
                    issues.c.expires_at > now,
                )
                .group_by(chunks.c.channel)
            )
            return {row[0]: row[1] for row in rows}

    def lease(self, channel: str, owner: str, duration: timedelta) -> Chunk | None:
        """The chunk that has been due the longest, ours until the lease runs out; None when nothing is due."""
        with self.database.write() as connection:
            now = self.database.now(connection)
            due = (
                select(chunks.c.id)
                .join(issues, issues.c.id == chunks.c.issue_id)
                .where(
                    chunks.c.channel == channel,
                    ~_stopped(now),
                    chunks.c.due_at <= now,
                    chunks.c.lease_token.is_(None),
                    issues.c.state.in_([IssueState.OPENING, IssueState.SENDING]),
                    issues.c.paused.is_(False),
                    issues.c.expires_at > now,
                )
                .order_by(chunks.c.due_at, chunks.c.id)
                .limit(1)
                .with_for_update(skip_locked=True, of=chunks)
            )
            row = connection.execute(
                update(chunks)
                .where(chunks.c.id == due.scalar_subquery())
                .values(lease_token=secrets.token_hex(8), lease_until=now + duration, lease_owner=owner)
                .returning(*chunks.c)
            ).first()
        return chunk_from(row) if row else None

    def begin(self, chunk: Chunk, size: int, duration: timedelta) -> Sequence[Delivery]:
        """Commits the intent to send up to `size` due deliveries of a chunk, and renews the lease.

        Those who left or are suppressed by now are skipped in the same transaction and are not returned. Empty when
        nothing in the chunk is due. Raises LeaseLost.
        """
        while True:
            going, skipped = self._begin(chunk, size, duration)
            if going or not skipped:
                return going

    def _begin(
        self, chunk: Chunk, size: int, duration: timedelta
    ) -> tuple[Sequence[Delivery], Sequence[Delivery]]:
        """(those to send, those skipped)."""
        with self.database.write() as connection:
            now = self.database.now(connection)
            self._fence(connection, chunk, chunks.c.lease_until > now)
            stopped = connection.execute(
                select(issues.c.id).where(
                    issues.c.id == chunk.issue_id,
                    or_(issues.c.paused, issues.c.state.not_in([IssueState.OPENING, IssueState.SENDING])),
                )
            ).first()
            if stopped:
                return (), ()
            found = [delivery_from(row) for row in connection.execute(_due_rows(chunk, now, size))]
            skipped = [delivery for delivery in found if delivery.skip]
            going = [delivery for delivery in found if not delivery.skip]
            for delivery in skipped:
                self._set(
                    connection, delivery, state=DeliveryState.SKIPPED, reason=delivery.skip, updated_at=now
                )
            if going:
                connection.execute(
                    update(deliveries)
                    .where(
                        deliveries.c.issue_id == chunk.issue_id,
                        deliveries.c.seq.in_([delivery.identity.seq for delivery in going]),
                    )
                    .values(state=DeliveryState.SENDING, updated_at=now)
                )
            self._move(
                connection,
                chunk.id,
                {"pending": -len(found), "sending": len(going), "skipped": len(skipped)},
                lease_until=now + duration,
            )
        return going, skipped

    def finish(
        self, chunk: Chunk, outcomes: Sequence[Outcome], unused: Sequence[Postponed], worker: str
    ) -> None:
        """Writes how a slice ended: states, attempts, suppressions, counters. `unused` go back untried.

        Raises LeaseLost when the chunk was taken back. A lease that merely ran out (the database was away for long)
        does not matter here: while the token stands, nobody else has touched the rows.
        """
        with self.database.write() as connection:
            now = self.database.now(connection)
            self._fence(connection, chunk)
            if not self._still_sending(connection, chunk, outcomes, unused):
                return  # written before: the commit's answer had been lost
            for outcome in outcomes:
                self._settle(connection, outcome, now)
            for postponed in unused:
                self._set(
                    connection, postponed.delivery, state=DeliveryState.PENDING, due_at=postponed.due_at
                )
            self._log(connection, outcomes, worker)
            self._suppress(connection, chunk.channel, outcomes, now)
            moved = {"sending": -len(outcomes) - len(unused), "pending": len(unused)}
            for outcome in outcomes:
                moved[outcome.state] = moved.get(outcome.state, 0) + 1
            self._move(connection, chunk.id, moved)

    def _still_sending(
        self, connection: Connection, chunk: Chunk, outcomes: Sequence[Outcome], unused: Sequence[Postponed]
    ) -> bool:
        mine = [delivery.identity.seq for delivery in _deliveries(outcomes, unused)]
        query = select(func.count()).where(
            deliveries.c.issue_id == chunk.issue_id,
            deliveries.c.seq.in_(mine),
            deliveries.c.state == DeliveryState.SENDING,
        )
        return bool(connection.execute(query).scalar_one())

    def settle_late(self, outcomes: Sequence[Outcome], worker: str) -> int:
        """What a worker knows after it lost its lease: proof turns an unconfirmed delivery into a sent one."""
        proofs = [outcome for outcome in outcomes if outcome.state is DeliveryState.SENT]
        if not proofs:
            return 0
        settled, issue_id = 0, proofs[0].delivery.identity.issue_id
        with self.database.write() as connection:
            self._lock(connection, issue_id)
            now = self.database.now(connection)
            for outcome in proofs:
                identity = outcome.delivery.identity
                settled += connection.execute(
                    update(deliveries)
                    .where(
                        *is_delivery(identity),
                        deliveries.c.state == DeliveryState.UNCONFIRMED,
                        deliveries.c.resend == identity.resend,
                    )
                    .values(
                        state=DeliveryState.SENT,
                        parts_sent=outcome.parts_sent,
                        receipts=list(outcome.receipts),
                        code=outcome.code,
                        text=f"{outcome.text} (answer written late, by {worker})",
                        updated_at=now,
                    )
                ).rowcount
            self._recount(connection, chunks.c.issue_id == issue_id)
        return settled

    def release(self, chunk: Chunk, not_before: datetime | None = None) -> None:
        """Gives a chunk back: due again when its next delivery is, never when nothing is left."""
        with self.database.write() as connection:
            now = self.database.now(connection)
            try:
                # Locked before it is looked at: a resend that commits in between would be overlooked for good.
                self._fence(connection, chunk)
            except LeaseLost:
                return
            next_due = connection.execute(
                select(func.min(func.coalesce(deliveries.c.due_at, now))).where(
                    deliveries.c.issue_id == chunk.issue_id,
                    deliveries.c.seq.between(chunk.lo, chunk.hi),
                    deliveries.c.state == DeliveryState.PENDING,
                )
            ).scalar()
            # SQLite hands MIN over as text; the column's type reads it back.
            due = as_utc(next_due)
            connection.execute(
                update(chunks)
                .where(chunks.c.id == chunk.id, chunks.c.lease_token == chunk.token)
                .values(
                    due_at=max(due, not_before) if due and not_before else due,
                    lease_token=None,
                    lease_until=None,
                    lease_owner=None,
                )
            )

    def recover_leases(self, resend: Mapping[str, bool]) -> int:
        """Takes back the chunks of workers that stopped answering; returns how many.

        What they had in hand is unconfirmed, or pending again on channels whose policy is to resend.
        """
        with self.database.write() as connection:
            now = self.database.now(connection)
            lost = connection.execute(
                select(chunks).where(chunks.c.lease_until <= now).with_for_update(skip_locked=True)
            ).all()
            for row in lost:
                self._recover(connection, row, now, again=resend.get(row.channel, False))
            return len(lost)

    def _recover(self, connection: Connection, row: Any, now: datetime, *, again: bool) -> None:
        in_doubt = and_(
            deliveries.c.issue_id == row.issue_id,
            deliveries.c.seq.between(row.lo, row.hi),
            deliveries.c.state == DeliveryState.SENDING,
        )
        found = [delivery_from(item) for item in connection.execute(delivery_columns().where(in_doubt))]
        state = DeliveryState.PENDING if again else DeliveryState.UNCONFIRMED
        outcomes = [
            Outcome(
                delivery=delivery,
                state=state,
                started_at=now,
                duration_ms=0,
                parts_sent=delivery.parts_sent,
                receipts=delivery.receipts,
                code="lease",
                text=LEASE_LOST_TEXT,
                retry_at=now if again else None,
            )
            for delivery in found
        ]
        for outcome in outcomes:
            self._settle(connection, outcome, now)
        self._log(connection, outcomes, row.lease_owner or "")
        connection.execute(
            update(chunks)
            .where(chunks.c.id == row.id)
            .values(lease_token=None, lease_until=None, lease_owner=None, due_at=now)
        )
        self._recount(connection, chunks.c.id == row.id)

    def _fence(self, connection: Connection, chunk: Chunk, *also: Any) -> None:
        """The row is locked and still ours, or LeaseLost.

        Locked and not touched: a row that one transaction updates twice makes PostgreSQL see a deadlock with somebody
        who waits for its lock meanwhile.
        """
        held = connection.execute(
            select(chunks.c.id)
            .where(chunks.c.id == chunk.id, chunks.c.lease_token == chunk.token, *also)
            .with_for_update()
        ).first()
        if held is None:
            raise LeaseLost(f"chunk {chunk.id} of issue {chunk.issue_id} has another holder by now")

    def _settle(self, connection: Connection, outcome: Outcome, now: datetime) -> None:
        delivery = outcome.delivery
        values: dict[str, Any] = {
            "state": outcome.state,
            "reason": outcome.reason,
            "tries": delivery.tries + (1 if outcome.counts else 0),
            "attempts": deliveries.c.attempts + 1,
            "parts_sent": outcome.parts_sent,
            "receipts": list(outcome.receipts),
            "code": outcome.code,
            "text": outcome.text,
            "due_at": outcome.retry_at,
            "first_try_at": delivery.first_try_at or outcome.started_at,
            "updated_at": now,
        }
        self._set(connection, delivery, **values)
        if outcome.new_address:
            self._relocate(connection, delivery, outcome.new_address)

    def _relocate(self, connection: Connection, delivery: Delivery, address: str) -> None:
        """The recipient lives elsewhere now. A place that is known already keeps its own row, and so does this one."""
        channel, issue_id = delivery.recipient.channel, delivery.identity.issue_id
        moving: Sequence[tuple[Table, Sequence[Any], Sequence[Any]]] = (
            (subscribers, [subscribers.c.id == delivery.recipient.subscriber_id], []),
            (deliveries, list(is_delivery(delivery.identity)), [deliveries.c.issue_id == issue_id]),
        )
        for table, which, within in moving:
            there = select(table.c.address).where(
                table.c.channel == channel, table.c.address == address, *within
            )
            if not connection.execute(there).first():
                connection.execute(update(table).where(*which).values(address=address))

    def _set(self, connection: Connection, delivery: Delivery, **values: Any) -> None:
        connection.execute(update(deliveries).where(*is_delivery(delivery.identity)).values(**values))

    def _log(self, connection: Connection, outcomes: Sequence[Outcome], worker: str) -> None:
        if not outcomes:
            return
        issue_id = outcomes[0].delivery.identity.issue_id
        wanted = [outcome.delivery.identity.seq for outcome in outcomes]
        query = select(deliveries.c.seq, deliveries.c.attempts).where(
            deliveries.c.issue_id == issue_id, deliveries.c.seq.in_(wanted)
        )
        numbers = {row.seq: row.attempts for row in connection.execute(query)}
        connection.execute(
            insert(attempts),
            [attempt_row(outcome, numbers[outcome.delivery.identity.seq], worker) for outcome in outcomes],
        )

    def _suppress(
        self, connection: Connection, channel: str, outcomes: Sequence[Outcome], now: datetime
    ) -> None:
        rows = [
            {
                "channel": channel,
                "address": outcome.delivery.recipient.address,
                "reason": outcome.suppress,
                "note": f"{outcome.code} {outcome.text}".strip(),
                "created_at": now,
            }
            for outcome in outcomes
            if outcome.suppress and outcome.delivery.recipient.subscriber_id
        ]
        insert_ignore(self.database, suppressions, rows, connection)

    def _move(self, connection: Connection, chunk_id: int, moved: Mapping[str, int], **more: Any) -> None:
        values = {name: chunks.c[name] + by for name, by in moved.items() if by} | more
        if values:
            connection.execute(update(chunks).where(chunks.c.id == chunk_id).values(**values))


def _deliveries(outcomes: Sequence[Outcome], unused: Sequence[Postponed]) -> list[Delivery]:
    return [outcome.delivery for outcome in outcomes] + [postponed.delivery for postponed in unused]


def _stopped(now: datetime) -> Any:
    """Whether the chunk's channel is not to be used now: no worker is woken for what it may not send."""
    return exists().where(channel_stops.c.channel == chunks.c.channel, channel_stops.c.until > now)


def _due_rows(chunk: Chunk, now: datetime, size: int) -> Select[Any]:
    """The next due deliveries of a chunk, each with the reason to skip it, if there is one by now."""
    left = and_(
        deliveries.c.subscriber_id.is_not(None),
        or_(subscriptions.c.state.is_(None), subscriptions.c.state != SubscriptionState.ACTIVE),
    )
    skip = case(
        (suppressions.c.id.is_not(None), SkipReason.SUPPRESSED), (left, SkipReason.UNSUBSCRIBED), else_=null()
    ).label("skip")
    return (
        delivery_columns()
        .add_columns(skip, subscriptions.c.token)
        .select_from(
            deliveries.join(issues, issues.c.id == deliveries.c.issue_id)
            .outerjoin(
                subscriptions,
                and_(
                    subscriptions.c.subscriber_id == deliveries.c.subscriber_id,
                    subscriptions.c.newsletter == issues.c.newsletter,
                ),
            )
            .outerjoin(
                suppressions,
                and_(
                    suppressions.c.channel == deliveries.c.channel,
                    suppressions.c.address == deliveries.c.address,
                    deliveries.c.subscriber_id.is_not(None),
                ),
            )
        )
        .where(
            deliveries.c.issue_id == chunk.issue_id,
            deliveries.c.seq.between(chunk.lo, chunk.hi),
            deliveries.c.state == DeliveryState.PENDING,
            or_(deliveries.c.due_at.is_(None), deliveries.c.due_at <= now),
        )
        .order_by(deliveries.c.seq)
        .limit(size)
    )
