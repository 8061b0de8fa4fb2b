"""The sent log: its file, and a database that was set back in time, on both databases."""

import os
import resource
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fakes import (
    BOTH,
    DAY,
    FakeChannel,
    World,
    make_world,
    migrated_database,
    outcome_of,
)
from services import run_sql

from distributor.db import Database
from distributor.dispatch import reconcile, resend, sweep
from distributor.errors import Kind, RequestRefused, Unavailable, Unconfirmed
from distributor.ledger import ResendRequest
from distributor.model import (
    Delivery,
    DeliveryId,
    DeliveryState,
    Issue,
    IssueState,
    OpenedBy,
    Outcome,
    Receipt,
    Recipient,
    ResendScope,
)
from distributor.sentlog import TAIL, SentLog, SentLogBroken

NOW = datetime(2026, 3, 2, 7, 30, tzinfo=UTC)
ANN, BOB = "ann@readers.example", "bob@readers.example"
MOVED = Unavailable(
    text="lives elsewhere", counts=False, retry_after=timedelta(0), new_address="new@r.example"
)
LATER = Unavailable(text="mailbox busy", code="450", kind=Kind.MAILBOX)
SECONDS = timedelta(seconds=5)

#: Tables as they were: called, they are put back.
Copy = Callable[[], None]


@pytest.fixture(scope="module", params=BOTH)
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with migrated_database(request, tmp_path_factory) as database:
        yield database


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    world = make_world(database)
    world.engine = replace(world.engine, sent_log=SentLog(tmp_path / "sent"))
    return world


def issue_of(slug: str = "first", newsletter: str = "daily") -> Issue:
    return Issue(
        id=1,
        newsletter=newsletter,
        local_date=DAY,
        extra=0,
        slug=slug,
        title="A calm morning",
        post_hash="",
        state=IssueState.SENDING,
        opened_by=OpenedBy.PERSON,
        opened_at=NOW,
        expires_at=NOW + timedelta(hours=24),
    )


ISSUE = issue_of()


def outcome(seq: int, state: DeliveryState = DeliveryState.SENT, **details: object) -> Outcome:
    delivery = Delivery(DeliveryId(1, seq), Recipient("email", f"r{seq}@readers.example"), 0, None, 0)
    return outcome_of(delivery, state, **details)


def numbers(handed: Sequence[object]) -> Sequence[int]:
    return [known.seq for known in handed]  # type: ignore[attr-defined]  # Handed, all of them


@pytest.fixture
def sent_log(tmp_path: Path) -> SentLog:
    return SentLog(tmp_path / "sent")


def file_of(sent_log: SentLog) -> Path:
    (path,) = sent_log.folder.glob("*.log")
    return path


