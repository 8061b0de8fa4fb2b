"""The Telegram transport against a scripted Bot API."""

import json
import logging
import os
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from parcels import telegram
from pydantic import SecretStr
from scripted_http import HANG_UP, SILENCE, Answer, ScriptedHttp
from services import free_port

from distributor.channels import Channel
from distributor.channels.telegram import TelegramChannel
from distributor.channels.telegram.transport import TelegramTransport, close_bots
from distributor.errors import Kind, Rejected, Scope, SendError, Unavailable, Unconfirmed
from distributor.model import Parcel, Receipt
from distributor.settings import Newsletter, Settings, TelegramSettings

TOKEN = "123456:AAE-do-not-print-me"


@pytest.fixture(autouse=True)
def _no_bots_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield
    close_bots()


def settings(api: str, *, seconds: int = 5, token: str = TOKEN) -> TelegramSettings:
    return TelegramSettings(api=api, token=SecretStr(token), read_timeout=timedelta(seconds=seconds))


def accepted(message_id: int = 99) -> Answer:
    chat = {"id": -100, "type": "channel", "title": "AI 日报"}
    return Answer.of({"ok": True, "result": {"message_id": message_id, "date": 1795500000, "chat": chat}})


def refused(status: int, description: str, **parameters: object) -> Answer:
    answer = {"ok": False, "error_code": status, "description": description, "parameters": parameters}
    return Answer.of({key: value for key, value in answer.items() if value != {}}, status)


def failure(server: ScriptedHttp, *, seconds: int = 5) -> SendError:
    with (
        server,
        TelegramTransport(settings(server.url, seconds=seconds)) as opened,
        pytest.raises(SendError) as caught,
    ):
        opened.send(telegram(preview_url="https://news.example.com/cover.png"))
    return caught.value


def preview(form: dict[str, str]) -> Any:
    return json.loads(form["link_preview_options"])


def test_the_connection_is_there_before_the_first_message() -> None:
    with ScriptedHttp(accepted()) as server, TelegramTransport(settings(server.url)) as opened:
        assert (server.greetings, len(server.requests), len(server.peers)) == (1, 0, 1)
        opened.send(telegram())
        assert (server.greetings, len(server.requests), len(server.peers)) == (1, 1, 1)


