"""When a form was shown, signed, so that nobody can say it was earlier."""

import hashlib
import hmac
import re
import time
from collections.abc import Callable

SHAPE = re.compile(r"([0-9a-f]{1,12})\.([0-9a-f]{32})")


class Seals:
    """Seals of one secret. They are bound to no network: a telephone changes it between two pages."""

    def __init__(self, secret: Callable[[], bytes], clock: Callable[[], float] = time.time) -> None:
        self._secret, self._clock = secret, clock

    def new(self) -> str:
        moment = f"{round(self._clock() * 1000):x}"
        return f"{moment}.{self._sign(moment)}"

    def age(self, seal: str) -> float | None:
        """Seconds since the form was shown; None when that is no seal of ours."""
        found = SHAPE.fullmatch(seal)
        if found is None or not hmac.compare_digest(found[2], self._sign(found[1])):
            return None
        return self._clock() - int(found[1], 16) / 1000

    def _sign(self, moment: str) -> str:
        return hmac.new(self._secret(), f"seal {moment}".encode(), hashlib.sha256).hexdigest()[:32]
