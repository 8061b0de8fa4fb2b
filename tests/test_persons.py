"""A person's data shown and erased, on both databases, while an issue is being sent too."""

import json
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fakes import (
    BOTH,
    DAY,
    FakeChannel,
    World,
    make_newsletter,
    make_post,
    make_world,
    migrated_database,
    outcome_of,
)
from sqlalchemy import insert, select, update

from distributor.audience import Changes, NewSubscriber, SignUp, Visit, mention
from distributor.cli.output import json_text
from distributor.db import Database
from distributor.dispatch import (
    forget,
    open_issue,
    opening,
    plan_resend,
    record_of_person,
    resend,
    write_audience,
)
from distributor.errors import Kind, Rejected, RequestRefused, Unavailable, Unconfirmed
from distributor.journal import Journals
from distributor.ledger import ResendRequest
from distributor.model import (
    ConsentText,
    Delivery,
    DeliveryId,
    DeliveryState,
    LinkPurpose,
    OpenedBy,
    Parcel,
    Recipient,
    ResendScope,
    SuppressionReason,
)
from distributor.outbox import Outbox
from distributor.sentlog import SentLog
from distributor.tables import (
    deliveries,
    events,
    imports,
    metadata,
    notices,
    old_links,
    subscribers,
    subscriptions,
    suppressions,
    webhook_calls,
)

ANN, BOB, CHAT = "ann@readers.example", "bob@readers.example", "4711"
WORDS = ConsentText(version="v1", language="en", text="Yes, mail me.")
ASK = {"reason": "they asked", "by": "test"}


@pytest.fixture(scope="module", params=BOTH)
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with migrated_database(request, tmp_path_factory) as database:
        yield database


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    channels = (FakeChannel("email"), FakeChannel("telegram"))
    return keeping_files(make_world(database, channels=channels), tmp_path)


def keeping_files(world: World, folder: Path) -> World:
    world.engine = replace(
        world.engine,
        sent_log=SentLog(folder / "sent"),
        journals=Journals(folder / "journal"),
        sleep=lambda _seconds: None,
    )
    return world


def sign_up(world: World, address: str = ANN, **more: Any) -> None:
    asked = {"language": "en", "source": "form", "ip": "192.0.2.7", "wording": WORDS, "vouched": True, **more}
    world.audience.sign_up(SignUp(address=address, newsletters=["daily"], **asked))


def link(world: World, chat: str, to: str) -> None:
    """The chat belongs to the reader of that mailbox."""
    world.subscribe(chat, channel="telegram")
    with world.database.write() as connection:
        number = connection.execute(select(subscribers.c.id).where(subscribers.c.address == to)).scalar_one()
        connection.execute(update(subscribers).where(subscribers.c.address == chat).values(linked_to=number))


def everything(world: World) -> str:
    """All rows of all tables, as one text."""
    with world.database.read() as connection:
        return "\n".join(
            f"{table.name} {tuple(row)}"
            for table in metadata.sorted_tables
            for row in connection.execute(select(table))
        )


def naming(world: World, *addresses: str) -> Sequence[str]:
    """Rows that still name somebody."""
    return [
        line
        for line in everything(world).splitlines()
        if any(mention(address).search(line) for address in addresses)
    ]


