"""Exactness: what a lane, its journal and whoever takes its lease over make of each delivery, whatever ends the lane."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fakes import (
    BOTH,
    DAY,
    LEASE,
    QUICK,
    FakeChannel,
    World,
    make_engine,
    make_world,
    migrated_database,
)
from services import Project

from distributor.channels.email import EmailChannel
from distributor.db import Database
from distributor.dispatch import Policy, drain, hold, lane, sweep
from distributor.errors import Kind, Scope, ServiceDown, Unavailable, Unconfirmed
from distributor.journal import Journals
from distributor.ledger import LogEntry
from distributor.model import Issue, IssueState, Parcel, Receipt, Relay, SkipReason
from distributor.pacing import Limit
from distributor.sandbox.server import Sandbox

SECOND = timedelta(seconds=1)
NAMES = ("ann", "bob", "cy", "dora")
ANN, BOB, CY, DORA = (f"{name}@readers.example" for name in NAMES)


@pytest.fixture(scope="module", params=BOTH)
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with migrated_database(request, tmp_path_factory) as database:
        yield database


@pytest.fixture(scope="module")
def sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """For what does not depend on the database."""
    database = Database(f"sqlite:///{tmp_path_factory.mktemp('lanes')}/distributor.sqlite3")
    database.upgrade()
    yield database
    database.close()


@pytest.fixture
def journals(tmp_path: Path) -> Journals:
    return Journals(tmp_path / "journal")


@pytest.fixture
def world(database: Database, journals: Journals) -> World:
    """Four readers in one chunk, one slice and one lane."""
    return make_journalled(database, journals)


def make_journalled(database: Database, journals: Journals, **engine: Any) -> World:
    world = make_world(database, **{"chunk": 4, "slice": 4, **engine})
    world.keep_journals(journals.folder)
    world.subscribe(*NAMES)
    return world


def explode(_parcel: Parcel) -> Receipt:
    """Ends the lane, as a lost process would: no answer of a transport."""
    raise ServiceDown("the lane ends here")


def left_over(journals: Journals) -> Sequence[str]:
    """Names of all files but the folder's identity."""
    return sorted(path.name for path in journals.folder.iterdir() if path.name != "host")


def only_journal(journals: Journals) -> Path:
    (path,) = journals.folder.glob("*.journal")
    return path


def crash_at_bob(world: World) -> Issue:
    """The lane of an issue ends while bob's message is under way; ann's was accepted before."""
    world.channel.script[BOB] = [explode]
    issue = world.open()
    with pytest.raises(ServiceDown, match="ends here"):
        world.drain()
    return issue


def tried(world: World, issue: Issue) -> dict[str, list[str]]:
    """Name → outcomes of its attempts, in order; asserts that they are numbered without gaps."""
    found = {}
    for address, entry in world.log(issue).items():
        assert [attempt.number for attempt in entry.attempts] == list(range(1, len(entry.attempts) + 1))
        found[address.partition("@")[0]] = [attempt.outcome for attempt in entry.attempts]
    return found


