"""The canary of an issue: a share that goes first while the rest of its chunks is held."""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import exists, func, select, update

from distributor.ledger.rows import issue_from
from distributor.ledger.tables import Tables
from distributor.model import DeliveryState, Issue, IssueState
from distributor.tables import chunks, deliveries, issues


class CanaryCount(NamedTuple):
    """How a canary stands."""

    planned: int
    failed: int
    deferred: int  # tried, and to be tried again
    settled: int


class Canaries(Tables):
    """Chunks that are held, and those that go ahead of them."""

    def with_canary(self) -> Sequence[Issue]:
        """Issues whose audience is written, and of which chunks are held."""
        held = exists().where(chunks.c.issue_id == issues.c.id, chunks.c.held)
        query = select(issues).where(issues.c.state == IssueState.SENDING, issues.c.paused.is_(False), held)
        with self.database.read() as connection:
            return [issue_from(row) for row in connection.execute(query)]

    def canary_count(self, issue_id: int) -> CanaryCount:
        """Counted over the chunks that are not held."""
        ahead = (chunks.c.issue_id == issue_id, chunks.c.held.is_(False))
        sums = [
            func.coalesce(func.sum(column), 0)
            for column in (chunks.c.failed, chunks.c.sent, chunks.c.skipped, chunks.c.unconfirmed)
        ]
        size = func.coalesce(func.sum(chunks.c.hi - chunks.c.lo + 1), 0)
        waiting = (
            select(func.count())
            .select_from(
                deliveries.join(
                    chunks,
                    (chunks.c.issue_id == deliveries.c.issue_id)
                    & deliveries.c.seq.between(chunks.c.lo, chunks.c.hi),
                )
            )
            .where(
                *ahead,
                chunks.c.pending > 0,
                deliveries.c.issue_id == issue_id,
                deliveries.c.state == DeliveryState.PENDING,
                deliveries.c.attempts > 0,
            )
        )
        with self.database.read() as connection:
            planned, failed, *others = connection.execute(select(size, *sums).where(*ahead)).one()
            deferred = connection.execute(waiting).scalar_one()
        return CanaryCount(int(planned), int(failed), deferred, int(failed) + sum(map(int, others)))

    def release_held(self, issue_id: int, *, paused: bool) -> bool:
        """The rest may go, or waits for a person to resume the issue; False when somebody released it already."""
        with self.database.write() as connection:
            self._lock(connection, issue_id)
            now = self.database.now(connection)
            held = update(chunks).where(chunks.c.issue_id == issue_id, chunks.c.held)
            released = connection.execute(held.values(held=False, due_at=now)).rowcount
            if released and paused:
                connection.execute(update(issues).where(issues.c.id == issue_id).values(paused=True))
            return released > 0
