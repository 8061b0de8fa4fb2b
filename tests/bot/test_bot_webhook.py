"""Readers talk to the bot over HTTP: the sandbox as Telegram, our web app, the channel's transport, the engine."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from services import Project, free_port

from distributor.audience import NewSubscriber
from distributor.bootstrap import Distributor, build, prepare
from distributor.bot import PATH, delete_webhook, set_webhook, webhook_status
from distributor.bot.words import WORDS
from distributor.channels.telegram.transport import close_bots
from distributor.dispatch import open_issue, write_audience
from distributor.errors import RequestRefused, SendError
from distributor.model import Issue, OpenedBy
from distributor.posts import read_post
from distributor.runner import Runner
from distributor.sandbox.faults import Fault
from distributor.sandbox.inbox import Entry
from distributor.sandbox.limits import UNLIMITED
from distributor.sandbox.server import Sandbox
from distributor.sandbox.talking import Talking
from distributor.settings import Settings
from distributor.web import create_app

TOKEN, SECRET = "123456:sandbox-token-0001", "not-a-secret_of-anybody"
POST = "---\ntitle: 今天的收据\ndate: 2026-03-05\n---\n\n谁收到了，谁没有收到，都写在账上。\n"
LI = "42001"
HEADER = "X-Telegram-Bot-Api-Secret-Token"


@pytest.fixture
def sandbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Sandbox(None, limits=UNLIMITED) as running:
        yield running
    close_bots()


def settings_of(project: Project, sandbox: Sandbox, mode: str = "webhook", **more: Any) -> Settings:
    environment = {"DISTRIBUTOR_TELEGRAM_TOKEN": TOKEN, "DISTRIBUTOR_TELEGRAM_WEBHOOK_SECRET": SECRET}
    port = free_port()
    return project.settings(
        newsletter={"channels": {"telegram": {}}},
        environment=environment,
        telegram={"api": sandbox.url, "rate": 1000, "read_timeout": "5s"},
        bot={"mode": mode, "username": "sandbox_bot"},
        web={"port": port, "base_url": f"http://127.0.0.1:{port}"},
        **more,
    )


class Served:
    """A distributor with its web app, and the sandbox's users."""

    def __init__(self, settings: Settings, sandbox: Sandbox) -> None:
        self.sandbox, self.users = sandbox, sandbox.talking
        self.distributor: Distributor = build(settings)
        prepare(self.distributor)
        config = uvicorn.Config(create_app(self.distributor), port=settings.web.port, log_level="warning")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()
        self.client = httpx.Client(base_url=settings.web.base_url, timeout=10)
        until(lambda: self.server.started)

    def close(self) -> None:
        self.client.close()
        self.server.should_exit = True
        self.thread.join()
        self.distributor.close()

    def answers(self, number: int = 1, chat: str = LI) -> list[Entry]:
        """The messages in a chat, once there are so many."""
        until(lambda: len(self.messages(chat)) >= number)
        return self.messages(chat)

    def messages(self, chat: str = LI) -> list[Entry]:
        return [entry for entry in self.sandbox.inbox.entries("telegram", chat) if entry.accepted]

    def brings(self, update: Mapping[str, Any] | bytes | str, secret: str | None = SECRET) -> httpx.Response:
        """A call as Telegram makes it, or as somebody else does."""
        body = json.dumps(update).encode() if isinstance(update, Mapping) else update
        return self.client.post(PATH, content=body, headers=headers_of(secret))

    def gets(self, chat: str = LI) -> set[str]:
        known = self.distributor.audience.chat(chat)
        return set() if known.suppressed else set(known.active)

    def open_issue(self) -> Issue:
        settings = self.distributor.settings
        newsletter = settings.newsletters["ai-daily"]
        post = read_post(settings.root / "posts/receipts.md", newsletter.zone)
        assert post.date
        engine = self.distributor.engine
        issue, _ = open_issue(engine, newsletter, post, post.date.date(), by=OpenedBy.PERSON)
        write_audience(engine, issue)
        return issue


