"""Any order of events: the sum holds, every move is legal, nobody is sent to twice without a resend."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import pytest
from fakes import BOTH, DAY, LEASE, make_world, migrated_database, outcome_of
from hypothesis import HealthCheck, Phase, settings
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

from distributor.db import Database
from distributor.dispatch import sweep
from distributor.errors import RequestRefused
from distributor.journal import Progress, Record, record_of
from distributor.ledger import LeaseLost, Postponed, ResendRequest, Slice
from distributor.model import (
    LEGAL_MOVES,
    Chunk,
    Delivery,
    DeliveryState,
    Issue,
    IssueState,
    Outcome,
    ResendScope,
    SkipReason,
    SuppressionReason,
)
from distributor.tables import attempts, chunks, deliveries

NAMES = ("ann", "bob", "cy", "dora", "eve")
ENDS = (
    DeliveryState.SENT,
    DeliveryState.FAILED,
    DeliveryState.UNCONFIRMED,
    DeliveryState.PENDING,
)
#: Two arrows in one transaction: given back, and looked at again, by when its reader had left.
GIVEN_BACK_AND_SKIPPED = (DeliveryState.SENDING, DeliveryState.SKIPPED)
Key = tuple[int, int]
T = TypeVar("T")

_NUMBERS = select(attempts.c.issue_id, attempts.c.seq, attempts.c.number).order_by(*attempts.primary_key)


class Moves:
    """Watches the rows: every change of state between two looks must be an arrow."""

    def __init__(self) -> None:
        self.seen: dict[Key, DeliveryState] = {}

    def look(self, rows: Mapping[Key, Any]) -> None:
        assert self.seen.keys() <= rows.keys()
        now = {key: DeliveryState(row.state) for key, row in rows.items()}
        for key, state in now.items():
            old = self.seen.get(key, DeliveryState.PENDING)
            legal = state is old or state in LEGAL_MOVES[old] or (old, state) == GIVEN_BACK_AND_SKIPPED
            assert legal, f"{key}: {old} → {state}"
        self.seen = now


@dataclass(eq=False)
class Worker:
    """A lane as the ledger meets it: its chunk, what is in its hands, and what it noted of that."""

    chunk: Chunk
    in_hand: list[Delivery] = field(default_factory=list)
    noted: dict[int, Record] = field(default_factory=dict)
    ended: list[Outcome] = field(default_factory=list)
    last: int = 0

    @property
    def open(self) -> list[Delivery]:
        """Those that have not ended."""
        over = {outcome.delivery.identity for outcome in self.ended}
        return [delivery for delivery in self.in_hand if delivery.identity not in over]

    def written(self) -> None:
        self.in_hand, self.noted, self.ended = [], {}, []


class LedgerMachine(RuleBasedStateMachine):
    """Workers, sweepers and a person, one after the other, over up to two issues."""

    database: Database

    @initialize()
    def begin_anew(self) -> None:
        self.world = make_world(self.database, chunk=2)
        self.world.subscribe(*NAMES)
        self.moves = Moves()
        self.issues: list[Issue] = []
        self.workers: list[Worker] = []
        #: What really went out: a delivery under one resend number at most once, unless the policy was to resend.
        self.went: Counter[tuple[Key, int]] = Counter()
        self.by_policy: set[tuple[Key, int]] = set()
        self.open()

    @precondition(lambda self: len(self.issues) < 2)
    @rule()
    def open(self) -> None:
        number = len(self.issues)
        self.issues.append(self.world.open(DAY + timedelta(days=number), f"post-{number}", guarded=False))

    # ── workers ──────────────────────────────────────────────────────────────────────────────────────────────────

    @precondition(lambda self: len(self.workers) < 3)
    @rule(size=st.sampled_from([2, 2, 1]))
    def lease(self, size: int) -> None:
        chunk = self.world.ledger.lease("email", f"worker:{len(self.workers)}", LEASE)
        if chunk:
            assert chunk.id not in {worker.chunk.id for worker in self.live()}
            worker = Worker(chunk)
            self.workers.append(worker)
            self.turn(worker, (), size, after=0, lost=False)

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def note(self, data: st.DataObject) -> None:
        """A message is handed over: begun, and mostly ended, in the journal and not yet in the ledger."""
        worker = data.draw(st.sampled_from(self.workers))
        self.hand_over(data, worker, ends=data.draw(st.booleans()))

    def hand_over(self, data: st.DataObject, worker: Worker, *, ends: bool) -> None:
        if not worker.open or not self.holds(worker):
            return  # a lane whose lease is over, by its own clock, begins no message
        delivery = worker.open[0]
        worker.noted[delivery.identity.seq] = Record(
            delivery.identity, Progress(delivery.parts_sent, delivery.receipts)
        )
        self.went[key(delivery), delivery.identity.resend] += 1
        if ends:
            self.end(worker, outcome(data, delivery))

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def answered_late(self, data: st.DataObject) -> None:
        """A message that was begun ends, whoever has the lease by now."""
        worker = data.draw(st.sampled_from(self.workers))
        begun = [each for each in worker.open if each.identity.seq in worker.noted]
        if begun:
            self.end(worker, outcome(data, begun[0]))

    def end(self, worker: Worker, ended: Outcome) -> None:
        worker.ended.append(ended)
        worker.noted[ended.delivery.identity.seq] = record_of(ended)
        if ended.state in {DeliveryState.PENDING, DeliveryState.FAILED}:  # it certainly did not go
            self.went[key(ended.delivery), ended.delivery.identity.resend] -= 1

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), size=st.integers(1, 2))
    def next_slice(self, data: st.DataObject, size: int) -> None:
        self.send_and_turn(data, size, lost=False)

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), size=st.integers(1, 2))
    def next_slice_without_an_answer(self, data: st.DataObject, size: int) -> None:
        self.send_and_turn(data, size, lost=True)

    def send_and_turn(self, data: st.DataObject, size: int, *, lost: bool) -> None:
        worker = data.draw(st.sampled_from(self.workers))
        if self.under_way(worker):
            return
        for _message in range(data.draw(st.integers(0, 2))):
            self.hand_over(data, worker, ends=True)
        unused = worker.open
        again = min((each.identity.seq for each in unused), default=worker.last + 1) - 1
        self.turn(worker, [Postponed(delivery=each) for each in unused], size, after=again, lost=lost)

    def turn(self, worker: Worker, unused: Sequence[Postponed], size: int, *, after: int, lost: bool) -> None:
        """`lost`: the answer to the commit does not come, and the lane gives the chunk back, as lanes do."""
        arguments = (worker.chunk, list(worker.ended), unused, "worker", size, LEASE, after)
        taken = self.fenced(worker, lambda: self.world.ledger.turn(*arguments))
        if lost or taken is None:
            self.finish_and_release(worker, unused)
            return
        worker.written()
        self.take(worker, taken)

    def take(self, worker: Worker, taken: Slice) -> None:
        worker.in_hand, worker.last = list(taken.deliveries), taken.last or worker.last
        elsewhere = {key(each) for other in self.live() if other is not worker for each in other.in_hand}
        for delivery in worker.in_hand:
            sent = key(delivery), delivery.identity.resend
            assert key(delivery) not in elsewhere
            assert not self.went[sent] or sent in self.by_policy, f"{sent} would be sent again"

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), lost=st.booleans())
    def give_up(self, data: st.DataObject, lost: bool) -> None:
        worker = data.draw(st.sampled_from(self.workers))
        if self.under_way(worker):
            return
        unused = [Postponed(delivery=each) for each in worker.open]
        if lost:
            self.fenced(worker, lambda: self.finish(worker, unused))
        self.finish_and_release(worker, unused)

    def finish_and_release(self, worker: Worker, unused: Sequence[Postponed]) -> None:
        if self.fenced(worker, lambda: self.finish(worker, unused)) is None:
            before = self.rows()
            self.world.ledger.settle_late(map(record_of, worker.ended), "worker")
            self.only_unconfirmed_moved(before)
        self.world.ledger.release(worker.chunk)
        self.workers.remove(worker)

    def finish(self, worker: Worker, unused: Sequence[Postponed]) -> bool:
        self.world.ledger.finish(worker.chunk, worker.ended, unused, "worker")
        return True

    def fenced(self, worker: Worker, call: Callable[[], T]) -> T | None:
        """None when the lease was lost: then not one row has changed."""
        before, ours = self.rows(), worker in self.live()
        try:
            answer = call()
        except LeaseLost:
            assert self.rows() == before
            return None
        assert ours, "a worker without its lease wrote"
        return answer

    def only_unconfirmed_moved(self, before: Mapping[Key, Any]) -> None:
        for name, row in self.rows().items():
            assert row == before[name] or before[name].state == DeliveryState.UNCONFIRMED

    @rule()
    def renew(self) -> None:
        tokens = [worker.chunk.token for worker in self.workers]
        holding = {worker.chunk.token for worker in self.workers if self.holds(worker)}
        assert self.world.ledger.renew(tokens, LEASE) == holding

    # ── sweepers and the clock ───────────────────────────────────────────────────────────────────────────────────

    @rule(seconds=st.sampled_from([1, 30, 61]))
    def time_passes(self, seconds: int) -> None:
        self.world.clock.forward(timedelta(seconds=seconds))

    @rule(
        again=st.booleans(),
        seconds=st.sampled_from([0, 61]),
        journal=st.sampled_from(["read", "read", "gone"]),
        dead=st.booleans(),
    )
    def recover(self, again: bool, seconds: int, journal: str, dead: bool) -> None:
        """Takes over what ran out; `dead`: and what the first worker holds, whose process is known to have ended."""
        self.world.clock.forward(timedelta(seconds=seconds))
        ended = [worker.chunk.token for worker in self.workers[:1]] if dead else []
        by_token = {worker.chunk.token: worker for worker in self.workers}
        for lapsed in self.world.ledger.lapsed(None, ended, timedelta(0)):
            worker = by_token[lapsed.chunk.token]
            found = self.world.ledger.recover(
                lapsed, worker.noted if journal == "read" else None, resend=again
            )
            self.by_policy |= {
                (key(each.delivery), each.delivery.identity.resend)
                for each in found
                if again and each.code == "lease"
            }
            if lapsed.ended:
                self.workers.remove(worker)  # it never comes back
        assert journal == "gone" or not self.unnoted_in_doubt

    @property
    def unnoted_in_doubt(self) -> bool:
        """Whether a delivery is unconfirmed that nobody began under its resend number."""
        return any(
            row.state == DeliveryState.UNCONFIRMED and not row.attempts for row in self.rows().values()
        )

    @rule()
    def sweep(self) -> None:
        """As without journals: what ran out is in doubt."""
        self.moves.look(self.rows())
        sweep(self.world.engine)

    # ── a person ─────────────────────────────────────────────────────────────────────────────────────────────────

    @rule(name=st.sampled_from(NAMES))
    def leave(self, name: str) -> None:
        self.world.leave(name)

    @rule(name=st.sampled_from(NAMES), suppressed=st.booleans())
    def suppress(self, name: str, suppressed: bool) -> None:
        address = self.world.address(name)
        if suppressed:
            self.world.audience.suppress("email", address, SuppressionReason.MANUAL)
            return
        with suppress(RequestRefused):  # it was not
            self.world.audience.unsuppress("email", address)

    @precondition(lambda self: self.issues)
    @rule(
        data=st.data(),
        scope=st.sampled_from(
            [ResendScope.FAILED, ResendScope.UNCONFIRMED, ResendScope.EXPIRED, ResendScope.ALL]
        ),
    )
    def resend(self, data: st.DataObject, scope: ResendScope) -> None:
        asked = ResendRequest(scope=scope, reason="a test", by="ann")
        self.world.ledger.resend(data.draw(st.sampled_from(self.issues)), asked, timedelta(hours=1))

    @precondition(lambda self: self.issues)
    @rule(data=st.data(), sent=st.booleans())
    def resolve(self, data: st.DataObject, sent: bool) -> None:
        doubtful = [name for name, row in self.rows().items() if row.state == DeliveryState.UNCONFIRMED]
        if doubtful:
            issue_id, seq = data.draw(st.sampled_from(doubtful))
            self.world.ledger.resolve(issue_id, seq, sent=sent, by="ann")

    @precondition(lambda self: self.issues)
    @rule(data=st.data(), how=st.sampled_from(["cancel", "expire"]))
    def stop(self, data: st.DataObject, how: str) -> None:
        issue = data.draw(st.sampled_from(self.issues))
        if how == "cancel":
            self.world.ledger.stop_issue(issue.id, IssueState.CANCELLED, SkipReason.CANCELLED)
            return
        self.world.clock.forward(timedelta(hours=13))
        self.world.ledger.stop_issue(issue.id, IssueState.EXPIRED, SkipReason.EXPIRED)

    @precondition(lambda self: self.issues)
    @rule(data=st.data(), paused=st.booleans())
    def pause(self, data: st.DataObject, paused: bool) -> None:
        self.world.ledger.set_paused(data.draw(st.sampled_from(self.issues)).id, paused=paused)

    # ── what holds at every moment ───────────────────────────────────────────────────────────────────────────────

    @invariant()
    def what_always_holds(self) -> None:
        if not hasattr(self, "world"):
            return
        for issue in self.issues:
            assert self.world.check_sum(issue).planned <= len(NAMES)
        rows = self.rows()
        self.moves.look(rows)
        assert all(times <= 1 or sent in self.by_policy for sent, times in self.went.items())
        with self.world.database.read() as connection:
            free = select(chunks.c.id).where(chunks.c.lease_token.is_(None), chunks.c.sending > 0)
            assert connection.execute(free).all() == [], "being sent by nobody"
            numbers: dict[Key, list[int]] = {}
            for issue_id, seq, number in connection.execute(_NUMBERS):
                numbers.setdefault((issue_id, seq), []).append(number)
        for name, row in rows.items():
            assert numbers.get(name, []) == list(range(1, row.attempts + 1))

    def rows(self) -> Mapping[Key, Any]:
        """All rows of deliveries, by issue and number."""
        with self.world.database.read() as connection:
            return {(row.issue_id, row.seq): row for row in connection.execute(select(deliveries))}

    def leases(self) -> Mapping[str, Any]:
        """Token → until when."""
        with self.world.database.read() as connection:
            query = select(chunks.c.lease_token, chunks.c.lease_until)
            return {row[0]: row[1] for row in connection.execute(query) if row[0]}

    def live(self) -> list[Worker]:
        """Workers whose chunk nobody has taken back."""
        leases = self.leases()
        return [worker for worker in self.workers if worker.chunk.token in leases]

    def holds(self, worker: Worker) -> bool:
        """Whether its lease is there, and has not run out."""
        until = self.leases().get(worker.chunk.token)
        return until is not None and until > self.world.clock()

    def under_way(self, worker: Worker) -> bool:
        """Whether a message is handed over right now: a lane does nothing else meanwhile."""
        return any(each.identity.seq in worker.noted for each in worker.open)


def outcome(data: st.DataObject, delivery: Delivery) -> Outcome:
    state = data.draw(st.sampled_from(ENDS))
    wait = timedelta(seconds=data.draw(st.sampled_from([1, 90])))
    retry = {"retry_in": wait} if state is DeliveryState.PENDING else {}
    return outcome_of(delivery, state, **retry)


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
            max_examples=45 if database.sqlite else 12,
            stateful_step_count=30,
            deadline=None,
            derandomize=True,
            phases=[Phase.generate],  # a failure is shown as it is: making it smaller takes minutes
            suppress_health_check=list(HealthCheck),
        ),
    )
