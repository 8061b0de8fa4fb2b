"""Who could get an issue: subscribers, their subscriptions with consent evidence, and suppressions."""

import csv
import re
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, TypeVar

from email_validator import EmailNotValidError, validate_email
from sqlalchemy import Connection, Select, and_, delete, exists, func, or_, select, update

from distributor.db import Database, insert_ignore
from distributor.errors import RequestRefused
from distributor.model import SubscriptionState, SuppressionReason
from distributor.tables import events, subscribers, subscriptions, suppressions

T = TypeVar("T")

#: A query for (subscriber_id, address, domain); a story hands it from the audience to the ledger unread.
AudienceQuery = Select[Any]

#: 16 random bytes: 22 characters keep `List-Unsubscribe` on one line (facts: RFC 8058 headers, 77 characters).
TOKEN_BYTES = 16
IMPORT_BATCH = 1000


@dataclass(frozen=True, kw_only=True)
class Subscription:
    """A subscriber's link to a newsletter, as a page or a listing shows it."""

    subscriber_id: int
    newsletter: str
    channel: str
    address: str
    name: str
    state: SubscriptionState
    token: str
    source: str
    consent_at: datetime
    activated_at: datetime | None
    ended_at: datetime | None
    end_reason: str | None
    suppressed: str | None = None


@dataclass(frozen=True, kw_only=True)
class NewSubscriber:
    """One line of an import: an address that somebody says has asked for the newsletter."""

    channel: str
    address: str
    source: str
    name: str = ""
    language: str | None = None
    consent_at: datetime | None = None


@dataclass(kw_only=True)
class ImportReport:
    """What an import did: added, known already, left or suppressed before (never revived), refused lines."""

    read: int = 0
    added: int = 0
    known: int = 0
    errors: list[str] = field(default_factory=list)


class Audience:
    """Subscribers and their subscriptions in one database."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def add(self, newsletter: str, new: NewSubscriber, *, resubscribe: bool = False) -> Subscription:
        """Adds an active subscription. Raises RequestRefused for someone who left, or whom we must not write to."""
        address = normalise(new.channel, new.address)
        with self.database.write() as connection:
            now = self.database.now(connection)
            if reason := self._suppression(connection, new.channel, address):
                raise RequestRefused(f"{address} is suppressed ({reason}); nothing may be sent there")
            self._insert(connection, newsletter, [(new, address)], now)
            found = self._one(connection, newsletter, new.channel, address)
            if found.state is SubscriptionState.UNSUBSCRIBED:
                if not resubscribe:
                    raise RequestRefused(
                        f"{address} unsubscribed on {found.ended_at:%Y-%m-%d}; "
                        "if the reader asked to come back, add --resubscribe"
                    )
                self._reactivate(connection, found, new, now)
        with self.database.read() as connection:
            return self._one(connection, newsletter, new.channel, address)

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

    def listing(
        self, newsletter: str, *, channel: str | None = None, after: int = 0, limit: int = 100
    ) -> Sequence[Subscription]:
        """Subscriptions in order of the subscriber's id, from behind `after`."""
        query = _subscription_query(newsletter).where(subscribers.c.id > after).order_by(subscribers.c.id)
        if channel:
            query = query.where(subscribers.c.channel == channel)
        with self.database.read() as connection:
            return [_subscription(row) for row in connection.execute(query.limit(limit))]

    def find(self, token: str) -> Subscription | None:
        """The subscription behind the token of an unsubscribe link."""
        query = _subscription_query(None).where(subscriptions.c.token == token)
        with self.database.read() as connection:
            row = connection.execute(query).first()
        return _subscription(row) if row else None

    def unsubscribe(self, token: str, reason: str) -> Subscription | None:
        """Ends a subscription; again and again is harmless. None for an unknown token."""
        with self.database.write() as connection:
            now = self.database.now(connection)
            ended = connection.execute(
                update(subscriptions)
                .where(
                    subscriptions.c.token == token, subscriptions.c.state != SubscriptionState.UNSUBSCRIBED
                )
                .values(state=SubscriptionState.UNSUBSCRIBED, ended_at=now, end_reason=reason)
            ).rowcount
            if ended:
                self._record_leaving(connection, token, reason, now)
        return self.find(token)

    def forget_events(self, age: timedelta) -> None:
        """Retention."""
        with self.database.write() as connection:
            connection.execute(
                delete(events).where(events.c.received_at < self.database.now(connection) - age)
            )

    def _record_leaving(self, connection: Connection, token: str, reason: str, now: datetime) -> None:
        query = _subscription_query(None).where(subscriptions.c.token == token)
        left = _subscription(connection.execute(query).one())
        row = {
            "provider": "distributor",
            "provider_event_id": f"unsubscribed {left.subscriber_id} {left.newsletter} {now.isoformat()}",
            "kind": "unsubscribed",
            "channel": left.channel,
            "address": left.address,
            "newsletter": left.newsletter,
            "occurred_at": now,
            "received_at": now,
            "detail": reason,
        }
        insert_ignore(self.database, events, [row], connection)

    def suppress(self, channel: str, address: str, reason: SuppressionReason, note: str = "") -> None:
        """From now on nothing is sent to this address."""
        with self.database.write() as connection:
            row: dict[str, Any] = {"channel": channel, "address": address, "reason": reason, "note": note}
            row["created_at"] = self.database.now(connection)
            insert_ignore(self.database, suppressions, [row], connection)

    def unsuppress(self, channel: str, address: str) -> None:
        """The address may be used again. Raises RequestRefused when it is not suppressed, or its reader complained."""
        with self.database.write() as connection:
            reason = self._suppression(connection, channel, address)
            if reason is None:
                raise RequestRefused(f"{address} is not suppressed")
            if reason == SuppressionReason.COMPLAINED:
                raise RequestRefused(f"{address} complained about our mail; that is final")
            connection.execute(
                delete(suppressions).where(
                    suppressions.c.channel == channel, suppressions.c.address == address
                )
            )

    def count(self, newsletter: str, channel: str) -> int:
        """How many would get an issue now."""
        with self.database.read() as connection:
            query = active(newsletter, channel, self.database.now(connection))
            return connection.execute(select(func.count()).select_from(query.subquery())).scalar_one()

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

    def _insert(
        self, connection: Connection, newsletter: str, new: Sequence[tuple[NewSubscriber, str]], now: datetime
    ) -> int:
        """Inserts subscribers and active subscriptions that are not there yet; returns the new subscriptions."""
        insert_ignore(
            self.database,
            subscribers,
            [_subscriber_row(item, address, now) for item, address in new],
            connection,
        )
        by_channel: dict[str, list[str]] = {}
        for item, address in new:
            by_channel.setdefault(item.channel, []).append(address)
        ids = {
            (channel, row.address): row.id
            for channel, addresses in by_channel.items()
            for row in connection.execute(
                select(subscribers.c.id, subscribers.c.address).where(
                    subscribers.c.channel == channel, subscribers.c.address.in_(addresses)
                )
            )
        }
        rows = [_subscription_row(newsletter, item, ids[item.channel, address], now) for item, address in new]
        return insert_ignore(self.database, subscriptions, rows, connection)

    def _reactivate(
        self, connection: Connection, found: Subscription, new: NewSubscriber, now: datetime
    ) -> None:
        connection.execute(
            update(subscriptions)
            .where(subscriptions.c.token == found.token)
            .values(
                state=SubscriptionState.ACTIVE,
                activated_at=now,
                consent_at=new.consent_at or now,
                source=new.source,
                ended_at=None,
                end_reason=None,
            )
        )

    def _suppression(self, connection: Connection, channel: str, address: str) -> str | None:
        return connection.execute(
            select(suppressions.c.reason).where(
                suppressions.c.channel == channel, suppressions.c.address == address
            )
        ).scalar_one_or_none()

    def _one(self, connection: Connection, newsletter: str, channel: str, address: str) -> Subscription:
        query = _subscription_query(newsletter).where(
            subscribers.c.channel == channel, subscribers.c.address == address
        )
        return _subscription(connection.execute(query).one())


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
    newsletter: str, channel: str, moment: datetime, *, only: str | None = None, without: Sequence[str] = ()
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
    if without:
        query = query.where(subscribers.c.address.not_in(without))
    return query if only is None else query.where(subscribers.c.address == only)


