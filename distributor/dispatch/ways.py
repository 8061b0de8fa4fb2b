"""Ways out: which relay carries a recipient, over which connection, at which pace.

A lane keeps its connections for each relay it uses. Relays are chosen anew for each chunk, by weight; one that is down or
has used up its day is passed over, and the others carry its share.
"""

import logging
import math
import select
import time
from collections.abc import Collection, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import timedelta

from distributor.channels import Channel, Overlapping, Transport
from distributor.dispatch.engine import Engine
from distributor.errors import DistributorError, Scope, SendError, ServiceDown, Unavailable, frames_of
from distributor.model import Recipient, Relay
from distributor.pacing import Grant, Limit

log = logging.getLogger(__name__)

#: A relay whose day is used up is looked at again after this: the cap may have been raised.
CAP_WAIT = timedelta(minutes=10)
#: Seconds that a permit may be used before its time, and who is late by less catches up: a sleep costs more than a mail.
PERMIT_EARLY = 0.002


class NoWay(Exception):
    """No relay may carry this recipient now; `wait` says when one may."""

    def __init__(self, wait: timedelta) -> None:
        self.wait = wait
        super().__init__(f"no relay for {wait}")


class Connection:
    """An open transport, and what a lane does with it."""

    def __init__(self, transport: Transport, closing: ExitStack) -> None:
        """`closing` ends it."""
        self.transport, self.closing = transport, closing
        self.overlapping = transport if isinstance(transport, Overlapping) else None
        #: An answer is awaited.
        self.busy = False
        #: It has announced somebody, and is kept for them.
        self.promised = False
        #: Seconds that its last message took.
        self.took = 0.0

    @property
    def is_free(self) -> bool:
        return not (self.busy or self.promised)


def first_answered(awaited: Collection[Connection], seconds: float = math.inf) -> Connection | None:
    """The first of those whose answer is there, or comes within so many seconds; else None.

    When the patience with one is over before any answers, it is that one, which was the first to leave.
    """
    for connection in awaited:
        if connection.overlapping and connection.overlapping.has_answer():
            return connection
    by_file: dict[int, Connection] = {}
    poll, patience = select.poll(), math.inf
    for connection in awaited:
        if connection.overlapping:
            patience = min(patience, connection.overlapping.patience())
            by_file[connection.overlapping.fileno()] = connection
    for file in by_file:
        poll.register(file, select.POLLIN)
    if found := poll.poll(min(seconds, patience) * 1000):
        return by_file[found[0][0]]
    return next(iter(awaited)) if patience <= seconds else None


@dataclass(eq=False)
class Way:
    """A relay's connections, the limits of those who go this way, and the permits in hand for them.

    The next permit is for `next_at` (time.monotonic) or later, the others follow every `interval` seconds.
    """

    relay: Relay
    connections: Sequence[Connection]
    limits: Sequence[Limit]
    permits: int = 0
    interval: float = 0.0
    next_at: float = 0.0

    def granted(self, grant: Grant, asked_at: float) -> None:
        """Adds to those in hand, which then go as slowly."""
        next_at, interval = asked_at + grant.wait if grant.wait else 0.0, grant.interval
        if self.permits:
            next_at, interval = max(next_at, self.next_at), max(interval, self.interval)
        self.permits, self.next_at, self.interval = self.permits + grant.permits, next_at, interval

    @property
    def transport(self) -> Transport:
        """Its first."""
        return self.connections[0].transport

    @property
    def free(self) -> int:
        """Connections that carry nothing and have announced nobody."""
        number = 0
        for connection in self.connections:
            number += connection.is_free
        return number

    @property
    def promised(self) -> int:
        """Connections that have announced somebody."""
        number = 0
        for connection in self.connections:
            number += connection.promised
        return number

    @property
    def has_spare(self) -> bool:
        """Whether there is a permit that is not for one who is announced."""
        return self.permits > len(self.connections) or self.permits > self.promised

    def use_permit(self) -> float:
        """Takes one permit when its time has come (0.0), or tells the seconds until then."""
        if self.next_at:
            now = time.monotonic()
            early = self.next_at - now
            if early > PERMIT_EARLY:
                return early
            # Who is later than that does not catch up: a provider counts what comes close together.
            self.next_at = max(self.next_at, now - PERMIT_EARLY) + self.interval
        self.permits -= 1
        return 0.0


