"""Issues, their frozen audience, leases and a person's choices, on both databases."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from fakes import BOTH, DAY, LEASE, FakeChannel, World, make_world, migrated_database, outcome_of
from sqlalchemy import func, select

from distributor.audience import Given, ImportOrder, Line, NewSubscriber, active, behind
from distributor.db import Database
from distributor.dispatch import opening
from distributor.errors import RequestRefused
from distributor.journal import record_of
from distributor.ledger import LeaseLost, NewIssue, Postponed, ResendRequest
from distributor.model import (
    Chunk,
    Delivery,
    DeliveryState,
    Issue,
    IssueState,
    Message,
    OpenedBy,
    Recipient,
    ResendScope,
    SkipReason,
    SuppressionReason,
    Trigger,
)
from distributor.notices import LEASE as LEASE_OF_NOTICES
from distributor.notices import NewNotice, Notices
from distributor.tables import chunks, deliveries

MINUTE = timedelta(minutes=1)


@pytest.fixture(scope="module", params=BOTH)
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with migrated_database(request, tmp_path_factory) as database:
        yield database


@pytest.fixture
def world(database: Database) -> World:
    return make_world(database)


def opened(world: World, *names: str) -> Issue:
    world.subscribe(*names)
    return world.open()


def lease(world: World) -> Chunk:
    chunk = world.ledger.lease("email", "worker:1", LEASE)
    assert chunk is not None
    return chunk


def begun(world: World, size: int = 10) -> tuple[Chunk, Sequence[Delivery]]:
    """A chunk, and the first of its slices in which somebody is not skipped."""
    chunk, last = lease(world), 0
    while True:
        slice_ = world.ledger.begin(chunk, size, LEASE, last)
        if slice_.deliveries or slice_.last is None:
            return chunk, slice_.deliveries
        last = slice_.last


def asked(scope: ResendScope = ResendScope.FAILED, **more: str) -> ResendRequest:
    return ResendRequest(scope=scope, reason="the relay was ill", by="ann", **more)


def _again(name: str) -> NewSubscriber:
    return NewSubscriber(channel="email", address=f"{name}@readers.example", source="test")


def _new_issue(slug: str = "first", days: int = 0, **more: Any) -> NewIssue:
    return NewIssue(
        newsletter="daily",
        local_date=DAY + timedelta(days=days),
        extra=0,
        slug=slug,
        title="A calm morning",
        post_hash="0",
        opened_by=OpenedBy.PERSON,
        expires_in=timedelta(hours=12),
        messages=[Message(channel="email", variant="default", content={"text": "Good morning"})],
        channels=["email"],
        **more,
    )


def write(world: World, issue: Issue, token: str, *, window: int, times: int | None = None) -> int:
    """Writes that many windows, or all of them and opens the issue. Returns how many deliveries."""
    frozen = world.ledger.issue(issue.id).frozen_at
    assert frozen is not None
    written = 0
    for _window in range(times or 1000):
        size = world.ledger.write_window(
            issue.id,
            "email",
            "all",
            partial(behind, active("daily", "email", frozen)),
            token=token,
            lease=LEASE,
            chunk=2,
            window=window,
        )
        written += size
        if not size:
            world.ledger.opened(issue.id, token)
            break
    return written


def settled(world: World, issue: Issue, **states: DeliveryState) -> None:
    """Ends the only chunk's deliveries: name → state."""
    chunk, slice_ = begun(world)
    outcomes = [outcome_of(each, states[each.recipient.address.partition("@")[0]]) for each in slice_]
    world.ledger.finish(chunk, outcomes, [], "worker:1")
    world.ledger.release(chunk)
    world.check_sum(issue)


