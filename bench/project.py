"""An installation to measure: its folder, its readers, its processes. Everything goes through the command line."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zoneinfo import ZoneInfo

from bench.processes import ROOT, BenchError, Child, cpu_seconds, say, wait_until
from bench.report import length_for
from bench.servers import Broker, Database, as_toml, merged, postgres, valkey
from bench.sink import Sink

ZONE = "Asia/Shanghai"
NEWSLETTER: Mapping[str, Any] = {
    "title": "Benchmark",
    "language": "en",
    "timezone": ZONE,
    "sender": {
        "name": "Benchmark",
        "address": "daily@news.example.com",
        "postal_address": "1 Example Street",
    },
    # The scheduler must not open the day's issue before we do.
    "schedule": {"time": "00:00", "grace": "1s"},
}
#: What the filler is made of. Varied enough to be prose, all ASCII: a letter is a byte on the wire.
SENTENCES = (
    "The queue was empty before the first coffee was.",
    "A small model read the whole archive overnight and asked two good questions.",
    "Nobody noticed the failover, which is how it should be.",
    "The new index is half the size and answers in a third of the time.",
    "Operators voted for fewer dashboards and got one.",
    "Backups are a rumour until somebody restores them.",
    "The parser now says which line is wrong, and what would be right.",
    "Three teams agreed on a format, and a fourth already implements it.",
)
READERS = """
WITH fresh AS (
    INSERT INTO subscribers (channel, address, domain, name, created_at)
    SELECT %s, replace(replace(%s, '#', n::text), '%%', (n %% %s)::text), replace(%s, '%%', (n %% %s)::text), '', now()
    FROM generate_series(1, %s) AS n RETURNING id
)
INSERT INTO subscriptions (subscriber_id, newsletter, state, token, source, consent_at, activated_at)
SELECT id, 'bench', 'active', substr(md5(id::text || random()::text), 1, 22), 'import', now(), now() FROM fresh
"""


class Installation:
    """A project's folder with its PostgreSQL and its broker."""

    def __init__(self, root: Path, database: Database, broker: Broker, stack: ExitStack) -> None:
        self.root, self.database, self.broker, self._stack = root, database, broker, stack
        self.environment = {
            **os.environ,
            "DISTRIBUTOR_DATABASE_URL": database.url,
            "DISTRIBUTOR_BROKER_URL": broker.url,
            "DISTRIBUTOR_TELEGRAM_TOKEN": "1234567:" + "A" * 35,
        }
        self._started = 0

    def configure(self, system: Mapping[str, Any], channels: Mapping[str, Any]) -> None:
        """Writes config/ and makes the tables."""
        for name, table in {
            "distributor.toml": system,
            "newsletters/bench.toml": merged(NEWSLETTER, {"channels": channels}),
        }.items():
            path = self.root / "config" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(as_toml(table), "utf-8")
        self.run("db", "upgrade")

    def write_post(self, name: str, length: int) -> None:
        """A post whose text is so many letters long."""
        path = self.root / "posts" / f"{name}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        today = f"{datetime.now(ZoneInfo(ZONE)):%Y-%m-%d}"
        path.write_text(f'---\ntitle: "{name}"\ndate: {today} 06:00:00\n---\n\n{filler(length)}\n', "utf-8")

    def subscribe(self, channel: str, address: str, domain: str, number: int, domains: int = 1) -> None:
        """So many readers. In both patterns `#` is the reader's number and `%` that of the domain."""
        self.database.run(READERS, channel, address, domains, domain, domains, number)
        self.database.run("VACUUM ANALYZE subscribers, subscriptions")

    def run(self, *arguments: str, status: Sequence[int] = (0,)) -> str:
        """A command, to its end; its output. Raises BenchError for any other exit status."""
        done = subprocess.run(
            command(*arguments),
            env=self.environment,
            cwd=self.root,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode not in status or "Traceback" in done.stderr:
            said = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
            raise BenchError(f"distributor {' '.join(arguments)}: status {done.returncode}:\n{said}")
        return done.stdout

    def start(self, *arguments: str) -> Child:
        """A command that goes on until the end of everything, or until it is ended."""
        return self.start_python("distributor", *arguments)

    def start_python(self, module: str, *arguments: str) -> Child:
        """The same for any module of this checkout."""
        self._started += 1
        name = f"{module} {arguments[0]}" if module == "distributor" else module
        log = self.root / f"{self._started}.log"
        argv = [sys.executable, "-m", module, *arguments]
        environment = self.environment | {"PYTHONPATH": str(ROOT)}
        child = Child(name, argv, log=log, environment=environment, cwd=self.root)
        return self._stack.enter_context(child)

    def start_workers(self, number: int, concurrency: int) -> list[Child]:
        """Workers that are ready, and a beat."""
        workers = [self.start("worker", "--concurrency", str(concurrency)) for _ in range(number)]
        self.start("beat")
        wait_until(lambda: all(worker.says(" ready.") for worker in workers), 60, "the workers are ready")
        return workers

    def cpu(self, workers: Sequence[Child], sink: int) -> dict[str, float]:
        """CPU seconds so far, by part."""
        return {
            "workers": cpu_seconds(worker.pid for worker in workers),
            "postgresql": cpu_seconds([self.database.pid]),
            "valkey": cpu_seconds([self.broker.pid]),
            "sink": cpu_seconds([sink]),
        }


@contextmanager
def installation(*, durable: bool = True) -> Iterator[Installation]:
    """A new one, with nothing in it. All its processes end with the block."""
    with ExitStack() as stack:
        say("starting PostgreSQL and Valkey")
        root = Path(stack.enter_context(TemporaryDirectory(prefix="bench-")))
        database = stack.enter_context(postgres(durable=durable))
        yield Installation(root, database, stack.enter_context(valkey()), stack)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "distributor", *arguments]


def filler(length: int) -> str:
    """So many letters of text, in paragraphs."""
    paragraphs, total, number = [], 0, 0
    while total < length:
        sentences = [f"{number + n}. {SENTENCES[(number * 3 + n) % len(SENTENCES)]}" for n in range(5)]
        paragraphs.append(" ".join(sentences))
        total += len(paragraphs[-1]) + 2
        number += 5
    return "\n\n".join(paragraphs)[:length]


def fit_post(of: Installation, sink: Sink, target: int) -> int:
    """Writes posts/issue.md so that its mail is about `target` bytes on the wire; returns the bytes measured."""
    small, large = [(length, _measure(of, sink, length)) for length in (1000, 4000)]
    length = max(1, length_for(target, small, large))
    measured = _measure(of, sink, length)
    of.write_post("issue", length)
    return measured


def _measure(of: Installation, sink: Sink, length: int) -> int:
    """The bytes of a test mail with a text of this length."""
    sink.reset()
    of.write_post("issue", length)
    of.run("send", "issue", "--test-to", "somebody@bench.example")
    counts = sink.counts()
    if counts.messages != 1:
        raise BenchError(f"a test send brought {counts.messages} messages to the sink, expected 1")
    return counts.bytes
