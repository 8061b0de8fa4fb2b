"""Every provider's calls, in order, twice, and in any order: the same end state, on both databases."""

import random
from collections.abc import Iterator, Sequence
from datetime import timedelta

import pytest
from calls import AT, NAMES, STORY, Call, forged, providers, resends_clock, story  # noqa: F401 - autouse
from fakes import BOTH, World, make_world, migrated_database

from distributor.db import Database
from distributor.events import Events
from distributor.providers import Forged, Malformed

READERS = sorted({who for _what, who, _days in STORY})
END = {"angry": "complained", "full": "undeliverable", "gone": "bounced"}


@pytest.fixture(scope="module", params=BOTH)
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with migrated_database(request, tmp_path_factory) as database:
        yield database


@pytest.fixture
def world(database: Database) -> World:
    world = make_world(database)
    world.subscribe(*READERS)
    return world


def tell(world: World, name: str, told: Sequence[Call]) -> None:
    """Each call is taken a moment after it was signed, whenever that was."""
    provider, heard = providers()[name], Events(world.database, world.ledger, world.audience)
    moments = dict(zip(map(id, STORY_CALLS[name]), (days for *_rest, days in STORY), strict=True))
    for call in told:
        heard.record(provider.events(call, AT + timedelta(days=moments.get(id(call), 0.0), seconds=1)))


STORY_CALLS = {name: story(name) for name in NAMES}


def state(world: World) -> object:
    told = sorted(
        (found.address, found.kind, str(found.permanence), found.occurred_at)
        for found in world.ledger.events(limit=100)
    )
    readers = [(item.address, str(item.state), item.suppressed) for item in world.audience.listing("daily")]
    return told, readers


@pytest.mark.parametrize("name", NAMES)
def test_in_order_twice_and_in_any_order(world: World, database: Database, name: str) -> None:
    told = STORY_CALLS[name]
    tell(world, name, told)
    first = state(world)
    suppressed = {item.address.partition("@")[0]: item.suppressed for item in world.audience.listing("daily")}
    assert {who: reason for who, reason in suppressed.items() if reason} == END
    assert len(world.ledger.events(limit=100)) == len(STORY)
    tell(world, name, told)
    assert state(world) == first
    for seed in range(3 if database.sqlite else 1):
        again = make_world(database)
        again.subscribe(*READERS)
        shuffled = [*told, *told]
        random.Random(seed).shuffle(shuffled)
        tell(again, name, shuffled)
        assert state(again) == first


@pytest.mark.parametrize("name", NAMES)
def test_what_is_forged_changes_nothing(world: World, name: str) -> None:
    before = state(world)
    for call in STORY_CALLS[name]:
        for fake in forged(call):
            with pytest.raises((Forged, Malformed)):
                tell(world, name, [fake])
    assert state(world) == before