class TestOpening:
    def test_a_day_has_one_issue(self, world: World) -> None:
        first = opened(world, "ann")
        assert world.ledger.issue_of("daily", DAY) == first
        second, was_new = world.ledger.open_issue(_new_issue(slug="another"))
        assert (second.id, second.slug, was_new) == (first.id, "first", False)

    def test_a_post_goes_out_once(self, world: World) -> None:
        first = opened(world, "ann")
        with pytest.raises(RequestRefused, match=f"already has issue {first.id}"):
            world.ledger.open_issue(_new_issue(days=1))
        assert world.ledger.issue_of("daily", DAY + timedelta(days=1)) is None

    def test_extras_are_numbered(self, world: World) -> None:
        opened(world, "ann")
        extras = [world.open(slug=f"extra-{number}", extra=True) for number in (1, 2)]
        assert [issue.extra for issue in extras] == [1, 2]
        assert world.ledger.next_extra("daily", DAY) == 3

    def test_messages_are_frozen_with_it(self, world: World) -> None:
        issue = opened(world, "ann")
        (message,) = world.ledger.messages(issue.id, "email")["default"]
        assert message.content == {"text": "Morning Paper: A calm morning 1/1"}
        assert world.ledger.messages(issue.id) == {"email/default": [message]}

    def test_what_nobody_opened_is_refused(self, world: World) -> None:
        with pytest.raises(RequestRefused, match="no issue 7"):
            world.ledger.issue(7)

    @pytest.mark.parametrize("approval", ["required", "auto-at-deadline"])
    def test_a_waiting_issue_goes_by_approval_or_at_its_deadline(self, world: World, approval: str) -> None:
        world.subscribe("ann")
        deadline = MINUTE if approval == "auto-at-deadline" else None
        issue, _ = world.ledger.open_issue(_new_issue(waits_for_approval=True, approval_in=deadline))
        assert world.ledger.take_opening(issue.id, LEASE) is None
        world.ledger.approve_overdue()
        assert world.ledger.issue(issue.id).state is IssueState.WAITING
        if deadline:
            world.clock.forward(MINUTE)
            world.ledger.approve_overdue()
        else:
            assert world.ledger.approve(issue.id, "ann")
        assert not world.ledger.approve(issue.id, "too late")
        found = world.ledger.issue(issue.id)
        assert (found.state, found.approved_by) == (IssueState.OPENING, "deadline" if deadline else "ann")