def test_a_telegram_that_is_down_stops_the_channel_before_anybody_has_a_try() -> None:
    down = settings(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(Unavailable, match="Telegram does not answer") as caught, TelegramTransport(down):
        pass
    assert (caught.value.scope, caught.value.counts) == (Scope.CHANNEL, False)


def test_sends_html_with_the_cover_above_the_text() -> None:
    with ScriptedHttp(accepted(4711)) as server, TelegramTransport(settings(server.url)) as opened:
        receipt = opened.send(telegram(preview_url="https://news.example.com/cover.png"))
    assert receipt == Receipt(provider_id="4711", code="200")
    (request,) = server.requests
    assert request.path == f"/bot{TOKEN}/sendMessage"
    assert (request.form["chat_id"], request.form["parse_mode"]) == ("@ai_daily", "HTML")
    assert request.form["text"] == "<b>AI 日报</b>\n今天的消息"
    assert preview(request.form) == {
        "url": "https://news.example.com/cover.png",
        "show_above_text": True,
        "prefer_large_media": True,
    }


def test_no_preview_without_a_cover() -> None:
    with ScriptedHttp(accepted()) as server, TelegramTransport(settings(server.url)) as opened:
        opened.send(telegram())
    assert preview(server.requests[0].form) == {"is_disabled": True}


def test_topic_of_a_forum() -> None:
    with ScriptedHttp(accepted()) as server, TelegramTransport(settings(server.url)) as opened:
        opened.send(telegram(address="-1001234567890/17"))
    form = server.requests[0].form
    assert (form["chat_id"], form["message_thread_id"]) == ("-1001234567890", "17")


def test_placeholders() -> None:
    parcel = telegram(html="<a>__NAME__</a>", values={"__NAME__": "a<b"})
    with ScriptedHttp(accepted()) as server, TelegramTransport(settings(server.url)) as opened:
        opened.send(parcel)
    assert server.requests[0].form["text"] == "<a>a&lt;b</a>"


def test_refused_picture_is_left_out() -> None:
    script = ScriptedHttp(refused(400, "Bad Request: wrong type of the web page content"), accepted())
    with script as server, TelegramTransport(settings(server.url)) as opened:
        opened.send(telegram(preview_url="https://news.example.com/cover.png"))
    assert preview(server.requests[1].form) == {"is_disabled": True}
    assert server.requests[1].form["parse_mode"] == "HTML"


def test_refused_markup_falls_back_to_plain_text_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    script = ScriptedHttp(refused(400, "Bad Request: can't parse entities: unexpected end tag"), accepted())
    with script as server, TelegramTransport(settings(server.url)) as opened:
        opened.send(telegram(preview_url="https://news.example.com/cover.png"))
    second = server.requests[1].form
    assert second["text"] == "AI 日报\n今天的消息"
    assert "parse_mode" not in second
    assert preview(second)["url"] == "https://news.example.com/cover.png"
    warning = next(record for record in caplog.records if record.levelno == logging.WARNING)
    assert "delivery 7.1.0" in warning.getMessage()


def test_refused_markup_goes_as_text_and_entities_first(caplog: pytest.LogCaptureFixture) -> None:
    link = {"type": "text_link", "offset": 3, "length": 2, "url": "https://example.com/?a&b"}
    code = {"type": "pre", "offset": 0, "length": 2, "language": "c"}
    no = refused(400, "Bad Request: can't parse entities: unexpected end tag")
    with ScriptedHttp(no, no, accepted()) as server, TelegramTransport(settings(server.url)) as opened:
        opened.send(telegram(entities=json.dumps([code, link])))
    html, entities, plain = [request.form for request in server.requests]
    assert html["parse_mode"] == "HTML"
    assert json.loads(entities["entities"]) == [code, link]
    assert entities["text"] == plain["text"] == "AI 日报\n今天的消息"
    assert not {"parse_mode"} & {*entities, *plain}
    assert "entities" not in plain
    assert [record.getMessage().split(", sent ")[1].split(":")[0] for record in caplog.records] == [
        "as text and entities",
        "as plain text",
    ]


def test_nothing_left_to_leave_out_is_final() -> None:
    script = ScriptedHttp(
        refused(400, "Bad Request: can't parse entities"),
        refused(400, "Bad Request: wrong type of the web page content"),
        refused(400, "Bad Request: can't parse entities"),
    )
    error = failure(script)
    assert (type(error), error.kind) == (Rejected, Kind.CONTENT)
    assert len(script.requests) == 3


@pytest.mark.parametrize(
    ("answer", "error", "kind"),
    [
        (refused(429, "Too Many Requests: retry after 9", retry_after=9), Unavailable, Kind.THROTTLE),
        (refused(403, "Forbidden: bot was blocked by the user"), Rejected, Kind.MAILBOX),
        (refused(400, "Bad Request: chat not found"), Rejected, Kind.MAILBOX),
        (refused(400, "Bad Request: TOPIC_CLOSED"), Rejected, Kind.CONFIG),
        (refused(401, "Unauthorized"), Unavailable, Kind.CONFIG),
        (refused(404, "Not Found"), Unavailable, Kind.CONFIG),
        (refused(500, "Internal Server Error"), Unconfirmed, Kind.NETWORK),
        (Answer(502, b"<html>bad gateway</html>"), Unconfirmed, Kind.NETWORK),
        (Answer(200, b"<html>welcome</html>"), Unconfirmed, Kind.NETWORK),
        (Answer(200, b'{"ok": true}'), Unconfirmed, Kind.NETWORK),
        (Answer(200, b'{"ok": true, "result": 7}'), Unconfirmed, Kind.NETWORK),
        (HANG_UP, Unconfirmed, Kind.NETWORK),
    ],
)
def test_answers(answer: Answer, error: type[SendError], kind: Kind) -> None:
    caught = failure(ScriptedHttp(answer))
    assert (type(caught), caught.kind) == (error, kind)


LINKED = '<a href="__PART_2_ADDRESS__">观点 (2/3)</a> <a href="__PART_3_ADDRESS__">信 (3/3)</a>'
ENTITY = '[{"type": "text_link", "offset": 0, "length": 8, "url": "__PART_2_ADDRESS__"}]'
NAMES = ("__PART_2_ADDRESS__", "__PART_3_ADDRESS__")


def edit(address: str = "@ai_daily", receipts: tuple[str, ...] = ("11", "12", "13")) -> Parcel:
    parcel = telegram(address=address, html=LINKED, plain="观点 (2/3) 信 (3/3)", entities=ENTITY, edits="1")
    message = replace(parcel.message, part=4, parts=4, placeholders=NAMES)
    return parcel._replace(message=message, receipts=receipts)


@pytest.mark.parametrize(
    ("address", "chat", "folder"),
    [("@ai_daily", "@ai_daily", "ai_daily"), ("@ai_daily/17", "@ai_daily", "ai_daily/17")],
)
def test_the_last_part_of_a_public_chat_links_the_contents_of_the_first(
    address: str, chat: str, folder: str
) -> None:
    with ScriptedHttp(accepted(11)) as server, TelegramTransport(settings(server.url)) as opened:
        receipt = opened.send(edit(address))
    assert receipt == Receipt(provider_id="11", code="200")
    (request,) = server.requests
    assert request.path.endswith("/editMessageText")
    assert (request.form["chat_id"], request.form["message_id"]) == (chat, "11")
    assert request.form["text"] == (
        f'<a href="https://t.me/{folder}/12">观点 (2/3)</a> <a href="https://t.me/{folder}/13">信 (3/3)</a>'
    )
    assert preview(request.form) == {"is_disabled": True}


def test_an_edit_whose_markup_is_refused_goes_with_entities() -> None:
    script = ScriptedHttp(refused(400, "Bad Request: can't parse entities"), accepted(11))
    with script as server, TelegramTransport(settings(server.url)) as opened:
        opened.send(edit())
    assert json.loads(server.requests[1].form["entities"])[0]["url"] == "https://t.me/ai_daily/12"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (refused(400, "Bad Request: message is not modified"), "not modified"),
        (refused(403, "Forbidden: bot was kicked"), "kicked"),
        (refused(429, "Too Many Requests: retry after 9", retry_after=9), "wait"),
        (refused(401, "Unauthorized"), "token"),
        (Answer(502, b"<html>bad gateway</html>"), "no readable answer"),
        (HANG_UP, "no readable answer"),
    ],
)
def test_an_edit_that_fails_is_no_failure_of_the_delivery(
    answer: Answer, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    with ScriptedHttp(answer) as server, TelegramTransport(settings(server.url)) as opened:
        receipt = opened.send(edit())
    assert receipt.provider_id == "11"
    assert receipt.text.startswith("contents without links: ")
    assert reason in receipt.text
    assert "delivery 7.1.0: the contents are without links" in caplog.text
    assert receipt.retry_after == (timedelta(seconds=9) if reason == "wait" else None)


@pytest.mark.parametrize(
    "parcel", [edit(receipts=()), edit(receipts=("11", "12")), edit(receipts=("11", "", "13")), edit("-1001")]
)
def test_without_the_parts_numbers_there_is_no_edit(parcel: Parcel) -> None:
    with ScriptedHttp(accepted()) as server, TelegramTransport(settings(server.url)) as opened:
        assert "contents without links" in opened.send(parcel).text
    assert not server.requests


# Rich messages


def rich(address: str = "-1001") -> Parcel:
    return telegram(
        address=address, rich="<h1>AI 日报</h1>", preview_url="https://news.example.com/cover.png"
    )


def test_a_rich_message_stands_for_all_parts() -> None:
    with ScriptedHttp(accepted(5)) as server, TelegramTransport(settings(server.url)) as opened:
        receipt = opened.send(rich("-1001/17"))
    assert receipt == Receipt(provider_id="5", code="200", whole=True)
    (request,) = server.requests
    assert request.path.endswith("/sendRichMessage")
    assert (request.form["chat_id"], request.form["message_thread_id"]) == ("-1001", "17")
    assert json.loads(request.form["rich_message"]) == {"html": "<h1>AI 日报</h1>"}


@pytest.mark.parametrize(
    "answer",
    [
        refused(404, "Not Found"),
        refused(400, "Bad Request: can't parse rich message: unsupported tag"),
        refused(413, "Request Entity Too Large"),
    ],
    ids=["old server", "refused", "too large"],
)
def test_a_refused_rich_message_goes_in_parts_and_says_so(
    answer: Answer, caplog: pytest.LogCaptureFixture
) -> None:
    with ScriptedHttp(answer, accepted(6)) as server, TelegramTransport(settings(server.url)) as opened:
        receipt = opened.send(rich())
    assert (receipt.provider_id, receipt.whole) == ("6", False)
    assert receipt.text.startswith("parts instead of a rich message: ")
    assert [request.path.rpartition("/")[2] for request in server.requests] == [
        "sendRichMessage",
        "sendMessage",
    ]
    assert server.requests[1].form["parse_mode"] == "HTML"
    assert "no rich message, parts instead" in caplog.text


@pytest.mark.parametrize("status", [401, 404])
def test_a_wrong_token_stops_the_channel_all_the_same(status: int) -> None:
    no = refused(status, "Unauthorized" if status == 401 else "Not Found")
    with (
        ScriptedHttp(no) as server,
        TelegramTransport(settings(server.url)) as opened,
        pytest.raises(Unavailable) as caught,
    ):
        opened.send(rich())
    assert (caught.value.scope, caught.value.kind, caught.value.counts) == (Scope.CHANNEL, Kind.CONFIG, False)
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (refused(429, "Too Many Requests: retry after 9", retry_after=9), Unavailable),
        (refused(403, "Forbidden: bot was kicked"), Rejected),
        (HANG_UP, Unconfirmed),
        (Answer(502, b"bad gateway"), Unconfirmed),
    ],
)
def test_a_rich_message_that_may_have_arrived_or_may_not_go_is_not_followed_by_parts(
    answer: Answer, error: type[SendError]
) -> None:
    with (
        ScriptedHttp(answer) as server,
        TelegramTransport(settings(server.url)) as opened,
        pytest.raises(error),
    ):
        opened.send(rich())
    assert len(server.requests) == 1


