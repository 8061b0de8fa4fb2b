"""Taking an import back: what it brought and nobody has touched since."""

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, delete, exists, select, update

from distributor.audience.importing.values import Import, Undoing
from distributor.audience.store import Store
from distributor.db import among
from distributor.errors import RequestRefused
from distributor.model import ConsentKind, EventKind, SubscriptionState
from distributor.tables import (
    NOBODY,
    consents,
    deliveries,
    events,
    imports,
    letters,
    links,
    old_links,
    subscribers,
    subscription_attributes,
    subscription_tags,
    subscriptions,
    suppressions,
)

#: Rows of a transaction; SQLite has one writer.
WINDOW = 5_000
#: How many addresses are named of those that stay.
EXAMPLES = 20
#: What an import's own evidence says, and the state that it left behind.
STATES = {
    ConsentKind.IMPORTED: SubscriptionState.ACTIVE,
    ConsentKind.WITHDRAWN: SubscriptionState.UNSUBSCRIBED,
}


class Undo(Store):
    """Imports, listed and taken back."""

    def imports(self, newsletter: str | None = None, *, limit: int = 50) -> Sequence[Import]:
        """The newest first."""
        query = select(imports).order_by(imports.c.id.desc()).limit(limit)
        if newsletter:
            query = query.where(imports.c.newsletter == newsletter)
        with self.database.read() as connection:
            return [_import_of(row) for row in connection.execute(query)]

    def import_(self, number: int) -> Import:
        """Raises RequestRefused when there is none."""
        with self.database.read() as connection:
            row = connection.execute(select(imports).where(imports.c.id == number)).first()
        if row is None:
            raise RequestRefused(f"there is no import {number}; `distributor subscribers imports` lists them")
        return _import_of(row)

    def plan_undo(self, number: int) -> Undoing:
        """What `undo_import` would remove; changes nothing."""
        self.import_(number)
        found = Undoing(subscriptions=0, suppressions=0, stays=0)
        with self.database.read() as connection:
            for going, staying in self._windows(connection, number):
                found = _plus(found, len(going), staying)
            gone, kept = self._suppressions_of(connection, number)
            return _plus(found, 0, kept, len(gone))

    def undo_import(self, number: int) -> Undoing:
        """Removes what an import brought, window by window. Who changed since stays; again and again is harmless."""
        self.import_(number)
        done, after = Undoing(subscriptions=0, suppressions=0, stays=0), 0
        while True:
            with self.database.write() as connection:
                window = self._window(connection, number, after, lock=True)
                if not window:
                    break
                going, staying = self._sorted_out(connection, number, window)
                self._remove(connection, number, going)
                done, after = _plus(done, len(going), staying), window[-1].id
        with self.database.write() as connection:
            gone, kept = self._suppressions_of(connection, number)
            connection.execute(delete(suppressions).where(among(self.database, suppressions.c.id, gone)))
            now = self.database.now(connection)
            connection.execute(update(imports).where(imports.c.id == number).values(undone_at=now))
        return _plus(done, 0, kept, len(gone))

    def _windows(self, connection: Connection, number: int) -> Iterator[tuple[Sequence[Any], Sequence[str]]]:
        after = 0
        while window := self._window(connection, number, after):
            yield self._sorted_out(connection, number, window)
            after = window[-1].id

    def _window(
        self, connection: Connection, number: int, after: int, *, lock: bool = False
    ) -> Sequence[Any]:
        columns = [subscriptions.c[name] for name in ("id", "subscriber_id", "newsletter", "state")]
        query = (
            select(*columns, subscribers.c.address)
            .join(subscribers, subscribers.c.id == subscriptions.c.subscriber_id)
            .where(subscriptions.c.import_id == number, subscriptions.c.id > after)
            .order_by(subscriptions.c.id)
            .limit(WINDOW)
        )
        if lock and not self.database.sqlite:
            query = query.with_for_update(of=subscriptions)
        return connection.execute(query).all()

    def _sorted_out(
        self, connection: Connection, number: int, window: Sequence[Any]
    ) -> tuple[Sequence[Any], Sequence[str]]:
        """(what goes, the addresses that stay): touched is what has evidence of anything but this import."""
        rows = connection.execute(
            select(
                consents.c.subscriber_id, consents.c.newsletter, consents.c.kind, consents.c.import_id
            ).where(among(self.database, consents.c.subscriber_id, [row.subscriber_id for row in window]))
        )
        left_by_us: dict[tuple[int, str], str] = {}
        touched = set()
        for row in rows:
            key = (row.subscriber_id, row.newsletter)
            if row.import_id == number:
                left_by_us[key] = STATES[ConsentKind(row.kind)]
            else:
                touched.add(key)
        going, staying = [], []
        for row in window:
            key = (row.subscriber_id, row.newsletter)
            same = key not in touched and left_by_us.get(key) == row.state
            going.append(row) if same else staying.append(row.address)
        return going, staying

    def _remove(self, connection: Connection, number: int, going: Sequence[Any]) -> None:
        of_them = [row.id for row in going]
        for table in (subscription_tags, subscription_attributes, old_links):
            connection.execute(delete(table).where(among(self.database, table.c.subscription_id, of_them)))
        connection.execute(delete(subscriptions).where(among(self.database, subscriptions.c.id, of_them)))
        readers = [row.subscriber_id for row in going]
        connection.execute(
            delete(consents).where(
                among(self.database, consents.c.subscriber_id, readers), consents.c.import_id == number
            )
        )
        chat = subscribers.alias("chat")
        alone = delete(subscribers).where(
            among(self.database, subscribers.c.id, readers),
            subscribers.c.asked_at.is_(None),
            subscribers.c.linked_to.is_(None),
            ~exists().where(chat.c.linked_to == subscribers.c.id),
            ~exists().where(subscriptions.c.subscriber_id == subscribers.c.id),
            ~exists().where(consents.c.subscriber_id == subscribers.c.id),
        )
        gone = connection.execute(alone.returning(subscribers.c.id)).scalars().all()
        self._let_go(connection, gone, [row.address for row in going])

    def _let_go(self, connection: Connection, gone: Sequence[int], addresses: Sequence[str]) -> None:
        """Nothing names a subscriber who is gone: SQLite gives the highest number to the next one who comes.

        What waits to be sent is skipped then, since its reader has no subscription.
        """
        for table in (links, letters):
            connection.execute(delete(table).where(among(self.database, table.c.subscriber_id, gone)))
        if self.database.sqlite:  # where there are several writers, workers have deliveries locked
            theirs = update(deliveries).where(
                among(self.database, deliveries.c.address, addresses),
                among(self.database, deliveries.c.subscriber_id, gone),
            )
            connection.execute(theirs.values(subscriber_id=NOBODY))

    def _suppressions_of(self, connection: Connection, number: int) -> tuple[Sequence[int], Sequence[str]]:
        """(keys of those that go, the addresses that stay): a bounce or complaint of our own since is a reason by itself."""
        since = select(imports.c.started_at).where(imports.c.id == number).scalar_subquery()
        ours = exists().where(
            events.c.channel == suppressions.c.channel,
            events.c.address == suppressions.c.address,
            events.c.kind.in_([EventKind.BOUNCED, EventKind.COMPLAINED]),
            events.c.received_at >= since,
        )
        query = select(suppressions.c.id, suppressions.c.address, ours.label("ours"))
        rows = connection.execute(query.where(suppressions.c.import_id == number)).all()
        return [row.id for row in rows if not row.ours], [row.address for row in rows if row.ours]


def _plus(so_far: Undoing, going: int, staying: Sequence[str], suppressed: int = 0) -> Undoing:
    return Undoing(
        subscriptions=so_far.subscriptions + going,
        suppressions=so_far.suppressions + suppressed,
        stays=so_far.stays + len(staying),
        examples=[*so_far.examples, *staying][:EXAMPLES],
    )


def _import_of(row: Any) -> Import:
    return Import(**row._mapping)  # noqa: SLF001 - the documented way to a row's names
