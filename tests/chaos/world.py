"""A whole installation to be broken: PostgreSQL, Valkey, workers and beats as real processes, and the counting sink."""

import os
import random
import re
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from zoneinfo import ZoneInfo

import psycopg
from sqlalchemy.engine import make_url

from distributor.db import Database
from distributor.settings import EngineSettings

from .processes import ChaosError, Process, SinkProcess, holds_a_chunk, open_intents, stop, wait_until
from .proxy import Proxy

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import services

POST = """---
title: "早报：拔掉电源之后"
date: {day} 06:00:00
---

## 今日要闻

1.  **断电演练照常进行**
    值班的人随手拔掉了一台机器，读者那边什么也没有少，什么也没有多。[详情](https://example.com/drill)
"""
READERS = """
WITH fresh AS (
    INSERT INTO subscribers (channel, address, domain, name, created_at)
    SELECT 'email', 'reader-' || n || '@d' || n %% %s || '.example', 'd' || n %% %s || '.example', '', now()
    FROM generate_series(1, %s) AS n RETURNING id
)
INSERT INTO subscriptions (subscriber_id, newsletter, state, token, source, consent_at, activated_at)
SELECT id, 'ai-daily', 'active', substr(md5(id::text || random()::text), 1, 22), 'import', now(), now() FROM fresh
"""
#: What PostgreSQL of the tests has switched off stays on here: it is killed.
UNSAFE = {"fsync=off", "full_page_writes=off", "max_connections=50"}
LEASE = 4  # seconds
#: How the command is started: as anybody does, and so that its processes say whose code they run.
PLAIN = ("-m", "distributor")
TELLING = (str(Path(__file__).with_name("telling.py")),)
TOLD = re.compile(r"process (\d+) runs (.+)/distributor/__init__\.py$")
#: Which of these hold a chunk, and have sent of it or of another; how many each has sent.
SENDING = (
    "SELECT 1 FROM chunks c JOIN attempts a ON a.worker = c.lease_owner WHERE c.lease_owner = ANY(%s) LIMIT 1"
)
SENT_BY = "SELECT worker, count(*) FROM attempts WHERE outcome = 'sent' GROUP BY worker"
#: Words of a log that stand for a bug.
UNFORESEEN = ("raised unexpected", "Exception in thread", "Unrecoverable error")
#: Seconds within which processes must be ready, and the first mail must arrive.
PATIENCE = 60.0


@dataclass(frozen=True)
class Setup:
    """What is built."""

    readers: int
    lanes: int = 2
    slice: int = 50
    chunk: int = 250
    workers: int = 2
    concurrency: int = 2
    beats: int = 2
    hosts: int = 1
    on_unconfirmed: str = "hold"
    #: None: no append-only file.
    fsync: str | None = "everysec"
    #: The processes reach the database over a wire that can be cut.
    proxy: bool = False
    #: Seconds a message takes at the sink.
    delay: float = 0.03
    #: The commit whose workers run beside this tree's, in the scenario that has such; None: the one before this tree.
    old: str | None = None
    #: Other settings of distributor.toml, as nested tables.
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def connections(self) -> int:
        """Of a process."""
        return self.lanes * EngineSettings().connections


@dataclass
class Toll:
    """What was done to the world."""

    kills: int = 0
    #: Kills that found messages begun and not ended, and how many of those in all.
    hits: int = 0
    open: int = 0
    #: Messages that may be in doubt by what was done, and where the policy is to resend, twice.
    allowed: int = 0


@dataclass(frozen=True)
class Row:
    """A delivery as the ledger has it."""

    state: str
    attempts: int
    logged: int
    code: str
    text: str


