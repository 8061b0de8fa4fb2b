"""Bringing many readers in, window by window.

A window is one short transaction: what is known of its addresses is read, each line is judged, and what is new is
written, on PostgreSQL by COPY. Killed between two windows, an import is simply run again: it finds what it brought.
"""

import gc
import itertools
import os
import time
from base64 import urlsafe_b64encode
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, case, exists, insert, null, select, text, update
from sqlalchemy.exc import IntegrityError

from distributor.audience.addresses import HASHED, domain_of, fingerprint
from distributor.audience.importing.ahead import ahead, in_batches
from distributor.audience.importing.judging import Barred, Judged, Key, Known, judge_all
from distributor.audience.importing.old_links import hash_of
from distributor.audience.importing.seen import Seen
from distributor.audience.importing.values import (
    SUPPRESSING,
    TERMINAL,
    ImportOrder,
    ImportReport,
    Line,
    Refusal,
    Source,
    Standing,
    Verdict,
)
from distributor.audience.store import TOKEN_BYTES, Store
from distributor.audience.values import Visit
from distributor.db import among, copy_rows, insert_ignore, new_keys
from distributor.model import SuppressionReason
from distributor.tables import (
    consents,
    imports,
    old_links,
    subscribers,
    subscription_attributes,
    subscription_tags,
    subscriptions,
    suppressions,
)

#: Lines of a transaction: long enough to pay for its round trips, short enough that nobody waits for it. SQLite has one
#: writer, so there it is shorter, and the others get as much time between two of them.
WINDOW, SMALL_WINDOW = 10_000, 2_000
#: Windows that are written at a time.
WRITERS = 2
#: Windows between two collections of garbage.
COLLECT_EVERY = 5
#: How often a window is judged anew when somebody signed up with one of its addresses at that moment.
TRIES = 5

Progress = Callable[[int], None]
Refused = Callable[[Refusal], None]
Ends = Counter[tuple[str, str]]
BringAll = Callable[[Iterable[Sequence[Line]]], Iterator[Ends]]
Rows = tuple[tuple[Any, ...], tuple[Any, ...]]
MakeRows = Callable[[int, int, Line, str], Rows]


