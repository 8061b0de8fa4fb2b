"""`distributor subscribers …`: tag, count, export, export-person, forget; and issues for some readers."""

import csv
import io
import json
import sqlite3
from pathlib import Path

import pytest
from test_cli import Shop, shop

from distributor.audience import Audience
from distributor.db import Database

__all__ = ["shop"]  # the fixture

ANN, BOB = "ann@readers.example", "bob@readers.example"


@pytest.fixture
def two(shop: Shop) -> Shop:
    """Ann, who is tagged, and Bob."""
    shop.add(ANN, BOB)
    assert shop.run("subscribers", "tag", ANN, "+beta", "+New", "city=北京").status == 0
    return shop


class TestTags:
    def test_they_are_added_taken_away_and_shown(self, two: Shop) -> None:
        assert two.run("subscribers", "tag", ANN).out == "+beta\n+new\ncity=北京\n"
        done = two.run("subscribers", "tag", ANN, "-new", "-beta", "+vip", "city=", "--json")
        assert done.json == {"tags": ["vip"], "attributes": {}}
        assert two.run("subscribers", "tag", BOB).out == "no tags, no attributes\n"

    @pytest.mark.parametrize(
        ("words", "says"),
        [
            ([ANN, "beta"], "'beta' is no change: write +beta, -beta or beta=VALUE"),
            ([ANN, "+"], "'' cannot be a tag"),
            ([ANN, "=x"], "cannot be a name of an attribute"),
            (["zoe@readers.example", "+a"], "has no subscription to ai-daily by email"),
        ],
    )
    def test_mistakes_are_told(self, two: Shop, words: list[str], says: str) -> None:
        done = two.run("subscribers", "tag", *words)
        assert done.status == 2
        assert says in done.err


class TestFilters:
    def test_listing_and_counting(self, two: Shop) -> None:
        found = two.run("subscribers", "list", "--filter", "not tag:beta", "--json").json
        assert [row["address"] for row in found] == [BOB]
        assert two.run("subscribers", "count", "--json").json == {"email": 2}
        assert two.run("subscribers", "count", "--filter", "attr.city:北京", "--json").json == {"email": 1}
        assert two.run("subscribers", "count").out.split() == ["channel", "subscribers", "email", "2"]

    @pytest.mark.parametrize(
        "words",
        [
            ["subscribers", "list"],
            ["subscribers", "count"],
            ["subscribers", "export"],
            ["rehearse", "receipts"],
            ["send", "receipts", "--extra"],
        ],
    )
    def test_a_mistake_is_told_with_its_column(self, two: Shop, words: list[str]) -> None:
        done = two.run(*words, "--filter", "tag:beta lang:zh")
        assert done.status == 2
        assert "filter, column 10: expected `and`, `or` or the end; found lang…" in done.err

    def test_a_send_to_some_is_an_extra_one(self, two: Shop) -> None:
        refused = two.send("receipts", "--filter", "tag:beta")
        assert refused.status == 2
        assert "the day's issue is for everybody" in refused.err
        assert "Add --extra" in refused.err
        tested = two.send("receipts", "--extra", "--filter", "tag:beta", "--test-to", ANN)
        assert "leave one of them out" in tested.err
        plan = two.send("receipts", "--extra", "--filter", "tag:beta", "--dry-run")
        assert plan.out.split()[-6:] == ["1", "nothing", "was", "sent", "(dry", "run)"]
        assert two.send("receipts", "--extra", "--filter", "tag:beta").status == 0
        assert two.inbox == {ANN: 1}
        assert "email: only subscribers with (tag:beta)" in two.run("status", "1").out
        assert two.run("status", "1", "--json").json["filters"] == {"email": ["tag:beta"]}

    def test_a_rehearsal_is_for_those_whom_the_filters_mean(self, two: Shop) -> None:
        folder = two.project.root / "rehearsed"
        two.configure({"audience": {"filter": "tag:beta"}, "channels": {"email": {"filter": "tag:new"}}})
        assert two.run("rehearse", "receipts", "--inbox", str(folder)).status == 0
        lines = (folder / "inbox.jsonl").read_text("utf-8").splitlines()
        assert [ANN in line for line in lines] == [True]


