"""Leases: a worker takes a chunk and gives it back; a successor takes over what was lost.

Leases use the database's clock. What a worker writes is fenced by its lease (slices.py).
"""

import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    Connection,
    and_,
    case,
    exists,
    func,
    or_,
    select,
    update,
)

from distributor.journal import Record
from distributor.ledger.rows import as_utc, chunk_from, chunk_of, delivery_columns, delivery_from, is_delivery
from distributor.ledger.slices import Slices
from distributor.ledger.values import Lapsed, LeaseLost
from distributor.model import Chunk, Delivery, DeliveryState, IssueState, Outcome
from distributor.tables import channel_stops, chunks, deliveries, issues

LEASE_LOST_TEXT = "the worker that held it stopped answering; it may have gone"
FOUND_TEXT = "found in the journal of a worker that stopped answering"
#: States in which the chunks of an issue are worked on.
GOING = (IssueState.OPENING, IssueState.SENDING)


class Leases(Slices):
    """Chunks in the hands of workers."""

    def due_channels(self) -> Mapping[str, int]:
        """Channel → chunks that a worker could take now."""
        with self.database.read() as connection:
            rows = connection.execute(
                select(chunks.c.channel, func.count())
                .join(issues, issues.c.id == chunks.c.issue_id)
                .where(*_due(self.database.now(connection)))
                .group_by(chunks.c.channel)
            )
            return {row[0]: row[1] for row in rows}

    def due_in(self, channel: str) -> float | None:
        """Seconds until a chunk of the channel is due that nobody holds; None when none will be by itself."""
        with self.database.read() as connection:
            now = self.database.now(connection)
            soonest = as_utc(
                connection.execute(
                    select(func.min(chunks.c.due_at))
                    .join(issues, issues.c.id == chunks.c.issue_id)
                    .where(chunks.c.channel == channel, *_free(now))
                ).scalar()
            )
        return None if soonest is None else max(0.0, (soonest - now).total_seconds())

    def lease(
        self, channel: str, owner: str, duration: timedelta, *, host: str | None = None
    ) -> Chunk | None:
        """A chunk, ours until the lease runs out; None when nothing is due.

        A pace group that nobody is at comes first, then what has been due the longest: a group with a limit takes the
        longest, and in its turn among many chunks of the others it would not use its own rate.

        `host` names the folder of journals that will know what we have in hand.
        """
        with self.database.write() as connection:
            now = self.database.now(connection)
            held = chunks.alias("held")
            in_hand = select(held.c.pace_group).where(
                held.c.channel == channel, held.c.due_at.is_not(None), held.c.lease_token.is_not(None)
            )
            due = (
                select(chunks.c.id)
                .join(issues, issues.c.id == chunks.c.issue_id)
                .where(chunks.c.channel == channel, *_due(now))
                .order_by(case((chunks.c.pace_group.in_(in_hand), 1), else_=0), chunks.c.due_at, chunks.c.id)
                .limit(1)
                .with_for_update(skip_locked=True, of=chunks)
            )
            row = connection.execute(
                update(chunks)
                .where(chunks.c.id == due.scalar_subquery())
                .values(
                    lease_token=secrets.token_hex(8),
                    lease_until=now + duration,
                    lease_owner=owner,
                    lease_host=host,
                )
                .returning(*chunks.c)
            ).first()
        return chunk_from(row) if row else None

    def renew(self, tokens: Iterable[str], duration: timedelta) -> set[str]:
        """Renews leases that have not run out; returns the tokens of those that are still ours."""
        with self.database.write() as connection:
            now = self.database.now(connection)
            renewed = connection.execute(
                update(chunks)
                .where(chunks.c.lease_token.in_(list(tokens)), chunks.c.lease_until > now)
                .values(lease_until=now + duration)
                .returning(chunks.c.lease_token)
            )
            return {row.lease_token for row in renewed}

    def release(self, chunk: Chunk, due_in: timedelta | None = None) -> None:
        """Gives a chunk back: due again when its next delivery is (not before `due_in`), never when nothing is left.

        What is still marked as being sent goes back untried: its holder has nothing in hand any more, it only never
        learned that its last intent was committed.
        """
        with self.database.write() as connection:
            try:
                # Locked before it is looked at: a resend that commits in between would be overlooked for good.
                now, _going = self._fence(connection, chunk)
            except LeaseLost:
                return
            values: dict[str, Any] = {**_NO_LEASE, "due_at": None}
            held = connection.execute(
                select(chunks.c.pending, chunks.c.sending).where(chunks.c.id == chunk.id)
            ).one()
            if held.sending:
                connection.execute(
                    update(deliveries)
                    .where(*_in_hand(chunk))
                    .values(state=DeliveryState.PENDING, due_at=None)
                )
                values |= {"sending": 0, "pending": held.pending + held.sending}
            if held.pending or held.sending:
                next_due = as_utc(connection.execute(_next_due(chunk, now)).scalar())
                earliest = now + due_in if due_in else next_due
                values["due_at"] = max(next_due, earliest) if next_due and earliest else next_due
            connection.execute(update(chunks).where(chunks.c.id == chunk.id).values(**values))

    # ── taking over ──────────────────────────────────────────────────────────────────────────────────────────────

    def lapsed(self, host: str | None, ended: Collection[str], patience: timedelta) -> Sequence[Lapsed]:
        """Leases that ran out, and those of the `ended` tokens: their process is known to be gone.

        Leases of another host's journals are left to that host's workers until they are older by `patience`.
        """
        with self.database.read() as connection:
            now = self.database.now(connection)
            foreign = and_(chunks.c.lease_host.is_not(None), chunks.c.lease_host != (host or ""))
            over = or_(
                and_(chunks.c.lease_until <= now, ~foreign),
                chunks.c.lease_until <= now - patience,
                chunks.c.lease_token.in_(list(ended)),
            )
            rows = connection.execute(select(chunks).where(chunks.c.lease_token.is_not(None), over)).all()
        return [Lapsed(chunk_from(row), row.lease_host, row.lease_token in ended) for row in rows]

    def recover(
        self, lapsed: Lapsed, journal: Mapping[int, Record] | None, *, resend: bool
    ) -> Sequence[Outcome]:
        """Takes a chunk back, unless its holder has come back to life meanwhile; returns what became of what it had in hand.

        `journal`: number of a delivery → what its holder noted of it. Not noted: it was not begun, and goes back
        untried. Begun: it is unconfirmed, or pending again when the policy is to resend. Ended: as it ended.
        Without a journal all of it is in doubt.
        """
        chunk = lapsed.chunk
        with self.database.write() as connection:
            now = self.database.now(connection)
            row = connection.execute(_LAPSED.where(chunks.c.id == chunk.id)).first()
            if row is None:
                return ()  # its holder, or another sweeper, is at it this moment
            if row.lease_token != chunk.token or (row.lease_until > now and not lapsed.ended):
                return ()
            found = [
                delivery_from(item) for item in connection.execute(delivery_columns().where(*_in_hand(chunk)))
            ]
            outcomes = [
                outcome
                for delivery in found
                if (outcome := _reconstruct(delivery, journal, now, resend=resend))
            ]
            self._settle(connection, chunk.issue_id, outcomes, row.lease_owner or "", now)
            self._suppress(connection, chunk.channel, outcomes, now)
            connection.execute(update(deliveries).where(*_in_hand(chunk)).values(state=DeliveryState.PENDING))
            connection.execute(
                update(chunks)
                .where(chunks.c.id == chunk.id)
                .values(
                    **_NO_LEASE, due_at=now, **self._counted(connection, chunk.issue_id, chunk.lo, chunk.hi)
                )
            )
        return outcomes

    def leased(self, tokens: Iterable[str]) -> set[str]:
        """Those of the tokens that still hold a chunk."""
        with self.database.read() as connection:
            rows = connection.execute(
                select(chunks.c.lease_token).where(chunks.c.lease_token.in_(list(tokens)))
            )
            return {row.lease_token for row in rows}

    def settle_late(self, records: Iterable[Record], worker: str) -> int:
        """Proof that comes after the lease was lost: an unconfirmed delivery was sent, or was refused. Returns how many."""
        proofs = [record for record in records if record.ended and record.ended["state"] in PROVED]
        settled = 0
        for issue_id in {record.identity.issue_id for record in proofs}:
            with self.database.write() as connection:
                self._lock(connection, issue_id)
                mine = [record for record in proofs if record.identity.issue_id == issue_id]
                settled += sum(self._prove(connection, record, worker) for record in mine)
        return settled

    def _prove(self, connection: Connection, record: Record, worker: str) -> int:
        identity, ended = record.identity, record.ended or {}
        proved = connection.execute(
            update(deliveries)
            .where(
                *is_delivery(identity),
                deliveries.c.resend == identity.resend,
                deliveries.c.state == DeliveryState.UNCONFIRMED,
            )
            .values(
                state=ended["state"],
                parts_sent=ended["parts_sent"],
                receipts=list(ended.get("receipts", ())),
                code=ended.get("code", ""),
                text=f"{ended.get('text', '')} (answer written late, by {worker})",
                updated_at=self.database.now(connection),
            )
        ).rowcount
        if proved:
            self._recount(connection, chunk_of(identity.issue_id, identity.seq))
        return proved