def headers_of(secret: str | None) -> list[tuple[bytes, bytes]]:
    return [] if secret is None else [(HEADER.encode(), secret.encode())]


def until(found: Callable[[], Any], seconds: float = 20.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (what := found()):
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.01)
    return what


@pytest.fixture
def served(project: Project, sandbox: Sandbox) -> Iterator[Served]:
    project.write_post("receipts", POST)
    served = Served(settings_of(project, sandbox), sandbox)
    yield served
    served.close()


def test_a_reader_s_whole_conversation(served: Served) -> None:
    """/start, buttons, /today with the engine running, block, unblock, /start, /stop; each answered in the chat."""
    users, settings = served.users, served.distributor.settings
    users.met("123456")
    set_webhook(settings)
    assert [one["command"] for one in users.menus["zh"]] == ["start", "today", "settings", "stop", "help"]
    users.say("42999", "/start")  # somebody else, so that there is an audience
    served.answers(1, "42999")
    served.open_issue()
    runner = Runner(served.distributor, scheduled=False)
    runner.start()
    try:
        users.say(LI, "/start")
        assert "已为你订阅《AI 日报》" in served.answers()[0].content["text"]
        users.say(LI, "/today")
        texts = [entry.content["text"] for entry in served.answers(3)[1:]]
        assert any("谁收到了" in text for text in texts)
        assert any("马上就到" in text for text in texts)
        users.say(LI, "/settings")
        shown = served.answers(4)[3]
        (english,) = [key for row in shown.content["keyboard"] for key in row if key["text"] == "English"]
        users.press(LI, english["data"], shown.id)
        edited = served.answers(5)[4]
        assert (edited.revises, edited.content["text"][:18]) == (shown.id, "Your subscriptions")
        until(lambda: served.sandbox.talking.toasts == [(LI, "Switched to English")])
        users.block(LI)
        until(lambda: served.gets() == set())
        users.unblock(LI)
        users.say(LI, "/start")
        assert "You are subscribed to “AI 日报”" in served.answers(6)[5].content["text"]
        users.say(LI, "/stop")
        assert "unsubscribed" in served.answers(7)[6].content["text"]
        assert served.gets() == set()
    finally:
        runner.stop.set()
        runner.join()


def test_an_update_that_was_not_taken_comes_again(served: Served) -> None:
    """The database is away for a moment: 503, and Telegram brings it again. Nothing is lost, nothing is done twice."""
    database = served.distributor.database
    database.engine.dispose()
    path = Path(str(database.url.database))
    hidden = path.with_suffix(".away")
    set_webhook(served.distributor.settings)
    for suffix in ("", "-wal", "-shm"):
        file = Path(f"{path}{suffix}")
        if file.exists():
            file.rename(f"{hidden}{suffix}")
    served.users.say(LI, "/start")
    until(lambda: "503" in served.users.webhook_info("123456").get("last_error_message", ""))
    database.engine.dispose()
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
        if Path(f"{hidden}{suffix}").exists():
            Path(f"{hidden}{suffix}").rename(f"{path}{suffix}")
    assert "已为你订阅" in served.answers()[0].content["text"]
    assert served.gets() == {"ai-daily"}


class Called:
    """The web app alone, called in this process: nothing is sent."""

    def __init__(self, settings: Settings) -> None:
        self.distributor = build(settings)
        prepare(self.distributor)
        self.app = create_app(self.distributor)

    def brings(self, body: bytes, secret: str | None = SECRET) -> httpx.Response:
        async def story() -> httpx.Response:
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://news.example") as client:
                return await client.post(PATH, content=body, headers=headers_of(secret))

        return asyncio.run(story())


