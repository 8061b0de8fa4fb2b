"""Telegram chats: a reader subscribes one, connects it to their mailbox, chooses, leaves, blocks the bot, comes back.

Updates come again, and out of order: each counts once, and none that is older than the chat's last word.
"""

import base64
import hashlib
import hmac
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, and_, delete, or_, select, update

from distributor.audience.addresses import fingerprint, masked
from distributor.audience.preferences import Choices
from distributor.audience.store import hashed
from distributor.audience.values import Answer, Received, SignUp, Subscription, Visit
from distributor.db import insert_ignore
from distributor.model import ConsentKind, LinkPurpose, SubscriptionState, SuppressionReason
from distributor.tables import links, subscribers, suppressions

#: How long a link that connects a chat may be used.
CONNECT_WITHIN = timedelta(hours=1)
#: Bytes of a seal: what a button may carry is 64 bytes in all.
SEAL = 12


class Overtaken(Exception):
    """The update came before, or the chat has said something later: there is nothing to do, and nothing to answer."""


@dataclass(frozen=True, kw_only=True)
class Word:
    """What a chat says: the update it came in and, where Telegram tells it, when."""

    chat: str
    received: Received
    at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Chat:
    """A private chat, as the bot knows it. `connected_to`: the mailbox of its reader, masked."""

    language: str | None = None
    active: frozenset[str] = frozenset()
    suppressed: str | None = None
    connected_to: str = ""


@dataclass(frozen=True, kw_only=True)
class Linked:
    """The e-mail subscriber behind a link that connects a chat, and the newsletters they get."""

    subscriber_id: int
    language: str | None
    newsletters: Sequence[str]


