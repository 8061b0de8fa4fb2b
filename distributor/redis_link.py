"""Redis for those who can do without: asked quickly, left alone for a while when it does not answer."""

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

log = logging.getLogger(__name__)
Answer = TypeVar("Answer")

#: After Redis failed, a process goes on without it for so many seconds before one thread asks again: a frozen server
#: costs the asking thread a whole timeout.
AWAY = 10.0


def open_redis(url: str) -> Redis:
    """A client that fails fast; connects to nothing yet."""
    return Redis.from_url(
        url,
        socket_timeout=2,
        socket_connect_timeout=2,
        retry=Retry(NoBackoff(), 0),  # a second try might count twice, and costs another timeout
        health_check_interval=25,
    )


class RedisLink:
    """For the threads of one process. `alone` is logged when it begins to go on without Redis."""

    def __init__(self, alone: str) -> None:
        self._alone = alone
        self._lock = threading.Lock()
        self._ask_at = 0.0  # 0.0: Redis is there

    def ask(self, question: Callable[[], Answer]) -> Answer | None:
        """Redis' answer; None when it is away."""
        if self._ask_at and not self._my_turn():
            return None
        try:
            answer = question()
        except RedisError as error:
            if not self._ask_at:
                log.warning("%s: Redis does not answer: %s", self._alone, error)
            self._ask_at = time.monotonic() + AWAY
            return None
        self._ask_at = 0.0
        return answer

    def _my_turn(self) -> bool:
        """One thread asks whether Redis is back; the others go on without it meanwhile."""
        with self._lock:
            now = time.monotonic()
            if mine := now >= self._ask_at:
                self._ask_at = now + AWAY
            return mine
