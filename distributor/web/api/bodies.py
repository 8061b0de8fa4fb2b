"""What calls send, and what they are answered."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Annotated

from fastapi import Path, Query
from pydantic import BaseModel, ConfigDict, Field

from distributor.model import DeliveryState, EventKind, IssueState, ResendScope, SubscriptionState
from distributor.web.fields import CLEAN

#: Larger ones are none of ours, and JavaScript could not write them.
LARGEST_NUMBER = 2**53 - 1
WORD = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"

Number = Annotated[int, Path(ge=1, le=LARGEST_NUMBER)]
Slug = Annotated[str, Path(pattern=WORD)]
Word = Annotated[str | None, Query(pattern=WORD)]
Address = Annotated[str, Field(min_length=1, max_length=254), CLEAN]
Sentence = Annotated[str, Field(max_length=500), CLEAN]


class Shown(BaseModel):
    """Made from one of our own values."""

    model_config = ConfigDict(from_attributes=True)


class SubscriptionOut(Shown):
    """A subscriber's link to one newsletter."""

    newsletter: str
    state: SubscriptionState
    source: str
    consent_at: datetime
    activated_at: datetime | None
    ended_at: datetime | None
    end_reason: str | None
    tags: Sequence[str]
    attributes: Mapping[str, str]


class SubscriberOut(Shown):
    """An address on a channel, and everything it subscribed to."""

    id: int
    channel: str
    address: str
    name: str
    language: str | None
    created_at: datetime
    suppressed: str | None = Field(description="why nothing is sent there; null: it is not suppressed")
    subscriptions: Sequence[SubscriptionOut]


class TagsIn(BaseModel):
    """What to change of a subscription's tags and attributes; an attribute of "" is taken away."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {"newsletter": "ai-daily", "add": ["beta"], "attributes": {"city": "北京"}}
        },
    )

    newsletter: Annotated[str, Field(pattern=WORD)]
    add: Annotated[Sequence[Sentence], Field(max_length=20)] = ()
    remove: Annotated[Sequence[Sentence], Field(max_length=20)] = ()
    attributes: Annotated[Mapping[Sentence, Sentence], Field(max_length=20)] = {}


class TagsOut(Shown):
    """A subscription's tags and attributes."""

    tags: Sequence[str]
    attributes: Mapping[str, str]


class SuppressIn(BaseModel):
    """An address that nothing is to be sent to, and why."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"example": {"address": "reader@readers.example", "note": "asked by telephone"}},
    )

    address: Address
    channel: Annotated[str, Field(pattern=WORD)] = "email"
    note: Sentence = ""


class AddressOut(BaseModel):
    """An address on a channel, in our spelling."""

    channel: str
    address: str


class PersonOut(BaseModel):
    """Everything that is kept about a person, in sections that `meanings` explains."""

    asked: Mapping[str, object]
    meanings: Mapping[str, str]
    places: Sequence[Mapping[str, object]]


class ForgottenOut(BaseModel):
    """What became of a person's traces."""

    places: Sequence[AddressOut] = Field(description="where the person was reached")
    deliveries: int = Field(description="they keep a hash instead of the address")
    skipped: int = Field(description="deliveries that had not been sent yet")
    calls: int = Field(
        description="webhook calls that name the person and are still to go out: call again when they have"
    )


class TallyOut(Shown):
    """Deliveries by state; planned is the sum of the others."""

    planned: int
    pending: int
    sending: int
    sent: int
    failed: int
    unconfirmed: int
    skipped: int


class IssueOut(Shown):
    """A post going out."""

    id: int
    newsletter: str
    local_date: date
    extra: int
    slug: str
    title: str
    state: IssueState
    paused: bool
    hold: str | None = Field(description="why it sends nothing until somebody reconciles it")
    opened_at: datetime
    expires_at: datetime
    finished_at: datetime | None
    deliveries: Mapping[str, TallyOut] = Field(description="by channel")


class ResendIn(BaseModel):
    """What to put out again, and why. Without `"dry_run": false` it only says what would happen."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"example": {"only": "failed", "reason": "the relay was down", "dry_run": False}},
    )

    only: ResendScope
    reason: Annotated[Sentence, Field(min_length=1)]
    channel: Annotated[str, Field(pattern=WORD)] | None = None
    address: Address | None = None
    dry_run: bool = True


class ResendOut(BaseModel):
    """What a resend reaches."""

    done: bool = Field(description="false: a dry run, nothing was changed")
    deliveries: int = Field(description="that go out again, or would")
    by_channel: Mapping[str, int] = Field(description="as it was planned")


class AttemptOut(Shown):
    """One try of a delivery."""

    number: int
    resend: int
    trigger: str
    reason: str | None = Field(description="of a resend: why a person asked for it")
    outcome: str
    code: str
    text: str
    relay: str | None
    started_at: datetime
    duration_ms: int
    retry_at: datetime | None


class EventOut(Shown):
    """Something that was heard from outside, or happened to a subscription."""

    id: int
    kind: EventKind
    permanence: str | None = Field(description="of a bounce: permanent, temporary, policy")
    provider: str = Field(description="who told it; ours: distributor")
    channel: str
    address: str
    newsletter: str | None
    issue: int | None = Field(validation_alias="issue_id")
    number: int | None = Field(validation_alias="seq", description="of the delivery within the issue")
    occurred_at: datetime
    received_at: datetime
    code: str | None
    detail: str = Field(description="as it was told: text of others")


class DeliveryOut(Shown):
    """An issue to one recipient, with every try."""

    issue: int = Field(validation_alias="issue_id")
    number: int = Field(validation_alias="seq", description="within the issue")
    channel: str
    address: str
    destination: str | None = Field(
        description="a place from the configuration; null: a subscriber's address"
    )
    state: DeliveryState
    reason: str | None = Field(description="why it was skipped")
    resend: int
    receipts: Sequence[str] = Field(description="the provider's ids")
    code: str
    text: str
    due_at: datetime | None
    updated_at: datetime | None
    attempts: Sequence[AttemptOut]
    events: Sequence[EventOut] = Field(description="what was heard of it later")


class CallOut(Shown):
    """One event that an endpoint is told, or was."""

    id: int
    endpoint: str
    event: str = Field(validation_alias="event_id", description="its webhook-id")
    kind: str
    state: DeliveryState
    tries: int = Field(description="that failed")
    code: str
    text: str
    created_at: datetime
