"""What the ledger is asked, and what it answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

from distributor.errors import DistributorError
from distributor.model import (
    Chunk,
    Delivery,
    DeliveryState,
    Message,
    OpenedBy,
    ResendScope,
)


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
    filters: Mapping[str, Sequence[str]] = field(
        default_factory=dict
    )  # channel → what its subscribers are chosen by


#: Who asks for a copy of their own: no person at the controls, who would wait for a report.
READER = "reader"


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


@dataclass(frozen=True)
class Lapsed:
    """A lease whose holder stopped answering, or is known to have ended; `host` is the journals' folder it named."""

    chunk: Chunk
    host: str | None
    ended: bool


@dataclass(frozen=True, kw_only=True)
class Postponed:
    """A delivery that a slice did not come to: it goes back untried, due at once or after a while."""

    delivery: Delivery
    due_in: timedelta | None = None


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
    relay: str | None
    reason: str | None


@dataclass(frozen=True, kw_only=True)
class RecordedEvent:
    """One row of the events: what was told, about whom, by whom."""

    id: int
    provider: str
    kind: str
    permanence: str | None
    channel: str
    address: str
    newsletter: str | None
    issue_id: int | None
    seq: int | None
    occurred_at: datetime
    received_at: datetime
    code: str | None
    detail: str


@dataclass(frozen=True, kw_only=True)
class LogEntry:
    """A delivery as the log shows it, with its attempts and what was heard of it later."""

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
    events: Sequence[RecordedEvent] = ()
