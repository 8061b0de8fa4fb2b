"""What a Telegram error means: one table, read from the top; the first row that fits decides.

The classes of python-telegram-bot mislead: `BadRequest` and `TimedOut` are kinds of `NetworkError`, and one class
covers both "never left us" and "may have arrived". Their order in the table and the httpx exception behind them tell.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum, auto
from functools import partial

from telegram.error import (
    BadRequest,
    ChatMigrated,
    Conflict,
    EndPointNotFound,
    Forbidden,
    InvalidToken,
    NetworkError,
    RetryAfter,
    TelegramError,
)

from distributor.channels.http import NEVER_LEFT, UNUSABLE_ADDRESS
from distributor.channels.redact import redact
from distributor.errors import Kind, Rejected, Scope, SendError, Unavailable, Unconfirmed


class Fallback(Enum):
    """What to leave out so that the same text still arrives. Telegram has certainly not sent it."""

    PREVIEW = auto()  # send again without the picture
    MARKUP = auto()  # send again as text and entities, then as plain text


#: The reader does not want us, or is gone.
unwanted = partial(Rejected, kind=Kind.MAILBOX, suppress=True)
#: A chat that somebody configured, or that cannot be found: an editor should look.
misplaced = partial(Rejected, kind=Kind.CONFIG)
no_such_chat = partial(Rejected, kind=Kind.MAILBOX)
malformed = partial(Rejected, kind=Kind.CONTENT)
#: Nothing goes to anybody until a person has mended it.
misconfigured = partial(Unavailable, kind=Kind.CONFIG, scope=Scope.CHANNEL, counts=False)
unreachable = partial(Unavailable, kind=Kind.NETWORK, scope=Scope.CHANNEL, counts=False)
throttled = partial(Unavailable, kind=Kind.THROTTLE, scope=Scope.CREDENTIAL, counts=False)
in_doubt = partial(Unconfirmed, kind=Kind.NETWORK)


@dataclass(frozen=True)
class Row:
    """`error` is the class (or a parent), `text` a regular expression found in any case, `cause` the httpx exception."""

    error: type[TelegramError]
    text: str
    answer: Callable[..., SendError]
    meaning: str
    cause: tuple[type[Exception], ...] = ()
    fallback: Fallback | None = None

    def fits(self, error: TelegramError) -> bool:
        return (
            isinstance(error, self.error)
            and (not self.cause or isinstance(error.__cause__, self.cause))
            and re.search(self.text, error.message, re.IGNORECASE) is not None
        )


ANSWERS: Sequence[Row] = (
    Row(RetryAfter, r"", throttled, "too fast: Telegram asks us to wait"),
    Row(ChatMigrated, r"", partial(Unavailable, kind=Kind.MAILBOX, counts=False, retry_after=timedelta(0)), "the group became a supergroup with a new id"),
    Row(Forbidden, r"blocked by the user", unwanted, "the reader blocked the bot"),
    Row(Forbidden, r"user is deactivated", unwanted, "the account was deleted"),
    Row(Forbidden, r"kicked|not a member|need administrator rights|not enough rights", misplaced, "add the bot to the chat and let it post"),
    Row(Forbidden, r"", no_such_chat, "the bot may not write into this chat"),
    Row(InvalidToken, r"", misconfigured, "the token is not valid: check DISTRIBUTOR_TELEGRAM_TOKEN and telegram.api"),
    Row(Conflict, r"", misconfigured, "the token is in use elsewhere"),
    Row(EndPointNotFound, r"", misconfigured, "the server does not know the method: check telegram.api"),
    Row(BadRequest, r"can't parse entities|unsupported start tag|entities_too_long", malformed, "our markup was refused", fallback=Fallback.MARKUP),
    Row(BadRequest, r"message is too long|text must be non-empty|message text is empty", malformed, "our text has the wrong length"),
    Row(BadRequest, r"wrong type of the web page content|failed to get http url content|wrong file identifier|webpage_\w+|media_\w+|photo_invalid_dimensions", malformed, "the picture was refused", fallback=Fallback.PREVIEW),
    Row(BadRequest, r"message thread not found|topic_closed|topic_deleted", misplaced, "the topic is closed or gone: check `thread` of the destination"),
    Row(BadRequest, r"not enough rights|need administrator rights|chat_write_forbidden|chat_restricted", misplaced, "let the bot post in this chat"),
    Row(BadRequest, r"chat not found", no_such_chat, "there is no such chat, or the bot is not in it"),
    Row(BadRequest, r"user not found|peer_id_invalid|group chat was deactivated", no_such_chat, "the chat is gone"),
    Row(BadRequest, r"", malformed, "Telegram refuses the request"),
    Row(NetworkError, r"", unreachable, "no connection: check telegram.api and telegram.proxy", cause=NEVER_LEFT),
    Row(NetworkError, r"", misconfigured, "not a usable address: check telegram.api and telegram.proxy", cause=UNUSABLE_ADDRESS),
    Row(NetworkError, r"too many requests", partial(throttled, retry_after=timedelta(seconds=30)), "too fast"),
    Row(NetworkError, r"request entity too large", malformed, "the request is too large"),
    Row(TelegramError, r"", in_doubt, "no readable answer: the message may have gone"),
)  # fmt: skip


def row_for(error: TelegramError) -> Row:
    """The row that decides; the last one fits everything."""
    return next(row for row in ANSWERS if row.fits(error))


def translate(error: TelegramError, *secrets: str) -> SendError:
    """The error in our words, with every secret masked in its text."""
    row = row_for(error)
    answer = row.answer(text=f"{redact(error.message, *secrets)} [{row.meaning}]", code=type(error).__name__)
    if isinstance(error, RetryAfter) and isinstance(answer, Unavailable):
        answer.retry_after = _as_timedelta(error.retry_after)
    if isinstance(error, ChatMigrated) and isinstance(answer, Unavailable):
        answer.new_address = str(error.new_chat_id)
    return answer


def _as_timedelta(wait: int | timedelta) -> timedelta:
    """python-telegram-bot gives seconds, or a timedelta when PTB_TIMEDELTA is set."""
    return wait if isinstance(wait, timedelta) else timedelta(seconds=wait)
