"""Shared rate limits: how many may go now, what is blocked until when, and how fast a provider lets us be.

GCRA (the "virtual scheduling" leaky bucket of ITU-T I.371): each key keeps one number, the theoretical arrival time.
A provider that says "too fast" halves the rate of its key, which then grows back by itself (AIMD's cousin).
In memory for one process, in Redis for many (pacing_redis.py); the same arithmetic in both, so a change is made twice.
"""

import math
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

#: A key without a rate of its own: it matters only while a provider's "wait" blocks it, and while it is slowed.
UNLIMITED = 1e6
#: Seconds that count as no wait: below the clocks' resolution, and what adding up fractions leaves behind.
NOTHING = 1e-6
#: Permits a second that no slow-down goes below: one in ten seconds still finds out that a wall has gone.
FLOOR = 0.1
#: Seconds in which a slowed rate doubles. Providers count by the minute, the stricter ones by a quarter of an hour
#: (163: `451 MI:SFQ`). Halved on each throttle and doubled in five minutes, a rate meets its wall once in five minutes
#: and stays at 72 % of what the provider allows on average; growing faster would buy little and ask for walls.
RECOVERY = 300.0
#: Seconds after which a slow-down is forgotten: by then the rate has doubled twelve times, from FLOOR to 400 a second.
FORGET = 12 * RECOVERY
#: Seconds over which permits are counted to see how fast a key is used.
WINDOW = 10.0
#: Seconds of silence after which what was seen says nothing any more. The sweeper wakes a channel every 15 to 30 s.
LATELY = 60.0
#: Throttle replies this many seconds after the first are the same wall, however short the provider's wait.
SAME_WALL = 1.0
#: Seconds of a learned rate that may be taken at once: enough for a caller that sleeps 20 ms and wakes late.
LEARNED_BURST = 0.1


@dataclass(frozen=True)
class Limit:
    """`rate` permits a second for `key`, of which `burst` may be taken at once.

    A caller that is late by more than `burst` permits' time loses the rest: for batches, rate × 0.1 s is a good burst.
    """

    key: str
    rate: float = UNLIMITED
    burst: int = 1


class Grant(NamedTuple):
    """`permits` to use from `wait` seconds on, one every `interval` seconds (0.0: all at once).

    None: `wait` is the time until there is one.
    """

    permits: int
    wait: float = 0.0
    interval: float = 0.0


class Pacer(Protocol):
    """Hands out permits to every worker that shares it.

    A caller that wakes late wastes what it could have used meanwhile, and with many callers each is late in its turn:
    who asks for permits `within` the next moments holds them in advance, and the pace loses nothing.
    """

    def reserve(self, limits: Sequence[Limit], permits: int = 1, *, within: float = 0.0) -> Grant:
        """Takes up to `permits` (1 or more) of every limit: as many as all allow now; else, those that come up `within`
        so many seconds, each to be used in its time; else none."""

    def blocked(self, keys: Collection[str]) -> Mapping[str, float]:
        """Those of the keys with which nothing may go now → for how many seconds."""

    def block(self, key: str, seconds: float) -> None:
        """Nothing with this key goes for that long: a provider asked us to wait. The longer wait wins."""

    def throttled(self, key: str, seconds: float) -> None:
        """A provider said "too fast": blocks the key, and halves the rate at which it was used, for the time after.

        Several replies from one wall count once. The rate doubles every RECOVERY seconds until it is what it was.
        """


class Pace(NamedTuple):
    """What a limit allows at this moment: seconds between two permits (0.0: any number), and the burst."""

    interval: float
    burst: float


UNPACED = Pace(0.0, 1.0)


