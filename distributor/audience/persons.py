"""One person: everything that is kept about them, and taking all of it away."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Table, Text, delete, func, insert, or_, select, type_coerce, update

from distributor.audience.addresses import fingerprint, mention, normalise
from distributor.audience.describing import NOTHING
from distributor.audience.exports import Exports
from distributor.audience.store import subscription_of, subscription_query
from distributor.audience.values import Visit
from distributor.model import DeliveryState, SuppressionReason
from distributor.tables import (
    channel_stops,
    consent_texts,
    consents,
    events,
    imports,
    issue_segments,
    letters,
    links,
    notices,
    old_links,
    resends,
    subscribers,
    subscription_attributes,
    subscription_tags,
    subscriptions,
    suppressions,
    webhook_calls,
)

#: What stands in a text in place of an address that was erased.
ERASED = "[erased]"
#: Where an ended subscription says why.
FORGOTTEN = "forgotten"


@dataclass(frozen=True, kw_only=True)
class Trace:
    """One of a person's addresses. `subscriber_id` 0: no subscriber (any more). `instead` is what an erased one leaves."""

    channel: str
    address: str
    subscriber_id: int
    instead: str


class Persons(Exports):
    """Shows and erases what is kept about a person: an address, with the chats and the mailbox it is linked to."""

    def traces(self, channel: str, address: str) -> Sequence[Trace]:
        """The person's addresses, the one that was asked for among them even if nothing is kept under it."""
        known = normalise(channel, address)
        with self.database.read() as connection:
            row = connection.execute(_subscriber(channel, known)).first()
            if row is None:
                return [self._trace_of(connection, channel, known, 0)]
            root = row.linked_to or row.id
            everywhere = or_(subscribers.c.id == root, subscribers.c.linked_to == root)
            rows = connection.execute(select(subscribers).where(everywhere).order_by(subscribers.c.id))
            return [self._trace_of(connection, one.channel, one.address, one.id) for one in rows]

    def record_of(self, trace: Trace) -> Mapping[str, Any]:
        """What the audience keeps under an address, by section; times are aware. No token: those are the reader's keys."""
        with self.database.read() as connection:
            return {
                "subscriber": next(iter(_named(connection, _about(trace))), None),
                "subscriptions": self._subscribed_to(connection, trace),
                "consents": _named(connection, _evidence(trace)),
                "letters": _named(connection, _letters(trace)),
                "links": _named(connection, _links(trace)),
                "events": _named(connection, _events(trace)),
                "suppressions": _named(connection, _suppressions(trace)),
                "resends": _named(connection, _resends(trace)),
                "webhook_calls": self._calls_naming(connection, trace),
            }

    def withdraw(self, traces: Sequence[Trace]) -> None:
        """Ends all their subscriptions, and takes back letters that wait: nothing new is begun for them from now on."""
        visit = Visit(source=FORGOTTEN)
        with self.database.write() as connection:
            now = self.database.now(connection)
            query = subscription_query(None).where(subscriptions.c.subscriber_id.in_(_numbers(traces)))
            for found in [subscription_of(row) for row in connection.execute(query)]:
                if self._end(connection, found.token, FORGOTTEN, now):
                    self._left(connection, found, visit, now)
            waiting = letters.c.state == DeliveryState.PENDING
            connection.execute(delete(letters).where(letters.c.subscriber_id.in_(_numbers(traces)), waiting))

    def letters_in_hand(self, traces: Sequence[Trace]) -> int:
        """Letters to them that a process has in hand right now."""
        with self.database.read() as connection:
            query = select(func.count()).where(
                letters.c.subscriber_id.in_(_numbers(traces)),
                letters.c.state == DeliveryState.SENDING,
                letters.c.due_at > self.database.now(connection),  # the end of its lease
            )
            return connection.execute(query).scalar_one()

    def erase(self, traces: Sequence[Trace]) -> int:
        """Removes the person; what must stay for the sums (events, resends) keeps a fingerprint instead of the address.

        So do suppressions: a reason to write nobody is not lost. Again and again is harmless. Returns how many webhook
        calls name them and are still to be delivered: those go out first, or the other side would never hear of it.
        """
        with self.database.write() as connection:
            now = self.database.now(connection)
            self._remove_rows(connection, _numbers(traces))
            for trace in traces:
                self._suppress_hashed(connection, trace, now)
                _rename(connection, resends, trace)
                _rename_events(connection, trace)
                for table, columns in _TEXTS:
                    _blot(connection, table, columns, mention(trace.address), trace.address)
            return sum(self._empty_calls(connection, trace) for trace in traces)

    def _trace_of(self, connection: Connection, channel: str, address: str, number: int) -> Trace:
        instead = fingerprint(self.key(connection), channel, address)
        return Trace(channel=channel, address=address, subscriber_id=number, instead=instead)

    def _subscribed_to(self, connection: Connection, trace: Trace) -> Sequence[Mapping[str, Any]]:
        row = subscriptions.c
        query = (
            select(
                row.id,
                row.newsletter,
                row.state,
                row.source,
                row.consent_at,
                row.activated_at,
                row.ended_at,
                row.end_reason,
                imports.c.origin.label("imported_from"),
                imports.c.started_at.label("imported_at"),
            )
            .outerjoin(imports, imports.c.id == row.import_id)
            .where(row.subscriber_id == trace.subscriber_id)
        )
        found = _named(connection, query)
        known = self._descriptions(connection, [one["id"] for one in found])
        return [{**_without_id(one), **vars(known.get(one["id"], NOTHING))} for one in found]

    def _calls_naming(self, connection: Connection, trace: Trace) -> Sequence[Mapping[str, Any]]:
        row = webhook_calls.c
        found = _quoting(connection, webhook_calls, ("body", "text"), mention(trace.address), trace.address)
        query = select(row.endpoint, row.kind, row.body, row.state, row.created_at, row.sent_at)
        return _named(connection, query.where(row.id.in_([one.id for one in found])))

    def _remove_rows(self, connection: Connection, numbers: Sequence[int]) -> None:
        owned = select(subscribers.c.id).where(subscribers.c.id.in_(numbers))
        if not self.database.sqlite:
            owned = owned.with_for_update()  # a sign-up at this moment waits, and then finds nobody
        connection.execute(owned).all()
        of = select(subscriptions.c.id).where(subscriptions.c.subscriber_id.in_(numbers)).scalar_subquery()
        for table in (subscription_tags, subscription_attributes, old_links):
            connection.execute(delete(table).where(table.c.subscription_id.in_(of)))
        for table in (subscriptions, consents, links, letters, issue_segments):
            connection.execute(delete(table).where(table.c.subscriber_id.in_(numbers)))
        connection.execute(delete(subscribers).where(subscribers.c.id.in_(numbers)))

    def _suppress_hashed(self, connection: Connection, trace: Trace, now: datetime) -> None:
        """Under the fingerprint, with the reason there was; one that the reader cannot end themselves wins over "erased"."""
        of = suppressions.c.channel == trace.channel
        spellings = suppressions.c.address.in_([trace.address, trace.instead])
        reasons = [*connection.execute(select(suppressions.c.reason).where(of, spellings)).scalars()]
        ended = {SuppressionReason.ERASED, SuppressionReason.BLOCKED}
        lasting = [reason for reason in reasons if reason not in ended]
        lasting.sort(key=lambda reason: reason != SuppressionReason.COMPLAINED)  # that one is final
        connection.execute(delete(suppressions).where(of, spellings))
        row = {"channel": trace.channel, "address": trace.instead, "note": "", "created_at": now}
        connection.execute(
            insert(suppressions).values(**row, reason=next(iter(lasting), SuppressionReason.ERASED))
        )

    def _empty_calls(self, connection: Connection, trace: Trace) -> int:
        row = webhook_calls.c
        found = _quoting(connection, webhook_calls, ("body", "text"), mention(trace.address), trace.address)
        settled = [one.id for one in found if one.due_at is None]
        emptied = update(webhook_calls).where(row.id.in_(settled)).values(body={}, text="")
        connection.execute(emptied)
        return len(found) - len(settled)