def test_migrated_group() -> None:
    error = failure(
        ScriptedHttp(refused(400, "Bad Request: group chat was upgraded", migrate_to_chat_id=-1009))
    )
    assert isinstance(error, Unavailable)
    assert (error.new_address, error.counts) == ("-1009", False)


def test_silence_after_the_request_is_in_doubt() -> None:
    assert type(failure(ScriptedHttp(SILENCE), seconds=1)) is Unconfirmed


def test_nobody_listens_any_more() -> None:
    opened = TelegramTransport(settings(f"http://127.0.0.1:{free_port()}"))
    with pytest.raises(Unavailable) as caught:  # not entered: then it was there a moment ago
        opened.send(telegram())
    assert (caught.value.scope, caught.value.kind, caught.value.counts) == (
        Scope.CHANNEL,
        Kind.NETWORK,
        False,
    )


def test_no_token() -> None:
    opened = TelegramTransport(settings("http://127.0.0.1:9", token=""))
    with pytest.raises(Unavailable, match="DISTRIBUTOR_TELEGRAM_TOKEN") as caught, opened:
        pytest.fail("it opened")
    assert (caught.value.scope, caught.value.kind, caught.value.counts) == (Scope.CHANNEL, Kind.CONFIG, False)


@pytest.mark.parametrize(
    "parcel",
    [
        telegram(address="@daily/general"),
        telegram(html="__NAME__", values={"__NAME__": ""})._replace(values={}),
    ],
    ids=["topic without a number", "placeholder without a value"],
)
def test_parcel_that_cannot_be_written(parcel: Parcel) -> None:
    opened = TelegramTransport(settings("http://127.0.0.1:9"))
    with pytest.raises(Rejected, match="cannot be written") as caught:
        opened.send(parcel)
    assert caught.value.kind is Kind.CONTENT


