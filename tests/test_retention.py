"""Retention after three months of a daily newsletter: old issues go in one piece, and one address is still found fast."""

import threading
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from services import Server, fresh_database
from sqlalchemy import Connection, event, text

from distributor.db import ISSUES_PER_PARTITION, PARTITIONED, Database
from distributor.ledger import Ledger

pytestmark = pytest.mark.services

ISSUES, READERS = 90, 2_000
START = datetime(2026, 3, 2, 7, 30, tzinfo=UTC)
DAY = timedelta(days=1)
LONG = timedelta(days=3650)
ONE = "reader-1234@readers.example"

OPEN = """
    INSERT INTO issues (id, newsletter, local_date, extra, slug, title, post_hash, state, paused, opened_by, opened_at,
                        expires_at, frozen_at, finished_at)
    SELECT id, 'daily', date '2026-03-02' + id - 1, 0, 'post-' || id, 'Day ' || id, 'hash', 'finished', false,
           'scheduler', at, at + interval '12 hours', at, at + interval '1 hour'
    FROM (SELECT id, CAST(:start AS timestamptz) + (id - 1) * interval '1 day' AS at
          FROM generate_series(1, :issues) AS id) AS days
"""
DELIVER = """
    INSERT INTO deliveries (issue_id, seq, channel, address, variant, state, tries, attempts, resend, parts_sent,
                            receipts, code, text, updated_at)
    SELECT id, seq, 'email', 'reader-' || seq || '@readers.example', 'default', 'sent', 1, 1, 0, 1,
           '["' || id || '-' || seq || '"]', '250', 'queued', CAST(:start AS timestamptz)
    FROM generate_series(1, :issues) AS id, generate_series(1, :readers) AS seq
"""
LOG = """
    INSERT INTO attempts (issue_id, seq, number, resend, trigger, outcome, code, text, receipts, parts_sent, started_at,
                          duration_ms, worker, relay)
    SELECT issue_id, seq, 1, 0, 'scheduled', state, code, text, receipts, 1, updated_at, 3, 'worker:1', 'smtp'
    FROM deliveries
"""


def fill(database: Database, issues: int, readers: int) -> None:
    """Issues of as many days, each sent to everybody."""
    with database.write() as connection:
        for issue_id in range(1, issues + 1, ISSUES_PER_PARTITION - 1):
            database.ensure_partition(connection, issue_id)
        database.ensure_partition(connection, issues)
        values = {"start": START, "issues": issues, "readers": readers}
        connection.execute(text(OPEN), values)
        connection.execute(text(DELIVER), values)
        connection.execute(text(LOG))
    with database.engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("ANALYZE"))


@pytest.fixture
def database(postgres_server: Server) -> Iterator[Database]:
    with fresh_database(postgres_server) as url:
        database = Database(url)
        database.upgrade()
        yield database
        database.close()


def forget_after(database: Database, days: int, **other: timedelta) -> None:
    """As the scheduler does on the last of the days, keeping deliveries and attempts for `days` (or as `other` says)."""
    database._clock = lambda: START + ISSUES * DAY
    ages = {"deliveries_after": days * DAY, "attempts_after": days * DAY, "ticks_after": LONG, **other}
    Ledger(database).forget(**ages)


def held(database: Database, table: str) -> Mapping[int, tuple[int, int]]:
    """Issue → (rows, their sum over everything that is in them)."""
    query = f"SELECT issue_id, count(*), sum(hashtext(t::text)) FROM {table} AS t GROUP BY issue_id"
    with database.read() as connection:
        return {row[0]: (row[1], row[2]) for row in connection.execute(text(query))}


def partitions(connection: Connection, table: str) -> set[str]:
    query = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = to_regclass(:table)"
    return set(connection.execute(text(query), {"table": table}).scalars())


def test_old_issues_go_whole_partitions_at_once_and_newer_ones_are_untouched(database: Database) -> None:
    fill(database, ISSUES, READERS)
    before = {table: held(database, table) for table in PARTITIONED}
    assert all(len(found) == ISSUES for found in before.values())
    began = time.monotonic()
    forget_after(database, 30)
    assert time.monotonic() - began < 10
    for table in PARTITIONED:
        after = held(database, table)
        # Issue 60 is a month old; partitions begin with issues 32 and 64, and only the first one is all old.
        assert sorted(after) == list(range(32, ISSUES + 1))
        assert after == {issue: before[table][issue] for issue in after}
    with database.read() as connection:
        assert partitions(connection, "deliveries") == {"deliveries_32", "deliveries_64"}
        assert partitions(connection, "attempts") == {"attempts_32", "attempts_64"}
        assert connection.execute(text("SELECT count(*) FROM issues")).scalar_one() == ISSUES
    forget_after(database, 30)
    assert len(held(database, "deliveries")) == ISSUES - 31