def of_ann(world: World) -> Mapping[str, Any]:
    """A life of a reader: signed up, tagged, mailed twice, with everything else there can be."""
    sign_up(world)
    sign_up(world, BOB)
    link(world, CHAT, ANN)
    world.audience.describe("daily", "email", ANN, Changes(add=["vip"], attributes={"city": "Paris"}))
    world.channel.script[ANN] = [Unavailable(text=f"450 {ANN} is busy", code="450", kind=Kind.MAILBOX)]
    issue = world.open()
    world.drain("email")
    world.drain("telegram")
    world.clock.forward(timedelta(minutes=5))
    world.drain("email")
    resend(world.engine, issue.id, ResendRequest(scope=ResendScope.ALL, address=ANN, channel="email", **ASK))
    world.drain("email")
    token = world.token("ann")
    world.audience.new_link(token, LinkPurpose.TELEGRAM, timedelta(hours=1))
    world.audience.suppress("email", ANN, SuppressionReason.BOUNCED, f"550 <{ANN}> unknown")
    now = datetime.now(UTC)
    call = {
        "endpoint": "crm",
        "kind": "subscription.subscribed",
        "body": {"data": {"address": ANN, "note": "hello"}},
        "tries": 0,
        "created_at": now,
        "code": "",
        "text": "",
    }
    with world.database.write() as connection:
        (number,) = connection.execute(
            select(subscriptions.c.id)
            .join(subscribers, subscribers.c.id == subscriptions.c.subscriber_id)
            .where(subscribers.c.address == ANN)
        ).scalars()
        of = connection.execute(
            insert(imports)
            .values(
                newsletter="daily",
                origin="ghost",
                file="members.csv",
                asked_by="me",
                started_at=now,
                counts={},
            )
            .returning(imports.c.id)
        ).scalar_one()
        connection.execute(update(subscriptions).where(subscriptions.c.id == number).values(import_id=of))
        connection.execute(insert(old_links).values(hash="h", subscription_id=number))
        connection.execute(
            insert(webhook_calls),
            [
                {**call, "event_id": "1", "state": DeliveryState.SENT, "due_at": None},
                {**call, "event_id": "2", "state": DeliveryState.PENDING, "due_at": now},
            ],
        )
        connection.execute(
            insert(notices).values(
                key="k",
                route="log",
                subject="trouble",
                body=f"refused: {ANN.upper()}, x{ANN}",
                state="sent",
                tries=0,
                due_at=now,
                created_at=now,
                error="",
            )
        )
        connection.execute(
            insert(events).values(
                provider="distributor",
                provider_event_id=f"unsuppressed email {ANN} then",
                kind="unsubscribed",
                channel="email",
                address=ANN,
                occurred_at=now,
                received_at=now,
                detail=f"<{ANN}>",
            )
        )
    return {"issue": issue, "token": token}


class TestShowing:
    def test_all_of_it_in_one_document(self, world: World) -> None:
        of_ann(world)
        document = json.loads(json_text(record_of_person(world.engine, "email", " ANN@Readers.example ")))
        mailbox, chat = document["places"]
        assert (mailbox["address"], chat["address"]) == (ANN, CHAT)
        assert set(document["meanings"]) == set(mailbox) - {"channel", "address"}
        assert mailbox["subscriber"]["language"] == "en"
        (subscription,) = mailbox["subscriptions"]
        assert (subscription["tags"], subscription["attributes"]) == (["vip"], {"city": "Paris"})
        assert subscription["imported_from"] == "ghost"
        consent = mailbox["consents"][0]
        assert (consent["kind"], consent["ip"], consent["words"]) == (
            "asserted",
            "192.0.2.7",
            "Yes, mail me.",
        )
        assert [letter["kind"] for letter in mailbox["letters"]] == ["welcome"]
        assert [link["purpose"] for link in mailbox["links"]] == ["telegram"]
        (delivery,) = mailbox["deliveries"]
        assert (delivery["newsletter"], delivery["title"]) == ("daily", "A calm morning")
        assert [attempt["outcome"] for attempt in delivery["attempts"]] == ["pending", "sent", "sent"]
        assert mailbox["suppressions"][0]["reason"] == "bounced"
        assert mailbox["resends"][0]["reason"] == "they asked"
        assert len(mailbox["webhook_calls"]) == 2
        assert {event["kind"] for event in mailbox["events"]} >= {"subscribed", "unsubscribed"}
        assert [one["state"] for one in chat["deliveries"]] == ["sent"]

    def test_a_chat_leads_to_the_same_person(self, world: World) -> None:
        of_ann(world)
        document = record_of_person(world.engine, "telegram", CHAT)
        assert [place["address"] for place in document["places"]] == [ANN, CHAT]

    def test_nobody_elses_and_no_key_of_theirs(self, world: World) -> None:
        made = of_ann(world)
        document = json_text(record_of_person(world.engine, "email", ANN))
        assert BOB not in document
        assert made["token"] not in document

    def test_of_a_stranger_there_is_nothing(self, world: World) -> None:
        (place,) = record_of_person(world.engine, "email", "zoe@readers.example")["places"]
        assert not any(value for name, value in place.items() if name not in {"channel", "address"})


