"""Several connections of one lane: it hands over by one while the answers of the others are on their way."""

import math
import os
import select
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeChannel, World, make_world

from distributor.channels import Overlapping
from distributor.channels.email.smtp import SmtpTransport
from distributor.db import Database
from distributor.dispatch import lane
from distributor.dispatch.draining import widths
from distributor.errors import Kind, Rejected, Scope, ServiceDown, Unavailable, Unconfirmed
from distributor.journal import Journal, JournalBroken
from distributor.model import Delivery, Parcel, Receipt, Relay
from distributor.pacing import Limit
from distributor.settings import EngineSettings, Smtp

NAMES = ("ann", "bob", "cy", "dora", "eve", "fay")


NEVER = math.inf


def name_of(parcel: Parcel) -> str:
    return parcel.recipient.address.partition("@")[0]


@dataclass
class ManyLines(FakeChannel):
    """A channel whose answers come when the test lets them; at once for those who are not `slow`."""

    overlaps: bool = True
    #: Name → seconds from its start to its answer; NEVER: when the test lets it come.
    slow: Mapping[str, float] = field(default_factory=dict)
    #: Called with a name as its `start` begins.
    starting: Callable[[str], object] = lambda _name: None
    lines: list["Line"] = field(default_factory=list)
    #: ("start", line, name) and ("finish", line, name), in order; ("open", line, relay) and ("close", line, relay).
    events: list[tuple[str, int, str]] = field(default_factory=list)
    #: Name → what its first `start` raises.
    at_start: dict[str, Exception] = field(default_factory=dict)
    #: Connections it takes.
    most: int = 100
    #: Seconds for which it waits for an answer.
    patience: float = 60.0
    #: Seconds that opening one takes.
    opening: float = 0.0
    #: Seconds that handing a message over takes.
    handing: float = 0.0
    #: Those whose announcement meets a bug.
    odd: Sequence[str] = ()

    @contextmanager
    def open(self, relay: str, /) -> Iterator["Line"]:  # type: ignore[override]  # each has a line of its own
        with super().open(relay):
            if self.opened > self.most:
                text = "421 too many connections"
                raise Unavailable(text=text, code="421", scope=Scope.CHANNEL, counts=False)
            line = Line(self, len(self.lines))
            self.lines.append(line)
            time.sleep(self.opening)
            self.events.append(("open", line.number, relay))
            yield line
            self.events.append(("close", line.number, relay))

    def answer(self, name: str) -> None:
        """Lets the answer to a slow one come."""
        line = next(line for line in self.lines if line.parcel and name_of(line.parcel) == name)
        os.write(line.far_end, b"!")

    def order(self, what: str) -> Sequence[str]:
        return [name for event, _line, name in self.events if event == what]


class Line:
    """One connection of it."""

    def __init__(self, channel: ManyLines, number: int) -> None:
        self.channel, self.number = channel, number
        self.near_end, self.far_end = os.pipe()
        self.parcel: Parcel | None = None
        #: Announced before any was sent.
        self.ahead: list[str] = []
        #: (sent, announced behind it)
        self.sent: list[tuple[str, str | None]] = []

    def __del__(self) -> None:
        for end in (self.near_end, self.far_end):
            with suppress(OSError):
                os.close(end)

    def send(self, parcel: Parcel, then: Parcel | None = None) -> Receipt:
        self.start(parcel, then)
        return self.finish()

    def announce(self, parcel: Parcel) -> bool:
        if name_of(parcel) in self.channel.odd:
            raise ZeroDivisionError("a bug")
        self.ahead.append(name_of(parcel))
        return True

    def start(self, parcel: Parcel, then: Parcel | None = None) -> None:
        assert self.parcel is None, "one message at a time over each connection"
        name = name_of(parcel)
        if error := self.channel.at_start.pop(name, None):
            raise error
        self.channel.starting(name)
        time.sleep(self.channel.handing)
        self.channel.events.append(("start", self.number, name))
        self.sent.append((name, name_of(then) if then else None))
        self.parcel, self.began = parcel, time.monotonic()
        delay = self.channel.slow.get(name, 0.0)
        if not delay:
            os.write(self.far_end, b"!")
        elif delay < NEVER:
            threading.Timer(delay, os.write, [self.far_end, b"!"]).start()

    def has_answer(self) -> bool:
        return bool(select.select([self.near_end], [], [], 0)[0])

    def fileno(self) -> int:
        return self.near_end

    def patience(self) -> float:
        return max(self.began + self.channel.patience - time.monotonic(), 0.0)

    def finish(self) -> Receipt:
        parcel, self.parcel = self.parcel, None
        assert parcel is not None
        if not self.has_answer():
            raise Unconfirmed(text="timed out")
        os.read(self.near_end, 1)
        self.channel.events.append(("finish", self.number, name_of(parcel)))
        return self.channel.send(parcel)


