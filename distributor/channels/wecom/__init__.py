"""WeCom (企业微信): group robots of the configuration, with a short text that also fits WeChat's clients."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from distributor.channels import OneWay
from distributor.channels.wecom.render import render_wecom, variant_of
from distributor.model import Message, Post, Recipient
from distributor.pacing import UNLIMITED, Limit
from distributor.settings import Newsletter, Settings

if TYPE_CHECKING:
    from distributor.channels.wecom.transport import WecomTransport


class WecomChannel(OneWay):
    """The channel "wecom"."""

    name = "wecom"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def render(self, post: Post, newsletter: Newsletter) -> Sequence[Message]:
        return render_wecom(post, newsletter)

    def destinations(self, newsletter: Newsletter) -> Sequence[Recipient]:
        table = newsletter.channel_settings.wecom
        return [
            Recipient(
                channel=self.name, address=robot.name, variant=variant_of(robot), destination=robot.name
            )
            for robot in (table.destinations if table else ())
        ]

    def limits(self, recipient: Recipient, _relay: str, /) -> Sequence[Limit]:
        """A robot takes 20 messages a minute (developer.work.weixin.qq.com, path 99110)."""
        robot = Limit(f"{self.name}:{recipient.address}", self._settings.wecom.per_robot_minute / 60)
        return [Limit(self.name, UNLIMITED), robot]

    def open(self, _relay: str, /) -> "WecomTransport":
        from distributor.channels.wecom.transport import WecomTransport  # noqa: PLC0415 - an HTTP client that only sending needs

        return WecomTransport(self._settings.wecom, self._settings.wecom_keys)
