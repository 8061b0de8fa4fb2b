"""Who could get an issue, as a query."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Select, exists, or_, select

from distributor.audience.segments import Segment, in_segment
from distributor.audience.values import AudienceQuery
from distributor.tables import subscribers, subscriptions, suppressions


def of_domains(audience: AudienceQuery, domains: Collection[str], *, others: bool = False) -> AudienceQuery:
    """The part of an audience (`active`) at these domains, or at all the others."""
    among = subscribers.c.domain.in_(list(domains))
    return audience.where(~among if others else among)


def behind(audience: AudienceQuery, number: int) -> AudienceQuery:
    """The part of an audience (`active`) whose subscriber number is greater.

    Said of both tables: PostgreSQL would read all subscriptions before it, again for each window.
    """
    return audience.where(subscribers.c.id > number, subscriptions.c.subscriber_id > number)


def active(
    newsletter: str,
    channel: str,
    moment: datetime,
    *,
    only: str | None = None,
    without: Sequence[str] = (),
    segment: Segment | None = None,
) -> Select[Any]:
    """The audience as of a moment: (subscriber_id, address, domain) of active, unsuppressed subscriptions.

    "As of" makes the number exact while windows of it are being written: who leaves meanwhile still has a row, and the
    worker skips it with its reason.
    """
    # Not as an outer join: PostgreSQL takes "is null" for rare, expects next to nobody, and sorts a million for a window.
    suppressed = exists().where(
        suppressions.c.channel == subscribers.c.channel,
        suppressions.c.address == subscribers.c.address,
        suppressions.c.created_at <= moment,
    )
    query = (
        select(subscribers.c.id.label("subscriber_id"), subscribers.c.address, subscribers.c.domain)
        .join(subscriptions, subscriptions.c.subscriber_id == subscribers.c.id)
        .where(
            subscribers.c.channel == channel,
            subscriptions.c.newsletter == newsletter,
            subscriptions.c.activated_at <= moment,
            or_(subscriptions.c.ended_at.is_(None), subscriptions.c.ended_at > moment),
            ~suppressed,
        )
    )
    if segment:
        query = in_segment(query, segment)
    if without:
        query = query.where(subscribers.c.address.not_in(without))
    return query if only is None else query.where(subscribers.c.address == only)
