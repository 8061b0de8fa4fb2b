"""Telegram: channels, groups and topics of the configuration, and private chats that subscribed."""

from collections.abc import Sequence

from distributor.channels.telegram.render import render_telegram
from distributor.channels.telegram.transport import TelegramTransport
from distributor.model import Message, Post, Recipient
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

    def open(self) -> TelegramTransport:
        return TelegramTransport(self._settings.telegram)


def _address(place: TelegramDestination) -> str:
    return place.chat if place.thread is None else f"{place.chat}/{place.thread}"
