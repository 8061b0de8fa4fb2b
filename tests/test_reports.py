"""What the ledger tells of an issue on its way: rates, groups, reasons; on both databases."""

import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta

import pytest
from fakes import BOTH, FakeChannel, World, make_newsletter, make_world, migrated_database
from sqlalchemy import event

from distributor.db import Database
from distributor.dispatch import lane, resend
from distributor.errors import Kind, Rejected, Scope, Unavailable, Unconfirmed
from distributor.ledger import ResendRequest, reports
from distributor.ledger.reports import Group, GroupKey
from distributor.model import DeliveryState, Recipient, Relay, ResendScope

#: A channel's own domains: the others have none.
WITH_DOMAINS = ["email"]
SLOW = Unavailable(text="too much mail", code="450", kind=Kind.THROTTLE, scope=Scope.RECIPIENT, counts=False)
LATER = Unavailable(text="mailbox busy", code="450", kind=Kind.MAILBOX)
GONE = Rejected(text="no such user", code="550")


@pytest.fixture(scope="module", params=BOTH)
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with migrated_database(request, tmp_path_factory) as database:
        yield database


@pytest.fixture(autouse=True)
def _no_waiting_for_what_is_due_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A retry is seen before it is made."""
    monkeypatch.setattr(lane, "IDLE_PATIENCE", -1.0)


@pytest.fixture
def world(database: Database) -> World:
    return make_world(database)


def groups(world: World, *by: GroupKey, largest: int = 20) -> Sequence[Group]:
    (issue,) = world.ledger.issues()
    return world.ledger.groups(issue.id, by, WITH_DOMAINS, largest)


def by_domain(world: World) -> Mapping[str | None, Group]:
    return {group.domain: group for group in groups(world, "domain")}


class TestGroups:
    def test_by_domain(self, world: World) -> None:
        world.subscribe("a@one.example", "b@one.example", "c@one.example", "d@two.example", "e@two.example")
        world.channel.script = {
            "a@one.example": [GONE],
            "b@one.example": [LATER],
            "d@two.example": [Unconfirmed(text="lost")],
            "e@two.example": [SLOW],
        }
        world.open()
        world.drain()
        found = by_domain(world)
        one, two = found["one.example"], found["two.example"]
        assert (one.sent, one.failed, one.unconfirmed, one.open, one.retrying, one.throttled) == (
            1,
            1,
            0,
            1,
            1,
            0,
        )
        assert (two.sent, two.failed, two.unconfirmed, two.open, two.retrying, two.throttled) == (
            0,
            0,
            1,
            1,
            1,
            1,
        )
        assert one.relay is None

    def test_what_was_not_tried_yet_is_open_and_has_no_relay(self, world: World) -> None:
        world.subscribe("a@one.example")
        world.open()
        (group,) = groups(world, "domain", "relay")
        assert (group.domain, group.relay, group.open, group.retrying, group.rate) == (
            "one.example",
            "-",
            1,
            0,
            0,
        )

    def test_the_relay_is_that_of_the_last_attempt(self, database: Database) -> None:
        routed = Relay(name="two", domains=frozenset({"two.example"}))
        world = make_world(
            database, channels=[FakeChannel(groups=["two.example"], ways_out=[Relay(name="one"), routed])]
        )
        world.subscribe("a@one.example", "b@one.example", "c@two.example")
        world.channel.script = {"a@one.example": [LATER]}
        world.open()
        for _try in range(2):
            world.drain()
            world.clock.forward(timedelta(seconds=5))
        assert [(group.relay, group.sent) for group in groups(world, "relay")] == [("one", 2), ("two", 1)]
        both = [(group.domain, group.relay, group.sent) for group in groups(world, "domain", "relay")]
        assert both == [("one.example", "one", 2), ("two.example", "two", 1)]

    def test_a_channel_without_domains_is_one_group(self, database: Database) -> None:
        place = Recipient(channel="telegram", address="@morning", destination="main")
        channels = [FakeChannel(), FakeChannel("telegram", fixed=[place])]
        newsletter = make_newsletter({"email": {}, "telegram": {}})
        world = make_world(database, channels=channels, newsletter=newsletter)
        world.subscribe("a@one.example")
        world.open()
        assert {group.domain: group.open for group in groups(world, "domain")} == {"-": 1, "one.example": 1}

    def test_small_domains_are_summed_at_the_end(self, world: World) -> None:
        sizes = {"big": 3, "middle": 2, "small": 1, "tiny": 1}
        world.subscribe(*(f"r{n}@{name}.example" for name, size in sizes.items() for n in range(size)))
        world.open()
        found = [(group.domain, group.open) for group in groups(world, "domain", largest=2)]
        assert found == [("big.example", 3), ("middle.example", 2), ("others", 2)]

    def test_the_groups_hold_what_the_tallies_count(self, world: World) -> None:
        world.subscribe(*(f"r{n}@d{n % 5}.example" for n in range(20)))
        world.channel.script = {"r1@d1.example": [GONE], "r2@d2.example": [LATER]}
        issue = world.open()
        world.drain()
        tally = world.check_sum(issue)
        for by in (("domain",), ("relay",), ("domain", "relay")):
            found = groups(world, *by, largest=2)
            assert sum(group.sent for group in found) == tally.sent
            assert sum(group.failed for group in found) == tally.failed
            assert sum(group.open for group in found) == tally.open

    def test_refusals_before_a_resend_are_not_counted_wrongly(self, world: World) -> None:
        world.subscribe("a@one.example")
        world.channel.script = {"a@one.example": [SLOW, GONE]}
        issue = world.open()
        world.drain()
        world.clock.forward(timedelta(minutes=5))
        world.drain()
        assert by_domain(world)["one.example"].throttled == 1
        asked = ResendRequest(scope=ResendScope.FAILED, reason="mended", by="ann")
        resend(world.engine, issue.id, asked)
        world.drain()
        assert by_domain(world)["one.example"].throttled == 0


class TestRate:
    def test_it_is_that_of_the_last_minute(self, world: World) -> None:
        world.subscribe(*(f"r{n}" for n in range(12)))
        issue = world.open()
        world.clock.forward(timedelta(minutes=10))
        world.drain()
        assert world.ledger.settled_lately(issue.id) == {"email": pytest.approx(12 / 60)}
        assert by_domain(world)["readers.example"].rate == pytest.approx(12 / 60)
        world.clock.forward(timedelta(minutes=2))
        assert world.ledger.settled_lately(issue.id) == {}
        assert by_domain(world)["readers.example"].rate == 0

    def test_an_issue_that_began_just_now_is_not_called_slow(self, world: World) -> None:
        world.subscribe(*(f"r{n}" for n in range(12)))
        issue = world.open()
        world.clock.forward(timedelta(seconds=4))
        world.drain()
        assert 1.5 < world.ledger.settled_lately(issue.id)["email"] <= 3


class TestWhy:
    def test_a_sample_looks_at_the_first_chunks_that_count_one(self, world: World) -> None:
        names = [f"r{n:02}" for n in range(12)]  # four chunks of three
        world.subscribe(*names)
        world.channel.script = {world.address(name): [GONE] for name in names[3:]}
        issue = world.open()
        world.drain()
        failed = DeliveryState.FAILED
        assert world.ledger.why(issue.id, failed) == [("email", "550 no such user", 9)]
        assert world.ledger.why(issue.id, failed, among=6) == [("email", "550 no such user", 6)]
        assert world.ledger.why(issue.id, failed, among=1) == [("email", "550 no such user", 3)]
        assert world.ledger.why(issue.id, DeliveryState.SKIPPED, among=6) == []


class TestLog:
    @pytest.mark.parametrize("limit", [1, 2, 5, 100])
    def test_by_state_it_goes_on_from_chunk_to_chunk(self, world: World, limit: int) -> None:
        names = [f"r{n:02}" for n in range(12)]  # four chunks of three
        world.subscribe(*names)
        refused = [names[1], names[2], names[7], names[9], names[11]]
        world.channel.script = {world.address(name): [GONE] for name in refused}
        issue = world.open()
        world.drain()
        found: list[str] = []
        after = 0
        while page := world.ledger.log(
            issue.id,
            states=[DeliveryState.FAILED, DeliveryState.PENDING],
            channel="email",
            after=after,
            limit=limit,
        ):
            assert len(page) <= limit
            found += [entry.address for entry in page]
            after = page[-1].seq
        assert found == [world.address(name) for name in refused]
        assert not world.ledger.log(issue.id, states=[DeliveryState.FAILED], channel="telegram")

    def test_one_page_looks_into_more_chunks_than_one_statement_names(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(reports, "MOST_SPANS", 1)
        world.subscribe(*(f"r{n:02}" for n in range(12)))
        issue = world.open()
        numbers = [
            entry.seq
            for entry in world.ledger.log(issue.id, states=[DeliveryState.PENDING], after=2, limit=8)
        ]
        assert numbers == list(range(3, 11))


class TestWriters:
    """Nobody who looks stands in the way of somebody who sends."""

    def test_a_look_takes_no_locks_that_a_writer_meets(self, world: World) -> None:
        world.subscribe("ann", "bob")
        issue = world.open()
        with world.database.read() as connection:
            connection.execute(
                world.ledger._grouped(issue.id, ["domain", "relay"], WITH_DOMAINS, world.clock())
            ).all()
            began = time.monotonic()
            assert world.drain() == 2  # while the transaction that has looked is still open
            assert time.monotonic() - began < 5
        assert world.check_sum(issue).sent == 2

    def test_a_plain_look_reads_no_deliveries(self, world: World) -> None:
        world.subscribe("ann", "bob")
        issue = world.open()
        said: list[str] = []

        def note(*call: object) -> None:
            said.append(str(call[2]))

        event.listen(world.database.engine, "before_cursor_execute", note)
        try:
            world.ledger.tallies(issue.id)
            world.ledger.stopped_channels()
            world.ledger.moment()
            world.ledger.issue(issue.id)
        finally:
            event.remove(world.database.engine, "before_cursor_execute", note)
        assert said
        assert not [statement for statement in said if "deliveries" in statement or "attempts" in statement]
