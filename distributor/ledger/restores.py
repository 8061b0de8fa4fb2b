"""A database that was set back in time: noticed, held, and brought up to what the sent logs know."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import Any

from sqlalchemy import Connection, bindparam, func, select, update

from distributor.errors import RequestRefused
from distributor.ledger.tables import Tables
from distributor.model import DeliveryState, Issue
from distributor.sentlog import Handed
from distributor.tables import JsonText, Utc, chunks, deliveries, issues

#: Deliveries that are compared or put right in one statement.
BATCH = 500
#: States that a ledger which knew the line of the sent log could not have with the same resend number.
BEHIND = frozenset(
    {
        DeliveryState.PENDING,
        DeliveryState.SENDING,
        DeliveryState.UNCONFIRMED,
        DeliveryState.SKIPPED,  # because the issue expired meanwhile, or was cancelled
    }
)
#: Those of them that would be handed over again.
AGAIN = frozenset({DeliveryState.PENDING})
PUT_RIGHT = "known from the sent log: the database had been set back"


class Restores(Tables):
    """Ledger and sent logs side by side."""

    def forgot(self, issue: Issue, handed: Sequence[Handed]) -> int:
        """How many of these deliveries, handed over for certain, the ledger would hand over again."""
        with self.database.read() as connection:
            return sum(len(self._behind(connection, issue.id, batch, AGAIN)) for batch in _batches(handed))

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
            behind = [
                item
                for batch in _batches(handed)
                for item in self._behind(connection, issue.id, batch, BEHIND)
            ]
            if behind:
                connection.execute(
                    _PUT_RIGHT, [_put_right(issue.id, seq, known, now) for seq, known in behind]
                )
                touched = self._chunks_of(connection, issue.id, [seq for seq, _known in behind])
                self._recount(connection, chunks.c.id.in_(touched))
        return len(behind)

    def _refuse_leased(self, connection: Connection, issue_id: int) -> None:
        leased = select(func.count()).where(chunks.c.issue_id == issue_id, chunks.c.lease_token.is_not(None))
        if number := connection.execute(leased).scalar_one():
            raise RequestRefused(
                f"workers still have {number} chunks of issue {issue_id} in hand; try again when their leases are over"
            )

    def _chunks_of(self, connection: Connection, issue_id: int, numbers: Iterable[int]) -> set[int]:
        """Keys of the chunks that these deliveries are in."""
        query = select(chunks.c.lo, chunks.c.id).where(chunks.c.issue_id == issue_id).order_by(chunks.c.lo)
        found = connection.execute(query).all()
        starts = [row.lo for row in found]
        return {found[bisect_right(starts, seq) - 1].id for seq in numbers}

    def _behind(
        self,
        connection: Connection,
        issue_id: int,
        batch: Sequence[Handed],
        states: frozenset[DeliveryState],
    ) -> Sequence[tuple[int, Handed]]:
        """(number, as the sent log knows it) of those of which the ledger knows less."""
        rows = self._rows(connection, issue_id, batch)
        pairs = ((_row_of(known, rows), known) for known in batch)
        return [
            (row.seq, known) for row, known in pairs if row is not None and _is_behind(row, known, states)
        ]

    def _rows(self, connection: Connection, issue_id: int, batch: Sequence[Handed]) -> Mapping[str, Any]:
        """Address → the delivery as the ledger has it. All of the batch are of one channel."""
        addresses = {address for known in batch for address in known.addresses}
        columns = (deliveries.c.seq, deliveries.c.address, deliveries.c.state, deliveries.c.resend)
        found = connection.execute(
            select(*columns, deliveries.c.parts_sent).where(
                deliveries.c.issue_id == issue_id,
                deliveries.c.channel == batch[0].channel,
                deliveries.c.address.in_(addresses),
            )
        )
        return {row.address: row for row in found}


_PUT_RIGHT = (
    update(deliveries)
    .where(deliveries.c.issue_id == bindparam("of_issue"), deliveries.c.seq == bindparam("of_seq"))
    .values(
        state=bindparam("to_state"),
        reason=None,
        resend=bindparam("to_resend"),
        parts_sent=bindparam("to_parts_sent"),
        receipts=bindparam("to_receipts", type_=JsonText),
        code=bindparam("to_code"),
        text=PUT_RIGHT,
        due_at=None,
        updated_at=bindparam("at", type_=Utc),
    )
)


def _put_right(issue_id: int, seq: int, known: Handed, now: datetime) -> Mapping[str, Any]:
    return {
        "of_issue": issue_id,
        "of_seq": seq,
        "to_state": known.state,
        "to_resend": known.resend,
        "to_parts_sent": known.parts_sent,
        "to_receipts": list(known.receipts),
        "to_code": known.code,
        "at": now,
    }


def _row_of(known: Handed, rows: Mapping[str, Any]) -> Any:
    """The oldest address first: a newer one may be that of another delivery, and then this one has kept its own."""
    return next((rows[address] for address in known.addresses if address in rows), None)


def _is_behind(row: Any, known: Handed, states: frozenset[DeliveryState]) -> bool:
    if known.state == DeliveryState.PENDING:  # the parts that were sent, and nothing else
        same = (row.state, row.resend) == (known.state, known.resend)
        return same and bool(row.parts_sent < known.parts_sent)
    if row.resend != known.resend:
        return bool(row.resend < known.resend)
    return row.state in states and bool(row.state != known.state)


def _batches(handed: Sequence[Handed]) -> Iterator[Sequence[Handed]]:
    """Batches of one channel each, with the last word on each delivery."""
    by_channel: dict[str, dict[str, Handed]] = {}
    for known in handed:
        by_channel.setdefault(known.channel, {})[known.addresses[0]] = known
    for found in by_channel.values():
        items = iter(found.values())
        while batch := list(islice(items, BATCH)):
            yield batch
