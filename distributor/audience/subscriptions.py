"""Subscriptions: add by hand, list, find, end."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, func, select

from distributor.audience.addresses import normalise
from distributor.audience.query import active
from distributor.audience.segments import Segment, in_segment
from distributor.audience.store import Store, subscription_of, subscription_query
from distributor.audience.values import NewSubscriber, Subscription, Visit
from distributor.errors import RequestRefused
from distributor.model import ConsentKind, EventKind, Letter, SubscriptionState
from distributor.tables import events, subscribers, subscriptions


class Subscriptions(Store):
    """Readers one by one."""

    def add(self, newsletter: str, new: NewSubscriber, *, resubscribe: bool = False) -> Subscription:
        """Adds an active subscription. Raises RequestRefused for someone who left, or whom we must not write to."""
        address = normalise(new.channel, new.address)
        with self.database.write() as connection:
            now = self.database.now(connection)
            if reason := self._suppression(connection, new.channel, address):
                raise RequestRefused(f"{address} is suppressed ({reason}); nothing may be sent there")
            self._insert(connection, newsletter, [(new, address)], now)
            found = self._one(connection, newsletter, new.channel, address)
            if found.state is SubscriptionState.UNSUBSCRIBED and not resubscribe:
                raise RequestRefused(
                    f"{address} unsubscribed on {found.ended_at:%Y-%m-%d}; "
                    "if the reader asked to come back, add --resubscribe"
                )
            if found.state is not SubscriptionState.ACTIVE:
                self._reactivate(connection, found, new, now)
                evidence = [(found.subscriber_id, newsletter)]
                self._consent(connection, ConsentKind.ASSERTED, evidence, Visit(source=new.source), now)
                self._record(connection, EventKind.SUBSCRIBED, found, now, new.source)
        with self.database.read() as connection:
            return self._one(connection, newsletter, new.channel, address)

    def listing(
        self,
        newsletter: str,
        *,
        channel: str | None = None,
        segment: Segment | None = None,
        after: int = 0,
        limit: int = 100,
    ) -> Sequence[Subscription]:
        """Subscriptions in order of the subscriber's id, from behind `after`."""
        query = subscription_query(newsletter).where(subscribers.c.id > after).order_by(subscribers.c.id)
        if channel:
            query = query.where(subscribers.c.channel == channel)
        if segment:
            query = in_segment(query, segment)
        with self.database.read() as connection:
            return [subscription_of(row) for row in connection.execute(query.limit(limit))]

    def find(self, token: str) -> Subscription | None:
        """The subscription behind the token of a mail's links."""
        with self.database.read() as connection:
            return self._of_token(connection, token)

    def unsubscribe(
        self, token: str, reason: str, ip: str | None = None, *, goodbye: bool = False
    ) -> Subscription | None:
        """Ends a subscription; again and again is harmless. None for an unknown token. `goodbye`: a mail says so."""
        with self.database.write() as connection:
            now = self.database.now(connection)
            if self._end(connection, token, reason, now) and (left := self._of_token(connection, token)):
                self._left(connection, left, Visit(source=reason, ip=ip), now)
                if goodbye and left.channel == "email" and not left.suppressed:
                    self._letter(
                        connection,
                        Letter.GOODBYE,
                        left.subscriber_id,
                        left.newsletter,
                        left.language or "",
                        now,
                    )
        return self.find(token)

    def resubscribe(self, token: str, visit: Visit) -> Subscription | None:
        """The reader comes back by a link from a mail of ours, which proves the address. None: unknown, or suppressed."""
        with self.database.write() as connection:
            now = self.database.now(connection)
            if not self.database.sqlite:  # a button that is pressed twice begins it once
                row = select(subscriptions.c.id).where(subscriptions.c.token == token)
                connection.execute(row.with_for_update()).all()
            found = self._of_token(connection, token)
            if found is None or found.suppressed:
                return None
            if found.state is SubscriptionState.UNSUBSCRIBED:
                self._activate(connection, [found], ConsentKind.CONFIRMED, visit, now)
        return self.find(token)

    def forget_events(self, age: timedelta) -> None:
        """Retention."""
        with self.database.write() as connection:
            connection.execute(
                delete(events).where(events.c.received_at < self.database.now(connection) - age)
            )

    def count(self, newsletter: str, channel: str, segment: Segment | None = None) -> int:
        """How many would get an issue now."""
        with self.database.read() as connection:
            query = active(newsletter, channel, self.database.now(connection), segment=segment)
            return connection.execute(select(func.count()).select_from(query.subquery())).scalar_one()

    def end_all(
        self,
        connection: Connection,
        channel: str,
        address: str,
        why: str,
        *,
        newsletter: str | None = None,
        began_by: datetime | None = None,
    ) -> None:
        """Ends the subscriptions of an address, or the one to a newsletter, within a transaction, with the evidence.

        `began_by` spares what was agreed to later: news of an earlier time may come late. The first mail is no measure:
        readers who moved here may get it tomorrow.
        """
        found = subscription_query(newsletter).where(
            subscribers.c.channel == channel, subscribers.c.address == address
        )
        now = self.database.now(connection)
        for row in connection.execute(found).all():
            one = subscription_of(row)
            if began_by and one.consent_at > began_by:
                continue
            if self._end(connection, one.token, why, now):
                evidence = [(one.subscriber_id, one.newsletter)]
                self._consent(connection, ConsentKind.WITHDRAWN, evidence, Visit(source=why), now)
                self._announce(connection, EventKind.UNSUBSCRIBED, one, now, why)