def normalise(channel: str, address: str) -> str:
    """The one spelling of an address on a channel. Raises RequestRefused for what cannot be one."""
    address = address.strip()
    if channel == "email":
        try:
            found = validate_email(address, check_deliverability=False, allow_smtputf8=False)
        except EmailNotValidError as error:
            raise RequestRefused(f"{address!r} is not an e-mail address: {error}") from None
        return f"{found.local_part}@{found.ascii_domain}".lower()
    if channel == "telegram" and not re.fullmatch(r"-?\d{1,20}", address):
        raise RequestRefused(f"{address!r} is not a Telegram chat id (a number)")
    if not re.fullmatch(r"[\x21-\x7e]{1,200}", address):
        raise RequestRefused(f"{address!r} is not an address")
    return address


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


def _subscriber_row(new: NewSubscriber, address: str, now: datetime) -> dict[str, Any]:
    return {
        "channel": new.channel,
        "address": address,
        "domain": address.rpartition("@")[2] if new.channel == "email" else "",
        "name": new.name,
        "language": new.language,
        "created_at": now,
    }


def _subscription_row(
    newsletter: str, new: NewSubscriber, subscriber_id: int, now: datetime
) -> dict[str, Any]:
    return {
        "subscriber_id": subscriber_id,
        "newsletter": newsletter,
        "state": SubscriptionState.ACTIVE,
        "token": secrets.token_urlsafe(TOKEN_BYTES),
        "source": new.source,
        "consent_at": new.consent_at or now,
        "activated_at": now,
    }


def _subscription_query(newsletter: str | None) -> Select[Any]:
    query = (
        select(
            subscribers.c.id.label("subscriber_id"),
            subscribers.c.channel,
            subscribers.c.address,
            subscribers.c.name,
            subscriptions.c.newsletter,
            subscriptions.c.state,
            subscriptions.c.token,
            subscriptions.c.source,
            subscriptions.c.consent_at,
            subscriptions.c.activated_at,
            subscriptions.c.ended_at,
            subscriptions.c.end_reason,
            suppressions.c.reason.label("suppressed"),
        )
        .join(subscriptions, subscriptions.c.subscriber_id == subscribers.c.id)
        .outerjoin(
            suppressions,
            and_(
                suppressions.c.channel == subscribers.c.channel,
                suppressions.c.address == subscribers.c.address,
            ),
        )
    )
    return query if newsletter is None else query.where(subscriptions.c.newsletter == newsletter)


def _subscription(row: Any) -> Subscription:
    values = dict(row._mapping)  # noqa: SLF001 - the documented way to a row's names
    return Subscription(**{**values, "state": SubscriptionState(values["state"])})
