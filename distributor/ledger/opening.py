"""Opening an issue: its audience is frozen and written down, window by window."""

import math
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    Connection,
    Select,
    delete,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)

from distributor.ledger.rows import (
    delivery_defaults,
    new_delivery,
)
from distributor.ledger.tables import Tables
from distributor.ledger.values import (
    LeaseLost,
)
from distributor.model import (
    IssueState,
    Recipient,
)
from distributor.tables import chunks, deliveries, issue_channels, issue_segments, issues

#: Deliveries written down in one transaction while an issue opens.
WINDOW = 50_000


class Opening(Tables):
    """Deliveries and chunks of an issue that opens."""

    def take_opening(self, issue_id: int, lease: timedelta) -> str | None:
        """A token for the one who writes the audience down; None when another one is at it."""
        token = secrets.token_hex(8)
        with self.database.write() as connection:
            now = self.database.now(connection)
            taken = connection.execute(
                update(issues)
                .where(
                    issues.c.id == issue_id,
                    issues.c.state == IssueState.OPENING,
                    or_(issues.c.lease_until.is_(None), issues.c.lease_until <= now),
                )
                .values(lease_token=token, lease_until=now + lease)
            ).rowcount
        return token if taken else None

    def freeze(
        self, issue_id: int, segments: Callable[[datetime], Iterable[Select[Any]]] = lambda _moment: ()
    ) -> datetime:
        """Fixes the moment whose audience the issue is for, once; a second call returns the first one's.

        `segments(moment)` are audiences that must be written down by name in the same transaction: what they are chosen
        by (tags, language) may be other than it was before the last window is written.
        """
        with self.database.write() as connection:
            frozen: datetime | None = connection.execute(
                select(issues.c.frozen_at).where(issues.c.id == issue_id)
            ).scalar_one()
            if frozen:
                return frozen
            now = self.database.now(connection)
            connection.execute(update(issues).where(issues.c.id == issue_id).values(frozen_at=now))
            named = [self._name(connection, issue_id, segment) for segment in segments(now)]
            if named:
                self.database.analyze_table(connection, issue_segments)
            return now

    def _name(self, connection: Connection, issue_id: int, segment: Select[Any]) -> int:
        who = segment.subquery("who")
        names = select(literal(issue_id), who.c.subscriber_id)
        return connection.execute(
            insert(issue_segments).from_select(["issue_id", "subscriber_id"], names)
        ).rowcount

    def plan(
        self,
        issue_id: int,
        audiences: Mapping[str, Select[Any]],
        fixed: Mapping[str, int],
        *,
        token: str,
        lease: timedelta,
    ) -> None:
        """Says how many recipients each channel will have: its audience, and its `fixed` number of destinations.

        Raises LeaseLost as `write_window` does.
        """
        for channel, destinations in fixed.items():
            number = destinations
            if channel in audiences:
                with self.database.read() as connection:
                    counted = select(func.count()).select_from(audiences[channel].subquery())
                    number += connection.execute(counted).scalar_one()
            with self.database.write() as connection:
                self._fence_opening(connection, issue_id, token, lease)
                connection.execute(
                    update(issue_channels)
                    .where(issue_channels.c.issue_id == issue_id, issue_channels.c.channel == channel)
                    .values(planned=number)
                )

    def write_destinations(
        self, issue_id: int, recipients: Sequence[Recipient], *, token: str, lease: timedelta
    ) -> None:
        """Deliveries to the configuration's fixed places, each in a chunk of its own: each has a limit of its own.

        Raises LeaseLost as `write_window` does.
        """
        with self.database.write() as connection:
            self._fence_opening(connection, issue_id, token, lease)
            for recipient in recipients:
                already = select(deliveries.c.seq).where(
                    deliveries.c.issue_id == issue_id,
                    deliveries.c.channel == recipient.channel,
                    deliveries.c.address == recipient.address,
                )
                if connection.execute(already).first():
                    continue
                seq = self._next_seq(connection, issue_id)
                connection.execute(insert(deliveries), [new_delivery(issue_id, seq, recipient)])
                self._add_chunks(
                    connection, issue_id, recipient.channel, f"to:{recipient.destination}", seq, seq, 1, None
                )

    def write_window(
        self,
        issue_id: int,
        channel: str,
        pace_group: str,
        audience: Callable[[int], Select[Any]],
        *,
        token: str,
        lease: timedelta,
        chunk: int,
        window: int = WINDOW,
        canary: float = 0.0,
    ) -> int:
        """Writes the next window of an audience (deliveries and their chunks) in one transaction.

        `audience(n)` is the query for those whose subscriber number is greater than n. Of each window the share `canary`
        is due at once, and the rest held until that is judged.

        Returns how many deliveries it wrote; 0 when this part of the audience is complete. Resumes behind the last
        window that was committed, and renews the lease. Raises LeaseLost when another one writes this issue by now,
        or nobody should any more: it was cancelled.
        """
        with self.database.write() as connection:
            self._fence_opening(connection, issue_id, token, lease)
            after = connection.execute(
                select(func.coalesce(func.max(chunks.c.upto), 0)).where(
                    chunks.c.issue_id == issue_id,
                    chunks.c.channel == channel,
                    chunks.c.pace_group == pace_group,
                )
            ).scalar_one()
            base = self._next_seq(connection, issue_id) - 1
            who = audience(after).subquery("who")
            page = (
                select(who.c.subscriber_id, who.c.address)
                .order_by(who.c.subscriber_id)
                .limit(window)
                .subquery("page")
            )
            values = delivery_defaults()
            connection.execute(
                insert(deliveries).from_select(
                    ["issue_id", "seq", "channel", "address", "subscriber_id", *values],
                    select(
                        literal(issue_id),
                        literal(base) + func.row_number().over(order_by=page.c.subscriber_id),
                        literal(channel),
                        page.c.address,
                        page.c.subscriber_id,
                        *(literal(value, deliveries.c[name].type) for name, value in values.items()),
                    ),
                )
            )
            written, upto = connection.execute(
                select(func.count(), func.max(deliveries.c.subscriber_id)).where(
                    deliveries.c.issue_id == issue_id, deliveries.c.seq > base
                )
            ).one()
            if written:
                first, last = base + 1, base + written
                ahead = min(last, base + math.ceil(written * canary)) if canary else base
                if ahead > base:
                    self._add_chunks(
                        connection,
                        issue_id,
                        channel,
                        pace_group,
                        first,
                        ahead,
                        chunk,
                        upto if ahead == last else None,
                    )
                if ahead < last:
                    self._add_chunks(
                        connection,
                        issue_id,
                        channel,
                        pace_group,
                        ahead + 1,
                        last,
                        chunk,
                        upto,
                        held=bool(canary),
                    )
            if not base:
                self.database.analyze(connection, issue_id)
            return int(written)

    def opened(self, issue_id: int, token: str) -> None:
        """All deliveries exist: the issue is being sent.

        Somebody who left and came back while the windows were written is not in them; then the plan is put right here,
        where nothing has been reported yet, so that the sum always holds.
        """
        with self.database.write() as connection:
            done = connection.execute(
                update(issues)
                .where(*_opening(issue_id, token))
                .values(state=IssueState.SENDING, lease_token=None, lease_until=None)
            ).rowcount
            if done:
                self._plan_what_is_written(connection, issue_id)
                connection.execute(delete(issue_segments).where(issue_segments.c.issue_id == issue_id))
                self.database.analyze(connection, issue_id)

    def _fence_opening(self, connection: Connection, issue_id: int, token: str, lease: timedelta) -> None:
        until = self.database.now(connection) + lease
        mine = update(issues).where(*_opening(issue_id, token)).values(lease_until=until)
        if not connection.execute(mine).rowcount:
            raise LeaseLost(
                f"the audience of issue {issue_id} is written down by another process, or cancelled"
            )


def _opening(issue_id: int, token: str) -> Iterator[Any]:
    yield issues.c.id == issue_id
    yield issues.c.lease_token == token
    yield issues.c.state == IssueState.OPENING
