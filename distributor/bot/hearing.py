"""What an update says, by python-telegram-bot's models. Whatever is nothing for us is None."""

import hashlib
import json
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from telegram import CallbackQuery, ChatMemberUpdated, Message
from telegram import Update as TelegramUpdate
from telegram.constants import ChatMemberStatus, ChatType

from distributor.audience import Received, Word

#: What we ask Telegram for.
UPDATES = ("message", "my_chat_member", "callback_query")
#: Characters of a chat's title that an operator is told.
LONGEST_TITLE = 60


@dataclass(frozen=True, kw_only=True)
class Command:
    """A message in a private chat: `/name argument`. An empty name: anything else. `language`: as Telegram says it."""

    said: Word
    name: str
    argument: str
    language: str


@dataclass(frozen=True, kw_only=True)
class Press:
    """A button under a message of ours, in a private chat. `query` wants an answer."""

    said: Word
    query: str
    message: int
    data: str
    language: str


@dataclass(frozen=True, kw_only=True)
class Blocked:
    """A reader blocked the bot."""

    said: Word


@dataclass(frozen=True, kw_only=True)
class Moved:
    """What became of the bot in a group or channel: member, administrator, left, kicked …"""

    said: Word
    status: str
    kind: str
    title: str


Update = Command | Press | Blocked | Moved


def read(told: Mapping[str, Any], username: str = "") -> Update | None:
    """Raises ValueError for what is no update, or none that can be understood."""
    number = told.get("update_id")
    if not isinstance(number, int) or isinstance(number, bool):
        raise ValueError("no update_id")  # noqa: TRY004 - callers treat every malformed update alike
    try:
        update = TelegramUpdate.de_json(dict(told), None)
        received = Received(source="telegram", key=str(number), body_hash=_hash(told))
        if update.message:
            return _message(update.message, received, username)
        if update.callback_query:
            return _press(update.callback_query, received)
        if update.my_chat_member:
            return _membership(update.my_chat_member, received)
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError, OSError) as error:
        raise ValueError(f"update {number} cannot be understood: {type(error).__name__}") from error
    return None


def _message(message: Message, received: Received, username: str) -> Command | None:
    if message.chat.type != ChatType.PRIVATE or message.from_user is None or message.from_user.is_bot:
        return None
    name, argument = _command(message.text or "", username)
    return Command(
        said=_word(message.chat.id, received, message.date),
        name=name,
        argument=argument,
        language=message.from_user.language_code or "",
    )


def _command(text: str, username: str) -> tuple[str, str]:
    """("start", "token") of "/start@our_bot token"; of a command for another bot, and of any other text, ("", "")."""
    first, _, argument = text.partition(" ")
    name, _, bot = first.partition("@")
    if not name.startswith("/") or (bot and username and bot.lower() != username.lower()):
        return "", ""
    return name[1:].lower(), argument.strip()


def _press(query: CallbackQuery, received: Received) -> Press | None:
    message = query.message
    if message is None or message.chat.type != ChatType.PRIVATE or message.chat.id != query.from_user.id:
        return None
    return Press(
        said=_word(message.chat.id, received, None),
        query=query.id,
        message=message.message_id,
        data=query.data or "",
        language=query.from_user.language_code or "",
    )


def _membership(change: ChatMemberUpdated, received: Received) -> Blocked | Moved | None:
    """Unblocking is nothing to us: nobody is subscribed again by it."""
    status, said = change.new_chat_member.status, _word(change.chat.id, received, change.date)
    if change.chat.type == ChatType.PRIVATE:
        return Blocked(said=said) if status == ChatMemberStatus.BANNED else None
    return Moved(said=said, status=str(status), kind=str(change.chat.type), title=_clean(change.chat.title))


def _word(chat: int, received: Received, at: datetime | None) -> Word:
    return Word(chat=str(chat), received=received, at=at)


def _clean(text: str | None) -> str:
    """Of a stranger's text, one short line."""
    visible = "".join(" " if unicodedata.category(one).startswith("C") else one for one in text or "")
    return " ".join(visible.split())[:LONGEST_TITLE]


def _hash(told: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