class TestForgetting:
    def test_no_row_and_no_file_names_them_any_more(self, world: World, tmp_path: Path) -> None:
        issue = of_ann(world)["issue"]
        before = world.check_sum(issue)
        done = forget(world.engine, "telegram", CHAT)
        left = naming(world, ANN, CHAT)
        assert [line.split()[0] for line in left if "'pending'" not in line] == []
        assert done.places == [("email", ANN), ("telegram", CHAT)]
        assert (done.deliveries, done.skipped) == (2, 0)
        assert done.calls == len(left) == 1  # it goes out first
        assert world.check_sum(issue) == before
        files = [path.read_text("utf-8", "replace") for path in tmp_path.rglob("*") if path.is_file()]
        assert not any(mention(ANN).search(text) or mention(CHAT).search(text) for text in files)
        assert any(BOB in text for text in files)
        assert "vip" not in everything(world)
        assert "192.0.2.7" in everything(world)  # Bob's

    def test_who_is_named_in_longer_words_stays(self, world: World) -> None:
        of_ann(world)
        forget(world.engine, "email", ANN)
        with world.database.read() as connection:
            body = connection.execute(select(notices.c.body)).scalar_one()
        assert body == f"refused: [erased], x{ANN}"

    def test_a_reason_to_write_nobody_is_kept_as_a_hash(self, world: World) -> None:
        of_ann(world)
        forget(world.engine, "email", ANN)
        with world.database.read() as connection:
            rows = connection.execute(
                select(suppressions.c.channel, suppressions.c.address, suppressions.c.reason)
            )
            kept = {row.channel: (row.address[:7], row.reason) for row in rows}
        assert kept == {"email": ("erased:", "bounced"), "telegram": ("erased:", "erased")}

    def test_a_call_that_went_out_is_emptied_at_the_second_time(self, world: World) -> None:
        of_ann(world)
        forget(world.engine, "email", ANN)
        with world.database.write() as connection:
            connection.execute(update(webhook_calls).values(due_at=None, state=DeliveryState.SENT))
        done = forget(world.engine, "email", ANN)
        assert done.calls == 0
        assert naming(world, ANN) == []

    def test_again_is_harmless(self, world: World) -> None:
        of_ann(world)
        forget(world.engine, "email", ANN)
        before = everything(world)
        done = forget(world.engine, "email", ANN)
        assert (done.deliveries, done.skipped, done.files) == (0, 0, 0)
        assert len(everything(world).splitlines()) == len(before.splitlines())

    def test_the_erased_delivery_is_sent_to_nobody(self, world: World) -> None:
        issue = of_ann(world)["issue"]
        forget(world.engine, "email", ANN)
        asked = ResendRequest(scope=ResendScope.ALL, **ASK)
        assert plan_resend(world.engine, issue.id, asked).by_channel == {"email": 1}
        resend(world.engine, issue.id, asked)
        world.drain("email")
        assert world.channel.reached[-1] == BOB
        assert sum("erased" in address for address in world.channel.reached) == 0

    def test_the_sent_log_still_agrees_with_the_ledger(self, world: World) -> None:
        issue = of_ann(world)["issue"]
        forget(world.engine, "email", ANN)
        assert world.engine.sent_log is not None
        handed = list(world.engine.sent_log.all(issue))
        assert world.ledger.forgot(issue, handed) == 0
        with world.database.write() as connection:
            connection.execute(update(deliveries).values(state=DeliveryState.PENDING, resend=0))
        assert world.ledger.forgot(issue, handed) == 3  # Ann, her chat, and Bob are all recognised

    def test_a_place_of_the_configuration_is_no_person(self, database: Database) -> None:
        place = Recipient("telegram", CHAT, destination="editors")
        world = make_world(database, channels=(FakeChannel("email"), FakeChannel("telegram", fixed=[place])))
        with pytest.raises(RequestRefused, match=r"4711 is a destination of daily .*newsletters/daily\.toml"):
            forget(world.engine, "telegram", CHAT)


