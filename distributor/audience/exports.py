"""Tables for other programs: subscribers, consents, their words, deliveries, suppressions, row by row."""

import csv
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import IO, Any

from sqlalchemy import Connection, Row, Select, select

from distributor.audience.csv_cells import guarded, joined
from distributor.audience.describing import NOTHING, Describing
from distributor.audience.segments import Segment, in_segment
from distributor.audience.store import subscription_query
from distributor.errors import RequestRefused
from distributor.tables import (
    consent_texts,
    consents,
    deliveries,
    issues,
    subscribers,
    subscription_attributes,
    subscriptions,
    suppressions,
)

#: Rows that are in memory at a time.
PAGE = 1000
#: In front of an attribute's name, where it names a column; as in a filter.
ATTRIBUTE = "attr."


class Export(StrEnum):
    """What can be exported."""

    SUBSCRIBERS = "subscribers"  # of a newsletter, one row a subscription: what `import` reads
    CONSENTS = "consents"  # of a newsletter
    WORDINGS = "wordings"  # the texts that consents name by their version
    DELIVERIES = "deliveries"  # of a newsletter
    SUPPRESSIONS = "suppressions"  # of all newsletters


@dataclass(frozen=True)
class Exported:
    """A table with its rows, which are read from the database as they are asked for."""

    columns: Sequence[str]
    rows: Iterator[Sequence[Any]]


class Exports(Describing):
    """Reads tables that do not fit into memory."""

    @contextmanager
    def export(self, what: Export, newsletter: str, segment: Segment | None = None) -> Iterator[Exported]:
        """The rows of one moment, for as long as the block lasts.

        Raises RequestRefused for a segment of what is not about subscriptions.
        """
        if segment and what not in {Export.SUBSCRIBERS, Export.CONSENTS}:
            raise RequestRefused(f"a filter chooses subscribers; {what} are exported whole")
        with self.database.streaming() as connection:
            if what is Export.SUBSCRIBERS:
                yield self._subscribers(connection, newsletter, segment)
            else:
                yield _rows_of(connection, _QUERIES[what](newsletter, segment))

    def _subscribers(self, connection: Connection, newsletter: str, segment: Segment | None) -> Exported:
        names = connection.execute(
            select(subscription_attributes.c.name)
            .join(subscriptions, subscriptions.c.id == subscription_attributes.c.subscription_id)
            .where(subscriptions.c.newsletter == newsletter)
            .distinct()
            .order_by(subscription_attributes.c.name)
        ).scalars()
        attributes = list(names)
        query = subscription_query(newsletter).add_columns(subscriptions.c.id)
        query = _narrowed(query, segment).order_by(subscribers.c.id)
        return Exported(
            [*_SUBSCRIBER, STATUS, "tags", *(ATTRIBUTE + name for name in attributes)],
            self._described(connection, query, attributes),
        )

    def _described(
        self, connection: Connection, query: Select[Any], attributes: Sequence[str]
    ) -> Iterator[Sequence[Any]]:
        for page in _pages(connection, query):
            known = self._descriptions(connection, [row.id for row in page])
            for row in page:
                found = known.get(row.id, NOTHING)
                own = row._mapping  # noqa: SLF001 - the documented way to a row's names
                yield [
                    *(own[name] for name in _SUBSCRIBER),
                    row.suppressed or row.state,
                    joined(found.tags) if found.tags else None,
                    *(found.attributes.get(name) for name in attributes),
                ]


#: Columns of an exported subscription, before tags and attributes. Its token stays here: it is the reader's key.
_SUBSCRIBER = (
    "address",
    "channel",
    "name",
    "language",
    "newsletter",
    "state",
    "source",
    "consent_at",
    "activated_at",
    "ended_at",
    "end_reason",
)
#: How a reader stands: why nothing may be sent there, else the subscription's state. `import` goes by it.
STATUS = "status"


def _consents(newsletter: str, segment: Segment | None) -> Select[Any]:
    query = (
        select(
            subscribers.c.address,
            subscribers.c.channel,
            consents.c.newsletter,
            consents.c.kind,
            consents.c.at,
            consents.c.source,
            consents.c.ip,
            consents.c.wording,
            consents.c.detail,
        )
        .join(subscribers, subscribers.c.id == consents.c.subscriber_id)
        .where(consents.c.newsletter == newsletter)
        .order_by(consents.c.id)
    )
    if segment is None:
        return query
    same = (subscriptions.c.subscriber_id == subscribers.c.id) & (subscriptions.c.newsletter == newsletter)
    return in_segment(query.join(subscriptions, same), segment)


def _wordings(_newsletter: str, _segment: Segment | None) -> Select[Any]:
    words = consent_texts.c
    return select(words.version, words.language, words.text, words.first_at).order_by(words.first_at)


def _deliveries(newsletter: str, _segment: Segment | None) -> Select[Any]:
    row = deliveries.c
    return (
        select(
            row.issue_id,
            issues.c.local_date,
            issues.c.slug,
            row.seq,
            row.channel,
            row.address,
            row.destination,
            row.state,
            row.reason,
            row.attempts,
            row.resend,
            row.code,
            row.text,
            row.updated_at,
        )
        .join(issues, issues.c.id == row.issue_id)
        .where(issues.c.newsletter == newsletter)
        .order_by(row.issue_id, row.seq)
    )


def _suppressions(_newsletter: str, _segment: Segment | None) -> Select[Any]:
    row = suppressions.c
    return select(row.address, row.channel, row.reason, row.note, row.created_at).order_by(row.id)


_QUERIES = {
    Export.CONSENTS: _consents,
    Export.WORDINGS: _wordings,
    Export.DELIVERIES: _deliveries,
    Export.SUPPRESSIONS: _suppressions,
}


def _narrowed(query: Select[Any], segment: Segment | None) -> Select[Any]:
    return in_segment(query, segment) if segment else query


def _rows_of(connection: Connection, query: Select[Any]) -> Exported:
    return Exported(
        list(query.selected_columns.keys()), (row for page in _pages(connection, query) for row in page)
    )


def _pages(connection: Connection, query: Select[Any]) -> Iterator[Sequence[Row[Any]]]:
    return connection.execute(query, execution_options={"yield_per": PAGE}).partitions()


def write_csv(exported: Exported, file: IO[str], *, bom: bool = False) -> int:
    """Returns how many rows. `bom`: Excel takes a file without for the computer's own code page."""
    if bom:
        file.write("\ufeff")
    writer, rows = csv.writer(file), 0
    writer.writerow(exported.columns)
    for row in exported.rows:
        writer.writerow([_cell(value) for value in row])
        rows += 1
    return rows


def write_json(exported: Exported, file: IO[str]) -> int:
    """One array, one object a line. Returns how many rows."""
    rows = 0
    file.write("[")
    for row in exported.rows:
        named = dict(zip(exported.columns, map(_plain, row), strict=True))
        file.write(",\n" if rows else "\n")
        file.write(json.dumps(named, ensure_ascii=False))
        rows += 1
    file.write("\n]\n")
    return rows


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return guarded(value if isinstance(value, str) else str(_plain(value)))


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime | date) else value