@dataclass(slots=True)
class Usage:
    """What is remembered of a key. Times are the clock's."""

    arrival: float = -math.inf  # GCRA's theoretical arrival time
    blocked: float = -math.inf  # until then
    slowed: float = 0.0  # permits a second, after the last throttle
    since: float = -math.inf  # the last throttle's block ends, `slowed` begins to grow
    window: float = -math.inf  # permits are counted from then on
    count: int = 0
    before: float = 0.0  # permits a second in the window before

    def pace(self, limit: Limit, now: float) -> Pace:
        age = max(now - self.since, 0.0)
        unlimited = limit.rate >= UNLIMITED
        if age >= FORGET:
            return UNPACED if unlimited else Pace(1 / limit.rate, limit.burst)
        growing = max(FLOOR, min(self.slowed, limit.rate / 2) * 2 ** (age / RECOVERY))
        rate = min(limit.rate, growing)
        # A burst shrinks with its rate: the wall was met at the full one.
        return Pace(1 / rate, max(1.0, rate * (LEARNED_BURST if unlimited else limit.burst / limit.rate)))

    def available(self, pace: Pace, now: float, ahead: float = 0.0) -> float:
        """Permits that may be taken now or in the seconds `ahead`, as a whole number or infinity."""
        if self.blocked - now > NOTHING:
            return 0.0
        if not pace.interval:
            return math.inf
        backlog = max(self.arrival - now, 0.0)
        return math.floor(pace.burst + (NOTHING + ahead - backlog) / pace.interval)

    def missing(self, pace: Pace, now: float) -> float:
        """Seconds until one permit. A block stands beside the arrival time: a burst does not shorten it."""
        paced = self.arrival - (pace.burst - 1) * pace.interval if pace.interval else now
        return max(paced, self.blocked) - now

    def take(self, pace: Pace, permits: int, now: float) -> None:
        if pace.interval:
            self.arrival = max(self.arrival, now) + permits * pace.interval
        self.turn(now)
        self.count += permits

    def turn(self, now: float) -> None:
        """Begins a new window when the old one is over."""
        if (age := now - self.window) >= WINDOW:
            self.before = self.count / WINDOW if age < LATELY else 0.0
            self.window, self.count = now, 0

    def slow(self, seconds: float, now: float) -> None:
        if now < self.since:
            return
        self.turn(now)
        # The refused one was used in any case; what came in less than a second is taken for a second's.
        seen = max(self.before, max(self.count, 1) / max(now - self.window, 1.0))
        if (age := now - self.since) < FORGET:
            seen = min(seen, self.slowed * 2 ** (age / RECOVERY))
        self.slowed = max(FLOOR, seen / 2)
        # A rate that grew while nothing goes would be back at the wall when an hour's block ends.
        self.since = now + max(seconds, SAME_WALL)
        # The block is no silence: the window after it still knows what was seen.
        self.window, self.count, self.before = self.since - WINDOW, round(seen * WINDOW), 0.0

    def block(self, seconds: float, now: float) -> None:
        self.blocked = max(self.blocked, now + seconds)

    def idle(self, now: float) -> bool:
        """Forgetting it changes nothing."""
        return now > max(self.arrival, self.blocked, self.since + FORGET, self.window + LATELY)


class MemoryPacer:
    """Permits for the threads of one process."""

    #: Keys that are kept without looking for idle ones: recipient domains are many.
    KEYS = 1000

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._usage: dict[str, Usage] = {}
        self._room = self.KEYS
        self._lock = threading.Lock()

    def reserve(self, limits: Sequence[Limit], permits: int = 1, *, within: float = 0.0) -> Grant:
        with self._lock:
            now = self._clock()
            used = [self._of(limit.key, now) for limit in limits]
            paces = [usage.pace(limit, now) for usage, limit in zip(used, limits, strict=True)]
            paced = list(zip(used, paces, strict=True))
            missing = max([0.0, *(usage.missing(pace, now) for usage, pace in paced)])
            wait = missing if missing > NOTHING else 0.0
            begin, ahead = now + wait, max(within - wait, 0.0) if wait else 0.0
            granted = int(min([permits, *(usage.available(pace, begin, ahead) for usage, pace in paced)]))
            if granted < 1 or wait > within:
                return Grant(0, missing)
            spaced = [pace.interval for usage, pace in paced if usage.available(pace, begin) < granted]
            for usage, pace in paced:
                usage.take(pace, granted, begin)
            return Grant(granted, wait, max(spaced, default=0.0))

    def block(self, key: str, seconds: float) -> None:
        with self._lock:
            now = self._clock()
            self._of(key, now).block(seconds, now)

    def throttled(self, key: str, seconds: float) -> None:
        with self._lock:
            now = self._clock()
            usage = self._of(key, now)
            usage.slow(seconds, now)
            usage.block(seconds, now)

    def count(self, limits: Sequence[Limit], permits: int) -> None:
        """Somebody else granted these: they are seen, not paced."""
        with self._lock:
            now = self._clock()
            for limit in limits:
                self._of(limit.key, now).take(UNPACED, permits, now)

    def blocked(self, keys: Collection[str]) -> Mapping[str, float]:
        with self._lock:
            now = self._clock()
            known = {key: self._usage[key].blocked - now for key in keys if key in self._usage}
            return {key: wait for key, wait in known.items() if wait > NOTHING}

    def _of(self, key: str, now: float) -> Usage:
        if usage := self._usage.get(key):
            return usage
        if len(self._usage) >= self._room:
            self._usage = {name: usage for name, usage in self._usage.items() if not usage.idle(now)}
            self._room = max(self.KEYS, 2 * len(self._usage))
        return self._usage.setdefault(key, Usage())
