"""The guard that the settings ask for."""

import hashlib
import secrets
from collections.abc import Callable

from distributor.abuse.alarms import Tell
from distributor.abuse.guard import SignupGuard
from distributor.settings import Settings


def guard_of(settings: Settings, tell: Tell) -> SignupGuard:
    """A process's guard: on the broker's Redis, shared with all others; without a broker, in memory. Connects to nothing yet."""
    table, url = settings.signup.abuse, settings.broker.url.get_secret_value()
    given = table.secret.get_secret_value()
    secret = hashlib.sha256(given.encode()).digest() if given else secrets.token_bytes(32)
    if not url:
        return SignupGuard(table, secret=lambda: secret, tell=tell)
    from distributor.abuse.tally_redis import RedisTally, SharedSecret  # noqa: PLC0415 - 0.2 s that only a broker needs
    from distributor.redis_link import RedisLink, open_redis  # noqa: PLC0415 - likewise

    redis, link = open_redis(url), RedisLink("signup_alone")
    agreed: Callable[[], bytes] = (lambda: secret) if given else SharedSecret(redis, link)
    return SignupGuard(table, RedisTally(redis, link), secret=agreed, tell=tell)
