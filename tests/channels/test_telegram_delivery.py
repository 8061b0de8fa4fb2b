"""Issues on their way into Telegram chats: the engine, the transport and the simulator together."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fakes import DAY, World, make_newsletter, make_world
from pydantic import SecretStr
from rendering_samples import SAMPLES, make_post

from distributor.channels.telegram import TelegramChannel
from distributor.channels.telegram.transport import close_bots
from distributor.db import Database
from distributor.dispatch import open_issue, write_audience
from distributor.dispatch import test_send as send_test
from distributor.model import DeliveryState, Issue, OpenedBy
from distributor.sandbox.faults import Fault
from distributor.sandbox.inbox import Entry
from distributor.sandbox.limits import UNLIMITED
from distributor.sandbox.server import Sandbox
from distributor.settings import Settings, TelegramSettings

TOKEN = "123456:sandbox-token-0001"
BODY = "\n\n".join(
    f"## {name}\n\n" + "\n\n".join(["这一段有许多句子，说了一件事。" * 20] * 4)
    for name in ("头条", "开源", "观点", "来信", "工具")
)
PUBLIC, PRIVATE = {"name": "main", "chat": "@ai_daily"}, {"name": "desk", "chat": "-100200"}
RICH = {"name": "rich", "chat": "-100300", "format": "rich"}


@pytest.fixture
def sandbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Sandbox(None, limits=UNLIMITED) as running:
        yield running
    close_bots()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(f"sqlite:///{tmp_path}/distributor.sqlite3")
    opened.upgrade()
    yield opened
    opened.close()


@contextmanager
def sent(
    database: Database, sandbox: Sandbox, *places: dict[str, Any], body: str = BODY
) -> Iterator[tuple[World, Issue]]:
    """A world that has sent an issue to these places."""
    world = world_of(database, sandbox, *places)
    post = make_post(body)
    issue, _ = open_issue(world.engine, world.newsletter, post, DAY, by=OpenedBy.PERSON)
    assert write_audience(world.engine, issue)
    world.drain("telegram")
    yield world, issue


def world_of(database: Database, sandbox: Sandbox, *places: dict[str, Any]) -> World:
    telegram = TelegramSettings(
        api=sandbox.url,
        token=SecretStr(TOKEN),
        read_timeout=timedelta(seconds=5),
        rate=1000,
        per_chat_minute=6000,
    )
    channel = TelegramChannel(Settings(root=Path(), telegram=telegram))
    newsletter = make_newsletter({"telegram": {"subscribers": False, "destinations": list(places)}})
    return make_world(database, channels=[channel], newsletter=newsletter)


def messages_in(sandbox: Sandbox, chat: str) -> list[Entry]:
    return [entry for entry in sandbox.inbox.entries("telegram", chat) if entry.accepted]


def contents_links(entry: Entry) -> Sequence[str]:
    return [one["url"] for one in entry.content["entities"] if "t.me" in one.get("url", "")]


def test_a_public_chats_contents_lead_to_the_parts(database: Database, sandbox: Sandbox) -> None:
    with sent(database, sandbox, PUBLIC, PRIVATE) as (world, issue):
        first, second, edit = messages_in(sandbox, "@ai_daily")
        assert edit.revises == first.id
        assert edit.content["text"] == first.content["text"]
        assert not contents_links(first)
        assert set(contents_links(edit)) == {f"https://t.me/ai_daily/{second.id}"}
        entry = world.log(issue)["@ai_daily"]
        assert (entry.state, entry.receipts) == (
            DeliveryState.SENT,
            (str(first.id), str(second.id), str(first.id)),
        )
        assert [one.revises for one in messages_in(sandbox, "-100200")] == [None, None]
        assert world.check_sum(issue).sent == 2


def test_an_edit_that_fails_is_told_in_the_attempt(database: Database, sandbox: Sandbox) -> None:
    sandbox.faults.add(Fault("telegram", "@ai_daily", "uneditable"))
    with sent(database, sandbox, PUBLIC) as (world, issue):
        assert len(messages_in(sandbox, "@ai_daily")) == 2
        entry = world.log(issue)["@ai_daily"]
        assert (entry.state, entry.parts_sent, len(entry.attempts)) == (DeliveryState.SENT, 3, 1)
        assert "contents without links: Message can't be edited" in entry.attempts[0].text


def test_a_rich_message_replaces_the_parts(database: Database, sandbox: Sandbox) -> None:
    with sent(database, sandbox, RICH) as (world, issue):
        [only] = messages_in(sandbox, "-100300")
        assert only.content["rich"]
        assert only.content["source"].count("<h2>") == 5
        entry = world.log(issue)["-100300"]
        assert (entry.state, entry.receipts) == (DeliveryState.SENT, (str(only.id),) * 2)


def test_an_old_server_gets_the_parts(
    database: Database, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    sandbox.faults.add(Fault("telegram", "123456", "old-server"))
    with sent(database, sandbox, RICH) as (world, issue):
        texts = [entry.content["text"] for entry in messages_in(sandbox, "-100300")]
        assert [text.partition("\n")[0] for text in texts] == ["(1/2)", "(2/2)"]
        assert world.log(issue)["-100300"].state is DeliveryState.SENT
    assert "no rich message, parts instead" in caplog.text


@pytest.mark.parametrize(("place", "count"), [(PUBLIC, 3), (RICH, 1), (PRIVATE, 2)])
def test_a_test_send_looks_as_the_issue_will(
    database: Database, sandbox: Sandbox, place: dict[str, Any], count: int
) -> None:
    world = world_of(database, sandbox, place)
    receipts = send_test(world.engine, world.newsletter, make_post(BODY), "telegram", place["name"])
    assert len(receipts) == len(messages_in(sandbox, place["chat"])) == count


def test_every_sample_is_taken_by_the_strict_simulator(database: Database, sandbox: Sandbox) -> None:
    for body in SAMPLES.values():
        world = world_of(database, sandbox, PRIVATE, RICH)
        for place in (PRIVATE, RICH):
            send_test(world.engine, world.newsletter, make_post(body), "telegram", str(place["name"]))
    entries = sandbox.inbox.entries("telegram")
    assert [entry.reason for entry in entries if not entry.accepted] == []
    assert [entry.violations for entry in entries if entry.violations] == []