#: Texts of ours or of a provider that may quote an address.
_TEXTS: Sequence[tuple[Table, Sequence[str]]] = (
    (notices, ("subject", "body", "error")),
    (resends, ("reason",)),
    (channel_stops, ("reason",)),
)


def _numbers(traces: Iterable[Trace]) -> Sequence[int]:
    return [trace.subscriber_id for trace in traces if trace.subscriber_id]


def _subscriber(channel: str, address: str) -> Any:
    return select(subscribers).where(subscribers.c.channel == channel, subscribers.c.address == address)


def _named(connection: Connection, query: Any) -> Sequence[Mapping[str, Any]]:
    return [dict(row) for row in connection.execute(query).mappings()]


def _without_id(row: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: value for name, value in row.items() if name != "id"}


def _about(trace: Trace) -> Any:
    row = subscribers.c
    columns = (row.name, row.language, row.created_at, row.asked_at, row.heard_at)
    return select(*columns).where(row.id == trace.subscriber_id)


def _evidence(trace: Trace) -> Any:
    row = consents.c
    return (
        select(
            row.newsletter,
            row.kind,
            row.at,
            row.source,
            row.ip,
            row.detail,
            row.wording,
            consent_texts.c.text.label("words"),
        )
        .outerjoin(consent_texts, consent_texts.c.version == row.wording)
        .where(row.subscriber_id == trace.subscriber_id)
        .order_by(row.id)
    )


