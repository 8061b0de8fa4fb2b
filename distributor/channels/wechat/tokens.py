"""An account's access token: one holder for all workers, kept until shortly before it ends.

Only `stable_token` is used: it answers everybody with the same token, while `/cgi-bin/token` ends the one that others
hold. A token is forced anew at most once for a refusal, only by whoever still finds the refused one in the store, and never
within 30 s of the last time (WeChat allows 20 a day).
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from distributor.channels.wechat.store import SharedStore
from distributor.errors import Kind, Scope, Unavailable

#: WeChat renews a token from 5 min before its end; both hold for that time.
BEFORE_THE_END = 300
#: So that the workers' tokens do not all run out in the same second.
JITTER = 60
SHORTEST = 10
FORCED_EVERY = timedelta(seconds=30)

NOT_FORCED = (
    "WeChat refuses the token and gives no other. It was not forced to: nobody remembers whether another worker has just done "
    "that, and each time ends the others' token. If this comes again, Redis is away: see the log for `wechat_store away`"
)


@dataclass(frozen=True)
class Token:
    """What stable_token answered; `lasts` in seconds."""

    value: str
    lasts: int


#: Asks WeChat; the argument is `force_refresh`. Raises SendError.
Ask = Callable[[bool], Token]


class Tokens:
    """The token of one account."""

    def __init__(self, store: SharedStore, appid: str, ask: Ask) -> None:
        self._store, self._ask = store, ask
        self._key, self._forced = f"wechat:{appid}:token", f"wechat:{appid}:forced"

    def current(self) -> str:
        """Raises SendError."""
        if token := self._store.get(self._key):
            return token
        with self._store.lock(self._key):
            return self._store.get(self._key) or self._keep(self._ask(False))

    def instead_of(self, refused: str) -> str:
        """Another token than the one WeChat has refused. Raises SendError."""
        with self._store.lock(self._key):
            known = self._store.get(self._key)
            if known and known != refused:
                return known  # another worker was faster
            plain = self._ask(False)
            self._keep(plain)
            if plain.value != refused:
                return plain.value
            if known is None:
                raise Unavailable(text=NOT_FORCED, kind=Kind.CONFIG, scope=Scope.CHANNEL, counts=False)
            return self._keep(self._force())

    def _force(self) -> Token:
        if self._store.get(self._forced):
            raise Unavailable(
                text="WeChat has just been asked for a new token, and refuses that one too",
                kind=Kind.THROTTLE,
                counts=False,
                retry_after=FORCED_EVERY,
            )
        self._store.set(self._forced, "1", FORCED_EVERY)
        return self._ask(True)

    def _keep(self, token: Token) -> str:
        lasts = token.lasts - BEFORE_THE_END - random.uniform(0, JITTER)  # noqa: S311 - no secret
        self._store.set(self._key, token.value, timedelta(seconds=max(lasts, SHORTEST)))
        return token.value
