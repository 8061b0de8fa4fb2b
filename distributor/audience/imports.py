"""Importing readers from a CSV."""

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import TypeVar

from distributor.audience.addresses import normalise
from distributor.audience.store import Store
from distributor.audience.values import ImportReport, NewSubscriber
from distributor.errors import RequestRefused

T = TypeVar("T")
IMPORT_BATCH = 1000


class Imports(Store):
    """Adds many."""

    def import_rows(
        self,
        newsletter: str,
        rows: Iterable[tuple[int, NewSubscriber | RequestRefused]],
        progress: Callable[[int], None] = lambda _count: None,
    ) -> ImportReport:
        """Adds many, in batches. `rows` are (line, subscriber or why not); a bad line is reported and the rest goes on.

        Nobody is revived: who left stays away, who is suppressed stays suppressed.
        """
        report = ImportReport()
        for batch in in_batches(rows, IMPORT_BATCH):
            good = list(self._checked(batch, report))
            with self.database.write() as connection:
                added = self._insert(connection, newsletter, good, self.database.now(connection))
            report.read += len(batch)
            report.added += added
            report.known += len(good) - added
            progress(report.read)
        return report

    def _checked(
        self, batch: Sequence[tuple[int, NewSubscriber | RequestRefused]], report: ImportReport
    ) -> Iterator[tuple[NewSubscriber, str]]:
        for line, new in batch:
            try:
                if isinstance(new, RequestRefused):
                    raise new
                yield new, normalise(new.channel, new.address)
            except RequestRefused as error:
                report.errors.append(f"line {line}: {error}")


def read_csv(
    lines: Iterable[str], *, channel: str, source: str
) -> Iterator[tuple[int, NewSubscriber | RequestRefused]]:
    """(line, subscriber or why not) of a CSV with a header: `email` or `address`, and if wanted `channel`, `name`,
    `language`, `source`, `consent_at` (ISO 8601). Raises RequestRefused when the header names no address."""
    reader = csv.DictReader(lines)
    header = [name.strip().lower() for name in reader.fieldnames or []]
    reader.fieldnames = header
    column = next((name for name in ("email", "address", "chat_id") if name in header), None)
    if column is None:
        raise RequestRefused(
            f"line 1: the CSV needs a header with a column `email` or `address`; it has: {', '.join(header) or 'none'}"
        )
    for row in reader:
        try:
            yield reader.line_num, _from_csv(row, column, channel, source)
        except RequestRefused as error:
            yield reader.line_num, error


def _from_csv(row: Mapping[str, str | None], column: str, channel: str, source: str) -> NewSubscriber:
    return NewSubscriber(
        channel=(row.get("channel") or channel).strip(),
        address=row[column] or "",
        source=(row.get("source") or source).strip(),
        name=(row.get("name") or "").strip(),
        language=(row.get("language") or "").strip() or None,
        consent_at=_consent_time((row.get("consent_at") or "").strip()),
    )


def in_batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of up to `size` items."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def _consent_time(written: str) -> datetime | None:
    if not written:
        return None
    try:
        moment = datetime.fromisoformat(written)
    except ValueError:
        raise RequestRefused(
            f"consent_at {written!r} is not a time such as 2026-11-24T08:00:00+08:00"
        ) from None
    if moment.tzinfo is None:
        raise RequestRefused(f"consent_at {written!r} names no zone; write 2026-11-24T08:00:00+08:00")
    return moment