class TestWhatAJournalSaves:
    def test_a_drain_leaves_no_journal_behind(self, database: Database, journals: Journals) -> None:
        world = make_journalled(database, journals, chunk=2, slice=1, lanes=2)
        issue = world.open()
        assert world.drain() == 4
        assert left_over(journals) == []
        assert world.check_sum(issue).sent == 4

    def test_a_lane_that_ends_leaves_one_in_doubt(self, world: World, journals: Journals) -> None:
        issue = crash_at_bob(world)
        assert world.check_sum(issue).sending == 4
        assert sweep(world.engine).recovered == 1
        assert world.states(issue) == {
            "ann": "sent",
            "bob": "unconfirmed",
            "cy": "pending",
            "dora": "pending",
        }
        assert tried(world, issue) == {"ann": ["sent"], "bob": ["unconfirmed"], "cy": [], "dora": []}
        ann = world.log(issue)[ANN]
        assert (ann.receipts, ann.code, ann.tries) == (("id-1",), "250", 1)
        assert left_over(journals) == []
        world.check_sum(issue)
        world.drain()
        assert world.channel.reached == [ANN, CY, DORA]

    def test_under_the_policy_to_resend_it_goes_out_again(
        self, database: Database, journals: Journals
    ) -> None:
        world = make_journalled(database, journals, policy=Policy(retry=QUICK, on_unconfirmed="resend"))
        issue = crash_at_bob(world)
        sweep(world.engine)
        assert world.states(issue)["bob"] == "pending"
        world.drain()
        assert sorted(world.channel.reached) == [ANN, BOB, CY, DORA]
        assert tried(world, issue) == {name: ["sent"] for name in NAMES} | {"bob": ["pending", "sent"]}
        assert world.check_sum(issue).sent == 4

    def test_every_outcome_is_written_as_it_was(self, database: Database, journals: Journals) -> None:
        world = make_journalled(database, journals)
        world.channel.script = {
            ANN: [Unavailable(text="mailbox busy", code="450", kind=Kind.MAILBOX)],
            BOB: [Unconfirmed(text="answer lost", code="read")],
            CY: [explode],
        }
        issue = world.open()
        with pytest.raises(ServiceDown, match="ends here"):
            world.drain()
        sweep(world.engine)
        assert world.states(issue) == {
            "ann": "pending",
            "bob": "unconfirmed",
            "cy": "unconfirmed",
            "dora": "pending",
        }
        log = world.log(issue)
        assert (log[ANN].code, log[ANN].tries) == ("450", 1)
        assert log[ANN].due_at is not None
        assert log[BOB].code == "read"
        assert log[CY].code == "lease"

    def test_the_parts_that_went_are_not_sent_again(self, database: Database, journals: Journals) -> None:
        channel = FakeChannel(parts=3, script={ANN: [Receipt(provider_id="p1"), explode]})
        world = make_journalled(database, journals, channels=[channel])
        issue = world.open()
        with pytest.raises(ServiceDown, match="ends here"):
            world.drain()
        sweep(world.engine)
        ann = world.log(issue)[ANN]
        assert (ann.state, ann.parts_sent, ann.receipts) == ("unconfirmed", 1, ("p1",))

    def test_a_journal_that_is_gone_leaves_the_slice_in_doubt(self, world: World, journals: Journals) -> None:
        issue = crash_at_bob(world)
        only_journal(journals).unlink()
        assert sweep(world.engine).recovered == 0
        world.clock.forward(LEASE)
        assert sweep(world.engine).recovered == 1
        assert world.states(issue) == dict.fromkeys(NAMES, "unconfirmed")
        world.check_sum(issue)

    def test_so_does_one_that_cannot_be_read_and_a_person_is_told(
        self, world: World, journals: Journals
    ) -> None:
        issue = crash_at_bob(world)
        path = only_journal(journals)
        path.write_bytes(b"something else altogether, written over it by somebody")
        swept = sweep(world.engine)
        assert swept.recovered == 1
        (told,) = swept.troubles
        assert str(path) in told
        assert "unconfirmed" in told
        assert left_over(journals) == [path.with_suffix(".broken").name]
        assert world.states(issue) == dict.fromkeys(NAMES, "unconfirmed")
        world.check_sum(issue)
        again = sweep(world.engine)
        assert (again.recovered, list(again.troubles)) == (0, [])

    def test_two_sweepers_at_once_write_it_once(self, world: World, journals: Journals) -> None:
        issue = crash_at_bob(world)
        sweepers = [threading.Thread(target=sweep, args=(world.engine,)) for _ in range(4)]
        for sweeper in sweepers:
            sweeper.start()
        for sweeper in sweepers:
            sweeper.join()
        assert tried(world, issue) == {"ann": ["sent"], "bob": ["unconfirmed"], "cy": [], "dora": []}
        assert left_over(journals) == []
        world.check_sum(issue)

    def test_a_channel_that_left_the_configuration_does_not_stop_the_sweep(self, world: World) -> None:
        issue = crash_at_bob(world)
        world.engine = replace(world.engine, channels={}, policies={})
        assert sweep(world.engine).recovered == 1
        assert world.states(issue)["ann"] == "sent"


#: A worker as it is run, in a project's folder: with its journals and its sent log.
WORKER = """
import sys
from pathlib import Path
from distributor.bootstrap import build
from distributor.dispatch import drain
from distributor.settings import load_settings

drain(build(load_settings(Path(sys.argv[1]), {})).engine, "email", seconds=60)
"""
LANES, CONNECTIONS = 3, 2