class TestAudience:
    def test_it_is_fixed_before_the_first_window(self, world: World) -> None:
        world.subscribe("ann", "bob")
        issue, token, moment = world.frozen_only()
        world.clock.forward(MINUTE / 2)
        world.subscribe("late")
        world.leave("bob")
        write(world, issue, token, window=1)
        assert world.ledger.freeze(issue.id) == moment
        assert world.states(issue) == {"ann": "pending", "bob": "pending"}
        assert world.check_sum(issue).planned == 2

    def test_a_cancelled_issue_is_not_planned_anew(self, world: World) -> None:
        world.subscribe("ann", "bob")
        issue, token, moment = world.frozen_only()
        audience = active("daily", "email", moment)
        world.ledger.stop_issue(issue.id, IssueState.CANCELLED, SkipReason.CANCELLED)
        with pytest.raises(LeaseLost):
            world.ledger.plan(issue.id, {"email": audience}, {"email": 0}, token=token, lease=LEASE)
        assert world.ledger.tallies(issue.id)["email"].balanced

    def test_no_group_waits_for_another_ones_windows(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(opening, "FIRST_WINDOW", 1)
        monkeypatch.setattr(opening, "WINDOW", 2)
        channel = FakeChannel(groups=["slow.example"])
        grouped = make_world(world.database, channels=[channel])
        for name in ("ann", "bob", "cy"):
            grouped.subscribe(name, f"{name}@slow.example")
        written: list[int] = []

        def count(_channel: str) -> None:
            with world.database.read() as connection:
                written.append(connection.execute(select(func.count()).select_from(deliveries)).scalar_one())

        grouped.engine = replace(grouped.engine, wake=count)
        issue = grouped.open()
        assert written == [1, 2, 4, 6]
        assert grouped.check_sum(issue).planned == 6

    def test_a_crash_between_windows_is_resumed_without_doubles(self, world: World) -> None:
        world.subscribe(*(f"reader-{number}" for number in range(10)))
        issue, token, _ = world.frozen_only()
        write(world, issue, token, window=3, times=2)
        assert world.ledger.take_opening(issue.id, LEASE) is None
        world.clock.forward(LEASE)
        successor = world.ledger.take_opening(issue.id, LEASE)
        assert successor is not None
        with pytest.raises(LeaseLost):
            write(world, issue, token, window=3)
        assert write(world, issue, successor, window=3) == 4
        entries = world.ledger.log(issue.id)
        assert [entry.seq for entry in entries] == list(range(1, 11))
        assert len({entry.address for entry in entries}) == 10
        assert world.check_sum(issue).planned == 10

    def test_the_first_window_is_sendable_while_the_next_is_written(self, world: World) -> None:
        world.subscribe("ann", "bob")
        issue, token, _ = world.frozen_only()
        write(world, issue, token, window=1, times=1)
        assert len(begun(world)[1]) == 1
        assert world.ledger.close_finished() == []

    def test_writing_renews_the_lease(self, world: World) -> None:
        world.subscribe("ann", "bob", "cy")
        issue, token, _ = world.frozen_only()
        for _window in range(3):
            world.clock.forward(LEASE * 0.8)
            write(world, issue, token, window=1, times=1)
        assert world.ledger.take_opening(issue.id, LEASE) is None

    def test_cancelling_stops_the_writer_and_the_sum_holds(self, world: World) -> None:
        world.subscribe("ann", "bob", "cy")
        issue, token, _ = world.frozen_only()
        write(world, issue, token, window=2, times=1)
        assert world.ledger.stop_issue(issue.id, IssueState.CANCELLED, SkipReason.CANCELLED) == 2
        with pytest.raises(LeaseLost):
            write(world, issue, token, window=2)
        world.ledger.opened(issue.id, token)
        assert world.ledger.issue(issue.id).state is IssueState.CANCELLED
        assert world.check_sum(issue).skipped == 2

    def test_who_left_and_came_back_meanwhile_puts_the_plan_right(self, world: World) -> None:
        world.subscribe("ann", "bob")
        issue, token, _ = world.frozen_only()
        world.clock.forward(MINUTE / 2)
        world.leave("bob")
        world.audience.add("daily", _again("bob"), resubscribe=True)
        write(world, issue, token, window=1)
        assert world.check_sum(issue).planned == 1

    def test_destinations_have_chunks_of_their_own_and_are_written_once(self, world: World) -> None:
        issue, token, _ = world.frozen_only(guarded=False)
        places = [
            Recipient(channel="email", address=name, destination=name)
            for name in ("team@x.example", "all@x.example")
        ]
        for _time in range(2):
            world.ledger.write_destinations(issue.id, places, token=token, lease=LEASE)
        world.ledger.opened(issue.id, token)
        groups = {chunk.pace_group for chunk in (lease(world), lease(world))}
        assert groups == {"to:team@x.example", "to:all@x.example"}
        assert world.check_sum(issue).planned == 2

    def test_the_previous_size_is_the_newest_frozen_one(self, world: World) -> None:
        assert world.ledger.previous_size("daily", "email") is None
        opened(world, "ann", "bob")
        assert world.ledger.previous_size("daily", "email") == 2
        assert world.ledger.previous_size("daily", "telegram") is None


class TestLeases:
    def test_two_workers_get_different_chunks(self, world: World) -> None:
        opened(world, "a", "b", "c", "d")
        one, other = lease(world), lease(world)
        assert {(one.lo, one.hi), (other.lo, other.hi)} == {(1, 3), (4, 4)}
        assert world.ledger.lease("email", "worker:2", LEASE) is None
        assert world.ledger.due_channels() == {}

    def test_a_released_chunk_can_be_leased_again(self, world: World) -> None:
        opened(world, "ann")
        chunk = lease(world)
        world.ledger.release(chunk)
        assert world.ledger.due_channels() == {"email": 1}
        assert lease(world).token != chunk.token

    def test_not_before_a_time_that_the_pace_asks_for(self, world: World) -> None:
        opened(world, "ann")
        world.ledger.release(lease(world), MINUTE)
        assert world.ledger.lease("email", "w", LEASE) is None
        world.clock.forward(MINUTE)
        lease(world)

    def test_begin_hands_out_each_delivery_once(self, world: World) -> None:
        issue = opened(world, "ann", "bob", "cy")
        chunk, first = begun(world, 2)
        second = world.ledger.begin(chunk, 2, LEASE).deliveries
        assert [each.identity.seq for each in (*first, *second)] == [1, 2, 3]
        assert list(world.ledger.begin(chunk, 2, LEASE).deliveries) == []
        assert world.check_sum(issue).sending == 3

    def test_a_delivery_carries_the_readers_token(self, world: World) -> None:
        opened(world, "ann")
        assert begun(world)[1][0].recipient.token == world.token("ann")

    def test_nothing_may_begin_after_the_lease_has_run_out(self, world: World) -> None:
        opened(world, "ann", "bob")
        chunk, _ = begun(world, 1)
        world.clock.forward(LEASE)
        with pytest.raises(LeaseLost, match=r"another holder|ran out"):
            world.ledger.begin(chunk, 1, LEASE)

    def test_beginning_renews_the_lease(self, world: World) -> None:
        opened(world, "ann", "bob", "cy")
        chunk = lease(world)
        for _slice in range(3):
            world.clock.forward(LEASE * 0.8)
            assert len(world.ledger.begin(chunk, 1, LEASE).deliveries) == 1
        assert world.recover() == 0

    def test_an_answer_is_still_written_when_nobody_has_taken_the_chunk_back(self, world: World) -> None:
        issue = opened(world, "ann")
        chunk, slice_ = begun(world)
        world.clock.forward(LEASE * 10)
        world.ledger.finish(chunk, [outcome_of(slice_[0])], [], "worker:1")
        world.recover()
        assert world.states(issue) == {"ann": "sent"}

    @pytest.mark.parametrize(("again", "state"), [(False, "unconfirmed"), (True, "pending")])
    def test_what_a_lost_worker_had_in_hand(self, world: World, again: bool, state: str) -> None:
        issue = opened(world, "ann", "bob", "cy")
        chunk, slice_ = begun(world, 2)
        world.clock.forward(LEASE)
        assert world.recover(again=again) == 1
        assert world.states(issue) == {"ann": state, "bob": state, "cy": "pending"}
        (attempt,) = world.log(issue)["ann@readers.example"].attempts
        assert (attempt.outcome, attempt.code, attempt.worker) == (state, "lease", "worker:1")
        assert world.log(issue)["cy@readers.example"].attempts == ()
        with pytest.raises(LeaseLost):
            world.ledger.finish(chunk, [outcome_of(slice_[0])], [], "worker:1")
        assert world.check_sum(issue).planned == 3
        assert len(begun(world)[1]) == (3 if again else 1)

    def test_a_late_proof_settles_what_was_unconfirmed(self, world: World) -> None:
        issue = opened(world, "ann", "bob")
        _, slice_ = begun(world)
        world.clock.forward(LEASE)
        world.recover()
        late = [
            outcome_of(slice_[0], receipts=("id-1",)),
            outcome_of(slice_[1], DeliveryState.FAILED),
        ]
        assert world.ledger.settle_late(map(record_of, late), "worker:1") == 2
        assert world.ledger.settle_late(map(record_of, late), "worker:1") == 0
        assert world.states(issue) == {"ann": "sent", "bob": "failed"}
        entry = world.log(issue)["ann@readers.example"]
        assert (entry.receipts, "late" in entry.text) == (("id-1",), True)
        world.check_sum(issue)

    def test_a_late_proof_of_an_earlier_resend_number_changes_nothing(self, world: World) -> None:
        issue = opened(world, "ann")
        _, slice_ = begun(world)
        world.clock.forward(LEASE)
        world.recover()
        world.ledger.resend(issue, asked(ResendScope.UNCONFIRMED), MINUTE)
        assert world.ledger.settle_late([record_of(outcome_of(slice_[0]))], "worker:1") == 0
        assert world.ledger.settle_late([], "worker:1") == 0
        assert world.states(issue) == {"ann": "pending"}

    def test_a_group_that_nobody_is_at_comes_first(self, world: World) -> None:
        """In its turn among many chunks of the others, a group with a limit would not use its own rate."""
        grouped = make_world(world.database, channels=[FakeChannel(groups=["slow.example"])], chunk=1)
        grouped.subscribe("ann", "bob", "cy@slow.example", "dora@slow.example")
        grouped.open()

        def lease() -> Chunk:
            chunk = grouped.ledger.lease("email", "w", LEASE)
            assert chunk is not None
            return chunk

        def group(chunk: Chunk) -> str:
            with world.database.read() as connection:
                return str(
                    connection.execute(
                        select(chunks.c.pace_group).where(chunks.c.id == chunk.id)
                    ).scalar_one()
                )

        taken = [lease() for _chunk in range(4)]
        assert [group(chunk) for chunk in taken] == ["all", "slow.example", "all", "slow.example"]
        for chunk in taken:
            grouped.ledger.release(chunk)
        assert group(lease()) == "all"
        assert group(lease()) == "slow.example"


class TestSkipping:
    def test_who_left_or_is_suppressed_by_now_is_skipped_with_the_reason(self, world: World) -> None:
        issue = opened(world, "ann", "bob", "cy")
        world.leave("ann")
        world.audience.suppress("email", "bob@readers.example", SuppressionReason.COMPLAINED)
        _, slice_ = begun(world, 1)
        assert [each.recipient.address for each in slice_] == ["cy@readers.example"]
        assert world.states(issue) == {
            "ann": "skipped(unsubscribed)",
            "bob": "skipped(suppressed)",
            "cy": "sending",
        }
        world.check_sum(issue)

    def test_a_long_row_of_them_is_no_trouble(self, database: Database) -> None:
        world = make_world(database, chunk=200)
        names = [f"r{number}" for number in range(150)]
        lines = [Line(number, world.address(name)) for number, name in enumerate(names)]
        world.audience.import_lines(ImportOrder(newsletter="daily"), [Given(lines)])
        issue = world.open()
        for item in world.audience.listing("daily", limit=200):
            world.audience.suppress("email", item.address, SuppressionReason.MANUAL)
        assert list(begun(world, 1)[1]) == []
        assert world.check_sum(issue).skipped == 150

    def test_a_destination_is_never_unsubscribed(self, world: World) -> None:
        issue, token, _ = world.frozen_only(guarded=False)
        place = Recipient(channel="email", address="team@x.example", destination="team")
        world.ledger.write_destinations(issue.id, [place], token=token, lease=LEASE)
        world.audience.suppress("email", "team@x.example", SuppressionReason.BOUNCED)
        (delivery,) = begun(world)[1]
        assert delivery.recipient.destination == "team"


class TestRetries:
    def test_the_chunk_is_due_with_its_earliest_retry_and_hands_out_only_what_is_due(
        self, world: World
    ) -> None:
        issue = opened(world, "ann", "bob", "cy")
        chunk, slice_ = begun(world)
        waits = {"ann": 5 * MINUTE, "bob": MINUTE}
        outcomes = [
            outcome_of(each, DeliveryState.PENDING, retry_in=wait)
            for each, wait in zip(slice_, waits.values(), strict=False)
        ]
        world.ledger.finish(chunk, [*outcomes, outcome_of(slice_[2])], [], "worker:1")
        world.ledger.release(chunk)
        assert world.ledger.lease("email", "w", LEASE) is None
        world.clock.forward(MINUTE)
        chunk, again = begun(world)
        assert [(each.identity.seq, each.tries) for each in again] == [(2, 1)]
        world.ledger.finish(chunk, [outcome_of(again[0])], [], "worker:1")
        world.ledger.release(chunk)
        assert world.ledger.lease("email", "w", LEASE) is None
        world.clock.forward(4 * MINUTE)
        assert [each.identity.seq for each in begun(world)[1]] == [1]
        triggers = [attempt.trigger for attempt in world.log(issue)["bob@readers.example"].attempts]
        assert triggers == [Trigger.SCHEDULED, Trigger.RETRY]
        world.check_sum(issue)

    def test_what_was_not_tried_goes_back_without_a_trace(self, world: World) -> None:
        issue = opened(world, "ann", "bob")
        chunk, slice_ = begun(world)
        unused = [Postponed(delivery=slice_[0]), Postponed(delivery=slice_[1], due_in=MINUTE)]
        world.ledger.finish(chunk, [], unused, "worker:1")
        assert world.check_sum(issue).pending == 2
        assert [entry.attempts for entry in world.log(issue).values()] == [(), ()]
        assert [each.identity.seq for each in world.ledger.begin(chunk, 10, LEASE).deliveries] == [1]

    def test_a_finished_chunk_is_not_due_again(self, world: World) -> None:
        issue = opened(world, "ann")
        settled(world, issue, ann=DeliveryState.SENT)
        world.clock.forward(MINUTE)
        assert world.ledger.lease("email", "w", LEASE) is None
        assert world.ledger.due_channels() == {}


class TestResend:
    @pytest.mark.parametrize(
        ("scope", "again"),
        [
            (ResendScope.FAILED, {"ann"}),
            (ResendScope.UNCONFIRMED, {"bob"}),
            (ResendScope.ALL, {"ann", "bob", "cy"}),
        ],
    )
    def test_only_what_is_asked_for(self, world: World, scope: ResendScope, again: set[str]) -> None:
        issue = opened(world, "ann", "bob", "cy")
        settled(
            world,
            issue,
            ann=DeliveryState.FAILED,
            bob=DeliveryState.UNCONFIRMED,
            cy=DeliveryState.SENT,
        )
        assert [each.id for each in world.ledger.close_finished()] == [issue.id]
        assert world.ledger.resend_count(issue, asked(scope)) == {"email": len(again)}
        assert world.ledger.resend(issue, asked(scope), MINUTE) == len(again)
        assert {name for name, state in world.states(issue).items() if state == "pending"} == again
        assert world.ledger.issue(issue.id).state is IssueState.SENDING
        world.check_sum(issue)
        slice_ = begun(world)[1]
        assert {(each.identity.resend, each.tries, each.parts_sent) for each in slice_} == {(1, 0, 0)}

    def test_never_to_who_left_or_is_suppressed(self, world: World) -> None:
        issue = opened(world, "ann", "bob", "cy")
        settled(world, issue, **dict.fromkeys(("ann", "bob", "cy"), DeliveryState.FAILED))
        world.leave("ann")
        world.audience.suppress("email", "bob@readers.example", SuppressionReason.BOUNCED)
        assert world.ledger.resend(issue, asked(), MINUTE) == 1
        assert world.states(issue) == {"ann": "failed", "bob": "failed", "cy": "pending"}

    def test_one_address_or_channel(self, world: World) -> None:
        issue = opened(world, "ann", "bob")
        settled(world, issue, ann=DeliveryState.FAILED, bob=DeliveryState.FAILED)
        assert world.ledger.resend_count(issue, asked(channel="telegram")) == {}
        assert world.ledger.resend(issue, asked(channel="email", address="bob@readers.example"), MINUTE) == 1
        assert world.states(issue) == {"ann": "failed", "bob": "pending"}

    def test_nothing_to_resend_leaves_the_issue_finished(self, world: World) -> None:
        issue = opened(world, "ann")
        settled(world, issue, ann=DeliveryState.SENT)
        world.ledger.close_finished()
        assert world.ledger.resend(issue, asked(), MINUTE) == 0
        audience = {"email": active("daily", "email", world.clock())}
        assert world.ledger.add_missing(issue, asked(), audience, chunk=3, grace=MINUTE) == 0
        assert world.ledger.issue(issue.id).state is IssueState.FINISHED

    def test_the_missing_ones_are_planned_anew(self, world: World) -> None:
        issue = opened(world, "ann")
        settled(world, issue, ann=DeliveryState.SENT)
        world.subscribe("late", "later")
        audience = active("daily", "email", world.clock())
        missing = asked(ResendScope.MISSING)
        assert world.ledger.missing_count(issue, "email", audience) == 2
        assert world.ledger.add_missing(issue, missing, {"email": audience}, chunk=3, grace=MINUTE) == 2
        assert world.ledger.missing_count(issue, "email", audience) == 0
        assert world.states(issue) == {"ann": "sent", "late": "pending", "later": "pending"}
        assert world.check_sum(issue).planned == 3

    def test_the_log_shows_why(self, world: World) -> None:
        issue = opened(world, "ann")
        settled(world, issue, ann=DeliveryState.FAILED)
        world.ledger.resend(issue, asked(), MINUTE)
        settled(world, issue, ann=DeliveryState.SENT)
        first, second = world.log(issue)["ann@readers.example"].attempts
        assert (first.trigger, first.reason) == (Trigger.SCHEDULED, None)
        assert (second.trigger, second.reason, second.resend) == (Trigger.RESEND, "the relay was ill", 1)


class TestAPersonsWord:
    @pytest.mark.parametrize(("sent", "state"), [(True, "sent"), (False, "failed")])
    def test_an_unconfirmed_one_is_settled(self, world: World, sent: bool, state: str) -> None:
        issue = opened(world, "ann")
        settled(world, issue, ann=DeliveryState.UNCONFIRMED)
        world.ledger.resolve(issue.id, 1, sent=sent, by="ann")
        assert world.states(issue) == {"ann": state}
        world.check_sum(issue)
        with pytest.raises(RequestRefused, match="is not unconfirmed"):
            world.ledger.resolve(issue.id, 1, sent=sent, by="ann")

    def test_a_paused_issue_is_not_handed_out(self, world: World) -> None:
        issue = opened(world, "a", "b", "c", "d")
        chunk, slice_ = begun(world, 1)
        world.ledger.set_paused(issue.id, paused=True)
        assert world.ledger.lease("email", "w", LEASE) is None
        assert list(world.ledger.begin(chunk, 1, LEASE).deliveries) == []
        world.ledger.finish(chunk, [outcome_of(slice_[0])], [], "worker:1")
        world.ledger.set_paused(issue.id, paused=False)
        assert len(world.ledger.begin(chunk, 1, LEASE).deliveries) == 1

    @pytest.mark.parametrize(
        ("state", "reason"),
        [(IssueState.CANCELLED, SkipReason.CANCELLED), (IssueState.EXPIRED, SkipReason.EXPIRED)],
    )
    def test_stopping_skips_what_is_pending(
        self, world: World, state: IssueState, reason: SkipReason
    ) -> None:
        issue = opened(world, "ann", "bob", "cy", "dora")
        chunk, slice_ = begun(world, 2)
        world.clock.forward(timedelta(days=2))
        assert world.ledger.stop_issue(issue.id, state, reason) == 2
        back = [Postponed(delivery=slice_[1])]
        world.ledger.finish(chunk, [outcome_of(slice_[0])], back, "worker:1")
        assert world.states(issue)["bob"] == "pending"
        assert [each.id for each in world.ledger.left_pending()] == [issue.id]
        assert world.ledger.stop_issue(issue.id, state, reason) == 1
        assert world.ledger.left_pending() == []
        total = world.check_sum(issue)
        assert (total.sent, total.skipped, total.open) == (1, 3, 0)
        assert world.ledger.why(issue.id, DeliveryState.SKIPPED) == [("email", str(reason), 3)]

    def test_a_finished_issue_cannot_be_stopped(self, world: World) -> None:
        issue = opened(world, "ann")
        settled(world, issue, ann=DeliveryState.SENT)
        world.ledger.close_finished()
        world.ledger.stop_issue(issue.id, IssueState.CANCELLED, SkipReason.CANCELLED)
        assert world.ledger.issue(issue.id).state is IssueState.FINISHED

    def test_an_issue_that_got_more_time_does_not_expire(self, world: World) -> None:
        issue = opened(world, "ann")
        assert world.ledger.overdue() == []
        assert world.ledger.stop_issue(issue.id, IssueState.EXPIRED, SkipReason.EXPIRED) == 0
        assert world.ledger.issue(issue.id).state is IssueState.SENDING
        world.clock.forward(timedelta(days=2))
        assert [each.id for each in world.ledger.overdue()] == [issue.id]
        assert world.ledger.lease("email", "w", LEASE) is None

    def test_finished_is_told_once(self, world: World) -> None:
        issue = opened(world, "ann")
        assert world.ledger.close_finished() == []
        settled(world, issue, ann=DeliveryState.SENT)
        assert [(each.id, each.state) for each in world.ledger.close_finished()] == [
            (issue.id, IssueState.FINISHED)
        ]
        assert world.ledger.close_finished() == []


class TestWatching:
    def test_a_repeated_decision_is_counted(self, world: World) -> None:
        first, second = (world.ledger.record_tick("daily", DAY, "wait", "no post yet") for _ in range(2))
        assert (first, second) == (True, False)
        (tick,) = world.ledger.ticks("daily")
        assert (tick["decision"], tick["count"]) == ("wait", 2)
        assert world.ledger.watched_since("daily") == tick["first_at"]
        assert world.ledger.watched_since("weekly") is None

    def test_a_process_is_heard_of(self, world: World) -> None:
        assert world.ledger.last_beat("worker") is None
        for _beat in range(2):
            world.ledger.beat("worker", "one")
        world.clock.forward(MINUTE)
        heard = world.ledger.last_beat("worker")
        assert heard is not None
        assert MINUTE <= heard < 2 * MINUTE

    def test_a_stop_is_over_in_time_and_forgotten_by_a_success(self, world: World) -> None:
        stops = []
        for _time in range(2):
            world.clock.forward(MINUTE)
            stops.append(world.ledger.stop_channel("email", "relay down", MINUTE))
            assert world.ledger.stop_channel("email", "another lane", MINUTE) is None
        assert [stop[0] for stop in stops if stop] == [1, 2]
        assert world.ledger.channel_stopped("email")
        assert not world.ledger.channel_stopped("telegram")
        world.clock.forward(MINUTE)
        assert not world.ledger.channel_stopped("email")
        assert world.ledger.stopped_channels()["email"].reason == "relay down"
        assert [world.ledger.resume_channel("email") for _ in range(2)] == [True, False]
        assert world.ledger.stop_count("email") == 0

    def test_a_log_is_filtered(self, world: World) -> None:
        issue = opened(world, "ann", "bob")
        settled(world, issue, ann=DeliveryState.SENT, bob=DeliveryState.FAILED)
        world.open(DAY + timedelta(days=1), "second")
        seen = [entry.issue_id for entry in world.ledger.log(None, address="ann@readers.example")]
        assert seen == [issue.id, issue.id + 1]
        failed = world.ledger.log(issue.id, states=[DeliveryState.FAILED], channel="email")
        assert [entry.seq for entry in failed] == [2]
        assert [entry.seq for entry in world.ledger.log(issue.id, after=1)] == [2]

    def test_counters_stand_on_chunks_and_rows_alike(self, world: World) -> None:
        issue = opened(world, "a", "b", "c", "d")
        with world.database.read() as connection:
            sizes = connection.execute(select(chunks.c.pending).order_by(chunks.c.id)).scalars().all()
            written = connection.execute(select(func.count()).select_from(deliveries)).scalar_one()
        assert (sizes, written) == ([3, 1], 4)
        world.check_sum(issue)


class TestNotices:
    def test_a_key_is_told_once_on_every_route(self, world: World) -> None:
        notices = Notices(world.database)
        new = NewNotice(key="issue-1-failed", subject="It failed", body="Look at the log.")
        assert notices.add(new, ["email:ops", "webhook"])
        assert not notices.add(new, ["email:ops", "webhook"])
        assert [notice.route for notice in notices.take_due()] == ["email:ops", "webhook"]
        assert notices.take_due() == []

    def test_each_row_has_its_own_end(self, world: World) -> None:
        notices = Notices(world.database)
        notices.add(NewNotice(key="k", subject="s", body="b"), ["a", "b", "c"])
        sent, later, given_up = notices.take_due()
        notices.settle(sent, None, None)
        notices.settle(later, "no route to host", MINUTE)
        notices.settle(given_up, "no route to host", None)
        assert notices.take_due() == []
        world.clock.forward(MINUTE)
        assert [(notice.id, notice.tries) for notice in notices.take_due()] == [(later.id, 1)]
        states = {notice.route: notice.state for notice in notices.listing()}
        assert states == {"a": "sent", "b": "pending", "c": "failed"}

    def test_what_a_dead_process_took_comes_back_and_the_old_is_forgotten(self, world: World) -> None:
        notices = Notices(world.database)
        notices.add(NewNotice(key="k", subject="s", body="b"), ["a"])
        assert len(notices.take_due()) == 1
        world.clock.forward(LEASE_OF_NOTICES)
        assert len(notices.take_due()) == 1
        notices.forget(timedelta(minutes=5))
        assert len(notices.listing()) == 1
        notices.forget(timedelta(minutes=1))
        assert notices.listing() == []
