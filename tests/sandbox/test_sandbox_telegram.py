"""The Telegram simulator over HTTP, and through python-telegram-bot: limits, markup and each of its faults."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from telegram import Bot, LinkPreviewOptions
from telegram.constants import ParseMode
from telegram.error import BadRequest, ChatMigrated, Forbidden, InvalidToken, RetryAfter

from distributor.sandbox.faults import Fault
from distributor.sandbox.limits import UNLIMITED, Limits, Rate
from distributor.sandbox.markup import Entity, MarkupError, entities_bytes, parse_html
from distributor.sandbox.server import Sandbox

TOKEN = "123456:sandbox-token-0001"


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(None, limits=UNLIMITED) as running:
        yield running


@pytest.fixture
def api(sandbox: Sandbox) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{sandbox.url}/bot{TOKEN}", timeout=5, verify=False) as client:
        yield client


def _send(api: httpx.Client, text: str = "早", chat: str = "42", mode: str = "HTML") -> dict[str, Any]:
    answer = api.post("/sendMessage", json={"chat_id": chat, "text": text, "parse_mode": mode})
    data: dict[str, Any] = answer.json()
    assert data["ok"] == (answer.status_code == 200)
    return data


@pytest.mark.parametrize(
    "body",
    [
        {"json": {"chat_id": 42, "text": "早安"}},
        {"data": {"chat_id": "42", "text": "早安"}},
        {"files": {"chat_id": (None, "42"), "text": (None, "早安")}},
        {"params": {"chat_id": "42", "text": "早安"}},
    ],
    ids=["json", "form", "multipart", "query"],
)
def test_parameters_come_in_every_form_the_real_one_takes(
    sandbox: Sandbox, api: httpx.Client, body: dict[str, Any]
) -> None:
    result = api.post("/sendMessage", **body).json()["result"]
    assert (result["text"], result["chat"]["id"]) == ("早安", 42)
    assert sandbox.inbox.addresses("telegram") == {"42": 1}


def test_python_telegram_bot_is_at_home(sandbox: Sandbox) -> None:
    sandbox.faults.add(
        Fault("telegram", "-7", "migrated", value=-100700),
        Fault("telegram", "8", "blocked"),
        Fault("telegram", "9", "throttle", value=3),
    )

    async def story() -> None:
        async with Bot(TOKEN, base_url=f"{sandbox.url}/bot") as bot:
            assert (await bot.get_me()).id == 123456
            assert (await bot.get_chat("@morning")).title == "morning"
            assert await bot.get_updates() == ()
            preview = LinkPreviewOptions(url="https://example.org/cover", show_above_text=True)
            sent = await bot.send_message(
                42, "<b>早</b>", ParseMode.HTML, link_preview_options=preview, disable_notification=True
            )
            assert [entity.type for entity in sent.entities] == ["bold"]
            with pytest.raises(ChatMigrated) as moved:
                await bot.send_message(-7, "x")
            assert moved.value.new_chat_id == -100700
            with pytest.raises(Forbidden, match="blocked by the user"):
                await bot.send_message(8, "x")
            with pytest.raises(RetryAfter):
                await bot.send_message(9, "x")
            with pytest.raises(BadRequest, match="unsupported start tag"):
                await bot.send_message(42, "<br>", ParseMode.HTML)
        with pytest.raises(InvalidToken):
            async with Bot("123:short", base_url=f"{sandbox.url}/bot"):
                pass  # entering asks getMe

    asyncio.run(story())
    content = sandbox.inbox.entries("telegram", "42")[0].content
    assert content["silent"] is True
    assert content["preview"] == {"url": "https://example.org/cover", "show_above_text": True}


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("早<br>", 'Unsupported start tag "br" at byte offset 3'),
        ("a < b", 'Unsupported start tag "" at byte offset 2'),
        ("x <b", "Unclosed start tag at byte offset 2"),
        ("<a href", 'Unclosed start tag "a" at byte offset 0'),
        ('<a href="x', "Unclosed start tag at byte offset 0"),
        ('<a ="x">y</a>', 'Empty attribute name in the tag "a" at byte offset 0'),
        ("<a href=x/>y</a>", "Unexpected end of name token at byte offset 8"),
        ("<span>x</span>", 'Tag "span" must have class "tg-spoiler" at byte offset 0'),
        ("x</b>", "Unexpected end tag at byte offset 1"),
        ("<b>x</b", "Unclosed end tag at byte offset 4"),
        ("<b>x</i>", 'Unmatched end tag at byte offset 4, expected "</b>", found "</i>"'),
        ("<b>x", 'Can\'t find end tag corresponding to start tag "b"'),
    ],
)
def test_wrong_markup_is_refused_in_the_real_words(source: str, error: str) -> None:
    with pytest.raises(MarkupError) as caught:
        parse_html(source)
    assert str(caught.value) == error


@pytest.mark.parametrize(
    ("source", "text", "entities"),
    [
        ("<b>早</b>", "早", [Entity("bold", 0, 1)]),
        ("🎉<i>x</i>", "🎉x", [Entity("italic", 2, 1)]),
        ("  <b> x</b> \n", "x", [Entity("bold", 0, 1)]),
        ("a &lt;b&gt; &amp;&#33;&#x4e2d;", "a <b> &!中", []),
        (
            '<a href="https://e.org/?a=1&amp;b=2">x</a>',
            "x",
            [Entity("text_link", 0, 1, "https://e.org/?a=1&b=2")],
        ),
        ('<pre><code class="language-py">1</code></pre>', "1", [Entity("pre", 0, 1, "py")]),
        ("<blockquote expandable>q</blockquote>", "q", [Entity("blockquote", 0, 1, "expandable")]),
        ('<span class="tg-spoiler">s</span>', "s", [Entity("spoiler", 0, 1)]),
        ("<b>x<i>y</i></b>", "xy", [Entity("bold", 0, 2), Entity("italic", 1, 1)]),
    ],
)
def test_good_markup_becomes_text_and_entities(source: str, text: str, entities: list[Entity]) -> None:
    parsed = parse_html(source)
    assert (parsed.text, parsed.entities, parsed.notes) == (text, entities, [])


@pytest.mark.parametrize(
    ("source", "note"),
    [
        ("<code>x<b>y</b></code>", "<b> inside <code> is dropped"),
        (
            "<blockquote>x<blockquote>y</blockquote></blockquote>",
            "<blockquote> inside <blockquote> is dropped",
        ),
        ('<a href="https://e.org"><code>y</code></a>', "<code> inside <a> is dropped"),
        ('<a href="/relative">x</a>', "link dropped, Telegram takes no such URL: /relative"),
        ('<a href="mailto:a@e.org">x</a>', "link dropped, Telegram takes no such URL: mailto:a@e.org"),
        ("a&nbsp;b", "&nbsp; is no reference Telegram knows and stays as it is"),
        ("__UNSUBSCRIBE_URL__", "placeholder __UNSUBSCRIBE_URL__ was never filled"),
        ("<b>x</b> " * 101, "101 entities; those after number 100 are dropped without an error"),
    ],
)
def test_what_is_lost_without_an_error_is_noted(
    sandbox: Sandbox, api: httpx.Client, source: str, note: str
) -> None:
    assert _send(api, source)["ok"]
    assert list(sandbox.inbox.entry(1).violations) == [note]
    assert len(sandbox.inbox.entry(1).content["entities"]) <= 100


@pytest.mark.parametrize(
    ("text", "description"),
    [
        ("", "Bad Request: message text is empty"),
        (" \n", "Bad Request: text must be non-empty"),
        ("<b></b>", "Bad Request: text must be non-empty"),
        ("字" * 4096, None),
        ("字" * 4097, "Bad Request: message is too long"),
        ("<b>" + "字" * 4096 + "</b>", None),
        ('<a href="https://example.org/{}">x</a> '.format("p" * 200) * 60, "Bad Request: ENTITIES_TOO_LONG"),
        ("<br>", 'Bad Request: can\'t parse entities: Unsupported start tag "br" at byte offset 0'),
    ],
)
def test_size_limits(api: httpx.Client, text: str, description: str | None) -> None:
    assert _send(api, text).get("description") == description


def test_entities_are_measured_as_on_telegrams_wire() -> None:
    link = Entity(
        "text_link", 0, 1, "https://e.org/"
    )  # constructor, offset, length, string of 1 + 14 + 1 octets
    assert entities_bytes([Entity("bold", 0, 1), link]) == 8 + 12 + 28


@pytest.mark.parametrize(
    ("chat", "description"),
    [
        ("", "Bad Request: chat_id is empty"),
        ("nobody", "Bad Request: chat not found"),
        ("0", "Bad Request: chat not found"),
    ],
)
def test_a_chat_that_cannot_be(api: httpx.Client, chat: str, description: str) -> None:
    assert _send(api, chat=chat)["description"] == description


@pytest.mark.parametrize(
    ("path", "status"),
    [("/bot12:short/getMe", 401), ("/botnonsense/getMe", 404), (f"/bot{TOKEN}/sendDice", 404)],
)
def test_a_wrong_token_or_method(sandbox: Sandbox, path: str, status: int) -> None:
    answer = httpx.get(sandbox.url + path)
    assert (answer.status_code, answer.json()["error_code"]) == (status, status)


def test_another_parse_mode_is_refused(api: httpx.Client) -> None:
    assert _send(api, mode="MarkdownV2")["description"] == "Bad Request: unsupported parse_mode"


@pytest.mark.parametrize(
    ("limits", "chats", "allowed"),
    [
        (Limits(telegram_bot=Rate(3, 60)), ["1", "2", "3", "4"], 3),
        (Limits(telegram_chat=Rate(2, 60)), ["1", "1", "1", "2"], 3),
        (Limits(telegram_group=Rate(1, 60)), ["-1", "-1", "@morning", "@morning", "1", "1"], 4),
        (Limits(), ["1"] * 6, 5),
        (Limits(telegram_chat=Rate(99, 1)), ["-1"] * 21, 20),
    ],
)
def test_rates_are_kept(limits: Limits, chats: list[str], allowed: int) -> None:
    with (
        Sandbox(None, limits=limits) as sandbox,
        httpx.Client(base_url=f"{sandbox.url}/bot{TOKEN}", verify=False) as api,
    ):
        answers = [api.post("/sendMessage", data={"chat_id": chat, "text": "x"}) for chat in chats]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert len(answers) - len(refused) == allowed == sandbox.inbox.count("telegram")
        wait = refused[0].json()["parameters"]["retry_after"]
        assert refused[0].headers["Retry-After"] == str(wait)
        assert 1 <= wait <= 60


def test_a_chat_is_well_again_after_its_window() -> None:
    with (
        Sandbox(None, limits=Limits(telegram_chat=Rate(1, 0.1))) as sandbox,
        httpx.Client(base_url=f"{sandbox.url}/bot{TOKEN}", verify=False) as api,
    ):
        assert [_send(api)["ok"], _send(api)["ok"]] == [True, False]
        time.sleep(0.11)
        assert _send(api)["ok"]


@pytest.mark.parametrize(
    ("fault", "status", "description"),
    [
        (Fault("telegram", "42", "blocked", 1), 403, "Forbidden: bot was blocked by the user"),
        (Fault("telegram", "42", "deactivated", 1), 403, "Forbidden: user is deactivated"),
        (Fault("telegram", "42", "missing", 1), 400, "Bad Request: chat not found"),
        (
            Fault("telegram", "42", "migrated", 1, -1009),
            400,
            "Bad Request: group chat was upgraded to a supergroup chat",
        ),
        (Fault("telegram", "42", "throttle", 1, 7), 429, "Too Many Requests: retry after 7"),
        (Fault("telegram", "123456", "bad-token", 1), 401, "Unauthorized"),
    ],
)
def test_faults_that_refuse_once(
    sandbox: Sandbox, api: httpx.Client, fault: Fault, status: int, description: str
) -> None:
    sandbox.faults.add(fault)
    refused = _send(api)
    assert (refused["error_code"], refused["description"]) == (status, description)
    assert _send(api)["ok"]
    assert sandbox.inbox.count("telegram") == 1
    assert sandbox.inbox.entry(1).reason == f"{status} {description}"


@pytest.mark.parametrize(
    ("kind", "status", "kept"),
    [("server-error", 502, 0), ("server-error-after-accept", 502, 1), ("garbage", 200, 1)],
)
def test_faults_that_answer_rubbish(
    sandbox: Sandbox, api: httpx.Client, kind: str, status: int, kept: int
) -> None:
    sandbox.faults.add(Fault("telegram", "42", kind))
    answer = api.post("/sendMessage", data={"chat_id": "42", "text": "x"})
    assert (answer.status_code, answer.text[:6]) == (status, "<html>")
    assert sandbox.inbox.count("telegram") == kept


def test_fault_drop_after_accept_keeps_and_says_nothing(sandbox: Sandbox, api: httpx.Client) -> None:
    sandbox.faults.add(Fault("telegram", "42", "drop-after-accept", times=1))
    with pytest.raises(httpx.RemoteProtocolError):
        _send(api)
    assert sandbox.inbox.entry(1).note == "drop-after-accept"
    assert _send(api)["ok"]
    assert sandbox.inbox.counts()["telegram"]["duplicates"] == 1


def test_fault_slow_keeps_first_and_outlasts_a_client(sandbox: Sandbox, api: httpx.Client) -> None:
    sandbox.faults.add(Fault("telegram", "42", "slow", value=30))
    with pytest.raises(httpx.ReadTimeout):
        api.post("/sendMessage", data={"chat_id": "42", "text": "x"}, timeout=0.2)
    assert sandbox.inbox.count("telegram") == 1


def test_keeps_every_message_of_many(sandbox: Sandbox, api: httpx.Client) -> None:
    for number in range(1, 301):
        api.post("/sendMessage", data={"chat_id": str(number), "text": "<b>早</b>", "parse_mode": "HTML"})
    assert sandbox.inbox.count("telegram") == 300


def test_an_edit_changes_the_message_and_is_not_another_one(sandbox: Sandbox, api: httpx.Client) -> None:
    sent = _send(api, "<b>早</b>")["result"]
    change = {"chat_id": "42", "message_id": sent["message_id"], "parse_mode": "HTML", "text": "<i>晚</i>"}
    answer = api.post("/editMessageText", json=change).json()
    assert (answer["result"]["message_id"], answer["result"]["text"]) == (sent["message_id"], "晚")
    assert sandbox.inbox.addresses("telegram") == {"42": 1}
    again = api.post("/editMessageText", json=change).json()
    assert again["description"] == "Bad Request: message is not modified"
    page = httpx.get(f"{sandbox.url}/chat/42", verify=False).text
    assert "<i>晚</i>" in page
    assert "早" not in page


@pytest.mark.parametrize("change", [{"message_id": 99}, {"chat_id": "43"}, {}])
def test_only_what_was_sent_there_can_be_edited(api: httpx.Client, change: dict[str, Any]) -> None:
    number = _send(api)["result"]["message_id"] if change else ""
    answer = api.post("/editMessageText", json={"chat_id": "42", "message_id": number, "text": "x", **change})
    assert answer.json()["description"] == "Bad Request: message to edit not found"


def _rich(api: httpx.Client, html: str) -> dict[str, Any]:
    answer: dict[str, Any] = api.post(
        "/sendRichMessage", json={"chat_id": "42", "rich_message": {"html": html}}
    ).json()
    return answer


def test_a_rich_message_is_kept_as_text_and_source(sandbox: Sandbox, api: httpx.Client) -> None:
    html = "<h1>早</h1><p>a &mdash; <b>b</b><br>c</p><table><tr><th>d</th></tr></table>"
    assert _rich(api, html)["ok"]
    content = sandbox.inbox.entries("telegram", "42")[0].content
    assert (content["text"], content["source"], content["rich"]) == ("早\na — b\nc\nd", html, True)
    assert "a — b" in httpx.get(f"{sandbox.url}/chat/42", verify=False).text


@pytest.mark.parametrize(
    ("html", "reason"),
    [
        ("", "it is empty"),
        ("<div>a</div>", "unsupported tag <div>"),
        ("<p>a", "<p> is never closed"),
        ("<b><i>a</b></i>", "</b> closes nothing"),
        ("<p>a &euro;</p>", "unknown reference &euro;"),
        ("<p><img src='https://example.com/a.png'></p>", "a block of its own"),
        ("<td>a</td>", "<td> inside <>"),
        ("<table><tr><td><p>a</p></td></tr></table>", "a block of its own"),
        ("<img src='tg://x'/>", "http and https"),
        ("<p>" + "x" * 32_769 + "</p>", "32769 characters"),
        ("<p>x</p>" * 501, "501 blocks"),
        ("<img src='https://example.com/a.png'/>" * 51, "51 media"),
        ("<table><tr>" + "<td>x</td>" * 21 + "</tr></table>", "21 columns"),
        ("<blockquote>" * 17 + "x" + "</blockquote>" * 17, "17 levels"),
    ],
)
def test_a_rich_message_against_the_rules_is_refused(api: httpx.Client, html: str, reason: str) -> None:
    answer = _rich(api, html)
    assert answer["error_code"] == 400
    assert reason in answer["description"]


def test_an_old_server_does_not_know_rich_messages(sandbox: Sandbox, api: httpx.Client) -> None:
    sandbox.faults.add(Fault("telegram", "123456", "old-server"))
    assert _rich(api, "<p>a</p>")["error_code"] == 404
    assert _send(api)["ok"]
