"""What is remembered of attempts: how many there were in a time, and marks that go by themselves.

Here for one process, in tally_redis.py for many.
"""

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Collection
from functools import lru_cache
from typing import Any, Protocol

from limits import RateLimitItem, parse


class Tally(Protocol):
    """Counts and marks, by key. Never raises, never answers "yes" because it could not look."""

    def hit(self, rate: str, key: str, cost: int = 1) -> bool:
        """Counts `cost` for the key, if the rate ("20/hour") has room for it; False, and nothing counted, if not.

        A cost above the whole rate counts as the whole rate.
        """

    def wait(self, rate: str, key: str, cost: int = 1) -> float:
        """Seconds until the rate has room for it; 0.0: now."""

    def mark(self, key: str, seconds: float) -> bool:
        """Marks the key for so long from now on. False when it was marked already."""

    def marked(self, keys: Collection[str]) -> bool:
        """Whether one of the keys is marked."""


item_of = lru_cache(maxsize=64)(parse)


def cost_of(item: RateLimitItem, cost: int) -> int:
    return min(cost, item.amount)


class MemoryTally:
    """For the threads of one process: a moving window a key, exact.

    limits' own MemoryStorage keeps a list and a lock of every key it ever saw: 60,000 stayed of 60,000 (limits 5.8), and
    the keys are an attacker's choice. Here, the longest unused go when there are KEYS of them: some 30 MB.
    """

    KEYS = 50_000

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.now = clock
        self._hits: OrderedDict[str, deque[float]] = OrderedDict()
        self._marks: OrderedDict[str, float] = OrderedDict()
        self._lock = threading.Lock()

    def hit(self, rate: str, key: str, cost: int = 1) -> bool:
        item = item_of(rate)
        cost = cost_of(item, cost)
        with self._lock:
            now = self.now()
            hits = self._window(item, key, now)
            if len(hits) + cost > item.amount:
                return False
            hits.extend([now] * cost)
            return True

    def wait(self, rate: str, key: str, cost: int = 1) -> float:
        item = item_of(rate)
        with self._lock:
            now = self.now()
            hits = self._window(item, key, now)
            excess = len(hits) + cost_of(item, cost) - item.amount
            return hits[excess - 1] + item.get_expiry() - now if excess > 0 else 0.0

    def mark(self, key: str, seconds: float) -> bool:
        with self._lock:
            now = self.now()
            new = self._marks.pop(key, now) <= now
            self._marks[key] = now + seconds
            _keep(self._marks, self.KEYS)
            return new

    def marked(self, keys: Collection[str]) -> bool:
        with self._lock:
            now = self.now()
            return any(self._marks.get(key, now) > now for key in keys)

    def _window(self, item: RateLimitItem, key: str, now: float) -> deque[float]:
        name = item.key_for(key)
        hits = self._hits.setdefault(name, deque())
        self._hits.move_to_end(name)
        _keep(self._hits, self.KEYS)
        while hits and hits[0] <= now - item.get_expiry():
            hits.popleft()
        return hits


def _keep(some: OrderedDict[str, Any], most: int) -> None:
    while len(some) > most:
        some.popitem(last=False)
