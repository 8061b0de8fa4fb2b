"""Signatures by the rules of Standard Webhooks, held against the library of that name."""

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from serving import NEXT_SECRET, OTHER_SECRET, SECRET
from standardwebhooks import Webhook

from distributor.standard_webhooks import NotSigned, Signatures, Signed, key_of

#: The vector that the libraries of all languages test themselves with.
ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
MOMENT = 1614265330
BODY = b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
OTHERS = "v1,Ceo5qEr07ixe2NLpvHk3FH9bwy/WavXrAFQ/9tdO6mc="
TOLERANCE = timedelta(minutes=5)


def signatures(*secrets: str, now: float = MOMENT, **more: str) -> Signatures:
    known = {"shop": secrets or (SECRET,)} | {name: (secret,) for name, secret in more.items()}
    return Signatures(known, TOLERANCE, clock=lambda: now)


def headers(**changes: str | None) -> dict[str, str]:
    own: dict[str, str | None] = {
        "webhook-id": ID,
        "webhook-timestamp": str(MOMENT),
        "webhook-signature": SIGNATURE,
    }
    own |= {f"webhook-{name}": value for name, value in changes.items()}
    return {name: value for name, value in own.items() if value is not None}


def test_the_vector_of_the_libraries() -> None:
    assert signatures().verify(headers(), BODY) == Signed(ID, "shop")


@pytest.mark.parametrize(
    "signature",
    [
        f"{OTHERS} {SIGNATURE}",
        f"{SIGNATURE} {OTHERS}",
        f"v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg== {SIGNATURE}",
        f"v2,Ceo5qEr07ixe2NLpvHk3FH9bwy/WavXrAFQ/9tdO6mc= nonsense v1,*** , {SIGNATURE}",
    ],
    ids=["last", "first", "asymmetric beside it", "nonsense beside it"],
)
def test_one_good_signature_of_several_is_enough(signature: str) -> None:
    assert signatures().verify(headers(signature=signature), BODY).source == "shop"


@pytest.mark.parametrize(
    "changes",
    [
        {"id": None},
        {"timestamp": None},
        {"signature": None},
        {"id": ""},
        {"id": "msg_other"},
        {"id": "msg with blanks"},
        {"id": "x" * 201},
        {"timestamp": str(MOMENT + 1)},
        {"timestamp": f"{MOMENT}.0"},
        {"timestamp": "nan"},
        {"timestamp": "1e9"},
        {"timestamp": "-1"},
        {"timestamp": "²"},
        {"timestamp": "9" * 400},
        {"signature": OTHERS},
        {"signature": SIGNATURE.removeprefix("v1,")},
        {"signature": SIGNATURE.replace("v1", "v2")},
        {"signature": SIGNATURE + "AAAA"},
        {"signature": "v1,"},
        {"signature": "v1,é"},
        {"signature": " ".join([*[OTHERS] * 10, SIGNATURE])},
    ],
    ids=str,
)
def test_what_proves_nothing(changes: dict[str, Any]) -> None:
    with pytest.raises(NotSigned):
        signatures().verify(headers(**changes), BODY)


@pytest.mark.parametrize("body", [b"", b" " + BODY, BODY[:-1], BODY.upper(), b"\xff\x00"])
def test_not_one_byte_may_differ(body: bytes) -> None:
    with pytest.raises(NotSigned):
        signatures().verify(headers(), body)


@pytest.mark.parametrize("seconds", [-300, -299, 0, 299, 300])
def test_within_the_tolerance(seconds: int) -> None:
    assert signatures(now=MOMENT + seconds).verify(headers(), BODY)


@pytest.mark.parametrize("seconds", [-86400, -301, 301, 86400])
def test_old_and_future_ones_are_refused(seconds: int) -> None:
    with pytest.raises(NotSigned, match="clock"):
        signatures(now=MOMENT + seconds).verify(headers(), BODY)


def test_the_old_secret_is_good_while_a_new_one_takes_over() -> None:
    assert signatures(NEXT_SECRET, SECRET).verify(headers(), BODY).source == "shop"
    with pytest.raises(NotSigned):
        signatures(NEXT_SECRET).verify(headers(), BODY)


def test_the_source_is_whose_secret_it_is() -> None:
    assert signatures(NEXT_SECRET, app=SECRET, site=OTHER_SECRET).verify(headers(), BODY).source == "app"


def test_without_secrets_nobody_is_believed() -> None:
    with pytest.raises(NotSigned):
        Signatures({"shop": ()}, TOLERANCE, clock=lambda: MOMENT).verify(headers(), BODY)


@given(body=st.text(), number=st.from_regex(r"\A[!-~]{1,40}\Z"), key=st.binary(min_size=24, max_size=64))
def test_whatever_the_library_signs_is_good(body: str, number: str, key: bytes) -> None:
    secret = "whsec_" + base64.b64encode(key).decode()
    signature = Webhook(secret).sign(number, datetime.fromtimestamp(MOMENT, UTC), body)
    given_headers = headers(id=number, signature=signature)
    try:
        encoded = body.encode()
    except UnicodeEncodeError:
        return
    assert signatures(secret).verify(given_headers, encoded).id == number
    with pytest.raises(NotSigned):
        signatures(secret).verify(given_headers, encoded + b" ")


@pytest.mark.parametrize("secret", ["whsec_***", "whsec_c2hvcnQ=", "", "whsec_" + "A" * 120])
def test_a_malformed_secret_is_told_without_repeating_it(secret: str) -> None:
    with pytest.raises(ValueError, match="a secret: expected") as told:
        key_of(secret)
    assert not secret or secret not in str(told.value)


def test_a_secret_may_come_without_its_prefix_and_padding() -> None:
    assert key_of(SECRET) == key_of(SECRET.removeprefix("whsec_")) == key_of(SECRET.rstrip("="))
