"""What the workers of an Official Account share: its token, and what it was given before (pictures, covers, jobs).

A text by key, with a time to live, and a lock. In memory for one process; on Redis for many, where it is the "one
holder" that WeChat asks for.
"""

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from redis import Redis

log = logging.getLogger(__name__)

PREFIX = "distributor:"
#: Longer than the calls that are made under a lock, shorter than anybody's patience.
LOCK_HELD = 60.0


class SharedStore(Protocol):
    """A shared memory. It may forget at any time: what is asked for anew must be harmless."""

    def get(self, key: str, /) -> str | None:
        """None when it is not there, or when nobody can tell."""

    def set(self, key: str, value: str, lasts: timedelta, /) -> None: ...

    def lock(self, key: str, /) -> AbstractContextManager[None]:
        """One holder at a time; while the store is away, everybody holds it."""


class MemoryStore:
    """For one process; thread-safe."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._values: dict[str, tuple[str, float]] = {}
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def get(self, key: str, /) -> str | None:
        with self._guard:
            value, until = self._values.get(key, ("", 0.0))
            return value if time.monotonic() < until else None

    def set(self, key: str, value: str, lasts: timedelta, /) -> None:
        now = time.monotonic()
        with self._guard:
            self._values = {name: kept for name, kept in self._values.items() if kept[1] > now}
            self._values[key] = value, now + lasts.total_seconds()

    @contextmanager
    def lock(self, key: str, /) -> Iterator[None]:
        with self._guard:
            lock = self._locks[key]
        with lock:
            yield


class RedisStore:
    """For many processes. While Redis is away it remembers nothing: stable_token then answers everybody the same."""

    def __init__(self, redis: "Redis") -> None:
        self._redis = redis

    def get(self, key: str, /) -> str | None:
        from redis.exceptions import RedisError  # noqa: PLC0415 - 0.2 s that only a broker needs

        try:
            value = self._redis.get(PREFIX + key)
        except RedisError as error:
            log.warning("wechat_store away: %s", type(error).__name__)
            return None
        return value.decode() if isinstance(value, bytes) else None

    def set(self, key: str, value: str, lasts: timedelta, /) -> None:
        from redis.exceptions import RedisError  # noqa: PLC0415 - likewise

        with suppress(RedisError):
            self._redis.set(PREFIX + key, value, px=max(int(lasts.total_seconds() * 1000), 1))

    @contextmanager
    def lock(self, key: str, /) -> Iterator[None]:
        from redis.exceptions import RedisError  # noqa: PLC0415 - likewise

        lock = self._redis.lock(f"{PREFIX}{key}:lock", timeout=LOCK_HELD, blocking_timeout=LOCK_HELD)
        held = False
        with suppress(RedisError):
            held = lock.acquire()
        try:
            yield
        finally:
            with suppress(RedisError):  # it may have run out meanwhile; then it is another's
                if held:
                    lock.release()


def open_store(broker: str) -> SharedStore:
    """The store behind the broker's URL; without one, this process's memory."""
    if not broker:
        return MemoryStore()
    from distributor.redis_link import open_redis  # noqa: PLC0415 - likewise

    return RedisStore(open_redis(broker))
