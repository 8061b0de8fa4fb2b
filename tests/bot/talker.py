"""A bot with its readers, without a network: updates as Telegram writes them in, replies out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fakes import FakeChannel, World, make_newsletter, make_world
from sqlalchemy import select

from distributor.audience import CONNECT_WITHIN, NewSubscriber, Subscription
from distributor.bot import Bot, read
from distributor.bot.replies import Replies, Reply, Toast
from distributor.db import Database
from distributor.dispatch import Reception
from distributor.model import LinkPurpose
from distributor.rendering import template_environment
from distributor.sandbox.talking import Talking
from distributor.settings import BotSettings, Signup
from distributor.tables import consent_texts, consents, subscribers

LI, WANG = "42001", "42002"
USERNAME = "morning_bot"


@dataclass
class Talker:
    """`world.newsletter` is "daily"; updates are those of the sandbox."""

    world: World
    settings: BotSettings = field(default_factory=lambda: BotSettings(username=USERNAME))
    told: list[tuple[str, str, str]] = field(default_factory=list)
    users: Talking = field(default_factory=Talking)

    def __post_init__(self) -> None:
        self.users.met("123456")
        reception = Reception(
            audience=self.world.audience,
            newsletters=self.world.engine.newsletters,
            settings=Signup(),
            templates=template_environment(),
        )
        self.bot = Bot(settings=self.settings, reception=reception, engine=self.world.engine, tell=self._tell)

    def _tell(self, key: str, subject: str, text: str) -> bool:
        new = key not in [known for known, _, _ in self.told]
        if new:
            self.told.append((key, subject, text))
        return new

    def hears(self, told: Mapping[str, Any]) -> Replies:
        """What the bot answers to an update."""
        update = read(told, USERNAME)
        return self.bot.answer(update) if update else ()

    def says(self, text: str, chat: str = LI, language: str = "zh-hans") -> str:
        """The text of the one message that is answered; empty without any."""
        replies = self.hears(self.users.say(chat, text, language=language))
        assert len(replies) <= 1
        return text_of(replies[0]) if replies else ""

    def settings_of(self, chat: str = LI, language: str = "zh-hans") -> Reply:
        (reply,) = self.hears(self.users.say(chat, "/settings", language=language))
        assert isinstance(reply, Reply)
        return reply

    def presses(self, data: str, chat: str = LI, language: str = "zh-hans") -> Sequence[Reply | Toast]:
        return self.hears(self.users.press(chat, data, 7, language=language))

    def gets(self, chat: str = LI) -> set[str]:
        """Newsletters that are sent to a chat."""
        known = self.world.audience.chat(chat)
        return set() if known.suppressed else set(known.active)

    def reader(self, address: str = "li@readers.example", newsletter: str = "daily") -> Subscription:
        new = NewSubscriber(channel="email", address=address, source="test", language="zh-CN")
        return self.world.audience.add(newsletter, new)

    def link(self, reader: Subscription) -> str:
        """The token of a link that connects a chat to a reader."""
        token = self.world.audience.new_link(reader.token, LinkPurpose.TELEGRAM, CONNECT_WITHIN)
        assert token
        return token

    def consents(self, chat: str = LI) -> Sequence[tuple[str, str, str, str | None]]:
        """(newsletter, kind, source, language of the words) of each row of evidence."""
        query = (
            select(consents.c.newsletter, consents.c.kind, consents.c.source, consent_texts.c.language)
            .join(subscribers, subscribers.c.id == consents.c.subscriber_id)
            .outerjoin(consent_texts, consent_texts.c.version == consents.c.wording)
            .where(subscribers.c.address == chat)
            .order_by(consents.c.id)
        )
        with self.world.database.read() as connection:
            return [tuple(row) for row in connection.execute(query)]


def text_of(reply: Reply | Toast) -> str:
    return reply.text


def make_talker(database: Database, **settings: Any) -> Talker:
    """Two newsletters: "daily" (zh-CN), which Telegram readers get, and "weekly" (en), which they may add."""
    daily = make_newsletter({"email": {}, "telegram": {}}, title="早报 <A&B>")
    weekly = make_newsletter({"email": {}, "telegram": {}}, slug="weekly", title="Weekly", language="en")
    mail = make_newsletter({"email": {}}, slug="letter", title="Mail only")
    world = make_world(database, channels=[FakeChannel("telegram"), FakeChannel("email")], newsletter=daily)
    known = {one.slug: one for one in (daily, weekly, mail)}
    world.engine = replace(world.engine, newsletters=known)
    return Talker(world, BotSettings(username=USERNAME, newsletters=("daily",), **settings))
