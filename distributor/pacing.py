"""Shared rate limits: how long to wait before the next send, and what is blocked until when.

GCRA (the "virtual scheduling" leaky bucket of ITU-T I.371): each limit keeps one number, the theoretical arrival time.
In memory for one process, in Redis for many; the same arithmetic in both.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from redis import Redis
from redis.exceptions import RedisError

#: A key without a rate of its own: it matters only while a provider's "wait" blocks it.
UNLIMITED = 1e6
#: Seconds that count as no wait: below the clocks' resolution, and what adding up fractions leaves behind.
NOTHING = 1e-6
#: After Redis failed, a process paces itself for so many seconds before it asks again: each asking may take seconds.
AWAY = 5.0


@dataclass(frozen=True)
class Limit:
    """`rate` permits a second for `key`, of which `burst` may be taken at once."""

    key: str
    rate: float
    burst: int = 1

    @property
    def interval(self) -> float:
        """Seconds between two permits."""
        return 1 / self.rate


class Pacer(Protocol):
    """Hands out permits to every worker that shares it."""

    def reserve(self, limits: Sequence[Limit]) -> float:
        """Takes one permit of every limit and returns 0.0, or takes none and returns the seconds to wait."""

    def block(self, key: str, seconds: float) -> None:
        """Nothing with this key goes for that long: a provider asked us to wait. The longer wait wins."""


class MemoryPacer:
    """Permits for the threads of one process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._arrival: dict[str, float] = {}
        self._blocked: dict[str, float] = {}
        self._lock = threading.Lock()

    def reserve(self, limits: Sequence[Limit]) -> float:
        with self._lock:
            now = self._clock()
            if (wait := max((self._free_at(limit) - now for limit in limits), default=0.0)) > NOTHING:
                return wait
            for limit in limits:
                self._arrival[limit.key] = max(self._arrival.get(limit.key, 0.0), now) + limit.interval
            return 0.0

    def block(self, key: str, seconds: float) -> None:
        with self._lock:
            self._blocked[key] = max(self._blocked.get(key, 0.0), self._clock() + seconds)

    def _free_at(self, limit: Limit) -> float:
        """A block stands beside the arrival time: a burst shortens the wait for a permit, never a block."""
        paced = self._arrival.get(limit.key, 0.0) - (limit.burst - 1) * limit.interval
        return max(paced, self._blocked.get(limit.key, 0.0))


class RedisPacer:
    """Permits for all processes on one Redis. When Redis is away, each process paces itself at rate ÷ `workers`."""

    #: KEYS: each limit's arrival time, then each one's block; ARGV: interval and burst of each. Redis' own clock, so
    #: that hosts need not agree.
    RESERVE = """
        local clock = redis.call('TIME')
        local now = clock[1] + clock[2] / 1000000
        local wait = 0
        local limits = #KEYS / 2
        for i = 1, limits do
            local arrival = tonumber(redis.call('GET', KEYS[i]) or 0)
            local blocked = tonumber(redis.call('GET', KEYS[limits + i]) or 0)
            wait = math.max(wait, arrival - (ARGV[2 * i] - 1) * ARGV[2 * i - 1] - now, blocked - now)
        end
        if wait > 0.000001 then return tostring(wait) end
        for i = 1, limits do
            local arrival = math.max(tonumber(redis.call('GET', KEYS[i]) or 0), now) + ARGV[2 * i - 1]
            redis.call('SET', KEYS[i], string.format('%.6f', arrival), 'EX', math.ceil(arrival - now) + 60)
        end
        return '0'
    """
    BLOCKED = ":blocked"
    BLOCK = """
        local clock = redis.call('TIME')
        local blocked = clock[1] + clock[2] / 1000000 + ARGV[1]
        if blocked > tonumber(redis.call('GET', KEYS[1]) or 0) then
            redis.call('SET', KEYS[1], string.format('%.6f', blocked), 'EX', math.ceil(ARGV[1]) + 60)
        end
    """

    def __init__(self, redis: "Redis", *, prefix: str = "distributor:pace:", workers: int = 2) -> None:
        self._reserve = redis.register_script(self.RESERVE)
        self._block = redis.register_script(self.BLOCK)
        self._prefix, self._workers = prefix, workers
        self._alone = MemoryPacer()
        self._away_until = 0.0

    def reserve(self, limits: Sequence[Limit]) -> float:
        if not limits:
            return 0.0
        if self._away:
            return self._reserve_share(limits)
        keys = [self._prefix + limit.key for limit in limits]
        keys += [key + self.BLOCKED for key in keys]
        arguments = [number for limit in limits for number in (limit.interval, limit.burst)]
        try:
            return float(self._reserve(keys=keys, args=arguments))
        except RedisError:
            self._away_until = time.monotonic() + AWAY
            return self._reserve_share(limits)

    def block(self, key: str, seconds: float) -> None:
        self._alone.block(key, seconds)
        if self._away:
            return
        try:
            self._block(keys=[self._prefix + key + self.BLOCKED], args=[seconds])
        except RedisError:
            self._away_until = time.monotonic() + AWAY

    @property
    def _away(self) -> bool:
        return time.monotonic() < self._away_until

    def _reserve_share(self, limits: Sequence[Limit]) -> float:
        return self._alone.reserve([Limit(limit.key, limit.rate / self._workers) for limit in limits])