def bot_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "telegram-bot"]


def test_many_lanes_share_one_bot_and_its_connections() -> None:
    with ScriptedHttp(accepted()) as server:

        def lane(number: int) -> None:
            with TelegramTransport(settings(server.url)) as opened:
                for _ in range(10):
                    opened.send(telegram(address=f"-{number + 1}"))

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lane, range(8)))
        assert len(bot_threads()) == 1
        assert len(server.requests) == 80
        assert len(server.peers) <= 16, "connections are kept"


def test_closing_ends_the_thread_and_the_next_send_begins_anew() -> None:
    with ScriptedHttp(accepted()) as server:
        opened = TelegramTransport(settings(server.url))
        opened.send(telegram())
        close_bots()
        assert bot_threads() == []
        opened.send(telegram())
    assert len(server.requests) == 2


def test_forked_child_makes_its_own_bot() -> None:
    with ScriptedHttp(accepted()) as server, TelegramTransport(settings(server.url)) as opened:
        opened.send(telegram())
        with warnings.catch_warnings():
            # Python 3.12 and later warn of the deadlock that this test shows to be avoided.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            status = 1
            try:
                opened.send(telegram())
                status = 0
            finally:
                os._exit(status)
        _, status = os.waitpid(child, 0)
        opened.send(telegram())
    assert status == 0
    assert len(server.requests) == 3
    assert len(server.peers) == 2, "the parent kept its connection, the child had another"


