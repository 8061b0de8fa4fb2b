"""Rows of the tables as values, and values as rows."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    Select,
    and_,
    select,
)

from distributor.ledger.values import Attempt, LogEntry, RecordedEvent
from distributor.model import (
    Chunk,
    Delivery,
    DeliveryId,
    DeliveryState,
    Issue,
    IssueState,
    Message,
    OpenedBy,
    Recipient,
    SkipReason,
)
from distributor.tables import chunks, deliveries


def as_utc(value: datetime | str | None) -> datetime | None:
    """An aggregate over a time: SQLite gives the stored text back, without the column's type."""
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if value is None:
        return None
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def is_delivery(identity: DeliveryId) -> Iterator[Any]:
    yield deliveries.c.issue_id == identity.issue_id
    yield deliveries.c.seq == identity.seq


def chunk_of(issue_id: int, seq: int) -> Any:
    """The chunk that a delivery is in."""
    return and_(chunks.c.issue_id == issue_id, chunks.c.lo <= seq, chunks.c.hi >= seq)


def delivery_columns() -> Select[Any]:
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


def delivery_defaults() -> dict[str, Any]:
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


def new_delivery(
    issue_id: int, seq: int, recipient: Recipient, resend_id: int | None = None
) -> dict[str, Any]:
    return {
        **delivery_defaults(),
        "issue_id": issue_id,
        "seq": seq,
        "channel": recipient.channel,
        "address": recipient.address,
        "variant": recipient.variant,
        "subscriber_id": recipient.subscriber_id,
        "destination": recipient.destination,
        "resend_id": resend_id,
    }


def delivery_from(row: Any) -> Delivery:
    """A row of `delivery_columns()`, with the token and the reason to skip it behind them when they were asked for."""
    (
        issue,
        seq,
        resend,
        channel,
        address,
        variant,
        subscriber,
        place,
        tries,
        resend_id,
        first,
        parts,
        receipts,
    ) = row[:13]
    token, skip = row[13:] or (None, None)
    return Delivery(
        DeliveryId(issue, seq, resend),
        Recipient(channel, address, variant, subscriber, place, token),
        tries,
        first,
        parts,
        tuple(receipts),
        resend_id,
        SkipReason(skip) if skip else None,
    )


def attempt_from(row: Any) -> Attempt:
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
        relay=row.relay,
        reason=row.why,
    )


def event_from(row: Any) -> RecordedEvent:
    return RecordedEvent(
        id=row.id,
        provider=row.provider,
        kind=row.kind,
        permanence=row.permanence,
        channel=row.channel,
        address=row.address,
        newsletter=row.newsletter,
        issue_id=row.issue_id,
        seq=row.seq,
        occurred_at=row.occurred_at,
        received_at=row.received_at,
        code=row.code,
        detail=row.detail,
    )


def log_entry_from(row: Any, tried: Sequence[Attempt], heard: Sequence[RecordedEvent] = ()) -> LogEntry:
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
        events=heard,
    )


def chunk_from(row: Any) -> Chunk:
    return Chunk(
        id=row.id,
        issue_id=row.issue_id,
        channel=row.channel,
        pace_group=row.pace_group,
        lo=row.lo,
        hi=row.hi,
        token=row.lease_token,
    )


def message_from(row: Any) -> Message:
    return Message(
        channel=row.channel,
        variant=row.variant,
        content=row.content,
        part=row.part,
        parts=row.parts,
        placeholders=tuple(row.placeholders),
    )


def issue_from(row: Any) -> Issue:
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
        hold=row.hold,
    )
