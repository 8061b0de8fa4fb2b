"""What a dry run would have brought so far: the next windows must find it, and nothing may be written."""

from collections.abc import Iterable, MutableMapping, Sequence
from typing import ClassVar, Self

from sqlalchemy import Column, Connection, MetaData, PrimaryKeyConstraint, Table, Text, select

from distributor.audience.importing.judging import Barred, Key, Known
from distributor.audience.importing.values import SUPPRESSING, Line, Standing
from distributor.db import Database, among, copy_rows
from distributor.model import SubscriptionState

_seen = Table(
    "import_seen",
    MetaData(),
    Column("channel", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("standing", Text, nullable=False),
    PrimaryKeyConstraint("channel", "address", "standing"),
    prefixes=["TEMPORARY"],
)


class Seen:
    """A temporary table of one connection, while the block runs: memory stays flat, whatever the file."""

    #: The number of an import that there is not.
    IMPORT: ClassVar[int] = -1

    def __init__(self, database: Database, connection: Connection) -> None:
        self.database, self.connection = database, connection

    def __enter__(self) -> Self:
        _seen.create(self.connection)
        return self

    def __exit__(self, kind: object, *_error: object) -> None:
        if kind is None:
            _seen.drop(self.connection)

    def add(self, lines: Iterable[Line]) -> None:
        """What was judged as new: none of it is there yet."""
        rows = [(line.channel, line.address, line.standing.value) for line in lines]
        copy_rows(self.database, _seen, ("channel", "address", "standing"), rows, self.connection)

    def overlay(
        self,
        channel: str,
        addresses: Sequence[str],
        known: MutableMapping[Key, Known],
        barred: MutableMapping[Key, Barred],
    ) -> None:
        """Adds what was seen to what is known."""
        query = select(_seen).where(
            _seen.c.channel == channel, among(self.database, _seen.c.address, addresses)
        )
        for row in self.connection.execute(query):
            key, standing = (channel, row.address), Standing(row.standing)
            if standing in SUPPRESSING:
                barred[key] = Barred(SUPPRESSING[standing], self.IMPORT)
            else:
                active = standing is Standing.ACTIVE
                state = SubscriptionState.ACTIVE if active else SubscriptionState.UNSUBSCRIBED
                known[key] = Known(0, None, state, import_id=self.IMPORT)
