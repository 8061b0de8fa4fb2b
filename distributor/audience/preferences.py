"""What a reader chose, on all their channels: newsletters, chats, language."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, insert, or_, select, update

from distributor.audience.signups import SignUps
from distributor.audience.store import subscription_of, subscription_query
from distributor.audience.values import Evidence, Subscription, Visit
from distributor.model import ConsentKind, LinkPurpose, SubscriptionState
from distributor.tables import consents, subscribers, subscriptions

#: Rows of evidence on a page: somebody who comes and goes all day has more.
MOST_EVIDENCE = 100


@dataclass(frozen=True, kw_only=True)
class Place:
    """One of a reader's addresses: a mailbox, or a chat they connected."""

    subscriber_id: int
    channel: str
    address: str
    suppressed: str | None


@dataclass(frozen=True, kw_only=True)
class Preferences:
    """A reader's places, the first one their own, and the newsletters each of them gets."""

    language: str | None
    places: Sequence[Place]
    active: frozenset[tuple[int, str]]  # (subscriber_id, newsletter)
    tokens: Mapping[tuple[int, str], str]  # of all subscriptions, whatever their state


class Choices(SignUps):
    """The preferences page's questions and answers."""

    def preferences(self, token: str) -> Preferences | None:
        """Of the reader behind the token of a mail's links. None for an unknown one."""
        with self.database.read() as connection:
            found = self._of_token(connection, token)
            return self._preferences(connection, found) if found else None

    def choose(
        self, token: str, wanted: Mapping[tuple[int, str], bool], language: str | None, visit: Visit
    ) -> Preferences | None:
        """Begins and ends subscriptions as chosen: (subscriber, newsletter) → wanted; what is not named stays.

        Only the reader's own places count, and none that is suppressed. The caller has checked the newsletters.
        """
        with self.database.write() as connection:
            now = self.database.now(connection)
            found = self._of_token(connection, token)
            if found is None:
                return None
            self._lock_places(connection, found)
            before = self._preferences(connection, found)
            usable = {place.subscriber_id for place in before.places if not place.suppressed}
            for (subscriber, newsletter), want in wanted.items():
                if want and subscriber in usable:
                    self._begin(connection, subscriber, newsletter, visit, now)
                elif not want:
                    self._finish(connection, before.tokens.get((subscriber, newsletter), ""), visit, now)
            if language:
                numbers = [place.subscriber_id for place in before.places]
                connection.execute(
                    update(subscribers).where(subscribers.c.id.in_(numbers)).values(language=language)
                )
            return self._preferences(connection, found)

    def evidence(self, token: str) -> Sequence[Evidence]:
        """What is kept of the consent of the subscriber behind the token, the newest first."""
        query = (
            select(consents.c.newsletter, consents.c.kind, consents.c.at, consents.c.source)
            .join(subscriptions, subscriptions.c.subscriber_id == consents.c.subscriber_id)
            .where(subscriptions.c.token == token)
            .order_by(consents.c.at.desc(), consents.c.id.desc())
            .limit(MOST_EVIDENCE)
        )
        with self.database.read() as connection:
            return [
                Evidence(newsletter=row.newsletter, kind=ConsentKind(row.kind), at=row.at, source=row.source)
                for row in connection.execute(query)
            ]

    def new_link(self, token: str, purpose: LinkPurpose, lasts: timedelta) -> str | None:
        """A one-time token for the reader behind the token of a mail's links. None for an unknown one."""
        with self.database.write() as connection:
            found = self._of_token(connection, token)
            if found is None:
                return None
            now = self.database.now(connection)
            return self._link(connection, purpose, found.subscriber_id, found.newsletter, now, lasts)

    def _lock_places(self, connection: Connection, of: Subscription) -> None:
        """So that what one reader presses twice is done once, and not at the same time as a sign-up of theirs."""
        if not self.database.sqlite:
            rows = select(subscribers.c.id).where(self._is_place(connection, of))
            connection.execute(rows.order_by(subscribers.c.id).with_for_update()).all()

    def _is_place(self, connection: Connection, of: Subscription) -> ColumnElement[bool]:
        """Whether a subscriber is the same reader as that one."""
        root = select(subscribers.c.linked_to).where(subscribers.c.id == of.subscriber_id)
        first = connection.execute(root).scalar_one() or of.subscriber_id
        return or_(subscribers.c.id == first, subscribers.c.linked_to == first)

    def _preferences(self, connection: Connection, of: Subscription) -> Preferences:
        places = connection.execute(
            select(subscribers)
            .where(self._is_place(connection, of))
            .order_by(subscribers.c.id != of.subscriber_id, subscribers.c.id)
        ).all()
        numbers = [place.id for place in places]
        query = subscription_query(None).where(subscriptions.c.subscriber_id.in_(numbers))
        found = [subscription_of(row) for row in connection.execute(query)]
        return Preferences(
            language=places[0].language,
            places=[
                Place(
                    subscriber_id=place.id,
                    channel=place.channel,
                    address=place.address,
                    suppressed=self._suppression(connection, place.channel, place.address),
                )
                for place in places
            ],
            active=frozenset(
                (one.subscriber_id, one.newsletter) for one in found if one.state is SubscriptionState.ACTIVE
            ),
            tokens={(one.subscriber_id, one.newsletter): one.token for one in found},
        )

    def _begin(
        self, connection: Connection, subscriber: int, newsletter: str, visit: Visit, now: datetime
    ) -> None:
        found = self._states(connection, subscriber).get(newsletter)
        if found is None:
            connection.execute(
                insert(subscriptions).values(self._pending_row(subscriber, newsletter, visit.source, now))
            )
            found = self._states(connection, subscriber)[newsletter]
        if found.state is not SubscriptionState.ACTIVE:
            self._activate(connection, [found], ConsentKind.CONFIRMED, visit, now)

    def _finish(self, connection: Connection, token: str, visit: Visit, now: datetime) -> None:
        if self._end(connection, token, visit.source, now) and (left := self._of_token(connection, token)):
            self._left(connection, left, replace(visit, wording=None), now)
