"""Our engine end to end: real workers, PostgreSQL, Valkey; measured at the sink, in /proc and in the ledger."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bench.processes import BenchError, Child, MemoryWatch, say
from bench.project import Installation, fit_post, installation
from bench.report import by_tenths, call_difference
from bench.servers import merged
from bench.sink import Counts, Sink

#: PostgreSQL's backends report what they counted at most this late.
STATISTICS_LAG = 2.0
#: Processes of a worker.
CONCURRENCY = 2
TABLES = "relname LIKE 'deliveries%' OR relname LIKE 'attempts%' OR relname = 'chunks'"


@dataclass(frozen=True)
class Setup:
    """How the engine runs. What is None is left to the engine's own default."""

    workers: int = 1
    concurrency: int | None = None
    lanes: int | None = None
    connections: int | None = None
    slice: int | None = None
    chunk: int | None = None
    durable: bool = True
    #: Any other setting of distributor.toml, as nested tables.
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def processes(self) -> int:
        """Of each worker."""
        return self.concurrency or CONCURRENCY

    def system(self, port: int) -> dict[str, Any]:
        """distributor.toml for a relay on this port."""
        engine = {
            "lanes": self.lanes,
            "connections": self.connections,
            "slice": self.slice,
            "chunk": self.chunk,
        }
        given = {key: value for key, value in engine.items() if value is not None}
        return merged({"email": {"smtp": {"port": port}}, "engine": given}, self.settings)


def near(setup: Setup) -> Setup:
    """For a relay that answers at once: one lane a process, since threads of one process only fight for it.

    As with the peers, of whose counts of sessions the best one counts; what was asked for stays.
    """
    return replace(
        setup,
        lanes=setup.lanes or 1,
        connections=setup.connections or 8,
        slice=setup.slice or 500,
        chunk=setup.chunk or 2000,
    )


@dataclass(frozen=True)
class Audience:
    """So many readers over so many domains."""

    readers: int
    domains: int = 20


def measure(
    sink: Sink, audience: Audience, size: int, setup: Setup, *, look_while_sending: bool = False
) -> dict[str, Any]:
    """Sends one issue to everybody and tells how it went. Raises BenchError when anything is amiss."""
    with installation(durable=setup.durable) as ours:
        ours.configure(setup.system(sink.port), {"email": {}})
        measured = fit_post(ours, sink, size)
        say(f"writing {audience.readers:,} readers; a mail is {measured:,} bytes")
        ours.subscribe("email", "reader-#@d%.example", "d%.example", audience.readers, audience.domains)
        workers = ours.start_workers(setup.workers, setup.processes)
        result: dict[str, Any] = {"setup": _plain(setup), "bytes": measured}
        result |= _send(ours, sink, audience.readers, workers, look_while_sending=look_while_sending)
        result["log_seconds_after"] = log_seconds(ours, audience.readers)
        say(f"ours: {result['per_second']:,.0f}/s, first mail after {result['first_seconds']:.2f} s")
        return result


def _send(
    ours: Installation, sink: Sink, readers: int, workers: Sequence[Child], *, look_while_sending: bool
) -> dict[str, Any]:
    sink.reset()
    ours.database.rows("SELECT pg_stat_reset()")
    cpu, calls = ours.cpu(workers, sink.pid), ours.broker.calls()
    looks: list[dict[str, float]] = []  # at most one
    with MemoryWatch([worker.pid for worker in workers]) as memory:
        begun = time.time_ns()
        sender = ours.start("send", "issue", "--wait", "120m")
        watch(
            sender,
            lambda: sink.counts().recipients,
            readers,
            look=(lambda: looks.append(log_seconds(ours, readers))) if look_while_sending else None,
        )
        after = ours.cpu(workers, sink.pid)
    counts = sink.counts()
    ended_well(sender, workers)
    tally = check(ours, "email", readers, arrived=counts.unique, duplicates=counts.duplicates)
    requests = call_difference(calls, ours.broker.calls())
    parents = {worker.pid for worker in workers}
    return {
        "messages": counts.messages,
        "per_second": counts.rate,
        "per_second_from_start": counts.messages / ((counts.last_ns - begun) / 1e9),
        "first_seconds": (counts.first_ns - begun) / 1e9,
        "seconds": counts.seconds,
        "connections": counts.peak,
        "tally": tally,
        "cpu_us_per_message": {
            name: (after[name] - used) * 1e6 / counts.messages for name, used in cpu.items()
        },
        "rss_mib": {
            "parents": [round(peak, 1) for pid, peak in memory.peaks.items() if pid in parents],
            "pool": [round(peak, 1) for pid, peak in memory.peaks.items() if pid not in parents],
            "series": [(round(at, 1), round(mib, 1)) for at, mib in memory.series],
        },
        "redis_calls_per_message": sum(requests.values()) / counts.messages,
        "redis_calls": requests,
        "rate_by_tenths": by_tenths(sink.histogram()[0]),
        "log_seconds_during": looks,
        **_ledger(ours, counts),
    }


