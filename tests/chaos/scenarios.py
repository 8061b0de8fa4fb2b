"""The scenarios: what is done to a world while it sends, and what it may cost."""

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import redis

from distributor.bootstrap import build
from distributor.dispatch import drain, sweep
from distributor.settings import load_settings

from .history import ROOT, lay_out
from .processes import Process, held_journals, open_intents, wait_until
from .report import Result, count
from .world import LEASE, Setup, World, frozen

Act = Callable[[World, int], None]
#: Seconds in which a lease that ran out must be in other hands: a drain ends after 45 s, and then there is a sweep.
TAKEN_WITHIN = 75.0
#: Seconds after which no more harm is done; then so many again until all must be settled, in the short form fewer.
LONGEST, SHORT_LONGEST = 300.0, 90.0
#: Seconds in which a channel must stop whose relay has gone, and must be tried again when its stop is over.
STOPS_WITHIN, RESUMES_WITHIN = 10.0, 15
#: Seconds in which a worker must have ended that was told to.
STOP_WITHIN = 20.0


@dataclass(frozen=True)
class Scenario:
    """What is done, how often (or for how many seconds) in the full and in the short form, and what differs in the world.

    `check` looks at what was settled, beyond what is counted of every scenario.
    """

    act: Act
    times: int
    short_times: int = 2
    needs_hit: bool = True
    check: Callable[[World], None] | None = None
    setup: Mapping[str, Any] = field(default_factory=dict)


def run(name: str, *, full: bool, seed: int, readers: int | None = None, old: str | None = None) -> Result:
    """Builds a world, does what the scenario says, waits until all is settled or time is up, and counts."""
    scenario = SCENARIOS[name]
    begun = time.monotonic()
    setup = replace(FULL if full else SHORT, **scenario.setup)
    setup = replace(setup, readers=readers or setup.readers, old=old)
    with World(setup, seed) as world:
        scenario.act(world, scenario.times if full else scenario.short_times)
        world.sink.ask(**CALM)
        settled = wait_until(world.settled, LONGEST if full else SHORT_LONGEST, every=0.2)
        if settled and scenario.check:
            scenario.check(world)
        result = count(world, name, needs_hit=scenario.needs_hit)
        result.seconds = time.monotonic() - begun
        if not settled:
            said = world.sql("SELECT state, paused, hold FROM issues")
            leases = world.sql(
                "SELECT count(*), min(lease_until), now() FROM chunks WHERE lease_token IS NOT NULL"
            )
            result.problems.append(f"not settled when time was up: issue {said}, leases {leases}")
        if result.problems:
            result.problems += world.lines("lease_lost", "issue_held", "channel_stopped")[-5:]
    return result


FULL = Setup(readers=20_000, delay=0.06)
SHORT = Setup(readers=1_200, delay=0.05, chunk=50, beats=1)
#: The sink without faults.
CALM: Mapping[str, Any] = {
    "delay": 0.0,
    "drop_before": 0.0,
    "drop_after": 0.0,
    "refusals": [],
    "frequency": {},
    "closing": 0.0,
    "refuse": False,
    "down": False,
    "nonsense_dot": 0.0,
    "nonsense_rcpt": 0.0,
    "hang": 0.0,
}

# ── workers ──────────────────────────────────────────────────────────────────────────────────────────────────────


def kill_workers(world: World, times: int) -> None:
    """SIGKILL to a worker, parent and pool; another one starts at once."""
    world.begin()
    _repeat(world, times, world.kill_worker)


def kill_children(world: World, times: int) -> None:
    """SIGKILL to a process of a pool; its parent starts another one."""
    world.begin()
    _repeat(world, times, world.kill_child)


def kill_and_sweep(world: World, times: int) -> None:
    """The same as `kill_workers`, with two processes that sweep without a pause."""
    world.begin()
    program = (str(Path(__file__).with_name("sweeper.py")),)
    for _ in range(2):
        world.start(str(world.projects[0].root), program=program)
    _repeat(world, times, world.kill_worker)


