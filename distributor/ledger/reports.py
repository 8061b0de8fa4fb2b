"""Counting and looking: who is in which state, and what was tried."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    and_,
    case,
    func,
    literal,
    or_,
    select,
    text,
    tuple_,
)

from distributor.errors import AWAITING
from distributor.ledger.news import News
from distributor.ledger.rows import attempt_from, log_entry_from
from distributor.ledger.tables import STATES
from distributor.ledger.values import Attempt, LogEntry
from distributor.model import (
    DeliveryState,
    Tally,
)
from distributor.tables import attempts, chunks, deliveries, issue_channels, issues, resends

#: What the deliveries of an issue may be grouped by.
GroupKey = Literal["domain", "relay"]
#: Recipient domains that get a group of their own; the others are summed.
LARGEST = 20
#: The group of what has no domain, or was not tried yet.
NONE, OTHERS = "-", "others"
#: PostgreSQL's usual 4 MB send a million rows to the disk and back: half as fast again with this.
SORT_MEMORY = "64MB"
#: States that an attempt ends in. What is skipped was not tried.
TRIED = (DeliveryState.SENT, DeliveryState.FAILED, DeliveryState.UNCONFIRMED)


@dataclass(frozen=True, kw_only=True)
class Group:
    """Deliveries that share a recipient domain, the relay that tried them last, or both.

    `retrying` are among the `open`. `throttled` counts attempts that cost no try: the other side said "too fast". Those
    before a resend are not among them. `rate`: settled a second, over the last minute.
    """

    domain: str | None
    relay: str | None
    sent: int
    failed: int
    unconfirmed: int
    open: int
    retrying: int
    throttled: int
    rate: float


class Reports(News):
    """Tallies and the log."""

    def moment(self) -> datetime:
        """The database's time: deadlines and stops are meant by it."""
        with self.database.read() as connection:
            return self.database.now(connection)

    def tallies(self, issue_id: int) -> Mapping[str, Tally]:
        """Channel → what was planned and how it stands, from the chunks' counters."""
        names = [str(state) for state in STATES]
        with self.database.read() as connection:
            planned = {
                row.channel: row.planned
                for row in connection.execute(
                    select(issue_channels).where(issue_channels.c.issue_id == issue_id)
                )
            }
            rows = connection.execute(
                select(chunks.c.channel, *(func.sum(chunks.c[name]).label(name) for name in names))
                .where(chunks.c.issue_id == issue_id)
                .group_by(chunks.c.channel)
            )
            counted = {row.channel: {name: int(getattr(row, name)) for name in names} for row in rows}
        return {
            channel: Tally(planned=number, **counted.get(channel, {})) for channel, number in planned.items()
        }

    def audit(self, issue_id: int) -> Mapping[str, Tally]:
        """The same from the rows themselves: slow, and right by definition."""
        with self.database.read() as connection:
            rows = connection.execute(
                select(deliveries.c.channel, deliveries.c.state, func.count())
                .where(deliveries.c.issue_id == issue_id)
                .group_by(deliveries.c.channel, deliveries.c.state)
            ).all()
        found: dict[str, dict[str, int]] = {}
        for channel, state, number in rows:
            found.setdefault(channel, {})[state] = number
        return {
            channel: Tally(planned=tally.planned, **found.get(channel, {}))
            for channel, tally in self.tallies(issue_id).items()
        }

    def settled_lately(self, issue_id: int) -> Mapping[str, float]:
        """Channel → deliveries settled a second over the last minute. Reads every row: for issues that are small."""
        with self.database.read() as connection:
            now = self.database.now(connection)
            seconds = self._seconds(connection, issue_id, now)
            rows = connection.execute(
                select(deliveries.c.channel, func.count())
                .where(deliveries.c.issue_id == issue_id, _settled_since(now - timedelta(seconds=seconds)))
                .group_by(deliveries.c.channel)
            )
            return {row[0]: row[1] / seconds for row in rows}

    def groups(
        self, issue_id: int, by: Collection[GroupKey], with_domains: Collection[str], largest: int = LARGEST
    ) -> Sequence[Group]:
        """An issue's deliveries by recipient domain, by relay, or by both; the largest first.

        `with_domains` are the channels whose addresses have a domain. Reads every row, and blocks nobody.
        """
        with self.database.read() as connection:
            now = self.database.now(connection)
            seconds = self._seconds(connection, issue_id, now)
            query = self._grouped(issue_id, by, with_domains, now - timedelta(seconds=seconds))
            if not self.database.sqlite:
                connection.execute(text(f"SET LOCAL work_mem = '{SORT_MEMORY}'"))
            rows = connection.execute(query).all()
        summed = _sum_small(rows, _largest(rows, largest))
        return [
            Group(
                domain=domain if "domain" in by else None,
                relay=relay if "relay" in by else None,
                **dict(zip(COUNTED, counted, strict=False)),
                rate=counted[-1] / seconds,
            )
            for (domain, relay), counted in summed
        ]

    def _grouped(
        self, issue_id: int, by: Collection[GroupKey], with_domains: Collection[str], since: datetime
    ) -> Any:
        """(domain, relay, the numbers of COUNTED, settled since) of each group."""
        domain = self._domain(with_domains) if "domain" in by else literal(NONE)
        relay = func.coalesce(attempts.c.relay, NONE) if "relay" in by else literal(NONE)
        pending = deliveries.c.state == DeliveryState.PENDING
        counted = (
            *(_count(deliveries.c.state == state) for state in TRIED),
            _count(or_(pending, deliveries.c.state == DeliveryState.SENDING)),
            _count(and_(pending, deliveries.c.first_try_at.is_not(None))),
            func.sum(case((deliveries.c.resend == 0, deliveries.c.attempts - deliveries.c.tries), else_=0)),
            _count(_settled_since(since)),
        )
        query = select(domain.label("domain"), relay.label("relay"), *counted)
        if "relay" in by:
            last = and_(
                attempts.c.issue_id == deliveries.c.issue_id,
                attempts.c.seq == deliveries.c.seq,
                attempts.c.number == deliveries.c.attempts,
            )
            # Said twice, so that PostgreSQL looks at one partition of the attempts only.
            query = query.select_from(
                deliveries.outerjoin(attempts, and_(last, attempts.c.issue_id == issue_id))
            )
        return query.where(deliveries.c.issue_id == issue_id).group_by("domain", "relay")

    def _domain(self, with_domains: Collection[str]) -> ColumnElement[str]:
        at = (func.instr if self.database.sqlite else func.strpos)(deliveries.c.address, "@")
        domain = func.substr(deliveries.c.address, at + 1)
        return case((deliveries.c.channel.in_(list(with_domains)), domain), else_=NONE)

    def _seconds(self, connection: Connection, issue_id: int, now: datetime) -> float:
        """How long "lately" is: a minute, or since the issue began."""
        began: datetime = connection.execute(
            select(func.coalesce(issues.c.frozen_at, issues.c.opened_at)).where(issues.c.id == issue_id)
        ).scalar_one()
        return min(60.0, max(1.0, (now - began).total_seconds()))

    def why(
        self, issue_id: int, state: DeliveryState, *, among: int | None = None
    ) -> Sequence[tuple[str, str, int]]:
        """(channel, reason or code and text, how many) of one state, the most frequent first.

        `among`: looks at no more than about so many deliveries, those of the first chunks that count one.
        """
        said = func.coalesce(deliveries.c.reason, deliveries.c.code + literal(" ") + deliveries.c.text)
        query = select(deliveries.c.channel, said, func.count()).where(
            deliveries.c.issue_id == issue_id, deliveries.c.state == state
        )
        with self.database.read() as connection:
            if among is not None:
                spans = self._spans(connection, issue_id, state, among)
                query = query.where(or_(literal(False), *(deliveries.c.seq.between(*span) for span in spans)))
            rows = connection.execute(
                query.group_by(deliveries.c.channel, said).order_by(func.count().desc()).limit(20)
            )
            return [(row[0], row[1].strip(), row[2]) for row in rows]

    def _spans(
        self, connection: Connection, issue_id: int, state: DeliveryState, among: int
    ) -> Sequence[tuple[int, int]]:
        """Key ranges of the first chunks with a delivery in that state, as many as hold `among` deliveries."""
        spans: list[tuple[int, int]] = []
        for lo, hi, _number in _chunks_with(connection, issue_id, [state]):
            among -= hi - lo + 1
            if spans and among < 0:
                break
            spans.append((lo, hi))
        return spans

    def log(
        self,
        issue_id: int | None,
        *,
        states: Iterable[DeliveryState] = (),
        channel: str | None = None,
        address: str | None = None,
        after: int = 0,
        before: tuple[int, int] | None = None,
        limit: int = 100,
    ) -> Sequence[LogEntry]:
        """Deliveries with their attempts, in order of their number within the issue, from behind `after`.

        Without an issue, the newest of all of them, and of these (issue, number) the ones ahead of `before`.
        """
        query = select(deliveries).limit(limit)
        wanted = list(states)
        if issue_id is not None:
            query = query.where(deliveries.c.issue_id == issue_id, deliveries.c.seq > after)
        if wanted:
            query = query.where(deliveries.c.state.in_(wanted))
        if channel:
            query = query.where(deliveries.c.channel == channel)
        if address:
            query = query.where(deliveries.c.address == address)
        if before:
            query = query.where(tuple_(deliveries.c.issue_id, deliveries.c.seq) < before)
        with self.database.read() as connection:
            if wanted and issue_id is not None and not address:
                rows = _in_chunks(connection, query, issue_id, wanted, channel, after, limit)
            elif issue_id is not None:
                rows = connection.execute(query.order_by(deliveries.c.seq)).all()
            else:  # of all issues, the newest
                newest = query.order_by(deliveries.c.issue_id.desc(), deliveries.c.seq.desc())
                rows = sorted(connection.execute(newest), key=lambda row: (row.issue_id, row.seq))
            keys = [(row.issue_id, row.seq) for row in rows]
            tried, heard = self._attempts(connection, keys), self._heard_of(connection, keys)
        return [
            log_entry_from(row, tried.get(key, ()), heard.get(key, ()))
            for key, row in zip(keys, rows, strict=True)
        ]

    def doubtful_destinations(self) -> Sequence[LogEntry]:
        """Deliveries to fixed places that are in doubt, of the newest issues; not those a person has in hand."""
        newest = select(issues.c.id).order_by(issues.c.id.desc()).limit(32)
        return self._unconfirmed_places(
            chunks.c.issue_id.in_(newest.scalar_subquery()), deliveries.c.code != AWAITING
        )

    def awaiting(self, issue_id: int) -> Sequence[LogEntry]:
        """Deliveries of an issue that a person has in hand and has not settled yet."""
        return self._unconfirmed_places(chunks.c.issue_id == issue_id, deliveries.c.code == AWAITING)

    def _unconfirmed_places(self, of: ColumnElement[bool], code: ColumnElement[bool]) -> Sequence[LogEntry]:
        """Each destination has a chunk of its own, so the counters say where to look."""
        places = (
            select(chunks.c.issue_id, chunks.c.lo)
            .where(of, chunks.c.pace_group.startswith("to:"), chunks.c.unconfirmed > 0)
            .subquery()
        )
        query = (
            select(deliveries)
            .join(places, and_(places.c.issue_id == deliveries.c.issue_id, places.c.lo == deliveries.c.seq))
            .where(deliveries.c.state == DeliveryState.UNCONFIRMED, code)
            .order_by(deliveries.c.issue_id, deliveries.c.seq)
        )
        with self.database.read() as connection:
            return [log_entry_from(row, ()) for row in connection.execute(query).all()]

    def _attempts(
        self, connection: Connection, keys: Sequence[tuple[int, int]]
    ) -> Mapping[tuple[int, int], Sequence[Attempt]]:
        found: dict[tuple[int, int], list[Attempt]] = {}
        for issue_id in {key[0] for key in keys}:
            numbers = [seq for issue, seq in keys if issue == issue_id]
            query = (
                select(attempts, resends.c.reason.label("why"))
                .outerjoin(resends, resends.c.id == attempts.c.resend_id)
                .where(attempts.c.issue_id == issue_id, attempts.c.seq.in_(numbers))
                .order_by(attempts.c.seq, attempts.c.number)
            )
            for row in connection.execute(query):
                found.setdefault((row.issue_id, row.seq), []).append(attempt_from(row))
        return found


