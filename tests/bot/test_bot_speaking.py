"""Replies go out at the one pace of the bot, and neither a blast nor a crowd of readers holds the other up."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from fakes import make_newsletter, make_world
from pydantic import SecretStr

from distributor.bot import Speaker
from distributor.bot.replies import Button, Reply, Toast
from distributor.bot.speaking import MOST_WAITING, SHARE
from distributor.channels.telegram import TelegramChannel
from distributor.channels.telegram.transport import close_bots
from distributor.db import Database
from distributor.pacing import Grant, Limit, MemoryPacer
from distributor.sandbox.limits import UNLIMITED, Limits, Rate
from distributor.sandbox.server import Sandbox
from distributor.settings import Settings, TelegramSettings

TOKEN = "123456:sandbox-token-0001"
RATE = 40
#: One a second more than we mean to send: what is late by a few milliseconds counts in the next second.
STRICT = Limits(telegram_bot=Rate(RATE + 4, 1), telegram_chat=Rate(1000, 1))


@pytest.fixture(autouse=True)
def _no_bots_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield
    close_bots()


def settings_for(sandbox: Sandbox, rate: float = RATE) -> Settings:
    telegram = TelegramSettings(api=sandbox.url, token=SecretStr(TOKEN), rate=rate)
    return Settings(root=Path(), telegram=telegram)


def until(found: Callable[[], Any], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.01)


class Watched(MemoryPacer):
    """Remembers what was asked for, and grants what the test says."""

    def __init__(self, grants: Sequence[Grant] = ()) -> None:
        super().__init__()
        self.asked: list[dict[str, float]] = []
        self.grants = list(grants)

    def reserve(self, limits: Sequence[Limit], permits: int = 1, *, within: float = 0.0) -> Grant:
        self.asked.append({limit.key: limit.rate for limit in limits})
        return self.grants.pop(0) if self.grants else super().reserve(limits, permits, within=within)


def test_an_issue_and_a_crowd_share_one_rate(tmp_path: Path) -> None:
    """Sixty messages of an issue and twelve replies at once: Telegram refuses none, and readers do not wait for the end."""
    database = Database(f"sqlite:///{tmp_path}/distributor.sqlite3")
    database.upgrade()
    with Sandbox(None, limits=STRICT) as sandbox:
        settings = settings_for(sandbox)
        world = make_world(
            database,
            channels=[TelegramChannel(settings)],
            newsletter=make_newsletter({"telegram": {}}),
            lanes=2,
            slice=20,
            chunk=100,
        )
        world.subscribe(*map(str, range(5000, 5060)), channel="telegram")
        issue = world.open()
        speaker = Speaker(settings, world.engine.pacer)
        blast = threading.Thread(target=world.drain, args=("telegram",))
        blast.start()
        until(lambda: sandbox.inbox.count("telegram") > 5)
        speaker.say([Reply(chat=str(chat), text="好") for chat in range(7000, 7012)])
        speaker.close(20)
        blast.join()
        order = [entry.address[0] for entry in sandbox.inbox.entries("telegram") if entry.accepted]
        assert (order.count("5"), order.count("7")) == (60, 12)
        assert sandbox.inbox.count("telegram", accepted=False) == 0
        assert order.index("7") < 40
        assert world.check_sum(issue).sent == 60
    database.close()


def test_replies_have_a_share_of_the_rate() -> None:
    pacer = Watched()
    with Sandbox(None, limits=UNLIMITED) as sandbox:
        speaker = Speaker(settings_for(sandbox, 600), pacer)
        speaker.say([Reply(chat="42", text="好")])
        speaker.close()
        assert sandbox.inbox.count("telegram") == 1
    (asked,) = pacer.asked
    assert asked.pop("telegram") > 500
    assert asked == {"telegram:replies": 600 * SHARE}


def test_a_toast_takes_no_permit_and_a_message_brings_its_buttons() -> None:
    pacer = Watched()
    with Sandbox(None, limits=UNLIMITED) as sandbox:
        update = sandbox.talking.press("42", "x", 1, bot="123456")
        speaker = Speaker(settings_for(sandbox), pacer)
        speaker.say(
            [
                Toast(query=update["callback_query"]["id"], text="好"),
                Reply(chat="42", text="<b>a</b>", keyboard=[[Button(label="甲", data="1")]]),
                Toast(query="an old one"),
            ]
        )
        speaker.close()
        assert sandbox.talking.toasts == [("42", "好")]
        (entry,) = sandbox.inbox.entries("telegram", "42")
        assert entry.content["keyboard"] == [[{"text": "甲", "data": "1"}]]
        assert entry.content["preview"] == {"is_disabled": True}
    assert len(pacer.asked) == 1


def test_it_waits_for_its_permit() -> None:
    slept: list[float] = []
    pacer = Watched([Grant(0, 0.7), Grant(0, 30.0), Grant(1, 0.2)])
    with Sandbox(None, limits=UNLIMITED) as sandbox:
        speaker = Speaker(settings_for(sandbox), pacer, sleep=slept.append)
        speaker.say([Reply(chat="42", text="好")])
        speaker.close()
        assert sandbox.inbox.count("telegram") == 1
    assert slept == [0.7, 1.0, 0.2]


def test_what_nobody_waits_for_any_more_is_dropped(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("distributor.bot.speaking.STALE", 0.05)
    with Sandbox(None, limits=UNLIMITED) as sandbox:
        speaker = Speaker(settings_for(sandbox), Watched([Grant(0, 0.1)] * 3))
        speaker.say([Reply(chat="42", text="好")])
        speaker.close()
        assert sandbox.inbox.entries("telegram") == []
    assert "no permit in time" in caplog.text


def _wait(gate: threading.Event) -> None:
    assert gate.wait(20)


def test_a_crowd_fills_no_memory(caplog: pytest.LogCaptureFixture) -> None:
    gate = threading.Event()
    with Sandbox(None, limits=UNLIMITED) as sandbox:
        speaker = Speaker(settings_for(sandbox), Watched([Grant(0, 1.0)]), sleep=lambda _: _wait(gate))
        speaker.say([Reply(chat="42", text="好")])
        speaker.say([Toast(query=str(number)) for number in range(MOST_WAITING + 10)])
        assert caplog.text.count("too many are waiting") >= 9
        while not speaker._waiting.empty():
            speaker._waiting.get_nowait()
        gate.set()
        speaker.close()
        assert sandbox.inbox.count("telegram") == 1


def test_without_a_token_it_says_so(caplog: pytest.LogCaptureFixture) -> None:
    speaker = Speaker(Settings(root=Path()), MemoryPacer())
    speaker.say([Reply(chat="42", text="好")])
    speaker.close()
    assert "DISTRIBUTOR_TELEGRAM_TOKEN" in caplog.text
