"""WeChat Official Accounts (公众号): an article a post, as a draft that an editor publishes, or further where asked for."""

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from jinja2 import Environment

from distributor.channels import OneWay
from distributor.channels.wechat.render import render_wechat
from distributor.channels.wechat.store import SharedStore, open_store
from distributor.model import Message, Post, Recipient, Relay
from distributor.pacing import UNLIMITED, Limit
from distributor.rendering import template_environment
from distributor.settings import Newsletter, Settings, wechat_names

if TYPE_CHECKING:
    from distributor.channels.wechat.transport import WechatTransport

#: Articles a second into one account; each is a dozen calls, of which WeChat counts a thousand a day.
RATE = 1.0


class WechatChannel(OneWay):
    """The channel "wechat". Each account is a relay of its own: one that WeChat locks out stops alone."""

    name = "wechat"
    #: The report at the end of a send repeats what the receipts say.
    ends_with_a_person = True

    def __init__(self, settings: Settings, store: SharedStore | None = None) -> None:
        self._settings = settings
        self._given_store = store

    @cached_property
    def relays(self) -> Sequence[Relay]:
        accounts = wechat_names(self._settings.newsletters)
        return [Relay(name=name, domains=frozenset({name})) for name in accounts] or [Relay(name=self.name)]

    def render(self, post: Post, newsletter: Newsletter) -> Sequence[Message]:
        return [render_wechat(post, newsletter, self._templates)]

    def destinations(self, newsletter: Newsletter) -> Sequence[Recipient]:
        table = newsletter.channel_settings.wechat
        return [
            Recipient(channel=self.name, address=place.name, variant="article", destination=place.name)
            for place in (table.destinations if table else ())
        ]

    def limits(self, recipient: Recipient, relay: str, /) -> Sequence[Limit]:
        return [Limit(f"{self.name}/{relay}", UNLIMITED), Limit(f"{self.name}:{recipient.address}", RATE)]

    def open(self, _relay: str, /) -> "WechatTransport":
        from distributor.channels.wechat.transport import WechatTransport  # noqa: PLC0415 - an HTTP client and a decoder that only sending needs

        return WechatTransport(self._settings, self._store)

    @cached_property
    def _templates(self) -> Environment:
        return template_environment(self._settings.root)

    @cached_property
    def _store(self) -> SharedStore:
        return self._given_store or open_store(self._settings.broker.url.get_secret_value())
