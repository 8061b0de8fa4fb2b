"""The canary: a share of an issue goes first, and the rest only if that went well."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from fakes import BOTH, World, make_newsletter, make_world, migrated_database

from distributor.db import Database
from distributor.dispatch import lane as lanes
from distributor.dispatch import sweep
from distributor.errors import Rejected, Unavailable
from distributor.model import Issue

READERS = 40
RULES = {"share": 0.25, "largest_failed": 0.1, "largest_deferred": 0.5, "patience": "2m"}


@pytest.fixture(autouse=True)
def _no_waiting_for_what_is_due_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "IDLE_PATIENCE", -1.0)


@pytest.fixture(scope="module", params=BOTH)
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with migrated_database(request, tmp_path_factory) as database:
        yield database


@pytest.fixture
def world(database: Database) -> World:
    made = make_world(database, newsletter=make_newsletter(canary=RULES), chunk=5)
    made.subscribe(*(f"reader-{number}" for number in range(READERS)))
    return made


def sent(world: World, issue: Issue) -> int:
    return world.check_sum(issue).sent


def test_a_share_goes_first_and_the_rest_when_that_went_well(world: World) -> None:
    issue = world.open()
    world.drain()
    assert sent(world, issue) == 10
    assert sweep(world.engine).troubles == []
    world.drain()
    sweep(world.engine)
    assert sent(world, issue) == READERS
    assert sorted(world.channel.reached) == sorted(set(world.channel.reached))


def test_while_it_is_under_way_nothing_else_goes(world: World) -> None:
    issue = world.open()
    sweep(world.engine)
    world.drain()
    assert sent(world, issue) == 10


@pytest.mark.parametrize(
    ("error", "said"),
    [
        pytest.param(Rejected(text="no"), "5 of 10 failed", id="failures"),
        pytest.param(
            Unavailable(text="later", retry_after=timedelta(hours=1)), "6 of 10 were put off", id="deferrals"
        ),
    ],
)
def test_a_bad_start_pauses_the_rest_and_is_told(
    world: World, error: Rejected | Unavailable, said: str
) -> None:
    bad = 5 if isinstance(error, Rejected) else 6
    for number in range(bad):
        world.channel.script[f"reader-{number}@readers.example"] = [error]
    issue = world.open()
    world.drain()
    (trouble,) = sweep(world.engine).troubles
    assert said in trouble
    assert f"distributor resume {issue.id}" in trouble
    world.drain()
    assert sweep(world.engine).troubles == []
    assert sent(world, issue) == 10 - bad
    assert world.ledger.issue(issue.id).paused


def test_a_person_may_go_on_all_the_same(world: World) -> None:
    for number in range(5):
        world.channel.script[f"reader-{number}@readers.example"] = [Rejected(text="no")]
    issue = world.open()
    world.drain()
    sweep(world.engine)
    world.ledger.set_paused(issue.id, paused=False)
    world.drain()
    sweep(world.engine)
    assert world.check_sum(issue).sent == READERS - 5


def test_a_few_failures_are_normal(world: World) -> None:
    world.channel.script["reader-0@readers.example"] = [Rejected(text="no")]
    issue = world.open()
    world.drain()
    assert sweep(world.engine).troubles == []
    world.drain()
    assert world.check_sum(issue).sent == READERS - 1


def test_without_one_everybody_is_due_at_once(database: Database) -> None:
    world = make_world(database, chunk=5)
    world.subscribe("ann", "bob")
    issue = world.open()
    world.drain()
    assert sent(world, issue) == 2
