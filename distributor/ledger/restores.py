"""A database that was set back in time: noticed, held, and brought up to what the sent logs know."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import Any

from sqlalchemy import Connection, and_, func, select, update

from distributor.db import chunks, deliveries, issues
from distributor.errors import RequestRefused
from distributor.ledger.tables import Tables
from distributor.model import DeliveryState, Issue
from distributor.sentlog import Handed

#: Rows that are compared or put right in one statement.
BATCH = 500
#: States that say less than a line of the sent log.
BEHIND = (DeliveryState.PENDING, DeliveryState.SENDING, DeliveryState.UNCONFIRMED)


class Restores(Tables):
    """Ledger and sent logs side by side."""

    def forgot(self, issue: Issue, handed: Sequence[Handed]) -> int:
        """How many of these deliveries, handed over for certain, the ledger would hand over again."""
        with self.database.read() as connection:
            return sum(
                len(_behind(self._rows(connection, issue.id, batch), (DeliveryState.PENDING,)))
                for batch in _by_channel(handed)
            )

    def hold(self, issue_id: int, why: str) -> bool:
        """Nothing of it goes out until it is reconciled; False when it was held already."""
        with self.database.write() as connection:
            held = update(issues).where(issues.c.id == issue_id, issues.c.hold.is_(None))
            return connection.execute(held.values(hold=why, paused=True)).rowcount == 1

    def release_hold(self, issue_id: int) -> None:
        with self.database.write() as connection:
            connection.execute(update(issues).where(issues.c.id == issue_id).values(hold=None, paused=False))

    def reconcile(self, issue: Issue, handed: Sequence[Handed]) -> int:
        """Writes into the ledger what was handed over and it forgot; returns how many deliveries that were.

        Raises RequestRefused while workers hold chunks of the issue.
        """
        with self.database.write() as connection:
            self._lock(connection, issue.id)
            self._refuse_leased(connection, issue.id)
            now = self.database.now(connection)
            done = sum(self._put_right(connection, issue.id, batch, now) for batch in _by_channel(handed))
            if done:
                self._recount(connection, chunks.c.issue_id == issue.id)
        return done

    def _refuse_leased(self, connection: Connection, issue_id: int) -> None:
        leased = select(func.count()).where(chunks.c.issue_id == issue_id, chunks.c.lease_token.is_not(None))
        if number := connection.execute(leased).scalar_one():
            raise RequestRefused(
                f"workers still have {number} chunks of issue {issue_id} in hand; try again when their leases are over"
            )

    def _put_right(
        self, connection: Connection, issue_id: int, batch: Mapping[str, Handed], now: datetime
    ) -> int:
        behind = _behind(self._rows(connection, issue_id, batch), BEHIND)
        for seq, known in behind:
            connection.execute(
                update(deliveries)
                .where(deliveries.c.issue_id == issue_id, deliveries.c.seq == seq)
                .values(
                    state=DeliveryState(known.state),
                    resend=known.resend,
                    parts_sent=known.parts_sent,
                    receipts=list(known.receipts),
                    code=known.code,
                    text="known from the sent log: the database had been set back",
                    due_at=None,
                    updated_at=now,
                )
            )
        return len(behind)

    def _rows(
        self, connection: Connection, issue_id: int, batch: Mapping[str, Handed]
    ) -> Sequence[tuple[Any, Handed]]:
        """(a delivery as the ledger has it, as the sent log knows it)"""
        channel = next(iter(batch.values())).channel
        found = connection.execute(
            select(deliveries.c.seq, deliveries.c.address, deliveries.c.state, deliveries.c.resend).where(
                and_(
                    deliveries.c.issue_id == issue_id,
                    deliveries.c.channel == channel,
                    deliveries.c.address.in_(list(batch)),
                )
            )
        )
        return [(row, batch[row.address]) for row in found]


def _behind(
    rows: Sequence[tuple[Any, Handed]], states: Sequence[DeliveryState]
) -> Sequence[tuple[int, Handed]]:
    return [
        (row.seq, known)
        for row, known in rows
        if row.resend < known.resend
        or (row.resend == known.resend and row.state in states and row.state != known.state)
    ]


def _by_channel(handed: Sequence[Handed]) -> Sequence[Mapping[str, Handed]]:
    """Batches of one channel each: address → what is known; the last word counts."""
    by_channel: dict[str, dict[str, Handed]] = {}
    for known in handed:
        by_channel.setdefault(known.channel, {})[known.address] = known
    batches = []
    for found in by_channel.values():
        items = iter(found.items())
        while batch := dict(islice(items, BATCH)):
            batches.append(batch)
    return batches
