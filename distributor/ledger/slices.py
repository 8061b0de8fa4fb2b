"""The hot path: a lane commits the intent for a slice of its chunk, and how the slice before ended.

One transaction a slice does both. The statements are few and their number does not depend on the size of the slice: at
twenty thousand messages a second a statement a row would be the whole budget.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import (
    Connection,
    Integer,
    Select,
    Table,
    Text,
    and_,
    bindparam,
    case,
    func,
    insert,
    null,
    or_,
    select,
    update,
)

from distributor.db import insert_ignore
from distributor.journal import as_json
from distributor.ledger.rows import delivery_columns, delivery_from, is_delivery
from distributor.ledger.statements import SETTLE, TURN
from distributor.ledger.tables import Tables
from distributor.ledger.values import LeaseLost, Postponed
from distributor.model import (
    Chunk,
    Delivery,
    DeliveryId,
    DeliveryState,
    IssueState,
    Outcome,
    Recipient,
    SkipReason,
    SubscriptionState,
    Trigger,
)
from distributor.tables import (
    JsonText,
    Utc,
    attempts,
    chunks,
    deliveries,
    issues,
    subscribers,
    subscriptions,
    suppressions,
)


class Slice(NamedTuple):
    """Deliveries whose intent is committed, and the number of the last one looked at (None: nothing more is due)."""

    deliveries: Sequence[Delivery]
    last: int | None


NOTHING_DUE = Slice((), None)


class Slices(Tables):
    """Intents and results of chunks that are leased."""

    def begin(self, chunk: Chunk, size: int, lease: timedelta, after: int = 0) -> Slice:
        """Commits the intent to send up to `size` due deliveries behind number `after`, and renews the lease.

        Those who left or are suppressed by now are skipped in the same transaction, and are not among them.
        Raises LeaseLost.
        """
        return self.turn(chunk, (), (), "", size, lease, after)

    def finish(
        self, chunk: Chunk, outcomes: Sequence[Outcome], unused: Sequence[Postponed], worker: str
    ) -> None:
        """Writes how a slice ended: states, attempts, suppressions, counters. `unused` go back untried.

        Raises LeaseLost when the chunk was taken back. A lease that merely ran out (the database was away for long)
        does not matter here: while the token stands, nobody else has touched the rows. Once written, a second call
        changes nothing: the answer to a commit may be lost.
        """
        with self.database.write() as connection:
            now, _going = self._fence(connection, chunk)
            self._move(connection, chunk, self._finish(connection, chunk, outcomes, unused, worker, now))

    def turn(
        self,
        chunk: Chunk,
        outcomes: Sequence[Outcome],
        unused: Sequence[Postponed],
        worker: str,
        size: int,
        lease: timedelta,
        after: int,
        noted: Sequence[str] | None = None,
    ) -> Slice:
        """`finish`, then `begin`, in one transaction: the next slice is in hand when the one before is written.

        `noted`: the outcomes as the journal has them, which spares writing them as JSON once more.
        """
        if not self.database.sqlite and not unused and not any(map(self._changes_more, outcomes)):
            entries = list(map(as_json, outcomes)) if noted is None else noted
            return self._turn_at_once(chunk, outcomes, entries, worker, size, lease, after)
        with self.database.write() as connection:
            now, going = self._fence(connection, chunk, alive=True)
            moved = self._finish(connection, chunk, outcomes, unused, worker, now)
            taken = self._begin(connection, chunk, size, after, now, moved) if going else NOTHING_DUE
            self._move(connection, chunk, moved, lease_until=now + lease)
        return taken

    def _turn_at_once(
        self,
        chunk: Chunk,
        outcomes: Sequence[Outcome],
        entries: Sequence[str],
        worker: str,
        size: int,
        lease: timedelta,
        after: int,
    ) -> Slice:
        """PostgreSQL: the same in one statement, which is its own transaction."""
        parameters = {
            "chunk": chunk.id,
            "token": chunk.token,
            "issue": chunk.issue_id,
            "after": max(after, chunk.lo - 1),
            "hi": chunk.hi,
            "size": size,
            "now": self.database.set_clock,
            "lease": lease.total_seconds(),
            "results": f"[{','.join(entries)}]",
            "worker": worker,
            **_span(outcomes),
        }
        with self.database.statement() as run:
            rows = run(TURN, parameters)
        if not rows:
            raise LeaseLost(
                f"chunk {chunk.id} of issue {chunk.issue_id} has another holder, or its lease ran out"
            )
        if rows[0][0] is None:
            return NOTHING_DUE
        begun = [_delivery(chunk.issue_id, *row) for row in rows if row[-1] is None]
        return Slice(begun, rows[-1][0])

    # ── intents ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _fence(self, connection: Connection, chunk: Chunk, *, alive: bool = False) -> tuple[datetime, bool]:
        """(the database's time, whether its issue may go on); the chunk is locked and still ours, or LeaseLost.

        Locked and not touched: a row that one transaction updates twice makes PostgreSQL see a deadlock with somebody
        who waits for its lock meanwhile. `alive`: the lease must not have run out either.
        """
        statement = _HELD_AND_CLOCK if self.database.has_clock else _HELD
        held = connection.execute(statement, {"id": chunk.id, "token": chunk.token}).first()
        if held is None:
            raise LeaseLost(f"chunk {chunk.id} of issue {chunk.issue_id} has another holder by now")
        now: datetime = held.now if self.database.has_clock else self.database.now(connection)
        if alive and held.lease_until <= now:
            raise LeaseLost(f"the lease of chunk {chunk.id} of issue {chunk.issue_id} ran out")
        return now, not held.paused and held.state in {IssueState.OPENING, IssueState.SENDING}

    def _begin(
        self,
        connection: Connection,
        chunk: Chunk,
        size: int,
        after: int,
        now: datetime,
        moved: Counter[str],
    ) -> Slice:
        span = {"issue": chunk.issue_id, "after": max(after, chunk.lo - 1), "now": now}
        rows = connection.execute(_DUE, {**span, "hi": chunk.hi, "size": size})
        found = [delivery_from(row) for row in rows]
        if not found:
            return NOTHING_DUE
        skipped = [delivery for delivery in found if delivery.skip]
        self._skip(connection, skipped, now)
        last = found[-1].identity.seq
        intended = connection.execute(_INTEND, {**span, "last": last}).rowcount
        going = [delivery for delivery in found if not delivery.skip]
        if intended != len(going):
            raise LeaseLost(f"deliveries of chunk {chunk.id} were changed by somebody who does not hold it")
        moved.update(
            {
                DeliveryState.PENDING: -len(found),
                DeliveryState.SENDING: len(going),
                DeliveryState.SKIPPED: len(skipped),
            }
        )
        return Slice(going, last)

    def _skip(self, connection: Connection, skipped: Sequence[Delivery], now: datetime) -> None:
        for delivery in skipped:
            connection.execute(
                update(deliveries)
                .where(*is_delivery(delivery.identity))
                .values(state=DeliveryState.SKIPPED, reason=delivery.skip, updated_at=now)
            )

    # ── results ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _finish(
        self,
        connection: Connection,
        chunk: Chunk,
        outcomes: Sequence[Outcome],
        unused: Sequence[Postponed],
        worker: str,
        now: datetime,
    ) -> Counter[str]:
        """What moved from state to state; nothing when all of it was written before."""
        settled = self._settle(connection, chunk.issue_id, outcomes, worker, now)
        returned = self._give_back(connection, chunk.issue_id, unused, now)
        moved = Counter(str(outcome.state) for outcome in outcomes) if settled else Counter()
        if settled:
            self._suppress(connection, chunk.channel, outcomes, now)
        moved[DeliveryState.PENDING] += returned
        moved[DeliveryState.SENDING] -= settled + returned
        return moved

    def _settle(
        self, connection: Connection, issue_id: int, outcomes: Sequence[Outcome], worker: str, now: datetime
    ) -> int:
        """Writes states and attempts of deliveries that are being sent; returns of how many."""
        if not outcomes:
            return 0
        write = self._settle_in_rows if self.database.sqlite else self._settle_in_bulk
        settled = write(connection, issue_id, outcomes, worker, now)
        for outcome in outcomes:
            if outcome.new_address:
                self._relocate(connection, outcome.delivery, outcome.new_address)
        if settled:
            self._announce(connection, issue_id, outcomes, now)
        return settled

    def _announce(
        self, connection: Connection, issue_id: int, outcomes: Sequence[Outcome], now: datetime
    ) -> None:
        told = [outcome for outcome in outcomes if self.webhooks.wants(f"delivery.{outcome.state}")]
        if not told:
            return
        query = select(issues.c.newsletter).where(issues.c.id == issue_id)
        newsletter = connection.execute(query).scalar_one()
        for outcome in told:
            kind, identity = f"delivery.{outcome.state}", str(outcome.delivery.identity)
            data = {
                "issue": issue_id,
                "delivery": identity,
                "channel": outcome.delivery.recipient.channel,
                "address": outcome.delivery.recipient.address,
                "code": outcome.code,
                "text": outcome.text,
            }
            self.webhooks.add(connection, kind, identity, newsletter, data, now)

    def _changes_more(self, outcome: Outcome) -> bool:
        """Whether an outcome is more than a state and an attempt."""
        return _changes_more(outcome) or self.webhooks.wants(f"delivery.{outcome.state}")

    def _settle_in_bulk(
        self, connection: Connection, issue_id: int, outcomes: Sequence[Outcome], worker: str, now: datetime
    ) -> int:
        """PostgreSQL: one statement, with all results in one JSON value (an array a column costs five times as much)."""
        results = f"[{','.join(map(as_json, outcomes))}]"
        parameters = {"results": results, "issue": issue_id, "now": now, "worker": worker, **_span(outcomes)}
        return connection.execute(SETTLE, parameters).rowcount

    def _settle_in_rows(
        self, connection: Connection, issue_id: int, outcomes: Sequence[Outcome], worker: str, now: datetime
    ) -> int:
        """SQLite: the statements are compiled once, and run in this process for each row."""
        rows = [_row(outcome, now) for outcome in outcomes]
        shared = {"b_issue": issue_id, "b_now": now, "b_worker": worker}
        settled = connection.execute(_SETTLE_ROW, [row | shared for row in rows]).rowcount
        if settled:
            connection.execute(_LOG_ROW, [row | shared for row in rows])
        return settled

    def _give_back(
        self, connection: Connection, issue_id: int, unused: Sequence[Postponed], now: datetime
    ) -> int:
        by_wait: dict[timedelta | None, list[int]] = {}
        for postponed in unused:
            by_wait.setdefault(postponed.due_in, []).append(postponed.delivery.identity.seq)
        return sum(
            connection.execute(
                update(deliveries)
                .where(
                    deliveries.c.issue_id == issue_id,
                    deliveries.c.seq.in_(numbers),
                    deliveries.c.state == DeliveryState.SENDING,
                )
                .values(state=DeliveryState.PENDING, due_at=None if wait is None else now + wait)
            ).rowcount
            for wait, numbers in by_wait.items()
        )

    def _relocate(self, connection: Connection, delivery: Delivery, address: str) -> None:
        """The recipient lives elsewhere now. A place that is known already keeps its own row, and so does this one."""
        channel, issue_id = delivery.recipient.channel, delivery.identity.issue_id
        moving: Sequence[tuple[Table, Sequence[Any], Sequence[Any]]] = (
            (subscribers, [subscribers.c.id == delivery.recipient.subscriber_id], []),
            (deliveries, list(is_delivery(delivery.identity)), [deliveries.c.issue_id == issue_id]),
        )
        for table, which, within in moving:
            there = select(table.c.address).where(
                table.c.channel == channel, table.c.address == address, *within
            )
            if not connection.execute(there).first():
                connection.execute(update(table).where(*which).values(address=address))

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

    def _move(self, connection: Connection, chunk: Chunk, moved: Counter[str], **more: Any) -> None:
        """Adds what moved to the chunk's counters: always the same statement, so that it is prepared once."""
        values: dict[str, Any] = {f"by_{state}": moved.get(state, 0) for state in DeliveryState}
        statement = _MOVE_AND_RENEW if more else _MOVE
        if more or any(values.values()):
            connection.execute(statement, {"id_": chunk.id, **values, **more})


_HELD = (
    select(chunks.c.lease_until, issues.c.paused, issues.c.state)
    .join(issues, issues.c.id == chunks.c.issue_id)
    .where(chunks.c.id == bindparam("id"), chunks.c.lease_token == bindparam("token"))
    .with_for_update(of=chunks)
)
_HELD_AND_CLOCK = _HELD.add_columns(func.clock_timestamp().label("now"))  # a round trip less

_MOVE = (
    update(chunks)
    .where(chunks.c.id == bindparam("id_"))
    .values(
        {chunks.c[state]: chunks.c[state] + bindparam(f"by_{state}") for state in map(str, DeliveryState)}
    )
)
_MOVE_AND_RENEW = _MOVE.values(lease_until=bindparam("lease_until"))


def _due() -> Select[Any]:
    """The next due deliveries of a chunk, each with the reason to skip it, if there is one by now."""
    left = and_(
        deliveries.c.subscriber_id.is_not(None),
        or_(subscriptions.c.state.is_(None), subscriptions.c.state != SubscriptionState.ACTIVE),
    )
    skip = case(
        (suppressions.c.id.is_not(None), SkipReason.SUPPRESSED), (left, SkipReason.UNSUBSCRIBED), else_=null()
    ).label("skip")
    mine = and_(
        subscriptions.c.subscriber_id == deliveries.c.subscriber_id,
        subscriptions.c.newsletter == issues.c.newsletter,
    )
    barred = and_(
        suppressions.c.channel == deliveries.c.channel,
        suppressions.c.address == deliveries.c.address,
        deliveries.c.subscriber_id.is_not(None),
    )
    return (
        delivery_columns()
        .add_columns(subscriptions.c.token, skip)
        .select_from(
            deliveries.join(issues, issues.c.id == deliveries.c.issue_id)
            .outerjoin(subscriptions, mine)
            .outerjoin(suppressions, barred)
        )
        .where(*_is_due(), deliveries.c.seq <= bindparam("hi"))
        .order_by(deliveries.c.seq)
        .limit(bindparam("size"))
    )


def _is_due() -> tuple[Any, ...]:
    return (
        deliveries.c.issue_id == bindparam("issue"),
        deliveries.c.seq > bindparam("after"),
        deliveries.c.state == DeliveryState.PENDING,
        or_(deliveries.c.due_at.is_(None), deliveries.c.due_at <= bindparam("now", type_=Utc)),
    )


_DUE = _due()
_INTEND = (
    update(deliveries)
    .where(*_is_due(), deliveries.c.seq <= bindparam("last"))
    .values(state=DeliveryState.SENDING, updated_at=bindparam("now", type_=Utc))
)


def _span(outcomes: Sequence[Outcome]) -> Mapping[str, int]:
    """The numbers between which the deliveries of a slice lie."""
    numbers = [outcome.delivery.identity.seq for outcome in outcomes]
    return {"first": min(numbers, default=0), "last": max(numbers, default=-1)}


def _changes_more(outcome: Outcome) -> bool:
    """Whether it changes more than its delivery."""
    return outcome.suppress is not None or outcome.new_address is not None


def _delivery(issue_id: int, seq: int, resend: int, *columns: Any) -> Delivery:
    """A row of TURN."""
    channel, address, variant, subscriber, place, tries, resend_id, first, parts, receipts, token, _skip = (
        columns
    )
    return Delivery(
        DeliveryId(issue_id, seq, resend),
        Recipient(channel, address, variant, subscriber, place, token),
        tries,
        first,
        parts,
        () if receipts == "[]" else tuple(json.loads(receipts)),
        resend_id,
    )


def _row(outcome: Outcome, now: datetime) -> dict[str, Any]:
    return {
        "b_seq": outcome.delivery.identity.seq,
        "b_state": outcome.state,
        "b_reason": outcome.reason,
        "b_counted": int(outcome.counts),
        "b_parts_sent": outcome.parts_sent,
        "b_receipts": outcome.receipts,
        "b_code": outcome.code,
        "b_text": outcome.text,
        "b_started_at": outcome.started_at,
        "b_duration_ms": outcome.duration_ms,
        "b_due": now + outcome.retry_in if outcome.retry_in is not None else None,
        "b_relay": outcome.relay,
    }


_ROW = (deliveries.c.issue_id == bindparam("b_issue"), deliveries.c.seq == bindparam("b_seq"))
_SETTLE_ROW = (
    update(deliveries)
    .where(*_ROW, deliveries.c.state == DeliveryState.SENDING)
    .values(
        state=bindparam("b_state"),
        reason=bindparam("b_reason"),
        tries=deliveries.c.tries + bindparam("b_counted"),
        attempts=deliveries.c.attempts + 1,
        parts_sent=bindparam("b_parts_sent"),
        receipts=bindparam("b_receipts", type_=JsonText),
        code=bindparam("b_code"),
        text=bindparam("b_text"),
        due_at=bindparam("b_due", type_=Utc),
        first_try_at=func.coalesce(deliveries.c.first_try_at, bindparam("b_started_at", type_=Utc)),
        updated_at=bindparam("b_now", type_=Utc),
    )
)
_LOG_ROW = insert(attempts).from_select(
    [
        "issue_id", "seq", "number", "resend", "resend_id", "trigger", "outcome", "code", "text", "receipts",
        "parts_sent", "started_at", "duration_ms", "retry_at", "worker", "relay",
    ],
    select(
        deliveries.c.issue_id,
        deliveries.c.seq,
        deliveries.c.attempts,
        deliveries.c.resend,
        deliveries.c.resend_id,
        case(
            (deliveries.c.first_try_at != bindparam("b_started_at", type_=Utc), Trigger.RETRY),
            (deliveries.c.resend_id.is_(None), Trigger.SCHEDULED),
            else_=Trigger.RESEND,
        ),
        deliveries.c.state,
        deliveries.c.code,
        deliveries.c.text,
        deliveries.c.receipts,
        deliveries.c.parts_sent,
        bindparam("b_started_at", type_=Utc),
        bindparam("b_duration_ms", type_=Integer),
        deliveries.c.due_at,
        bindparam("b_worker", type_=Text),
        bindparam("b_relay", type_=Text),
    ).where(*_ROW),
)  # fmt: skip
