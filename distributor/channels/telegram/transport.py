"""Sends to Telegram through one `Bot` on one event loop for each process.

A `Bot` belongs to the loop that first used it: a second loop makes every other call fail with "Event loop is closed",
which looks like a network fault. So one background thread owns loop and bot, and every lane hands its calls over.
"""

import asyncio
import atexit
import html
import json
import logging
import math
import os
import threading
import time
from collections.abc import Collection, Coroutine, Mapping
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Self, TypeVar

from telegram import Bot, LinkPreviewOptions, MessageEntity
from telegram import Message as SentMessage
from telegram.constants import ParseMode
from telegram.error import BadRequest, EndPointNotFound, InvalidToken, RetryAfter, TelegramError
from telegram.request import HTTPXRequest

from distributor.channels.http import quiet
from distributor.channels.placeholders import fill
from distributor.channels.redact import redact
from distributor.channels.telegram.answers import Fallback, row_for, translate
from distributor.channels.telegram.words import PART_ADDRESS
from distributor.errors import Kind, Rejected, Scope, SendError, Unavailable, Unconfirmed
from distributor.model import Parcel, Receipt
from distributor.settings import TelegramSettings
from distributor.tls import trust

logger = logging.getLogger(__name__)
quiet("httpx")
quiet("telegram.Bot")
# It prints an answer that is no JSON, and a proxy's error page quotes the URL; we report it in our own words.
quiet("telegram.request.BaseRequest", below=logging.CRITICAL)

CONNECT_SECONDS = 10.0
WRITE_SECONDS = 10.0
#: Lanes of one process at once; a lane that finds no free connection waits as long as for an answer.
CONNECTIONS = 64
#: Beyond the sum of all timeouts something else is wrong.
SLACK_SECONDS = 5.0
STOP_SECONDS = 5.0
#: An idle connection is closed after five seconds (httpx' keepalive_expiry).
STAYS_OPEN = 4.0
#: Seconds for the question that opens a connection: a lane holds a slice meanwhile.
GREETING: dict[str, Any] = dict.fromkeys(
    ("connect_timeout", "read_timeout", "write_timeout", "pool_timeout"), 3.0
)

T = TypeVar("T")


