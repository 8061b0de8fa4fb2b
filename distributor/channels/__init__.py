"""Channels: the two protocols, and the visible table of names.

A channel renders a post into messages and opens a transport that sends them. Built-in channels and those of other
packages enter by the same door, the entry-point group `distributor.channels`; a name that is taken stops the start.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from importlib.metadata import EntryPoint, entry_points
from typing import Protocol, runtime_checkable

from distributor.errors import ConfigError
from distributor.model import Message, Parcel, Post, Receipt, Recipient, Relay
from distributor.pacing import Limit
from distributor.settings import Newsletter, Settings

ENTRY_POINTS = "distributor.channels"
#: The pace group of those who have no limit of their own.
EVERYBODY = "all"


class Transport(Protocol):
    """One open connection, reused for many sends."""

    def send(self, parcel: Parcel, then: Parcel | None = None) -> Receipt:
        """Hands one part over.

        `then` is the parcel that the next call will send, where that is known: a transport may announce its envelope
        ahead, which saves a round trip, but its body goes only when `send` is called with it. Nothing of a parcel
        that was announced and never sent arrives, whatever is sent instead.
        `parcel.receipts` are those of the parts before this one; a receipt that is `whole` stands for all parts left.

        Raises:
            Rejected: the other side said no, for good.
            Unavailable: certainly not handed over; may be tried later.
            Unconfirmed: handed over, the answer was lost.
        """


@runtime_checkable
class Overlapping(Transport, Protocol):
    """A transport whose answer may be read later: meanwhile its lane hands over by others, instead of waiting."""

    def has_answer(self) -> bool:
        """Whether `finish` would return, or raise, at once."""

    def fileno(self) -> int:
        """What can be polled for the answer."""

    def patience(self) -> float:
        """Seconds for which the answer is still waited for; then `finish` raises at once."""

    def announce(self, parcel: Parcel) -> bool:
        """Announces what the next `start` will carry, while nothing else is; False: it cannot, and need not."""

    def start(self, parcel: Parcel, then: Parcel | None = None) -> None:
        """`send` without its answer, which `finish` reads before anything else is sent. Raises as `send` does."""

    def finish(self) -> Receipt:
        """The answer to what was started. Raises as `send` does."""


@runtime_checkable
class Channel(Protocol):
    """A medium: how a post looks on it, and how it gets there."""

    name: str
    #: Whether its transports are `Overlapping`: then a lane has several.
    overlaps: bool

    @property
    def relays(self) -> Sequence[Relay]:
        """The ways out; most channels have one, called like the channel."""

    def render(self, post: Post, newsletter: Newsletter) -> Sequence[Message]:
        """The messages of a post, by variant and part. Raises PostError when it cannot be sent well."""

    def destinations(self, newsletter: Newsletter) -> Sequence[Recipient]:
        """The fixed places of the configuration that get this newsletter."""

    def pace_groups(self) -> Mapping[str, Collection[str]]:
        """Group → recipient domains that share a limit or a route of their own, and get chunks of their own.

        All other recipients share the group EVERYBODY.
        """

    def pace_group(self, recipient: Recipient) -> str:
        """Recipients of one group share their limits and their relays."""

    def domain_key(self, recipient: Recipient, /) -> str:
        """Under which key a provider's "wait" for this recipient's domain is kept; empty when a limit covers it."""

    def limits(self, recipient: Recipient, relay: str, /) -> Sequence[Limit]:
        """The rates that a send to this recipient is subject to: first the relay's own, last its domain's, if any."""

    def open(self, relay: str, /) -> AbstractContextManager[Transport]:
        """Opens one connection. Raises Unavailable or Rejected (scope channel) when that fails."""


class OneWay:
    """What a channel with one way out, and no recipient domains, has in common with its like."""

    name: str
    overlaps = False

    @property
    def relays(self) -> Sequence[Relay]:
        return (Relay(name=self.name),)

    def pace_groups(self) -> Mapping[str, Collection[str]]:
        return {}

    def pace_group(self, recipient: Recipient) -> str:
        """A destination has limits of its own; private chats share theirs."""
        return f"to:{recipient.destination}" if recipient.destination else EVERYBODY

    def domain_key(self, _recipient: Recipient, /) -> str:
        return ""


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