@pytest.fixture(scope="module")
def sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path_factory.mktemp('connections')}/distributor.sqlite3")
    database.upgrade()
    yield database
    database.close()


def make_lines(database: Database, channel: ManyLines, names: Sequence[str] = NAMES, **engine: int) -> World:
    given = {"chunk": 10, "slice": 10, "connections": 2, **engine}
    world = make_world(database, channels=[channel], **given)
    world.subscribe(*names)
    return world


def test_the_transport_for_mail_is_one() -> None:
    assert isinstance(SmtpTransport(Smtp()), Overlapping)
    assert not isinstance(FakeChannel(), Overlapping)


@pytest.mark.parametrize(
    ("overlaps", "lanes", "connections", "expected"),
    [(True, 2, 2, [2, 2]), (False, 2, 2, [1, 1, 1, 1]), (True, 1, 8, [8]), (True, 3, 1, [1, 1, 1])],
)
def test_the_total_is_the_same_whoever_waits(
    overlaps: bool, lanes: int, connections: int, expected: Sequence[int]
) -> None:
    settings = EngineSettings(lanes=lanes, connections=connections)
    assert widths(settings, FakeChannel(overlaps=overlaps)) == expected


class TestOverlap:
    def test_the_second_leaves_before_the_first_is_answered(self, sqlite: Database) -> None:
        channel = ManyLines()
        world = make_lines(sqlite, channel)
        issue = world.open()
        assert world.drain() == len(NAMES)
        assert set(world.states(issue).values()) == {"sent"}
        talk = [event for event, _line, _name in channel.events if event not in {"open", "close"}]
        assert talk[:4] == ["start", "start", "finish", "start"]
        assert channel.order("start") == list(NAMES)
        assert {line for _event, line, _name in channel.events} == {0, 1}
        assert channel.opened == 2

    def test_an_answer_that_takes_long_holds_up_its_own_connection_alone(self, sqlite: Database) -> None:
        channel = ManyLines(slow={"ann": 0.6})
        world = make_lines(sqlite, channel)
        issue = world.open()
        world.drain()
        assert set(world.states(issue).values()) == {"sent"}
        assert channel.order("finish") == ["bob", "dora", "eve", "fay", "ann", "cy"]
        assert channel.lines[0].sent == [("ann", "cy"), ("cy", None)], "who was announced waits for it"

    def test_of_a_small_issue_no_connection_too_many_is_opened(self, sqlite: Database) -> None:
        channel = ManyLines()
        world = make_lines(sqlite, channel, ["ann"], connections=4)
        world.open()
        world.drain()
        assert channel.opened == 1

    def test_each_announces_the_one_it_carries_next(self, sqlite: Database) -> None:
        channel = ManyLines()
        world = make_lines(sqlite, channel, connections=3)
        world.open()
        world.drain()
        assert sum(len(line.sent) for line in channel.lines) == len(NAMES)
        announced = 0
        for line in channel.lines:
            for number, (_name, then) in enumerate(line.sent):
                following = line.sent[number + 1][0] if number + 1 < len(line.sent) else None
                assert then == following
                announced += then is not None
        assert announced == 3

    def test_nobody_is_announced_who_would_go_too_late(
        self, sqlite: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(lane, "SLICE_AGE", 1.0)
        channel = ManyLines(slow=dict.fromkeys(NAMES[:2], 0.7))
        world = make_lines(sqlite, channel, connections=1)
        world.open()
        world.drain()
        assert channel.lines[0].sent[:2] == [("ann", "bob"), ("bob", None)]

    def test_opening_them_does_not_use_up_the_slice(self, sqlite: Database) -> None:
        channel = ManyLines(opening=0.5)
        world = make_lines(sqlite, channel, connections=4)
        issue = world.open()
        world.drain()
        assert set(world.states(issue).values()) == {"sent"}
        first = [event for event, _line, _name in channel.events].index("start")
        assert first < 4, "the others are opened with the next slice"

    def test_an_answer_that_is_out_holds_up_no_permit(self, sqlite: Database) -> None:
        channel = ManyLines(slow={"ann": 0.8}, pace=[Limit("email/fake", rate=20)])
        world = make_lines(sqlite, channel)
        world.open()
        world.drain()
        assert channel.order("finish")[:3] == ["bob", "cy", "dora"]

    def test_others_take_further_permits_while_one_who_is_announced_waits(self, sqlite: Database) -> None:
        channel = ManyLines(slow={"ann": 0.8}, pace=[Limit("email/fake", rate=20, burst=4)])
        world = make_lines(sqlite, channel)
        world.open()
        world.drain()
        assert channel.order("finish") == ["bob", "dora", "eve", "fay", "ann", "cy"]
        assert channel.lines[0].sent == [("ann", "cy"), ("cy", None)]

    def test_nobody_takes_the_permit_of_one_who_is_announced(self, sqlite: Database) -> None:
        channel = ManyLines(slow={"ann": 0.3}, pace=[Limit("email/fake", rate=1, burst=4)])
        channel.at_start["bob"] = Rejected(text="no such user", code="550")
        world = make_lines(sqlite, channel, connections=3)
        world.open()
        world.drain(seconds=1.5)
        assert channel.lines[0].sent[:2] == [("ann", "dora"), ("dora", None)]

    def test_the_first_ones_are_announced_over_all_of_them_at_once(self, sqlite: Database) -> None:
        """So that they wait for one round trip together, and not one after the other."""
        channel = ManyLines()
        world = make_lines(sqlite, channel, connections=3)
        world.open()
        world.drain()
        assert [line.ahead for line in channel.lines] == [[], ["bob"], ["cy"]]
        assert [line.sent[0][0] for line in channel.lines] == ["ann", "bob", "cy"]

    def test_nobody_is_announced_ahead_without_a_permit(self, sqlite: Database) -> None:
        channel = ManyLines(pace=[Limit("email", rate=50, burst=2)])
        world = make_lines(sqlite, channel, connections=3)
        issue = world.open()
        world.drain()
        assert set(world.states(issue).values()) == {"sent"}
        assert channel.lines[2].ahead == []

    def test_who_was_announced_ahead_and_would_go_too_late_is_given_back(
        self, sqlite: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Who leaves while a relay takes its time with the first envelope must not wait behind it."""
        monkeypatch.setattr(lane, "SLICE_AGE", 0.4)
        monkeypatch.setattr(lane, "LATEST", 0.5)
        channel = ManyLines(handing=2.0)
        world = make_lines(sqlite, channel, connections=4)
        issue = world.open()
        world.drain(seconds=1.5)
        assert [line.ahead for line in channel.lines] == [[], ["bob"], ["cy"], ["dora"]]
        assert world.states(issue) == {**dict.fromkeys(NAMES, "pending"), "ann": "sent"}
        channel.handing = 0.0
        world.drain()
        assert sorted(channel.order("start")) == sorted(NAMES)
        assert set(world.states(issue).values()) == {"sent"}
        world.check_sum(issue)

    def test_one_who_is_refused_without_a_parcel_leaves_the_others_announced(
        self, sqlite: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = lane.Lane._parcels

        def without_ann(self: lane.Lane, delivery: Delivery) -> Sequence[Parcel]:
            if delivery.recipient.address.startswith("ann@"):
                raise Rejected(text="no such message", kind=Kind.CONFIG)
            return real(self, delivery)

        monkeypatch.setattr(lane.Lane, "_parcels", without_ann)
        channel = ManyLines()
        world = make_lines(sqlite, channel, connections=3)
        issue = world.open()
        world.drain()
        assert [line.ahead for line in channel.lines] == [[], ["bob"], ["cy"]]
        assert [line.sent[0][0] for line in channel.lines] == ["dora", "bob", "cy"]
        assert world.states(issue) == {**dict.fromkeys(NAMES, "sent"), "ann": "failed"}

    def test_a_bug_in_an_announcement_is_met_again_in_its_turn(self, sqlite: Database) -> None:
        channel = ManyLines(odd=["bob"])
        channel.at_start["bob"] = ZeroDivisionError("a bug")
        world = make_lines(sqlite, channel, connections=3)
        issue = world.open()
        world.drain()
        assert world.states(issue) == {**dict.fromkeys(NAMES, "sent"), "bob": "unconfirmed"}

    def test_a_bug_brings_no_more_into_doubt_than_without_announcements(self, sqlite: Database) -> None:
        channel = ManyLines()
        channel.at_start.update({name: ZeroDivisionError("a bug") for name in NAMES})
        world = make_lines(sqlite, channel, connections=6)
        issue = world.open()
        world.drain()
        assert list(world.states(issue).values()).count("unconfirmed") == lane.MOST_BUGS
        world.check_sum(issue)

    def test_a_worker_that_must_end_gives_back_who_is_announced(self, sqlite: Database) -> None:
        channel = ManyLines(handing=0.2)
        world = make_lines(sqlite, channel, connections=4)
        issue = world.open()
        stop = threading.Event()
        channel.starting = lambda _name: stop.set()
        world.drain(stop=stop)
        assert channel.order("start") == ["ann"]
        assert world.states(issue) == {**dict.fromkeys(NAMES, "pending"), "ann": "sent"}
        world.check_sum(issue)

    def test_every_result_is_its_own(self, sqlite: Database) -> None:
        channel = ManyLines()
        world = make_lines(sqlite, channel, connections=3)
        channel.script[world.address("bob")] = [Rejected(text="no such user", code="550", suppress=True)]
        channel.script[world.address("cy")] = [Unconfirmed(text="hung up")]
        channel.script[world.address("dora")] = [Unavailable(text="busy", code="450")]
        channel.at_start["eve"] = Rejected(text="refused before its body", code="552")
        channel.at_start["fay"] = ZeroDivisionError("a bug")
        issue = world.open()
        world.drain(seconds=0.9)
        assert world.states(issue) == {
            "ann": "sent",
            "bob": "failed",
            "cy": "unconfirmed",
            "dora": "pending",
            "eve": "failed",
            "fay": "unconfirmed",
        }
        world.check_sum(issue)


class TestTrouble:
    def test_a_relay_that_takes_no_further_connection_gets_all_by_one(self, sqlite: Database) -> None:
        channel = ManyLines(most=1)
        world = make_lines(sqlite, channel, slice=2)
        issue = world.open()
        world.drain()
        assert set(world.states(issue).values()) == {"sent"}
        assert channel.opened == 2, "asked for once, not with each slice"
        assert world.ledger.stopped_channels() == {}

    def test_what_is_under_way_keeps_its_result_when_the_channel_stops(self, sqlite: Database) -> None:
        channel = ManyLines(slow={"ann": 0.3})
        world = make_lines(sqlite, channel)
        channel.at_start["bob"] = Unavailable(
            text="it cannot be reached", scope=Scope.CHANNEL, kind=Kind.NETWORK, counts=False
        )
        issue = world.open()
        world.drain()
        assert world.states(issue) == {**dict.fromkeys(NAMES, "pending"), "ann": "sent"}
        assert all(
            not entry.attempts for name, entry in world.log(issue).items() if not name.startswith("ann")
        )
        assert set(world.ledger.stopped_channels()) == {"email"}, "a late answer does not end the stop"

    def test_a_lane_that_ends_leaves_one_a_connection_in_doubt(
        self, sqlite: Database, tmp_path: Path
    ) -> None:
        channel = ManyLines(slow=dict.fromkeys(NAMES[:3], NEVER))
        world = make_lines(sqlite, channel, connections=4)
        journals = world.keep_journals(tmp_path / "journal")
        channel.at_start["dora"] = ServiceDown("the lane ends here")
        issue = world.open()
        with pytest.raises(ServiceDown):
            world.drain()
        (token,) = journals.abandoned()
        records = journals.read(token)
        assert records is not None
        assert [record.identity.seq for record in records if not record.ended] == [1, 2, 3, 4]
        assert world.check_sum(issue).sending == len(NAMES)

    def test_a_lost_lease_begins_nothing_more_and_ends_what_is_under_way(
        self, sqlite: Database, tmp_path: Path
    ) -> None:
        channel = ManyLines(slow={"ann": NEVER, "bob": NEVER})
        world = make_lines(sqlite, channel)
        journals = world.keep_journals(tmp_path / "journal")

        def revoke() -> None:
            while len(channel.order("start")) < 2:
                time.sleep(0.005)
            for path in journals.folder.glob("*.journal"):
                journals.read(path.stem)
            channel.answer("ann")
            channel.answer("bob")

        successor = threading.Thread(target=revoke)
        issue = world.open()
        successor.start()
        world.drain(seconds=2)
        successor.join()
        assert channel.order("start")[:2] == ["ann", "bob"]
        assert channel.order("finish")[:2] == ["ann", "bob"]
        entries = world.log(issue)
        assert [len(entries[world.address(name)].attempts) for name in ("ann", "bob")] == [1, 1]
        world.check_sum(issue)

    def test_of_a_relay_that_stops_they_are_closed_before_it_is_asked_for_others(
        self, sqlite: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(lane, "STOP_FIRST", timedelta(0))
        channel = ManyLines()
        world = make_lines(sqlite, channel)
        channel.at_start["bob"] = Unavailable(text="it is down", scope=Scope.CHANNEL, counts=False)
        issue = world.open()
        world.drain()
        assert set(world.states(issue).values()) == {"sent"}
        assert [event for event, _line, _name in channel.events if event in {"open", "close"}] == [
            *["open", "open", "close", "close"] * 2
        ]

    def test_one_whose_answer_was_not_read_carries_nothing_else(
        self, sqlite: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(lane, "STOP_FIRST", timedelta(0))
        channel = ManyLines(slow={"ann": NEVER})
        world = make_lines(sqlite, channel, chunk=3)
        world.keep_journals(tmp_path / "journal")
        begin, begun = Journal.begin, iter([None, JournalBroken("it is full")])

        def broken_at_the_second(*arguments: Any) -> None:
            if error := next(begun, None):
                raise error
            begin(*arguments)

        monkeypatch.setattr(Journal, "begin", broken_at_the_second)
        issue = world.open()
        world.drain()
        states = world.states(issue)
        assert [states[name] for name in ("dora", "eve", "fay")] == ["sent"] * 3
        assert ("close", 0, "fake") in channel.events[:5]
        assert {line for event, line, _name in channel.events[5:] if event == "start"} == {2, 3}

    def capped(self, sqlite: Database, monkeypatch: pytest.MonkeyPatch, away: str, which: int) -> World:
        """A relay with a daily cap; that call (from 0) of the ledger's method does not reach the database."""
        relay, limit = Relay(name="fake", daily_cap=100), Limit("email/fake", rate=100, burst=3)
        world = make_lines(sqlite, ManyLines(ways_out=(relay,), pace=[limit]))
        real: Callable[..., Any] = getattr(world.ledger, away)
        calls = count()

        def call(*arguments: Any) -> Any:
            if next(calls) == which:
                raise ServiceDown("the database is away")
            return real(*arguments)

        monkeypatch.setattr(world.ledger, away, call)
        return world

    def test_while_the_database_is_away_nobody_is_lost_who_waits_for_a_permit(
        self, sqlite: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world = self.capped(sqlite, monkeypatch, "take_allowance", 1)
        issue = world.open()
        assert world.drain() == len(NAMES)
        assert set(world.states(issue).values()) == {"sent"}
        world.check_sum(issue)

    def test_while_the_database_is_away_answers_are_read(
        self, sqlite: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world = self.capped(sqlite, monkeypatch, "return_allowance", 0)
        wall = Unavailable(text="too fast", scope=Scope.DOMAIN, kind=Kind.THROTTLE, code="450")
        world.channel.script[world.address("bob")] = [wall]
        issue = world.open()
        world.drain(seconds=2)
        assert world.states(issue) == {**dict.fromkeys(NAMES, "pending"), "ann": "sent", "cy": "sent"}
        world.check_sum(issue)

    def test_all_that_are_dead_are_waited_for_at_once(self, sqlite: Database) -> None:
        names = NAMES[:3]
        channel = ManyLines(slow=dict.fromkeys(names, NEVER), patience=1.0)
        world = make_lines(sqlite, channel, names, connections=3)
        issue = world.open()
        began = time.monotonic()
        world.drain(seconds=5)
        assert set(world.states(issue).values()) == {"unconfirmed"}
        assert time.monotonic() - began < 2.8, "not one second each"