class TestTheFile:
    def test_what_was_handed_over_is_read_back_in_order(self, sent_log: SentLog) -> None:
        sent_log.append(ISSUE, [outcome(1, code="250", receipts=("A1",)), outcome(2, DeliveryState.FAILED)])
        sent_log.append(ISSUE, [outcome(3, DeliveryState.UNCONFIRMED)])
        first, second, third = sent_log.all(ISSUE)
        assert first == ("email", ("r1@readers.example",), 1, 0, "sent", 1, ["A1"], "250")
        assert [second.state, third.state] == ["failed", "unconfirmed"]
        assert numbers(sent_log.ends(ISSUE)) == [1, 2, 1, 2, 3]

    def test_a_retry_is_not_noted_unless_a_part_was_sent(self, sent_log: SentLog) -> None:
        sent_log.append(ISSUE, [outcome(1, DeliveryState.PENDING)])
        assert list(sent_log.all(ISSUE)) == []
        sent_log.append(ISSUE, [outcome(1, DeliveryState.PENDING, parts_sent=1)])
        assert [(known.state, known.parts_sent) for known in sent_log.all(ISSUE)] == [("pending", 1)]

    def test_a_delivery_has_all_its_addresses(self, sent_log: SentLog) -> None:
        sent_log.append(ISSUE, [outcome(1, DeliveryState.PENDING, new_address="a@r.example")])
        moved = outcome(1).delivery._replace(recipient=Recipient("email", "a@r.example"))
        sent_log.append(ISSUE, [outcome_of(moved), outcome(2)])
        assert [known.addresses for known in sent_log.all(ISSUE)] == [
            ("r1@readers.example", "a@r.example"),
            ("r1@readers.example", "a@r.example"),
            ("r2@readers.example",),
        ]

    def test_an_issue_without_a_file_was_not_sent(self, sent_log: SentLog) -> None:
        assert sent_log.ends(ISSUE) == ()
        assert list(sent_log.all(ISSUE)) == []

    @pytest.mark.parametrize(
        "torn", [b"[", b'[["email",["r9@', b'\n[["email",["r9@readers.example"],9', b"\0\0\0"]
    )
    def test_the_torn_last_words_of_a_killed_process_are_passed_over(
        self, sent_log: SentLog, torn: bytes
    ) -> None:
        sent_log.append(ISSUE, [outcome(1)])
        with file_of(sent_log).open("ab") as file:
            file.write(torn)
        assert numbers(sent_log.ends(ISSUE)) == [1, 1]
        sent_log.append(ISSUE, [outcome(2)])
        assert numbers(list(sent_log.all(ISSUE))) == [1, 2]

    @pytest.mark.parametrize(
        "garbage", [b"hello\n", b"[[1,2]]\n", b'[["x",}]]\n', b"[[]]\n", b"\xff\xfe[[\n"]
    )
    def test_a_file_that_cannot_be_read_is_told(self, sent_log: SentLog, garbage: bytes) -> None:
        sent_log.append(ISSUE, [outcome(1)])
        with file_of(sent_log).open("ab") as file:
            file.write(garbage)
        with pytest.raises(SentLogBroken, match="cannot be read"):
            sent_log.ends(ISSUE)
        with pytest.raises(SentLogBroken, match="cannot be read"):
            list(sent_log.all(ISSUE))

    def test_only_the_ends_of_a_long_file_are_looked_at(self, sent_log: SentLog) -> None:
        for first in range(0, 10_000, 50):
            sent_log.append(ISSUE, [outcome(seq) for seq in range(first, first + 50)])
        ends = numbers(sent_log.ends(ISSUE))
        assert ends[:50] == list(range(50))
        assert ends[-1] == 9_999
        assert len(ends) < 5_000

    def test_a_last_slice_that_is_longer_than_the_tail(self, sent_log: SentLog) -> None:
        sent_log.append(ISSUE, [outcome(1)])
        sent_log.append(ISSUE, [outcome(2, receipts=("x" * TAIL,))])
        assert numbers(sent_log.ends(ISSUE)) == [1, 1, 2]

    @pytest.mark.parametrize(
        "other", [issue_of(slug="second"), issue_of(newsletter="weekly"), issue_of("每" * 80)]
    )
    def test_each_issue_has_its_own(self, sent_log: SentLog, other: Issue) -> None:
        sent_log.append(ISSUE, [outcome(1)])
        sent_log.append(other, [outcome(2)])
        assert numbers(list(sent_log.all(ISSUE))) == [1]
        assert numbers(list(sent_log.all(other))) == [2]

    def test_names_that_look_alike_are_told_apart(self, sent_log: SentLog) -> None:
        sent_log.append(issue_of("b-c", "a"), [outcome(1)])
        assert sent_log.ends(issue_of("c", "a-b")) == ()

    def test_nobody_else_may_read_it(self, sent_log: SentLog) -> None:
        sent_log.append(ISSUE, [outcome(1)])
        assert file_of(sent_log).stat().st_mode & 0o777 == 0o600

    def test_old_files_are_forgotten(self, sent_log: SentLog) -> None:
        sent_log.append(ISSUE, [outcome(1)])
        sent_log.append(issue_of("second"), [outcome(2)])
        now = datetime.now(UTC)
        old = next(path for path in sent_log.folder.iterdir() if "first" in path.name)
        os.utime(old, (0, (now - timedelta(days=181)).timestamp()))
        sent_log.forget(now - timedelta(days=180))
        assert list(sent_log.all(ISSUE)) == []
        assert numbers(list(sent_log.all(issue_of("second")))) == [2]

    def test_a_place_that_cannot_be_written_is_told_before_anything_is_sent(self, tmp_path: Path) -> None:
        (tmp_path / "sent").write_text("a file, not a folder")
        with pytest.raises(
            SentLogBroken, match=r"cannot be written: .*name another folder in engine.journal"
        ):
            SentLog(tmp_path / "sent").check(ISSUE)

    def test_half_a_line_on_a_full_disk_is_no_success(self, sent_log: SentLog) -> None:
        sent_log.append(ISSUE, [outcome(1)])
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_of(sent_log).stat().st_size + 20, before[1]))
        try:
            with pytest.raises(SentLogBroken, match="cannot be written: the disk is full"):
                sent_log.append(ISSUE, [outcome(2)])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        sent_log.append(ISSUE, [outcome(2)])
        assert numbers(list(sent_log.all(ISSUE))) == [1, 2]