def test_attempts_may_go_earlier(database: Database) -> None:
    fill(database, ISSUES, 2)
    forget_after(database, 365, attempts_after=5 * DAY)
    assert len(held(database, "deliveries")) == ISSUES
    assert min(held(database, "attempts")) == 64
    oldest, *_, newest = Ledger(database).log(None, address="reader-1@readers.example", limit=ISSUES)
    assert (len(oldest.attempts), len(newest.attempts)) == (0, 1)


def test_an_issue_that_is_not_over_is_kept_with_all_behind_it(database: Database) -> None:
    fill(database, ISSUES, 2)
    with database.write() as connection:
        connection.execute(text("UPDATE issues SET finished_at = NULL, state = 'sending' WHERE id = 40"))
    forget_after(database, 1)
    assert min(held(database, "deliveries")) == 32


def test_everything_may_go(database: Database) -> None:
    fill(database, 70, 2)
    forget_after(database, 1)
    # The newest partition has room for issues to come.
    assert min(held(database, "deliveries")) == 64


def test_one_address_is_looked_up_by_an_index_in_every_partition(database: Database) -> None:
    fill(database, ISSUES, READERS)
    plans: list[tuple[str, Any]] = []

    def explain(connection: Any, _cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
        if statement.startswith("SELECT") and (
            "FROM deliveries" in statement or "FROM attempts" in statement
        ):
            raw = connection.connection.cursor()
            raw.execute(f"EXPLAIN (FORMAT JSON) {statement}", parameters)
            plans.append((statement, raw.fetchone()[0]))

    event.listen(database.engine, "before_cursor_execute", explain)
    entries = Ledger(database).log(None, address=ONE, limit=ISSUES)
    event.remove(database.engine, "before_cursor_execute", explain)

    assert [entry.issue_id for entry in entries] == list(range(1, ISSUES + 1))
    assert {len(entry.attempts) for entry in entries} == {1}
    nodes = [node for _statement, plan in plans for node in walk(plan[0]["Plan"])]
    assert not [
        node for node in nodes if node["Node Type"] == "Seq Scan" and node["Relation Name"] != "resends"
    ]
    with database.read() as connection:
        by_address = {
            index_table(connection, node["Index Name"])
            for node in walk(plans[0][1][0]["Plan"])
            if "address" in node.get("Index Cond", "")
        }
        assert by_address == partitions(connection, "deliveries")
        assert len(by_address) == 3


def walk(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A plan's nodes."""
    yield plan
    for child in plan.get("Plans", ()):
        yield from walk(child)


def index_table(connection: Connection, index: str) -> str:
    query = "SELECT indrelid::regclass::text FROM pg_index WHERE indexrelid = to_regclass(:index)"
    return str(connection.execute(text(query), {"index": index}).scalar_one())


def test_a_look_up_and_retention_do_not_wait_for_each_other_for_ever(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look-up reads deliveries, then attempts: tables are dropped in the same order."""
    fill(database, ISSUES, 2)
    ledger, real = Ledger(database), Ledger._attempts
    errors: list[Exception] = []

    def forget() -> None:
        try:
            forget_after(database, 30)
        except Exception as error:  # shown by the test's own thread
            errors.append(error)

    forgetting = threading.Thread(target=forget)

    def meanwhile(self: Ledger, connection: Connection, keys: Any) -> Any:
        forgetting.start()
        wait_for_a_lock(database)
        return real(self, connection, keys)

    monkeypatch.setattr(Ledger, "_attempts", meanwhile)
    found = ledger.log(None, address="reader-1@readers.example", limit=ISSUES)
    forgetting.join()
    assert errors == []
    assert len(found) == ISSUES
    assert min(held(database, "deliveries")) == 32


def wait_for_a_lock(database: Database) -> None:
    """Until somebody waits for a table."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        with database.read() as connection:
            waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'relation'"
            if connection.execute(text(waiting)).scalar_one():
                return
        time.sleep(0.01)
    raise TimeoutError("nobody waits")


def test_the_newest_of_an_address_are_shown_first_when_there_are_too_many(database: Database) -> None:
    """Half a year of a daily newsletter is more than a listing shows at once: a complaint is about the last one."""
    fill(database, ISSUES, 2)
    shown = Ledger(database).log(None, address="reader-1@readers.example", limit=10)
    assert {entry.issue_id for entry in shown} == set(range(ISSUES - 9, ISSUES + 1))