#: Key ranges that are asked for in one statement.
MOST_SPANS = 100
#: The numbers of a group, in the order they are read.
COUNTED = ("sent", "failed", "unconfirmed", "open", "retrying", "throttled")

_Numbers = tuple[int, ...]
_Summed = tuple[tuple[str, str], _Numbers]


def _count(which: ColumnElement[bool]) -> Any:
    return func.sum(case((which, 1), else_=0))


def _settled_since(moment: datetime) -> ColumnElement[bool]:
    return and_(deliveries.c.state.in_(TRIED), deliveries.c.updated_at > moment)


def _largest(rows: Sequence[Any], number: int) -> set[str]:
    """The domains with the most deliveries that are tried or open."""
    sizes: Counter[str] = Counter()
    for domain, _relay, sent, failed, unconfirmed, still, *_rest in rows:
        sizes[domain] += sent + failed + unconfirmed + still
    return {domain for domain, _size in sizes.most_common(number)}


def _sum_small(rows: Sequence[Any], kept: set[str]) -> Sequence[_Summed]:
    """(domain or "others", relay) → its numbers; the largest first, the others last."""
    summed: dict[tuple[str, str], _Numbers] = {}
    for domain, relay, *numbers in rows:
        key = (domain if domain in kept else OTHERS, relay)
        before = summed.get(key, (0,) * len(numbers))
        summed[key] = tuple(map(sum, zip(before, map(int, numbers), strict=True)))
    return sorted(summed.items(), key=lambda item: (item[0][0] == OTHERS, -sum(item[1][:4]), item[0]))


