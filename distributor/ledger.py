"""Issues, messages, chunks, deliveries and attempts: what was planned, what was tried, how it ended.

Every change of a delivery's state goes through here, together with its chunk's counters, in one transaction. What a
worker writes is fenced by its lease: `finish` and `begin` raise LeaseLost when somebody else holds the chunk by now.
"""

import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from sqlalchemy import (
    Connection,
    Select,
    Table,
    and_,
    case,
    delete,
    exists,
    func,
    insert,
    literal,
    null,
    or_,
    select,
    update,
)

from distributor.db import (
    Database,
    attempts,
    channel_stops,
    chunks,
    deliveries,
    heartbeats,
    insert_ignore,
    issue_channels,
    issues,
    messages,
    resends,
    subscribers,
    subscriptions,
    suppressions,
    ticks,
)
from distributor.errors import DistributorError, RequestRefused
from distributor.model import (
    Chunk,
    Delivery,
    DeliveryId,
    DeliveryState,
    Issue,
    IssueState,
    Message,
    OpenedBy,
    Outcome,
    Recipient,
    ResendScope,
    SkipReason,
    SubscriptionState,
    Tally,
    Trigger,
)

STATES = tuple(DeliveryState)
#: Deliveries written down in one transaction while an issue opens.
WINDOW = 50_000
LEASE_LOST_TEXT = "the worker that held it stopped answering; it may have gone"


class LeaseLost(DistributorError):
    """Another worker holds this chunk by now: nothing may be written, nothing more may be sent."""


@dataclass(frozen=True, kw_only=True)
class NewIssue:
    """What opening an issue needs to know."""

    newsletter: str
    local_date: date
    extra: int
    slug: str
    title: str
    post_hash: str
    opened_by: OpenedBy
    expires_in: timedelta
    messages: Sequence[Message]
    channels: Sequence[str]
    approval_in: timedelta | None = None
    waits_for_approval: bool = False


@dataclass(frozen=True, kw_only=True)
class ResendRequest:
    """What a person asks to put out again, and why."""

    scope: ResendScope
    reason: str
    by: str
    channel: str | None = None
    address: str | None = None


@dataclass(frozen=True)
class ChannelStop:
    """A channel that is not used for a while: its relay is down, its login refused."""

    reason: str
    stopped_at: datetime
    until: datetime


