"""Hand-off: places that no interface reaches, such as a WeChat group. A person gets what to paste, and does it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from distributor.channels import OneWay
from distributor.channels.handoff.render import render_handoff
from distributor.model import Message, Post, Recipient
from distributor.pacing import UNLIMITED, Limit
from distributor.settings import Newsletter, Settings

if TYPE_CHECKING:
    from distributor.channels.handoff.transport import HandoffTransport


class HandoffChannel(OneWay):
    """The channel "handoff"."""

    name = "handoff"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def render(self, post: Post, newsletter: Newsletter) -> Sequence[Message]:
        return render_handoff(post, newsletter)

    def destinations(self, newsletter: Newsletter) -> Sequence[Recipient]:
        """A place each, called by its name: one person may look after several. Its pack says who gets it."""
        table = newsletter.channel_settings.handoff
        return [
            Recipient(channel=self.name, address=place.name, variant=place.name, destination=place.name)
            for place in (table.destinations if table else ())
        ]

    def limits(self, _recipient: Recipient, _relay: str, /) -> Sequence[Limit]:
        """A pack a place and issue: none is needed."""
        return [Limit(self.name, UNLIMITED)]

    def open(self, _relay: str, /) -> "HandoffTransport":
        from distributor.channels.handoff.transport import HandoffTransport  # noqa: PLC0415 - as in the other channels

        return HandoffTransport(self._settings)
