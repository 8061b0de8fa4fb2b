"""Thousands sign one address up at the same moment: one subscriber, one subscription, one confirmation mail.

SIGNUP_STORM=10000 is the whole of it, and --log-cli-level=INFO tells how long it took.
"""

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from services import Project
from serving import SECRET, UNLIMITED, Served, row_counts, serving, signed
from sqlalchemy import select

from bench.load import load
from distributor.bootstrap import build, prepare
from distributor.model import Letter
from distributor.tables import letters

log = logging.getLogger(__name__)

STORM = int(os.environ.get("SIGNUP_STORM", "500"))
BODY = json.dumps({"email": "victim@readers.example", "newsletters": ["ai-daily"]})


def request() -> bytes:
    headers = signed(BODY) | {"host": "x", "content-length": str(len(BODY))}
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST /api/subscribers HTTP/1.1\r\n{head}\r\n{BODY}".encode()


@contextmanager
def storm_site(project: Project, url: str, abuse: dict[str, str]) -> Iterator[Served]:
    settings = project.settings(
        environment={"DISTRIBUTOR_SIGNUP_SHOP_SECRET": SECRET},
        signup={"sources": [{"name": "shop"}], "abuse": abuse},
        database={"url": url},
    )
    distributor = build(settings)
    distributor.database.upgrade()
    prepare(distributor)
    with serving(distributor) as site:
        yield site


@pytest.mark.timeout(900)
@pytest.mark.parametrize("limited", [True, False], ids=["with the limiter", "without"])
def test_a_storm_leaves_one_of_everything(project: Project, database_url: str, *, limited: bool) -> None:
    size = STORM if "sqlite" not in database_url else STORM // 2
    with storm_site(project, database_url, {} if limited else UNLIMITED) as site:
        done = load(site.port, [request() for _ in range(size)], connections=100)
        counts = row_counts(site.distributor.database)
        with site.distributor.database.read() as connection:
            kinds = sorted(connection.execute(select(letters.c.kind)).scalars())
    log.info("%d in %.1f s, p99 %.0f ms: %s", size, done.seconds, done.percentile(0.99), dict(done.statuses))
    taken = 5 if limited else size  # signup.abuse.per_address
    assert (done.statuses["202"], done.statuses["429"]) == (taken, size - taken)
    assert (counts["subscribers"], counts["subscriptions"], counts["consents"]) == (1, 1, 1)
    assert kinds == [Letter.CONFIRM, Letter.REMIND]  # the second one is due tomorrow, if nothing happens
    assert counts["inbox"] == taken


def test_one_call_that_arrives_many_times_at_once_counts_once(project: Project, database_url: str) -> None:
    with storm_site(project, database_url, UNLIMITED) as site:
        done = load(site.port, [request()] * 60, connections=20)
        counts = row_counts(site.distributor.database)
    assert done.statuses == {"202": 60}
    assert (counts["inbox"], counts["subscribers"], counts["consents"]) == (1, 1, 1)
