"""The WeCom simulator over HTTP: bytes, charset, rate and each of its faults; always HTTP 200."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from distributor.sandbox.faults import Fault
from distributor.sandbox.limits import UNLIMITED, Limits
from distributor.sandbox.server import Sandbox
from distributor.sandbox.wecom import mask_key

KEY = "693a91f6-7a0c-4bc4-97a0-0ec2c1f2aaaa"
TEXT = {"msgtype": "text", "text": {"content": "早"}}


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(None, limits=UNLIMITED) as running:
        yield running


def _send(sandbox: Sandbox, key: str = KEY, **request: Any) -> int:
    url = f"{sandbox.url}/cgi-bin/webhook/send"
    answer = httpx.post(url, params={"key": key}, timeout=5, verify=False, **(request or {"json": TEXT}))
    assert answer.status_code == 200
    return int(answer.json()["errcode"])


def _articles(*articles: Any) -> dict[str, Any]:
    return {"json": {"msgtype": "news", "news": {"articles": list(articles)}}}


CARD = {"title": "早报", "description": "一句话", "url": "https://e.org/1", "picurl": "https://e.org/1.png"}


def _content(kind: str, text: str) -> dict[str, Any]:
    return {"json": {"msgtype": kind, kind: {"content": text}}}


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (_content("text", "早"), 0),
        (_content("text", "字" * 682), 0),
        (_content("text", "字" * 683), 40058),
        (_content("markdown", "字" * 1365), 0),
        (_content("markdown", "字" * 1366), 40058),
        (_content("markdown_v2", "字" * 1366), 40058),
        (_content("text", " "), 44004),
        (_content("poem", "x"), 40008),
        ({"json": {"msgtype": "text"}}, 40035),
        ({"json": {"msgtype": ["text"]}}, 40008),
        ({"content": b'{"msgtype": "text", "text": {"content": "\\u65e9"}}'}, 40033),
        ({"content": b'{"msgtype": "text", "text": {"content": "C:\\\\u65e9"}}'}, 0),
        ({"content": '{"msgtype": "text"}'.encode("utf-16")}, 40033),
        ({"content": b"msgtype=text"}, 47001),
        ({"content": b"[]"}, 47001),
        (_articles(CARD), 0),
        (_articles({"title": "早报", "url": "https://e.org"}), 0),
        (_articles(*[CARD] * 8), 0),
        (_articles(*[CARD] * 9), 40058),
        (_articles(), 40058),
        (_articles({"title": "早报"}), 40058),
        (_articles("早报"), 40058),
        (_articles(CARD | {"url": "e.org/1"}), 40058),
        (_articles(CARD | {"picurl": "data:image/png;base64,AA=="}), 40058),
        (_articles(CARD | {"description": 7}), 40035),
        ({"json": {"msgtype": "text", "text": {"content": "早", "mentioned_list": ["@all"]}}}, 0),
        ({"json": {"msgtype": "text", "text": {"content": "早", "mentioned_list": "@all"}}}, 40035),
    ],
)
def test_what_a_robot_says(sandbox: Sandbox, request_: dict[str, Any], code: int) -> None:
    assert _send(sandbox, **request_) == code
    assert sandbox.inbox.count("wecom", accepted=code == 0) == 1


def test_a_key_must_look_like_one(sandbox: Sandbox) -> None:
    assert _send(sandbox, key="abc") == 93000


def test_the_key_is_kept_masked(sandbox: Sandbox) -> None:
    _send(sandbox)
    assert sandbox.inbox.addresses("wecom") == {mask_key(KEY): 1} == {"693a****aaaa": 1}


def test_twenty_a_minute_for_each_robot() -> None:
    other = KEY.replace("aaaa", "bbbb")
    with Sandbox(None, limits=Limits()) as sandbox:
        assert [_send(sandbox) for _ in range(21)] == [0] * 20 + [45009]
        assert _send(sandbox, key=other) == 0


@pytest.mark.parametrize(
    ("kind", "text", "notes"),
    [
        ("markdown", "- a list", ["markdown does not know a list"]),
        ("markdown", "![x](https://e.org/x.png)", ["markdown does not know an image"]),
        ("markdown", "an *italic* word", ["markdown does not know italics"]),
        ("markdown", '## ok\n> **b** <font color="info">c</font> `d`', []),
        ("markdown_v2", '<font color="info">c</font>', ["markdown_v2 does not know a colour"]),
        ("markdown_v2", "1. a\n\n| a | b |\n|---|---|\n| 1 | 2 |", []),
        ("text", "see __POST_URL__", ["placeholder __POST_URL__ was never filled"]),
    ],
)
def test_what_readers_would_see_as_bare_characters_is_noted(
    sandbox: Sandbox, kind: str, text: str, notes: list[str]
) -> None:
    assert _send(sandbox, **_content(kind, text)) == 0
    assert list(sandbox.inbox.entry(1).violations) == notes


@pytest.mark.parametrize(
    ("request_", "notes"),
    [
        (_articles(CARD), []),
        (_articles(CARD | {"title": "题" * 43}), ["an article's title has 129 bytes: WeCom cuts it at 128"]),
        (
            _articles(CARD | {"description": "字" * 171}),
            ["an article's description has 513 bytes: WeCom cuts it at 512"],
        ),
        (_articles(CARD | {"author": "x"}), ["an article does not know the field author"]),
        (
            {"json": {"msgtype": "markdown", "markdown": {"content": "早", "mentioned_list": ["@all"]}}},
            ["markdown does not know the field mentioned_list"],
        ),
    ],
)
def test_what_a_robot_takes_and_does_not_heed_is_noted(
    sandbox: Sandbox, request_: dict[str, Any], notes: list[str]
) -> None:
    assert _send(sandbox, **request_) == 0
    assert list(sandbox.inbox.entry(1).violations) == notes


@pytest.mark.parametrize(("kind", "code"), [("disabled", 93000), ("busy", -1), ("throttle", 45009)])
def test_faults_that_refuse_once(sandbox: Sandbox, kind: str, code: int) -> None:
    sandbox.faults.add(Fault("wecom", KEY, kind, times=1))
    assert [_send(sandbox), _send(sandbox)] == [code, 0]


def test_fault_drop_after_accept(sandbox: Sandbox) -> None:
    sandbox.faults.add(Fault("wecom", "*", "drop-after-accept"))
    with pytest.raises(httpx.RemoteProtocolError):
        _send(sandbox)
    assert sandbox.inbox.entry(1).note == "drop-after-accept"


def test_fault_slow(sandbox: Sandbox) -> None:
    sandbox.faults.add(Fault("wecom", "*", "slow", value=30))
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{sandbox.url}/cgi-bin/webhook/send?key={KEY}", json=TEXT, timeout=0.2)
    assert sandbox.inbox.count("wecom") == 1
