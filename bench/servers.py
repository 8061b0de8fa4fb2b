"""PostgreSQL and Valkey on free ports, as the tests start them, but set as in production: nothing is switched off."""

import json
import os
import secrets
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import redis

from bench.processes import ROOT, BenchError

sys.path.insert(0, str(ROOT / "tests"))
import services

#: What differs from PostgreSQL's defaults. The rest, fsync among it, stays as the compose file has it.
POSTGRES_OPTIONS = {"max_connections": "200"}


class Database:
    """A running PostgreSQL with one empty database."""

    def __init__(self, server: services.OwnServer, url: str) -> None:
        assert server.process is not None
        self.pid, self.url = server.process.pid, url
        self._plain = url.replace("+psycopg", "")

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with psycopg.connect(self._plain, autocommit=True) as connection:
            return connection.execute(query.encode(), values or None).fetchall()

    def run(self, statement: str, *values: object) -> None:
        with psycopg.connect(self._plain, autocommit=True) as connection:
            connection.execute(statement.encode(), values or None)


class Broker:
    """A running Valkey."""

    def __init__(self, server: services.OwnServer) -> None:
        assert server.process is not None
        self.pid, self.url = server.process.pid, server.url

    def calls(self) -> dict[str, int]:
        """Calls by command since the start."""
        with redis.Redis.from_url(self.url) as client:
            stats: Mapping[str, Any] = client.info("commandstats")
        return {name.removeprefix("cmdstat_"): values["calls"] for name, values in stats.items()}


@contextmanager
def postgres(*, durable: bool = True) -> Iterator[Database]:
    """PostgreSQL in a temporary folder. Raises BenchError."""
    server = _own(lambda: _make_postgres(durable=durable))
    try:
        server.start()
        name = f"bench_{secrets.token_hex(4)}"
        services.run_sql(server.url, f"CREATE DATABASE {name}")
        yield Database(server, server.url.removesuffix("postgres") + name)
    except TimeoutError as error:
        raise BenchError(str(error)) from None
    finally:
        server.close()


@contextmanager
def valkey() -> Iterator[Broker]:
    """Valkey as in the compose file: append-only, synced every second. Raises BenchError."""
    server = _own(_make_valkey)
    try:
        server.start()
        yield Broker(server)
    except TimeoutError as error:
        raise BenchError(str(error)) from None
    finally:
        server.close()


def _own(make: Any) -> services.OwnServer:
    try:
        server: services.OwnServer = make()
    except services.Missing as reason:
        raise BenchError(str(reason)) from None
    return server


def _make_postgres(*, durable: bool) -> services.OwnServer:
    programs, account = services.find_postgres(), services.unprivileged_account()
    folder = Path(tempfile.mkdtemp(prefix="bench-pg-", dir=services.reachable_temp()))
    try:
        if account:
            programs = services.copy_postgres(programs, folder)
            for path in (folder, *folder.rglob("*")):
                os.chown(path, account.pw_uid, account.pw_gid)
        services.make_cluster(programs, folder, account)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    port = services.free_port()
    url = f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres"
    options = POSTGRES_OPTIONS | ({} if durable else {"fsync": "off"})
    argv = [
        str(programs / "postgres"),
        *("-D", str(folder / "data"), "-h", "127.0.0.1", "-p", str(port), "-k", str(folder)),
        *(word for name, value in options.items() for word in ("-c", f"{name}={value}")),
    ]
    return services.OwnServer(
        url,
        "",
        argv,
        folder,
        lambda: services.postgres_answers(url),
        stop_signal=signal.SIGINT,
        account=account,
    )


def _make_valkey() -> services.OwnServer:
    program = services.find_redis()
    folder = Path(tempfile.mkdtemp(prefix="bench-valkey-"))
    port = services.free_port()
    options = {"appendonly": "yes", "appendfsync": "everysec", "maxmemory-policy": "noeviction"}
    argv = [str(program), "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder), "--save", ""]
    argv += [word for name, value in options.items() for word in (f"--{name}", value)]
    return services.OwnServer(
        f"redis://127.0.0.1:{port}/0", "", argv, folder, lambda: services.redis_answers(port)
    )


def as_toml(table: Mapping[str, Any]) -> str:
    """A table as TOML lines."""
    return "".join(f"{key} = {services.as_toml(value)}\n" for key, value in table.items())


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes`, table by table."""
    result: dict[str, Any] = services.merged(base, changes)
    return result


def parse_setting(text: str) -> dict[str, Any]:
    """`engine.lanes=8` → a nested table. The value is JSON, else a word. Raises ValueError."""
    path, equals, value = text.partition("=")
    if not equals or not path:
        raise ValueError(f"expected TABLE.KEY=VALUE, not {text!r}")
    try:
        parsed = json.loads(value)
    except json.JSONDecodeError:
        parsed = value
    for step in reversed(path.split(".")):
        parsed = {step: parsed}
    table: dict[str, Any] = parsed
    return table