class TestComingBack:
    def test_nobody_else_can_bring_them_back(self, world: World) -> None:
        of_ann(world)
        world.audience.unsuppress("email", ANN)
        forget(world.engine, "email", ANN)
        sign_up(world)  # vouched by a caller
        with pytest.raises(RequestRefused, match="is suppressed"):
            world.audience.add("daily", NewSubscriber(channel="email", address=ANN, source="by hand"))
        with pytest.raises(RequestRefused, match="only its reader can come back"):
            world.audience.unsuppress("email", ANN)
        assert world.audience.count("daily", "email") == 1
        assert naming(world, ANN)[1:] == []

    def test_they_themselves_can(self, world: World) -> None:
        sign_up(world)
        issue = world.open()
        world.drain("email")
        forget(world.engine, "email", ANN)
        sign_up(world, vouched=False)
        with world.database.read() as connection:
            number = connection.execute(select(subscribers.c.id)).scalar_one()
        token = world.audience.open_confirmation(number, world.clock(), reminder=False)
        assert token is not None
        assert world.audience.confirm(token, Visit(source="link"))
        assert world.audience.count("daily", "email") == 1
        # And are forgotten a second time, with the same issue sent to them once more in between.
        asked = ResendRequest(scope=ResendScope.MISSING, **ASK)
        assert resend(world.engine, issue.id, asked) == 1
        world.drain("email")
        forget(world.engine, "email", ANN)
        assert naming(world, ANN) == []
        assert world.check_sum(issue).sent == 2

    def test_a_complaint_stays_final(self, world: World) -> None:
        sign_up(world)
        world.audience.suppress("email", ANN, SuppressionReason.COMPLAINED)
        forget(world.engine, "email", ANN)
        sign_up(world, vouched=False)
        with world.database.read() as connection:
            assert connection.execute(select(subscribers)).first() is None
        with pytest.raises(RequestRefused, match="that is final"):
            world.audience.unsuppress("email", ANN)

    def test_a_reason_that_was_found_wrong_leaves_the_way_open(self, world: World) -> None:
        sign_up(world)
        link(world, CHAT, ANN)
        world.audience.suppress("email", ANN, SuppressionReason.BOUNCED)
        world.audience.suppress("telegram", CHAT, SuppressionReason.BLOCKED)
        forget(world.engine, "email", ANN)
        sign_up(world, vouched=False)
        assert naming(world, ANN) == []
        world.audience.unsuppress("email", ANN)
        with world.database.read() as connection:
            assert set(connection.execute(select(suppressions.c.reason)).scalars()) == {"erased"}
        sign_up(world)
        assert naming(world, ANN) == []
        sign_up(world, vouched=False)
        assert naming(world, ANN) != []

    def test_a_late_complaint_is_noted_under_the_hash(self, world: World) -> None:
        sign_up(world)
        forget(world.engine, "email", ANN)
        world.audience.suppress("email", ANN, SuppressionReason.COMPLAINED, f"about {ANN}")
        assert naming(world, ANN) == []
        with world.database.read() as connection:
            assert connection.execute(select(suppressions.c.reason)).scalars().all() == ["complained"]