# ── a database that was set back ─────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def copies(database: Database, tmp_path: Path) -> Iterator[Callable[[], Copy]]:
    """Takes a copy of the database, as a backup does; the copy, called, is put in its place."""
    if database.sqlite:
        yield lambda: copy_of_file(database, tmp_path)
        return
    made: list[str] = []
    admin = database.url.set(database="postgres").render_as_string(hide_password=False)

    def copy() -> Copy:
        name, backup = database.url.database, f"{database.url.database}_copy_{len(made)}"
        made.append(backup)
        database.close()  # a template must have no connections
        run_sql(admin, f"CREATE DATABASE {backup} TEMPLATE {name}")

        def put_back() -> None:
            database.close()
            run_sql(admin, f"DROP DATABASE {name} WITH (FORCE)")
            run_sql(admin, f"CREATE DATABASE {name} TEMPLATE {backup}")

        return put_back

    yield copy
    for backup in made:
        run_sql(admin, f"DROP DATABASE {backup} WITH (FORCE)")


def copy_of_file(database: Database, folder: Path) -> Copy:
    path = Path(str(database.url.database))
    checkpoint(database)
    backup = folder / f"backup-{len(list(folder.iterdir()))}.sqlite3"
    shutil.copy(path, backup)

    def put_back() -> None:
        database.close()
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        shutil.copy(backup, path)

    return put_back


def checkpoint(database: Database) -> None:
    """Everything from the write-ahead log into the file."""
    raw = database.engine.raw_connection()
    raw.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
    raw.close()
    database.close()


def readers(number: int) -> Sequence[str]:
    return [f"r{n}" for n in range(number)]


def send(world: World, upto: int) -> None:
    """Sends until so many were tried in all."""
    stop = threading.Event()

    def look(_parcel: object) -> None:
        if len(channel.calls) + 1 >= upto:
            stop.set()

    channel = world.channel
    channel.before = look
    world.drain(stop=stop)
    channel.before = lambda _parcel: None
    assert len(channel.calls) == upto


def is_held(world: World, issue: Issue) -> bool:
    """After a worker and a sweeper have looked."""
    world.drain()
    sweep(world.engine)
    found = world.ledger.issue(issue.id)
    assert found.paused is bool(found.hold)
    return found.hold is not None


def asked(scope: ResendScope, address: str | None = None) -> ResendRequest:
    return ResendRequest(scope=scope, reason="the relay was ill", by="ann", address=address)