class Imports(Store):
    """Adds many."""

    def import_lines(
        self,
        order: ImportOrder,
        sources: Sequence[Source],
        progress: Progress = lambda _lines: None,
        refused: Refused = lambda _refusal: None,
    ) -> ImportReport:
        """Brings readers in. Nobody is revived: who left stays away, who is suppressed stays suppressed.

        What ends mail is taken from all sources first. `progress` is told how many lines are done, `refused` of each
        line that cannot be used. A dry run judges in the same way and writes nothing.
        """
        report = ImportReport()
        bring = self._rehearsing(order) if order.dry_run else self._bringing(order, report)
        with _rare_gc() as tidy, bring as bring_all:
            for ending in (True, False):
                windows = ahead(in_batches(_pass(sources, ending=ending), self._window_size))
                for ends in bring_all(_without_refusals(windows, report, refused)):
                    report.counts += ends
                    if report.import_id:
                        self._note_counts(report)
                    progress(report.read)
                    tidy()
        return report

    @property
    def _window_size(self) -> int:
        return SMALL_WINDOW if self.database.sqlite else WINDOW

    @contextmanager
    def _bringing(self, order: ImportOrder, report: ImportReport) -> Iterator[BringAll]:
        """What brings windows, several at a time: a server has more than one processor, SQLite one writer."""
        number = report.import_id = self._begin_import(order)
        writers = 1 if self.database.sqlite else WRITERS
        with ThreadPoolExecutor(writers, "import-writer") as pool:

            def bring_all(windows: Iterable[Sequence[Line]]) -> Iterator[Ends]:
                under_way: deque[Future[Ends]] = deque()
                for window in windows:
                    under_way.append(pool.submit(self._bring_window, order, window, number))
                    if len(under_way) > writers:
                        yield under_way.popleft().result()
                yield from (each.result() for each in under_way)

            yield bring_all
        with self.database.write() as connection:
            now = self.database.now(connection)
            connection.execute(update(imports).where(imports.c.id == number).values(finished_at=now))

    def _bring_window(self, order: ImportOrder, window: Sequence[Line], number: int) -> Ends:
        begun = time.monotonic()
        for turn in range(1, TRIES + 1):
            try:
                with self.database.write() as connection:
                    judged = self._judge(connection, order, window, number)
                    self._write_window(connection, order, judged, number)
                break
            except IntegrityError:
                if turn == TRIES:
                    raise
        if self.database.sqlite:
            time.sleep(min(0.1, time.monotonic() - begun))
        return _ends(judged)

    @contextmanager
    def _rehearsing(self, order: ImportOrder) -> Iterator[BringAll]:
        with self.database.read() as connection, Seen(self.database, connection) as seen:

            def judge_all(windows: Iterable[Sequence[Line]]) -> Iterator[Ends]:
                for window in windows:
                    judged = self._judge(connection, order, window, Seen.IMPORT, seen)
                    seen.add(one.line for one in judged if one.verdict is Verdict.ADDED)
                    yield _ends(judged)

            yield judge_all

    def _begin_import(self, order: ImportOrder) -> int:
        with self.database.write() as connection:
            values = {
                "newsletter": order.newsletter,
                "origin": order.origin,
                "file": order.file,
                "asked_by": order.asked_by,
                "started_at": self.database.now(connection),
                "counts": {},
            }
            new = insert(imports).values(values).returning(imports.c.id)
            return int(connection.execute(new).scalar_one())

    def _note_counts(self, report: ImportReport) -> None:
        with self.database.write() as connection:
            mine = update(imports).where(imports.c.id == report.import_id)
            connection.execute(mine.values(counts=report.table))

    def _judge(
        self,
        connection: Connection,
        order: ImportOrder,
        window: Sequence[Line],
        import_id: int,
        seen: Seen | None = None,
    ) -> Sequence[Judged]:
        known: dict[Key, Known] = {}
        barred: dict[Key, Barred] = {}
        for channel in {line.channel for line in window}:
            addresses = sorted({line.address for line in window if line.channel == channel})
            known |= self._known_of(connection, order.newsletter, channel, addresses)
            barred |= self._barred_of(connection, channel, addresses)
            if seen:
                seen.overlay(channel, addresses, known, barred)
        return judge_all(window, known, barred, import_id)

    def _known_of(
        self, connection: Connection, newsletter: str, channel: str, addresses: Sequence[str]
    ) -> Mapping[Key, Known]:
        """In two steps: as a join, PostgreSQL would read all subscriptions of the newsletter, again for each window."""
        if not self.database.sqlite:
            connection.execute(
                text("SET LOCAL enable_seqscan = off")
            )  # it takes the index for dear, with no better reason
        query = select(subscribers.c.id, subscribers.c.address).where(
            subscribers.c.channel == channel,
            among(self.database, subscribers.c.address, addresses),
        )
        found = {row.id: (channel, row.address) for row in connection.execute(query)}
        columns = [subscriptions.c[name] for name in ("id", "state", "token", "consent_at", "import_id")]
        having = select(subscriptions.c.subscriber_id, *columns).where(
            subscriptions.c.newsletter == newsletter,
            among(self.database, subscriptions.c.subscriber_id, list(found)),
        )
        known = {key: Known(number) for number, key in found.items()}
        if found:
            known |= {found[row[0]]: Known(*row) for row in connection.execute(having)}
        return known

    def _barred_of(
        self, connection: Connection, channel: str, addresses: Sequence[str]
    ) -> MutableMapping[Key, Barred]:
        query = select(suppressions.c.address, suppressions.c.reason, suppressions.c.import_id).where(
            suppressions.c.channel == channel
        )
        rows = connection.execute(query.where(among(self.database, suppressions.c.address, addresses)))
        barred = {(channel, row.address): Barred(row.reason, row.import_id) for row in rows}
        erased = select(exists().where(suppressions.c.address.startswith(HASHED)))
        if connection.execute(erased).scalar():
            key = self.key(connection)
            prints = {fingerprint(key, channel, address): address for address in addresses}
            rows = connection.execute(query.where(among(self.database, suppressions.c.address, list(prints))))
            # Whatever the reason: an address that was erased is not written down again.
            barred |= {
                (channel, prints[row.address]): Barred(SuppressionReason.ERASED, row.import_id)
                for row in rows
            }
        return barred

    def _write_window(
        self, connection: Connection, order: ImportOrder, judged: Sequence[Judged], import_id: int
    ) -> None:
        now = self.database.now(connection)
        added = [one for one in judged if one.verdict is Verdict.ADDED]
        self._suppress_all(
            connection, [one.line for one in added if one.line.standing in SUPPRESSING], order, import_id, now
        )
        for line in sorted((one.line for one in judged if one.stronger), key=lambda line: line.address):
            self._outweigh(connection, line, order, import_id)
        # In the order of the index: neighbours share its pages.
        coming = sorted(
            (one for one in added if one.line.standing not in SUPPRESSING), key=lambda one: one.line.address
        )
        numbers = self._subscribe_all(connection, order, coming, import_id, now)
        self._link_all(connection, zip(coming, numbers, strict=True), judged, import_id)
        for one in judged:
            if one.verdict is Verdict.ENDED:
                self._end_imported(connection, one, order, now)

    def _suppress_all(
        self, connection: Connection, lines: Sequence[Line], order: ImportOrder, import_id: int, now: datetime
    ) -> None:
        moment = self._written(now)
        rows = [
            (
                line.channel,
                line.address,
                SUPPRESSING[line.standing].value,
                _note(order, line),
                moment,
                import_id,
            )
            for line in sorted(lines, key=lambda line: line.address)
        ]
        copy_rows(self.database, suppressions, SUPPRESSION, rows, connection)

    def _outweigh(self, connection: Connection, line: Line, order: ImportOrder, import_id: int) -> None:
        """A stronger reason for a suppression that is there. What was heard here stays, whatever is taken back."""
        ours = suppressions.c.import_id.is_(None)
        connection.execute(
            update(suppressions)
            .where(suppressions.c.channel == line.channel, suppressions.c.address == line.address)
            .values(
                reason=SUPPRESSING[line.standing],
                note=_note(order, line),
                import_id=case((ours, null()), else_=import_id),
            )
        )

    def _subscribe_all(
        self,
        connection: Connection,
        order: ImportOrder,
        coming: Sequence[Judged],
        import_id: int,
        now: datetime,
    ) -> Sequence[int]:
        """Writes subscribers, subscriptions and their evidence; the subscriptions' keys, in this order."""
        lines = [one.line for one in coming]
        who = self._subscribers_of(connection, coming, now)
        keys = new_keys(self.database, connection, subscriptions, len(lines))
        active, left = self._rows(order, import_id, now)
        rows: list[tuple[Any, ...]] = []
        evidence: list[tuple[Any, ...]] = []
        for number, subscriber, line, token in zip(keys, who, lines, _tokens(len(lines)), strict=True):
            make = active if line.standing is Standing.ACTIVE else left
            subscription, consent = make(number, subscriber, line, token)
            rows.append(subscription)
            evidence.append(consent)
        copy_rows(self.database, subscriptions, SUBSCRIPTION, rows, connection)
        copy_rows(self.database, consents, CONSENT, evidence, connection)
        tags = [(number, tag) for number, line in zip(keys, lines, strict=True) for tag in line.tags]
        copy_rows(self.database, subscription_tags, ("subscription_id", "tag"), tags, connection)
        pairs = [
            (number, *pair) for number, line in zip(keys, lines, strict=True) for pair in line.attributes
        ]
        copy_rows(
            self.database, subscription_attributes, ("subscription_id", "name", "value"), pairs, connection
        )
        return keys

    def _rows(self, order: ImportOrder, import_id: int, now: datetime) -> tuple[MakeRows, MakeRows]:
        """What makes (subscription, evidence) of a reader who gets the newsletter, and of one who left."""
        written, newsletter, origin = self._written, order.newsletter, order.origin
        moment, begins = written(now), written(order.begins_at or now)

        def active(number: int, subscriber: int, line: Line, token: str) -> Rows:
            agreed = written(line.consent_at) if line.consent_at else moment
            source = line.source or origin
            return (
                (
                    number,
                    subscriber,
                    newsletter,
                    "active",
                    token,
                    source,
                    agreed,
                    begins,
                    None,
                    None,
                    import_id,
                ),
                (
                    subscriber,
                    newsletter,
                    "imported",
                    agreed,
                    source,
                    line.ip,
                    f"line {line.number}",
                    import_id,
                ),
            )

        def left(number: int, subscriber: int, line: Line, token: str) -> Rows:
            agreed = written(line.consent_at) if line.consent_at else moment
            ended = written(line.ended_at) if line.ended_at else moment
            source, why = line.source or origin, f"{origin}: {line.says}"
            return (
                (
                    number,
                    subscriber,
                    newsletter,
                    "unsubscribed",
                    token,
                    source,
                    agreed,
                    None,
                    ended,
                    why,
                    import_id,
                ),
                (subscriber, newsletter, "withdrawn", ended, why, line.ip, f"line {line.number}", import_id),
            )

        return active, left

    def _subscribers_of(
        self, connection: Connection, coming: Sequence[Judged], now: datetime
    ) -> Sequence[int]:
        """The subscribers' keys, of those who are new as well."""
        new = [one.line for one in coming if one.known is None]
        keys = new_keys(self.database, connection, subscribers, len(new))
        moment = self._written(now)
        rows = [
            (
                number,
                line.channel,
                line.address,
                domain_of(line.channel, line.address),
                line.name,
                line.language,
                moment,
            )
            for number, line in zip(keys, new, strict=True)
        ]
        copy_rows(self.database, subscribers, SUBSCRIBER, rows, connection)
        fresh = iter(keys)
        return [one.known.subscriber_id if one.known else next(fresh) for one in coming]

    def _link_all(
        self,
        connection: Connection,
        added: Iterable[tuple[Judged, int]],
        judged: Sequence[Judged],
        import_id: int,
    ) -> None:
        """Old unsubscribe links, also of those who were here before: theirs lie in the same mailboxes."""
        if not any(one.line.links for one in judged):
            return
        new = [
            (hash_of(link), number, import_id)
            for one, number in added
            for link in dict.fromkeys(one.line.links)
        ]
        copy_rows(self.database, old_links, ("hash", "subscription_id", "import_id"), new, connection)
        again = [
            {"hash": hash_of(link), "subscription_id": one.known.subscription_id, "import_id": import_id}
            for one in judged
            if one.line.links and one.known and one.known.subscription_id
            for link in one.line.links
        ]
        insert_ignore(self.database, old_links, again, connection)

    def _end_imported(self, connection: Connection, one: Judged, order: ImportOrder, now: datetime) -> None:
        assert one.known is not None
        why = f"{order.origin}: {one.line.says}"
        if self._end(connection, one.known.token, why, now) and (
            left := self._of_token(connection, one.known.token)
        ):
            self._left(connection, left, Visit(source=why), now)

    @property
    def _written(self) -> Callable[[datetime], Any]:
        """A time as `copy_rows` wants it: formatting it ourselves is a third of the driver's price."""
        return (lambda moment: moment) if self.database.sqlite else datetime.isoformat


