"""The database: tables, connections and its clock. SQLite (one writer, WAL) and PostgreSQL from the same definitions.

Times are aware and UTC. Leases and due times use the database's clock, so that hosts need not agree on theirs.
"""

import json
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Date,
    DateTime,
    Dialect,
    Engine,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    create_engine,
    event,
    false,
    literal_column,
    select,
    text,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, InvalidatePoolError, OperationalError, ProgrammingError
from sqlalchemy.sql import func

from distributor.errors import ServiceDown

Clock = Callable[[], datetime]

#: Issues that share a partition of deliveries and attempts on PostgreSQL: about a month of a daily newsletter.
ISSUES_PER_PARTITION = 32
#: Seconds after which a transaction in which nothing happens is ended by the server, and a wait for a lock given up.
STUCK = 30
#: Seconds after which a pooled connection is looked at before it is used.
IDLE = 2.0
PARTITIONED = ("deliveries", "attempts")


class Utc(TypeDecorator[datetime]):
    """An aware time; kept as UTC. SQLite has no zones, so it is stripped there and put back on reading."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class JsonText(TypeDecorator[Any]):
    """JSON kept as text in the order it was written: a frozen message must read back to the byte."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, _dialect: Dialect) -> str | None:
        return None if value is None else json.dumps(value, ensure_ascii=False)

    def process_result_value(self, value: str | None, _dialect: Dialect) -> Any:
        if value == "[]":
            return []  # nearly all receipts when a delivery is read: parsing them is a tenth of reading a row
        return None if value is None else json.loads(value)


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

#: SQLite gives out row ids only for INTEGER keys.
Key = BigInteger().with_variant(Integer, "sqlite")