class BotThread:
    """A thread that runs an event loop, and the bot that lives on it."""

    def __init__(self, settings: TelegramSettings) -> None:
        seconds = settings.read_timeout.total_seconds()
        self._patience = CONNECT_SECONDS + WRITE_SECONDS + 2 * seconds + SLACK_SECONDS
        self._requests = (_request(settings, CONNECTIONS), _request(settings, 1))
        self.bot = Bot(
            settings.token.get_secret_value(),
            base_url=f"{settings.api}/bot",
            request=self._requests[0],
            get_updates_request=self._requests[1],
        )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="telegram-bot", daemon=True)
        self._thread.start()
        self._used_at = -math.inf

    @property
    def idle_for(self) -> float:
        """Seconds since the last answer."""
        return time.monotonic() - self._used_at

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Begins the coroutine on the loop, from any other thread."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """The coroutine's result, from any other thread. Raises TimeoutError when it takes longer than every timeout."""
        future = self.submit(coroutine)
        try:
            result = future.result(self._patience)
        except BaseException:
            future.cancel()
            raise
        self._used_at = time.monotonic()
        return result

    def close(self) -> None:
        """Closes the connections, then stops the loop and its thread."""
        for request in self._requests:
            asyncio.run_coroutine_threadsafe(request.shutdown(), self._loop).result(STOP_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(STOP_SECONDS)
        self._loop.close()


def _request(settings: TelegramSettings, connections: int) -> HTTPXRequest:
    seconds = settings.read_timeout.total_seconds()
    return HTTPXRequest(
        connection_pool_size=connections,
        read_timeout=seconds,
        write_timeout=WRITE_SECONDS,
        connect_timeout=CONNECT_SECONDS,
        pool_timeout=seconds,
        proxy=settings.proxy or None,
        httpx_kwargs={"verify": trust()},
    )


class _Bots:
    """The bots of this process, one for each configuration, made on first use."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads: dict[TelegramSettings, BotThread] = {}
        self._parents: list[object] = []

    def begin_anew(self) -> None:
        """In a forked child: its parent's threads do not run here, and the lock may have been held.

        The parent's objects are kept: collecting them would close an epoll that both processes share.
        """
        self._parents.append(self._threads)
        self._lock, self._threads = threading.Lock(), {}

    def get(self, settings: TelegramSettings) -> BotThread:
        with self._lock:
            if settings not in self._threads:
                self._threads[settings] = BotThread(settings)
            return self._threads[settings]

    def close(self) -> None:
        with self._lock:
            while self._threads:
                self._threads.popitem()[1].close()


_bots = _Bots()
os.register_at_fork(after_in_child=_bots.begin_anew)
atexit.register(_bots.close)


def close_bots() -> None:
    """Ends this process's bot threads. The next send makes new ones."""
    _bots.close()


@dataclass(frozen=True)
class _Draft:
    """One message, as it stands after what had to be left out. `rich` goes before `html`, `html` before `entities`."""

    chat: str
    thread: int | None
    plain: str
    html: str = ""
    entities: str = ""
    rich: str = ""
    preview_url: str = ""
    edits: int | None = None

    @classmethod
    def of(cls, parcel: Parcel) -> "_Draft":
        """Raises ValueError or KeyError when the parcel lacks what a message needs."""
        content, names = parcel.message.content, parcel.message.placeholders
        chat, _, thread = parcel.recipient.address.partition("/")
        values = {**parcel.values, **_part_addresses(parcel, names)}
        return cls(
            chat=chat,
            thread=int(thread) if thread else None,
            plain=fill(content.get("plain", ""), names, values),
            html=fill(content["html"], names, values, html.escape),
            entities=fill(content.get("entities", "").removeprefix("[]"), names, values, _inside_json),
            rich=content.get("rich", ""),
            preview_url=content.get("preview_url", ""),
            edits=int(parcel.receipts[0]) if "edits" in content else None,
        )

    def without(self, part: Fallback | None) -> "_Draft | None":
        """The same message without its picture or its markup; None when there is nothing to leave out."""
        if part is Fallback.PREVIEW and self.preview_url:
            return replace(self, preview_url="")
        if part is Fallback.MARKUP and self.html and self.plain:
            # Entities cannot be malformed, and keep every link.
            return replace(self, html="")
        if part is Fallback.MARKUP and self.entities:
            return replace(self, entities="")
        return None

    @property
    def preview(self) -> LinkPreviewOptions:
        """The cover stands above the text: one message of 4096 characters, where a photo's caption ends at 1024.

        Without a cover there is no preview: Telegram would show that of the first link, which is somebody else's picture.
        """
        if not self.preview_url:
            return LinkPreviewOptions(is_disabled=True)
        return LinkPreviewOptions(url=self.preview_url, show_above_text=True, prefer_large_media=True)

    @property
    def text(self) -> Mapping[str, Any]:
        if self.html:
            return {"text": self.html, "parse_mode": ParseMode.HTML}
        entities = [MessageEntity(**entity) for entity in json.loads(self.entities or "[]")]
        return {"text": self.plain, "entities": entities or None}

    def hand_over(self, bot: Bot) -> Coroutine[Any, Any, SentMessage | bool]:
        if self.rich:
            return bot.do_api_request(
                "sendRichMessage",
                api_kwargs={
                    "chat_id": self.chat,
                    **({"message_thread_id": self.thread} if self.thread else {}),
                    "rich_message": {"html": self.rich},
                },
                return_type=SentMessage,
            )
        if self.edits is not None:
            return bot.edit_message_text(
                chat_id=self.chat, message_id=self.edits, link_preview_options=self.preview, **self.text
            )
        return bot.send_message(
            chat_id=self.chat, message_thread_id=self.thread, link_preview_options=self.preview, **self.text
        )


def _part_addresses(parcel: Parcel, names: Collection[str]) -> Mapping[str, str]:
    """Where the parts that were sent can be read, by their placeholders. Raises ValueError when that is not known.

    A topic's messages have it in their address: t.me/name/topic/number.
    """
    if "edits" not in parcel.message.content:
        return {}
    address = parcel.recipient.address
    if not address.startswith("@"):
        raise ValueError("the chat is not public")
    addresses = {
        PART_ADDRESS.format(part): f"https://t.me/{address[1:]}/{receipt}"
        for part, receipt in enumerate(parcel.receipts, 1)
        if receipt.isdigit()
    }
    if missing := [name for name in names if name not in addresses]:
        raise ValueError(f"no message id for {', '.join(missing)}")
    return addresses


def _inside_json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


@dataclass
class TelegramTransport:
    """Sends parcels through the process's bot. Addresses are a chat, or chat/thread for a topic of a forum."""

    settings: TelegramSettings
    _secret: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._secret = self.settings.token.get_secret_value()

    def __enter__(self) -> Self:
        thread = self._thread()
        if thread.idle_for > STAYS_OPEN:
            self._greet(thread)
        return self

    def _greet(self, thread: BotThread) -> None:
        """Opens a connection, which takes several round trips.

        The first message would pay them after its permit was given out, and come together with the next one's.
        """
        try:
            thread.call(thread.bot.get_me(**GREETING))
        except RetryAfter:
            return  # it is there
        except InvalidToken as error:
            raise translate(error, self._secret) from None
        except (Exception, CancelledError) as error:
            said = redact(f"{type(error).__name__} {error}", self._secret)
            raise Unavailable(
                text=f"Telegram does not answer: {said}", scope=Scope.CHANNEL, kind=Kind.NETWORK, counts=False
            ) from None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The bot stays: other lanes use it, and a new one costs about 80 ms."""

    def send(self, parcel: Parcel, then: Parcel | None = None) -> Receipt:  # noqa: ARG002 - nothing to announce
        if "edits" in parcel.message.content:
            return self._link_parts(parcel)
        draft = self._draft(parcel)
        if draft.rich:
            return self._send_rich(draft, parcel)
        return self._send(draft, parcel)

    def _draft(self, parcel: Parcel) -> _Draft:
        try:
            return _Draft.of(parcel)
        except (KeyError, ValueError, IndexError) as error:
            reason = f"cannot be written as a Telegram message: {redact(str(error), self._secret)}"
            raise Rejected(text=reason, kind=Kind.CONTENT) from error

    def _send(self, draft: _Draft, parcel: Parcel) -> Receipt:
        while True:
            try:
                return _receipt(self._call(draft), draft)
            except TelegramError as error:
                draft = self._lighter(draft, error, parcel)

    def _link_parts(self, parcel: Parcel) -> Receipt:
        """The first part's contents become links. Readers have all parts already: no failure of this is the delivery's."""
        try:
            return self._send(self._draft(parcel), parcel)
        except SendError as error:
            logger.warning("delivery %s: the contents are without links: %s", parcel.identity, error.text)
            return Receipt(
                provider_id=parcel.receipts[0] if parcel.receipts else None,
                code=error.code,
                text=f"contents without links: {error.text}",
                # The other chats must hear of it all the same: the limit is the bot's.
                retry_after=error.retry_after if isinstance(error, Unavailable) else None,
            )

    def _send_rich(self, draft: _Draft, parcel: Parcel) -> Receipt:
        """One message for all parts; where that is refused, the first of them, and the others follow.

        A server that does not know the method answers 404, as it does for a wrong token: the classic message, which goes
        over the same token, tells which of the two it was.
        """
        try:
            return _receipt(self._call(draft), draft)._replace(whole=True)
        except TelegramError as error:
            if not _may_go_in_parts(error):
                raise translate(error, self._secret) from None
            said = redact(error.message, self._secret)
            logger.warning("delivery %s: no rich message, parts instead: %s", parcel.identity, said)
            receipt = self._send(replace(draft, rich=""), parcel)
            return receipt._replace(text=f"parts instead of a rich message: {said}")

    def _lighter(self, draft: _Draft, error: TelegramError, parcel: Parcel) -> _Draft:
        """What to try instead; raises the translated error when there is nothing. Ends: each step leaves something out."""
        row = row_for(error)
        lighter = draft.without(row.fallback)
        if lighter is None:
            raise translate(error, self._secret) from None
        if row.fallback is Fallback.MARKUP:
            said = redact(error.message, self._secret)
            form = "as text and entities" if draft.html and draft.entities else "as plain text"
            logger.warning(
                "delivery %s: Telegram refused our markup, sent %s: %s", parcel.identity, form, said
            )
        return lighter

    def _call(self, draft: _Draft) -> SentMessage | bool:
        """One request. Raises TelegramError, or a SendError for what python-telegram-bot does not translate."""
        thread = self._thread()
        try:
            return thread.call(draft.hand_over(thread.bot))
        except TelegramError:
            raise
        except (Exception, CancelledError) as error:
            raise self._foreign(error) from None

    def _foreign(self, error: BaseException) -> SendError:
        said = redact(f"{type(error).__name__} {error}", self._secret)
        return Unconfirmed(text=f"no readable answer from Telegram: {said}", kind=Kind.NETWORK)

    def _thread(self) -> BotThread:
        return bot_thread(self.settings)


def bot_thread(settings: TelegramSettings) -> BotThread:
    """This process's bot. Raises Unavailable (scope channel) without a token, or with a proxy that is none."""
    secret = settings.token.get_secret_value()
    if not secret:
        raise _misconfigured(
            "no bot token: set DISTRIBUTOR_TELEGRAM_TOKEN (or DISTRIBUTOR_TELEGRAM_TOKEN_FILE)"
        )
    try:
        return _bots.get(settings)
    except Exception as error:
        said = redact(str(error), secret)
        raise _misconfigured(f"no Telegram bot: check telegram.proxy and the token ({said})") from None


def _may_go_in_parts(error: TelegramError) -> bool:
    """Whether it is the rich message that was refused: its method, its markup, or its size (413, from the web server)."""
    if isinstance(error, (BadRequest, EndPointNotFound, InvalidToken)):
        return True
    answer = translate(error)
    return isinstance(answer, Rejected) and answer.kind is Kind.CONTENT


def _misconfigured(text: str) -> Unavailable:
    return Unavailable(text=text, scope=Scope.CHANNEL, kind=Kind.CONFIG, counts=False)


def _receipt(sent: SentMessage | bool, draft: _Draft) -> Receipt:
    """An edit may be answered with True alone."""
    number = draft.edits if isinstance(sent, bool) else sent.message_id
    return Receipt(provider_id=str(number), code="200")