class TestWhileItIsSent:
    def test_what_is_pending_is_skipped_and_nothing_breaks(self, world: World) -> None:
        """Ann is forgotten by another thread while the lanes send: sums hold, nobody else misses anything."""
        names = [f"r{number}" for number in range(30)]
        world.subscribe(*names, "ann")
        issue = world.open()
        erased = threading.Event()
        first = threading.Event()

        def slowly(_parcel: Parcel) -> None:
            first.set()
            erased.wait(10)

        world.channel.before = slowly
        errors: list[BaseException] = []

        def erase() -> None:
            try:
                first.wait(10)
                done.append(forget(world.engine, "email", ANN))
            except BaseException as error:
                errors.append(error)
            finally:
                erased.set()

        done: list[Any] = []
        thread = threading.Thread(target=erase)
        thread.start()
        world.drain("email")
        thread.join()
        assert errors == []
        assert (done[0].skipped, done[0].deliveries) == (1, 1)
        total = world.check_sum(issue)
        assert (total.planned, total.sent, total.skipped) == (31, 30, 1)
        assert ANN not in world.channel.reached
        assert naming(world, ANN) == []

    def test_one_that_a_worker_has_in_hand_is_waited_for(self, world: World) -> None:
        world.subscribe("ann", "bob")
        issue = world.open()
        refused = Rejected(text=f"550 {ANN} unknown", code="550", kind=Kind.MAILBOX, suppress=True)
        in_hand, go_on = threading.Event(), threading.Event()

        def hold(parcel: Parcel) -> None:
            if parcel.recipient.address == ANN:
                in_hand.set()
                go_on.wait(10)

        world.channel.before = hold
        world.channel.script[ANN] = [refused]
        thread = threading.Thread(target=world.drain, args=("email",))
        thread.start()
        assert in_hand.wait(10)
        with pytest.raises(RequestRefused, match=r"is being sent to ann@readers\.example at this moment"):
            forget(world.engine, "email", ANN, patience=timedelta(seconds=1))

        def let_it_end(_seconds: float) -> None:
            go_on.set()
            thread.join()

        world.engine = replace(world.engine, sleep=let_it_end)
        forget(world.engine, "email", ANN)
        assert naming(world, ANN) == []
        assert world.check_sum(issue).failed == 1
        with world.database.read() as connection:
            assert connection.execute(select(suppressions.c.reason)).scalars().all() == ["bounced"]

    def test_so_is_a_letter_and_those_that_wait_are_taken_back(self, world: World) -> None:
        sign_up(world)
        outbox = Outbox(world.database)
        (letter,) = outbox.take_due()
        sign_up(world, BOB)
        with pytest.raises(RequestRefused, match="a letter is being sent to ann@"):
            forget(world.engine, "email", ANN, patience=timedelta(0))
        outbox.settle(letter, DeliveryState.SENT, code="250", text=f"ok {ANN}")
        forget(world.engine, "email", ANN)
        forget(world.engine, "email", BOB)
        assert outbox.counts() == {}
        assert naming(world, ANN, BOB) == []

    def test_a_window_that_is_being_written_brings_nobody_back(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The person is forgotten between two windows: neither the rest of the audience nor its names hold them."""
        world.newsletter = make_newsletter({"email": {"filter": "not tag:none"}})
        world.engine.newsletters["daily"] = world.newsletter  # type: ignore[index]
        world.subscribe("bob", "cy", "ann")
        monkeypatch.setattr(opening, "FIRST_WINDOW", 1)
        monkeypatch.setattr(opening, "WINDOW", 1)
        write = world.ledger.write_window

        def forgetting(*arguments: Any, **options: Any) -> int:
            written = write(*arguments, **options)
            forget(world.engine, "email", ANN)
            return written

        monkeypatch.setattr(world.ledger, "write_window", forgetting)
        issue, _ = open_issue(world.engine, world.newsletter, make_post(), DAY, by=OpenedBy.PERSON)
        assert write_audience(world.engine, issue)
        assert naming(world, ANN) == []
        world.drain("email")
        total = world.check_sum(issue)
        assert (total.planned, total.sent) == (2, 2)

    def test_one_in_a_window_already_is_skipped(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        world.subscribe("ann", "bob")
        monkeypatch.setattr(opening, "FIRST_WINDOW", 1)
        plan = world.ledger.plan

        def forgetting(*arguments: Any, **options: Any) -> None:
            forget(world.engine, "email", ANN)
            plan(*arguments, **options)

        monkeypatch.setattr(world.ledger, "plan", forgetting)
        issue = world.open()
        world.drain("email")
        total = world.check_sum(issue)
        assert (total.planned, total.sent, total.skipped) == (2, 1, 1)
        assert naming(world, ANN) == []

    def test_an_unconfirmed_one_stays_so(self, world: World) -> None:
        world.subscribe("ann", "bob")
        world.channel.script[ANN] = [Unconfirmed(text="lost")]
        issue = world.open()
        world.drain("email")
        forget(world.engine, "email", ANN)
        total = world.check_sum(issue)
        assert (total.sent, total.unconfirmed) == (1, 1)


class TestFiles:
    def test_a_journal_that_nobody_holds_is_blotted_and_still_reads(self, tmp_path: Path) -> None:
        journals = Journals(tmp_path)
        held, left = journals.open("held", 4), journals.open("left", 4)
        delivery = Delivery(DeliveryId(1, 2), Recipient("email", ANN), 0, None, 0)
        for journal in (held, left):
            journal.end(outcome_of(delivery, DeliveryState.FAILED, text=f"550 <Ann@readers.example> x{ANN}"))
        left.close(keep=True)
        (tmp_path / "old.broken").write_bytes(f"junk {ANN} junk".encode())
        pattern = re.compile(mention(ANN).pattern.encode(), re.IGNORECASE)
        assert journals.erase(pattern) == 2
        assert journals.erase(pattern) == 0
        (record,) = journals.read("left") or ()
        assert record.ended is not None
        assert record.ended["text"] == f"550 <{'*' * len(ANN)}> x{ANN}"
        assert (tmp_path / "old.broken").read_bytes() == f"junk {'*' * len(ANN)} junk".encode()
        held.close()

    def test_a_line_that_is_added_while_the_sent_log_is_written_anew_is_not_lost(
        self, world: World, tmp_path: Path
    ) -> None:
        world.subscribe("ann", *(f"r{number}" for number in range(40)))
        issue = world.open()
        sent_log = SentLog(tmp_path / "busy")
        outcomes = [
            outcome_of(
                Delivery(DeliveryId(issue.id, seq), Recipient("email", f"r{seq}@readers.example"), 0, None, 0)
            )
            for seq in range(200)
        ]
        ann = outcome_of(Delivery(DeliveryId(issue.id, 999), Recipient("email", ANN), 0, None, 0))

        def append() -> None:
            for outcome in outcomes:
                sent_log.append(issue, [outcome, ann])

        thread = threading.Thread(target=append)
        thread.start()
        while thread.is_alive():
            sent_log.erase("email", ANN, "erased:1")
        thread.join()
        sent_log.erase("email", ANN, "erased:1")
        handed = list(sent_log.all(issue))
        assert len(handed) == 400
        assert {known.seq for known in handed if known.addresses == ("erased:1",)} == {999}

    def test_the_addresses_before_a_move_go_too(self, world: World, tmp_path: Path) -> None:
        world.subscribe("ann")
        issue = world.open()
        sent_log = SentLog(tmp_path / "moved")
        first = Delivery(DeliveryId(issue.id, 1), Recipient("telegram", "100"), 0, None, 0)
        sent_log.append(issue, [outcome_of(first, DeliveryState.PENDING, new_address="200")])
        second = first._replace(recipient=Recipient("telegram", "200"))
        sent_log.append(issue, [outcome_of(second)])
        assert sent_log.erase("telegram", "200", "erased:2") == 1
        assert {known.addresses for known in sent_log.all(issue)} == {("erased:2",)}
