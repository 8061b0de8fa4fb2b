"""An import of many readers beside a bare COPY of the same file: rows a second, memory, who burns the processor.

Ours validates, removes duplicates, asks who left or is suppressed, and writes subscribers, subscriptions and their evidence with
all their keys. The bare COPY writes one table that has none; between the two, a COPY of ready rows into the very tables.
"""

import csv
import random
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg

from bench.processes import BenchError, MemoryWatch, cpu_seconds, say
from bench.project import Installation, installation
from bench.report import table

READERS = 1_000_000
DOMAINS = 500
#: A line in so many has an address that came before, or one that is none.
ODD = 1_000
COLUMNS = ("email", "name", "consent_at", "consent_source", "consent_ip")
BLOCK = 1 << 16
EMPTY = "TRUNCATE subscribers, subscriptions, consents, imports RESTART IDENTITY"


def measure(readers: int, *, durable: bool) -> Mapping[str, Any]:
    """Both ways, and ours with a tenth of the file for its memory. Raises BenchError."""
    with installation(durable=durable) as ours:
        ours.configure({}, {"email": {}})
        small, large = (write(ours.root / f"{number}.csv", number) for number in (readers // 10, readers))
        bare, keyed = bare_copy(ours, large), keyed_copy(ours, large)
        ours.database.run(EMPTY)
        tenth = run(ours, small, readers // 10)
        ours.database.run(EMPTY)
        whole = run(ours, large, readers)
        found = ours.database.rows("SELECT count(*), count(DISTINCT subscriber_id) FROM subscriptions")[0]
        expected = readers - 2 * len(range(ODD, readers, ODD))
        if found != (expected, expected):
            raise BenchError(f"{expected:,} subscriptions were expected, and {found} are there")
        result = {
            "rows": readers,
            "bytes": large.stat().st_size,
            "bare_per_second": readers / bare,
            "ours_per_second": readers / whole["seconds"],
            "ratio": bare / whole["seconds"],
            "peak_mib_at_10_percent": tenth["peak_mib"],
            "peak_mib": whole["peak_mib"],
            "keyed_per_second": readers / keyed,
            "ratio_keyed": keyed / whole["seconds"],
            "cpu_us_per_row": whole["cpu_us_per_row"],
        }
    print(shown(result))
    return result


def write(path: Path, number: int) -> Path:
    """A CSV of so many readers in no order: one line in a thousand repeats an address, one has none."""
    with path.open("w", encoding="utf-8") as file:
        file.write(",".join(COLUMNS) + "\n")
        file.writelines(_lines(number))
    return path


def _lines(number: int) -> Iterator[str]:
    chance = random.Random(number)
    address = ""
    for line in range(number):
        if line % ODD or not line:
            address = f"{chance.getrandbits(32):08x}.{line}@d{chance.randrange(DOMAINS)}.example"
        written = "no address" if line % ODD == 1 and line > 1 else address
        yield f"{written},Reader {line},2025-{line % 12 + 1:02d}-{line % 28 + 1:02d}T08:00:00+08:00,form,192.0.2.{line % 250}\n"


def bare_copy(ours: Installation, path: Path) -> float:
    """Seconds of a COPY of the file into a table of its columns, without a key."""
    columns = ", ".join(f"{name} {'timestamptz' if name == 'consent_at' else 'text'}" for name in COLUMNS)
    ours.database.run(f"CREATE TABLE bare ({columns})")
    say("a bare COPY")
    return _copy(ours, {"bare": (path, "WITH (FORMAT csv, HEADER true)")})


def keyed_copy(ours: Installation, path: Path) -> float:
    """Seconds of COPY of ready rows into the tables that an import writes, with all their keys: nothing is asked or checked."""
    tables = {name: path.with_name(f"{name.partition(' ')[0]}.tsv") for name in KEYED}
    with ExitStack() as stack:
        files = [stack.enter_context(file.open("w", encoding="utf-8")) for file in tables.values()]
        lines = csv.reader(stack.enter_context(path.open(encoding="utf-8", newline="")))
        good = dict.fromkeys(row[0] for row in lines if "@" in row[0])
        for number, address in enumerate(good, 1):
            for file, make in zip(files, KEYED.values(), strict=True):
                file.write("\t".join(make(number, address)) + "\n")
    say("COPY of ready rows into our tables")
    return _copy(ours, {name: (file, "") for name, file in tables.items()})


NOW = "2026-01-01 00:00:00+00"
#: Table and columns of what an import writes → a ready row of it.
KEYED: Mapping[str, Callable[[int, str], tuple[str, ...]]] = {
    "subscribers (id, channel, address, domain, name, created_at)": lambda number, address: (
        *(str(number), "email", address, address.partition("@")[2], "Reader", NOW),
    ),
    "subscriptions (id, subscriber_id, newsletter, state, token, source, consent_at, activated_at, import_id)": (
        lambda number, _: (
            *(str(number), str(number), "bench", "active", secrets.token_urlsafe(16), "form", NOW, NOW, "1"),
        )
    ),
    "consents (subscriber_id, newsletter, kind, at, source, ip, detail, import_id)": lambda number, _: (
        *(str(number), "bench", "imported", NOW, "form", "192.0.2.1", f"line {number}", "1"),
    ),
}


def _copy(ours: Installation, files: Mapping[str, tuple[Path, str]]) -> float:
    """Seconds to the end of the transaction."""
    begun = time.monotonic()
    with psycopg.connect(ours.database.url.replace("+psycopg", "")) as connection:
        for table, (path, options) in files.items():
            with (
                path.open("rb") as file,
                connection.cursor().copy(f"COPY {table} FROM STDIN {options}".encode()) as copy,
            ):
                while block := file.read(BLOCK):
                    copy.write(block)
        connection.commit()
    return time.monotonic() - begun


def run(ours: Installation, path: Path, number: int) -> dict[str, Any]:
    """`subscribers import`, as a process of its own, from its start to its end."""
    say(f"importing {number:,} readers")
    server = cpu_seconds([ours.database.pid])
    begun = time.monotonic()
    child = ours.start("subscribers", "import", str(path))
    with MemoryWatch([child.pid], every=0.2) as memory:
        mine = 0.0
        while child.running:
            mine = max(mine, cpu_seconds([child.pid]))
            time.sleep(0.05)
        seconds = time.monotonic() - begun
    if child.wait() not in {0, 1} or "is done" not in child.last_lines():
        raise BenchError(f"the import failed:\n{child.last_lines()}")
    return {
        "seconds": seconds,
        "peak_mib": max(memory.peaks.values()),
        "cpu_us_per_row": {
            "ours": mine * 1e6 / number,
            "postgresql": (cpu_seconds([ours.database.pid]) - server) * 1e6 / number,
        },
    }


def shown(result: Mapping[str, Any]) -> str:
    rows: dict[str, object] = {
        "rows": result["rows"],
        "bare COPY, rows/s": result["bare_per_second"],
        "ours, rows/s": result["ours_per_second"],
        "ours / bare": result["ratio"],
        "ready rows into our tables by COPY, rows/s": result["keyed_per_second"],
        "ours / ready rows": result["ratio_keyed"],
        "peak memory at 10 %, MiB": result["peak_mib_at_10_percent"],
        "peak memory, MiB": result["peak_mib"],
        **{f"processor, {who}, µs/row": used for who, used in result["cpu_us_per_row"].items()},
    }
    return table(["import", ""], rows.items())