def _letters(trace: Trace) -> Any:
    row = letters.c
    columns = (row.kind, row.newsletter, row.language, row.state, row.created_at, row.sent_at)
    return (
        select(*columns, row.code, row.text).where(row.subscriber_id == trace.subscriber_id).order_by(row.id)
    )


def _links(trace: Trace) -> Any:
    row = links.c
    columns = (row.purpose, row.newsletter, row.created_at, row.expires_at, row.used_at)
    return select(*columns).where(row.subscriber_id == trace.subscriber_id).order_by(row.created_at)


def _events(trace: Trace) -> Any:
    row = events.c
    columns = (row.kind, row.provider, row.newsletter, row.issue_id, row.occurred_at, row.received_at)
    return (
        select(*columns, row.permanence, row.code, row.detail)
        .where(row.address == trace.address, row.channel == trace.channel)
        .order_by(row.id)
    )


def _suppressions(trace: Trace) -> Any:
    row = suppressions.c
    return select(row.address, row.reason, row.note, row.created_at).where(
        row.channel == trace.channel, row.address.in_([trace.address, trace.instead])
    )


def _resends(trace: Trace) -> Any:
    row = resends.c
    return select(row.issue_id, row.scope, row.reason, row.asked_by, row.asked_at).where(
        row.address == trace.address, or_(row.channel == trace.channel, row.channel.is_(None))
    )


def _rename(connection: Connection, table: Table, trace: Trace) -> None:
    there = or_(table.c.channel == trace.channel, table.c.channel.is_(None))
    renamed = update(table).where(table.c.address == trace.address, there)
    connection.execute(renamed.values(address=trace.instead))


def _rename_events(connection: Connection, trace: Trace) -> None:
    """An event of our own may have the address in its name as well."""
    row, pattern = events.c, mention(trace.address)
    query = select(row.id, row.provider_event_id).where(
        row.address == trace.address, row.channel == trace.channel
    )
    for number, name in connection.execute(query).all():
        renamed = {"provider_event_id": pattern.sub(trace.instead, name), "address": trace.instead}
        connection.execute(update(events).where(row.id == number).values(detail="", **renamed))


def _quoting(
    connection: Connection, table: Table, columns: Sequence[str], pattern: re.Pattern[str], address: str
) -> Sequence[Any]:
    """Rows in one of whose columns the address stands: found roughly by the database, exactly here."""
    texts = [func.lower(type_coerce(table.c[name], Text)) for name in columns]
    roughly = or_(*(text.contains(address.lower(), autoescape=True) for text in texts))
    rows = connection.execute(select(table).where(roughly)).all()
    return [row for row in rows if any(pattern.search(str(getattr(row, name))) for name in columns)]


def _blot(
    connection: Connection, table: Table, columns: Sequence[str], pattern: re.Pattern[str], address: str
) -> None:
    (key,) = table.primary_key.columns
    for row in _quoting(connection, table, columns, pattern, address):
        texts = {name: pattern.sub(ERASED, getattr(row, name)) for name in columns}
        connection.execute(update(table).where(key == getattr(row, key.name)).values(**texts))
