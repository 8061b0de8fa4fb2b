"""Alarms: while one lasts, whom it concerns must bring a proof of work, and has lower limits."""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from distributor.abuse.tally import Tally
from distributor.settings import AbuseSettings

#: Tells the operator: key (told once), subject, body, as `Alerts.tell` has it.
Tell = Callable[[str, str, str], object]


class Watched(NamedTuple):
    """Attempts that are counted together: up to `rate`, there is no alarm.

    `told` is what the operator is told of it, if anything: one reader who presses the button three times is no news.
    """

    key: str
    rate: str
    told: str = ""


class Alarms:
    """Raised by too many attempts, kept up by each one that is too many, gone by themselves."""

    def __init__(
        self, settings: AbuseSettings, tally: Tally, tell: Tell, clock: Callable[[], float] = time.time
    ) -> None:
        self._mode, self._lasts = settings.attack_mode, settings.alarm_lasts
        self._tally, self._tell, self._clock = tally, tell, clock

    def on(self, watched: Sequence[Watched]) -> bool:
        """Whether there is an alarm for one of these."""
        if self._mode == "auto":
            return self._tally.marked([_mark(each) for each in watched])
        return self._mode == "on"

    def count(self, watched: Sequence[Watched]) -> bool:
        """Counts an attempt for each of these; whether one of them has an alarm by now that has just been found."""
        if self._mode != "auto":
            return False
        excess = [each for each in watched if not self._tally.hit(each.rate, each.key)]
        for each in excess:
            self._raise(each)
        return bool(excess)

    def _raise(self, watched: Watched) -> None:
        new = self._tally.mark(_mark(watched), self._lasts.total_seconds())
        if new and watched.told:
            day = datetime.fromtimestamp(self._clock(), UTC).date()
            self._tell(f"signup-attack:{day}", SUBJECT, BODY.format(what=watched.told, lasts=self._lasts))


SUBJECT = "Sign-up: many attempts; a proof of work is asked for now"
BODY = """\
There were {what}.

Whoever signs up there must let the browser do a proof of work now, and has lower limits. Nothing is needed from you: it
ends by itself, {lasts} after the last attempt that was too many. More of the kind is not told today.

To ask for it always, or never: signup.abuse.attack_mode in config/distributor.toml. How many are too many: alarm_network
and alarm_overall, beside it.
"""


def _mark(watched: Watched) -> str:
    return f"alarm:{watched.key}"
