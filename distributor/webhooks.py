"""The outbox of our own webhooks: what happened, written down in the transaction in which it happened.

One row an event and endpoint, with a name of its own: writing the same news twice leaves one row. Who sends them is
dispatch/calling.py; the form is that of Standard Webhooks 1.0.0.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, and_, delete, select, update

from distributor.db import Database, insert_ignore, take_due
from distributor.model import DeliveryState
from distributor.settings import Endpoint
from distributor.tables import webhook_calls

#: How long one process keeps the calls that it took.
LEASE = timedelta(minutes=2)
BATCH = 100
#: How old news may be when an endpoint gets it: the last try of the schedule in dispatch/calling.py comes before.
PATIENCE = timedelta(days=3)


@dataclass(frozen=True, kw_only=True)
class Call:
    """One event for one endpoint. `tries` counts those that failed; `event_id` is its webhook-id."""

    id: int
    endpoint: str
    event_id: str
    kind: str
    body: Mapping[str, Any]
    state: DeliveryState
    tries: int
    created_at: datetime
    code: str
    text: str


class Webhooks:
    """The webhook calls in one database, for the endpoints of the configuration."""

    def __init__(self, database: Database, endpoints: Sequence[Endpoint] = ()) -> None:
        self.database, self.endpoints = database, endpoints
        self._wanted = frozenset(kind for endpoint in endpoints for kind in endpoint.events)

    def wants(self, kind: str) -> bool:
        """Whether any endpoint asked for this kind of event: nothing is written for nobody."""
        return kind in self._wanted

    def add(
        self,
        connection: Connection,
        kind: str,
        name: str,
        newsletter: str | None,
        data: Mapping[str, Any],
        now: datetime,
    ) -> None:
        """Writes an event down for whoever asked for it; `name` makes it the same event when it is told twice."""
        if not self.wants(kind):
            return
        event_id = "evt_" + hashlib.sha256(f"{kind}\0{name}".encode()).hexdigest()[:32]
        body = {"type": kind, "timestamp": now.isoformat(), "data": {"newsletter": newsletter, **data}}
        rows = [
            {
                "endpoint": endpoint.name,
                "event_id": event_id,
                "kind": kind,
                "body": body,
                "state": DeliveryState.PENDING,
                "tries": 0,
                "due_at": now,
                "created_at": now,
                "code": "",
                "text": "",
            }
            for endpoint in self.endpoints
            if kind in endpoint.events and (not endpoint.newsletters or newsletter in endpoint.newsletters)
        ]
        insert_ignore(self.database, webhook_calls, rows, connection)

    def tell(self, kind: str, name: str, newsletter: str | None, data: Mapping[str, Any]) -> None:
        """`add`, in a transaction of its own."""
        if self.wants(kind):
            with self.database.write() as connection:
                self.add(connection, kind, name, newsletter, data, self.database.now(connection))

    def take_due(self, endpoint: str, most: int = BATCH) -> Sequence[Call]:
        """An endpoint's calls that are due, ours for a while; those first that have been due the longest."""
        its_own = webhook_calls.c.endpoint == endpoint
        state = DeliveryState.SENDING
        taken = take_due(self.database, webhook_calls, its_own, lease=LEASE, most=most, state=state)
        return [_call(row) for row in taken]

    def settle(self, call: Call, state: DeliveryState, *, code: str, text: str) -> None:
        with self.database.write() as connection:
            now = self.database.now(connection)
            sent_at = now if state is DeliveryState.SENT else None
            values = {"state": state, "due_at": None, "sent_at": sent_at, "code": code, "text": text}
            connection.execute(update(webhook_calls).where(webhook_calls.c.id == call.id).values(values))

    def put_back(
        self, call: Call, wait: timedelta, *, code: str = "", text: str = "", failed: bool = True
    ) -> None:
        """To be tried again later; with `failed`, one of its tries is used up."""
        with self.database.write() as connection:
            values: dict[str, Any] = {
                "state": DeliveryState.PENDING,
                "due_at": self.database.now(connection) + wait,
                "tries": call.tries + failed,
            }
            if failed:
                values |= {"code": code, "text": text}
            connection.execute(update(webhook_calls).where(webhook_calls.c.id == call.id).values(values))

    def again(self, endpoint: str, number: int | None = None) -> int:
        """Makes calls that were given up pending again: one, or all of an endpoint. Returns how many."""
        with self.database.write() as connection:
            which = and_(webhook_calls.c.endpoint == endpoint, webhook_calls.c.state == DeliveryState.FAILED)
            if number is not None:
                which = and_(which, webhook_calls.c.id == number)
            values = {"state": DeliveryState.PENDING, "tries": 0, "due_at": self.database.now(connection)}
            return connection.execute(update(webhook_calls).where(which).values(values)).rowcount

    def listing(
        self,
        *,
        endpoint: str | None = None,
        state: str | None = None,
        before: int | None = None,
        limit: int = 50,
    ) -> Sequence[Call]:
        """The newest first."""
        query = select(webhook_calls).order_by(webhook_calls.c.id.desc()).limit(limit)
        if endpoint:
            query = query.where(webhook_calls.c.endpoint == endpoint)
        if state:
            query = query.where(webhook_calls.c.state == state)
        if before:
            query = query.where(webhook_calls.c.id < before)
        with self.database.read() as connection:
            return [_call(row) for row in connection.execute(query)]

    def forget(self, age: timedelta) -> None:
        """Retention. What waits for longer than PATIENCE is given up first: an endpoint that is gone gathers no backlog."""
        with self.database.write() as connection:
            now = self.database.now(connection)
            late = update(webhook_calls).where(
                webhook_calls.c.due_at.is_not(None), webhook_calls.c.created_at < now - PATIENCE
            )
            given_up = {
                "state": DeliveryState.FAILED,
                "due_at": None,
                "text": "given up: older than three days",
            }
            connection.execute(late.values(given_up))
            connection.execute(delete(webhook_calls).where(webhook_calls.c.created_at < now - age))


def _call(row: Any) -> Call:
    return Call(
        id=row.id,
        endpoint=row.endpoint,
        event_id=row.event_id,
        kind=row.kind,
        body=row.body,
        state=DeliveryState(row.state),
        tries=row.tries,
        created_at=row.created_at,
        code=row.code,
        text=row.text,
    )
