"""What the stories of the ledger share: the counters of chunks, the numbers of deliveries, the lock of an issue."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import (
    Connection,
    func,
    insert,
    select,
    update,
)

from distributor.db import Database
from distributor.model import (
    DeliveryState,
)
from distributor.tables import chunks, deliveries, issue_channels, issues
from distributor.webhooks import Webhooks

STATES = tuple(DeliveryState)


class Tables:
    """The tables of issues and deliveries in one database."""

    def __init__(self, database: Database, webhooks: Webhooks | None = None) -> None:
        self.database = database
        self.webhooks = webhooks or Webhooks(database)

    def _lock(self, connection: Connection, issue_id: int) -> None:
        """Holds an issue and its chunks until the end of the transaction, in the order that everybody keeps.

        A worker locks its chunk before it touches deliveries: whoever counts or changes them from outside waits here.
        """
        connection.execute(select(issues.c.id).where(issues.c.id == issue_id).with_for_update())
        connection.execute(
            select(chunks.c.id).where(chunks.c.issue_id == issue_id).order_by(chunks.c.id).with_for_update()
        )

    def _next_seq(self, connection: Connection, issue_id: int) -> int:
        highest = connection.execute(
            select(func.coalesce(func.max(chunks.c.hi), 0)).where(chunks.c.issue_id == issue_id)
        ).scalar_one()
        return int(highest) + 1

    def _add_chunks(
        self,
        connection: Connection,
        issue_id: int,
        channel: str,
        pace_group: str,
        lo: int,
        hi: int,
        size: int,
        upto: int | None,
        *,
        held: bool = False,
    ) -> None:
        now = None if held else self.database.now(connection)
        connection.execute(
            insert(chunks),
            [
                {
                    "issue_id": issue_id,
                    "channel": channel,
                    "pace_group": pace_group,
                    "lo": start,
                    "hi": min(start + size - 1, hi),
                    "upto": upto if start + size > hi else None,
                    "due_at": now,
                    "held": held,
                    "pending": min(start + size - 1, hi) - start + 1,
                    **dict.fromkeys(("sending", "sent", "failed", "unconfirmed", "skipped"), 0),
                }
                for start in range(lo, hi + 1, size)
            ],
        )

    def _plan_what_is_written(self, connection: Connection, issue_id: int) -> None:
        written = (
            select(func.count())
            .where(
                deliveries.c.issue_id == issue_channels.c.issue_id,
                deliveries.c.channel == issue_channels.c.channel,
            )
            .scalar_subquery()
        )
        connection.execute(
            update(issue_channels).where(issue_channels.c.issue_id == issue_id).values(planned=written)
        )

    def _recount(self, connection: Connection, which: Any) -> None:
        """Sets the counters of some chunks from their rows."""
        for row in connection.execute(
            select(chunks.c.id, chunks.c.issue_id, chunks.c.lo, chunks.c.hi).where(which)
        ).all():
            counted = self._counted(connection, row.issue_id, row.lo, row.hi)
            connection.execute(update(chunks).where(chunks.c.id == row.id).values(**counted))

    def _counted(self, connection: Connection, issue_id: int, lo: int, hi: int) -> Mapping[str, int]:
        """State → deliveries in it, of a key range."""
        counted = dict.fromkeys(map(str, STATES), 0)
        for state, number in connection.execute(
            select(deliveries.c.state, func.count())
            .where(deliveries.c.issue_id == issue_id, deliveries.c.seq.between(lo, hi))
            .group_by(deliveries.c.state)
        ):
            counted[state] = number
        return counted
