"""Deliveries of a person who is to be forgotten: the rows stay for the sums, the address does not."""

from collections.abc import Sequence

from sqlalchemy import Connection, func, select, update

from distributor.ledger.rows import chunk_of
from distributor.ledger.tables import Tables
from distributor.model import DeliveryState, IssueState, SkipReason
from distributor.tables import NOBODY, attempts, chunks, deliveries, issues


class Erasing(Tables):
    """Takes a person out of the ledger."""

    def skip_pending(self, channel: str, address: str) -> int:
        """Skips what waits to be sent there, as if the reader had left; returns how many deliveries that were."""
        with self.database.read() as connection:
            waiting = self._rows_of(connection, channel, address, DeliveryState.PENDING)
        return sum(self._skip_one(issue_id, seq) for issue_id, seq in waiting)

    def in_hand(self, channel: str, address: str) -> Sequence[int]:
        """Issues of which a worker has a delivery there in hand right now."""
        with self.database.read() as connection:
            return [
                issue for issue, _seq in self._rows_of(connection, channel, address, DeliveryState.SENDING)
            ]

    def finish_windows(self) -> None:
        """Returns when every window of an audience is written down that was begun before the call."""
        opening = select(issues.c.id).where(issues.c.state == IssueState.OPENING).order_by(issues.c.id)
        with self.database.write() as connection:
            connection.execute(
                opening.with_for_update()
            ).all()  # a window holds its issue until it is committed

    def erase(self, channel: str, address: str, instead: str) -> int:
        """Puts `instead` for the address, and nothing for what servers said; returns how many deliveries that were.

        Not what a worker has in hand. The sums hold: no state changes.
        """
        with self.database.read() as connection:
            settled = self._rows_of(
                connection, channel, address, *set(DeliveryState) - {DeliveryState.SENDING}
            )
        for issue_id, seq in settled:
            self._erase_one(issue_id, seq, channel, instead)
        return len(settled)

    def _rows_of(
        self, connection: Connection, channel: str, address: str, *states: DeliveryState
    ) -> Sequence[tuple[int, int]]:
        query = select(deliveries.c.issue_id, deliveries.c.seq).where(
            deliveries.c.address == address,
            deliveries.c.channel == channel,
            deliveries.c.state.in_(states),
        )
        return [(row.issue_id, row.seq) for row in connection.execute(query)]

    def _skip_one(self, issue_id: int, seq: int) -> int:
        with self.database.write() as connection:
            # Its worker locks the chunk before it touches the delivery, so the counters cannot miss it.
            held = select(chunks.c.id).where(chunk_of(issue_id, seq)).with_for_update()
            chunk = connection.execute(held).scalar_one()
            skipped = connection.execute(
                update(deliveries)
                .where(
                    deliveries.c.issue_id == issue_id,
                    deliveries.c.seq == seq,
                    deliveries.c.state == DeliveryState.PENDING,
                )
                .values(
                    state=DeliveryState.SKIPPED,
                    reason=SkipReason.UNSUBSCRIBED,
                    updated_at=self.database.now(connection),
                )
            ).rowcount
            if skipped:
                self._recount(connection, chunks.c.id == chunk)
            return skipped

    def _erase_one(self, issue_id: int, seq: int, channel: str, instead: str) -> None:
        """One transaction each: it waits for nobody while it holds another."""
        with self.database.write() as connection:
            taken = select(func.count()).where(
                deliveries.c.address == instead,
                deliveries.c.channel == channel,
                deliveries.c.issue_id == issue_id,
            )
            # Forgotten before, come back, and sent the same issue by a resend.
            again = connection.execute(taken).scalar_one()
            connection.execute(
                update(deliveries)
                .where(deliveries.c.issue_id == issue_id, deliveries.c.seq == seq)
                .values(
                    address=f"{instead}:{seq}" if again else instead,
                    subscriber_id=NOBODY,
                    receipts=[],
                    text="",
                )
            )
            connection.execute(
                update(attempts)
                .where(attempts.c.issue_id == issue_id, attempts.c.seq == seq)
                .values(receipts=[], text="")
            )
