"""Tables for other programs: whole, flat in memory, safe in a spreadsheet, and read back as they were."""

import csv
import io
import json
import tracemalloc
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from fakes import BOTH, World, make_world, migrated_database
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import insert

from distributor.audience import (
    Changes,
    Export,
    Segment,
    SignUp,
    write_csv,
    write_json,
)
from distributor.audience.csv_cells import guarded, joined, parted, plain
from distributor.db import Database
from distributor.errors import RequestRefused
from distributor.model import ConsentText, SubscriptionState, SuppressionReason
from distributor.tables import subscribers, subscriptions

WORDS = ConsentText(version="v1", language="en", text="I agree.")


@pytest.fixture(scope="module", params=BOTH)
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with migrated_database(request, tmp_path_factory) as database:
        yield database


@pytest.fixture
def world(database: Database) -> World:
    return make_world(database)


def as_csv(world: World, what: Export, segment: Segment | None = None, *, bom: bool = False) -> str:
    file = io.StringIO(newline="")
    with world.audience.export(what, "daily", segment) as exported:
        write_csv(exported, file, bom=bom)
    return file.getvalue()


def rows(world: World, what: Export, segment: Segment | None = None) -> Sequence[Mapping[str, str]]:
    return list(csv.DictReader(io.StringIO(as_csv(world, what, segment))))


def objects(world: World, what: Export) -> Any:
    file = io.StringIO()
    with world.audience.export(what, "daily") as exported:
        write_json(exported, file)
    return json.loads(file.getvalue())


class TestCells:
    @pytest.mark.parametrize(
        "cell",
        [
            "=1+1",
            "+86 10",
            "-100123",
            "@SUM(A1)",
            "\t=1",
            "\r=1",
            "\n=1",
            "＝1",
            "＠x",
            "'=1",
            "''@x",
            "=cmd|' /C calc'!A0",
        ],
    )
    def test_what_a_spreadsheet_would_run_begins_with_an_apostrophe(self, cell: str) -> None:
        assert guarded(cell) == f"'{cell}"
        assert plain(guarded(cell)) == cell

    @pytest.mark.parametrize("cell", ["", "ann", "a=b", "'quoted'", "'", "O'Brien", "1-2", "北京"])
    def test_everything_else_stays_as_it_is(self, cell: str) -> None:
        assert guarded(cell) == plain(cell) == cell

    @given(st.text())
    def test_every_text_comes_back(self, cell: str) -> None:
        assert plain(guarded(cell)) == cell

    @given(st.lists(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1)))
    def test_every_list_comes_back(self, values: list[str]) -> None:
        assert parted(joined(values)) == values


