"""The error table of WeChat Official Accounts, row by row."""

from datetime import UTC, datetime, timedelta

import pytest

from distributor.channels.wechat.answers import ERRCODES, STATUSES, from_errcode, from_status, until_midnight
from distributor.errors import Kind, Rejected, Scope, SendError, Unavailable, Unconfirmed

#: 21:30 in Beijing.
EVENING = datetime(2026, 11, 27, 13, 30, tzinfo=UTC)
MINUTE = timedelta(seconds=60)
TO_MIDNIGHT = timedelta(hours=2, minutes=30)

LOCKED_OUT = (Unavailable, Scope.CHANNEL, Kind.CONFIG, False, None)
NO_RIGHT = (Rejected, Scope.CHANNEL, Kind.CONFIG, None, None)
TOO_FAST = (Unavailable, Scope.RECIPIENT, Kind.THROTTLE, False, MINUTE)
SPENT = (Unavailable, Scope.RECIPIENT, Kind.THROTTLE, False, TO_MIDNIGHT)
OUR_FAULT = (Rejected, Scope.RECIPIENT, Kind.CONTENT, None, None)
READER = (Rejected, Scope.RECIPIENT, Kind.MAILBOX, None, None)

EXPECTED = {
    -1: (Unavailable, Scope.RECIPIENT, Kind.SERVER, True, None),
    **dict.fromkeys((40001, 40014, 42001), LOCKED_OUT),
    **dict.fromkeys((40013, 40125, 40164, 40243, 48004, 50002, 61004), LOCKED_OUT),
    **dict.fromkeys((48001, 76021, 76022), NO_RIGHT),
    **dict.fromkeys((45009, 45028), SPENT),
    **dict.fromkeys((45011, 42010, 53501), TOO_FAST),
    45066: (Unconfirmed, Scope.RECIPIENT, Kind.SERVER, None, None),
    **dict.fromkeys((40004, 40005, 40007, 40009, 44003, 45001, 45002, 45003, 45004, 45110, 45166), OUR_FAULT),
    **dict.fromkeys((45065, 45067, 47001, 47003, 53503, 53504, 53505), OUR_FAULT),
    **dict.fromkeys((40003, 43004, 43101, 45015, 45047), READER),
}


def facts(error: SendError) -> tuple[object, ...]:
    counts, wait = getattr(error, "counts", None), getattr(error, "retry_after", None)
    return type(error), error.scope, error.kind, counts, wait


def test_every_row_is_expected_here() -> None:
    assert EXPECTED.keys() == ERRCODES.keys()


@pytest.mark.parametrize("errcode", ERRCODES)
def test_rows(errcode: int) -> None:
    error = from_errcode(errcode, "some words rid: 6563-22af", now=EVENING)
    assert facts(error) == EXPECTED[errcode]
    assert error.code == str(errcode)
    assert error.text == f"some words [{ERRCODES[errcode].meaning}]"


def test_a_code_that_is_not_in_the_table() -> None:
    error = from_errcode(89503, "no")
    assert facts(error) == (Rejected, Scope.RECIPIENT, Kind.CONFIG, None, None)
    assert "89503 no" in str(error)


def test_the_address_to_allow_is_shown() -> None:
    error = from_errcode(40164, "invalid ip 203.0.113.9 ipv6 ::ffff:203.0.113.9, not in whitelist rid: 65-1")
    assert "203.0.113.9" in error.text
    assert "IP list" in error.text


def test_the_rule_for_accounts_is_named() -> None:
    text = from_errcode(48001, "api unauthorized").text
    assert "personal and unverified accounts" in text
    assert 'mode = "draft"' in text


@pytest.mark.parametrize(
    ("now", "wait"),
    [
        (EVENING, TO_MIDNIGHT),
        (datetime(2026, 11, 27, 16, 0, tzinfo=UTC), timedelta(days=1)),
        (datetime(2026, 11, 27, 15, 59, 59, tzinfo=UTC), timedelta(seconds=1)),
    ],
)
def test_a_day_ends_at_midnight_in_beijing(now: datetime, wait: timedelta) -> None:
    assert until_midnight(now) == wait


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (413, OUR_FAULT),
        (429, TOO_FAST),
        (404, LOCKED_OUT),
    ],
)
def test_statuses(status: int, expected: tuple[object, ...]) -> None:
    assert facts(from_status(status, "<html>")) == expected
    assert STATUSES.keys() == {413, 429}


def test_secrets_are_masked() -> None:
    error = from_errcode(40001, "access_token=abc is not latest, secret def", "abc", "def")
    assert "abc" not in error.text
    assert "def" not in error.text