PROVED = (DeliveryState.SENT, DeliveryState.FAILED)
_NO_LEASE: Mapping[str, None] = dict.fromkeys(("lease_token", "lease_until", "lease_owner", "lease_host"))
_LAPSED = select(chunks.c.lease_token, chunks.c.lease_until, chunks.c.lease_owner).with_for_update(
    skip_locked=True
)


def _reconstruct(
    delivery: Delivery, journal: Mapping[int, Record] | None, now: datetime, *, resend: bool
) -> Outcome | None:
    """What became of a delivery in the hands of a worker that is gone; None: it was not begun."""
    record = journal.get(delivery.identity.seq) if journal is not None else Record(delivery.identity)
    if record is None or record.identity.resend != delivery.identity.resend:
        return None
    if record.ended:
        text = f"{record.ended.get('text', '')} ({FOUND_TEXT})"
        return Outcome(delivery=delivery, **{**record.ended, "text": text})
    parts_sent, receipts = record.progress
    return Outcome(
        delivery=delivery,
        state=DeliveryState.PENDING if resend else DeliveryState.UNCONFIRMED,
        started_at=now,
        duration_ms=0,
        parts_sent=max(parts_sent, delivery.parts_sent),
        receipts=receipts or delivery.receipts,
        code="lease",
        text=LEASE_LOST_TEXT,
        retry_in=timedelta(0) if resend else None,
    )


def _in_hand(chunk: Chunk) -> tuple[Any, ...]:
    return (
        deliveries.c.issue_id == chunk.issue_id,
        deliveries.c.seq.between(chunk.lo, chunk.hi),
        deliveries.c.state == DeliveryState.SENDING,
    )


def _next_due(chunk: Chunk, now: Any) -> Any:
    return select(func.min(func.coalesce(deliveries.c.due_at, now))).where(
        deliveries.c.issue_id == chunk.issue_id,
        deliveries.c.seq.between(chunk.lo, chunk.hi),
        deliveries.c.state == DeliveryState.PENDING,
    )


def _due(now: Any) -> tuple[Any, ...]:
    return (chunks.c.due_at <= now, *_free(now))


def _free(now: Any) -> tuple[Any, ...]:
    """Chunks that may be worked on when they are due: no worker is woken for what it may not send."""
    stopped = exists().where(channel_stops.c.channel == chunks.c.channel, channel_stops.c.until > now)
    return (
        chunks.c.lease_token.is_(None),
        issues.c.state.in_(GOING),
        issues.c.paused.is_(False),
        issues.c.expires_at > now,
        ~stopped,
    )