class TestSetBack:
    @pytest.mark.parametrize("who", [sweep, lambda _engine: None], ids=["the sweeper", "a worker"])
    def test_nothing_is_sent_twice_and_the_rest_goes_out_once(
        self, world: World, copies: Callable[[], Copy], who: Callable[[object], None]
    ) -> None:
        world.subscribe(*readers(12))
        issue = world.open()
        send(world, 5)
        put_back = copies()
        send(world, 9)
        put_back()
        who(world.engine)
        assert is_held(world, issue)
        assert len(world.channel.reached) == 9
        assert world.check_sum(issue).sent == 5

        assert reconcile(world.engine, issue.id, keep_held=False) == 4
        assert world.check_sum(issue).sent == 9
        assert not is_held(world, issue)
        assert sorted(world.channel.reached) == sorted(map(world.address, readers(12)))
        assert world.check_sum(issue).sent == 12
        assert world.ledger.issue(issue.id).state is IssueState.FINISHED

    def test_the_issue_itself_was_forgotten(self, world: World, copies: Callable[[], Copy]) -> None:
        world.subscribe(*readers(8))
        put_back = copies()
        old = world.open()
        send(world, 5)
        put_back()
        world.open(DAY - timedelta(days=1), slug="another")
        anew = world.open()
        assert anew.id != old.id
        assert is_held(world, anew)
        assert len(world.channel.reached) == 5 + 8  # the other post's
        assert reconcile(world.engine, anew.id, keep_held=False) == 5
        assert not is_held(world, anew)
        assert len(world.channel.reached) == 8 + 8
        assert world.check_sum(anew).sent == 8

    def test_what_failed_and_what_is_in_doubt_is_not_tried_again(
        self, world: World, copies: Callable[[], Copy]
    ) -> None:
        world.subscribe("ann", "bob", "cy")
        world.channel.script = {
            ANN: [Unavailable(text="no", code="450")] * 3,
            BOB: [Unconfirmed(text="lost")],
        }
        issue = world.open()
        put_back = copies()
        for _try in range(3):
            world.drain()
            world.clock.forward(SECONDS)
        put_back()
        assert is_held(world, issue)
        assert reconcile(world.engine, issue.id, keep_held=False) == 3
        assert world.states(issue) == {"ann": "failed", "bob": "unconfirmed", "cy": "sent"}
        assert world.log(issue)[ANN].code == "450"
        assert not is_held(world, issue)
        assert len(world.channel.calls) == 5

    def test_a_resend_was_forgotten(self, world: World, copies: Callable[[], Copy]) -> None:
        world.subscribe("ann", "bob")
        issue = world.open()
        world.drain()
        put_back = copies()
        resend(world.engine, issue.id, asked(ResendScope.ALL, ANN))
        world.drain()
        put_back()
        resend(world.engine, issue.id, asked(ResendScope.ALL, ANN))
        assert is_held(world, issue)
        assert reconcile(world.engine, issue.id, keep_held=False) == 1
        assert world.log(issue)[ANN].resend == 1
        assert not is_held(world, issue)
        assert world.channel.reached.count(ANN) == 2

    def test_the_recipient_had_moved(self, world: World, copies: Callable[[], Copy]) -> None:
        world.subscribe("ann")
        world.channel.script = {ANN: [MOVED]}
        issue = world.open()
        put_back = copies()
        world.drain()
        world.clock.forward(SECONDS)
        world.drain()
        assert world.channel.reached == ["new@r.example"]
        put_back()
        assert is_held(world, issue)
        assert reconcile(world.engine, issue.id, keep_held=False) == 1
        assert world.states(issue) == {"ann": "sent"}

    def test_parts_that_were_sent_are_not_sent_again(
        self, database: Database, copies: Callable[[], Copy], tmp_path: Path
    ) -> None:
        world = make_world(database, channels=[FakeChannel(parts=2)])
        world.engine = replace(world.engine, sent_log=SentLog(tmp_path / "sent"))
        world.subscribe("ann")
        world.channel.script = {ANN: [Receipt(), LATER]}
        issue = world.open()
        put_back = copies()
        world.drain()
        put_back()
        assert is_held(world, issue)
        assert reconcile(world.engine, issue.id, keep_held=False) == 1
        assert not is_held(world, issue)
        assert [parcel.message.part for parcel in world.channel.accepted] == [1, 2]

    def test_it_expired_while_it_waited_and_was_sent_all_the_same(
        self, world: World, copies: Callable[[], Copy]
    ) -> None:
        world.subscribe("ann", "bob", "cy")
        issue = world.open()
        put_back = copies()
        send(world, 2)
        put_back()
        assert is_held(world, issue)
        world.clock.forward(timedelta(days=9))
        sweep(world.engine)
        assert set(world.states(issue).values()) == {"skipped(expired)"}
        assert reconcile(world.engine, issue.id, keep_held=False) == 2
        assert sorted(world.states(issue).values()) == ["sent", "sent", "skipped(expired)"]
        world.check_sum(issue)

    def test_several_hosts_put_it_right_one_after_the_other(
        self, world: World, copies: Callable[[], Copy], tmp_path: Path
    ) -> None:
        here = world.engine
        there = replace(here, sent_log=SentLog(tmp_path / "there"))
        world.subscribe(*readers(12))
        issue = world.open()
        put_back = copies()
        send(world, 4)
        world.engine = there
        send(world, 8)
        put_back()
        assert is_held(world, issue)
        assert reconcile(there, issue.id, keep_held=True) == 4
        assert is_held(world, issue)
        assert reconcile(here, issue.id, keep_held=False) == 4
        assert not is_held(world, issue)
        assert sorted(world.channel.reached) == sorted(map(world.address, readers(12)))

    def test_it_may_be_done_again(self, world: World) -> None:
        world.subscribe("ann", "bob", "cy")
        issue = world.open()
        send(world, 2)
        assert reconcile(world.engine, issue.id, keep_held=False) == 0
        world.ledger.set_paused(issue.id, paused=True)
        reconcile(world.engine, issue.id, keep_held=False)
        assert world.ledger.issue(issue.id).paused  # a person's pause, not ours