class TestExport:
    def test_to_a_file_that_only_its_owner_reads(self, two: Shop) -> None:
        out = two.project.root / "readers.csv"
        done = two.run("subscribers", "export", "--bom", "-o", str(out))
        assert (done.status, done.out) == (0, f"2 rows written to {out}\n")
        assert out.stat().st_mode & 0o777 == 0o600
        rows = list(csv.DictReader(io.StringIO(out.read_bytes().decode("utf-8-sig"))))
        assert [(row["address"], row["attr.city"]) for row in rows] == [(ANN, "北京"), (BOB, "")]

    def test_to_standard_output(self, two: Shop) -> None:
        done = two.run("subscribers", "export", "--filter", "tag:beta", "--format", "json")
        assert [row["address"] for row in done.json] == [ANN]
        two.run("subscribers", "suppress", BOB)
        done = two.run("subscribers", "export", "--what", "suppressions")
        assert done.out.splitlines()[1].startswith(f"{BOB},email,manual,")

    def test_what_was_there_before_stays_when_it_fails(self, two: Shop) -> None:
        out = two.project.root / "kept.csv"
        out.write_text("kept")
        done = two.run("subscribers", "export", "--what", "deliveries", "--filter", "tag:a", "-o", str(out))
        assert done.status == 2
        assert out.read_text() == "kept"
        assert "cannot be written" in two.run("subscribers", "export", "-o", "/nowhere/x.csv").err
        assert sorted(path.name for path in two.project.root.glob(".*csv*")) == []

    def test_what_was_written_is_read_back(self, two: Shop) -> None:
        """Into an empty database: standing, tags, attributes, consent; whatever a spreadsheet would take for a formula."""
        two.run("subscribers", "add", "-100123", "--channel", "telegram")
        for name in ("left", "bounced"):
            two.add(f"{name}@readers.example")
        two.run("subscribers", "suppress", "bounced@readers.example")
        two.run("subscribers", "tag", BOB, "+=1+1", "+@home", "sum==SUM(A1)", "note='quoted", "plus=+86 10")
        database = Database(f"sqlite:///{two.project.root}/var/distributor.sqlite3")
        audience = Audience(database)
        left = next(one for one in audience.listing("ai-daily") if one.address.startswith("left"))
        audience.unsubscribe(left.token, "link")
        database.close()
        first, second = (two.project.root / name for name in ("first.csv", "second.csv"))
        two.run("subscribers", "export", "-o", str(first))
        for path in (two.project.root / "var").glob("distributor.sqlite3*"):
            path.unlink()
        done = two.run("subscribers", "import", str(first), "--mailed-today", "no")
        assert done.status == 0, done.err
        two.run("subscribers", "export", "-o", str(second))
        assert comparable(second) == comparable(first)
        assert two.run("subscribers", "count", "--json").json == {"email": 2}
        assert (
            "bounced@readers.example,email," in two.run("subscribers", "export", "--what", "suppressions").out
        )


def comparable(path: Path) -> list[dict[str, str]]:
    """Its rows, without what an import cannot know: when a subscription began and ended here, and why.

    Nor those to whom nothing may be sent: of them, the suppression alone is imported.
    """
    known = ("activated_at", "ended_at", "end_reason", "state")
    rows = csv.DictReader(io.StringIO(path.read_text("utf-8"), newline=""))
    kept = [{name: value for name, value in row.items() if name not in known} for row in rows]
    return sorted((row for row in kept if row["status"] != "manual"), key=lambda row: row["address"])


class TestAPerson:
    def test_an_address_that_nobody_knows_is_told(self, two: Shop) -> None:
        done = two.run("subscribers", "forget", "nobody@readers.example", "--yes")
        assert done.status == 0
        assert "nothing is kept about nobody@readers.example" in done.err

    def test_shown_and_forgotten(self, two: Shop, tmp_path: Path) -> None:
        two.send("receipts")
        out = tmp_path / "ann.json"
        done = two.run("subscribers", "export-person", ANN.upper(), "-o", str(out))
        assert "send it to nobody but this person" in done.out
        (place,) = json.loads(out.read_text("utf-8"))["places"]
        assert place["deliveries"][0]["state"] == "sent"
        done = two.run("subscribers", "forget", ANN, "--yes")
        assert done.status == 0
        assert f"this person: {ANN} (email)" in done.out
        assert "1 deliveries keep a hash instead of the address" in done.out
        assert "backups that were made before still hold it" in done.err
        assert ANN not in two.run("log", "1").out
        assert two.run("status", "1").status == 0
        two.add(ANN)
        assert two.run("subscribers", "count", "--json").json == {"email": 1}

    @pytest.mark.parametrize("status", ["active", "unsubscribed", "bounced", "complained"])
    def test_no_import_writes_an_erased_address_down_again(self, two: Shop, status: str) -> None:
        two.run("subscribers", "suppress", BOB)
        for address in (ANN, BOB):
            assert two.run("subscribers", "forget", address, "--yes").status == 0
        path = two.project.root / "again.csv"
        path.write_text(f"email,status\n{ANN},{status}\n{BOB},{status}\n")
        two.run("subscribers", "import", str(path), "--mailed-today", "no", "--consent", "they asked")
        kept = two.project.root.joinpath("var/distributor.sqlite3")
        with sqlite3.connect(kept) as connection:
            dump = "\n".join(connection.iterdump())
        assert ANN not in dump
        assert BOB not in dump

    def test_it_asks_for_the_address(self, two: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sys.stdin", io.StringIO(f"{BOB}\n"))
        done = two.run("subscribers", "forget", ANN)
        assert done.status == 2
        assert "that is not the address; nothing was erased" in done.err
        monkeypatch.setattr("sys.stdin", io.StringIO(f" {ANN.upper()}\n"))
        assert two.run("subscribers", "forget", ANN).status == 0
        assert two.run("subscribers", "count", "--json").json == {"email": 1}