@pytest.fixture(scope="module")
def called(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Called]:
    project = Project(tmp_path_factory.mktemp("called"))
    settings = project.settings(
        newsletter={"channels": {"telegram": {}}},
        environment={"DISTRIBUTOR_TELEGRAM_WEBHOOK_SECRET": SECRET},
        bot={"mode": "webhook"},
    )
    made = Called(settings)
    yield made
    made.distributor.close()


@pytest.mark.parametrize("secret", [None, "", "wrong", SECRET + "x", SECRET.upper(), "早"])
def test_without_the_secret_nothing_is_heard(called: Called, secret: str | None) -> None:
    update = Talking().say(LI, "/start", bot="123456")
    answer = called.brings(json.dumps(update).encode(), secret)
    assert (answer.status_code, answer.headers["content-type"]) == (401, "application/problem+json")
    assert answer.json()["title"] == "Unauthorized"
    assert called.distributor.audience.chat(LI).active == set()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b"null", 400),
        (b"{}", 400),
        (b"\xff\xfe", 400),
        (b"[" * 100_000, 400),
        (b" " * 1_000_001, 413),
        (b'{"update_id": "x"}', 200),
        (b'{"update_id": 1}', 200),
        (b'{"update_id": 1, "message": {"chat": "x"}}', 200),
        (b'{"update_id": 1, "poll": {}}', 200),
        (b'{"update_id": 99999999999999999999, "edited_message": {}}', 200),
    ],
)
def test_what_is_nothing_to_us(called: Called, body: bytes, status: int) -> None:
    """200 for what Telegram may send and we do not want: it would bring it again for a day."""
    answer = called.brings(body)
    assert answer.status_code == status
    assert status == 200 or answer.json()["status"] == status


