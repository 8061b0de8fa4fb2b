"""The database: connections and its clock. SQLite (one writer, WAL) and PostgreSQL from the same tables (tables.py).

Leases and due times use the database's clock, so that hosts need not agree on theirs.
"""

import json
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import (
    ARRAY,
    Column,
    ColumnElement,
    Connection,
    Engine,
    Row,
    Table,
    any_,
    create_engine,
    event,
    inspect,
    literal,
    literal_column,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects import sqlite as sqlite_dialect
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, InvalidatePoolError, OperationalError, ProgrammingError
from sqlalchemy.exc import TimeoutError as NoConnectionLeft
from sqlalchemy.sql import func

from distributor.errors import ServiceDown

Clock = Callable[[], datetime]
T = TypeVar("T")

#: Issues that share a partition of deliveries and attempts on PostgreSQL: about a month of a daily newsletter.
ISSUES_PER_PARTITION = 32
#: Seconds after which a transaction in which nothing happens is ended by the server, and a wait for a lock given up.
STUCK = 30
#: Seconds that a reader of many rows may pause.
PAUSE = 3600
#: Seconds after which a pooled connection is looked at before it is used.
IDLE = 2.0
#: Partitioned table → how full its pages are made, in percent. A delivery is written anew twice while it is sent: with
#: room for that on its page, no index is touched (HOT). An attempt is never changed.
PARTITIONED = {"deliveries": 45, "attempts": 100}


class Database:
    """Connections to one database. `read()` and `write()` are the only ways in; both raise ServiceDown."""

    def __init__(self, url: str, *, clock: Clock | None = None) -> None:
        self.url = make_url(url)
        if self.url.drivername == "postgresql":
            self.url = self.url.set(drivername="postgresql+psycopg")
        self.sqlite = self.url.get_backend_name() == "sqlite"
        self.engine = self._make_engine()
        self._clock = clock
        # SQLite has one writer: lanes queue here in order instead of spinning on its busy handler.
        self._writer = threading.RLock()

    def _make_engine(self) -> Engine:
        if self.sqlite:
            if self.url.database:
                Path(self.url.database).parent.mkdir(parents=True, exist_ok=True)
            engine = create_engine(self.url, connect_args={"timeout": 10}, hide_parameters=True)
            event.listen(engine, "connect", _prepare_sqlite)
            event.listen(engine, "begin", _begin_sqlite)
            return engine
        engine = create_engine(
            self.url,
            pool_size=16,
            max_overflow=16,
            connect_args={"connect_timeout": 5},
            hide_parameters=True,  # an error's text ends in a log, and values are addresses and tokens
        )
        event.listen(engine, "connect", _limit_waits)
        _look_at_idle(engine)
        return engine

    @property
    def name(self) -> str:
        """The URL without its password."""
        return self.url.render_as_string(hide_password=True)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that changes nothing."""
        with self._translated(), self.engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def streaming(self) -> Iterator[Connection]:
        """`read()` for more rows than fit into memory; whoever takes them (a pager, a slow pipe) may pause for long."""
        with self.read() as connection:
            if not self.sqlite:
                connection.execute(text(f"SET LOCAL idle_in_transaction_session_timeout = {PAUSE * 1000}"))
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that is committed at the end of the block, or rolled back by an exception."""
        if not self.sqlite:
            with self._translated(), self.engine.begin() as connection:
                yield connection
            return
        with self._translated(), self._writer, self.engine.connect() as connection:
            connection = connection.execution_options(sqlite_write=True)  # noqa: PLW2901 - the same connection, marked
            with connection.begin():
                yield connection

    @contextmanager
    def statement(self) -> Iterator[Callable[[str, Mapping[str, Any]], Sequence[Any]]]:
        """PostgreSQL: runs a statement (in the driver's words) as a transaction of its own, and returns its rows.

        For the hot path: past SQLAlchemy's layers, and without the two round trips around a transaction.
        """
        with self._translated(), self.engine.connect() as connection:
            connection = connection.execution_options(isolation_level="AUTOCOMMIT")  # noqa: PLW2901 - the same one
            driver: Any = connection.connection.driver_connection
            try:
                yield lambda statement, values: driver.execute(statement, values).fetchall()
            except self.engine.dialect.loaded_dbapi.Error as error:
                if driver.broken or driver.closed:
                    connection.invalidate()
                raise DBAPIError.instance(
                    None,
                    None,
                    error,
                    self.engine.dialect.loaded_dbapi.Error,
                    connection_invalidated=driver.broken,
                ) from error

    def now(self, connection: Connection) -> datetime:
        """The database's clock (SQLite lives on this host, so its clock is ours)."""
        if self._clock:
            return self._clock()
        if self.sqlite:
            return datetime.now(UTC)
        moment: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
        return moment.astimezone(UTC)

    @property
    def has_clock(self) -> bool:
        """Whether a statement may ask the server for the time itself (`clock_timestamp()`)."""
        return not self.sqlite and self._clock is None

    @property
    def set_clock(self) -> datetime | None:
        """The time when it is not the server's to say."""
        return self._clock() if self._clock else None

    def version(self) -> str:
        """The server's version, as it says it."""
        with self.read() as connection:
            query = "select sqlite_version()" if self.sqlite else "show server_version"
            return f"{self.url.get_backend_name()} {connection.execute(text(query)).scalar_one()}"

    def upgrade(self) -> None:
        """Brings the schema to the newest revision this version knows; leaves a newer one alone."""
        has, brings = self.revision()
        if has == brings or self.is_ahead():
            return
        with self._translated(), self._writer, self.engine.connect() as connection:
            connection = connection.execution_options(sqlite_write=True)  # noqa: PLW2901 - the same connection, marked
            with connection.begin():
                if not self.sqlite:
                    connection.execute(select(func.pg_advisory_xact_lock(0)))  # two processes, one schema
                _upgrade(connection)

    def revision(self) -> tuple[str | None, str | None]:
        """(the revision the database has, the one this version of the program brings)."""
        with self.read() as connection:
            there = inspect(connection).has_table("alembic_version")
            query = text("SELECT version_num FROM alembic_version")
            return connection.execute(query).scalar() if there else None, _revisions()[-1]

    def is_ahead(self) -> bool:
        """Whether a newer version of the program has changed the tables. Its migrations only add, so this one goes on."""
        has, _brings = self.revision()
        return has is not None and has not in _revisions()

    def ensure_partition(self, connection: Connection, issue_id: int) -> None:
        """Makes the partitions that hold an issue's deliveries and attempts (PostgreSQL only)."""
        if self.sqlite:
            return
        low = issue_id // ISSUES_PER_PARTITION * ISSUES_PER_PARTITION
        connection.execute(select(func.pg_advisory_xact_lock(low + 1)))  # two openers, one partition
        for table, full in PARTITIONED.items():
            connection.execute(
                text(
                    f"CREATE TABLE IF NOT EXISTS {table}_{low} PARTITION OF {table} "
                    f"FOR VALUES FROM ({low}) TO ({low + ISSUES_PER_PARTITION}) WITH (fillfactor = {full})"
                )
            )

    def analyze(self, connection: Connection, issue_id: int) -> None:
        """Tells PostgreSQL's planner about the partition of an issue that was just filled; it guesses badly until then."""
        if self.sqlite:
            return
        low = issue_id // ISSUES_PER_PARTITION * ISSUES_PER_PARTITION
        connection.execute(text(f"ANALYZE deliveries_{low}"))

    def analyze_table(self, connection: Connection, table: Table) -> None:
        """The same for a table that was just filled."""
        if not self.sqlite:
            connection.execute(text(f"ANALYZE {table.name}"))

    def drop_issues(self, connection: Connection, table: Table, below: int) -> int:
        """Forgets rows of issues numbered below `below`: whole partitions on PostgreSQL, rows on SQLite."""
        if self.sqlite:
            return connection.execute(table.delete().where(table.c.issue_id < below)).rowcount
        found = connection.execute(
            text(
                "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = to_regclass(:t)"
            ),
            {"t": table.name},
        ).scalars()
        old = [name for name in found if int(name.rsplit("_", 1)[1]) + ISSUES_PER_PARTITION <= below]
        for name in old:
            connection.execute(text(f"DROP TABLE {name}"))
        return len(old)

    def close(self) -> None:
        self.engine.dispose()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """The driver's words for "not there" become ours; everything else is a bug and stays loud."""
        try:
            yield
        except (OperationalError, InterfaceError, ProgrammingError, DBAPIError) as error:
            if _lacks_schema(error):
                raise ServiceDown(
                    f"the database {self.name} has no tables yet, or old ones: run `distributor db upgrade`"
                ) from error
            if isinstance(error, OperationalError | InterfaceError) or error.connection_invalidated:
                raise ServiceDown(
                    f"the database {self.name} does not answer: {_first_line(error)}\n"
                    "Is it running, and is DISTRIBUTOR_DATABASE_URL (or database.url) right?"
                ) from error
            raise
        except NoConnectionLeft as error:
            raise ServiceDown(
                f"all connections to the database {self.name} are in use, and none came back in time"
            ) from error


def take_due(
    database: Database, table: Table, *which: ColumnElement[bool], lease: timedelta, most: int, **also: Any
) -> Sequence[Row[Any]]:
    """An outbox's rows that are due, those first that have been the longest; `also` is written into them.

    Until the lease is over nobody else gets them. Looked for without a lock first: there is seldom anything, and on
    SQLite a transaction that writes keeps the lanes waiting.
    """
    with database.read() as connection:
        due = table.c.due_at <= database.now(connection)
        if connection.execute(select(table.c.id).where(due, *which).limit(1)).first() is None:
            return []
    with database.write() as connection:
        now = database.now(connection)
        found = (
            select(table.c.id)
            .where(table.c.due_at <= now, *which)
            .order_by(table.c.due_at, table.c.id)
            .limit(most)
            .with_for_update(skip_locked=True)
        )
        taken = (
            update(table)
            .where(table.c.id.in_(found.scalar_subquery()))
            .values(due_at=now + lease, **also)
            .returning(*table.c)
        )
        return sorted(connection.execute(taken), key=lambda row: row.id)


def insert_ignore(
    database: Database, table: Table, rows: Sequence[dict[str, Any]], connection: Connection
) -> int:
    """Inserts what is not there yet; returns how many were new."""
    if not rows:
        return 0
    if database.sqlite:
        statement = table.insert().prefix_with("OR IGNORE")
        before = connection.exec_driver_sql("SELECT total_changes()").scalar_one()
        connection.execute(statement, list(rows))
        return int(connection.exec_driver_sql("SELECT total_changes()").scalar_one()) - int(before)
    # Counted by what comes back: psycopg reports no row count for a statement of many rows.
    return len(connection.execute(_ignoring(table), one_or_many(rows)).all())


def insert_new(database: Database, table: Table, row: dict[str, Any], connection: Connection) -> int | None:
    """Inserts one row; returns its id, or None when it is there already."""
    number: int | None = connection.execute(_returning_id(table, sqlite=database.sqlite), row).scalar()
    return number


def one_or_many(rows: Sequence[dict[str, Any]]) -> dict[str, Any] | list[dict[str, Any]]:
    """The values of an INSERT: the driver's way for many rows takes twice as long for one."""
    return rows[0] if len(rows) == 1 else list(rows)


@cache
def _ignoring(table: Table) -> Any:
    return postgresql.insert(table).on_conflict_do_nothing().returning(literal_column("1"))


@cache
def _returning_id(table: Table, *, sqlite: bool) -> Any:
    start = sqlite_dialect.insert(table) if sqlite else postgresql.insert(table)
    return start.on_conflict_do_nothing().returning(table.c.id)


def among(database: Database, column: Column[T], values: Sequence[T]) -> ColumnElement[bool]:
    """Whether a column has one of many values, as one parameter: tens of thousands are no trouble."""
    if database.sqlite:
        return column.in_(select(func.json_each(json.dumps(values)).table_valued("value").c.value))
    return column == any_(literal(list(values), ARRAY(column.type)))


def new_keys(database: Database, connection: Connection, table: Table, number: int) -> Sequence[int]:
    """So many keys that no other row will have, for rows that name one another before they are written."""
    if not number:
        return ()
    if database.sqlite:
        last = connection.execute(select(func.max(table.c.id))).scalar_one() or 0
        return range(last + 1, last + 1 + number)
    drawn = text(
        "SELECT array_agg(nextval(s.name)) FROM generate_series(1, :number),"
        " (SELECT pg_get_serial_sequence(:table, 'id')::regclass AS name OFFSET 0) AS s"
    )
    keys: Sequence[int] = connection.execute(drawn, {"number": number, "table": table.name}).scalar_one()
    return keys


def copy_rows(
    database: Database,
    table: Table,
    columns: Sequence[str],
    rows: Sequence[tuple[Any, ...]],
    connection: Connection,
) -> None:
    """Inserts many rows the fastest way there is: COPY on PostgreSQL. None of them may be there yet (IntegrityError)."""
    if not rows:
        return
    if database.sqlite:
        connection.execute(table.insert(), [dict(zip(columns, row, strict=True)) for row in rows])
        return
    driver: Any = connection.connection.driver_connection
    errors: Any = database.engine.dialect.loaded_dbapi
    try:
        with driver.cursor().copy(f"COPY {table.name} ({', '.join(columns)}) FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)
    except errors.Error as error:
        raise DBAPIError.instance(None, None, error, errors.Error) from error


def _limit_waits(connection: Any, _record: Any) -> None:
    """A process that is frozen, or whose host is gone, in the middle of a transaction must not hold up the others."""
    connection.autocommit = True
    connection.execute(f"SET idle_in_transaction_session_timeout = {STUCK * 1000}")
    connection.execute(f"SET lock_timeout = {STUCK * 1000}")
    connection.autocommit = False


def _look_at_idle(engine: Engine) -> None:
    """A connection that lay idle may be gone with its server; one that was used just now is not asked each time."""

    def note(_connection: Any, record: Any) -> None:
        record.info["used"] = time.monotonic()

    def ping(connection: Any, record: Any, _proxy: Any) -> None:
        if time.monotonic() - record.info.get("used", math.inf) < IDLE:
            return
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as error:
            raise InvalidatePoolError from error  # the others are as old: the pool makes new ones

    event.listen(engine, "checkin", note)
    event.listen(engine, "checkout", ping)


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # BEGIN is ours to write (see _begin_sqlite)
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", "busy_timeout=10000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    """A writer takes the lock at once: a read that turns into a write later may find it gone (SQLITE_BUSY)."""
    writes = connection.get_execution_options().get("sqlite_write")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


MIGRATIONS = Path(__file__).parent / "migrations"


@cache
def _revisions() -> Sequence[str]:
    """Those that this version brings, in order, by the names of their files: `0001_what.py` is revision 0001."""
    return sorted(path.name[:4] for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))


def _upgrade(connection: Connection) -> None:
    # 11 MB, and a tenth of a second, that only an upgrade needs.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _lacks_schema(error: DBAPIError) -> bool:
    said, kind = str(error.orig), type(error.orig).__name__
    return (
        "no such table" in said or "no such column" in said or kind in {"UndefinedTable", "UndefinedColumn"}
    )


def _first_line(error: DBAPIError) -> str:
    return str(error.orig).strip().splitlines()[0] if str(error.orig).strip() else type(error.orig).__name__