@pytest.fixture
def inbox() -> Iterator[Sandbox]:
    with Sandbox(None, pipelining=True) as sandbox:
        yield sandbox


def wait_until(true: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


def kill_in_the_middle(project: Project, inbox: Sandbox) -> None:
    """Runs a worker until it has sent some more, then ends it without a warning."""
    goal = inbox.inbox.count("email") + 40
    with subprocess.Popen([sys.executable, "-c", WORKER, str(project.root)]) as worker:
        wait_until(lambda: inbox.inbox.count("email") >= goal)
        worker.kill()
        assert worker.wait() == -signal.SIGKILL


class TestKilled:
    def test_one_is_in_doubt_a_connection_and_nobody_gets_it_twice(
        self, database: Database, project: Project, inbox: Sandbox
    ) -> None:
        settings = project.settings(
            database={"url": database.url.render_as_string(hide_password=False)},
            email={"smtp": {"port": inbox.smtp_port, "helo": "tests.example"}},
            engine={"chunk": 40, "slice": 20, "lanes": LANES, "connections": CONNECTIONS},
        )
        world = make_world(database, channels=[EmailChannel(settings)], chunk=40, slice=20)
        journals = world.keep_journals(settings.path(settings.engine.journal))
        many(world, 200)
        issue = world.open()
        for killed in (1, 2):
            kill_in_the_middle(project, inbox)
            assert sweep(world.engine).recovered
            tally = world.check_sum(issue)
            assert tally.sending == 0
            assert tally.unconfirmed <= LANES * CONNECTIONS * killed
        world.drain("email", seconds=20)
        tally = world.check_sum(issue)
        arrived = inbox.inbox.addresses("email")
        assert max(arrived.values()) == 1
        assert tally.sent + tally.unconfirmed == 200
        assert len(arrived) >= tally.sent
        assert left_over(journals) == ["sent"]
        assert set(tried_times(world, issue)) == {1}


def tried_times(world: World, issue: Issue) -> Counter[int]:
    return Counter(len(entry.attempts) for entry in world.log(issue).values())


@pytest.fixture
def one_clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[World], None]:
    """Makes the lanes' own clock go with the database's, which a test moves."""
    real = hold.clock

    def bind(world: World) -> None:
        def clock() -> float:
            return real() + world.clock.offset.total_seconds()

        monkeypatch.setattr(hold, "clock", clock)
        monkeypatch.setattr(lane, "clock", clock)

    return bind


