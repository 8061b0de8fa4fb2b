"""The schema on both databases: revisions, partitions, retention, and what "not there" sounds like."""

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from fakes import DAY, World, make_world
from sqlalchemy import create_engine, func, inspect, select, text, update

from distributor.db import MIGRATIONS, Database, _revisions, insert_ignore, insert_new
from distributor.errors import ServiceDown
from distributor.model import IssueState
from distributor.tables import attempts, deliveries, issues, metadata, suppressions


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """Without tables."""
    database = Database(database_url)
    yield database
    database.close()


@pytest.fixture
def world(database: Database) -> World:
    database.upgrade()
    return make_world(database)


def rows(world: World) -> tuple[int, int]:
    """(deliveries, attempts)"""
    with world.database.read() as connection:
        count = [
            connection.execute(select(func.count()).select_from(t)).scalar_one()
            for t in (deliveries, attempts)
        ]
    return count[0], count[1]


def partitions(world: World) -> set[str]:
    found = inspect(world.database.engine).get_table_names()
    return {name for name in found if name.startswith(("deliveries_", "attempts_"))}


def send_issues(world: World, numbers: range) -> None:
    """Issues with these numbers, each sent to everybody and finished."""
    for number in numbers:
        issue = world.open(DAY + timedelta(days=number), f"post-{number}")
        assert issue.id == number
        world.drain()
    world.ledger.close_finished()


def forget(world: World, age: timedelta) -> None:
    world.ledger.forget(deliveries_after=age, attempts_after=age, ticks_after=age)


