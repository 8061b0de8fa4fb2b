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
        self._lock = threading.Lock()

    def reserve(self, limits: Sequence[Limit]) -> float:
        with self._lock:
            now = self._clock()
            waits = [
                self._arrival.get(limit.key, 0.0) - (limit.burst - 1) * limit.interval - now
                for limit in limits
            ]
            if (wait := max(waits, default=0.0)) > 0:
                return wait
            for limit in limits:
                self._arrival[limit.key] = max(self._arrival.get(limit.key, 0.0), now) + limit.interval
            return 0.0

    def block(self, key: str, seconds: float) -> None:
        with self._lock:
            self._arrival[key] = max(self._arrival.get(key, 0.0), self._clock() + seconds)


class RedisPacer:
    """Permits for all processes on one Redis. When Redis is away, each process paces itself at rate ÷ `workers`."""

    #: KEYS: one a limit; ARGV: interval and burst of each. Redis' own clock, so that hosts need not agree.
    RESERVE = """
        local clock = redis.call('TIME')
        local now = clock[1] + clock[2] / 1000000
        local wait = 0
        for i, key in ipairs(KEYS) do
            local arrival = tonumber(redis.call('GET', key) or 0)
            wait = math.max(wait, arrival - (ARGV[2 * i] - 1) * ARGV[2 * i - 1] - now)
        end
        if wait > 0 then return tostring(wait) end
        for i, key in ipairs(KEYS) do
            local arrival = math.max(tonumber(redis.call('GET', key) or 0), now) + ARGV[2 * i - 1]
            redis.call('SET', key, string.format('%.6f', arrival), 'EX', math.ceil(arrival - now) + 60)
        end
        return '0'
    """
    BLOCK = """
        local clock = redis.call('TIME')
        local arrival = clock[1] + clock[2] / 1000000 + ARGV[1]
        if arrival > tonumber(redis.call('GET', KEYS[1]) or 0) then
            redis.call('SET', KEYS[1], string.format('%.6f', arrival), 'EX', math.ceil(ARGV[1]) + 60)
        end
    """

    def __init__(self, redis: "Redis", *, prefix: str = "distributor:pace:", workers: int = 2) -> None:
        self._reserve = redis.register_script(self.RESERVE)
        self._block = redis.register_script(self.BLOCK)
        self._prefix, self._workers = prefix, workers
        self._alone = MemoryPacer()

    def reserve(self, limits: Sequence[Limit]) -> float:
        if not limits:
            return 0.0
        keys = [self._prefix + limit.key for limit in limits]
        arguments = [number for limit in limits for number in (limit.interval, limit.burst)]
        try:
            return float(self._reserve(keys=keys, args=arguments))
        except RedisError:
            return self._alone.reserve([Limit(limit.key, limit.rate / self._workers) for limit in limits])

    def block(self, key: str, seconds: float) -> None:
        self._alone.block(key, seconds)
        try:
            self._block(keys=[self._prefix + key], args=[seconds])
        except RedisError:
            return
