"""Whether and when to try again: a pure function from an error to a decision.

Full jitter (a random wait between nothing and a ceiling that doubles) keeps retries of one bad moment from meeting
again in the next; the provider's own wait is a floor. Source: facts of the channels' error tables.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from distributor.errors import AwaitingPerson, Rejected, SendError, Unavailable, Unconfirmed
from distributor.model import DeliveryState
from distributor.settings import Retry

#: Returns a number in [0, 1).
Random = Callable[[], float]

#: An error that costs no try still waits this long at least: a tight loop would only make things worse.
SHORTEST_WAIT = timedelta(seconds=1)


@dataclass(frozen=True)
class Decision:
    """What becomes of a delivery after a failed attempt. `retry_in` is set exactly when the state is pending."""

    state: DeliveryState
    retry_in: timedelta | None = None
    counts: bool = True
    note: str = ""


def decide(
    error: SendError,
    *,
    tries: int,
    first_try_at: datetime,
    now: datetime,
    policy: Retry,
    on_unconfirmed: Literal["hold", "resend"],
    random: Random,
) -> Decision:
    """The next state of a delivery that has used up `tries` tries before this one."""
    if isinstance(error, AwaitingPerson) or (isinstance(error, Unconfirmed) and on_unconfirmed == "hold"):
        return Decision(DeliveryState.UNCONFIRMED)
    if isinstance(error, Rejected):
        return Decision(DeliveryState.FAILED)
    floor = error.retry_after if isinstance(error, Unavailable) else None
    if isinstance(error, Unavailable) and not error.counts:
        wait = floor if floor is not None else backoff(tries, policy, random)
        return Decision(DeliveryState.PENDING, max(wait, SHORTEST_WAIT), counts=False)
    if tries + 1 >= policy.tries:
        return Decision(DeliveryState.FAILED, note=f"gave up after {tries + 1} tries")
    wait = max(backoff(tries, policy, random), floor or SHORTEST_WAIT)
    if now + wait > first_try_at + policy.max_age:
        return Decision(DeliveryState.FAILED, note=f"gave up: older than {policy.max_age}")
    return Decision(DeliveryState.PENDING, wait)


def backoff(tries: int, policy: Retry, random: Random) -> timedelta:
    """Full jitter: random × min(longest, first × 2^tries)."""
    ceiling = min(policy.longest, policy.first * (1 << min(tries, 30)))
    return ceiling * random()