class TestSubscribers:
    def test_a_row_a_subscription_with_tags_and_attributes(self, world: World) -> None:
        world.subscribe("ann", "bob", "cy")
        world.subscribe("-100123", channel="telegram")
        world.audience.describe(
            "daily", "email", world.address("ann"), Changes(add=["beta", "vip"], attributes={"city": "=北京"})
        )
        world.leave("bob")
        world.audience.suppress("email", world.address("cy"), SuppressionReason.BOUNCED)
        ann, bob, cy, chat = rows(world, Export.SUBSCRIBERS)
        assert (ann["address"], ann["state"], ann["tags"], ann["attr.city"]) == (
            "ann@readers.example",
            "active",
            "beta,vip",
            "'=北京",
        )
        assert datetime.fromisoformat(ann["consent_at"]).tzinfo is not None
        assert (bob["state"], bob["end_reason"], bob["attr.city"]) == ("unsubscribed", "link", "")
        assert [row["status"] for row in (ann, bob, cy)] == ["active", "unsubscribed", "bounced"]
        assert cy["state"] == "active"
        assert (chat["address"], chat["channel"]) == ("'-100123", "telegram")
        assert not any("token" in name for name in ann)

    def test_those_of_a_segment_alone(self, world: World) -> None:
        world.subscribe("ann", "bob")
        world.audience.describe("daily", "email", world.address("bob"), Changes(add=["beta"]))
        found = rows(world, Export.SUBSCRIBERS, Segment(("tag:beta",)))
        assert [row["address"] for row in found] == ["bob@readers.example"]

    def test_a_mark_for_excel_when_it_is_asked_for(self, world: World) -> None:
        world.subscribe("ann")
        assert as_csv(world, Export.SUBSCRIBERS, bom=True).startswith("\ufeffaddress,channel,name,")
        assert as_csv(world, Export.SUBSCRIBERS).startswith("address,channel,name,")

    def test_json_has_what_the_cells_have(self, world: World) -> None:
        assert objects(world, Export.SUBSCRIBERS) == []
        world.subscribe("ann", "bob")
        found = objects(world, Export.SUBSCRIBERS)
        assert [row["address"] for row in found] == ["ann@readers.example", "bob@readers.example"]
        assert found[0]["ended_at"] is None
        assert list(found[0]) == list(rows(world, Export.SUBSCRIBERS)[0])

    def test_memory_stays_flat(self, world: World) -> None:
        """Six pages of rows take little more than one page."""
        now = datetime.now(UTC)
        with world.database.write() as connection:
            crowd = range(1, 6_001)
            connection.execute(
                insert(subscribers),
                [
                    {
                        "id": number,
                        "channel": "email",
                        "address": f"r{number}@readers.example",
                        "domain": "readers.example",
                        "name": "n" * 50,
                        "created_at": now,
                    }
                    for number in crowd
                ],
            )
            connection.execute(
                insert(subscriptions),
                [
                    {
                        "subscriber_id": number,
                        "newsletter": "daily",
                        "state": SubscriptionState.ACTIVE,
                        "token": f"t{number}",
                        "source": "crowd",
                        "consent_at": now,
                        "activated_at": now,
                    }
                    for number in crowd
                ],
            )
        with world.audience.export(Export.SUBSCRIBERS, "daily") as exported:
            tracemalloc.start()
            number = sum(1 for _row in exported.rows)
            _now, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        assert number == 6_000
        assert peak < 4_000_000, peak


class TestTheOthers:
    def test_consents_with_the_version_of_their_words(self, world: World) -> None:
        asked = SignUp(
            address="ann@readers.example",
            newsletters=["daily"],
            language="en",
            source="form",
            ip="192.0.2.7",
            wording=WORDS,
            vouched=True,
        )
        world.audience.sign_up(asked)
        (row,) = rows(world, Export.CONSENTS)
        assert (row["address"], row["kind"], row["ip"], row["wording"]) == (
            "ann@readers.example",
            "asserted",
            "192.0.2.7",
            "v1",
        )
        assert [(row["version"], row["text"]) for row in rows(world, Export.WORDINGS)] == [("v1", "I agree.")]
        assert rows(world, Export.CONSENTS, Segment(("source:form",))) == [row]
        assert rows(world, Export.CONSENTS, Segment(("source:import",))) == []

    def test_deliveries_and_suppressions(self, world: World) -> None:
        world.subscribe("ann", "bob")
        world.open()
        world.leave("bob")
        world.drain()
        world.audience.suppress("email", "x@readers.example", SuppressionReason.MANUAL, "=cmd")
        found = rows(world, Export.DELIVERIES)
        assert [(row["address"], row["state"], row["reason"]) for row in found] == [
            ("ann@readers.example", "sent", ""),
            ("bob@readers.example", "skipped", "unsubscribed"),
        ]
        assert (found[0]["slug"], found[0]["local_date"]) == ("first", "2026-03-02")
        (row,) = rows(world, Export.SUPPRESSIONS)
        assert (row["address"], row["reason"], row["note"]) == ("x@readers.example", "manual", "'=cmd")

    @pytest.mark.parametrize("what", [Export.DELIVERIES, Export.SUPPRESSIONS, Export.WORDINGS])
    def test_a_filter_is_for_subscribers(self, world: World, what: Export) -> None:
        with (
            pytest.raises(RequestRefused, match=f"a filter chooses subscribers; {what} are exported whole"),
            world.audience.export(what, "daily", Segment(("tag:a",))),
        ):
            pass
