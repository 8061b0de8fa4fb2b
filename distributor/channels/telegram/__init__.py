"""Telegram: channels, groups and topics of the configuration, and private chats that subscribed."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from distributor.channels import OneWay
from distributor.channels.telegram.render import render_telegram, variant_of
from distributor.model import Message, Post, Recipient
from distributor.pacing import Limit
from distributor.settings import Newsletter, Settings, TelegramDestination

if TYPE_CHECKING:
    from distributor.channels.telegram.transport import TelegramTransport


#: Seconds by which one message may take longer on its way than another. One after the other at this much less than the
#: rate, no second at the other end sees more than the rate: what comes in a second left us in one and a JITTER.
JITTER = 0.022


class TelegramChannel(OneWay):
    """The channel "telegram"."""

    name = "telegram"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def render(self, post: Post, newsletter: Newsletter) -> Sequence[Message]:
        return render_telegram(post, newsletter)

    def destinations(self, newsletter: Newsletter) -> Sequence[Recipient]:
        table = newsletter.channel_settings.telegram
        return [
            Recipient(
                channel=self.name,
                address=_address(place),
                variant=variant_of(place),
                destination=place.name,
            )
            for place in (table.destinations if table else ())
        ]

    def limits(self, recipient: Recipient, _relay: str, /) -> Sequence[Limit]:
        """About 30 a second for the bot; a group or channel takes 20 a minute (Bots FAQ; PTB "Avoiding flood limits")."""
        bot = Limit(self.name, self._settings.telegram.rate / (1 + JITTER))
        if recipient.address.startswith(("-", "@")):
            chat = recipient.address.partition("/")[0]
            return [bot, Limit(f"{self.name}:{chat}", self._settings.telegram.per_chat_minute / 60)]
        return [bot]

    def open(self, _relay: str, /) -> "TelegramTransport":
        from distributor.channels.telegram.transport import TelegramTransport  # noqa: PLC0415 - 0.3 s, python-telegram-bot, that only sending needs

        return TelegramTransport(self._settings.telegram)


def _address(place: TelegramDestination) -> str:
    return place.chat if place.thread is None else f"{place.chat}/{place.thread}"