class World:
    """An installation. `with` builds it, and leaves no process behind."""

    def __init__(self, setup: Setup, seed: int) -> None:
        self.setup, self.random = setup, random.Random(seed)
        self.toll = Toll()
        #: What a scenario saw go wrong by itself.
        self.problems: list[str] = []
        #: What it wants to be read beside the figures.
        self.notes: list[str] = []
        #: Whose code the workers run, in turn. None: this tree's, as everywhere else.
        self.trees: Sequence[Path | None] = (None,)
        self.workers: list[Process] = []
        self.beats: list[Process] = []
        self.host_of: dict[int, int] = {}
        self.tree_of: dict[int, Path | None] = {}
        self._started = 0
        self.seed = seed
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos-")))
            self.postgres = self._server(stack, services.start_postgres, _make_safe)
            self.valkey = self._server(stack, services.start_redis, self._with_durability)
            self.database_url = stack.enter_context(services.fresh_database(self.postgres))
            self.proxy = Proxy(make_url(self.database_url).port or 5432, self.seed)
            stack.callback(self.proxy.close)
            self.sink = SinkProcess(self.seed)
            stack.callback(self.sink.close)
            stack.callback(self._end_all)
            self.projects = [self._make_project(number) for number in range(self.setup.hosts)]
            database = Database(self.database_url)
            stack.callback(database.close)
            database.upgrade()
            self.sql(READERS, 20, 20, self.setup.readers)
            self.sink.ask(delay=self.setup.delay)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    # ── processes ────────────────────────────────────────────────────────────────────────────────────────────────

    def start(
        self,
        *arguments: str,
        host: int = 0,
        program: Sequence[str] = PLAIN,
        tree: Path | None = None,
    ) -> Process:
        """A command that goes on beside us; the end of the world ends it."""
        self._started += 1
        log = self.root / f"{self._started:03}-{Path(arguments[0]).stem if arguments else 'program'}.log"
        process = Process(
            [sys.executable, *program, *arguments], log, self.environment(tree), self.projects[host].root
        )
        self._stack.callback(process.kill)
        self.host_of[process.pid] = host
        return process

    def start_worker(self, host: int = 0, tree: Path | None = None) -> Process:
        """With a tree: of its code, and its processes say so."""
        program, concurrency = TELLING if tree else PLAIN, str(self.setup.concurrency)
        worker = self.start("worker", "--concurrency", concurrency, host=host, program=program, tree=tree)
        self.workers.append(worker)
        self.tree_of[worker.pid] = tree
        return worker

    def start_beat(self) -> Process:
        beat = self.start("beat")
        self.beats.append(beat)
        return beat

    def run(self, *arguments: str) -> str:
        """A command, to its end; what it said."""
        process = self.start(*arguments)
        if not process.wait(PATIENCE):
            raise ChaosError(f"distributor {' '.join(arguments)} does not end:\n{_tail(process.log)}")
        return process.log.read_text("utf-8", "replace")

    def begin(self) -> None:
        """Everything is started, and the issue opened; returns when it is under way."""
        for number in range(self.setup.workers):
            self.start_worker(number % self.setup.hosts, self.trees[number % len(self.trees)])
        for _ in range(self.setup.beats):
            self.start_beat()
        self.start("send", "issue", "--wait", "1s")
        if not wait_until(lambda: self.sink.messages > 0, PATIENCE):
            raise ChaosError(f"no mail arrives:\n{_tail(self.workers[0].log)}")

    def replace(self, worker: Process) -> Process:
        """A worker in the place of one that is gone."""
        self.workers.remove(worker)
        return self.start_worker(self.host_of[worker.pid], self.tree_of[worker.pid])

    @property
    def proxied_url(self) -> str:
        return make_url(self.database_url).set(port=self.proxy.port).render_as_string(hide_password=False)

    def environment(self, tree: Path | None = None) -> dict[str, str]:
        return {
            **os.environ,
            "PYTHONPATH": str(tree or services.ROOT),  # the tree that is tested is the one this file lies in
            "DISTRIBUTOR_DATABASE_URL": self.proxied_url if self.setup.proxy else self.database_url,
            "DISTRIBUTOR_BROKER_URL": self.valkey.url,
        }

    # ── harm ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def pause(self, least: float, most: float) -> None:
        time.sleep(self.random.uniform(least, most))

    @property
    def going(self) -> bool:
        """Whether there is still a good part to send."""
        return self.sink.messages < 0.97 * self.setup.readers

    def busy_worker(self) -> Process | None:
        """One of the workers that hold chunks; None when none does for a while."""
        found: list[Process] = []

        def look() -> bool:
            found[:] = [worker for worker in self.workers if holds_a_chunk(worker.children)]
            return bool(found)

        wait_until(look, 20, every=0.05)
        return self.random.choice(found) if found else None

    def kill_worker(self, worker: Process, doubts: int | None = None) -> None:
        """SIGKILL to parent and children. Frozen first, so that what it had open is known exactly. Another one starts.

        So many messages of each child may be in doubt: one a connection, if not told otherwise.
        """
        worker.freeze()
        self.strike(worker.children, (doubts or self.setup.connections) * self.setup.concurrency)
        worker.kill()
        self.replace(worker)

    def freeze_at_work(self, worker: Process) -> None:
        """SIGSTOP to parent and children, at a moment at which messages are open, if there is one soon."""
        for _ in range(100):
            worker.freeze()
            if open_intents(worker.children):
                return
            worker.go_on()
            self.pause(0.0, 0.1)
        worker.freeze()

    def kill_child(self, worker: Process) -> None:
        """SIGKILL to one process of its pool: one that holds a chunk, when there is one."""
        children = [pid for pid in worker.children if holds_a_chunk([pid])]
        if not children:
            return  # it has just given its chunks back
        pid = self.random.choice(children)
        with suppress(ProcessLookupError):
            stop(pid)
            self.strike([pid], self.setup.connections)
            os.kill(pid, signal.SIGKILL)

    def strike(self, pids: Sequence[int], allowed: int) -> int:
        """Notes a kill of these processes, which may leave so many messages in doubt."""
        found = open_intents(pids)
        self.toll.kills += 1
        self.toll.hits += bool(found)
        self.toll.open += found
        self.toll.allowed += allowed
        return found

    def everybody(self) -> list[int]:
        return [pid for worker in self.workers for pid in worker.children]

    # ── truth ────────────────────────────────────────────────────────────────────────────────────────────────────

    def sql(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        plain = self.database_url.replace("+psycopg", "")
        with psycopg.connect(plain, autocommit=True, connect_timeout=10) as connection:
            cursor = connection.execute(statement.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    def rows(self) -> Mapping[str, Row]:
        """Address → its delivery."""
        found = self.sql(
            "SELECT d.address, d.state, d.attempts, (SELECT count(*) FROM attempts a WHERE a.issue_id = d.issue_id "
            "AND a.seq = d.seq), d.code, d.text FROM deliveries d"
        )
        return {address: Row(*more) for address, *more in found}

    def is_sending(self, worker: Process) -> bool:
        """Whether one of its processes holds a chunk and has written attempts; by the ledger, for older code has no journals."""
        owners = [f"{socket.gethostname()}:{pid}" for pid in worker.children]
        return bool(self.sql(SENDING, owners))

    def sent_by_tree(self) -> Mapping[Path | None, int]:
        """Folder of the code → how many were sent by it, as the processes tell; None: by one that has not told."""
        told = {int(pid): Path(tree) for line in self.lines(" runs ") for pid, tree in TOLD.findall(line)}
        sent: Counter[Path | None] = Counter()
        for worker, number in self.sql(SENT_BY):
            sent[told.get(int(worker.rpartition(":")[2] or 0))] += number
        return sent

    def wrong_chunks(self) -> list[tuple[Any, ...]]:
        """Chunks whose counters are not what their rows are."""
        states = ("pending", "sending", "sent", "failed", "unconfirmed", "skipped")
        counts = ", ".join(f"count(*) FILTER (WHERE d.state = '{state}') AS {state}" for state in states)
        differs = " OR ".join(f"c.{state} <> r.{state}" for state in states)
        shown = ", ".join(f"c.{state}, r.{state}" for state in states)
        return self.sql(
            f"SELECT c.id, c.lo, c.hi, {shown} FROM chunks c CROSS JOIN LATERAL (SELECT {counts} FROM deliveries d "
            f"WHERE d.issue_id = c.issue_id AND d.seq BETWEEN c.lo AND c.hi) r WHERE {differs}"
        )

    def settled(self) -> bool:
        """Whether the issue is closed and no journal is left."""
        with suppress(psycopg.OperationalError):
            states = [state for (state,) in self.sql("SELECT state FROM issues")]
            return states == ["finished"] and not self.journals()
        return False

    def journals(self) -> list[str]:
        """Files in the folders of journals that should be gone in the end."""
        return [
            path.name
            for project in self.projects
            for pattern in ("*.journal", "*.broken")
            for path in (project.root / "var/journal").glob(pattern)
        ]

    def unexpected(self) -> list[str]:
        """What nobody foresaw: tasks that raised, processes that ended by themselves."""
        ended = [process.name for process in (*self.workers, *self.beats) if not process.running]
        return [*self.lines(*UNFORESEEN), *(f"{name}: has ended by itself" for name in ended)]

    def lines(self, *words: str) -> list[str]:
        """Lines of all logs that hold one of the words."""
        return [
            f"{log.name}: {line}"
            for log in sorted(self.root.glob("*.log"))
            for line in log.read_text("utf-8", "replace").splitlines()
            if any(word in line for word in words)
        ]

    # ── building ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _make_project(self, number: int) -> services.Project:
        """Each host has a folder of its own, and its journals in it."""
        project = services.Project(self.root / f"host-{number}")
        setup = self.setup
        today = datetime.now(ZoneInfo("Asia/Shanghai")).strftime("%Y-%m-%d")
        project.settings(
            newsletter={"schedule": {"time": "00:00", "grace": "1s"}},
            **services.merged(
                {
                    "engine": {
                        "lanes": setup.lanes,
                        "slice": setup.slice,
                        "chunk": setup.chunk,
                        "lease": f"{LEASE}s",
                        "sweep": "2s",
                        "processes": max(1, setup.workers) * setup.concurrency,
                    },
                    "email": {
                        "smtp": {"port": self.sink.port, "timeout": "10s"},
                        "retry": {"first": "1s", "longest": "2s", "tries": 20},
                        "on_unconfirmed": setup.on_unconfirmed,
                    },
                },
                setup.settings,
            ),
        )
        project.write_post("issue", POST.format(day=today))
        return project

    def _server(self, stack: ExitStack, start: Any, change: Any) -> services.OwnServer:
        """A server of ours with other options than the tests' own. Raises services.Missing."""
        server = start()
        if not isinstance(server, services.OwnServer):
            raise services.Missing(f"a server that may be killed: unset {server.variable}")
        stack.callback(server.close)
        server.stop()
        server.argv = change(list(server.argv))
        server.start()
        return server

    def _with_durability(self, argv: list[str]) -> list[str]:
        argv[argv.index("--appendonly") + 1] = "yes" if self.setup.fsync else "no"
        argv[argv.index("--appendfsync") + 1] = self.setup.fsync or "no"
        return argv

    def _end_all(self) -> None:
        for process in (*self.beats, *self.workers):
            process.kill()


def _make_safe(argv: list[str]) -> list[str]:
    """Without the options that give up safety for speed."""
    kept: list[str] = []
    for word in argv:
        if word in UNSAFE:
            kept.pop()
        else:
            kept.append(word)
    return kept


def _tail(log: Path) -> str:
    return "\n".join(log.read_text("utf-8", "replace").splitlines()[-15:])


@contextmanager
def frozen(pids: Sequence[int]) -> Iterator[None]:
    """These processes stand still within the block."""
    for pid in pids:
        stop(pid)
    try:
        yield
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