class TestSchema:
    def test_the_migrated_schema_is_the_one_the_program_means(self, database: Database) -> None:
        database.upgrade()
        with database.read() as connection:
            context = MigrationContext.configure(connection, opts={"compare_type": True})
            assert compare_metadata(context, metadata) == []

    def test_the_files_of_the_migrations_are_called_as_their_revisions(self) -> None:
        """The program goes by their names: reading the files takes a tenth of a second at each start."""
        script = ScriptDirectory(str(MIGRATIONS))
        chain = [revision.revision for revision in script.walk_revisions()]
        assert list(_revisions()) == chain[::-1]

    def test_upgrading_twice_changes_nothing(self, database: Database) -> None:
        assert database.revision()[0] is None
        database.upgrade()
        has, brings = database.revision()
        database.upgrade()
        assert database.revision() == (has, brings)
        assert has == brings

    def test_two_processes_that_upgrade_at_once_make_one_schema(self, database: Database) -> None:
        url = database.url.render_as_string(hide_password=False)
        upgrade = f"from distributor.db import Database; Database({url!r}).upgrade()"
        processes = [subprocess.Popen([sys.executable, "-c", upgrade]) for _ in range(4)]
        assert [process.wait(60) for process in processes] == [0] * 4
        has, brings = database.revision()
        assert has == brings

    def test_a_newer_version_s_tables_are_worked_with_and_left_alone(self, database: Database) -> None:
        """Migrations only add, so that old and new workers drain together while a new version is rolled out."""
        database.upgrade()
        assert not database.is_ahead()
        with database.write() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        assert database.is_ahead()
        database.upgrade()
        assert database.revision()[0] == "9999"

    def test_upgrading_keeps_the_rows(self, world: World) -> None:
        world.subscribe("ann")
        world.database.upgrade()
        assert world.audience.count("daily", "email") == 1

    def test_a_missing_schema_says_what_to_do(self, database: Database) -> None:
        with pytest.raises(ServiceDown, match="distributor db upgrade"), database.read() as connection:
            connection.execute(select(issues))

    def test_a_schema_without_a_new_column_says_what_to_do(self, world: World) -> None:
        with world.database.write() as connection:
            connection.execute(text("ALTER TABLE channel_stops DROP COLUMN times"))
        with pytest.raises(ServiceDown, match="distributor db upgrade"):
            world.ledger.stop_count("email")

    def test_a_server_that_is_not_there_is_named_without_its_password(self) -> None:
        database = Database("postgresql://reader:hidden@127.0.0.1:1/news")
        with pytest.raises(ServiceDown, match="does not answer") as caught, database.read():
            pass
        assert "hidden" not in str(caught.value)
        assert "127.0.0.1:1/news" in str(caught.value)

    def test_when_every_connection_is_in_use_it_is_as_good_as_down(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        narrow = create_engine(database.url, pool_size=1, max_overflow=0, pool_timeout=0.01)
        monkeypatch.setattr(database, "engine", narrow)
        with narrow.connect(), pytest.raises(ServiceDown, match="are in use"), database.read():
            pass
        narrow.dispose()

    def test_says_its_version(self, database: Database) -> None:
        assert database.version().startswith(("sqlite 3.", "postgresql 1"))


class TestValues:
    def test_a_time_of_any_zone_reads_back_as_utc(self, world: World) -> None:
        shanghai = datetime(2026, 3, 2, 7, 30, tzinfo=timezone(timedelta(hours=8)))
        row = {"channel": "email", "address": "a@b.example", "reason": "manual", "note": ""}
        with world.database.write() as connection:
            insert_ignore(world.database, suppressions, [{**row, "created_at": shanghai}], connection)
            found = connection.execute(select(suppressions.c.created_at)).scalar_one()
        assert found == datetime(2026, 3, 1, 23, 30, tzinfo=UTC)
        assert found.utcoffset() == timedelta(0)

    def test_inserting_counts_what_was_new(self, world: World) -> None:
        def row(address: str) -> dict[str, object]:
            return {
                "channel": "email",
                "address": address,
                "reason": "manual",
                "note": "",
                "created_at": datetime.now(UTC),
            }

        with world.database.write() as connection:
            assert (
                insert_ignore(world.database, suppressions, [row("a"), row("b"), row("a")], connection) == 2
            )
            assert insert_ignore(world.database, suppressions, [row("b"), row("c")], connection) == 1
            assert insert_ignore(world.database, suppressions, [], connection) == 0

    def test_inserting_one_tells_its_id_or_that_it_was_there(self, world: World) -> None:
        row = {
            "channel": "email",
            "address": "a",
            "reason": "manual",
            "note": "",
            "created_at": datetime.now(UTC),
        }
        with world.database.write() as connection:
            number = insert_new(world.database, suppressions, row, connection)
            assert number == connection.execute(select(suppressions.c.id)).scalar_one()
            assert insert_new(world.database, suppressions, row, connection) is None

    def test_an_exception_rolls_back(self, world: World) -> None:
        def fail_half_way() -> None:
            with world.database.write() as connection:
                connection.execute(update(issues).values(state=IssueState.CANCELLED))
                raise KeyError("half way")

        world.subscribe("ann")
        issue = world.open()
        with pytest.raises(KeyError):
            fail_half_way()
        assert world.ledger.issue(issue.id).state is IssueState.SENDING


class TestRetention:
    def test_a_partition_holds_32_issues(self, world: World) -> None:
        world.subscribe("ann")
        send_issues(world, range(1, 33))
        two_each = {"deliveries_0", "attempts_0", "deliveries_32", "attempts_32"}
        assert partitions(world) == (set() if world.database.sqlite else two_each)

    def test_forgetting_drops_whole_partitions_or_rows(self, world: World) -> None:
        world.subscribe("ann", "bob")
        send_issues(world, range(1, 33))
        world.clock.forward(timedelta(days=200))
        send_issues(world, range(33, 34))
        assert rows(world) == (66, 66)
        forget(world, timedelta(days=180))
        if world.database.sqlite:
            assert rows(world) == (2, 2)
        else:  # issue 32 shares its partition with 33, which is young
            assert partitions(world) == {"deliveries_32", "attempts_32"}
            assert rows(world) == (4, 4)
        assert len(world.ledger.issues(limit=100)) == 33

    def test_forgetting_too_early_does_nothing(self, world: World) -> None:
        world.subscribe("ann")
        send_issues(world, range(1, 3))
        forget(world, timedelta(days=180))
        assert rows(world) == (2, 2)

    def test_an_issue_that_is_still_open_or_was_reopened_keeps_everything_after_it(
        self, world: World
    ) -> None:
        world.subscribe("ann")
        send_issues(world, range(1, 3))
        world.clock.forward(timedelta(days=200))
        with world.database.write() as connection:
            connection.execute(
                update(issues).where(issues.c.id == 1).values(finished_at=world.database.now(connection))
            )
        forget(world, timedelta(days=180))
        assert rows(world) == (2, 2)
        with world.database.write() as connection:
            connection.execute(update(issues).where(issues.c.id == 1).values(finished_at=None))
        forget(world, timedelta(days=180))
        assert rows(world) == (2, 2)
