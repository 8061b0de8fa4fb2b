"""The poller against the sandbox: updates are confirmed once they are done with, and trouble costs only time."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from services import Project

from distributor.bootstrap import Distributor, build, listener_of, prepare
from distributor.bot import Bot, Poller, set_webhook
from distributor.channels.telegram.transport import close_bots
from distributor.errors import ServiceDown
from distributor.sandbox.faults import Fault
from distributor.sandbox.limits import UNLIMITED
from distributor.sandbox.server import Sandbox

TOKEN, LI = "123456:sandbox-token-0001", "42001"


@pytest.fixture
def sandbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Sandbox(None, limits=UNLIMITED) as running:
        running.talking.met("123456")
        yield running
    close_bots()


@pytest.fixture
def distributor(project: Project, sandbox: Sandbox) -> Iterator[Distributor]:
    settings = project.settings(
        newsletter={"channels": {"telegram": {}}},
        environment={"DISTRIBUTOR_TELEGRAM_TOKEN": TOKEN, "DISTRIBUTOR_TELEGRAM_WEBHOOK_SECRET": "s"},
        telegram={"api": sandbox.url, "rate": 1000, "read_timeout": "5s"},
        bot={"mode": "polling"},
    )
    built = build(settings)
    prepare(built)
    yield built
    built.close()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("FIRST_WAIT", 0.02), ("CONFLICT_WAIT", 0.05), ("LOOK", 0.02), ("LONGEST_WAIT", 0.2)):
        monkeypatch.setattr(f"distributor.bot.polling.{name}", value)


def poller_for(distributor: Distributor, bot: Bot | None = None) -> Poller:
    listener = listener_of(distributor)
    return Poller(
        distributor.settings,
        replace(listener, bot=bot) if bot else listener,
        distributor.alerts.tell,
    )


def until(found: Callable[[], Any], seconds: float = 20.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (what := found()):
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.01)
    return what


def gets(distributor: Distributor, chat: str = LI) -> set[str]:
    return set(distributor.audience.chat(chat).active)


def test_what_readers_say_is_heard_and_answered(distributor: Distributor, sandbox: Sandbox) -> None:
    with poller_for(distributor):
        sandbox.talking.say(LI, "/start")
        until(lambda: sandbox.inbox.entries("telegram", LI))
        assert gets(distributor) == {"ai-daily"}
        sandbox.talking.say(LI, "/stop")
        until(lambda: len(sandbox.inbox.entries("telegram", LI)) == 2)
        until(lambda: sandbox.talking.webhook_info("123456")["pending_update_count"] == 0)
        assert "zh" in sandbox.talking.menus
    assert gets(distributor) == set()


def test_it_ends_at_once_in_the_middle_of_a_long_question(distributor: Distributor, sandbox: Sandbox) -> None:
    poller = poller_for(distributor)
    with poller:
        until(lambda: sandbox.talking._listeners["123456"].question)
        began = time.monotonic()
    assert time.monotonic() - began < 3


def test_an_update_is_confirmed_only_when_it_is_done(distributor: Distributor, sandbox: Sandbox) -> None:
    """The database is away for a while: the same update comes again, and those behind it keep their order."""
    real, failures = listener_of(distributor).bot, iter([True, True, True])

    class Shaky(Bot):
        def answer(self, update: Any) -> Any:
            if next(failures, False):
                assert sandbox.talking.webhook_info("123456")["pending_update_count"] == 2
                raise ServiceDown("away")
            return real.answer(update)

    shaky = Shaky(settings=real.settings, reception=real.reception, engine=real.engine, tell=real.tell)
    sandbox.talking.say(LI, "/start")
    sandbox.talking.say(LI, "/stop")
    with poller_for(distributor, shaky):
        until(lambda: len(sandbox.inbox.entries("telegram", LI)) == 2)
    texts = [entry.content["text"] for entry in sandbox.inbox.entries("telegram", LI)]
    assert ["已为你订阅" in texts[0], "已退订" in texts[1]] == [True, True]


def test_a_restart_does_nothing_twice(distributor: Distributor, sandbox: Sandbox) -> None:
    """Killed before the offset reached Telegram: the update comes again, and is known."""
    update = sandbox.talking.say(LI, "/start")
    with poller_for(distributor):
        until(lambda: sandbox.inbox.entries("telegram", LI))
    sandbox.talking._listeners["123456"].waiting.insert(0, update)
    sandbox.talking.say("42002", "/start")
    with poller_for(distributor):
        until(lambda: sandbox.inbox.entries("telegram", "42002"))
    assert len(sandbox.inbox.entries("telegram", LI)) == 1


def test_an_update_that_breaks_us_holds_up_nobody(distributor: Distributor, sandbox: Sandbox) -> None:
    real = listener_of(distributor).bot

    class Broken(Bot):
        def answer(self, update: Any) -> Any:
            if update.said.chat == LI:
                raise ZeroDivisionError
            return real.answer(update)

    broken = Broken(settings=real.settings, reception=real.reception, engine=real.engine, tell=real.tell)
    sandbox.talking.say(LI, "/start")
    odd = sandbox.talking.say(LI, "/start")
    odd["message"]["date"] = "soon"
    sandbox.talking.say("42002", "/start")
    with poller_for(distributor, broken):
        until(lambda: sandbox.inbox.entries("telegram", "42002"))
    assert gets(distributor) == set()


def test_a_second_poller_is_told_to_the_operator_once(distributor: Distributor) -> None:
    with poller_for(distributor), poller_for(distributor):
        until(distributor.notices.listing)
    found = distributor.notices.listing()
    assert len({notice.key for notice in found}) == 1
    assert "Two programs ask" in found[0].subject
    assert "terminated by other getUpdates" in found[0].body


def test_a_webhook_that_is_still_set_is_told(distributor: Distributor, sandbox: Sandbox) -> None:
    settings = distributor.settings
    set_webhook(settings.model_copy(update={"bot": settings.bot.model_copy(update={"mode": "webhook"})}))
    with poller_for(distributor):
        (notice,) = until(distributor.notices.listing)
    assert "distributor bot delete-webhook" in notice.body


@pytest.mark.parametrize("trouble", ["bad-token", "down"])
def test_trouble_costs_only_time(
    distributor: Distributor, sandbox: Sandbox, trouble: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A token that is refused for a while; a server that does not listen for a while."""
    sandbox.talking.say(LI, "/start")
    if trouble == "bad-token":
        sandbox.faults.add(Fault("telegram", "123456", "bad-token", times=2))
        with poller_for(distributor):
            until(lambda: gets(distributor))
    else:
        settings = distributor.settings
        away = settings.model_copy(
            update={"telegram": settings.telegram.model_copy(update={"api": "http://127.0.0.1:9"})}
        )
        poller = poller_for(distributor)
        poller.settings = away
        with poller:
            until(lambda: poller._failures >= 3)
            poller.settings = settings
            until(lambda: gets(distributor))
    assert "bot_polling_waits" in caplog.text
    assert TOKEN not in caplog.text
