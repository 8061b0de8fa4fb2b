"""Decisions after a failed attempt, as a table."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distributor.errors import AwaitingPerson, Rejected, SendError, Unavailable, Unconfirmed
from distributor.model import DeliveryState
from distributor.retry import Decision, backoff, decide
from distributor.settings import Retry

NOW = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)
POLICY = Retry(tries=4, first=timedelta(minutes=1), longest=timedelta(minutes=10), max_age=timedelta(hours=1))
DOWN = Unavailable(text="try later")
FAILED, PENDING, UNCONFIRMED = DeliveryState.FAILED, DeliveryState.PENDING, DeliveryState.UNCONFIRMED


def wait(**units: float) -> Unavailable:
    return Unavailable(text="slow down", retry_after=timedelta(**units))


def free(retry_after: timedelta | None = None) -> Unavailable:
    return Unavailable(text="not your fault", retry_after=retry_after, counts=False)


def decided(
    error: SendError, tries: int = 0, age: timedelta = timedelta(), random: float = 0.5, policy: str = "hold"
) -> Decision:
    return decide(
        error,
        tries=tries,
        first_try_at=NOW - age,
        now=NOW,
        policy=POLICY,
        on_unconfirmed="hold" if policy == "hold" else "resend",
        random=lambda: random,
    )


@pytest.mark.parametrize(
    ("error", "tries", "random", "seconds"),
    [
        pytest.param(DOWN, 0, 0.5, 30, id="half of the first wait"),
        pytest.param(DOWN, 1, 0.5, 60, id="doubles"),
        pytest.param(DOWN, 2, 0.999, 239.76, id="and again, never the whole of it"),
        pytest.param(DOWN, 0, 0.0, 1, id="a second at least"),
        pytest.param(wait(seconds=90), 0, 0.5, 90, id="the provider's wait is a floor"),
        pytest.param(wait(seconds=5), 0, 0.5, 30, id="and only a floor"),
        pytest.param(wait(minutes=30), 2, 0.5, 1800, id="it may be longer than the longest"),
        pytest.param(Unconfirmed(text="lost"), 0, 0.5, 30, id="an unconfirmed one, by policy"),
    ],
)
def test_when_to_try_again(error: SendError, tries: int, random: float, seconds: float) -> None:
    found = decided(error, tries, random=random, policy="resend")
    assert found == Decision(PENDING, timedelta(seconds=seconds), counts=True)


@pytest.mark.parametrize(
    ("error", "tries", "age", "state", "note"),
    [
        pytest.param(Rejected(text="no"), 0, 0, FAILED, "", id="a refusal is for good"),
        pytest.param(Unconfirmed(text="lost"), 0, 0, UNCONFIRMED, "", id="hold what may have gone"),
        pytest.param(Unconfirmed(text="lost"), 9, 99, UNCONFIRMED, "", id="however often and old"),
        pytest.param(DOWN, 3, 0, FAILED, "gave up after 4 tries", id="the last try"),
        pytest.param(DOWN, 2, 0, PENDING, "", id="the last but one"),
        pytest.param(DOWN, 1, 60, FAILED, "gave up: older than 1:00:00", id="too old when it would be tried"),
        pytest.param(
            wait(minutes=61), 0, 0, FAILED, "gave up: older than 1:00:00", id="told to wait too long"
        ),
    ],
)
def test_what_becomes_of_it(
    error: SendError, tries: int, age: float, state: DeliveryState, note: str
) -> None:
    found = decided(error, tries, timedelta(minutes=age))
    assert (found.state, found.note) == (state, note)
    assert (found.retry_in is None) == (state is not PENDING)


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        pytest.param(free(), 30, id="without a wait it backs off"),
        pytest.param(free(timedelta(seconds=7)), 7, id="exactly the provider's wait"),
        pytest.param(free(timedelta(0)), 1, id="never a tight loop"),
    ],
)
def test_what_costs_no_try_never_gives_up(error: Unavailable, seconds: float) -> None:
    for tries, age in ((0, timedelta()), (0, timedelta(days=9))):
        found = decided(error, tries, age)
        assert found == Decision(PENDING, timedelta(seconds=seconds), counts=False)
    assert decided(error, tries=99).state is PENDING


@given(tries=st.integers(0, 10_000), random=st.floats(0, 1, exclude_max=True))
def test_jitter_stays_between_nothing_and_the_ceiling(tries: int, random: float) -> None:
    ceiling = min(POLICY.longest, POLICY.first * 2 ** min(tries, 10))
    assert timedelta(0) <= backoff(tries, POLICY, lambda: random) <= ceiling
    assert backoff(tries, POLICY, lambda: 0.0) == timedelta(0)


@pytest.mark.parametrize("policy", ["hold", "resend"])
def test_what_a_person_has_in_hand_is_never_tried_again(policy: str) -> None:
    assert decided(AwaitingPerson(text="awaiting a person"), policy=policy) == Decision(UNCONFIRMED)
