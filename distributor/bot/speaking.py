"""Sends the bot's replies through the process's one bot, at the pace it shares with the issues it delivers."""

import logging
import queue
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from telegram import Bot as TelegramBot
from telegram import InlineKeyboardButton, InlineKeyboardMarkup, LinkPreviewOptions
from telegram.constants import ParseMode
from telegram.error import TelegramError

from distributor.audience import masked
from distributor.bot.replies import Keyboard, Replies, Reply, Toast
from distributor.channels.telegram import TelegramChannel
from distributor.channels.telegram.answers import translate
from distributor.channels.telegram.transport import bot_thread
from distributor.errors import SendError, Unavailable
from distributor.model import Recipient
from distributor.pacing import Limit, Pacer
from distributor.settings import Settings, TelegramSettings

log = logging.getLogger(__name__)

#: Of the bot's rate, the share that replies may take: a crowd that plays with the bot slows an issue by so much, not more.
SHARE = 1 / 6
#: Replies that wait; what comes on top is dropped. A reply older than STALE seconds is of no use to anybody.
MOST_WAITING, STALE = 1000, 60.0
#: Seconds ahead for which a permit is taken. Lanes take theirs PERMIT_AHEAD (0.05) ahead: the next free one is ours.
AHEAD = 1.0
NOT_CHANGED = "message is not modified"


@dataclass(frozen=True)
class _Waiting:
    reply: Reply | Toast
    since: float = field(default_factory=time.monotonic)

    @property
    def stale(self) -> bool:
        return time.monotonic() - self.since > STALE


class Speaker:
    """A thread that sends replies, begun with the first one. What it cannot send is logged: the reader asks again."""

    def __init__(
        self, settings: Settings, pacer: Pacer, *, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._telegram: TelegramSettings = settings.telegram
        self._channel = TelegramChannel(settings)
        self._pacer, self._sleep = pacer, sleep
        self._own = Limit("telegram:replies", settings.telegram.rate * SHARE)
        self._waiting: queue.Queue[_Waiting | None] = queue.Queue(MOST_WAITING)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def say(self, replies: Replies) -> None:
        """Returns at once."""
        for reply in replies:
            try:
                self._waiting.put_nowait(_Waiting(reply))
            except queue.Full:
                log.warning("bot_reply_dropped why=too many are waiting")
        if replies:
            self._begin()

    def close(self, patience: float = 5.0) -> None:
        """Sends what waits, as far as it gets in so many seconds."""
        if self._thread:
            self._waiting.put(None)
            self._thread.join(patience)

    def _begin(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="bot-replies", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while (waiting := self._waiting.get()) is not None:
            try:
                self._send_in_time(waiting)
            except Exception as error:
                # The next reader is to be answered all the same; the error's text may hold the token.
                log.error("bot_reply_failed why=%s", type(error).__name__)  # noqa: TRY400 - as above

    def _send_in_time(self, waiting: _Waiting) -> None:
        while not waiting.stale:
            if not self._permitted(waiting):
                return
            wait = self._send(waiting.reply)
            if wait is None:
                return
            self._sleep(min(wait, STALE))

    def _permitted(self, waiting: _Waiting) -> bool:
        """Waits for a permit; False when that takes too long. A toast is no message, and counts as none."""
        if isinstance(waiting.reply, Toast):
            return True
        place = Recipient(channel="telegram", address=waiting.reply.chat)
        limits = [*self._channel.limits(place, "telegram"), self._own]
        while not waiting.stale:
            grant = self._pacer.reserve(limits, within=AHEAD)
            self._sleep(min(grant.wait, AHEAD))
            if grant.permits:
                return True
        log.warning("bot_reply_dropped why=no permit in time")
        return False

    def _send(self, reply: Reply | Toast) -> float | None:
        """None when that is done with; else the seconds after which it may be tried again."""
        try:
            thread = bot_thread(self._telegram)
            thread.call(_handed_over(thread.bot, reply))
        except TelegramError as error:
            if NOT_CHANGED in error.message.lower():
                return None
            return self._troubled(reply, translate(error, self._telegram.token.get_secret_value()))
        except SendError as error:
            return self._troubled(reply, error)
        except (Exception, CancelledError) as error:
            log.warning("bot_reply_lost chat=%s why=%s", _place(reply), type(error).__name__)
        return None

    def _troubled(self, reply: Reply | Toast, error: SendError) -> float | None:
        wait = error.retry_after if isinstance(error, Unavailable) else None
        if wait is None:
            log.warning("bot_reply_lost chat=%s why=%s", _place(reply), error)
            return None
        self._pacer.block("telegram", wait.total_seconds())
        return max(wait, timedelta(seconds=1)).total_seconds()


def _place(reply: Reply | Toast) -> str:
    return masked(reply.chat) if isinstance(reply, Reply) else "?"


def _handed_over(bot: TelegramBot, reply: Reply | Toast) -> Coroutine[Any, Any, Any]:
    if isinstance(reply, Toast):
        return bot.answer_callback_query(reply.query, text=reply.text or None)
    shape: dict[str, Any] = {
        "text": reply.text,
        "parse_mode": ParseMode.HTML,
        "link_preview_options": LinkPreviewOptions(is_disabled=True),
        "reply_markup": _markup(reply.keyboard),
    }
    if reply.edits is not None:
        return bot.edit_message_text(chat_id=reply.chat, message_id=reply.edits, **shape)
    return bot.send_message(chat_id=reply.chat, **shape)


def _markup(keyboard: Keyboard) -> InlineKeyboardMarkup | None:
    rows = [[InlineKeyboardButton(one.label, callback_data=one.data) for one in row] for row in keyboard]
    return InlineKeyboardMarkup(rows) if rows else None