class Ways:
    """The ways of one lane. `width`: how many connections it may have to a relay."""

    def __init__(self, engine: Engine, channel: Channel, stack: ExitStack, width: int = 1) -> None:
        self.engine, self.channel = engine, channel
        self._stack, self._width = stack, width
        self._connections: dict[str, list[Connection]] = {}
        #: Of no use any more; their last answers may still be on their way. Closed before new ones are opened.
        self._dropped: dict[str, list[Connection]] = {}
        #: Relays that take no further connection.
        self._enough: set[str] = set()
        self._by_group: dict[str, Way] = {}
        self._proved: set[str] = set()
        #: The relay that was chosen last: the one whose connection could not be opened.
        self.last_tried = channel.relays[0]

    def choose_anew(self) -> None:
        """For a new chunk. Permits that were not used are few, and lost: the pace stays below what is allowed."""
        for way in self._by_group.values():
            self.give_up_permits(way)
        self._by_group.clear()

    def find(self, recipient: Recipient) -> Way:
        """Raises NoWay, and SendError when a connection cannot be opened."""
        group = self.channel.pace_group(recipient)
        way = self._by_group.get(group)
        if way is None:
            relay = self.last_tried = self._choose(recipient)
            limits = self.channel.limits(recipient, relay.name)
            way = self._by_group[group] = Way(relay, self._connected(relay), limits)
        return way

    def widen(self, way: Way, wanted: int, until: float) -> None:
        """Opens further connections, as many as are wanted and allowed, and none after `until` (time.monotonic).

        A relay that refuses one is not asked again.
        """
        name = way.relay.name
        connections = self._connections[name]
        wanted = min(wanted, self._width)
        while len(connections) < wanted and name not in self._enough and time.monotonic() < until:
            try:
                connections.append(self._opened(way.relay))
            except SendError as error:
                log.info("no_further_connection relay=%s open=%s %s", name, len(connections), error)
                self._enough.add(name)

    def drop(self, relay: Relay) -> None:
        """Its connections are of no use any more; those whose answers are out can still be read."""
        self._dropped.setdefault(relay.name, []).extend(self._connections.pop(relay.name, ()))
        self._proved.discard(relay.name)
        for name, way in list(self._by_group.items()):
            if way.relay == relay:
                self.give_up_permits(way)
                del self._by_group[name]

    def within_cap(self, way: Way, permits: int) -> int:
        """How many of the permits the relay's daily cap leaves."""
        cap = way.relay.daily_cap
        if not cap:
            return permits
        return self.engine.ledger.take_allowance(key(self.channel, way.relay), cap, permits)

    def give_up_permits(self, way: Way) -> None:
        """What was taken of a daily cap goes back; the pace is only slower without the others."""
        if way.relay.daily_cap and way.permits:
            with suppress(ServiceDown):  # a few less for today
                self.engine.ledger.return_allowance(key(self.channel, way.relay), way.permits)
        way.permits = 0

    def stop_name(self, relay: Relay) -> str:
        """Under which name a stop of this relay is kept: the channel's own when it is the only one."""
        return stop_name(self.channel, relay)

    def works(self, relay: Relay) -> bool:
        """True the first time in this lane: asking the database once whether a stop is over is enough.

        An answer that was under way when its relay was dropped proves nothing.
        """
        if relay.name in self._proved or relay.name not in self._connections:
            return False
        self._proved.add(relay.name)
        return True

    def _choose(self, recipient: Recipient) -> Relay:
        relays = relays_for(self.channel, recipient)
        if len(self.channel.relays) == 1 and not relays[0].daily_cap:
            return relays[0]  # a stop of it is one of the channel, and nobody gets a chunk then
        stopped = self.engine.ledger.waits([stop_name(self.channel, relay) for relay in relays])
        full = self.engine.ledger.full_relays({key(self.channel, relay): relay.daily_cap for relay in relays})
        usable = [
            relay
            for relay in relays
            if stop_name(self.channel, relay) not in stopped and key(self.channel, relay) not in full
        ]
        if not usable:
            raise NoWay(min([*stopped.values(), CAP_WAIT]))
        return _by_weight(usable, self.engine.random())

    def _connected(self, relay: Relay) -> Sequence[Connection]:
        if relay.name not in self._connections:
            for connection in self._dropped.pop(relay.name, ()):
                connection.closing.close()
            self._connections[relay.name] = [self._opened(relay)]
        return self._connections[relay.name]

    def _opened(self, relay: Relay) -> Connection:
        """Nothing is handed over yet: what is no error of ours stops the channel, as any trouble with a connection does."""
        closing = ExitStack()
        try:
            transport = closing.enter_context(self.channel.open(relay.name))
        except DistributorError:
            raise
        except Exception as error:
            name, place = type(error).__name__, f"channel={self.channel.name} relay={relay.name}"
            log.error("transport_bug %s %s\n%s", place, name, frames_of(error))  # noqa: TRY400 - it may quote a secret
            text = f"no connection opens: the transport met a bug ({name}); see the log"
            raise Unavailable(text=text, scope=Scope.CHANNEL, counts=False) from None
        self._stack.callback(closing.close)
        return Connection(transport, closing)


def relays_for(channel: Channel, recipient: Recipient) -> Sequence[Relay]:
    """Those that are there for the recipient's domain; else those that carry everybody."""
    domain = recipient.address.rpartition("@")[2]
    routed = [relay for relay in channel.relays if domain in relay.domains]
    return routed or [relay for relay in channel.relays if not relay.domains]


def key(channel: Channel, relay: Relay) -> str:
    """A relay's name among those of all channels."""
    return f"{channel.name}/{relay.name}"


def stop_name(channel: Channel, relay: Relay) -> str:
    """The channel's own name when it has one relay: then a stop of it is a stop of the channel."""
    return channel.name if len(channel.relays) == 1 else key(channel, relay)


def stop_names(channel: Channel) -> Sequence[str]:
    """The names of the stops of all its relays."""
    return [stop_name(channel, relay) for relay in channel.relays]


def _by_weight(relays: Sequence[Relay], draw: float) -> Relay:
    """`draw` in [0, 1) falls onto one of the relays laid end to end."""
    mark = draw * sum(relay.weight for relay in relays)
    for relay in relays:
        mark -= relay.weight
        if mark < 0:
            return relay
    return relays[-1]