class TestTakenOver:
    def test_the_holder_ends_its_message_begins_none_and_its_proof_settles_late(
        self, world: World, journals: Journals
    ) -> None:
        issue = world.open()
        seen: list[Any] = []

        def overtaken(_parcel: Parcel) -> Receipt:
            world.clock.forward(LEASE)
            world.ledger.set_paused(issue.id, paused=True)
            seen.extend([sweep(world.engine).recovered, world.states(issue)])
            return Receipt(provider_id="late", code="250")

        world.channel.script[BOB] = [overtaken]
        world.drain()
        assert seen == [1, {"ann": "sent", "bob": "unconfirmed", "cy": "pending", "dora": "pending"}]
        assert world.channel.reached == [ANN, BOB]
        assert world.states(issue) == {"ann": "sent", "bob": "sent", "cy": "pending", "dora": "pending"}
        assert world.log(issue)[BOB].receipts == ("late",)
        assert left_over(journals) == []
        world.check_sum(issue)
        world.ledger.set_paused(issue.id, paused=False)
        world.drain()
        assert world.channel.reached == [ANN, BOB, CY, DORA]

    def test_between_two_parts_what_went_is_known(
        self, sqlite: Database, journals: Journals, one_clock: Callable[[World], None]
    ) -> None:
        channel = FakeChannel(parts=2)
        world = make_journalled(sqlite, journals, channels=[channel])
        one_clock(world)
        issue = world.open()

        def too_late(_parcel: Parcel) -> Receipt:
            world.clock.forward(LEASE)
            return Receipt(provider_id="p1")

        channel.script[ANN] = [too_late]
        world.drain()
        assert Counter(channel.reached) == dict.fromkeys((ANN, BOB, CY, DORA), 2)
        assert world.log(issue)[ANN].receipts[0] == "p1"
        assert left_over(journals) == []
        world.check_sum(issue)

    def test_another_host_waits_and_the_holder_stops_by_its_own_clock(
        self, world: World, tmp_path: Path, one_clock: Callable[[World], None]
    ) -> None:
        one_clock(world)
        elsewhere = replace(world.engine, journals=Journals(tmp_path / "elsewhere"), worker="other:1")
        issue = world.open()
        recovered = []

        def frozen(_parcel: Parcel) -> Receipt:
            for _lease in range(2):
                world.clock.forward(LEASE)
                recovered.append(sweep(elsewhere).recovered)
            world.ledger.set_paused(issue.id, paused=True)
            return Receipt(provider_id="late", code="250")

        world.channel.script[BOB] = [frozen]
        world.drain()
        assert recovered == [0, 1]
        assert world.channel.reached == [ANN, BOB]
        # Its journal is elsewhere: the slice was in doubt, and what the holder knows came after.
        assert world.states(issue) == {
            "ann": "sent",
            "bob": "sent",
            "cy": "unconfirmed",
            "dora": "unconfirmed",
        }
        world.check_sum(issue)

    def test_a_journal_that_is_found_later_still_proves(
        self, world: World, journals: Journals, tmp_path: Path
    ) -> None:
        issue = crash_at_bob(world)
        elsewhere = replace(world.engine, journals=Journals(tmp_path / "elsewhere"))
        world.clock.forward(2 * LEASE)
        assert sweep(elsewhere).recovered == 1
        assert world.states(issue) == dict.fromkeys(NAMES, "unconfirmed")
        assert sweep(world.engine).recovered == 0
        assert world.states(issue) == dict.fromkeys(NAMES, "unconfirmed") | {"ann": "sent"}
        assert world.log(issue)[ANN].receipts == ("id-1",)
        assert left_over(journals) == []
        world.check_sum(issue)

    def test_a_lease_that_ran_out_and_nobody_took_is_no_loss(
        self, world: World, journals: Journals, one_clock: Callable[[World], None]
    ) -> None:
        one_clock(world)
        issue = world.open()

        def slow(_parcel: Parcel) -> Receipt:
            world.clock.forward(2 * LEASE)
            return Receipt(provider_id="slow", code="250")

        world.channel.script[BOB] = [slow]
        world.drain()
        assert world.channel.reached == [ANN, BOB, CY, DORA]
        assert tried(world, issue) == {name: ["sent"] for name in NAMES}
        assert left_over(journals) == []
        world.check_sum(issue)

    def test_a_send_longer_than_the_lease_keeps_it(self, database: Database, journals: Journals) -> None:
        world = make_journalled(database, journals, lease="1s")
        elsewhere = replace(world.engine, journals=Journals(journals.folder / "elsewhere"))
        issue = world.open()
        recovered = []

        def slow(_parcel: Parcel) -> Receipt:
            until = time.monotonic() + 3
            while time.monotonic() < until:
                recovered.append(sweep(elsewhere).recovered + sweep(world.engine).recovered)
                time.sleep(0.2)
            return Receipt(code="250")

        world.channel.script[ANN] = [slow]
        world.drain()
        assert len(recovered) > 5
        assert not any(recovered)
        assert world.channel.reached == [ANN, BOB, CY, DORA]
        assert tried(world, issue) == {name: ["sent"] for name in NAMES}

    def test_a_worker_that_must_end_leaves_its_answers_to_a_successor(
        self, world: World, journals: Journals, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world.engine = replace(world.engine, sleep=lambda _seconds: None)
        issue = world.open()
        stop = threading.Event()
        world.channel.before = lambda parcel: stop.set() if parcel.recipient.address == BOB else None

        def away(*_arguments: Any) -> Any:
            raise ServiceDown("the database is away")

        with monkeypatch.context() as patched:
            patched.setattr(world.ledger, "finish", away)
            with pytest.raises(ServiceDown, match="2 outcomes were waiting"):
                world.drain(stop=stop)
        assert sweep(world.engine).recovered == 1
        assert world.states(issue) == {"ann": "sent", "bob": "sent", "cy": "pending", "dora": "pending"}
        assert world.log(issue)[BOB].receipts == ("id-2",)
        assert left_over(journals) == []


class TestALostAnswer:
    """The commit is done, and its answer never comes."""

    def lose(self, world: World, monkeypatch: pytest.MonkeyPatch, method: str, which: int) -> list[int]:
        """The answer to the call of that number (from 0) is lost; returns the numbers of the calls made."""
        real: Callable[..., Any] = getattr(world.ledger, method)
        calls: list[int] = []

        def committed(*arguments: Any) -> Any:
            calls.append(len(calls))
            answer = real(*arguments)
            if calls[-1] == which:
                raise ServiceDown("the answer to the commit was lost")
            return answer

        monkeypatch.setattr(world.ledger, method, committed)
        return calls

    @pytest.mark.parametrize("which", [0, 1, 2])
    def test_to_a_turn(
        self, database: Database, journals: Journals, monkeypatch: pytest.MonkeyPatch, which: int
    ) -> None:
        world = make_journalled(database, journals, slice=2)
        issue = world.open()
        calls = self.lose(world, monkeypatch, "turn", which)
        world.drain()
        assert which in calls
        self.check(world, issue)

    def test_to_a_turn_that_gives_some_back_and_takes_them_again(
        self, database: Database, journals: Journals, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(lane, "SLICE_AGE", 0.2)
        world = make_journalled(database, journals)
        world.channel.before = lambda parcel: time.sleep(0.3) if parcel.recipient.address == BOB else None
        issue = world.open()
        calls = self.lose(world, monkeypatch, "turn", 1)
        world.drain()
        assert 1 in calls
        self.check(world, issue)

    def test_to_what_ends_a_chunk(
        self, database: Database, journals: Journals, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world = make_journalled(database, journals)
        issue = world.open()
        stop = threading.Event()
        world.channel.before = lambda parcel: stop.set() if parcel.recipient.address == BOB else None
        calls = self.lose(world, monkeypatch, "finish", 0)
        world.drain(stop=stop)
        assert calls == [0, 1]
        assert world.check_sum(issue).pending == 2
        world.drain()
        self.check(world, issue)

    def test_to_giving_the_chunk_back(
        self, database: Database, journals: Journals, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world = make_journalled(database, journals, chunk=2)
        issue = world.open()
        self.lose(world, monkeypatch, "release", 0)
        with pytest.raises(ServiceDown):
            world.drain()
        sweep(world.engine)
        world.drain()
        self.check(world, issue)

    def test_to_a_lease(
        self, database: Database, journals: Journals, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world = make_journalled(database, journals)
        issue = world.open()
        real = world.ledger.lease
        left = [ServiceDown("the answer to the commit was lost")]

        def committed(*arguments: Any, **more: Any) -> Any:
            answer = real(*arguments, **more)
            if left:
                raise left.pop()
            return answer

        monkeypatch.setattr(world.ledger, "lease", committed)
        with pytest.raises(ServiceDown):
            world.drain()
        assert world.drain() == 0
        world.clock.forward(LEASE)
        sweep(world.engine)
        world.drain()
        self.check(world, issue)

    def check(self, world: World, issue: Issue) -> None:
        tally = world.check_sum(issue)
        assert (tally.sent, tally.sending) == (4, 0)
        assert sorted(world.channel.reached) == [ANN, BOB, CY, DORA]
        assert tried(world, issue) == {name: ["sent"] for name in NAMES}
        assert world.engine.journals is not None
        assert left_over(world.engine.journals) == []


class TestJournalTrouble:
    def fill_disk(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(_file: int, _offset: int, _length: int) -> None:
            raise OSError(28, os.strerror(28))

        monkeypatch.setattr(os, "posix_fallocate", full)

    @pytest.mark.parametrize(
        "ways_out", [[Relay(name="one")], [Relay(name="one"), Relay(name="two")]], ids=["one", "two relays"]
    )
    def test_a_full_disk_stops_the_channel_until_there_is_room(
        self, database: Database, journals: Journals, ways_out: Sequence[Relay]
    ) -> None:
        world = make_journalled(database, journals, channels=[FakeChannel(ways_out=ways_out)])
        issue = world.open()
        with pytest.MonkeyPatch.context() as patched:
            self.fill_disk(patched)
            assert world.drain() == 0
        assert "No space left on device" in world.ledger.stopped_channels()["email"].reason
        assert tried(world, issue) == {name: [] for name in NAMES}
        assert world.drain() == 0
        world.clock.forward(5 * SECOND)
        assert world.drain() == 4
        assert world.ledger.stopped_channels() == {}
        assert world.check_sum(issue).sent == 4
        assert left_over(journals) == []

    def test_an_answer_too_long_for_the_journal_sends_nobody_a_second_one(self, world: World) -> None:
        world.channel.script[BOB] = [Receipt(provider_id="q" * 100_000, code="250")]
        issue = world.open()
        for _round in range(3):
            world.drain()
            sweep(world.engine)
            world.clock.forward(LEASE)
        assert sorted(world.channel.reached) == [ANN, BOB, CY, DORA]
        assert world.states(issue)["bob"] in {"sent", "unconfirmed"}
        assert world.check_sum(issue).open == 0

    def test_a_folder_that_cannot_be_made_stops_the_channel_not_the_sweep(
        self, sqlite: Database, tmp_path: Path
    ) -> None:
        (tmp_path / "file").write_text("in the way")
        world = make_journalled(sqlite, Journals(tmp_path / "file" / "journal"))
        world.open()
        world.drain()
        assert "engine.journal" in world.ledger.stopped_channels()["email"].reason
        assert sweep(world.engine).troubles

    def test_a_folder_that_went_away_is_met_by_the_next_lease(
        self, sqlite: Database, journals: Journals
    ) -> None:
        world = make_journalled(sqlite, journals)
        world.open()
        assert journals.host
        assert world.engine.journals is not None
        assert world.engine.journals.host
        (journals.folder / "host").unlink()
        journals.folder.rmdir()
        assert world.drain() == 0
        assert "engine.journal" in world.ledger.stopped_channels()["email"].reason


def many(world: World, number: int) -> None:
    world.subscribe(*(f"reader-{each}" for each in range(number)))


class TestAPersonInterferes:
    @pytest.mark.parametrize("how", ["pause", "cancel"])
    def test_within_two_seconds(self, sqlite: Database, journals: Journals, how: str) -> None:
        channel = FakeChannel(pace=[Limit("email", rate=40, burst=4)])
        world = make_world(sqlite, channels=[channel], chunk=200, slice=100, lanes=2)
        world.keep_journals(journals.folder)
        many(world, 200)
        issue = world.open()
        last: list[float] = []
        channel.before = lambda _parcel: last.append(time.monotonic())
        draining = threading.Thread(target=world.drain)
        draining.start()
        wait_until(lambda: len(last) > 5)
        if how == "pause":
            world.ledger.set_paused(issue.id, paused=True)
        else:
            world.ledger.stop_issue(issue.id, IssueState.CANCELLED, SkipReason.CANCELLED)
        asked = time.monotonic()
        draining.join()
        sweep(world.engine)
        assert 0 < last[-1] - asked < 2
        tally = world.check_sum(issue)
        assert tally.sent == len(channel.accepted) < 200
        assert (tally.pending if how == "pause" else tally.skipped) == 200 - tally.sent


class TestPace:
    def test_a_slice_shrinks_to_what_its_age_allows(
        self, sqlite: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(lane, "SLICE_AGE", 0.5)
        channel = FakeChannel(pace=[Limit("email", rate=20)])
        world = make_world(sqlite, channels=[channel], chunk=100, slice=50)
        many(world, 100)
        issue = world.open()
        turns: list[tuple[int, int]] = []
        real = world.ledger.turn

        def turn(chunk: Any, outcomes: Any, unused: Any, worker: str, size: int, *rest: Any) -> Any:
            turns.append((len(outcomes), size))
            return real(chunk, outcomes, unused, worker, size, *rest)

        monkeypatch.setattr(world.ledger, "turn", turn)
        world.drain(seconds=1.2)
        (_, first), (_, second), *_ = turns
        assert first == 50
        assert second <= 12
        assert world.check_sum(issue).sent == len(channel.accepted)

    def test_a_slice_grows_back_when_nothing_slows_it(
        self, sqlite: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world = make_world(sqlite, chunk=100, slice=16)
        many(world, 100)
        world.open()
        monkeypatch.setattr(lane, "SLICE_AGE", 0.2)
        slow = [0.3]
        world.channel.before = lambda _parcel: time.sleep(slow.pop() if slow else 0)
        sizes: list[int] = []
        real = world.ledger.turn

        def turn(*arguments: Any) -> Any:
            sizes.append(arguments[4])
            return real(*arguments)

        monkeypatch.setattr(world.ledger, "turn", turn)
        world.drain()
        assert sizes[:5] == [16, 2, 4, 8, 16]  # the first slow one, and the one it had announced

    def test_two_drains_share_one_rate(self, sqlite: Database) -> None:
        channel = FakeChannel(pace=[Limit("email", rate=50, burst=5)])
        world = make_world(sqlite, channels=[channel], chunk=20, slice=10)
        many(world, 200)
        world.open()
        at: list[float] = []
        channel.before = lambda _parcel: at.append(time.monotonic())
        drains = [threading.Thread(target=world.drain, kwargs={"seconds": 2.4}) for _ in range(2)]
        for each in drains:
            each.start()
        for each in drains:
            each.join()
        within = sum(moment - at[0] < 2 for moment in at)
        assert 90 <= within <= 110


class TestTogether:
    """The lanes of one drain."""

    def test_an_issue_is_read_once_for_all(self, sqlite: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        world = make_world(sqlite, chunk=1, slice=1, lanes=4)
        many(world, 20)
        world.open()
        world.channel.before = lambda _parcel: time.sleep(0.01)
        asked: list[int] = []
        real = world.ledger.messages

        def messages(issue_id: int, channel: str) -> Any:
            asked.append(issue_id)
            return real(issue_id, channel)

        monkeypatch.setattr(world.ledger, "messages", messages)
        assert world.drain() == 20
        assert world.channel.opened > 1
        assert len(asked) == 1

    def test_one_without_a_chunk_stays_while_another_is_busy(
        self, sqlite: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An issue that opens brings more chunks than the first ones, and a lane that has ended takes none of them."""
        monkeypatch.setattr(lane, "IDLE_NAP", 0.02)
        world = make_world(sqlite, chunk=30, lanes=2)
        many(world, 30)
        world.open()
        threads: set[str] = set()
        later = [DAY + timedelta(days=1)]

        def note(_parcel: Parcel) -> None:
            threads.add(threading.current_thread().name)
            if later and len(world.channel.calls) == 10:
                world.open(later.pop(), "second")
            time.sleep(0.01)

        world.channel.before = note
        assert world.drain() == 60
        assert len(threads) == 2

    def test_the_drains_end_ends_a_slice(self, sqlite: Database) -> None:
        world = make_world(sqlite, chunk=200, slice=200)
        many(world, 200)
        issue = world.open()
        world.channel.before = lambda _parcel: time.sleep(0.02)
        began = time.monotonic()
        sent = world.drain(seconds=0.4)
        assert 5 < sent < 100
        assert time.monotonic() - began < lane.SLICE_AGE
        assert (world.check_sum(issue).sent, world.check_sum(issue).pending) == (sent, 200 - sent)

    def test_the_drains_end_tears_no_message_of_several_parts(self, sqlite: Database) -> None:
        channel = FakeChannel(parts=3)
        world = make_world(sqlite, channels=[channel])
        many(world, 20)
        issue = world.open()
        channel.before = lambda _parcel: time.sleep(0.02)
        sent = world.drain(seconds=0.3)
        assert 0 < sent < 20
        assert len(channel.accepted) == 3 * sent
        assert world.check_sum(issue).sent == sent

    def test_what_was_announced_is_sent_though_the_drain_is_over(self, sqlite: Database) -> None:
        world = make_world(sqlite, chunk=100, slice=100)
        many(world, 100)
        world.open()
        world.channel.before = lambda _parcel: time.sleep(0.01)
        assert 0 < world.drain(seconds=0.2) < 100
        assert world.channel.announced[-1] is None


class TestAnnouncing:
    def sent(self, world: World) -> Sequence[tuple[Parcel, Parcel | None]]:
        """(sent, announced), in order; asserts that what was announced is the very object sent next."""
        channel = world.channel
        for number, then in enumerate(channel.announced[:-1]):
            assert then is None or then is channel.calls[number + 1]
        return list(zip(channel.calls, channel.announced, strict=True))

    def test_the_next_of_the_slice_is_announced(self, sqlite: Database) -> None:
        world = make_world(sqlite, chunk=4, slice=4)
        world.subscribe(*NAMES)
        world.open()
        world.drain()
        announced = [then.recipient.address if then else None for _, then in self.sent(world)]
        assert announced == [BOB, CY, DORA, None]

    def test_of_a_long_message_only_behind_the_last_part(self, sqlite: Database) -> None:
        world = make_world(sqlite, channels=[FakeChannel(parts=2)], chunk=4, slice=4)
        world.subscribe("ann", "bob")
        world.open()
        world.drain()
        found = [then and (then.recipient.address, then.message.part) for _, then in self.sent(world)]
        # The permit of a second part is taken when its turn comes, so the first one's is what counts here.
        assert found[0] is None
        assert found[2:] == [None, None]
        assert found[1] in {None, (BOB, 1)}

    def test_never_without_its_permit(self, sqlite: Database) -> None:
        channel = FakeChannel(pace=[Limit("email", rate=60, burst=3)])
        world = make_world(sqlite, channels=[channel], chunk=40, slice=20)
        many(world, 40)
        world.open()
        granted = 0
        reserve = world.engine.pacer.reserve
        in_hand: list[int] = []

        def count(limits: Sequence[Limit], permits: int = 1, *, within: float = 0.0) -> Any:
            nonlocal granted
            grant = reserve(limits, permits, within=within)
            granted += grant.permits
            return grant

        world.engine.pacer.reserve = count  # type: ignore[method-assign]  # watched
        channel.before = lambda _parcel: in_hand.append(granted)
        world.drain()
        sent = self.sent(world)
        assert len(sent) == 40
        for number, (_parcel, then) in enumerate(sent):
            assert then is None or in_hand[number] >= number + 2
        assert any(then for _, then in sent)

    def test_never_one_whose_domain_is_blocked(self, sqlite: Database) -> None:
        world = make_world(sqlite, chunk=6, slice=6)
        slow = [f"{name}@slow.example" for name in ("a", "b", "c")]
        world.subscribe("ann", slow[0], "bob", slow[1], "cy", slow[2])
        world.open()
        world.engine.pacer.block("email:domain:slow.example", 60)
        world.drain()
        assert world.channel.reached == [ANN, BOB, CY]
        announced = [then.recipient.address if then else None for then in world.channel.announced]
        assert not set(announced) & set(slow), "the connection is given up when another one is sent instead"

    def test_nobody_but_over_the_same_relay(self, sqlite: Database) -> None:
        ways_out = [Relay(name="one"), Relay(name="two", domains=frozenset({"far.example"}))]
        world = make_world(sqlite, channels=[FakeChannel(ways_out=ways_out)], chunk=4, slice=4)
        world.channel.groups = ["far.example"]
        world.subscribe("ann", "x@far.example", "bob", "y@far.example")
        world.open()
        world.drain()
        for parcel, then in self.sent(world):
            assert then is None or then.recipient.address[-11:] == parcel.recipient.address[-11:]

    def test_a_throttled_domain_ends_an_announcement(self, sqlite: Database) -> None:
        world = make_world(sqlite, chunk=3, slice=3)
        slow = ["a@slow.example", "b@slow.example"]
        wait = Unavailable(
            text="too fast", scope=Scope.DOMAIN, kind=Kind.THROTTLE, retry_after=30 * SECOND, counts=False
        )
        world.channel.script[slow[0]] = [wait]
        world.subscribe(*slow, "ann")
        world.open()
        world.drain()
        assert [parcel.recipient.address for parcel in world.channel.calls] == [slow[0], ANN]


def entries(world: World) -> Sequence[LogEntry]:
    return world.ledger.log(None, limit=1000)


def test_extras_of_a_day_have_journals_of_their_own(database: Database, journals: Journals) -> None:
    world = make_journalled(database, journals, lanes=3, chunk=1)
    world.open()
    world.open(DAY + timedelta(days=1), "second")
    engine = replace(make_engine(database, channels=[world.channel]), journals=journals, worker="worker:2")
    others = threading.Thread(target=drain, args=(engine, "email"), kwargs={"seconds": 10})
    others.start()
    world.drain()
    others.join()
    assert Counter(world.channel.reached) == Counter(dict.fromkeys([ANN, BOB, CY, DORA], 2))
    assert {entry.state for entry in entries(world)} == {"sent"}
    assert left_over(journals) == []
