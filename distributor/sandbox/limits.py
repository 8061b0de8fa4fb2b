"""How much the real services take, and a memory of who sent how much."""

import threading
import time
from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Rate:
    """At most `count` messages in any `seconds`."""

    count: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the services allow. Sources: Telegram's Bots FAQ; WeCom's robot page (path/99110).

    "One a second into a chat, short bursts tolerated" is read as five in any five seconds.
    """

    telegram_bot: Rate = Rate(30, 1)
    telegram_chat: Rate = Rate(5, 5)
    telegram_group: Rate = Rate(20, 60)
    wecom_robot: Rate = Rate(20, 60)
    mail_bytes: int = 25 * 1024 * 1024


_ANY = Rate(1_000_000_000, 1)

#: For tests and rehearsals that are about something else than speed.
UNLIMITED = Limits(telegram_bot=_ANY, telegram_chat=_ANY, telegram_group=_ANY, wecom_robot=_ANY)


class Windows:
    """Sliding windows by key; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken: defaultdict[str, deque[float]] = defaultdict(deque)

    def take(self, rates: Mapping[str, Rate]) -> float:
        """Counts one message under every key and returns 0; or counts nothing and returns the seconds to wait."""
        now = time.monotonic()
        with self._lock:
            wait = max(self._wait(key, rate, now) for key, rate in rates.items())
            if wait <= 0:
                for key in rates:
                    self._taken[key].append(now)
            return max(wait, 0.0)

    def _wait(self, key: str, rate: Rate, now: float) -> float:
        taken = self._taken[key]
        while taken and taken[0] <= now - rate.seconds:
            taken.popleft()
        return 0.0 if len(taken) < rate.count else taken[0] + rate.seconds - now