def watch(
    sender: Child,
    arrived: Callable[[], int],
    readers: int,
    *,
    look: Callable[[], None] | None = None,
    timeout: float = 7200,
) -> None:
    """Tells how far it is until the sender ends. `look` is called once, at about half: it takes CPU from the send."""
    until, next_line = time.monotonic() + timeout, time.monotonic() + 5
    while sender.running:
        number = arrived()
        if look and number >= readers // 2:
            look()
            look = None
        if time.monotonic() >= next_line:
            say(f"  {number:,} of {readers:,}")
            next_line = time.monotonic() + 5
        if time.monotonic() > until:
            raise BenchError(f"not done after {timeout:.0f} s:\n{sender.last_lines()}")
        time.sleep(0.1)


def ended_well(sender: Child, workers: Sequence[Child]) -> None:
    """Raises BenchError, with what it and the workers said, when the sender's status is not 0."""
    if sender.wait() != 0:
        logs = "\n\n".join(f"{child.name}:\n{child.last_lines()}" for child in (sender, *workers))
        raise BenchError(f"`distributor send` ended with a status other than 0\n{logs}")


def check(ours: Installation, channel: str, readers: int, *, arrived: int, duplicates: int) -> dict[str, int]:
    """The states of the deliveries by SQL. Raises BenchError when arrivals, rows and sums do not all agree."""
    states = dict(ours.database.rows("SELECT state, count(*) FROM deliveries GROUP BY state"))
    status = json.loads(ours.run("status", "--json", status=(0, 1)))
    facts = {
        "arrived": arrived,
        "sent rows": states.get("sent", 0),
        "planned": status["channels"][channel]["planned"],
        "sent": status["channels"][channel]["sent"],
    }
    attempts: int = ours.database.rows("SELECT count(*) FROM attempts")[0][0]
    wrong = {name: number for name, number in facts.items() if number != readers}
    if wrong or duplicates or attempts < readers or not status["balanced"]:
        raise BenchError(
            f"of {readers:,} readers: {wrong or 'all counted'}, {duplicates} got it twice, {attempts:,} attempts, "
            f"balanced: {status['balanced']}, rows by state: {states}"
        )
    return {**states, "attempts": attempts, "duplicates": duplicates}


def _ledger(ours: Installation, counts: Counts) -> dict[str, Any]:
    """What PostgreSQL wrote, by its own statistics."""
    time.sleep(STATISTICS_LAG)
    rows = ours.database.rows(
        f"SELECT relname, n_tup_ins, n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE {TABLES}"
    )
    updates = sum(upd for name, _, upd, _ in rows if name.startswith("deliveries"))
    hot = sum(hot for name, _, _, hot in rows if name.startswith("deliveries"))
    written = sum(ins + upd for _, ins, upd, _ in rows)
    return {
        "ledger_rows_per_second": written / counts.seconds if counts.seconds else 0.0,
        "ledger_rows_per_message": written / counts.messages,
        "delivery_updates_per_message": updates / counts.messages,
        "hot_ratio": hot / updates if updates else None,
    }


def log_seconds(ours: Installation, readers: int) -> dict[str, float]:
    """How long look-ups in the log take, as commands, and how much of it is the start of any command."""
    address = f"reader-{readers // 2}@d{readers // 2 % 20}.example"
    lookups = {
        "command": ("issues", "--json"),
        "by_address": ("log", "--to", address, "--json"),
        "by_state_pending": ("log", "--state", "pending", "--json"),
        "by_state_failed": ("log", "--state", "failed", "--json"),
        "status": ("status", "--json"),
    }
    found = {}
    for name, arguments in lookups.items():
        begun = time.monotonic()
        ours.run(*arguments, status=(0, 1))
        found[name] = round(time.monotonic() - begun, 3)
    return found


def _plain(setup: Setup) -> dict[str, Any]:
    return {name: getattr(setup, name) for name in Setup.__dataclass_fields__}
