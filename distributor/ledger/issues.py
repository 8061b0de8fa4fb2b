"""Issues: opened once, approved, paused, stopped, finished."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta

from sqlalchemy import (
    Connection,
    and_,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    update,
)

from distributor.db import insert_ignore
from distributor.errors import RequestRefused
from distributor.ledger.rows import issue_from, message_from
from distributor.ledger.tables import Tables
from distributor.ledger.values import NewIssue
from distributor.model import (
    DeliveryState,
    Issue,
    IssueState,
    Message,
    SkipReason,
)
from distributor.tables import chunks, deliveries, issue_channels, issue_segments, issues, messages

#: What to do about a post that has had its issue, by where that issue stands.
INSTEAD = {
    IssueState.CANCELLED: "That issue was cancelled; to send the post all the same, give it another slug.",
    IssueState.EXPIRED: "To reach those it expired for: distributor resend {0} --only expired --reason …",
    IssueState.WAITING: "That issue waits for approval: distributor approve {0}",
}


def once_only(issue: Issue) -> str:
    """Why the post of this issue opens no other one, and what to do instead."""
    instead = INSTEAD.get(
        issue.state, "To reach those who missed it: distributor resend {0} --only missing --reason …"
    )
    return (
        f"the post {issue.slug!r} already has issue {issue.id}, of {issue.local_date} ({issue.state}); a post goes out once.\n"
        + instead.format(issue.id)
    )


class Issues(Tables):
    """Issues and their frozen messages."""

    def open_issue(self, new: NewIssue) -> tuple[Issue, bool]:
        """(the issue of that day, whether this call opened it). The messages are frozen in the same transaction.

        Raises RequestRefused when the post already went out on another day or as an extra.
        """
        with self.database.write() as connection:
            now = self.database.now(connection)
            row = {
                "newsletter": new.newsletter,
                "local_date": new.local_date,
                "extra": new.extra,
                "slug": new.slug,
                "title": new.title,
                "post_hash": new.post_hash,
                "state": IssueState.WAITING if new.waits_for_approval else IssueState.OPENING,
                "paused": False,
                "opened_by": new.opened_by,
                "opened_at": now,
                "expires_at": now + new.expires_in,
                "approval_deadline": now + new.approval_in if new.approval_in else None,
            }
            opened = insert_ignore(self.database, issues, [row], connection) == 1
            day = and_(
                issues.c.newsletter == new.newsletter,
                issues.c.local_date == new.local_date,
                issues.c.extra == new.extra,
            )
            found = connection.execute(select(issues).where(day)).first()
            if found is None:
                raise RequestRefused(self._already_sent(connection, new))
            if opened:
                self._freeze_messages(connection, found.id, new)
            return issue_from(found), opened

    def _already_sent(self, connection: Connection, new: NewIssue) -> str:
        of_that_post = select(issues).where(issues.c.newsletter == new.newsletter, issues.c.slug == new.slug)
        return once_only(issue_from(connection.execute(of_that_post).one()))

    def _freeze_messages(self, connection: Connection, issue_id: int, new: NewIssue) -> None:
        self.database.ensure_partition(connection, issue_id)
        connection.execute(
            insert(messages),
            [
                {
                    "issue_id": issue_id,
                    "channel": message.channel,
                    "variant": message.variant,
                    "part": message.part,
                    "parts": message.parts,
                    "hash": message.hash,
                    "content": dict(message.content),
                    "placeholders": list(message.placeholders),
                }
                for message in new.messages
            ],
        )
        connection.execute(
            insert(issue_channels),
            [
                {
                    "issue_id": issue_id,
                    "channel": channel,
                    "planned": 0,
                    "filters": list(new.filters.get(channel, ())) or None,
                }
                for channel in new.channels
            ],
        )

    def issue(self, issue_id: int) -> Issue:
        """Raises RequestRefused when there is none."""
        with self.database.read() as connection:
            row = connection.execute(select(issues).where(issues.c.id == issue_id)).first()
        if row is None:
            raise RequestRefused(f"there is no issue {issue_id}; `distributor issues` lists them")
        return issue_from(row)

    def issue_of(self, newsletter: str, day: date, extra: int = 0) -> Issue | None:
        with self.database.read() as connection:
            row = connection.execute(
                select(issues).where(
                    issues.c.newsletter == newsletter, issues.c.local_date == day, issues.c.extra == extra
                )
            ).first()
        return issue_from(row) if row else None

    def sent_as(self, newsletter: str, slug: str) -> Issue | None:
        """The issue that a post went out as."""
        with self.database.read() as connection:
            row = connection.execute(
                select(issues).where(issues.c.newsletter == newsletter, issues.c.slug == slug)
            ).first()
        return issue_from(row) if row else None

    def next_extra(self, newsletter: str, day: date) -> int:
        with self.database.read() as connection:
            highest = connection.execute(
                select(func.max(issues.c.extra)).where(
                    issues.c.newsletter == newsletter, issues.c.local_date == day
                )
            ).scalar()
        return (highest or 0) + 1

    def issues(
        self,
        newsletter: str | None = None,
        *,
        states: Iterable[IssueState] = (),
        before: int | None = None,
        limit: int = 50,
    ) -> Sequence[Issue]:
        """The newest first; with `before`, those with a smaller number."""
        query = select(issues).order_by(issues.c.id.desc()).limit(limit)
        if before is not None:
            query = query.where(issues.c.id < before)
        if newsletter:
            query = query.where(issues.c.newsletter == newsletter)
        if states := list(states):
            query = query.where(issues.c.state.in_(states))
        with self.database.read() as connection:
            return [issue_from(row) for row in connection.execute(query)]

    def filters(self, issue_id: int) -> Mapping[str, Sequence[str]]:
        """Channel → the filters its subscribers were chosen by, of those channels that have some."""
        query = select(issue_channels.c.channel, issue_channels.c.filters).where(
            issue_channels.c.issue_id == issue_id, issue_channels.c.filters.is_not(None)
        )
        with self.database.read() as connection:
            return {row.channel: row.filters for row in connection.execute(query)}

    def previous_size(self, newsletter: str, channel: str, filters: Sequence[str] = ()) -> int | None:
        """How many the newest earlier issue with the same filters planned on this channel; None without one."""
        alike = issue_channels.c.filters == list(filters) if filters else issue_channels.c.filters.is_(None)
        with self.database.read() as connection:
            return connection.execute(
                select(issue_channels.c.planned)
                .join(issues, issues.c.id == issue_channels.c.issue_id)
                .where(
                    issues.c.newsletter == newsletter,
                    issue_channels.c.channel == channel,
                    alike,
                    issues.c.frozen_at.is_not(None),
                    or_(issue_channels.c.planned > 0, issues.c.state != IssueState.OPENING),
                )
                .order_by(issues.c.id.desc())
                .limit(1)
            ).scalar_one_or_none()

    def messages(self, issue_id: int, channel: str | None = None) -> Mapping[str, Sequence[Message]]:
        """Variant → its parts in order, of one channel; of all channels under "channel/variant" when none is named."""
        query = select(messages).where(messages.c.issue_id == issue_id)
        if channel:
            query = query.where(messages.c.channel == channel)
        found: dict[str, list[Message]] = {}
        with self.database.read() as connection:
            for row in connection.execute(
                query.order_by(messages.c.channel, messages.c.variant, messages.c.part)
            ):
                key = row.variant if channel else f"{row.channel}/{row.variant}"
                found.setdefault(key, []).append(message_from(row))
        return found

    def approve(self, issue_id: int, by: str) -> bool:
        """Lets a waiting issue go; False when it was not waiting (any more)."""
        with self.database.write() as connection:
            return (
                connection.execute(
                    update(issues)
                    .where(issues.c.id == issue_id, issues.c.state == IssueState.WAITING)
                    .values(
                        state=IssueState.OPENING, approved_by=by, approved_at=self.database.now(connection)
                    )
                ).rowcount
                == 1
            )

    def approve_overdue(self) -> None:
        """Lets those waiting issues go whose deadline has passed."""
        with self.database.write() as connection:
            now = self.database.now(connection)
            connection.execute(
                update(issues)
                .where(issues.c.state == IssueState.WAITING, issues.c.approval_deadline <= now)
                .values(state=IssueState.OPENING, approved_by="deadline", approved_at=now)
            )

    def set_paused(self, issue_id: int, *, paused: bool) -> None:
        with self.database.write() as connection:
            connection.execute(update(issues).where(issues.c.id == issue_id).values(paused=paused))

    def stop_issue(self, issue_id: int, state: IssueState, reason: SkipReason) -> int:
        """Cancels or expires: what is pending is skipped with the reason. Returns how many deliveries that were.

        Deliveries that a worker has in hand right now finish; the sweeper calls this again for what they left pending.
        An issue that is over, or (to expire it) was given more time meanwhile, stays as it is.
        """
        going = [IssueState.WAITING, IssueState.OPENING, IssueState.SENDING, state]
        with self.database.write() as connection:
            self._lock(connection, issue_id)
            now = self.database.now(connection)
            stopped = update(issues).where(issues.c.id == issue_id, issues.c.state.in_(going))
            if state is IssueState.EXPIRED:
                stopped = stopped.where(issues.c.expires_at <= now)
            stopped = stopped.values(
                state=state,
                finished_at=func.coalesce(issues.c.finished_at, now),
                lease_token=None,
                lease_until=None,
            )
            if not connection.execute(stopped).rowcount:
                return 0
            self._plan_what_is_written(connection, issue_id)
            connection.execute(delete(issue_segments).where(issue_segments.c.issue_id == issue_id))
            skipped = connection.execute(
                update(deliveries)
                .where(deliveries.c.issue_id == issue_id, deliveries.c.state == DeliveryState.PENDING)
                .values(state=DeliveryState.SKIPPED, reason=reason, updated_at=now)
            ).rowcount
            self._recount(connection, chunks.c.issue_id == issue_id)
            return skipped

    def overdue(self) -> Sequence[Issue]:
        """Issues that are still going although they are too old to be news."""
        going = [IssueState.WAITING, IssueState.OPENING, IssueState.SENDING]
        with self.database.read() as connection:
            now = self.database.now(connection)
            return [
                issue_from(row)
                for row in connection.execute(
                    select(issues).where(issues.c.state.in_(going), issues.c.expires_at <= now)
                )
            ]

    def ended_since(self, age: timedelta) -> Sequence[Issue]:
        """Issues that were finished, or expired, no longer ago than that."""
        with self.database.read() as connection:
            since = self.database.now(connection) - age
            over = issues.c.state.in_([IssueState.FINISHED, IssueState.EXPIRED])
            rows = connection.execute(select(issues).where(over, issues.c.finished_at >= since))
            return [issue_from(row) for row in rows]

    def left_pending(self) -> Sequence[Issue]:
        """Cancelled and expired issues to which a worker gave something back after they were stopped."""
        pending = exists().where(chunks.c.issue_id == issues.c.id, chunks.c.pending > 0)
        over = issues.c.state.in_([IssueState.CANCELLED, IssueState.EXPIRED])
        with self.database.read() as connection:
            return [issue_from(row) for row in connection.execute(select(issues).where(over, pending))]

    def close_finished(self) -> Sequence[Issue]:
        """Marks the issues finished in which nothing is pending or being sent; returns them."""
        still = exists().where(
            chunks.c.issue_id == issues.c.id, or_(chunks.c.pending > 0, chunks.c.sending > 0)
        )
        # Locked first, looked at second: a resend that commits in between must be seen.
        going = (
            select(issues.c.id).where(issues.c.state == IssueState.SENDING).with_for_update(skip_locked=True)
        )
        with self.database.write() as connection:
            held = [row.id for row in connection.execute(going)]
            rows = connection.execute(
                update(issues)
                .where(issues.c.id.in_(held), issues.c.state == IssueState.SENDING, ~still)
                .values(state=IssueState.FINISHED, finished_at=self.database.now(connection))
                .returning(*issues.c)
            ).all()
        return [issue_from(row) for row in rows]
