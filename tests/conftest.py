"""Fixtures that every test may ask for; services.py says what they are made of."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis
from browser import Chrome, browser
from looks import picture
from services import (
    OwnServer,
    Project,
    Server,
    fresh_database,
    start_postgres,
    start_redis,
    started_or_skipped,
)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """PostgreSQL for the whole run: `.url`, `.kill()`, `.stop()`, `.start()`."""
    server = started_or_skipped(start_postgres)
    yield server
    server.close()


@pytest.fixture
def postgres_url(postgres_server: Server) -> Iterator[str]:
    """A new, empty database for this test alone."""
    with fresh_database(postgres_server) as url:
        yield url


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Server]:
    """Valkey or Redis for the whole run: `.url`, `.kill()`, `.stop()`, `.start()`."""
    server = started_or_skipped(start_redis)
    yield server
    server.close()


@pytest.fixture
def redis_url(redis_server: Server) -> str:
    """The server's URL, with nothing in it."""
    redis_server.start()
    with redis.Redis.from_url(redis_server.url) as client:
        # A server that somebody lent us may hold more than the database of its URL.
        client.flushall() if isinstance(redis_server, OwnServer) else client.flushdb()
    return redis_server.url


@pytest.fixture
def own_redis(redis_server: Server, redis_url: str) -> Iterator[OwnServer]:
    """The server of `redis_url`, for a test that kills it."""
    if not isinstance(redis_server, OwnServer):
        pytest.skip("the server is not ours to stop")
    yield redis_server
    redis_server.start()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.services)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database; the test runs on both kinds."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/distributor.sqlite3"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture(scope="session")
def chrome() -> Iterator[Chrome]:
    """A browser for the whole run; browser.py says what is pinned."""
    with ExitStack() as stack:
        yield started_or_skipped(lambda: stack.enter_context(browser(picture)))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project's folder with one newsletter and no posts."""
    project = Project(tmp_path / "project")
    (project.root / "posts").mkdir(parents=True)
    project.settings()
    return project
