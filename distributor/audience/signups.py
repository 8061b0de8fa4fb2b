"""Double opt-in: somebody types an address in, its reader confirms, and nothing is sent to anybody who did neither.

One confirmation a day and address, whatever the number of forms, newsletters and processes: whoever moves
`subscribers.asked_at` writes the letter. A reader who left stays "unsubscribed" until they confirm, so that asking for
them changes nothing.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Connection, delete, insert, or_, select, update

from distributor.audience.addresses import domain_of, fingerprint
from distributor.audience.store import Store, hashed, new_token, subscription_of, subscription_query
from distributor.audience.values import Answer, Asked, Received, SignUp, Subscription, Visit
from distributor.db import among, insert_ignore, insert_new, one_or_many
from distributor.model import ConsentKind, Letter, LinkPurpose, SubscriptionState, SuppressionReason
from distributor.tables import (
    consents,
    inbox,
    letters,
    links,
    old_links,
    subscribers,
    subscription_attributes,
    subscription_tags,
    subscriptions,
    suppressions,
)

#: Between two confirmation mails to one address (facts: one a day; peers were used to bomb mailboxes).
CONFIRM_EVERY = timedelta(days=1)
#: Subscribers that are forgotten in one transaction.
WINDOW = 5000
#: How long a confirmation may be used, and how long one who did not confirm is kept.
CONFIRM_WITHIN = timedelta(days=30)


class _Subscriber(NamedTuple):
    """Who signs up: when they were last asked to confirm, and whether this very sign-up brought them."""

    id: int
    asked_at: datetime | None
    new: bool


class SignUps(Store):
    """From the form to the first issue."""

    def sign_up(self, asked: SignUp, *, welcome: bool = True) -> Answer:
        """Notes that somebody asked for newsletters; with `vouched`, begins the subscriptions at once.

        Nothing is stored for a suppressed address, nor for a webhook that came before.
        """
        with self.database.write() as connection:
            now, reason = self._look(connection, asked.channel, asked.address)
            if asked.received and (known := self._known(connection, asked.received, now)):
                return known
            if reason and (reason != SuppressionReason.ERASED or asked.vouched):
                return Answer.SUPPRESSED
            subscriber = self._subscriber(connection, asked, now)
            found = {} if subscriber.new else self._states(connection, subscriber.id)
            wanted = [
                name
                for name in asked.newsletters
                if name not in found or found[name].state is not SubscriptionState.ACTIVE
            ]
            if not wanted:
                return Answer.ACTIVE
            new = [name for name in wanted if name not in found]
            self._add_pending(connection, subscriber.id, asked, new, now)
            left = [
                found[name]
                for name in wanted
                if name in found and found[name].state is SubscriptionState.UNSUBSCRIBED
            ]
            if asked.vouched and not left:
                self._vouch(connection, subscriber.id, wanted, asked, now, welcome=welcome)
                return Answer.ACTIVATED
            self._note_asked(connection, subscriber.id, asked, new, left, now)
            return self._ask(connection, subscriber, wanted[0], asked, now)

    def asked(self, token: str) -> Asked | None:
        """What a confirmation link is about. None for an unknown one, and for an address that must not be used."""
        with self.database.read() as connection:
            return self._asked(connection, token, self.database.now(connection))

    def confirm(
        self,
        token: str,
        visit: Visit,
        *,
        newsletters: Collection[str] | None = None,
        welcome: bool = True,
    ) -> Sequence[Subscription] | None:
        """Begins what the link waits for; again and again is harmless. Returns all active ones; None as `asked` does.

        `newsletters`: those that its reader was shown; what somebody asked for since goes on waiting. None: all.
        """
        with self.database.write() as connection:
            now = self.database.now(connection)
            asked = self._asked(connection, token, now, lock=True)
            if asked is None or asked.expired:
                return None
            self._lift_erasure(connection, asked.address)
            found = self._states(connection, asked.subscriber_id)
            begun = [found[name] for name in asked.waiting if newsletters is None or name in newsletters]
            if begun:
                self._activate(connection, begun, ConsentKind.CONFIRMED, visit, now)
            if begun and welcome:
                for one in begun:
                    self._letter(
                        connection, Letter.WELCOME, one.subscriber_id, one.newsletter, one.language or "", now
                    )
            connection.execute(update(links).where(links.c.hash == hashed(token)).values(used_at=now))
            states = self._states(connection, asked.subscriber_id)
        return [one for one in states.values() if one.state is SubscriptionState.ACTIVE]

    def open_confirmation(self, subscriber: int, asked_at: datetime, *, reminder: bool) -> str | None:
        """The token of a confirmation link, made when its mail is sent: it is kept nowhere else.

        None for a reminder when somebody asked again since `asked_at`, and got another mail.
        """
        with self.database.write() as connection:
            now = self.database.now(connection)
            if reminder and not self._may_remind(connection, subscriber, asked_at, now):
                return None
            return self._link(connection, LinkPurpose.CONFIRM, subscriber, None, now, CONFIRM_WITHIN)

    def forget_pending(self, age: timedelta = CONFIRM_WITHIN) -> int:
        """Removes those who have not confirmed for so long since they were last asked, with what was noted about them."""
        with self.database.read() as connection:
            limit = self.database.now(connection) - age
            waiting = (
                select(subscriptions.c.subscriber_id)
                .join(subscribers, subscribers.c.id == subscriptions.c.subscriber_id)
                .where(*_given_up(limit))
                .distinct()
            )
            numbers = list(connection.execute(waiting).scalars())
        gone = 0
        for start in range(0, len(numbers), WINDOW):
            some = numbers[start : start + WINDOW]
            with self.database.write() as connection:
                gone += self._forget_some(connection, some, limit)
        with self.database.write() as connection:
            connection.execute(delete(links).where(links.c.expires_at < limit))
        return gone

    def _forget_some(self, connection: Connection, numbers: Sequence[int], limit: datetime) -> int:
        """Of these subscribers, ends the waiting of those who are asked no more; returns how many are gone with it."""
        locked = select(subscribers.c.id).where(among(self.database, subscribers.c.id, numbers))
        if not self.database.sqlite:
            locked = locked.order_by(subscribers.c.id).with_for_update()
        connection.execute(locked).all()
        over = (
            select(subscriptions.c.id, subscriptions.c.subscriber_id)
            .join(subscribers, subscribers.c.id == subscriptions.c.subscriber_id)
            .where(among(self.database, subscribers.c.id, numbers), *_given_up(limit))
        )
        found = connection.execute(over).all()
        ended = [row.id for row in found]
        for table in (subscription_tags, subscription_attributes, old_links):
            connection.execute(delete(table).where(among(self.database, table.c.subscription_id, ended)))
        connection.execute(delete(subscriptions).where(among(self.database, subscriptions.c.id, ended)))
        others = select(subscriptions.c.subscriber_id).where(
            among(self.database, subscriptions.c.subscriber_id, numbers)
        )
        alone = list({row.subscriber_id for row in found} - set(connection.execute(others).scalars()))
        for table in (consents, links, letters):
            connection.execute(delete(table).where(among(self.database, table.c.subscriber_id, alone)))
        connection.execute(delete(subscribers).where(among(self.database, subscribers.c.id, alone)))
        return len(alone)

    def receive(self, received: Received) -> Answer | None:
        """None the first time; else whether it is the same again, or another one under the same id."""
        with self.database.write() as connection:
            return self._known(connection, received, self.database.now(connection))

    def has_received(self, received: Received) -> bool:
        """Whether something came under this id before; a look alone."""
        query = select(inbox.c.key).where(inbox.c.source == received.source, inbox.c.key == received.key)
        with self.database.read() as connection:
            return connection.execute(query).first() is not None

    def forget_received(self, age: timedelta) -> None:
        """Retention: an id is of use as long as its message would still be accepted."""
        with self.database.write() as connection:
            connection.execute(delete(inbox).where(inbox.c.received_at < self.database.now(connection) - age))

    def _known(self, connection: Connection, received: Received, now: datetime) -> Answer | None:
        row = {
            "source": received.source,
            "key": received.key,
            "body_hash": received.body_hash,
            "received_at": now,
        }
        if insert_ignore(self.database, inbox, [row], connection):
            return None
        query = select(inbox.c.body_hash).where(
            inbox.c.source == received.source, inbox.c.key == received.key
        )
        same = connection.execute(query).scalar_one() == received.body_hash
        return Answer.REPEATED if same else Answer.CONFLICT

    def _subscriber(self, connection: Connection, asked: SignUp, now: datetime) -> _Subscriber:
        """Locked, so that sign-ups of one address go one by one."""
        row = {
            "channel": asked.channel,
            "address": asked.address,
            "domain": domain_of(asked.channel, asked.address),
            "name": asked.name,
            "language": asked.language,
            "created_at": now,
            # Nobody else sees the row before it is asked: noted here, that needs no statement of its own.
            "asked_at": None if asked.vouched else now,
        }
        # First, because most are new; whoever inserts the same address at this moment is waited for.
        if number := insert_new(self.database, subscribers, row, connection):
            return _Subscriber(number, None, new=True)
        query = select(subscribers.c.id, subscribers.c.asked_at).where(
            subscribers.c.channel == asked.channel, subscribers.c.address == asked.address
        )
        if not self.database.sqlite:
            query = query.with_for_update()
        found = connection.execute(query).first()
        # None: removed between the two statements, by whoever tidies up.
        return _Subscriber(*found, new=False) if found else self._subscriber(connection, asked, now)

    def _states(self, connection: Connection, subscriber: int) -> Mapping[str, Subscription]:
        query = subscription_query(None).where(subscriptions.c.subscriber_id == subscriber)
        return {row.newsletter: subscription_of(row) for row in connection.execute(query)}

    def _add_pending(
        self,
        connection: Connection,
        subscriber: int,
        asked: SignUp,
        newsletters: Sequence[str],
        now: datetime,
    ) -> None:
        rows = [self._pending_row(subscriber, newsletter, asked.source, now) for newsletter in newsletters]
        if rows and not (asked.tags or asked.attributes):
            connection.execute(insert(subscriptions), one_or_many(rows))
            return
        for row in rows:
            number = connection.execute(
                insert(subscriptions).values(row).returning(subscriptions.c.id)
            ).scalar_one()
            self._describe(connection, number, asked)

    def _describe(self, connection: Connection, subscription: int, asked: SignUp) -> None:
        given = dict.fromkeys(tag.lower() for tag in asked.tags)
        tags = [{"subscription_id": subscription, "tag": tag} for tag in given]
        insert_ignore(self.database, subscription_tags, tags, connection)
        values = [
            {"subscription_id": subscription, "name": name, "value": value}
            for name, value in asked.attributes.items()
        ]
        insert_ignore(self.database, subscription_attributes, values, connection)

    def _vouch(
        self,
        connection: Connection,
        subscriber: int,
        newsletters: Sequence[str],
        asked: SignUp,
        now: datetime,
        *,
        welcome: bool,
    ) -> None:
        found = self._states(connection, subscriber)
        begun = [found[name] for name in newsletters]
        self._activate(connection, begun, ConsentKind.ASSERTED, _visit(asked), now)
        if welcome and asked.channel == "email":
            for one in begun:
                self._letter(connection, Letter.WELCOME, subscriber, one.newsletter, asked.language, now)

    def _note_asked(
        self,
        connection: Connection,
        subscriber: int,
        asked: SignUp,
        new: Sequence[str],
        left: Sequence[Subscription],
        now: datetime,
    ) -> None:
        """Once for each newsletter: a thousand sign-ups of one address leave one row."""
        again = [one.newsletter for one in left if not connection.execute(_asked_since(one)).first()]
        self._consent(
            connection, ConsentKind.ASKED, [(subscriber, name) for name in (*new, *again)], _visit(asked), now
        )

    def _ask(
        self, connection: Connection, subscriber: _Subscriber, newsletter: str, asked: SignUp, now: datetime
    ) -> Answer:
        number, asked_at = subscriber.id, subscriber.asked_at
        if asked_at and asked_at > now - CONFIRM_EVERY:
            return Answer.WAITS
        if not subscriber.new:
            connection.execute(update(subscribers).where(subscribers.c.id == number).values(asked_at=now))
        self._letter(connection, Letter.CONFIRM, number, newsletter, asked.language, now)
        if asked.remind_after and (asked_at is None or not self._was_reminded(connection, number)):
            self._letter(
                connection, Letter.REMIND, number, newsletter, asked.language, now, asked.remind_after
            )
        return Answer.ASKED

    def _was_reminded(self, connection: Connection, subscriber: int) -> bool:
        query = select(letters.c.id).where(
            letters.c.subscriber_id == subscriber, letters.c.kind == Letter.REMIND
        )
        return connection.execute(query).first() is not None

    def _may_remind(self, connection: Connection, subscriber: int, asked_at: datetime, now: datetime) -> bool:
        """A reminder counts as the day's mail; tried once more, it is still the same one."""
        query = select(subscribers.c.id).where(subscribers.c.id == subscriber)
        if not self.database.sqlite:
            query = query.with_for_update()  # whoever asks again at this moment goes first, or waits
        connection.execute(query).all()
        again = select(letters.c.id).where(
            letters.c.subscriber_id == subscriber,
            letters.c.kind == Letter.CONFIRM,
            letters.c.created_at > asked_at,
        )
        if connection.execute(again).first():
            return False
        connection.execute(update(subscribers).where(subscribers.c.id == subscriber).values(asked_at=now))
        return True

    def _asked(
        self, connection: Connection, token: str, now: datetime, *, lock: bool = False
    ) -> Asked | None:
        query = (
            select(subscribers, links.c.expires_at)
            .join(links, links.c.subscriber_id == subscribers.c.id)
            .where(links.c.hash == hashed(token), links.c.purpose == LinkPurpose.CONFIRM)
        )
        if lock and not self.database.sqlite:
            query = query.with_for_update(of=subscribers)
        row = connection.execute(query).first()
        if row is None or self._is_barred(connection, row.channel, row.address):
            return None
        found = self._states(connection, row.id)
        return Asked(
            subscriber_id=row.id,
            address=row.address,
            language=row.language,
            waiting=[name for name, one in found.items() if self._waits(connection, one)],
            active=[name for name, one in found.items() if one.state is SubscriptionState.ACTIVE],
            tokens={name: one.token for name, one in found.items() if one.state is SubscriptionState.ACTIVE},
            expired=row.expires_at <= now,
        )

    def _is_barred(self, connection: Connection, channel: str, address: str) -> bool:
        return self._suppression(connection, channel, address) not in {None, SuppressionReason.ERASED}

    def _waits(self, connection: Connection, one: Subscription) -> bool:
        if one.state is SubscriptionState.UNSUBSCRIBED:
            return connection.execute(_asked_since(one)).first() is not None
        return one.state is SubscriptionState.PENDING

    def _lift_erasure(self, connection: Connection, address: str) -> None:
        erased = fingerprint(self.key(connection), "email", address)
        connection.execute(
            delete(suppressions).where(
                suppressions.c.channel == "email",
                suppressions.c.address == erased,
                suppressions.c.reason == SuppressionReason.ERASED,
            )
        )

    def _pending_row(self, subscriber: int, newsletter: str, source: str, now: datetime) -> dict[str, Any]:
        return {
            "subscriber_id": subscriber,
            "newsletter": newsletter,
            "state": SubscriptionState.PENDING,
            "token": new_token(),
            "source": source,
            "consent_at": now,
        }


def _given_up(limit: datetime) -> Sequence[Any]:
    """Of subscriptions and their subscribers: pending, and nobody was asked since."""
    return (
        subscriptions.c.state == SubscriptionState.PENDING,
        subscriptions.c.consent_at < limit,
        or_(subscribers.c.asked_at.is_(None), subscribers.c.asked_at < limit),
    )


def _asked_since(left: Subscription) -> Any:
    """Whether somebody asked for a newsletter again since its reader left."""
    query = select(consents.c.id).where(
        consents.c.subscriber_id == left.subscriber_id,
        consents.c.newsletter == left.newsletter,
        consents.c.kind == ConsentKind.ASKED,
    )
    return query.where(consents.c.at > left.ended_at) if left.ended_at else query


def _visit(asked: SignUp) -> Visit:
    return Visit(source=asked.source, ip=asked.ip, wording=asked.wording)
