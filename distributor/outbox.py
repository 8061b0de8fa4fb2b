"""The outbox of mails to readers outside an issue: letters, one row each, with the states of a delivery.

A row is "sending" while somebody has it in hand, for as long as the lease lasts. Whoever was killed meanwhile may have
sent it: it is sent again, with the same Message-ID, because a confirmation that never comes loses a reader and a second
copy says nothing new (docs/decisions.md).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, func, select, update

from distributor.db import Database, take_due
from distributor.model import DeliveryState, Letter, SubscriptionState
from distributor.tables import letters, subscribers, subscriptions, suppressions

#: How long one process keeps the letters that it took.
LEASE = timedelta(minutes=2)
#: Letters taken at once.
BATCH = 50


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """A letter in hand, with what may have changed since it was written down."""

    id: int
    kind: Letter
    newsletter: str
    language: str
    tries: int
    created_at: datetime
    subscriber_id: int
    address: str
    token: str | None  # of the subscription
    state: SubscriptionState | None
    suppressed: str | None


class Outbox:
    """The letters in one database."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def take_due(self, most: int = BATCH) -> Sequence[Waiting]:
        """The letters that are due, ours for a while; the oldest first."""
        taken = take_due(self.database, letters, lease=LEASE, most=most, state=DeliveryState.SENDING)
        if not taken:
            return []
        with self.database.read() as connection:
            return [_from_row(row) for row in connection.execute(_waiting([row.id for row in taken]))]

    def settle(self, letter: Waiting, state: DeliveryState, *, code: str, text: str, relay: str = "") -> None:
        """It is over."""
        with self.database.write() as connection:
            now = self.database.now(connection)
            values: dict[str, Any] = {"state": state, "due_at": None, "tries": letter.tries + 1}
            values |= {
                "code": code,
                "text": text,
                "relay": relay,
                "sent_at": now if state is DeliveryState.SENT else None,
            }
            connection.execute(update(letters).where(letters.c.id == letter.id).values(values))

    def put_back(self, letter: Waiting, wait: timedelta, *, code: str, text: str, counts: bool) -> None:
        """To be tried again later."""
        with self.database.write() as connection:
            values = {
                "state": DeliveryState.PENDING,
                "due_at": self.database.now(connection) + wait,
                "tries": letter.tries + counts,
                "code": code,
                "text": text,
            }
            connection.execute(update(letters).where(letters.c.id == letter.id).values(values))

    def counts(self) -> Mapping[str, int]:
        """State → letters, of all that are kept."""
        with self.database.read() as connection:
            query = select(letters.c.state, func.count()).group_by(letters.c.state)
            return {state: number for state, number in connection.execute(query)}  # noqa: C416 - rows, to mypy, are no pairs

    def forget(self, age: timedelta) -> None:
        """Retention."""
        with self.database.write() as connection:
            old = letters.c.created_at < self.database.now(connection) - age
            connection.execute(delete(letters).where(old, letters.c.due_at.is_(None)))


def _waiting(numbers: Collection[int]) -> Any:
    """The letters with what may have changed since they were written."""
    return (
        select(
            letters,
            subscribers.c.address,
            subscriptions.c.token,
            subscriptions.c.state.label("subscription_state"),
            suppressions.c.reason.label("suppressed"),
        )
        .join(subscribers, subscribers.c.id == letters.c.subscriber_id)
        .outerjoin(
            subscriptions,
            (subscriptions.c.subscriber_id == letters.c.subscriber_id)
            & (subscriptions.c.newsletter == letters.c.newsletter),
        )
        .outerjoin(
            suppressions,
            (suppressions.c.channel == subscribers.c.channel)
            & (suppressions.c.address == subscribers.c.address),
        )
        .where(letters.c.id.in_(numbers))
        .order_by(letters.c.id)
    )


def _from_row(row: Any) -> Waiting:
    return Waiting(
        id=row.id,
        kind=Letter(row.kind),
        newsletter=row.newsletter,
        language=row.language,
        tries=row.tries,
        created_at=row.created_at,
        subscriber_id=row.subscriber_id,
        address=row.address,
        token=row.token,
        state=SubscriptionState(row.subscription_state) if row.subscription_state else None,
        suppressed=row.suppressed,
    )
