"""What the bot does: one update in, its replies out."""

import hashlib
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape

from distributor.audience import Answer, Audience, Chat, Overtaken, Visit, Word, masked
from distributor.bot.hearing import Blocked, Command, Moved, Press, Update
from distributor.bot.keyboard import Choice, choice_of, settings_keyboard
from distributor.bot.latest import Latest, Where
from distributor.bot.replies import Replies, Reply, Toast
from distributor.bot.words import WORDS, Words, language_of
from distributor.dispatch import Engine, Reception, takes_subscribers
from distributor.model import ConsentText
from distributor.pacing import Limit
from distributor.settings import BotSettings, Newsletter

log = logging.getLogger(__name__)

#: Where a consent, or its end, comes from.
SOURCE = "telegram"
#: A chat may ask so much of us; /stop, and blocking us, always count.
PATIENCE, PATIENCE_BURST = 0.3, 8
#: Help for what is no command: once in ten minutes, for chats that only talk.
HELP = 1 / 600
#: Strangers' groups that the operator hears of.
STRANGERS, STRANGERS_BURST = 5 / 86400, 5

Tell = Callable[[str, str, str], bool]


@dataclass(frozen=True, kw_only=True)
class Bot:
    """Answers updates. `tell` writes a notice to the operator down: key, subject, text."""

    settings: BotSettings
    reception: Reception
    engine: Engine
    tell: Tell

    def answer(self, update: Update) -> Replies:
        """Does what the update asks for, once, and says what to answer. Raises ServiceDown: it may be tried again."""
        try:
            return self._answer(update)
        except Overtaken:
            return ()

    def _answer(self, update: Update) -> Replies:
        if isinstance(update, Command):
            return self._command(update)
        if isinstance(update, Press):
            return self._press(update)
        if isinstance(update, Blocked):
            self.audience.block_chat(update.said, "the reader blocked the bot")
            log.info("bot_blocked chat=%s", masked(update.said.chat))
        else:
            self._moved(update)
        return ()

    @property
    def audience(self) -> Audience:
        return self.reception.audience

    # ── commands ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _command(self, command: Command) -> Replies:
        story = COMMANDS.get(command.name)
        limit = Limit(f"bot:chat:{command.said.chat}", PATIENCE, PATIENCE_BURST)
        if story is None:
            story, limit = Bot._help, Limit(f"bot:help:{command.said.chat}", HELP)
        patient = self._may(limit)
        if not patient and command.name != "stop":
            return ()
        chat = self.audience.chat(command.said.chat)
        replies = story(self, command, Talk(self, chat, command.language))
        return replies if patient else ()

    def _start(self, command: Command, talk: "Talk") -> Replies:
        if command.argument:
            return self._connect(command, talk)
        slugs = self._known(talk.chat.active) or self.defaults
        if not slugs:
            self._once(command.said)
            return [talk.says(command, talk.words.nothing)]
        wording = talk.wording(slugs)
        answer = self.audience.start_chat(command.said, slugs, talk.language, _visit(wording))
        if answer is Answer.SUPPRESSED:
            return [talk.says(command, talk.words.refused)]
        said = talk.words.already if answer is Answer.ACTIVE else talk.words.subscribed
        consent = talk.consent(wording) if answer is Answer.ACTIVATED else ""
        first = said.format(titles=talk.titles(slugs))
        return [talk.says(command, first, consent, talk.words.commands)]

    def _connect(self, command: Command, talk: "Talk") -> Replies:
        """/start with the one-time token of a link: the chat becomes a place of an e-mail subscriber's."""
        linked = self.audience.linked(command.argument)
        if linked and not talk.chat.language:
            talk = talk.in_language(linked.language)
        slugs = [slug for slug in (linked.newsletters if linked else ()) if slug in self.offered]
        wording = talk.wording(slugs) if slugs else None
        answer = self.audience.connect_chat(
            command.said, command.argument, slugs, talk.language, _visit(wording)
        )
        if answer is None:
            return [talk.says(command, talk.words.dead_link)]
        if answer is Answer.SUPPRESSED:
            return [talk.says(command, talk.words.refused)]
        address = escape(self.audience.chat(command.said.chat).connected_to)
        if answer is Answer.ACTIVE:
            return [talk.says(command, talk.words.connected_already.format(address=address))]
        got = talk.words.subscribed.format(titles=talk.titles(slugs)) if slugs else talk.words.choose
        consent = talk.consent(wording) if wording else ""
        first = talk.words.connected.format(address=address)
        return [talk.says(command, f"{first}\n{got}", consent, talk.words.commands)]

    def _stop(self, command: Command, talk: "Talk") -> Replies:
        ended = self.audience.stop_chat(command.said, Visit(source=SOURCE))
        return [talk.says(command, talk.words.stopped if ended else talk.words.not_subscribed)]

    def _settings(self, command: Command, talk: "Talk") -> Replies:
        self._once(command.said)
        if not talk.chat.language:
            return [talk.says(command, talk.words.not_subscribed)]
        return [self._shown(command.said, talk)]

    def _today(self, command: Command, talk: "Talk") -> Replies:
        self._once(command.said)
        if not talk.chat.active or talk.chat.suppressed:
            return [talk.says(command, talk.words.not_subscribed)]
        latest = Latest(self.engine)
        slugs = self._known(talk.chat.active)
        lines = [talk.latest(slug, *latest.send(slug, command.said.chat)) for slug in slugs]
        return [talk.says(command, *lines)]

    def _help(self, command: Command, talk: "Talk") -> Replies:
        self._once(command.said)
        return [talk.says(command, talk.words.help)]

    # ── buttons ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _press(self, press: Press) -> Replies:
        if not self._may(Limit(f"bot:chat:{press.said.chat}", PATIENCE, PATIENCE_BURST)):
            return [Toast(query=press.query)]
        talk = Talk(self, self.audience.chat(press.said.chat), press.language)
        choice = choice_of(press.data, self.reception.newsletters, self._seal(press.said.chat))
        if choice is None or (choice.wanted and choice.newsletter not in self.offered):
            self._once(press.said)
            return [Toast(query=press.query, text=talk.words.old_button)]
        wording = talk.wording([choice.newsletter]) if choice.wanted else None
        if not self._choose(press.said, choice, _visit(wording)):
            return [Toast(query=press.query, text=talk.words.start_first)]
        talk = Talk(self, self.audience.chat(press.said.chat), press.language)
        consent = talk.consent(wording) if wording else ""
        shown = self._shown(press.said, talk, consent, edits=press.message)
        return [Toast(query=press.query, text=talk.done(choice)), shown]

    def _choose(self, said: Word, choice: Choice, visit: Visit) -> bool:
        if choice.language:
            return self.audience.speak(said, choice.language)
        return self.audience.choose_in_chat(said, choice.newsletter, visit, wanted=choice.wanted)

    def _shown(self, said: Word, talk: "Talk", *more: str, edits: int | None = None) -> Reply:
        """The settings with their buttons: what may be chosen, and what the chat has."""
        newsletters = [
            newsletter
            for slug, newsletter in self.reception.newsletters.items()
            if slug in self.offered or slug in talk.chat.active
        ]
        keyboard = settings_keyboard(newsletters, talk.chat.active, talk.language, self._seal(said.chat))
        mailbox = talk.chat.connected_to
        connected = talk.words.connected_to.format(address=escape(mailbox)) if mailbox else ""
        text = _paragraphs(talk.words.settings, connected, *more)
        return Reply(chat=said.chat, text=text, keyboard=keyboard, edits=edits)

    def _seal(self, chat: str) -> Callable[[str], str]:
        return partial(self.audience.seal, chat)

    # ── groups ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _moved(self, moved: Moved) -> None:
        """The operator hears of it, once; of strangers' groups, of a few a day."""
        self._once(moved.said)
        ours = moved.said.chat in self._destinations()
        if not ours and not self._may(Limit("bot:strangers", STRANGERS, STRANGERS_BURST)):
            return
        mark = hashlib.sha256(moved.said.chat.encode()).hexdigest()[:12]
        when = f" {moved.said.at:%Y-%m-%dT%H:%M:%SZ}" if ours and moved.said.at else ""
        self.tell(
            f"bot {mark} {moved.status}{when}",
            f"The Telegram bot is {moved.status} in a {moved.kind} now",
            f"{moved.kind} “{moved.title}”, chat {moved.said.chat}: the bot's status is {moved.status}.\n"
            + (
                "It is a destination of ours: as an administrator that may post, or in a group as a member, "
                "the bot can send there."
                if ours
                else "It is none of our destinations: nothing is sent there. To send there, add it to "
                "[[channels.telegram.destinations]] of a newsletter."
            ),
        )

    def _destinations(self) -> set[str]:
        tables = [one.channel_settings.telegram for one in self.reception.newsletters.values()]
        return {place.chat for table in tables if table for place in table.destinations}

    # ── what there is ────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def offered(self) -> Sequence[str]:
        """What a reader may choose in a chat."""
        return [
            slug
            for slug, newsletter in self.reception.newsletters.items()
            if (newsletter.public or slug in self.settings.newsletters)
            and takes_subscribers(newsletter, "telegram")
        ]

    @property
    def defaults(self) -> Sequence[str]:
        """What a bare /start subscribes to."""
        return self.settings.newsletters or self.offered

    def _known(self, slugs: Collection[str]) -> Sequence[str]:
        """Those that are still configured, in the configuration's order."""
        return [slug for slug in self.reception.newsletters if slug in slugs]

    def _once(self, said: Word) -> None:
        """For what changes nothing of ours. Raises Overtaken."""
        if self.audience.receive(said.received):
            raise Overtaken

    def _may(self, limit: Limit) -> bool:
        return self.engine.pacer.reserve([limit]).permits > 0