issues = Table(
    "issues",
    metadata,
    Column("id", Key, primary_key=True),
    Column("newsletter", Text, nullable=False),
    Column("local_date", Date, nullable=False),
    Column("extra", Integer, nullable=False),  # 0: the day's issue; 1, 2 …: asked for by name
    Column("slug", Text, nullable=False),
    Column("title", Text, nullable=False),
    Column("post_hash", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("paused", Boolean, nullable=False),
    Column("opened_by", Text, nullable=False),
    Column("opened_at", Utc, nullable=False),
    Column("expires_at", Utc, nullable=False),
    Column("approval_deadline", Utc),
    Column("approved_by", Text),
    Column("approved_at", Utc),
    Column("frozen_at", Utc),
    Column("finished_at", Utc),
    Column("hold", Text),  # why nothing may go out until a person has reconciled it
    Column("lease_token", Text),  # who is writing the audience down
    Column("lease_until", Utc),
    UniqueConstraint("newsletter", "local_date", "extra"),  # guarantee 1
    UniqueConstraint("newsletter", "slug"),  # an edited post is the same post
)

issue_channels = Table(
    "issue_channels",
    metadata,
    Column("issue_id", Key, ForeignKey("issues.id"), nullable=False),
    Column("channel", Text, nullable=False),
    Column("planned", Integer, nullable=False),
    PrimaryKeyConstraint("issue_id", "channel"),
)

messages = Table(
    "messages",
    metadata,
    Column("issue_id", Key, ForeignKey("issues.id"), nullable=False),
    Column("channel", Text, nullable=False),
    Column("variant", Text, nullable=False),
    Column("part", Integer, nullable=False),
    Column("parts", Integer, nullable=False),
    Column("hash", Text, nullable=False),
    Column("content", JsonText, nullable=False),
    Column("placeholders", JsonText, nullable=False),
    PrimaryKeyConstraint("issue_id", "channel", "variant", "part"),
)

chunks = Table(
    "chunks",
    metadata,
    Column("id", Key, primary_key=True),
    Column("issue_id", Key, ForeignKey("issues.id"), nullable=False),
    Column("channel", Text, nullable=False),
    Column("pace_group", Text, nullable=False),
    Column("lo", Integer, nullable=False),
    Column("hi", Integer, nullable=False),
    Column("upto", Key),  # the last subscriber written; a crash while opening resumes behind it
    Column("due_at", Utc),  # None: nothing left to do
    Column("lease_token", Text),
    Column("lease_until", Utc),
    Column("lease_owner", Text),
    Column("lease_host", Text),  # whose journals know what the holder has in hand (journal.py)
    Column("held", Boolean, nullable=False, server_default=false()),  # waits until the canary is judged
    Column("pending", Integer, nullable=False),
    Column("sending", Integer, nullable=False),
    Column("sent", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    Column("unconfirmed", Integer, nullable=False),
    Column("skipped", Integer, nullable=False),
    Index(None, "channel", "due_at"),
    Index(None, "issue_id"),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("issue_id", Key, nullable=False),
    Column("seq", Integer, nullable=False),
    Column("channel", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("variant", Text, nullable=False),
    Column("subscriber_id", Key),
    Column("destination", Text),
    Column("state", Text, nullable=False),
    Column("reason", Text),  # why it was skipped
    Column("tries", Integer, nullable=False),  # attempts that count against the retry policy
    Column("attempts", Integer, nullable=False),  # all of them: the number of the last attempt row
    Column("resend", Integer, nullable=False),
    Column("resend_id", Key),
    Column("parts_sent", Integer, nullable=False),
    Column("receipts", JsonText, nullable=False),
    Column("code", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("due_at", Utc),  # a retry's time; None: at once
    Column("first_try_at", Utc),
    Column("updated_at", Utc),
    PrimaryKeyConstraint("issue_id", "seq"),
    # One delivery per issue, channel and recipient (guarantee 2); its first column also answers "what did X get?".
    # No index mentions the state: such an index would make every change of state rewrite all of them.
    UniqueConstraint("address", "channel", "issue_id"),
    postgresql_partition_by="RANGE (issue_id)",
)

attempts = Table(
    "attempts",
    metadata,
    Column("issue_id", Key, nullable=False),
    Column("seq", Integer, nullable=False),
    Column("number", Integer, nullable=False),
    Column("resend", Integer, nullable=False),
    Column("resend_id", Key),
    Column("trigger", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("code", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("receipts", JsonText, nullable=False),
    Column("parts_sent", Integer, nullable=False),
    Column("started_at", Utc, nullable=False),
    Column("duration_ms", Integer, nullable=False),
    Column("retry_at", Utc),
    Column("worker", Text, nullable=False),
    Column("relay", Text),
    PrimaryKeyConstraint("issue_id", "seq", "number"),
    postgresql_partition_by="RANGE (issue_id)",
)

resends = Table(
    "resends",
    metadata,
    Column("id", Key, primary_key=True),
    Column("issue_id", Key, ForeignKey("issues.id"), nullable=False),
    Column("scope", Text, nullable=False),
    Column("channel", Text),
    Column("address", Text),
    Column("reason", Text, nullable=False),
    Column("asked_by", Text, nullable=False),
    Column("asked_at", Utc, nullable=False),
    Column("deliveries", Integer, nullable=False),
)

subscribers = Table(
    "subscribers",
    metadata,
    Column("id", Key, primary_key=True),
    Column("channel", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("domain", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("language", Text),
    Column("created_at", Utc, nullable=False),
    UniqueConstraint("channel", "address"),
)

subscriptions = Table(
    "subscriptions",
    metadata,
    Column("id", Key, primary_key=True),
    Column("subscriber_id", Key, ForeignKey("subscribers.id"), nullable=False),
    Column("newsletter", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("token", Text, nullable=False),  # in the unsubscribe link; short, random, never derived
    Column("source", Text, nullable=False),
    Column("consent_at", Utc, nullable=False),
    Column("activated_at", Utc),
    Column("ended_at", Utc),
    Column("end_reason", Text),
    UniqueConstraint("subscriber_id", "newsletter"),
    UniqueConstraint("token"),
    Index(None, "newsletter", "subscriber_id"),
)

suppressions = Table(
    "suppressions",
    metadata,
    Column("id", Key, primary_key=True),
    Column("channel", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("note", Text, nullable=False),
    Column("created_at", Utc, nullable=False),
    UniqueConstraint("channel", "address"),
)

events = Table(
    "events",
    metadata,
    Column("id", Key, primary_key=True),
    Column("provider", Text, nullable=False),
    Column("provider_event_id", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("channel", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("newsletter", Text),
    Column("issue_id", Key),
    Column("seq", Integer),
    Column("occurred_at", Utc, nullable=False),
    Column("received_at", Utc, nullable=False),
    Column("detail", Text, nullable=False),
    UniqueConstraint("provider", "provider_event_id"),
)

ticks = Table(
    "ticks",
    metadata,
    Column("id", Key, primary_key=True),
    Column("newsletter", Text, nullable=False),
    Column("local_date", Date, nullable=False),
    Column("decision", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("first_at", Utc, nullable=False),
    Column("last_at", Utc, nullable=False),
    Column("count", Integer, nullable=False),
    UniqueConstraint("newsletter", "local_date", "decision", "detail"),
)

notices = Table(
    "notices",
    metadata,
    Column("id", Key, primary_key=True),
    Column("key", Text, nullable=False),  # what is told once
    Column("route", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("due_at", Utc, nullable=False),
    Column("created_at", Utc, nullable=False),
    Column("sent_at", Utc),
    Column("error", Text, nullable=False),
    UniqueConstraint("key", "route"),
)

relay_days = Table(
    "relay_days",
    metadata,
    Column("relay", Text, nullable=False),
    Column("day", Date, nullable=False),
    Column("taken", Integer, nullable=False),
    PrimaryKeyConstraint("relay", "day"),
)

channel_stops = Table(
    "channel_stops",
    metadata,
    Column("channel", Text, primary_key=True),
    Column("reason", Text, nullable=False),
    Column("stopped_at", Utc, nullable=False),
    Column("until", Utc, nullable=False),
    Column("times", Integer, nullable=False),
)

heartbeats = Table(
    "heartbeats",
    metadata,
    Column("role", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("seen_at", Utc, nullable=False),
    PrimaryKeyConstraint("role", "name"),
)


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
            engine = create_engine(self.url, connect_args={"timeout": 10})
            event.listen(engine, "connect", _prepare_sqlite)
            event.listen(engine, "begin", _begin_sqlite)
            return engine
        engine = create_engine(self.url, pool_size=16, max_overflow=16, connect_args={"connect_timeout": 5})
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
        if self.is_ahead():
            return
        with self._translated(), self._writer, self.engine.connect() as connection:
            connection = connection.execution_options(sqlite_write=True)  # noqa: PLW2901 - the same connection, marked
            with connection.begin():
                command.upgrade(_alembic_config(connection), "head")

    def revision(self) -> tuple[str | None, str | None]:
        """(the revision the database has, the one this version of the program brings)."""
        with self.read() as connection:
            current = MigrationContext.configure(connection).get_current_revision()
            return current, ScriptDirectory.from_config(_alembic_config(connection)).get_current_head()

    def is_ahead(self) -> bool:
        """Whether a newer version of the program has changed the tables. Its migrations only add, so this one goes on."""
        has, _brings = self.revision()
        with self.read() as connection:
            known = ScriptDirectory.from_config(_alembic_config(connection)).walk_revisions()
            return has is not None and has not in {script.revision for script in known}

    def ensure_partition(self, connection: Connection, issue_id: int) -> None:
        """Makes the partitions that hold an issue's deliveries and attempts (PostgreSQL only)."""
        if self.sqlite:
            return
        low = issue_id // ISSUES_PER_PARTITION * ISSUES_PER_PARTITION
        connection.execute(select(func.pg_advisory_xact_lock(low + 1)))  # two openers, one partition
        for table in PARTITIONED:
            connection.execute(
                text(
                    f"CREATE TABLE IF NOT EXISTS {table}_{low} PARTITION OF {table} "
                    f"FOR VALUES FROM ({low}) TO ({low + ISSUES_PER_PARTITION}) WITH (fillfactor = 60)"
                )
            )

    def analyze(self, connection: Connection, issue_id: int) -> None:
        """Tells PostgreSQL's planner about the partition of an issue that was just filled; it guesses badly until then."""
        if self.sqlite:
            return
        low = issue_id // ISSUES_PER_PARTITION * ISSUES_PER_PARTITION
        connection.execute(text(f"ANALYZE deliveries_{low}"))

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
    new: Any = postgresql.insert(table).on_conflict_do_nothing().returning(literal_column("1"))
    return len(connection.execute(new, list(rows)).all())


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


def _alembic_config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    return config


def _lacks_schema(error: DBAPIError) -> bool:
    said, kind = str(error.orig), type(error.orig).__name__
    return (
        "no such table" in said or "no such column" in said or kind in {"UndefinedTable", "UndefinedColumn"}
    )


def _first_line(error: DBAPIError) -> str:
    return str(error.orig).strip().splitlines()[0] if str(error.orig).strip() else type(error.orig).__name__
