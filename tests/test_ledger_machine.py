"""Any order of events: the sum holds, every move is legal, nobody is sent to twice without a resend."""

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from fakes import BOTH, DAY, LEASE, World, make_world, migrated_database, outcome_of
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import select

from distributor.db import Database, chunks, deliveries
from distributor.dispatch import sweep
from distributor.journal import record_of
from distributor.ledger import LeaseLost, Postponed, ResendRequest
from distributor.model import (
    LEGAL_MOVES,
    Chunk,
    Delivery,
    DeliveryState,
    Issue,
    IssueState,
    ResendScope,
    SkipReason,
)

NAMES = ("ann", "bob", "cy", "dora", "eve")
ENDS = (
    DeliveryState.SENT,
    DeliveryState.FAILED,
    DeliveryState.UNCONFIRMED,
    DeliveryState.PENDING,
)
Key = tuple[int, int]


class Moves:
    """Watches the rows: every change of state between two looks must be one arrow, or a path of them."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.seen: dict[Key, DeliveryState] = {}

    def look(self) -> None:
        with self.world.database.read() as connection:
            query = select(deliveries.c.issue_id, deliveries.c.seq, deliveries.c.state)
            now = {(row[0], row[1]): DeliveryState(row[2]) for row in connection.execute(query)}
        assert self.seen.keys() <= now.keys()
        for key, state in now.items():
            old = self.seen.get(key, DeliveryState.PENDING)
            assert state is old or state in LEGAL_MOVES[old], f"{key}: {old} → {state}"
        self.seen = now


class LedgerMachine(RuleBasedStateMachine):
    """Two workers, a sweeper and a person, one after the other, over up to three issues."""

    database: Database

    @initialize()
    def begin_anew(self) -> None:
        self.world = make_world(self.database, chunk=2)
        self.world.subscribe(*NAMES)
        self.moves = Moves(self.world)
        self.issues: list[Issue] = []
        self.held: list[tuple[Chunk, list[Delivery]]] = []
        self.sent: Counter[tuple[Key, int]] = Counter()
        self.open()

    @precondition(lambda self: len(self.issues) < 3)
    @rule()
    def open(self) -> None:
        number = len(self.issues)
        self.issues.append(self.world.open(DAY + timedelta(days=number), f"post-{number}", guarded=False))

    @precondition(lambda self: len(self.held) < 2)
    @rule(size=st.integers(1, 2))
    def lease(self, size: int) -> None:
        chunk = self.world.ledger.lease("email", f"worker:{len(self.held)}", LEASE)
        if chunk:
            assert chunk.id not in {held.id for held, _ in self.live()}
            self.held.append((chunk, []))
            self.take(chunk, self.held[-1][1], size)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), size=st.integers(1, 2))
    def begin(self, data: st.DataObject, size: int) -> None:
        chunk, in_hand = data.draw(st.sampled_from(self.held))
        if not in_hand:
            self.take(chunk, in_hand, size)

    def take(self, chunk: Chunk, in_hand: list[Delivery], size: int) -> None:
        try:
            in_hand.extend(self.world.ledger.begin(chunk, size, LEASE).deliveries)
        except LeaseLost:
            self.drop(chunk)
        elsewhere = {key(each) for held, others in self.live() if held is not chunk for each in others}
        for delivery in in_hand:
            assert key(delivery) not in elsewhere
            assert not self.sent[key(delivery), delivery.identity.resend]

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        chunk, in_hand = data.draw(st.sampled_from(self.held))
        back = data.draw(st.integers(0, len(in_hand)))
        outcomes = [self.outcome(data, delivery) for delivery in in_hand[back:]]
        try:
            self.world.ledger.finish(
                chunk, outcomes, [Postponed(delivery=each) for each in in_hand[:back]], "worker"
            )
        except LeaseLost:
            self.world.ledger.settle_late(map(record_of, outcomes), "worker")
            self.drop(chunk)
            return
        for outcome in outcomes:
            if outcome.state is DeliveryState.SENT:
                self.sent[key(outcome.delivery), outcome.delivery.identity.resend] += 1
        in_hand.clear()

    def outcome(self, data: st.DataObject, delivery: Delivery) -> Any:
        state = data.draw(st.sampled_from(ENDS))
        wait = timedelta(seconds=data.draw(st.sampled_from([1, 90])))
        retry = {"retry_in": wait} if state is DeliveryState.PENDING else {}
        return outcome_of(delivery, state, **retry)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        chunk, in_hand = data.draw(st.sampled_from(self.held))
        if not in_hand:
            self.world.ledger.release(chunk)
            self.drop(chunk)

    @rule(seconds=st.sampled_from([1, 30, 61]))
    def time_passes(self, seconds: int) -> None:
        self.world.clock.forward(timedelta(seconds=seconds))

    @rule(again=st.booleans(), seconds=st.sampled_from([0, 61]))
    def recover(self, again: bool, seconds: int) -> None:
        self.world.clock.forward(timedelta(seconds=seconds))
        self.world.recover(again=again)

    @rule()
    def sweep(self) -> None:
        self.moves.look()
        sweep(self.world.engine)

    @rule(name=st.sampled_from(NAMES))
    def leave(self, name: str) -> None:
        self.world.leave(name)

    @precondition(lambda self: self.issues)
    @rule(
        data=st.data(), scope=st.sampled_from([ResendScope.FAILED, ResendScope.UNCONFIRMED, ResendScope.ALL])
    )
    def resend(self, data: st.DataObject, scope: ResendScope) -> None:
        asked = ResendRequest(scope=scope, reason="a test", by="ann")
        self.world.ledger.resend(data.draw(st.sampled_from(self.issues)), asked, timedelta(hours=1))

    @precondition(lambda self: self.issues)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        issue = data.draw(st.sampled_from(self.issues))
        self.world.ledger.stop_issue(issue.id, IssueState.CANCELLED, SkipReason.CANCELLED)

    @precondition(lambda self: self.issues)
    @rule(data=st.data(), paused=st.booleans())
    def pause(self, data: st.DataObject, paused: bool) -> None:
        self.world.ledger.set_paused(data.draw(st.sampled_from(self.issues)).id, paused=paused)

    @invariant()
    def nothing_is_lost_and_every_move_is_legal(self) -> None:
        if not hasattr(self, "world"):
            return
        for issue in self.issues:
            assert self.world.check_sum(issue).planned <= len(NAMES)
        self.moves.look()
        assert all(times == 1 for times in self.sent.values())

    def live(self) -> list[tuple[Chunk, list[Delivery]]]:
        """What workers hold that nobody has taken back."""
        with self.world.database.read() as connection:
            tokens = set(connection.execute(select(chunks.c.lease_token)).scalars())
        return [(chunk, in_hand) for chunk, in_hand in self.held if chunk.token in tokens]

    def drop(self, chunk: Chunk) -> None:
        self.held = [each for each in self.held if each[0] is not chunk]


def key(delivery: Delivery) -> Key:
    return delivery.identity.issue_id, delivery.identity.seq


@pytest.fixture(scope="module", params=BOTH)
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with migrated_database(request, tmp_path_factory) as database:
        yield database


def test_in_any_order(database: Database) -> None:
    machine = type("Machine", (LedgerMachine,), {"database": database})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=20 if database.sqlite else 6,
            stateful_step_count=30,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
