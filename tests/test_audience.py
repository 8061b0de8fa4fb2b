"""Who gets an issue: joining, leaving, importing, and the audience of a moment."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from fakes import BOTH, World, make_world, migrated_database
from sqlalchemy import select

from distributor.audience import (
    NewSubscriber,
    Subscription,
    active,
    normalise,
)
from distributor.db import Database
from distributor.errors import RequestRefused
from distributor.model import SubscriptionState, SuppressionReason


@pytest.fixture(scope="module", params=BOTH)
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with migrated_database(request, tmp_path_factory) as database:
        yield database


@pytest.fixture
def world(database: Database) -> World:
    return make_world(database)


def found(world: World, name: str) -> Subscription:
    address = world.address(name)
    return next(item for item in world.audience.listing("daily") if item.address == address)


def members(world: World, moment: datetime, **options: Any) -> Sequence[str]:
    with world.database.read() as connection:
        query = active("daily", "email", moment, **options).subquery()
        rows = connection.execute(select(query.c.address).order_by(query.c.address))
        return [row.address.removesuffix("@readers.example") for row in rows]


class TestLeaving:
    def test_leaving_again_and_again_is_harmless(self, world: World) -> None:
        world.subscribe("ann")
        token = world.token("ann")
        first = world.audience.unsubscribe(token, "link")
        world.clock.forward(timedelta(hours=1))
        again = world.audience.unsubscribe(token, "complaint")
        assert first is not None
        assert first == again
        assert (first.state, first.end_reason) == (SubscriptionState.UNSUBSCRIBED, "link")
        assert world.audience.count("daily", "email") == 0

    def test_an_unknown_token_is_nobody(self, world: World) -> None:
        world.subscribe("ann")
        assert world.audience.unsubscribe("not-a-token", "link") is None
        assert world.audience.find("not-a-token") is None
        assert world.audience.count("daily", "email") == 1

    def test_who_left_comes_back_only_by_asking(self, world: World) -> None:
        world.subscribe("ann")
        world.leave("ann")
        with pytest.raises(RequestRefused, match=r"unsubscribed on .*--resubscribe"):
            world.subscribe("ann")
        new = NewSubscriber(channel="email", address="ANN@readers.example", source="form")
        back = world.audience.add("daily", new, resubscribe=True)
        assert (back.state, back.source, back.ended_at) == (SubscriptionState.ACTIVE, "form", None)

    def test_joining_twice_changes_nothing(self, world: World) -> None:
        world.subscribe("ann")
        before = found(world, "ann")
        world.subscribe("ann")
        assert found(world, "ann") == before

    def test_a_suppressed_address_cannot_be_added(self, world: World) -> None:
        world.audience.suppress("email", "ann@readers.example", SuppressionReason.COMPLAINED)
        with pytest.raises(RequestRefused, match="suppressed \\(complained\\)"):
            world.subscribe("ann")
        assert world.audience.listing("daily") == []

    def test_the_first_reason_of_a_suppression_stays(self, world: World) -> None:
        world.subscribe("ann")
        for reason in (SuppressionReason.BOUNCED, SuppressionReason.MANUAL):
            world.audience.suppress("email", "ann@readers.example", reason)
        assert found(world, "ann").suppressed == "bounced"


class TestMoment:
    def test_the_audience_is_the_one_of_the_moment(self, world: World) -> None:
        world.subscribe("ann", "bob", "cy")
        world.leave("cy")
        moment = world.clock()
        world.clock.forward(timedelta(seconds=1))
        world.subscribe("late")
        world.leave("bob")
        world.audience.suppress("email", "ann@readers.example", SuppressionReason.BOUNCED)
        assert members(world, moment) == ["ann", "bob"]
        assert members(world, world.clock()) == ["late"]

    def test_one_address_or_all_but_some(self, world: World) -> None:
        world.subscribe("ann", "bob")
        assert members(world, world.clock(), only="bob@readers.example") == ["bob"]
        assert members(world, world.clock(), without=["bob@readers.example"]) == ["ann"]

    def test_a_suppression_concerns_its_channel_alone(self, world: World) -> None:
        world.subscribe("ann")
        world.audience.suppress("telegram", "ann@readers.example", SuppressionReason.BLOCKED)
        assert members(world, world.clock()) == ["ann"]

    def test_a_listing_goes_on_behind_the_last_one(self, world: World) -> None:
        world.subscribe("ann", "bob", "cy")
        first = world.audience.listing("daily", limit=2)
        rest = world.audience.listing("daily", after=first[-1].subscriber_id, channel="email")
        assert [item.address[:3] for item in (*first, *rest)] == ["ann", "bob", "cy@"]


@pytest.mark.parametrize(
    ("channel", "written", "kept"),
    [
        ("email", " Ann.B@Readers.Example ", "ann.b@readers.example"),
        ("email", "ann@bücher.example", "ann@xn--bcher-kva.example"),
        ("telegram", " -10042 ", "-10042"),
        ("matrix", "@ann:readers.example", "@ann:readers.example"),
    ],
)
def test_an_address_has_one_spelling(channel: str, written: str, kept: str) -> None:
    assert normalise(channel, written) == kept


@pytest.mark.parametrize(
    ("channel", "written"),
    [
        ("email", "ann"),
        ("email", "ann@readers.example\nBcc: x@y.example"),
        ("email", "日报@readers.example"),
        ("telegram", "@ann"),
        ("matrix", "two words"),
        ("matrix", ""),
    ],
)
def test_what_cannot_be_an_address_is_refused(channel: str, written: str) -> None:
    with pytest.raises(RequestRefused):
        normalise(channel, written)
