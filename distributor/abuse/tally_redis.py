"""What all web processes share on one Redis: counts (limits' moving windows) and marks."""

import time
from collections.abc import Callable, Collection

from limits.storage import RedisStorage
from limits.strategies import MovingWindowRateLimiter
from redis import Redis

from distributor.abuse.tally import MemoryTally, cost_of, item_of
from distributor.redis_link import RedisLink

PREFIX = "distributor:signup"


class RedisTally:
    """While Redis is away each process goes on by itself, from what it has seen: a limit never opens.

    Then an installation of n web processes lets in n times as much at the most, and a proof is good once in each
    (and once more when Redis is back).
    """

    def __init__(self, redis: Redis, link: RedisLink, clock: Callable[[], float] = time.time) -> None:
        self._redis, self._link = redis, link
        storage = RedisStorage("redis://", connection_pool=redis.connection_pool, key_prefix=PREFIX)
        self._windows = MovingWindowRateLimiter(storage)
        self._own = MemoryTally(clock)

    def hit(self, rate: str, key: str, cost: int = 1) -> bool:
        item = item_of(rate)
        shared = self._link.ask(lambda: self._windows.hit(item, key, cost=cost_of(item, cost)))
        # What Redis lets in is counted here as well, should it go; what it refuses is not counted anywhere.
        return False if shared is False else self._own.hit(rate, key, cost) or shared is True

    def wait(self, rate: str, key: str, cost: int = 1) -> float:
        """As `Tally` has it; with a `cost` above 1, no later than that: Redis tells the oldest hit alone."""
        item = item_of(rate)
        shared = self._link.ask(lambda: self._windows.get_window_stats(item, key))
        if shared is None:
            return self._own.wait(rate, key, cost)
        room = shared.remaining >= cost_of(item, cost)
        return 0.0 if room else max(shared.reset_time - self._own.now(), 0.0)

    def mark(self, key: str, seconds: float) -> bool:
        name, lasts = f"{PREFIX}:{key}", max(int(seconds * 1000), 1)
        # GET besides SET tells who came first, in one step.
        shared = self._link.ask(lambda: [self._redis.set(name, 1, px=lasts, get=True)])
        new = self._own.mark(key, seconds)  # should Redis go
        return new if shared is None else shared == [None]

    def marked(self, keys: Collection[str]) -> bool:
        names = [f"{PREFIX}:{key}" for key in keys]
        shared = self._link.ask(lambda: self._redis.mget(names))
        return self._own.marked(keys) or any(shared or ())
