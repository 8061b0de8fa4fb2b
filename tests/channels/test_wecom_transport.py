"""The WeCom transport against a scripted robot."""

import logging
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from parcels import wecom
from pydantic import SecretStr
from scripted_http import HANG_UP, SILENCE, Answer, ScriptedHttp
from services import free_port

from distributor.channels import Channel
from distributor.channels.wecom import WecomChannel
from distributor.channels.wecom.answers import ERRCODES
from distributor.channels.wecom.transport import WecomTransport
from distributor.errors import Kind, Rejected, Scope, SendError, Unavailable, Unconfirmed
from distributor.model import Message, Parcel, Receipt
from distributor.settings import Newsletter, Settings, WecomDestination, WecomSettings

KEY = "693axxx6-7aoc-4bc4-97a0-do-not-print"
KEYS: Mapping[str, SecretStr] = {"ai-group": SecretStr(KEY)}


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def transport(api: str, *, seconds: int = 5, keys: Mapping[str, SecretStr] = KEYS) -> WecomTransport:
    return WecomTransport(WecomSettings(api=api, timeout=timedelta(seconds=seconds)), keys)


def says(errcode: int, errmsg: str = "…", status: int = 200) -> Answer:
    return Answer.of({"errcode": errcode, "errmsg": errmsg}, status)


def failure(answer: Answer, *, seconds: int = 5) -> SendError:
    with (
        ScriptedHttp(answer) as server,
        transport(server.url, seconds=seconds) as opened,
        pytest.raises(SendError) as caught,
    ):
        opened.send(wecom())
    return caught.value


@pytest.mark.parametrize("mode", ["markdown_v2", "markdown", "text"])
def test_sends_the_kind_that_the_message_is(mode: str) -> None:
    with ScriptedHttp(says(0, "ok")) as server, transport(server.url) as opened:
        receipt = opened.send(wecom(mode=mode))
    assert receipt == Receipt(code="0", text="ok")
    (request,) = server.requests
    assert (request.path, request.query) == ("/cgi-bin/webhook/send", {"key": [KEY]})
    assert request.json == {"msgtype": mode, mode: {"content": "# AI 日报\n早上好"}}


def parcel_of(variant: str, **content: str) -> Parcel:
    parcel = wecom(mode=variant)
    return parcel._replace(message=Message(channel="wecom", variant=variant, content=content))


@pytest.mark.parametrize(
    ("parcel", "body"),
    [
        (
            parcel_of(
                "news", title="题", description="述", url="https://e.org/1", picurl="https://e.org/1.png"
            ),
            {
                "articles": [
                    {
                        "title": "题",
                        "description": "述",
                        "url": "https://e.org/1",
                        "picurl": "https://e.org/1.png",
                    }
                ]
            },
        ),
        (
            parcel_of("news", title="题", description="述", url="https://e.org/1"),
            {"articles": [{"title": "题", "description": "述", "url": "https://e.org/1"}]},
        ),
        (
            parcel_of("text+all", text="早", mentioned="@all"),
            {"content": "早", "mentioned_list": ["@all"]},
        ),
        (parcel_of("text+split+all", text="早"), {"content": "早"}),
        (parcel_of("markdown_v2+split", markdown="早"), {"content": "早"}),
    ],
)
def test_cards_mentions_and_parts_on_the_wire(parcel: Parcel, body: dict[str, Any]) -> None:
    with ScriptedHttp(says(0, "ok")) as server, transport(server.url) as opened:
        opened.send(parcel)
    kind = parcel.message.variant.partition("+")[0]
    assert server.requests[0].json == {"msgtype": kind, kind: body}


def test_a_card_without_its_texts_is_refused() -> None:
    opened = transport("http://127.0.0.1:9")
    with opened, pytest.raises(Rejected, match="cannot be written") as caught:
        opened.send(parcel_of("news", title="题"))
    assert caught.value.kind is Kind.CONTENT


def test_body_is_raw_utf8() -> None:
    with ScriptedHttp(says(0)) as server, transport(server.url) as opened:
        opened.send(wecom())
    assert "早上好".encode() in server.requests[0].body
    assert b"\\u" not in server.requests[0].body


def test_one_connection_for_many_messages() -> None:
    with ScriptedHttp(says(0)) as server, transport(server.url) as opened:
        for _ in range(5):
            opened.send(wecom())
    assert len(server.peers) == 1


@pytest.mark.parametrize(
    ("errcode", "error", "kind"),
    [
        (-1, Unavailable, Kind.SERVER),
        (45009, Unavailable, Kind.THROTTLE),
        (40058, Rejected, Kind.CONTENT),
        (45002, Rejected, Kind.CONTENT),
        (40008, Rejected, Kind.CONTENT),
        (40033, Rejected, Kind.CONTENT),
        (40035, Rejected, Kind.CONTENT),
        (44004, Rejected, Kind.CONTENT),
        (93000, Rejected, Kind.CONFIG),
        (93017, Rejected, Kind.CONFIG),
        (48002, Rejected, Kind.CONFIG),
    ],
)
def test_errcodes(errcode: int, error: type[SendError], kind: Kind) -> None:
    caught = failure(says(errcode, "some words"))
    assert (type(caught), caught.kind, caught.scope) == (error, kind, Scope.RECIPIENT)
    assert caught.code == str(errcode)
    assert caught.text.startswith("some words [")