def kill_and_delete_journals(world: World, times: int) -> None:
    """The worker is killed, and the journals of its leases with it: as when the whole host is lost."""

    def lose(worker: Process) -> None:
        worker.freeze()
        journals = [path for pid in worker.children for path in held_journals(pid)]
        world.strike(worker.children, world.setup.slice * world.setup.lanes * world.setup.concurrency)
        worker.kill()
        for path in journals:
            path.unlink(missing_ok=True)
        world.replace(worker)

    world.begin()
    _repeat(world, times, lose)


def terminate_workers(world: World, times: int) -> None:
    """SIGTERM: nothing may be in doubt."""

    def stop(worker: Process) -> None:
        world.strike(worker.children, 0)
        worker.terminate()
        world.replace(worker)
        if not worker.wait(STOP_WITHIN):
            world.problems.append(f"{worker.name} has not ended {STOP_WITHIN:.0f} s after SIGTERM")

    world.begin()
    _repeat(world, times, stop)


def freeze_workers(world: World, times: int) -> None:
    """A worker stands still until its leases have run out and are taken over, then goes on.

    One message a connection is in doubt. With workers of two hosts the other one knows no journal: whole slices are.
    """
    doubts = world.setup.connections if world.setup.hosts == 1 else world.setup.slice * world.setup.lanes

    def freeze(worker: Process) -> None:
        world.freeze_at_work(worker)
        tokens = [path.stem for pid in worker.children for path in held_journals(pid)]
        world.strike(worker.children, doubts * world.setup.concurrency)
        if not wait_until(
            lambda: not world.sql("SELECT 1 FROM chunks WHERE lease_token = ANY(%s)", tokens),
            TAKEN_WITHIN,
            0.5,
        ):
            world.problems.append(f"{worker.name}: its leases are not taken over within {TAKEN_WITHIN:.0f} s")
        worker.go_on()

    world.begin()
    _repeat(world, times, freeze)


def freeze_in_transaction(world: World, times: int) -> None:
    """A worker stands still in the middle of a transaction, as a host that vanished does: the others must get on."""

    def freeze(worker: Process) -> None:
        for _ in range(400):
            worker.freeze()
            if world.sql(IN_TRANSACTION, worker.name):
                world.strike(worker.children, world.setup.connections * world.setup.concurrency)
                if wait_until(lambda: bool(world.sql(STUCK, worker.name)), 15 * LEASE, every=1):
                    stuck = world.sql(STUCK, worker.name)
                    world.problems.append(
                        f"stuck behind a worker that stands still in a transaction: {stuck}"
                    )
                break
            worker.go_on()
            world.pause(0.0, 0.05)
        worker.go_on()

    world.begin()
    _repeat(world, times, freeze)


#: A session that holds the row of a chunk, and is in no statement.
IN_TRANSACTION = (
    "SELECT 1 FROM pg_stat_activity WHERE application_name = %s AND state = 'idle in transaction' "
    "AND query LIKE '%%lease_token = %%FOR UPDATE OF chunks'"
)


#: Sessions of others that have waited for a lock for more than two leases: who, for how long, for what.
STUCK = (
    "SELECT application_name, extract(epoch FROM now() - query_start)::integer, left(query, 80) FROM pg_stat_activity "
    f"WHERE wait_event_type = 'Lock' AND now() - query_start > interval '{2 * LEASE} s' "
    "AND application_name <> %s"
)


def kill_parents(world: World, times: int) -> None:
    """SIGKILL to a worker's parent alone; the orphans of its pool must neither send for ever nor twice."""

    def orphan(worker: Process) -> None:
        world.strike(worker.children, world.setup.connections * world.setup.concurrency)
        worker.kill_parent()
        world.replace(worker)

    world.begin()
    _repeat(world, times, orphan)


def mix_versions(world: World, times: int) -> None:
    """Workers of an earlier commit and of this tree on one issue, as in an upgrade; one of each is killed in turn.

    Either version takes over what it had in hand. A version without journals leaves all of its slice in doubt, and asks
    nobody's.
    """
    old = lay_out(world.setup.old, world.root)
    journals = (old / "distributor/journal.py").exists()
    doubts = world.setup.connections if journals else world.setup.slice * world.setup.lanes

    def all_are_at_it() -> bool:
        wait_until(lambda: all(map(world.is_sending, world.workers)) or not world.going, LONGEST)
        return world.going

    world.trees = (ROOT, old)
    world.begin()
    for tree in islice(cycle(world.trees), times):
        if all_are_at_it():
            world.pause(0.0, 1.0)
            victim = next(worker for worker in world.workers if world.tree_of[worker.pid] == tree)
            world.kill_worker(victim, doubts)
    all_are_at_it()  # who was started last as well