SUBSCRIBER = ("id", "channel", "address", "domain", "name", "language", "created_at")
SUBSCRIPTION = (
    *("id", "subscriber_id", "newsletter", "state", "token", "source", "consent_at"),
    *("activated_at", "ended_at", "end_reason", "import_id"),
)
SUPPRESSION = ("channel", "address", "reason", "note", "created_at", "import_id")
CONSENT = ("subscriber_id", "newsletter", "kind", "at", "source", "ip", "detail", "import_id")


def _note(order: ImportOrder, line: Line) -> str:
    return f"{order.origin}: {line.says}" + (f", {line.ended_at:%Y-%m-%d}" if line.ended_at else "")


def _pass(sources: Sequence[Source], *, ending: bool) -> Iterator[Line | Refusal]:
    """What ends mail, of all sources; or the rest, with the lines that cannot be used."""
    for source in sources:
        said = source.standings
        if said is None:
            yield from (one for one in source.lines() if _ends_mail(one) is ending)
        elif said & TERMINAL if ending else said - TERMINAL:
            yield from source.lines()


def _ends_mail(one: Line | Refusal) -> bool:
    return isinstance(one, Line) and one.standing in TERMINAL


@contextmanager
def _rare_gc() -> Iterator[Callable[[], None]]:
    """Millions of small things come and go: looking for circles among them all the time would be a tenth of the work.

    What there was before is not looked at; the driver's and SQLAlchemy's circles go every few windows, by what this
    gives: they hold a window's parameters.
    """
    was, windows = gc.isenabled(), itertools.count(1)

    def tidy() -> None:
        if next(windows) % COLLECT_EVERY == 0:
            gc.collect()

    gc.disable()
    gc.freeze()
    try:
        yield tidy
    finally:
        gc.unfreeze()
        if was:
            gc.enable()


def _without_refusals(
    windows: Iterable[Sequence[Line | Refusal]], report: ImportReport, refused: Refused
) -> Iterator[Sequence[Line]]:
    for window in windows:
        for one in window:
            if isinstance(one, Refusal):
                report.counts[one.says, str(Verdict.REFUSED)] += 1
                refused(one)
        yield [one for one in window if isinstance(one, Line)]


def _ends(judged: Sequence[Judged]) -> Ends:
    return Counter((one.line.says, str(one.verdict)) for one in judged)


def _tokens(number: int) -> Sequence[str]:
    """As `new_token`, many at once; in order, so that neighbours share the pages of their index.

    Whoever knows their own token knows the first 14 bits of their neighbours' by it; 114 are left.
    """
    raw = os.urandom(TOKEN_BYTES * number)
    return sorted(
        urlsafe_b64encode(raw[at : at + TOKEN_BYTES]).rstrip(b"=").decode()
        for at in range(0, len(raw), TOKEN_BYTES)
    )
