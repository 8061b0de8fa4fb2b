"""Letters: confirmations, reminders, welcomes leave by a lane of their own, once, and never to whom they must not."""

import re
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.policy import default
from pathlib import Path
from typing import Any

import pytest
from fakes import BOTH, FakeChannel, World, make_world, migrated_database
from services import Project
from sqlalchemy import select
from test_runner import until
from test_signups import ADDRESS, VISIT, asking

from distributor.audience import NewSubscriber
from distributor.bootstrap import Distributor, build, prepare
from distributor.db import Database
from distributor.dispatch import PostRoom, Request, open_issue, write_audience
from distributor.errors import Kind, Rejected, Scope, Unavailable, Unconfirmed
from distributor.model import DeliveryState, IssueState, Letter, OpenedBy, SuppressionReason
from distributor.outbox import LEASE, Outbox
from distributor.posts import read_post
from distributor.rehearsal import into_sandbox
from distributor.rendering import template_environment
from distributor.runner import Runner
from distributor.sandbox.server import Sandbox
from distributor.tables import letters

DAY = timedelta(days=1)


@pytest.fixture(scope="module", params=BOTH)
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with migrated_database(request, tmp_path_factory) as database:
        yield database


@pytest.fixture
def world(database: Database) -> World:
    return make_world(database)


@pytest.fixture
def room(world: World, tmp_path: Path) -> PostRoom:
    return PostRoom(
        engine=world.engine, outbox=Outbox(world.database), templates=template_environment(tmp_path)
    )


def rows(world: World) -> list[Mapping[str, Any]]:
    with world.database.read() as connection:
        query = select(letters).order_by(letters.c.id)
        return [dict(row) for row in connection.execute(query).mappings()]


def states(world: World) -> list[tuple[str, str]]:
    return [(row["kind"], row["state"]) for row in rows(world)]


def token_of(channel: FakeChannel) -> str:
    url = channel.accepted[-1].values["__CONFIRM_URL__"]
    assert url.startswith("http://news.example/confirm/")
    return url.rpartition("/")[2]


class TestSending:
    def test_a_confirmation_then_a_welcome(self, world: World, room: PostRoom) -> None:
        world.audience.sign_up(asking())
        assert room.send_due() == 1
        assert world.channel.reached == [ADDRESS]
        assert world.audience.confirm(token_of(world.channel), VISIT)
        assert room.send_due() == 1
        assert world.channel.accepted[-1].message.variant == Letter.WELCOME
        assert states(world) == [("confirm", "sent"), ("welcome", "sent")]
        assert rows(world)[0]["relay"] == "fake"
        assert room.send_due() == 0

    def test_in_the_readers_language(self, world: World, room: PostRoom) -> None:
        world.audience.sign_up(asking())
        room.send_due()
        assert world.channel.accepted[-1].message.content["language"] == "en"

    def test_a_reminder_a_day_later_and_not_to_who_confirmed(self, world: World, room: PostRoom) -> None:
        for name in ("one@readers.example", "two@readers.example"):
            world.audience.sign_up(asking(name, remind_after=DAY))
        room.send_due()
        world.audience.confirm(token_of(world.channel), VISIT, welcome=False)
        world.clock.forward(DAY)
        room.send_due()
        assert world.channel.reached[2:] == ["one@readers.example"]
        assert world.audience.confirm(token_of(world.channel), VISIT)
        assert [state for kind, state in states(world) if kind == Letter.REMIND] == ["sent", "skipped"]

    def test_nothing_to_who_complained_meanwhile(self, world: World, room: PostRoom) -> None:
        world.audience.sign_up(asking())
        world.audience.suppress("email", ADDRESS, SuppressionReason.COMPLAINED)
        assert room.send_due() == 0
        assert states(world) == [("confirm", "skipped")]
        assert world.channel.calls == []

    def test_one_that_is_in_hand_is_nobody_elses(self, world: World, room: PostRoom) -> None:
        world.audience.sign_up(asking())
        assert len(room.outbox.take_due()) == 1
        assert room.outbox.take_due() == []
        assert states(world) == [("confirm", "sending")]

    def test_one_whose_process_was_killed_goes_again(self, world: World, room: PostRoom) -> None:
        world.audience.sign_up(asking())
        room.outbox.take_due()
        world.clock.forward(LEASE + timedelta(seconds=1))
        assert room.send_due() == 1
        assert states(world) == [("confirm", "sent")]

    def test_told_to_stop_it_leaves_the_rest_at_once(self, world: World, room: PostRoom) -> None:
        world.audience.sign_up(asking())
        stop = threading.Event()
        stop.set()
        assert room.send_due(stop) == 0
        assert len(room.outbox.take_due()) == 1