@dataclass(frozen=True, kw_only=True)
class Postponed:
    """A delivery that a slice did not come to: it goes back untried, due at once or at a time."""

    delivery: Delivery
    due_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One row of the log of a delivery."""

    number: int
    resend: int
    trigger: str
    outcome: str
    code: str
    text: str
    parts_sent: int
    started_at: datetime
    duration_ms: int
    retry_at: datetime | None
    worker: str
    reason: str | None


@dataclass(frozen=True, kw_only=True)
class LogEntry:
    """A delivery as the log shows it, with its attempts."""

    issue_id: int
    seq: int
    channel: str
    address: str
    destination: str | None
    variant: str
    state: DeliveryState
    reason: str | None
    tries: int
    resend: int
    parts_sent: int
    receipts: Sequence[str]
    code: str
    text: str
    due_at: datetime | None
    updated_at: datetime | None
    attempts: Sequence[Attempt] = ()


class Ledger:
    """The tables of issues and deliveries in one database."""

    def __init__(self, database: Database) -> None:
        self.database = database

    # ── issues ───────────────────────────────────────────────────────────────────────────────────────────────────

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
            return _issue(found), opened

    def _already_sent(self, connection: Connection, new: NewIssue) -> str:
        other = connection.execute(
            select(issues.c.id, issues.c.local_date).where(
                issues.c.newsletter == new.newsletter, issues.c.slug == new.slug
            )
        ).one()
        return (
            f"the post {new.slug!r} already went out as issue {other.id} on {other.local_date}; a post goes out once.\n"
            f"To reach those who missed it: distributor resend {other.id} --only missing --reason …"
        )

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
            [{"issue_id": issue_id, "channel": channel, "planned": 0} for channel in new.channels],
        )

    def issue(self, issue_id: int) -> Issue:
        """Raises RequestRefused when there is none."""
        with self.database.read() as connection:
            row = connection.execute(select(issues).where(issues.c.id == issue_id)).first()
        if row is None:
            raise RequestRefused(f"there is no issue {issue_id}; `distributor issues` lists them")
        return _issue(row)

    def issue_of(self, newsletter: str, day: date, extra: int = 0) -> Issue | None:
        with self.database.read() as connection:
            row = connection.execute(
                select(issues).where(
                    issues.c.newsletter == newsletter, issues.c.local_date == day, issues.c.extra == extra
                )
            ).first()
        return _issue(row) if row else None

    def sent_as(self, newsletter: str, slug: str) -> Issue | None:
        """The issue that a post went out as."""
        with self.database.read() as connection:
            row = connection.execute(
                select(issues).where(issues.c.newsletter == newsletter, issues.c.slug == slug)
            ).first()
        return _issue(row) if row else None

    def next_extra(self, newsletter: str, day: date) -> int:
        with self.database.read() as connection:
            highest = connection.execute(
                select(func.max(issues.c.extra)).where(
                    issues.c.newsletter == newsletter, issues.c.local_date == day
                )
            ).scalar()
        return (highest or 0) + 1

    def issues(
        self, newsletter: str | None = None, *, states: Iterable[IssueState] = (), limit: int = 50
    ) -> Sequence[Issue]:
        """The newest first."""
        query = select(issues).order_by(issues.c.id.desc()).limit(limit)
        if newsletter:
            query = query.where(issues.c.newsletter == newsletter)
        if states := list(states):
            query = query.where(issues.c.state.in_(states))
        with self.database.read() as connection:
            return [_issue(row) for row in connection.execute(query)]

    def previous_size(self, newsletter: str, channel: str) -> int | None:
        """How many the newest earlier issue planned on this channel; None without one."""
        with self.database.read() as connection:
            return connection.execute(
                select(issue_channels.c.planned)
                .join(issues, issues.c.id == issue_channels.c.issue_id)
                .where(
                    issues.c.newsletter == newsletter,
                    issue_channels.c.channel == channel,
                    issues.c.frozen_at.is_not(None),
                )
                .order_by(issues.c.id.desc())
                .limit(1)
            ).scalar_one_or_none()

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
            skipped = connection.execute(
                update(deliveries)
                .where(deliveries.c.issue_id == issue_id, deliveries.c.state == DeliveryState.PENDING)
                .values(state=DeliveryState.SKIPPED, reason=reason, updated_at=now)
            ).rowcount
            self._recount(connection, chunks.c.issue_id == issue_id)
            return skipped

    def skip_leftovers(self) -> None:
        """Skips what a worker gave back as pending after its issue was cancelled or had expired."""
        reasons = {IssueState.CANCELLED: SkipReason.CANCELLED, IssueState.EXPIRED: SkipReason.EXPIRED}
        with self.database.read() as connection:
            left = connection.execute(
                select(issues.c.id, issues.c.state)
                .join(chunks, chunks.c.issue_id == issues.c.id)
                .where(issues.c.state.in_(list(reasons)), chunks.c.pending > 0)
                .distinct()
            ).all()
        for row in left:
            self.stop_issue(row.id, IssueState(row.state), reasons[IssueState(row.state)])

    def overdue(self) -> Sequence[Issue]:
        """Issues that are still going although they are too old to be news."""
        going = [IssueState.WAITING, IssueState.OPENING, IssueState.SENDING]
        with self.database.read() as connection:
            now = self.database.now(connection)
            return [
                _issue(row)
                for row in connection.execute(
                    select(issues).where(issues.c.state.in_(going), issues.c.expires_at <= now)
                )
            ]

    def left_pending(self) -> Sequence[Issue]:
        """Cancelled and expired issues to which a worker gave something back after they were stopped."""
        pending = exists().where(chunks.c.issue_id == issues.c.id, chunks.c.pending > 0)
        over = issues.c.state.in_([IssueState.CANCELLED, IssueState.EXPIRED])
        with self.database.read() as connection:
            return [_issue(row) for row in connection.execute(select(issues).where(over, pending))]

    def close_finished(self) -> Sequence[Issue]:
        """Marks the issues finished in which nothing is pending or being sent; returns them."""
        still = exists().where(chunks.c.issue_id == issues.c.id, chunks.c.pending + chunks.c.sending > 0)
        with self.database.write() as connection:
            rows = connection.execute(
                update(issues)
                .where(issues.c.state == IssueState.SENDING, ~still)
                .values(state=IssueState.FINISHED, finished_at=self.database.now(connection))
                .returning(*issues.c)
            ).all()
        return [_issue(row) for row in rows]

    # ── opening: the audience is written down ────────────────────────────────────────────────────────────────────

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
        self,
        issue_id: int,
        planned: Callable[[datetime], Mapping[str, Select[Any]]],
        fixed: Mapping[str, int],
    ) -> datetime:
        """Fixes the moment and the number of recipients, once; a second call returns the first one's moment.

        `planned(moment)` gives each channel's audience as of the moment; `fixed` the number of its destinations.
        """
        with self.database.write() as connection:
            frozen: datetime | None = connection.execute(
                select(issues.c.frozen_at).where(issues.c.id == issue_id)
            ).scalar_one()
            if frozen:
                return frozen
            now = self.database.now(connection)
            audiences = planned(now)
            for channel, destinations in fixed.items():
                number = destinations
                if channel in audiences:
                    counted = select(func.count()).select_from(audiences[channel].subquery())
                    number += connection.execute(counted).scalar_one()
                connection.execute(
                    update(issue_channels)
                    .where(issue_channels.c.issue_id == issue_id, issue_channels.c.channel == channel)
                    .values(planned=number)
                )
            connection.execute(update(issues).where(issues.c.id == issue_id).values(frozen_at=now))
            return now

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
                connection.execute(insert(deliveries), [_new_delivery(issue_id, seq, recipient)])
                self._add_chunks(
                    connection, issue_id, recipient.channel, f"to:{recipient.destination}", seq, seq, 1, None
                )

    def write_window(
        self,
        issue_id: int,
        channel: str,
        pace_group: str,
        audience: Select[Any],
        *,
        token: str,
        lease: timedelta,
        chunk: int,
        window: int = WINDOW,
    ) -> int:
        """Writes the next window of an audience (deliveries and their chunks) in one transaction.

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
            who = audience.subquery("who")
            page = (
                select(who.c.subscriber_id, who.c.address)
                .where(who.c.subscriber_id > after)
                .order_by(who.c.subscriber_id)
                .limit(window)
                .subquery("page")
            )
            values = _delivery_defaults()
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
                self._add_chunks(
                    connection, issue_id, channel, pace_group, base + 1, base + written, chunk, upto
                )
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

    def _fence_opening(self, connection: Connection, issue_id: int, token: str, lease: timedelta) -> None:
        until = self.database.now(connection) + lease
        mine = update(issues).where(*_opening(issue_id, token)).values(lease_until=until)
        if not connection.execute(mine).rowcount:
            raise LeaseLost(
                f"the audience of issue {issue_id} is written down by another process, or cancelled"
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
    ) -> None:
        now = self.database.now(connection)
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
                    "pending": min(start + size - 1, hi) - start + 1,
                    **dict.fromkeys(("sending", "sent", "failed", "unconfirmed", "skipped"), 0),
                }
                for start in range(lo, hi + 1, size)
            ],
        )

    # ── leases ───────────────────────────────────────────────────────────────────────────────────────────────────

    def lease(self, channel: str, owner: str, duration: timedelta) -> Chunk | None:
        """The chunk that has been due the longest, ours until the lease runs out; None when nothing is due."""
        with self.database.write() as connection:
            now = self.database.now(connection)
            due = (
                select(chunks.c.id)
                .join(issues, issues.c.id == chunks.c.issue_id)
                .where(
                    chunks.c.channel == channel,
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
        return _chunk(row) if row else None

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
            self._fence(connection, chunk, chunks.c.lease_until > now, lease_until=now + duration)
            stopped = connection.execute(
                select(issues.c.id).where(
                    issues.c.id == chunk.issue_id,
                    or_(issues.c.paused, issues.c.state.not_in([IssueState.OPENING, IssueState.SENDING])),
                )
            ).first()
            if stopped:
                return (), ()
            found = [_delivery(row) for row in connection.execute(_due_rows(chunk, now, size))]
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
                connection, chunk.id, {"pending": -len(found), "sending": len(going), "skipped": len(skipped)}
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
                        *_is(identity),
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
            next_due = connection.execute(
                select(func.min(func.coalesce(deliveries.c.due_at, now))).where(
                    deliveries.c.issue_id == chunk.issue_id,
                    deliveries.c.seq.between(chunk.lo, chunk.hi),
                    deliveries.c.state == DeliveryState.PENDING,
                )
            ).scalar()
            # SQLite hands MIN over as text; the column's type reads it back.
            due = _as_utc(next_due)
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
        found = [_delivery(item) for item in connection.execute(_delivery_columns().where(in_doubt))]
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

    def _fence(self, connection: Connection, chunk: Chunk, *also: Any, **values: Any) -> None:
        """The row is locked and still ours, or LeaseLost."""
        held = connection.execute(
            update(chunks)
            .where(chunks.c.id == chunk.id, chunks.c.lease_token == chunk.token, *also)
            .values(values or {"lease_token": chunk.token})
        ).rowcount
        if not held:
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
            (deliveries, list(_is(delivery.identity)), [deliveries.c.issue_id == issue_id]),
        )
        for table, which, within in moving:
            there = select(table.c.address).where(
                table.c.channel == channel, table.c.address == address, *within
            )
            if not connection.execute(there).first():
                connection.execute(update(table).where(*which).values(address=address))

    def _set(self, connection: Connection, delivery: Delivery, **values: Any) -> None:
        connection.execute(update(deliveries).where(*_is(delivery.identity)).values(**values))

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
            [_attempt_row(outcome, numbers[outcome.delivery.identity.seq], worker) for outcome in outcomes],
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

    def _move(self, connection: Connection, chunk_id: int, moved: Mapping[str, int]) -> None:
        values = {name: chunks.c[name] + by for name, by in moved.items() if by}
        if values:
            connection.execute(update(chunks).where(chunks.c.id == chunk_id).values(**values))

    def _recount(self, connection: Connection, which: Any) -> None:
        """Sets the counters of some chunks from their rows."""
        for row in connection.execute(
            select(chunks.c.id, chunks.c.issue_id, chunks.c.lo, chunks.c.hi).where(which)
        ).all():
            counted = dict.fromkeys(STATES, 0)
            for state, number in connection.execute(
                select(deliveries.c.state, func.count())
                .where(deliveries.c.issue_id == row.issue_id, deliveries.c.seq.between(row.lo, row.hi))
                .group_by(deliveries.c.state)
            ):
                counted[DeliveryState(state)] = number
            connection.execute(
                update(chunks).where(chunks.c.id == row.id).values(**{str(k): v for k, v in counted.items()})
            )

    def due_channels(self) -> Mapping[str, int]:
        """Channel → chunks that a worker could take now."""
        with self.database.read() as connection:
            now = self.database.now(connection)
            rows = connection.execute(
                select(chunks.c.channel, func.count())
                .join(issues, issues.c.id == chunks.c.issue_id)
                .where(
                    chunks.c.due_at <= now,
                    chunks.c.lease_token.is_(None),
                    issues.c.state.in_([IssueState.OPENING, IssueState.SENDING]),
                    issues.c.paused.is_(False),
                    issues.c.expires_at > now,
                )
                .group_by(chunks.c.channel)
            )
            return {row[0]: row[1] for row in rows}

    # ── what a send needs ────────────────────────────────────────────────────────────────────────────────────────

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
                found.setdefault(key, []).append(_message(row))
        return found

    # ── counting and looking ─────────────────────────────────────────────────────────────────────────────────────

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
        return [_log_entry(row, tried.get((row.issue_id, row.seq), ())) for row in rows]

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
                found.setdefault((row.issue_id, row.seq), []).append(_attempt(row))
        return found

    # ── a person's choices ───────────────────────────────────────────────────────────────────────────────────────

    def resend_count(self, issue: Issue, asked: ResendRequest) -> Mapping[str, int]:
        """Channel → how many a resend of existing deliveries would reach."""
        with self.database.read() as connection:
            query = _resendable(issue, asked)
            counted = select(query.c.channel, func.count()).group_by(query.c.channel)
            return {row[0]: row[1] for row in connection.execute(counted)}

    def resend(self, issue: Issue, asked: ResendRequest, grace: timedelta) -> int:
        """Makes failed, unconfirmed, expired or (scope all) sent deliveries pending again, under a new resend number.

        A failed or unconfirmed one resumes at the part it stopped at; a sent one starts anew. Returns how many.
        """
        with self.database.write() as connection:
            self._lock(connection, issue.id)
            now = self.database.now(connection)
            found = [row.seq for row in connection.execute(select(_resendable(issue, asked)))]
            if not found:
                return 0
            resend_id = self._record_resend(connection, issue, asked, len(found), now)
            anew = deliveries.c.state == DeliveryState.SENT
            none = literal([], deliveries.c.receipts.type)
            for start in range(0, len(found), 500):
                connection.execute(
                    update(deliveries)
                    .where(
                        deliveries.c.issue_id == issue.id, deliveries.c.seq.in_(found[start : start + 500])
                    )
                    .values(
                        state=DeliveryState.PENDING,
                        reason=None,
                        parts_sent=case((anew, 0), else_=deliveries.c.parts_sent),
                        receipts=case((anew, none), else_=deliveries.c.receipts),
                        resend=deliveries.c.resend + 1,
                        resend_id=resend_id,
                        tries=0,
                        first_try_at=None,
                        due_at=None,
                        updated_at=now,
                    )
                )
            self._reopen(connection, issue, now, grace)
            return len(found)

    def add_missing(
        self,
        issue: Issue,
        asked: ResendRequest,
        audiences: Mapping[str, Select[Any]],
        *,
        chunk: int,
        grace: timedelta,
    ) -> int:
        """Plans deliveries to those who are in the audience now and were not when it was frozen. Returns how many."""
        with self.database.write() as connection:
            self._lock(connection, issue.id)
            now = self.database.now(connection)
            found = {
                channel: connection.execute(self._missing(issue, channel, audience)).all()
                for channel, audience in audiences.items()
            }
            added = sum(len(rows) for rows in found.values())
            if not added:
                return 0
            resend_id = self._record_resend(connection, issue, asked, added, now)
            for channel, rows in found.items():
                first = self._next_seq(connection, issue.id)
                new = [
                    _new_delivery(
                        issue.id,
                        first + number,
                        Recipient(channel=channel, address=row.address, subscriber_id=row.subscriber_id),
                        resend_id,
                    )
                    for number, row in enumerate(rows)
                ]
                if not new:
                    continue
                connection.execute(insert(deliveries), new)
                self._add_chunks(
                    connection, issue.id, channel, "missing", first, first + len(new) - 1, chunk, None
                )
                connection.execute(
                    update(issue_channels)
                    .where(issue_channels.c.issue_id == issue.id, issue_channels.c.channel == channel)
                    .values(planned=issue_channels.c.planned + len(new))
                )
            self._reopen(connection, issue, now, grace)
            return added

    def missing_count(self, issue: Issue, channel: str, audience: Select[Any]) -> int:
        with self.database.read() as connection:
            missing = self._missing(issue, channel, audience).subquery()
            return connection.execute(select(func.count()).select_from(missing)).scalar_one()

    def _missing(self, issue: Issue, channel: str, audience: Select[Any]) -> Select[Any]:
        who = audience.subquery("who")
        there = exists().where(
            deliveries.c.issue_id == issue.id,
            deliveries.c.channel == channel,
            deliveries.c.address == who.c.address,
        )
        return select(who.c.subscriber_id, who.c.address).where(~there).order_by(who.c.subscriber_id)

    def resolve(self, issue_id: int, seq: int, *, sent: bool, by: str) -> None:
        """Settles an unconfirmed delivery by a person's word. Raises RequestRefused when it is not unconfirmed."""
        with self.database.write() as connection:
            self._lock(connection, issue_id)
            changed = connection.execute(
                update(deliveries)
                .where(
                    deliveries.c.issue_id == issue_id,
                    deliveries.c.seq == seq,
                    deliveries.c.state == DeliveryState.UNCONFIRMED,
                )
                .values(
                    state=DeliveryState.SENT if sent else DeliveryState.FAILED,
                    code="resolved",
                    text=f"{by} says it was {'sent' if sent else 'not sent'}",
                    updated_at=self.database.now(connection),
                )
            ).rowcount
            if not changed:
                raise RequestRefused(
                    f"delivery {issue_id}.{seq} is not unconfirmed; "
                    f"`distributor log {issue_id} --state unconfirmed` lists those that are"
                )
            self._recount(
                connection, and_(chunks.c.issue_id == issue_id, chunks.c.lo <= seq, chunks.c.hi >= seq)
            )

    def _record_resend(
        self, connection: Connection, issue: Issue, asked: ResendRequest, number: int, now: datetime
    ) -> int:
        row = connection.execute(
            insert(resends)
            .values(
                issue_id=issue.id,
                scope=asked.scope,
                channel=asked.channel,
                address=asked.address,
                reason=asked.reason,
                asked_by=asked.by,
                asked_at=now,
                deliveries=number,
            )
            .returning(resends.c.id)
        )
        return int(row.scalar_one())

    def _reopen(self, connection: Connection, issue: Issue, now: datetime, grace: timedelta) -> None:
        self._recount(connection, chunks.c.issue_id == issue.id)
        connection.execute(
            update(chunks)
            .where(chunks.c.issue_id == issue.id, chunks.c.pending > 0, chunks.c.lease_token.is_(None))
            .values(due_at=now)
        )
        connection.execute(
            update(issues)
            .where(issues.c.id == issue.id)
            .values(
                state=case(
                    (issues.c.state == IssueState.OPENING, IssueState.OPENING), else_=IssueState.SENDING
                ),
                expires_at=now + grace,
                finished_at=None,
            )
        )

    # ── channels, ticks, processes, retention ────────────────────────────────────────────────────────────────────

    def stop_channel(self, channel: str, reason: str, wait: timedelta) -> tuple[int, datetime] | None:
        """Nothing goes out on a channel for a while. Returns (how often in a row, until when); None when it is
        stopped already."""
        with self.database.write() as connection:
            now = self.database.now(connection)
            row = {"channel": channel, "reason": reason, "stopped_at": now, "until": now, "times": 0}
            insert_ignore(self.database, channel_stops, [row], connection)
            result = connection.execute(
                update(channel_stops)
                .where(channel_stops.c.channel == channel, channel_stops.c.until <= now)
                .values(reason=reason, until=now + wait, times=channel_stops.c.times + 1)
                .returning(channel_stops.c.times, channel_stops.c.until)
            ).first()
        return (result.times, result.until) if result else None

    def channel_stopped(self, channel: str) -> bool:
        """Whether nothing may go out on a channel now."""
        with self.database.read() as connection:
            until = select(channel_stops.c.until).where(channel_stops.c.channel == channel)
            found = connection.execute(until).scalar_one_or_none()
            return found is not None and found > self.database.now(connection)

    def stop_count(self, channel: str) -> int:
        """How often in a row a channel has been stopped."""
        with self.database.read() as connection:
            times = select(channel_stops.c.times).where(channel_stops.c.channel == channel)
            return connection.execute(times).scalar_one_or_none() or 0

    def resume_channel(self, channel: str) -> bool:
        """The channel may be used; True when it had been stopped."""
        with self.database.read() as connection:
            if not connection.execute(
                select(channel_stops.c.channel).where(channel_stops.c.channel == channel)
            ).first():
                return False
        with self.database.write() as connection:
            return (
                connection.execute(delete(channel_stops).where(channel_stops.c.channel == channel)).rowcount
                == 1
            )

    def stopped_channels(self) -> Mapping[str, ChannelStop]:
        """Channel → its stop. One whose time is over is still listed, until a send succeeds."""
        with self.database.read() as connection:
            return {
                row.channel: ChannelStop(row.reason, row.stopped_at, row.until)
                for row in connection.execute(select(channel_stops))
            }

    def record_tick(self, newsletter: str, day: date, decision: str, detail: str) -> bool:
        """Notes what the scheduler decided; repeated decisions are counted. True the first time."""
        with self.database.write() as connection:
            now = self.database.now(connection)
            key = {"newsletter": newsletter, "local_date": day, "decision": decision, "detail": detail}
            first = insert_ignore(
                self.database, ticks, [{**key, "first_at": now, "last_at": now, "count": 0}], connection
            )
            connection.execute(
                update(ticks)
                .where(*(ticks.c[name] == value for name, value in key.items()))
                .values(last_at=now, count=ticks.c.count + 1)
            )
            return first == 1

    def watched_since(self, newsletter: str) -> datetime | None:
        """When a scheduler first looked after this newsletter."""
        with self.database.read() as connection:
            first = select(func.min(ticks.c.first_at)).where(ticks.c.newsletter == newsletter)
            return _as_utc(connection.execute(first).scalar())

    def ticks(self, newsletter: str, limit: int = 20) -> Sequence[Mapping[str, Any]]:
        """What the scheduler decided lately, the newest first."""
        query = (
            select(ticks)
            .where(ticks.c.newsletter == newsletter)
            .order_by(ticks.c.last_at.desc(), ticks.c.id.desc())
        )
        with self.database.read() as connection:
            return [dict(row) for row in connection.execute(query.limit(limit)).mappings()]

    def beat(self, role: str, name: str) -> None:
        """A process says that it lives."""
        with self.database.write() as connection:
            now = self.database.now(connection)
            if not insert_ignore(
                self.database, heartbeats, [{"role": role, "name": name, "seen_at": now}], connection
            ):
                connection.execute(
                    update(heartbeats)
                    .where(heartbeats.c.role == role, heartbeats.c.name == name)
                    .values(seen_at=now)
                )

    def last_beat(self, role: str) -> timedelta | None:
        """How long ago a process of that role was heard of; None when never."""
        with self.database.read() as connection:
            seen = connection.execute(
                select(func.max(heartbeats.c.seen_at)).where(heartbeats.c.role == role)
            ).scalar()
            return self.database.now(connection) - moment if (moment := _as_utc(seen)) else None

    def forget(
        self, *, deliveries_after: timedelta, attempts_after: timedelta, ticks_after: timedelta
    ) -> None:
        """Retention: drops what is older than it may be. The issues' own rows stay: they are small, and the history."""
        with self.database.write() as connection:
            now = self.database.now(connection)
            for table, age in ((attempts, attempts_after), (deliveries, deliveries_after)):
                young = or_(issues.c.finished_at.is_(None), issues.c.finished_at >= now - age)
                keep_from = connection.execute(select(func.min(issues.c.id)).where(young)).scalar()
                newest = connection.execute(select(func.max(issues.c.id))).scalar() or 0
                self.database.drop_issues(connection, table, keep_from or newest + 1)
            connection.execute(delete(ticks).where(ticks.c.last_at < now - ticks_after))


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
        _delivery_columns()
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


def _resendable(issue: Issue, asked: ResendRequest) -> Any:
    """Deliveries a resend may touch: in the right state, and neither left nor suppressed."""
    states = {
        ResendScope.FAILED: [DeliveryState.FAILED],
        ResendScope.UNCONFIRMED: [DeliveryState.UNCONFIRMED],
        ResendScope.EXPIRED: [DeliveryState.SKIPPED],
        ResendScope.ALL: [DeliveryState.FAILED, DeliveryState.UNCONFIRMED, DeliveryState.SENT],
    }[asked.scope]
    stays = exists().where(
        subscriptions.c.subscriber_id == deliveries.c.subscriber_id,
        subscriptions.c.newsletter == issue.newsletter,
        subscriptions.c.state == SubscriptionState.ACTIVE,
    )
    barred = exists().where(
        suppressions.c.channel == deliveries.c.channel, suppressions.c.address == deliveries.c.address
    )
    query = select(deliveries.c.seq, deliveries.c.channel, deliveries.c.address, deliveries.c.state).where(
        deliveries.c.issue_id == issue.id,
        deliveries.c.state.in_(states),
        or_(deliveries.c.state != DeliveryState.SKIPPED, deliveries.c.reason == SkipReason.EXPIRED),
        or_(deliveries.c.subscriber_id.is_(None), and_(stays, ~barred)),
    )
    if asked.channel:
        query = query.where(deliveries.c.channel == asked.channel)
    if asked.address:
        query = query.where(deliveries.c.address == asked.address)
    return query.subquery()


def _delivery_columns() -> Select[Any]:
    return select(
        deliveries.c.issue_id,
        deliveries.c.seq,
        deliveries.c.resend,
        deliveries.c.channel,
        deliveries.c.address,
        deliveries.c.variant,
        deliveries.c.subscriber_id,
        deliveries.c.destination,
        deliveries.c.tries,
        deliveries.c.resend_id,
        deliveries.c.first_try_at,
        deliveries.c.parts_sent,
        deliveries.c.receipts,
    )


def _delivery_defaults() -> dict[str, Any]:
    return {
        "variant": "default",
        "state": DeliveryState.PENDING,
        "tries": 0,
        "attempts": 0,
        "resend": 0,
        "parts_sent": 0,
        "receipts": [],
        "code": "",
        "text": "",
    }


def _new_delivery(
    issue_id: int, seq: int, recipient: Recipient, resend_id: int | None = None
) -> dict[str, Any]:
    return {
        **_delivery_defaults(),
        "issue_id": issue_id,
        "seq": seq,
        "channel": recipient.channel,
        "address": recipient.address,
        "variant": recipient.variant,
        "subscriber_id": recipient.subscriber_id,
        "destination": recipient.destination,
        "resend_id": resend_id,
    }


def _as_utc(value: datetime | str | None) -> datetime | None:
    """An aggregate over a time: SQLite gives the stored text back, without the column's type."""
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if value is None:
        return None
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _opening(issue_id: int, token: str) -> Iterator[Any]:
    yield issues.c.id == issue_id
    yield issues.c.lease_token == token
    yield issues.c.state == IssueState.OPENING


def _is(identity: DeliveryId) -> Iterator[Any]:
    yield deliveries.c.issue_id == identity.issue_id
    yield deliveries.c.seq == identity.seq


def _delivery(row: Any) -> Delivery:
    skip = getattr(row, "skip", None)
    return Delivery(
        identity=DeliveryId(row.issue_id, row.seq, row.resend),
        recipient=Recipient(
            channel=row.channel,
            address=row.address,
            variant=row.variant,
            subscriber_id=row.subscriber_id,
            destination=row.destination,
            token=getattr(row, "token", None),
        ),
        tries=row.tries,
        first_try_at=row.first_try_at,
        parts_sent=row.parts_sent,
        receipts=tuple(row.receipts),
        resend_id=row.resend_id,
        skip=SkipReason(skip) if skip else None,
    )


def _attempt_row(outcome: Outcome, number: int, worker: str) -> dict[str, Any]:
    delivery = outcome.delivery
    first = delivery.first_try_at is None
    begun = Trigger.SCHEDULED if delivery.resend_id is None else Trigger.RESEND
    return {
        "issue_id": delivery.identity.issue_id,
        "seq": delivery.identity.seq,
        "number": number,
        "resend": delivery.identity.resend,
        "resend_id": delivery.resend_id,
        "trigger": begun if first else Trigger.RETRY,
        "outcome": outcome.state,
        "code": outcome.code,
        "text": outcome.text,
        "receipts": list(outcome.receipts),
        "parts_sent": outcome.parts_sent,
        "started_at": outcome.started_at,
        "duration_ms": outcome.duration_ms,
        "retry_at": outcome.retry_at,
        "worker": worker,
    }


def _attempt(row: Any) -> Attempt:
    return Attempt(
        number=row.number,
        resend=row.resend,
        trigger=row.trigger,
        outcome=row.outcome,
        code=row.code,
        text=row.text,
        parts_sent=row.parts_sent,
        started_at=row.started_at,
        duration_ms=row.duration_ms,
        retry_at=row.retry_at,
        worker=row.worker,
        reason=row.why,
    )


def _log_entry(row: Any, tried: Sequence[Attempt]) -> LogEntry:
    return LogEntry(
        issue_id=row.issue_id,
        seq=row.seq,
        channel=row.channel,
        address=row.address,
        destination=row.destination,
        variant=row.variant,
        state=DeliveryState(row.state),
        reason=row.reason,
        tries=row.tries,
        resend=row.resend,
        parts_sent=row.parts_sent,
        receipts=tuple(row.receipts),
        code=row.code,
        text=row.text,
        due_at=row.due_at,
        updated_at=row.updated_at,
        attempts=tried,
    )


def _chunk(row: Any) -> Chunk:
    return Chunk(
        id=row.id,
        issue_id=row.issue_id,
        channel=row.channel,
        pace_group=row.pace_group,
        lo=row.lo,
        hi=row.hi,
        token=row.lease_token,
    )


def _message(row: Any) -> Message:
    return Message(
        channel=row.channel,
        variant=row.variant,
        content=row.content,
        part=row.part,
        parts=row.parts,
        placeholders=tuple(row.placeholders),
    )


def _issue(row: Any) -> Issue:
    return Issue(
        id=row.id,
        newsletter=row.newsletter,
        local_date=row.local_date,
        extra=row.extra,
        slug=row.slug,
        title=row.title,
        post_hash=row.post_hash,
        state=IssueState(row.state),
        opened_by=OpenedBy(row.opened_by),
        opened_at=row.opened_at,
        expires_at=row.expires_at,
        frozen_at=row.frozen_at,
        finished_at=row.finished_at,
        approved_by=row.approved_by,
        paused=bool(row.paused),
    )
