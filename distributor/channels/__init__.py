"""Channels: the two protocols, and the visible table of names.

A channel renders a post into messages and opens a transport that sends them. Built-in channels and those of other
packages enter by the same door, the entry-point group `distributor.channels`; a name that is taken stops the start.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from importlib.metadata import EntryPoint, entry_points
from typing import Protocol, runtime_checkable

from distributor.errors import ConfigError
from distributor.model import Message, Parcel, Post, Receipt, Recipient
from distributor.pacing import Limit
from distributor.settings import Newsletter, Settings

ENTRY_POINTS = "distributor.channels"


class Transport(Protocol):
    """One open connection, reused for many sends."""

    def send(self, parcel: Parcel) -> Receipt:
        """Hands one part over.

        Raises:
            Rejected: the other side said no, for good.
            Unavailable: certainly not handed over; may be tried later.
            Unconfirmed: handed over, the answer was lost.
        """


@runtime_checkable
class Channel(Protocol):
    """A medium: how a post looks on it, and how it gets there."""

    name: str

    def render(self, post: Post, newsletter: Newsletter) -> Sequence[Message]:
        """The messages of a post, by variant and part. Raises PostError when it cannot be sent well."""

    def destinations(self, newsletter: Newsletter) -> Sequence[Recipient]:
        """The fixed places of the configuration that get this newsletter."""

    def limits(self, recipient: Recipient) -> Sequence[Limit]:
        """The rates that a send to this recipient is subject to; the first one is the channel's own."""

    def open(self) -> AbstractContextManager[Transport]:
        """Opens one connection. Raises Unavailable or Rejected (scope channel) when that fails."""


class ChannelFactory(Protocol):
    """What an entry point names: a class, or a function, that builds the channel from the settings."""

    def __call__(self, settings: Settings, /) -> Channel: ...


def load_channels(settings: Settings, also: Iterable[str] = ()) -> Mapping[str, Channel]:
    """Every channel that a newsletter uses, and those named in `also`, by name.

    Raises ConfigError for a name that nobody, or two, provide.
    """
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=ENTRY_POINTS):
        if point.name in found:
            both = f"{found[point.name].value}, {point.value}"
            raise ConfigError([f"two packages provide the channel {point.name!r}: {both}"])
        found[point.name] = point
    used = {name for newsletter in settings.newsletters.values() for name in newsletter.channels}
    wanted = sorted(used.union(also))
    if unknown := [name for name in wanted if name not in found]:
        there = ", ".join(sorted(found))
        raise ConfigError([f"no channel is called {name!r}; there are: {there}" for name in unknown])
    return {name: found[name].load()(settings) for name in wanted}