class Chats(Choices):
    """What readers do in Telegram. All of it raises Overtaken."""

    def chat(self, chat: str) -> Chat:
        """What is known of a chat; of one that never said anything, nothing."""
        with self.database.read() as connection:
            row = self._chat(connection, chat)
            suppressed = self._suppression(connection, "telegram", chat)
            if row is None:
                return Chat(suppressed=suppressed)
            found = self._states(connection, row.id)
            return Chat(
                language=row.language,
                active=frozenset(
                    name for name, one in found.items() if one.state is SubscriptionState.ACTIVE
                ),
                suppressed=suppressed,
                connected_to=self._mailbox(connection, row.linked_to),
            )

    def start_chat(self, said: Word, newsletters: Sequence[str], language: str, visit: Visit) -> Answer:
        """Subscribes a chat. One that gets something already keeps its choice; one that had blocked us gets it again."""
        with self.database.write() as connection:
            now = self.database.now(connection)
            self._hear(connection, said, now)
            came_back = self._lift(connection, said.chat)
            if self._suppression(connection, "telegram", said.chat):
                return Answer.SUPPRESSED
            number = self._remember(connection, said, language, now)
            active = self._active(connection, number)
            if active and came_back:
                self._consent(
                    connection, ConsentKind.CONFIRMED, [(number, name) for name in active], visit, now
                )
                return Answer.ACTIVATED
            if not active:
                self._begin_all(connection, number, newsletters, visit, now)
            return Answer.ACTIVE if active else Answer.ACTIVATED

    def linked(self, token: str) -> Linked | None:
        """Whose link that is. None for one that leads nowhere any more."""
        with self.database.read() as connection:
            query = select(links.c.subscriber_id).where(*_usable(token, self.database.now(connection)))
            number = connection.execute(query).scalar()
            return None if number is None else self._linked(connection, number)

    def connect_chat(
        self, said: Word, token: str, newsletters: Sequence[str], language: str, visit: Visit
    ) -> Answer | None:
        """Binds a chat to the reader of a link, which is then used up, and subscribes it. None: the link leads nowhere.

        ACTIVE: this chat has used this link before.
        """
        with self.database.write() as connection:
            now = self.database.now(connection)
            self._hear(connection, said, now)
            used = connection.execute(
                update(links).where(*_usable(token, now)).values(used_at=now).returning(links.c.subscriber_id)
            ).scalar()
            linked = None if used is None else self._linked(connection, used)
            if linked is None:
                return Answer.ACTIVE if self._used_by(connection, said.chat, token) else None
            self._lift(connection, said.chat)
            if self._suppression(connection, "telegram", said.chat):
                return Answer.SUPPRESSED
            number = self._remember(connection, said, language, now)
            connection.execute(
                update(subscribers)
                .where(subscribers.c.id == number)
                .values(linked_to=linked.subscriber_id, language=linked.language or language)
            )
            self._begin_all(connection, number, newsletters, visit, now)
            return Answer.ACTIVATED

    def stop_chat(self, said: Word, visit: Visit) -> bool:
        """Ends everything a chat gets. Whether there was anything."""
        with self.database.write() as connection:
            now = self.database.now(connection)
            if (row := self._hear(connection, said, now)) is None:
                self._remember(connection, said, "", now)  # as in block_chat
            found = self._states(connection, row.id) if row else {}
            going = [one for one in found.values() if one.state is not SubscriptionState.UNSUBSCRIBED]
            for one in going:
                self._finish(connection, one.token, visit, now)
            return bool(going)

    def choose_in_chat(self, said: Word, newsletter: str, visit: Visit, *, wanted: bool) -> bool:
        """Begins or ends one subscription. False, and nothing, for a chat that has not begun, or must not be written to."""
        with self.database.write() as connection:
            now = self.database.now(connection)
            row = self._hear(connection, said, now)
            if row is None or (wanted and self._suppression(connection, "telegram", said.chat)):
                return False
            if wanted:
                self._begin(connection, row.id, newsletter, visit, now)
            elif found := self._states(connection, row.id).get(newsletter):
                self._finish(connection, found.token, visit, now)
            return True

    def speak(self, said: Word, language: str) -> bool:
        """A chat's language, from now on. False for one that has not begun."""
        with self.database.write() as connection:
            row = self._hear(connection, said, self.database.now(connection))
            if row is None:
                return False
            connection.execute(
                update(subscribers).where(subscribers.c.id == row.id).values(language=language)
            )
            return True

    def block_chat(self, said: Word, note: str) -> None:
        """The reader blocked the bot: nothing goes there until they say /start again. Unblocking alone changes nothing."""
        with self.database.write() as connection:
            now = self.database.now(connection)
            if self._hear(connection, said, now) is None:
                self._remember(connection, said, "", now)  # so that a late, older /start is known for one
            blocked = {
                "channel": "telegram",
                "address": said.chat,
                "reason": SuppressionReason.BLOCKED,
                "note": note,
                "created_at": now,
            }
            insert_ignore(self.database, suppressions, [blocked], connection)

    def seal(self, chat: str, text: str) -> str:
        """A signature that only this installation makes, for this chat alone."""
        digest = hmac.new(
            self._installation_key().encode(), f"chat\0{chat}\0{text}".encode(), hashlib.sha256
        ).digest()
        return base64.urlsafe_b64encode(digest[:SEAL]).decode()

    def _installation_key(self) -> str:
        if self._key is None:
            with self.database.read() as connection:
                return self.key(connection)
        return self._key

    def _hear(self, connection: Connection, said: Word, now: datetime) -> Any:
        """The chat's row, locked; None for a new one. Raises Overtaken."""
        if self._known(connection, said.received, now):
            raise Overtaken
        row = self._chat(connection, said.chat, lock=True)
        if row and said.at:
            if row.heard_at and said.at < row.heard_at:
                raise Overtaken
            self._note_heard(connection, row.id, said.at)
        return row

    def _remember(self, connection: Connection, said: Word, language: str, now: datetime) -> int:
        """The chat's number."""
        asked = SignUp(
            channel="telegram",
            address=said.chat,
            newsletters=(),
            language=language,
            source="telegram",
            vouched=True,  # who writes to the bot is there: nobody has to be asked to confirm
        )
        number = self._subscriber(connection, asked, now).id
        if said.at:
            self._note_heard(connection, number, said.at)
        return number

    def _note_heard(self, connection: Connection, number: int, at: datetime) -> None:
        connection.execute(update(subscribers).where(subscribers.c.id == number).values(heard_at=at))

    def _chat(self, connection: Connection, chat: str, *, lock: bool = False) -> Any:
        query = select(subscribers).where(subscribers.c.channel == "telegram", subscribers.c.address == chat)
        if lock and not self.database.sqlite:
            query = query.with_for_update()
        return connection.execute(query).first()

    def _active(self, connection: Connection, number: int) -> Mapping[str, Subscription]:
        found = self._states(connection, number)
        return {name: one for name, one in found.items() if one.state is SubscriptionState.ACTIVE}

    def _begin_all(
        self,
        connection: Connection,
        number: int,
        newsletters: Collection[str],
        visit: Visit,
        now: datetime,
    ) -> None:
        for newsletter in newsletters:
            self._begin(connection, number, newsletter, visit, now)

    def _lift(self, connection: Connection, chat: str) -> bool:
        """Takes back what a reader's own /start may: that they blocked us, or were forgotten. Whether there was such."""
        erased = fingerprint(self.key(connection), "telegram", chat)
        theirs = or_(
            and_(suppressions.c.address == chat, suppressions.c.reason == SuppressionReason.BLOCKED),
            and_(suppressions.c.address == erased, suppressions.c.reason == SuppressionReason.ERASED),
        )
        lifted = delete(suppressions).where(suppressions.c.channel == "telegram", theirs)
        return connection.execute(lifted).rowcount > 0

    def _linked(self, connection: Connection, number: int) -> Linked | None:
        """The reader of a mailbox that may be written to."""
        row = connection.execute(select(subscribers).where(subscribers.c.id == number)).first()
        if row is None or row.channel != "email" or self._suppression(connection, "email", row.address):
            return None
        return Linked(
            subscriber_id=row.id, language=row.language, newsletters=list(self._active(connection, row.id))
        )

    def _used_by(self, connection: Connection, chat: str, token: str) -> bool:
        query = (
            select(links.c.hash)
            .join(subscribers, subscribers.c.linked_to == links.c.subscriber_id)
            .where(
                links.c.hash == hashed(token),
                links.c.purpose == LinkPurpose.TELEGRAM,
                links.c.used_at.is_not(None),
                subscribers.c.channel == "telegram",
                subscribers.c.address == chat,
            )
        )
        return connection.execute(query).first() is not None

    def _mailbox(self, connection: Connection, number: int | None) -> str:
        query = select(subscribers.c.address).where(subscribers.c.id == number)
        return masked(connection.execute(query).scalar() or "") if number else ""


def _usable(token: str, now: datetime) -> Sequence[Any]:
    """Of a link that connects a chat: not used yet, and still good."""
    return (
        links.c.hash == hashed(token),
        links.c.purpose == LinkPurpose.TELEGRAM,
        links.c.used_at.is_(None),
        links.c.expires_at > now,
    )
