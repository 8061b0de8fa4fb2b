"""Where Telegram brings updates: set, look at, take away."""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

from telegram import Bot, BotCommand
from telegram.error import TelegramError

from distributor.bot.hearing import UPDATES
from distributor.bot.words import WORDS
from distributor.channels.telegram.answers import translate
from distributor.channels.telegram.transport import bot_thread
from distributor.errors import RequestRefused
from distributor.settings import Settings

PATH = "/telegram/webhook"
#: What Telegram itself connects to; a Bot API server of one's own takes any.
PORTS = frozenset({443, 80, 88, 8443})
TELEGRAM = "https://api.telegram.org"
#: Connections that Telegram opens to us at once: our answers take milliseconds.
CONNECTIONS = 10

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class WebhookStatus:
    """What Telegram says about the bot."""

    username: str
    url: str
    waiting: int
    last_error: str
    updates: Sequence[str]


def webhook_url(settings: Settings) -> str:
    return settings.web.base_url + PATH


def set_webhook(settings: Settings) -> str:
    """Tells Telegram where to bring updates, and the commands for its menu. Returns the URL.

    Raises RequestRefused for settings that Telegram would refuse, or nobody would answer; SendError when it refuses.
    """
    url, secret = webhook_url(settings), settings.bot.webhook_secret.get_secret_value()
    _refuse_unfit(settings, url)

    async def story(bot: Bot) -> None:
        await bot.set_webhook(url, secret_token=secret, allowed_updates=UPDATES, max_connections=CONNECTIONS)
        await _set_menu(bot)

    _ask(settings, story)
    return url


def delete_webhook(settings: Settings) -> None:
    """Updates that wait stay where they are, for whoever asks next. Raises SendError."""

    _ask(settings, lambda bot: bot.delete_webhook())


def webhook_status(settings: Settings) -> WebhookStatus:
    """Raises SendError."""

    async def story(bot: Bot) -> WebhookStatus:
        me, info = await bot.get_me(), await bot.get_webhook_info()
        return WebhookStatus(
            username=me.username or "",
            url=info.url,
            waiting=info.pending_update_count,
            last_error=info.last_error_message or "",
            updates=list(info.allowed_updates),
        )

    return _ask(settings, story)


def _refuse_unfit(settings: Settings, url: str) -> None:
    if settings.bot.mode != "webhook":
        raise RequestRefused(
            f'bot.mode is "{settings.bot.mode}": set it to "webhook" in config/distributor.toml'
        )
    if not settings.bot.webhook_secret.get_secret_value():
        raise RequestRefused(
            "the webhook has no secret: set DISTRIBUTOR_TELEGRAM_WEBHOOK_SECRET to 32 or more random letters and digits"
        )
    parts = urlsplit(url)
    port = parts.port or {"https": 443}.get(parts.scheme, 80)
    if settings.telegram.api == TELEGRAM and (parts.scheme != "https" or port not in PORTS):
        raise RequestRefused(
            f"Telegram brings updates to https:// alone, on port 443, 80, 88 or 8443, and web.base_url is "
            f'{settings.web.base_url}: change it, or set bot.mode = "polling"'
        )


def set_menu(settings: Settings) -> None:
    """The commands for clients' menus; `set_webhook` does this too. Raises SendError."""
    _ask(settings, _set_menu)


async def _set_menu(bot: Bot) -> None:
    """The commands as clients show them: in Chinese, and in English for everybody else."""
    for words, code in ((WORDS["en"], None), (WORDS["zh-CN"], "zh")):
        await bot.set_my_commands(_menu(words.menu), language_code=code)


def _menu(menu: Mapping[str, str]) -> Sequence[BotCommand]:
    return [BotCommand(name, line) for name, line in menu.items()]


def _ask(settings: Settings, story: Callable[[Bot], Coroutine[Any, Any, T]]) -> T:
    thread = bot_thread(settings.telegram)
    try:
        return thread.call(story(thread.bot))
    except TelegramError as error:
        raise translate(error, settings.telegram.token.get_secret_value()) from None
