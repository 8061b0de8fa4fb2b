"""The servers and folders the other tests rest on."""

import os
import subprocess
import sys
from collections.abc import Callable
from datetime import date, time, timedelta
from pathlib import Path

import psycopg
import pytest
import redis
from services import (
    Missing,
    OwnServer,
    Project,
    Server,
    fresh_database,
    start_postgres,
    start_redis,
    started_or_skipped,
)
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from distributor.errors import ConfigError


def connect(url: str) -> psycopg.Connection:
    return psycopg.connect(make_url(url).set(drivername="postgresql").render_as_string(hide_password=False))


@pytest.mark.services
class TestPostgres:
    def test_is_new_enough_and_orders_text_by_code_point(self, postgres_url: str) -> None:
        with connect(postgres_url) as connection:
            assert connection.info.server_version >= 150_000
            assert connection.execute("SHOW server_encoding").fetchone() == ("UTF8",)
            assert connection.execute("SELECT length('日报'), 'Z' < 'a'").fetchone() == (2, True)

    def test_partitions_a_table(self, postgres_url: str) -> None:
        with connect(postgres_url) as connection:
            connection.execute(
                "CREATE TABLE rows (issue int, seq int, PRIMARY KEY (issue, seq)) PARTITION BY RANGE (issue)"
            )
            connection.execute("CREATE TABLE rows_0 PARTITION OF rows FOR VALUES FROM (0) TO (32)")
            connection.execute("INSERT INTO rows VALUES (7, 1), (7, 2)")
            assert connection.execute("SELECT count(*) FROM ONLY rows_0").fetchone() == (2,)

    def test_skips_a_row_that_another_connection_locked(self, postgres_url: str) -> None:
        claim = "SELECT id FROM chunks ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED"
        with connect(postgres_url) as one, connect(postgres_url) as other:
            one.execute("CREATE TABLE chunks (id int PRIMARY KEY)")
            one.execute("INSERT INTO chunks VALUES (1), (2)")
            one.commit()
            assert one.execute(claim).fetchone() == (1,)
            assert other.execute(claim).fetchone() == (2,)

    def test_each_test_has_a_database_of_its_own(self, postgres_server: Server, postgres_url: str) -> None:
        with fresh_database(postgres_server) as other_url:
            assert make_url(other_url).database != make_url(postgres_url).database
            with connect(other_url) as connection:
                connection.execute("CREATE TABLE here (id int)")
        with connect(postgres_url) as connection:
            assert connection.execute("SELECT to_regclass('here')").fetchone() == (None,)

    def test_a_database_is_dropped_under_an_open_connection(self, postgres_server: Server) -> None:
        with fresh_database(postgres_server) as url:
            left_open = connect(url)
            left_open.execute("SELECT 1")
        with pytest.raises(psycopg.OperationalError):
            left_open.execute("SELECT 1")
        left_open.close()

    @pytest.mark.parametrize("end", ["kill", "stop"])
    def test_committed_rows_outlive_a_kill_and_a_stop(
        self, postgres_server: Server, postgres_url: str, end: str
    ) -> None:
        with connect(postgres_url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
            connection.commit()
            getattr(postgres_server, end)()
        with pytest.raises(psycopg.OperationalError):
            connect(postgres_url)
        postgres_server.start()
        with connect(postgres_url) as connection:
            assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)


@pytest.mark.services
class TestRedis:
    def test_is_empty_and_runs_a_script(self, redis_url: str) -> None:
        script = "redis.call('SET', KEYS[1], ARGV[1]) return redis.call('INCRBY', KEYS[1], 2)"
        with redis.Redis.from_url(redis_url) as client:
            assert client.dbsize() == 0
            assert client.eval(script, 1, "tokens", "40") == 42

    def test_keeps_everything(self, redis_server: Server, redis_url: str) -> None:
        with redis.Redis.from_url(redis_url, decode_responses=True) as client:
            client.rpush("queue", "one", "two")
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
            redis_server.kill()
            redis_server.start()
            assert client.lrange("queue", 0, -1) == ["one", "two"]

    def test_a_stopped_server_refuses_connections(self, redis_server: Server, redis_url: str) -> None:
        redis_server.stop()
        with redis.Redis.from_url(redis_url, retry=None) as client, pytest.raises(redis.ConnectionError):
            client.ping()
        redis_server.start()