class Talk:
    """How we speak to one chat: in its language, else in that of its Telegram, else in the newsletter's."""

    def __init__(self, bot: Bot, chat: Chat, code: str) -> None:
        self.bot, self.chat = bot, chat
        newsletters: Mapping[str, Newsletter] = bot.reception.newsletters
        known = [newsletters[slug].language for slug in bot.defaults] or [
            one.language for one in newsletters.values()
        ]
        language = chat.language or ""
        self.language = language if language in WORDS else language_of(code, known[0])

    def in_language(self, language: str | None) -> "Talk":
        """Spoken in another one, if we know it."""
        other = Talk(self.bot, self.chat, "")
        other.language = language if language and language in WORDS else self.language
        return other

    @property
    def words(self) -> Words:
        return WORDS[self.language]

    def titles(self, slugs: Sequence[str]) -> str:
        return self.words.titles(self.bot.reception.newsletters[slug].title for slug in slugs)

    def wording(self, slugs: Sequence[str]) -> ConsentText:
        return self.bot.reception.wording(slugs, self.language, "telegram")

    def consent(self, wording: ConsentText) -> str:
        return self.words.consent.format(consent=escape(wording.text))

    def done(self, choice: Choice) -> str:
        if choice.language:
            return self.words.spoken
        return self.words.chosen if choice.wanted else self.words.not_chosen

    def latest(self, slug: str, where: Where, url: str) -> str:
        line: str = getattr(self.words, where).format(title=self.titles([slug]))
        there = self.words.on_the_web.format(url=escape(url)) if url and where != Where.COMING else ""
        return f"{line}\n{there}".strip()

    def says(self, command: Command, *paragraphs: str) -> Reply:
        return Reply(chat=command.said.chat, text=_paragraphs(*paragraphs))


Story = Callable[[Bot, Command, Talk], Replies]
COMMANDS: Mapping[str, Story] = {
    "start": Bot._start,  # noqa: SLF001 - the table of this very module
    "stop": Bot._stop,  # noqa: SLF001 - as above
    "settings": Bot._settings,  # noqa: SLF001 - as above
    "today": Bot._today,  # noqa: SLF001 - as above
    "help": Bot._help,  # noqa: SLF001 - as above
}


def _visit(wording: ConsentText | None) -> Visit:
    return Visit(source=SOURCE, wording=wording)


def _paragraphs(*paragraphs: str) -> str:
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph)