@pytest.mark.parametrize("errcode", ERRCODES)
def test_every_row_answers_through_the_wire(errcode: int) -> None:
    caught = failure(says(errcode))
    assert ERRCODES[errcode].meaning in caught.text
    assert not getattr(caught, "suppress", False)


def test_too_fast_waits_a_minute_and_costs_no_try() -> None:
    caught = failure(says(45009, "api freq out of limit"))
    assert isinstance(caught, Unavailable)
    assert (caught.retry_after, caught.counts) == (timedelta(seconds=60), False)


def test_busy_costs_a_try() -> None:
    caught = failure(says(-1, "system error"))
    assert isinstance(caught, Unavailable)
    assert caught.counts


@pytest.mark.parametrize(
    ("answer", "error", "kind"),
    [
        (says(45009, status=429), Unavailable, Kind.THROTTLE),
        (Answer(429, b"slow down"), Unavailable, Kind.THROTTLE),
        (Answer(413, b""), Rejected, Kind.CONTENT),
        (Answer(404, b"<html>no such page</html>"), Rejected, Kind.CONFIG),
        (Answer(302, b""), Rejected, Kind.CONFIG),
        (Answer(500, b"oops"), Unconfirmed, Kind.SERVER),
        (says(45009, status=502), Unconfirmed, Kind.SERVER),
        (Answer(200, b"<html>welcome</html>"), Unconfirmed, Kind.SERVER),
        (Answer(200, b""), Unconfirmed, Kind.SERVER),
        (Answer(200, b"[]"), Unconfirmed, Kind.SERVER),
        (Answer(200, b'{"errmsg": "ok"}'), Unconfirmed, Kind.SERVER),
        (Answer(200, b'{"errcode": "0"}'), Unconfirmed, Kind.SERVER),
        (Answer(200, b"\xff\xfe"), Unconfirmed, Kind.SERVER),
        (HANG_UP, Unconfirmed, Kind.NETWORK),
    ],
)
def test_other_answers(answer: Answer, error: type[SendError], kind: Kind) -> None:
    caught = failure(answer)
    assert (type(caught), caught.kind) == (error, kind)


def test_silence_after_the_request_is_in_doubt() -> None:
    caught = failure(SILENCE, seconds=1)
    assert (type(caught), caught.kind) == (Unconfirmed, Kind.NETWORK)


@pytest.mark.parametrize(
    ("api", "kind"), [("http://127.0.0.1:{closed}", Kind.NETWORK), ("http://[::bad", Kind.CONFIG)]
)
def test_no_connection(api: str, kind: Kind) -> None:
    with transport(api.format(closed=free_port())) as opened, pytest.raises(Unavailable) as caught:
        opened.send(wecom())
    assert (caught.value.scope, caught.value.kind, caught.value.counts) == (Scope.CHANNEL, kind, False)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("keys", [{}, {"ai-group": SecretStr("")}], ids=["none", "empty"])
def test_robot_without_a_key(keys: Mapping[str, SecretStr]) -> None:
    opened = transport("http://127.0.0.1:9", keys=keys)
    with opened, pytest.raises(Rejected, match="DISTRIBUTOR_WECOM_AI_GROUP_KEY") as caught:
        opened.send(wecom())
    assert (caught.value.kind, caught.value.scope) == (Kind.CONFIG, Scope.RECIPIENT)


def test_unknown_mode() -> None:
    with transport("http://127.0.0.1:9") as opened, pytest.raises(Rejected, match="carrier pigeon") as caught:
        opened.send(wecom(mode="carrier pigeon"))
    assert caught.value.kind is Kind.CONTENT


@pytest.mark.parametrize(
    "answer", [says(0, f"ok {KEY}"), says(93000, f"invalid key={KEY}"), Answer(404, KEY.encode()), HANG_UP]
)
def test_key_is_never_printed(answer: Answer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, "httpcore")  # the command line, run in this process before, quiets it
    texts: list[str] = []
    with ScriptedHttp(answer) as server, transport(server.url) as opened:
        try:
            texts.append(repr(opened.send(wecom())))
        except SendError as error:
            texts += [str(error), repr(error)]
    assert "send_request_headers" in caplog.text, "the log was on"
    assert KEY not in "\n".join([*texts, caplog.text])


def test_channel(tmp_path: Path) -> None:
    table: dict[str, Any] = {
        "slug": "ai-daily",
        "title": "AI 日报",
        "sender": {"name": "AI 日报", "address": "daily@news.example.com"},
        "channels": {
            "wecom": {
                "destinations": [
                    {"name": "ai-group"},
                    {"name": "old", "mode": "text", "mention_all": True},
                    {"name": "long", "overflow": "split"},
                ]
            }
        },
    }
    channel: Channel = WecomChannel(Settings(root=tmp_path))
    assert isinstance(channel, Channel)
    places = channel.destinations(Newsletter.model_validate(table))
    assert [(place.address, place.variant, place.destination) for place in places] == [
        ("ai-group", "markdown_v2", "ai-group"),
        ("old", "text+all", "old"),
        ("long", "markdown_v2+split", "long"),
    ]


@pytest.mark.parametrize(
    ("robot", "mistake"),
    [
        ({"mention_all": True}, '`mention_all` needs mode = "text"'),
        ({"mode": "news", "overflow": "split"}, "a card is one message"),
    ],
)
def test_a_destination_cannot_ask_for_what_its_mode_has_not(robot: dict[str, Any], mistake: str) -> None:
    with pytest.raises(ValueError, match=mistake):
        WecomDestination.model_validate({"name": "group", **robot})
