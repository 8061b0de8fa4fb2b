"""Counting and looking: who is in which state, and what was tried."""

from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy import (
    Connection,
    and_,
    func,
    literal,
    select,
)

from distributor.db import (
    attempts,
    chunks,
    deliveries,
    issue_channels,
    issues,
    resends,
)
from distributor.ledger.rows import attempt_from, log_entry_from
from distributor.ledger.tables import STATES, Tables
from distributor.ledger.values import Attempt, LogEntry
from distributor.model import (
    DeliveryState,
    Tally,
)


class Reports(Tables):
    """Tallies and the log."""

    def tallies(self, issue_id: int) -> Mapping[str, Tally]:
        """Channel → what was planned and how it stands, from the chunks' counters."""
        names = [str(state) for state in STATES]
        with self.database.read() as connection:
            planned = {
                row.channel: row.planned
                for row in connection.execute(
                    select(issue_channels).where(issue_channels.c.issue_id == issue_id)
                )
            }
            rows = connection.execute(
                select(chunks.c.channel, *(func.sum(chunks.c[name]).label(name) for name in names))
                .where(chunks.c.issue_id == issue_id)
                .group_by(chunks.c.channel)
            )
            counted = {row.channel: {name: int(getattr(row, name)) for name in names} for row in rows}
        return {
            channel: Tally(planned=number, **counted.get(channel, {})) for channel, number in planned.items()
        }

    def audit(self, issue_id: int) -> Mapping[str, Tally]:
        """The same from the rows themselves: slow, and right by definition."""
        with self.database.read() as connection:
            rows = connection.execute(
                select(deliveries.c.channel, deliveries.c.state, func.count())
                .where(deliveries.c.issue_id == issue_id)
                .group_by(deliveries.c.channel, deliveries.c.state)
            ).all()
        found: dict[str, dict[str, int]] = {}
        for channel, state, number in rows:
            found.setdefault(channel, {})[state] = number
        return {
            channel: Tally(planned=tally.planned, **found.get(channel, {}))
            for channel, tally in self.tallies(issue_id).items()
        }

    def why(self, issue_id: int, state: DeliveryState) -> Sequence[tuple[str, str, int]]:
        """(channel, reason or code and text, how many) of one state, the most frequent first."""
        said = func.coalesce(deliveries.c.reason, deliveries.c.code + literal(" ") + deliveries.c.text)
        with self.database.read() as connection:
            rows = connection.execute(
                select(deliveries.c.channel, said, func.count())
                .where(deliveries.c.issue_id == issue_id, deliveries.c.state == state)
                .group_by(deliveries.c.channel, said)
                .order_by(func.count().desc())
                .limit(20)
            )
            return [(row[0], row[1].strip(), row[2]) for row in rows]

    def log(
        self,
        issue_id: int | None,
        *,
        states: Iterable[DeliveryState] = (),
        channel: str | None = None,
        address: str | None = None,
        after: int = 0,
        limit: int = 100,
    ) -> Sequence[LogEntry]:
        """Deliveries with their attempts, in order of their number within the issue; of all issues for one address."""
        query = select(deliveries).order_by(deliveries.c.issue_id, deliveries.c.seq).limit(limit)
        if issue_id is not None:
            query = query.where(deliveries.c.issue_id == issue_id, deliveries.c.seq > after)
        if states := list(states):
            query = query.where(deliveries.c.state.in_(states))
        if channel:
            query = query.where(deliveries.c.channel == channel)
        if address:
            query = query.where(deliveries.c.address == address)
        with self.database.read() as connection:
            rows = connection.execute(query).all()
            tried = self._attempts(connection, [(row.issue_id, row.seq) for row in rows])
        return [log_entry_from(row, tried.get((row.issue_id, row.seq), ())) for row in rows]

    def doubtful_destinations(self) -> Sequence[LogEntry]:
        """Deliveries to fixed places that are unconfirmed, of the newest issues."""
        newest = select(issues.c.id).order_by(issues.c.id.desc()).limit(32)
        doubtful = (
            select(chunks.c.issue_id, chunks.c.lo)
            .where(
                chunks.c.issue_id.in_(newest.scalar_subquery()),
                chunks.c.pace_group.startswith("to:"),
                chunks.c.unconfirmed > 0,
            )
            .subquery()
        )
        query = select(deliveries).join(
            doubtful, and_(doubtful.c.issue_id == deliveries.c.issue_id, doubtful.c.lo == deliveries.c.seq)
        )
        with self.database.read() as connection:
            rows = connection.execute(query.where(deliveries.c.state == DeliveryState.UNCONFIRMED)).all()
        return [log_entry_from(row, ()) for row in rows]

    def _attempts(
        self, connection: Connection, keys: Sequence[tuple[int, int]]
    ) -> Mapping[tuple[int, int], Sequence[Attempt]]:
        found: dict[tuple[int, int], list[Attempt]] = {}
        for issue_id in {key[0] for key in keys}:
            numbers = [seq for issue, seq in keys if issue == issue_id]
            query = (
                select(attempts, resends.c.reason.label("why"))
                .outerjoin(resends, resends.c.id == attempts.c.resend_id)
                .where(attempts.c.issue_id == issue_id, attempts.c.seq.in_(numbers))
                .order_by(attempts.c.seq, attempts.c.number)
            )
            for row in connection.execute(query):
                found.setdefault((row.issue_id, row.seq), []).append(attempt_from(row))
        return found
