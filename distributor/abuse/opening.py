"""The guard that the settings ask for."""

from collections.abc import Callable

from distributor.abuse.alarms import Tell
from distributor.abuse.guard import SignupGuard
from distributor.settings import Settings


def guard_of(settings: Settings, tell: Tell, secret: Callable[[], bytes]) -> SignupGuard:
    """A process's guard: on the broker's Redis, shared with all others; without a broker, in memory. Connects to nothing yet."""
    table, url = settings.signup.abuse, settings.broker.url.get_secret_value()
    if not url:
        return SignupGuard(table, secret=secret, tell=tell)
    from distributor.abuse.tally_redis import RedisTally  # noqa: PLC0415 - 0.2 s that only a broker needs
    from distributor.redis_link import RedisLink, open_redis  # noqa: PLC0415 - likewise

    redis, link = open_redis(url), RedisLink("signup_alone")
    return SignupGuard(table, RedisTally(redis, link), secret=secret, tell=tell)
