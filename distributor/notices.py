"""The outbox of mail outside an issue: what the operator is told, one row for each route, with tries and errors."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import delete, select, update

from distributor.db import Database, insert_ignore, take_due
from distributor.model import DeliveryState
from distributor.tables import notices

#: How long one process keeps a notice to itself while it sends it.
LEASE = timedelta(minutes=4)
#: Notices taken at once.
BATCH = 20


@dataclass(frozen=True, kw_only=True)
class NewNotice:
    """Something to tell, once: `key` names it."""

    key: str
    subject: str
    body: str


@dataclass(frozen=True, kw_only=True)
class Notice:
    """A notice on its way over one route. `tries` counts the failed ones."""

    id: int
    key: str
    route: str
    subject: str
    body: str
    state: str
    tries: int
    error: str


class Notices:
    """The notices in one database."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def add(self, new: NewNotice, routes: Sequence[str]) -> bool:
        """One row a route; False when the key was told before."""
        with self.database.write() as connection:
            now = self.database.now(connection)
            rows = [
                {
                    "key": new.key,
                    "route": route,
                    "subject": new.subject,
                    "body": new.body,
                    "state": DeliveryState.PENDING,
                    "tries": 0,
                    "due_at": now,
                    "created_at": now,
                    "error": "",
                }
                for route in routes
            ]
            return insert_ignore(self.database, notices, rows, connection) > 0

    def are_told(self, keys: Collection[str]) -> set[str]:
        """Those of the keys that were told already."""
        with self.database.read() as connection:
            rows = connection.execute(select(notices.c.key).where(notices.c.key.in_(list(keys))).distinct())
            return {row.key for row in rows}

    def take_due(self) -> Sequence[Notice]:
        """The notices that are due, ours for a while: another process does not get them meanwhile."""
        pending = notices.c.state == DeliveryState.PENDING
        return [_notice(row) for row in take_due(self.database, notices, pending, lease=LEASE, most=BATCH)]

    def settle(self, notice: Notice, error: str | None, wait: timedelta | None) -> None:
        """Sent, or to be tried again after `wait`, or given up when there is no wait."""
        with self.database.write() as connection:
            now = self.database.now(connection)
            values: dict[str, Any] = {"state": DeliveryState.SENT, "sent_at": now, "error": ""}
            if error is not None:
                state = DeliveryState.FAILED if wait is None else DeliveryState.PENDING
                values = {
                    "state": state,
                    "tries": notices.c.tries + 1,
                    "error": error,
                    "due_at": now + (wait or timedelta()),
                }
            connection.execute(update(notices).where(notices.c.id == notice.id).values(**values))

    def listing(self, limit: int = 20) -> Sequence[Notice]:
        """The newest first."""
        with self.database.read() as connection:
            rows = connection.execute(select(notices).order_by(notices.c.id.desc()).limit(limit))
            return [_notice(row) for row in rows]

    def forget(self, age: timedelta) -> None:
        """Retention."""
        with self.database.write() as connection:
            connection.execute(
                delete(notices).where(notices.c.created_at < self.database.now(connection) - age)
            )


def _notice(row: Any) -> Notice:
    return Notice(
        id=row.id,
        key=row.key,
        route=row.route,
        subject=row.subject,
        body=row.body,
        state=row.state,
        tries=row.tries,
        error=row.error,
    )