class TestNoFalseAlarm:
    def test_a_resend_that_is_still_to_come(self, world: World) -> None:
        world.subscribe("ann", "bob")
        issue = world.open()
        world.drain()
        resend(world.engine, issue.id, asked(ResendScope.ALL))
        assert not is_held(world, issue)
        assert sorted(world.channel.reached) == [ANN, ANN, BOB, BOB]
        assert not is_held(world, issue)

    def test_retries(self, world: World) -> None:
        world.subscribe("ann", "bob")
        world.channel.script = {ANN: [LATER, LATER], BOB: [LATER]}
        issue = world.open()
        for _try in range(3):
            assert not is_held(world, issue)
            world.clock.forward(SECONDS)
        assert world.states(issue) == {"ann": "sent", "bob": "sent"}

    @pytest.mark.parametrize("answer", [MOVED, Receipt(address="new@r.example")], ids=["refused", "accepted"])
    @pytest.mark.parametrize("both_known", [False, True])
    def test_an_address_that_changed(self, world: World, answer: Receipt, both_known: bool) -> None:
        world.subscribe("ann", "bob", *(["new@r.example"] if both_known else []))
        world.channel.script = {ANN: [answer]}
        issue = world.open()
        send(world, 1)
        assert not is_held(world, issue)
        world.clock.forward(SECONDS)
        assert not is_held(world, issue)
        assert set(world.states(issue).values()) == {"sent"}

    @pytest.mark.parametrize("sent", [True, False])
    def test_a_person_s_word(self, world: World, sent: bool) -> None:
        world.subscribe("ann", "bob")
        world.channel.script = {ANN: [Unconfirmed(text="answer lost")]}
        issue = world.open()
        send(world, 1)
        world.drain()
        world.ledger.resolve(issue.id, world.log(issue)[ANN].seq, sent=sent, by="ann")
        assert not is_held(world, issue)
        assert reconcile(world.engine, issue.id, keep_held=False) == 0
        if not sent:
            resend(world.engine, issue.id, asked(ResendScope.FAILED))
            assert not is_held(world, issue)
            assert world.states(issue) == {"ann": "sent", "bob": "sent"}