class TestTrouble:
    def test_a_mailbox_that_is_not_there_is_suppressed(self, world: World, room: PostRoom) -> None:
        world.channel.script[ADDRESS] = [
            Rejected(text="no such user", code="550", kind=Kind.MAILBOX, suppress=True)
        ]
        world.audience.sign_up(asking())
        room.send_due()
        assert states(world) == [("confirm", "failed")]
        assert world.audience.sign_up(asking()).value == "suppressed"

    def test_a_refusal_does_not_cost_the_connection(self, world: World, room: PostRoom) -> None:
        for name in ("one@readers.example", "two@readers.example"):
            world.channel.script[name] = [Rejected(text="no such user", code="550", kind=Kind.MAILBOX)]
            world.audience.sign_up(asking(name))
        world.audience.sign_up(asking())
        assert room.send_due() == 1
        assert world.channel.opened == 1

    def test_a_temporary_refusal_is_tried_again(self, world: World, room: PostRoom) -> None:
        world.channel.script[ADDRESS] = [Unavailable(text="busy", code="450")]
        world.audience.sign_up(asking())
        room.send_due()
        assert (rows(world)[0]["state"], rows(world)[0]["tries"]) == (DeliveryState.PENDING, 1)
        world.clock.forward(timedelta(minutes=5))
        assert room.send_due() == 1

    def test_so_is_a_reminder(self, world: World, room: PostRoom) -> None:
        world.audience.sign_up(asking(remind_after=DAY))
        room.send_due()
        world.clock.forward(DAY)
        world.channel.script[ADDRESS] = [Unavailable(text="greylisted", code="450")]
        assert room.send_due() == 0
        world.clock.forward(timedelta(minutes=5))
        assert room.send_due() == 1
        assert states(world) == [("confirm", "sent"), ("remind", "sent")]

    def test_a_lost_answer_is_tried_again(self, world: World, room: PostRoom) -> None:
        world.channel.script[ADDRESS] = [Unconfirmed(text="connection lost")]
        world.audience.sign_up(asking())
        room.send_due()
        world.clock.forward(timedelta(minutes=5))
        assert room.send_due() == 1
        first, second = (parcel.sent_date for parcel in world.channel.calls)
        assert first == second  # and with it the Message-ID

    def test_a_relay_that_is_down_costs_nobody_a_try(self, world: World, room: PostRoom) -> None:
        down = Unavailable(text="refused", scope=Scope.CHANNEL, counts=False)
        world.channel.troubles.append(down)
        for name in ("one@readers.example", "two@readers.example"):
            world.audience.sign_up(asking(name))
        assert room.send_due() == 0
        assert world.channel.opened == 1
        assert [(row["state"], row["tries"]) for row in rows(world)] == [("pending", 0)] * 2
        world.clock.forward(timedelta(minutes=1))
        assert room.send_due() == 2

    def test_a_bug_is_no_end(self, world: World, room: PostRoom) -> None:
        def bug(_parcel: object) -> None:
            raise ZeroDivisionError("token=secret")

        world.channel.before = bug
        world.audience.sign_up(asking())
        assert room.send_due() == 0
        assert "secret" not in rows(world)[0]["text"]
        assert rows(world)[0]["state"] == DeliveryState.PENDING

    def test_a_newsletter_that_is_gone_is_no_end(self, world: World, room: PostRoom) -> None:
        world.audience.sign_up(asking(ADDRESS, "weekly"))
        assert room.send_due() == 0
        assert states(world) == [("confirm", "skipped")]


def test_retention_keeps_what_is_still_to_be_sent(world: World, room: PostRoom) -> None:
    world.audience.sign_up(asking(remind_after=200 * DAY))
    room.send_due()
    world.clock.forward(100 * DAY)
    room.outbox.forget(90 * DAY)
    assert [row["kind"] for row in rows(world)] == [Letter.REMIND]


@pytest.fixture
def distributor(project: Project, tmp_path: Path) -> Iterator[tuple[Distributor, Sandbox]]:
    project.write_post("receipts", "---\ntitle: 收据\ndate: 2026-03-05\n---\n\n谁收到了，谁没有收到。\n")
    settings = project.settings(email={"rate": 20})
    with Sandbox(None) as sandbox:
        distributor = build(into_sandbox(settings, sandbox, tmp_path / "var" / "x.sqlite3"))
        prepare(distributor)
        yield distributor, sandbox
        distributor.close()


def test_a_confirmation_leaves_while_an_issue_is_being_sent(
    distributor: tuple[Distributor, Sandbox],
) -> None:
    """Over real SMTP: 100 readers at 20 a second; the letter does not wait for the last of them."""
    app, sandbox = distributor
    for number in range(100):
        new = NewSubscriber(channel="email", address=f"reader-{number}@readers.example", source="test")
        app.audience.add("ai-daily", new)
    newsletter = app.settings.newsletters["ai-daily"]
    post = read_post(app.settings.root / "posts/receipts.md", newsletter.zone)
    issue, _ = open_issue(app.engine, newsletter, post, datetime.now(UTC).date(), by=OpenedBy.PERSON)
    write_audience(app.engine, issue)
    runner = Runner(app, scheduled=False)
    runner.start()
    try:
        until(lambda: sandbox.inbox.entries("email", None))
        asked_at = time.monotonic()
        app.reception.sign_up(Request(address=ADDRESS, newsletters=["ai-daily"], source="form"))
        until(lambda: sandbox.inbox.entries("email", ADDRESS))
        assert time.monotonic() - asked_at < 4
        assert app.ledger.issue(issue.id).state is IssueState.SENDING
    finally:
        runner.stop.set()
        runner.join()
    [entry] = sandbox.inbox.entries("email", ADDRESS)
    mail = message_from_bytes(sandbox.inbox.mail(entry.id), policy=default)
    text = mail.get_body(("plain",))
    assert text is not None
    assert re.search(r"/confirm/[\w-]{22}\b", text.get_content())
    assert "List-Unsubscribe" not in mail


def test_nothing_that_was_typed_is_in_it(world: World, room: PostRoom) -> None:
    """Who signs others up must not be able to send them words of theirs (advertising, threats) as our mail."""
    typed = "buy-now.example"
    world.audience.sign_up(asking(name=f"see {typed}", tags=(typed,), attributes={"note": typed}))
    room.send_due()
    [parcel] = world.channel.accepted
    assert typed not in repr((parcel.message.content, parcel.values, parcel.recipient))
