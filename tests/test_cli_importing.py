"""`distributor subscribers import`, `imports`, `undo-import`, as a person gives them."""

import csv
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from services import Project
from sqlalchemy import func, select
from test_cli import Shop
from test_moving_in import LISTMONK_QUERY, MAILCHIMP, zipped

from distributor.audience import Subscription
from distributor.bootstrap import Distributor, build
from distributor.db import Database
from distributor.tables import subscriptions

CSV = "\ufeffEmail,Name\na@readers.example,甲\n=not-an-address,乙\nA@readers.example,甲\n\nb@readers.example,丙\n"


class Desk(Shop):
    """The command line of a project that sends nothing."""

    def __init__(self, project: Project, capsys: pytest.CaptureFixture[str]) -> None:
        self.project, self._capsys = project, capsys


@pytest.fixture
def shop(project: Project, capsys: pytest.CaptureFixture[str]) -> Shop:
    return Desk(project, capsys)


def file(shop: Shop, text: str, name: str = "readers.csv") -> Path:
    path = shop.project.root / name
    path.write_text(text, "utf-8")
    return path


def readers(shop: Shop) -> dict[str, str]:
    return {one["address"]: one["state"] for one in shop.run("subscribers", "list", "--json").json}


def found(distributor: Distributor, name: str) -> Subscription:
    return next(one for one in distributor.audience.listing("ai-daily") if one.address.startswith(f"{name}@"))


def test_bad_lines_are_shown_and_written_down_and_the_rest_goes_on(shop: Shop) -> None:
    path = file(shop, CSV)
    done = shop.run("subscribers", "import", str(path), "--consent", "the fair in May")
    assert done.status == 1
    assert "readers.csv: utf-8-sig, comma" in done.out
    assert done.out.split("\n")[1].split() == ["status", "lines", "added", "duplicate", "refused"]
    assert "import 1 is done; to take it back:" in done.out
    assert "readers.csv: line 3: email: is not an e-mail address" in done.err
    with path.with_suffix(".errors.csv").open(encoding="utf-8-sig", newline="") as refused:
        header, row = csv.reader(refused)
    assert header == ["file", "line", "column", "problem", "value"]
    assert (row[:3], row[4]) == (["readers.csv", "3", "email"], "'=not-an-address")
    assert readers(shop) == {"a@readers.example": "active", "b@readers.example": "active"}


def test_a_channel_that_nobody_sends_over_is_refused(shop: Shop) -> None:
    """Readers of it would get nothing, and nobody would know."""
    path = file(shop, "email,channel\na@readers.example,E-mail\n4711,Telegram\n")
    words = ("subscribers", "import", str(path), "--consent", "fair")
    for refused in (
        shop.run(*words, "--channel", "fax"),
        shop.run("subscribers", "add", "1", "--channel", "fax"),
    ):
        assert refused.status == 2
        assert "no channel is called 'fax'" in refused.err
    done = shop.run(*words)
    assert (done.status, list(readers(shop))) == (1, ["4711"])
    assert "line 2: channel: is none of email, telegram: e-mail" in done.err


def test_a_dry_run_changes_nothing(shop: Shop) -> None:
    path = file(shop, CSV)
    done = shop.run("subscribers", "import", str(path), "--consent", "fair", "--dry-run", "--json")
    assert done.json["import"] is None
    assert done.json["counts"] == {"active": {"added": 2, "duplicate": 1, "refused": 1}}
    assert readers(shop) == {}
    assert shop.run("subscribers", "imports", "--json").json == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "nobody says when these readers agreed"),
        (["--consent", "fair", "--map", "email"], "--map email: write it as"),
        (["--from", "sendy"], "--from sendy: known are csv, listmonk, ghost, mailchimp"),
        (["--consent", "fair", "--encoding", "klingon"], "no encoding 'klingon'"),
        (["--consent", "fair", "--mailed-today", "perhaps"], "--mailed-today perhaps: yes or no"),
        (["--consent", "fair", "--errors", "/gone/errors.csv"], "/gone/errors.csv: cannot be written"),
        (["--from", "listmonk"], "does not say who has left"),
        (["--from", "ghost"], "no column subscribed_to_emails"),
    ],
)
def test_wrong_use(shop: Shop, words: list[str], said: str) -> None:
    done = shop.run("subscribers", "import", str(file(shop, CSV)), *words)
    assert done.status == 2
    assert said in done.err
    assert readers(shop) == {}


@pytest.mark.parametrize("name", ["gone.csv", "."])
def test_files_that_are_not_there(shop: Shop, name: str) -> None:
    done = shop.run("subscribers", "import", str(shop.project.root / name), "--consent", "fair")
    assert done.status == 2
    assert "cannot be read" in done.err