class TestWhereAServerComesFrom:
    @pytest.mark.parametrize(
        ("start", "variable", "url"),
        [
            (start_postgres, "TEST_DATABASE_URL", "postgresql://tester@127.0.0.1:1/postgres"),
            (start_redis, "TEST_REDIS_URL", "redis://127.0.0.1:1/3"),
        ],
    )
    def test_a_url_in_the_environment_wins_and_is_never_stopped(
        self, monkeypatch: pytest.MonkeyPatch, start: Callable[[], Server], variable: str, url: str
    ) -> None:
        monkeypatch.setenv(variable, url)
        server = start()
        assert server.url == url
        for end in (server.kill, server.stop):
            with pytest.raises(pytest.skip.Exception, match=f"{variable} is not ours"):
                end()

    def test_without_a_server_a_test_is_skipped_at_home_and_fails_in_ci(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def start() -> Server:
            raise Missing("Redis: install one")

        monkeypatch.delenv("CI", raising=False)
        with pytest.raises(pytest.skip.Exception, match="install one"):
            started_or_skipped(start)
        monkeypatch.setenv("CI", "true")
        with pytest.raises(pytest.fail.Exception, match="install one"):
            started_or_skipped(start)

    def test_a_run_that_breaks_leaves_neither_process_nor_folder(self, redis_server: Server) -> None:
        if not isinstance(redis_server, OwnServer):
            pytest.skip("the server is not ours")
        broken = (
            "import services; s = services.start_redis(); print(s.process.pid, s.folder, flush=True); 1 / 0"
        )
        done = subprocess.run(
            [sys.executable, "-c", broken],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=False,
        )
        assert "ZeroDivisionError" in done.stderr
        pid, folder = done.stdout.split()
        assert not Path(folder).exists()
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)


def test_database_url_is_an_empty_database_of_either_kind(database_url: str) -> None:
    engine = create_engine(database_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE seen (id integer)"))
        connection.execute(text("INSERT INTO seen VALUES (1)"))
        assert connection.execute(text("SELECT count(*) FROM seen")).scalar_one() == 1
    engine.dispose()


class TestProject:
    def test_a_new_project_has_one_newsletter_by_mail(self, project: Project) -> None:
        settings = project.settings()
        assert settings.root == project.root
        assert settings.newsletter(None).slug == "ai-daily"
        assert settings.newsletter(None).channels == ("email",)
        assert settings.database.url.get_secret_value() == f"sqlite:///{project.root}/var/distributor.sqlite3"

    def test_changes_are_merged_table_by_table(self, project: Project) -> None:
        settings = project.settings(
            engine={"chunk": 3, "lease": "5s"},
            email={"smtp": {"port": 2600}, "rate": 12.5},
            newsletter={
                "title": '夜报 "二"',
                "schedule": {"time": time(8, 5), "extra": [date(2027, 2, 14)]},
                "channels": {"email": None, "telegram": {"destinations": [{"name": "room", "chat": "-100"}]}},
            },
            environment={"DISTRIBUTOR_TELEGRAM_TOKEN": "1:a"},
        )
        newsletter = settings.newsletter("ai-daily")
        assert (settings.engine.chunk, settings.engine.lease) == (3, timedelta(seconds=5))
        assert (settings.email.smtp.port, settings.email.smtp.host, settings.email.rate) == (
            2600,
            "127.0.0.1",
            12.5,
        )
        assert (newsletter.title, newsletter.channels) == ('夜报 "二"', ("telegram",))
        assert (newsletter.schedule.time, newsletter.schedule.extra) == (time(8, 5), (date(2027, 2, 14),))
        assert newsletter.sender.address == "daily@news.example.com"
        assert settings.telegram.token.get_secret_value() == "1:a"

    def test_a_mistake_is_found_in_the_written_file(self, project: Project) -> None:
        with pytest.raises(ConfigError, match=r"distributor\.toml:\d+: engine\.chunk"):
            project.settings(engine={"chunk": 0})

    def test_posts_are_written_as_markdown_files(self, project: Project) -> None:
        path = project.write_post("2026-11-24-first", "# 你好\n")
        assert path == project.root / "posts/2026-11-24-first.md"
        assert path.read_text("utf-8") == "# 你好\n"