@pytest.mark.parametrize(
    "answer",
    [
        accepted(),
        HANG_UP,
        refused(404, "Not Found"),
        Answer(200, f"<p>no route to /bot{TOKEN}/sendMessage</p>".encode()),
        Answer(504, f"<p>no answer from /bot{TOKEN}/sendMessage</p>".encode()),
    ],
)
def test_token_is_never_printed(answer: Answer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, "httpcore")  # the command line, run in this process before, quiets it
    texts = []
    with ScriptedHttp(answer) as server, TelegramTransport(settings(server.url)) as opened:
        texts.append(repr(opened))
        try:
            opened.send(telegram())
        except SendError as error:
            texts += [str(error), repr(error)]
    texts.append(caplog.text)
    assert "send_request_headers" in caplog.text, "the log was on"
    assert TOKEN not in "\n".join(texts)


def test_token_with_a_typing_mistake_is_never_printed() -> None:
    token = "123456:bad\ntoken"
    with (
        pytest.raises(SendError) as caught,
        TelegramTransport(settings("http://127.0.0.1:9", token=token)) as opened,
    ):
        opened.send(telegram())
    assert token not in str(caught.value)
    assert token.replace("\n", " ") not in str(caught.value)


def test_channel(tmp_path: Path) -> None:
    newsletter = Newsletter.model_validate(
        {
            "slug": "ai-daily",
            "title": "AI 日报",
            "sender": {"name": "AI 日报", "address": "daily@news.example.com"},
            "channels": {
                "telegram": {
                    "destinations": [
                        {"name": "main", "chat": "@ai_daily"},
                        {"name": "topic", "chat": -1001234567890, "thread": 17},
                        {"name": "rich", "chat": "@ai_weekly", "format": "rich"},
                    ]
                }
            },
        }
    )
    channel: Channel = TelegramChannel(Settings(root=tmp_path))
    assert isinstance(channel, Channel)
    places = channel.destinations(newsletter)
    assert [(place.address, place.variant, place.destination) for place in places] == [
        ("@ai_daily", "public", "main"),
        ("-1001234567890/17", "default", "topic"),
        ("@ai_weekly", "rich", "rich"),
    ]