def test_an_update_that_breaks_us_is_over(
    called: Called, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Telegram would bring it again for a day, and slow everything else down."""

    def broken(*_: object) -> None:
        raise ZeroDivisionError(LI)

    monkeypatch.setattr("distributor.bot.stories.Bot.answer", broken)
    update = Talking().say(LI, "/start", bot="123456")
    assert called.brings(json.dumps(update).encode()).status_code == 200
    assert "bot_update_failed why=ZeroDivisionError" in caplog.text
    assert LI not in caplog.text


def test_a_body_without_its_length_is_read_no_further_than_allowed(served: Served) -> None:
    answer = served.client.post(PATH, content=iter([b" " * 100_000] * 12), headers={HEADER: SECRET})
    assert answer.status_code == 413


def test_replays_over_http(served: Served) -> None:
    update = served.users.say(LI, "/start", bot="123456")
    assert {served.brings(update).status_code for _ in range(5)} == {200}
    other = served.users.say(LI, "/settings", bot="123456")
    assert {served.brings(other).status_code for _ in range(3)} == {200}
    served.answers(2)
    assert len(served.messages()) == 2


def test_a_look_does_nothing(served: Served) -> None:
    assert served.client.get(PATH, headers={HEADER: SECRET}).status_code == 405


def test_who_blocks_during_a_send_gets_nothing_more(project: Project, sandbox: Sandbox) -> None:
    """The engine is at work; nothing goes to that chat later than two seconds after Telegram has told us."""
    project.write_post("receipts", POST)
    settings = settings_of(project, sandbox, engine={"lanes": 1, "slice": 20, "chunk": 500})
    settings = settings.model_copy(update={"telegram": settings.telegram.model_copy(update={"rate": 60})})
    served = Served(settings, sandbox)
    served.users.met("123456")
    set_webhook(settings)
    chats = [str(number) for number in range(43_000, 43_240)]
    try:
        for chat in chats:
            new = NewSubscriber(channel="telegram", address=chat, source="test")
            served.distributor.audience.add("ai-daily", new)
        issue = served.open_issue()
        runner = Runner(served.distributor, scheduled=False)
        runner.start()
        until(lambda: sandbox.inbox.count("telegram"))
        for chat in chats[120:]:
            assert served.brings(served.users.move(chat, "kicked")).status_code == 200
        told_at = time.time()
        until(lambda: served.distributor.ledger.tallies(issue.id)["telegram"].open == 0, 60)
        runner.stop.set()
        runner.join()
        late = [
            one.address
            for one in sandbox.inbox.entries("telegram")
            if one.address in chats[120:] and datetime.fromisoformat(one.at).timestamp() > told_at + 2
        ]
        assert late == []
        tally = served.distributor.ledger.tallies(issue.id)["telegram"]
        assert tally.balanced
        assert tally.skipped >= 60
        assert tally.sent >= 120
    finally:
        served.close()


def test_replies_wait_when_telegram_says_so(served: Served) -> None:
    served.sandbox.faults.add(Fault("telegram", LI, "throttle", value=1, times=1))
    served.brings(served.users.say(LI, "/start", bot="123456"))
    assert "已为你订阅" in served.answers()[0].content["text"]
    assert served.distributor.engine.pacer.blocked(["telegram"]) == {}


def test_a_refused_reply_keeps_nobody_else_waiting(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    served.sandbox.faults.add(Fault("telegram", LI, "blocked"), Fault("telegram", "7", "garbage"))
    for chat in (LI, "7", "42002"):
        served.brings(served.users.say(chat, "/start", bot="123456"))
    served.answers(1, "42002")
    assert "chat=•••001" in caplog.text
    assert LI not in caplog.text
    assert TOKEN not in caplog.text


class TestTheWebhookItself:
    def test_set_look_take_away(self, project: Project, sandbox: Sandbox) -> None:
        settings = settings_of(project, sandbox)
        url = set_webhook(settings)
        found = webhook_status(settings)
        assert (found.username, found.url, found.waiting) == ("sandbox_bot", url, 0)
        assert set(found.updates) == {"message", "my_chat_member", "callback_query"}
        delete_webhook(settings)
        assert webhook_status(settings).url == ""

    @pytest.mark.parametrize(
        ("change", "why"),
        [
            ({"bot": {"mode": "off"}}, "bot.mode"),
            ({"bot": {"webhook_secret": ""}}, "DISTRIBUTOR_TELEGRAM_WEBHOOK_SECRET"),
            ({"telegram": {"api": "https://api.telegram.org"}}, "https://"),
            (
                {
                    "telegram": {"api": "https://api.telegram.org"},
                    "web": {"base_url": "https://x.example:8026"},
                },
                "443",
            ),
        ],
    )
    def test_what_cannot_work_is_refused(
        self, project: Project, sandbox: Sandbox, change: dict[str, dict[str, Any]], why: str
    ) -> None:
        settings = settings_of(project, sandbox)
        for table, values in change.items():
            old = getattr(settings, table)
            new = type(old).model_validate({**dict(old), **values})
            settings = settings.model_copy(update={table: new})
        with pytest.raises(RequestRefused, match=why):
            set_webhook(settings)

    def test_without_a_secret_there_is_no_address(
        self, project: Project, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
    ) -> None:
        settings = settings_of(project, sandbox)
        settings = settings.model_copy(update={"bot": type(settings.bot).model_validate({"mode": "webhook"})})
        served = Served(settings, sandbox)
        assert served.brings({"update_id": 1}, "").status_code == 404
        assert "bot_webhook_off" in caplog.text
        served.close()

    def test_a_wrong_token_is_told(self, project: Project, sandbox: Sandbox) -> None:
        sandbox.faults.add(Fault("telegram", "123456", "bad-token"))
        with pytest.raises(SendError, match="DISTRIBUTOR_TELEGRAM_TOKEN"):
            set_webhook(settings_of(project, sandbox))


def test_every_language_has_every_word() -> None:
    assert set(WORDS) == {"zh-CN", "en"}
    for words in WORDS.values():
        assert set(words.menu) == {"start", "today", "settings", "stop", "help"}
        assert all(len(line) <= 256 for line in words.menu.values())
