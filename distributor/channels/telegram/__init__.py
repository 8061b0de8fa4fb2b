"""Telegram: channels, groups and topics of the configuration, and private chats that subscribed."""

from collections.abc import Sequence

from distributor.channels.telegram.render import render_telegram
from distributor.channels.telegram.transport import TelegramTransport
from distributor.model import Message, Post, Recipient
from distributor.pacing import Limit
from distributor.settings import Newsletter, Settings, TelegramDestination


class TelegramChannel:
    """The channel "telegram"."""

    name = "telegram"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def render(self, post: Post, newsletter: Newsletter) -> Sequence[Message]:
        return render_telegram(post, newsletter)

    def destinations(self, newsletter: Newsletter) -> Sequence[Recipient]:
        table = newsletter.channel_settings.telegram
        return [
            Recipient(channel=self.name, address=_address(place), destination=place.name)
            for place in (table.destinations if table else ())
        ]

    def limits(self, recipient: Recipient) -> Sequence[Limit]:
        """About 30 a second for the bot; a group or channel takes 20 a minute (Bots FAQ; PTB "Avoiding flood limits")."""
        bot = Limit(self.name, self._settings.telegram.rate)
        if recipient.address.startswith(("-", "@")):
            chat = recipient.address.partition("/")[0]
            return [bot, Limit(f"{self.name}:{chat}", self._settings.telegram.per_chat_minute / 60)]
        return [bot]

    def open(self) -> TelegramTransport:
        return TelegramTransport(self._settings.telegram)


def _address(place: TelegramDestination) -> str:
    return place.chat if place.thread is None else f"{place.chat}/{place.thread}"