def test_a_list_of_listmonk_with_whoever_was_mailed_today(shop: Shop) -> None:
    path = file(shop, LISTMONK_QUERY, "list.csv")
    words = ("subscribers", "import", "--from", "listmonk", str(path))
    asked = shop.run(*words)
    assert asked.status == 2
    assert "did the old system mail these readers today?" in asked.err
    assert shop.run(*words, "--mailed-today", "yes").status == 0
    assert readers(shop) == {"ann@readers.example": "active", "bob@readers.example": "unsubscribed"}
    distributor = build(shop.project.settings())
    ann = found(distributor, "ann")
    distributor.close()
    zone = next(iter(distributor.settings.newsletters.values())).zone
    tomorrow = (datetime.now(zone) + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    assert ann.activated_at == tomorrow.astimezone(UTC)


def test_the_question_on_a_terminal(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    path = file(shop, LISTMONK_QUERY, "list.csv")
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("typer.confirm", lambda *_words, **_options: False)
    assert shop.run("subscribers", "import", "--from", "listmonk", str(path)).status == 0
    shown = shop.run("subscribers", "list", "--json").json
    began = next(one["since"] for one in shown if one["address"].startswith("ann@"))
    assert began <= f"{datetime.now(UTC):%Y-%m-%d}"


def test_files_named_by_their_status(shop: Shop) -> None:
    one = file(shop, "email\nann@readers.example\n", "a=b.csv")
    two = file(shop, "email\nbob@readers.example\n", "two.csv")
    done = shop.run("subscribers", "import", str(one), f"unsubscribed={two}", "--consent", "fair")
    assert done.status == 0
    assert readers(shop) == {"ann@readers.example": "active", "bob@readers.example": "unsubscribed"}


def test_out_again(shop: Shop) -> None:
    path = zipped(
        shop.project.root, **{**MAILCHIMP, "subscribed": MAILCHIMP["subscribed"].replace("cy@", "@")}
    )
    shop.run("subscribers", "import", "--from", "mailchimp", str(path), "--mailed-today", "no")
    (kept,) = shop.run("subscribers", "imports", "--json").json
    assert (kept["origin"], kept["counts"]["subscribed"]) == ("mailchimp", {"added": 2, "refused": 1})
    distributor = build(shop.project.settings())
    distributor.audience.unsubscribe(found(distributor, "ann").token, "link")
    distributor.close()
    plan = shop.run("subscribers", "undo-import", "1")
    assert "2 subscriptions with their evidence, 2 suppressions" in plan.out
    assert "1 stay, because they changed since: ann@readers.example" in plan.out
    assert "dry run" in plan.out
    assert len(readers(shop)) == 3
    assert shop.run("subscribers", "undo-import", "1", "--yes").status == 0
    assert readers(shop) == {"ann@readers.example": "unsubscribed"}
    assert "undone" in shop.run("subscribers", "imports").out
    assert shop.run("subscribers", "undo-import", "9").status == 2
    assert shop.run("subscribers", "undo-import", "1", "--json").json["stays"] == 1


def test_progress_in_lines(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distributor.cli.importing.LINE_EVERY", 0.0)
    done = shop.run("subscribers", "import", str(file(shop, CSV)), "--consent", "fair")
    assert "lines, 100 % of the bytes read" in done.err


@pytest.mark.services
@pytest.mark.timeout(120)
def test_killed_with_9_and_run_again(shop: Shop, postgres_url: str) -> None:
    """What the killed one brought stays, the second run brings the rest, nobody comes twice."""
    shop.project.settings(database={"url": postgres_url})
    lines = [f"reader-{number}@readers.example,{number}\n" for number in range(60_000)]
    path = file(shop, "email,name\n" + "".join(lines))
    words = ("subscribers", "import", str(path), "--consent", "fair")
    database = Database(postgres_url)
    database.upgrade()
    try:
        with shop.start(*words) as first:
            wait_for(lambda: subscriptions_in(database) > 0)
            first.kill()
            first.communicate()
        before = subscriptions_in(database)
        assert 0 < before < 60_000
        assert before % 10_000 == 0
        assert shop.run(*words, "--json").json["counts"]["active"].get("known", 0) == before
        assert subscriptions_in(database) == 60_000
    finally:
        database.close()


def subscriptions_in(database: Database) -> int:
    with database.read() as connection:
        counted = connection.execute(select(func.count()).select_from(subscriptions))
        return int(counted.scalar_one())


def wait_for(true: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not true():
        assert time.monotonic() < until
        time.sleep(0.01)