class TestRefused:
    def test_without_a_sent_log(self, world: World) -> None:
        world.subscribe("ann")
        issue = world.open()
        with pytest.raises(RequestRefused, match="there is no sent log here"):
            reconcile(replace(world.engine, sent_log=None), issue.id, keep_held=False)

    def test_while_the_audience_is_written_down(self, world: World) -> None:
        world.subscribe("ann")
        issue, _token, _moment = world.frozen_only()
        with pytest.raises(RequestRefused, match="is opening: not all its deliveries"):
            reconcile(world.engine, issue.id, keep_held=False)

    def test_while_workers_are_at_it(self, world: World) -> None:
        world.subscribe("ann", "bob")
        issue = world.open()
        send(world, 1)
        chunk = world.ledger.lease("email", "worker:2", timedelta(seconds=60))
        assert chunk is not None
        with pytest.raises(RequestRefused, match="workers still have 1 chunks of issue"):
            reconcile(world.engine, issue.id, keep_held=False)
        assert not world.ledger.issue(issue.id).hold
        assert not world.ledger.issue(issue.id).paused


class TestTrouble:
    """Nothing is sent while nobody could tell; nothing is lost."""

    def check_that_it_goes_on(self, world: World, issue: Issue) -> None:
        world.ledger.resume_channel("email")
        world.drain()
        assert sorted(world.channel.reached) == [ANN, BOB]
        assert world.check_sum(issue).sent == 2

    def test_the_file_cannot_be_written(self, world: World, tmp_path: Path) -> None:
        world.subscribe("ann", "bob")
        issue = world.open()
        (tmp_path / "sent").write_text("a file, not a folder")
        world.drain()
        assert world.channel.calls == []
        stop = world.ledger.stopped_channels()["email"]
        assert "the sent log cannot be written" in stop.reason
        assert world.check_sum(issue).pending == 2
        (tmp_path / "sent").unlink()
        self.check_that_it_goes_on(world, issue)

    def test_the_disk_is_full_in_the_middle(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """What the ledger has is kept, and the chunk goes back."""

        def full(_log: SentLog, _issue: Issue, outcomes: Sequence[Outcome]) -> None:
            if outcomes:
                raise SentLogBroken("the sent log cannot be written: the disk is full")

        world.subscribe("ann", "bob", "cy")
        issue = world.open()
        with monkeypatch.context() as patched:
            patched.setattr(SentLog, "append", full)
            world.drain()
        assert len(world.channel.reached) == 2
        tally = world.check_sum(issue)
        assert (tally.sent, tally.pending) == (2, 1)
        assert "the disk is full" in world.ledger.stopped_channels()["email"].reason
        world.ledger.resume_channel("email")
        world.drain()
        assert len(set(world.channel.reached)) == len(world.channel.reached) == 3

    def test_the_file_cannot_be_read(self, world: World, tmp_path: Path) -> None:
        world.subscribe("ann", "bob")
        issue = world.open()
        send(world, 1)
        (path,) = (tmp_path / "sent").iterdir()
        whole = path.read_bytes()
        path.write_bytes(b"what somebody's editor left\n")
        world.drain()
        assert len(world.channel.calls) == 1
        assert "cannot be read" in world.ledger.stopped_channels()["email"].reason
        assert any("cannot be read" in trouble for trouble in sweep(world.engine).troubles)
        with pytest.raises(SentLogBroken, match="cannot be read"):
            reconcile(world.engine, issue.id, keep_held=False)
        assert not world.ledger.issue(issue.id).hold
        path.write_bytes(whole)
        self.check_that_it_goes_on(world, issue)