def _in_chunks(
    connection: Connection,
    query: Select[Any],
    issue_id: int,
    states: Collection[DeliveryState],
    channel: str | None,
    after: int,
    limit: int,
) -> Sequence[Any]:
    """Looks only into the chunks whose counters say that somebody is in one of the states: rows have no such index.

    As one statement, a join, it took 28 s in the middle of a send to a million: by the statistics of a table that is
    all pending, sorting it whole looked as good as any other way.
    """
    rows: list[Any] = []
    while len(rows) < limit:
        spans, counted = [], 0
        for lo, hi, number in _chunks_with(connection, issue_id, states, channel, after):
            spans.append(deliveries.c.seq.between(lo, hi))
            counted, after = counted + number, hi
            if counted >= limit - len(rows):
                break
        if not spans:
            break
        ordered = query.where(or_(*spans)).order_by(deliveries.c.seq)
        rows += connection.execute(ordered.limit(limit - len(rows)))
    return rows


def _chunks_with(
    connection: Connection,
    issue_id: int,
    states: Collection[DeliveryState],
    channel: str | None = None,
    after: int = 0,
) -> Sequence[Any]:
    """(first number, last number, deliveries in one of the states) of the next chunks that count one."""
    number = sum((chunks.c[state] for state in states), literal(0))
    query = select(chunks.c.lo, chunks.c.hi, number).where(
        chunks.c.issue_id == issue_id, chunks.c.hi > after, number > 0
    )
    if channel:
        query = query.where(chunks.c.channel == channel)
    return connection.execute(query.order_by(chunks.c.lo).limit(MOST_SPANS)).all()
