"""`distributor demo`: the numbers add up, each made-up reader ends as its name says, and a second run sends nothing."""

import json
import os
import re
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distributor.cli import main

READERS = 60
#: With the destinations of the sample configuration: a Telegram channel and a WeCom robot.
PLANNED = READERS + 2

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """A command in this process, in a folder of its own: (exit status, standard output)."""
    for name in [name for name in os.environ if name.startswith("DISTRIBUTOR_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["distributor", *words])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0), capsys.readouterr().out

    return run


def arrived(folder: Path) -> list[dict[str, Any]]:
    """Every line of the inbox, accepted or refused."""
    lines = (folder / "inbox/inbox.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def fate(address: str) -> str:
    """What a made-up address is made up for: its name, or the range of its chat id."""
    if "@readers.example" in address:
        return address.split("-", maxsplit=1)[0]
    return {"9001": "blocked", "9002": "slowed"}.get(address[:4], "plain") if address.isdigit() else "plain"


def test_a_run_shows_every_way_a_delivery_can_end_and_a_second_run_sends_nothing(
    run: Run, tmp_path: Path
) -> None:
    status, out = run("demo", "--subscribers", str(READERS))
    assert status == 0
    assert f"{READERS} readers; opening the issue of" in out
    folder = tmp_path / ".demo"
    first = arrived(folder)

    entries = json.loads(run("-C", ".demo", "log", "1", "--limit", "100", "--json")[1])
    assert len(entries) == PLANNED
    ends = Counter((fate(entry["address"]), entry["state"], entry["reason"]) for entry in entries)
    left = ends.pop(("reader", "skipped", "unsubscribed"))
    assert left == 5
    readers = ends.pop(("reader", "sent", None))
    assert ends == {
        ("refused", "failed", None): 8,
        ("busy", "sent", None): 12,
        ("blocked", "failed", None): 5,
        ("slowed", "sent", None): 1,
        ("plain", "sent", None): 2,  # the destinations
    }
    assert sum(ends.values()) + left + readers == PLANNED

    tries = {fate(entry["address"]): entry["attempts"] for entry in entries}
    assert [each["outcome"] for each in tries["busy"]] == ["pending", "sent"]
    assert [each["outcome"] for each in tries["slowed"]] == ["pending", "sent"]
    assert [each["code"] for each in tries["refused"]] == ["550"]

    accepted = Counter((line["channel"], line["address"]) for line in first if line["accepted"])
    assert set(accepted.values()) == {1}, "nobody gets two"
    told = 2  # the operator's two routes, at the end
    assert len(accepted) == readers + 12 + 1 + 2 + told

    total = next(line.split() for line in out.splitlines() if line.startswith("total"))
    assert total[1:] == [str(PLANNED), str(readers + 15), "13", "5", "0", "0", "0"]
    assert run("-C", ".demo", "status", "1")[0] == 0

    status, out = run("demo", "--subscribers", str(READERS))
    assert status == 0
    assert "issue 1 was already sent; nothing is sent twice" in out
    assert arrived(folder) == first


def test_what_arrives_is_well_formed(run: Run, tmp_path: Path) -> None:
    assert run("demo", "--subscribers", "3", "--folder", "small")[0] == 0
    lines = arrived(tmp_path / "small")
    assert {line["channel"] for line in lines} == {"email", "telegram", "wecom"}
    assert [line["violations"] for line in lines if line["violations"]] == []


def test_every_command_it_names_works_from_here(run: Run) -> None:
    _, out = run("demo", "--subscribers", str(READERS))
    assert "13 failed:     distributor -C .demo log 1 --state failed" in out
    named = re.findall(r"distributor (-C .*)", out)
    assert len(named) == 3
    for command in named:
        assert run(*command.split())[0] == 0


def test_where_to_look_is_named_as_seen_from_here(run: Run) -> None:
    _, out = run("demo", "--subscribers", "1", "--folder", "elsewhere")
    assert "distributor -C elsewhere status 1" in out
    assert "distributor sandbox --inbox elsewhere/inbox" in out