def all_trees_have_sent(world: World) -> None:
    """Each version a part, by what the processes themselves say of whose code they run."""
    sent = world.sent_by_tree()
    told = ", ".join(f"{number} by {_called(tree)}" for tree, number in sent.items())
    world.notes.append(f"sent: {told}")
    if set(sent) != set(world.trees):
        world.problems.append(
            f"not all of {', '.join(map(_called, world.trees))} have sent, or others have: {told}"
        )


def _called(tree: Path | None) -> str:
    if tree is None:
        return "a process that has not told whose code it runs"
    return "this tree" if tree == ROOT else tree.name


def kill_opener(world: World, _times: int) -> None:
    """SIGKILL to `distributor send` while it writes the audience down: a sweep goes on behind its last window."""
    for _ in range(world.setup.workers):
        world.start_worker()
    world.start_beat()
    opener = world.start("send", "issue", "--wait", "1s")
    begun = "SELECT 1 FROM issues WHERE state = 'opening' AND EXISTS (SELECT 1 FROM deliveries)"
    wait_until(lambda: bool(world.sql(begun)), 30, every=0.005)
    opener.kill()
    world.toll.kills += 1
    world.toll.hits += len(world.sql("SELECT 1 FROM issues WHERE state = 'opening'"))


def kill_beats(world: World, times: int) -> None:
    """SIGKILL to a beat."""
    world.begin()
    for _ in range(times):
        world.pause(0.3, 1.0)
        beat = world.random.choice(world.beats)
        world.strike(world.everybody(), 0)
        beat.kill()
        world.beats.remove(beat)
        world.start_beat()


def _repeat(world: World, times: int, harm: Callable[[Process], object]) -> None:
    """Harms one of the busy workers again and again, at random moments, while there is something to send."""
    until = time.monotonic() + LONGEST
    while world.toll.kills < times and world.going and time.monotonic() < until:
        if worker := world.busy_worker():
            world.pause(0.0, 1.0)
            harm(worker)


# ── servers ──────────────────────────────────────────────────────────────────────────────────────────────────────


def crash_broker(world: World, times: int) -> None:
    """SIGKILL to Valkey; started again on what it kept."""
    world.begin()
    for _ in range(times):
        world.pause(0.5, 2.0)
        world.strike(world.everybody(), 0)
        world.valkey.kill()
        world.pause(0.0, 2.0)
        world.valkey.start()


def flush_broker(world: World, times: int) -> None:
    """FLUSHALL: queues, bindings and the pace are gone."""
    world.begin()
    for _ in range(times):
        world.pause(0.5, 2.0)
        world.strike(world.everybody(), 0)
        with redis.Redis.from_url(world.valkey.url) as client:
            client.flushall()


def freeze_broker(world: World, times: int) -> None:
    """SIGSTOP to Valkey for twenty seconds."""
    world.begin()
    for _ in range(times):
        world.pause(0.5, 2.0)
        assert world.valkey.process is not None
        with frozen([world.valkey.process.pid]):
            world.strike(world.everybody(), 0)
            time.sleep(20)


def crash_database(world: World, times: int) -> None:
    """SIGKILL to the postmaster and all its children; started again, it recovers from its log."""
    world.begin()
    for _ in range(times):
        world.pause(0.5, 2.5)
        if not world.going:
            return
        world.strike(world.everybody(), 0)
        _crash(world)
        world.pause(0.0, 2.0)
        world.postgres.start()


def lose_answers(world: World, _times: int) -> None:
    """The database does what it is asked, and now and then the answer and the connection are lost."""
    world.begin()
    world.proxy.share, world.proxy.commits = 0.005, 0.1
    wait_until(lambda: not world.going, 60)
    world.proxy.share = world.proxy.commits = 0.0
    world.toll.kills = world.proxy.cut


def _crash(world: World) -> None:
    assert world.postgres.process is not None
    postmaster = world.postgres.process.pid
    backends = [
        int(child)
        for task in Path(f"/proc/{postmaster}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]
    for pid in (postmaster, *backends):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    world.postgres.process.wait()


# ── the relay ────────────────────────────────────────────────────────────────────────────────────────────────────


def misbehave(**faults: Any) -> Act:
    """The sink does these things for half of the issue."""

    def act(world: World, _times: int) -> None:
        world.sink.ask(**faults)
        world.begin()
        wait_until(lambda: world.sink.messages > world.setup.readers // 2 or not world.going, LONGEST)

    return act


def cut_lines(world: World, times: int) -> None:
    """Connections end before and after the final dot; for a while nobody can connect, then 421s."""
    world.sink.ask(drop_before=0.01, drop_after=0.01)
    world.begin()
    for _ in range(times):
        world.pause(1.0, 2.0)
        world.sink.ask(next_drop_after=3, next_drop_before=3)
    wait_until(lambda: world.sink.messages > world.setup.readers // 2, LONGEST)
    world.sink.ask(refuse=True, closing=0.01)
    world.pause(1.0, 2.0)
    world.sink.ask(refuse=False)
    world.pause(2.0, 3.0)


def close_relay(world: World, seconds: int) -> None:
    """Nobody listens at the relay for so many seconds: the channel stops, `status` says so, and it goes on by itself.

    The relay is stopped in good order, and what it took it has answered: so nothing is in doubt, and no try is paid.
    """
    world.begin()
    wait_until(lambda: world.sink.messages > world.setup.readers // 3, LONGEST)
    world.sink.ask(down=True)
    back = time.monotonic() + seconds
    if not wait_until(lambda: bool(world.sql(STOPS)), STOPS_WITHIN):
        world.problems.append(f"the channel is not stopped {STOPS_WITHIN:.0f} s after its relay went")
    if not re.search("email (is|was) stopped", said := world.run("status")):
        world.problems.append(f"`status` does not say that the channel is stopped: {said}")
    time.sleep(max(0.0, back - time.monotonic()))
    taken, stops = world.sink.messages, world.sql(STOPS)
    world.sink.ask(down=False)
    back = time.monotonic()
    wait_until(lambda: world.sink.messages > taken or bool(world.sql(OVERDUE)), LONGEST)
    if world.sink.messages == taken:
        world.problems.append(f"a stop is over for {RESUMES_WITHIN} s, and nothing goes: {world.sql(STOPS)}")
    world.notes.append(
        f"stopped {stops[0][0] if stops else 0} times, went on {time.monotonic() - back:.1f} s after the relay was back"
    )


STOPS = "SELECT times, until, reason FROM channel_stops WHERE channel = 'email'"
OVERDUE = f"SELECT 1 FROM channel_stops WHERE until < now() - interval '{RESUMES_WITHIN} s'"


def all_sent_at_once(world: World) -> None:
    """Everybody has it by the first try."""
    others = world.sql(
        "SELECT address, state, tries, attempts FROM deliveries WHERE (state, tries, attempts) <> ('sent', 1, 1)"
    )
    if others:
        world.problems.append(f"{len(others)} not sent by the first try, such as {others[0]}")
    if world.sql(STOPS):
        world.problems.append(f"all is sent, and the channel is stopped still: {world.sql(STOPS)}")


def refuse_some(world: World, _times: int) -> None:
    """Some recipients are refused, for a while or for good; a provider wants us slower. Then it has a good day."""
    world.sink.ask(
        refusals=[
            ("450 4.2.1 mailbox busy", 0.05, 2),
            ("451 4.3.0 try again", 0.05, 1),
            ("550 5.1.1 no such user", 0.03, 99),
        ],
        frequency={"d0.example": 5.0},
    )
    world.begin()
    wait_until(lambda: world.sink.messages > 0.85 * world.setup.readers, LONGEST)
    world.sink.ask(frequency={})
    # A provider's half hour is remembered by Redis, by each process and by the rows: all of them forget it.
    for worker in tuple(world.workers):
        worker.terminate()
        worker.wait(STOP_WITHIN)
    with redis.Redis.from_url(world.valkey.url) as client:
        client.flushall()
    world.sql("UPDATE deliveries SET due_at = now() WHERE state = 'pending' AND due_at > now()")
    world.sql("UPDATE chunks SET due_at = now() WHERE pending > 0")
    for worker in tuple(world.workers):
        world.replace(worker)


# ── time ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def jump_clock(world: World, times: int) -> None:
    """Lanes in this process, on a database whose clock jumps an hour forward and back."""
    shift = [timedelta()]
    world.run("send", "issue", "--wait", "1s")
    settings = load_settings(world.projects[0].root, world.environment())
    distributor = build(settings, clock=lambda: datetime.now(UTC) + shift[0])
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            drain(distributor.engine, "email", seconds=60, stop=stop)
            stop.wait(0.1)

    lanes = threading.Thread(target=work)
    lanes.start()
    try:
        for number in range(times):
            world.pause(0.3, 1.5)
            world.strike([os.getpid()], world.setup.connections)
            shift[0] = timedelta(hours=(number + 1) % 2)
            sweep(distributor.engine)
        shift[0] = timedelta(hours=2)  # what was put off in the hour ahead must be due
        world.sink.ask(delay=0.0)
        wait_until(lambda: not sweep(distributor.engine).due and not open_intents([os.getpid()]), 120, 0.5)
    finally:
        stop.set()
        lanes.join()
        sweep(distributor.engine)
        distributor.close()


SCENARIOS: Mapping[str, Scenario] = {
    "kill-worker": Scenario(kill_workers, 20),
    "kill-worker-resend": Scenario(kill_workers, 20, 3, setup={"on_unconfirmed": "resend"}),
    "kill-child": Scenario(kill_children, 20, 3),
    "kill-opener": Scenario(kill_opener, 1, 1, setup={"readers": 30_000, "delay": 0.0, "chunk": 500}),
    "kill-beat": Scenario(kill_beats, 5, setup={"beats": 2}),
    "sigterm": Scenario(terminate_workers, 10, 3),
    "freeze-worker": Scenario(freeze_workers, 5, 1),
    "freeze-in-transaction": Scenario(freeze_in_transaction, 2, 1),
    "kill-parent": Scenario(kill_parents, 8, 2),
    "versions": Scenario(
        mix_versions,
        10,
        check=all_trees_have_sent,
        # Slow enough that whoever was killed is back in time. Settings that older code knows too, and a rate: both
        # versions keep its pace under the same name in Redis.
        setup={"delay": 0.1, "settings": {"engine": {"processes": None}, "email": {"rate": 2000}}},
    ),
    "sweepers": Scenario(kill_and_sweep, 15, 3),
    "journals-deleted": Scenario(kill_and_delete_journals, 8, 1),
    "other-host": Scenario(freeze_workers, 3, 1, setup={"hosts": 2}),
    "broker-aof": Scenario(crash_broker, 5),
    "broker-no-aof": Scenario(crash_broker, 5, setup={"fsync": None}),
    "broker-flush": Scenario(flush_broker, 5),
    "broker-frozen": Scenario(freeze_broker, 1, 1),
    "database": Scenario(crash_database, 8),
    "answers-lost": Scenario(lose_answers, 0, 0, needs_hit=False, setup={"proxy": True}),
    "lines-cut": Scenario(cut_lines, 5, 1, needs_hit=False),
    "lines-cut-resend": Scenario(cut_lines, 5, 1, needs_hit=False, setup={"on_unconfirmed": "resend"}),
    "relay-down": Scenario(close_relay, 60, 4, needs_hit=False, check=all_sent_at_once),
    "nonsense": Scenario(
        misbehave(nonsense_dot=0.005, nonsense_rcpt=0.02, hang=0.001), 0, 0, needs_hit=False
    ),
    "refusals": Scenario(refuse_some, 0, 0, needs_hit=False),
    "clock": Scenario(jump_clock, 10, 3, setup={"workers": 0, "beats": 0}),
}
#: The short form: the most telling ones.
SHORT_FORM = ("kill-worker", "database", "lines-cut-resend", "freeze-worker")
