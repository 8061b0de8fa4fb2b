"""The engine in one process: it sends by itself, survives its own bugs, and stops when it is told to."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from services import Project

from distributor.audience import NewSubscriber
from distributor.bootstrap import Distributor, build, prepare, sole_sender
from distributor.dispatch import open_issue, write_audience
from distributor.errors import ServiceDown
from distributor.model import Issue, IssueState, OpenedBy
from distributor.posts import read_post
from distributor.rehearsal import into_sandbox
from distributor.runner import Runner
from distributor.sandbox.faults import Fault
from distributor.sandbox.server import Sandbox

POST = "---\ntitle: 收据\ndate: 2026-03-05\n---\n\n谁收到了，谁没有收到。\n"


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(None) as sandbox:
        yield sandbox


@pytest.fixture
def distributor(project: Project, sandbox: Sandbox, tmp_path: Path) -> Iterator[Distributor]:
    project.write_post("receipts", POST)
    settings = project.settings(
        engine={"sweep": "1s", "lanes": 2}, email={"retry": {"first": "1s", "longest": "1s"}}
    )
    distributor = build(into_sandbox(settings, sandbox, tmp_path / "var" / "x.sqlite3"))
    prepare(distributor)
    yield distributor
    distributor.close()


def open_for(distributor: Distributor, number: int) -> Issue:
    """An issue for so many readers, not sent yet."""
    for reader in range(number):
        new = NewSubscriber(channel="email", address=f"reader-{reader}@readers.example", source="test")
        distributor.audience.add("ai-daily", new)
    newsletter = distributor.settings.newsletters["ai-daily"]
    post = read_post(distributor.settings.root / "posts/receipts.md", newsletter.zone)
    issue, _ = open_issue(distributor.engine, newsletter, post, datetime.now(UTC).date(), by=OpenedBy.PERSON)
    write_audience(distributor.engine, issue)
    return issue


def until(what: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def state(distributor: Distributor, issue: Issue) -> IssueState:
    return distributor.ledger.issue(issue.id).state


@pytest.fixture
def start(distributor: Distributor) -> Iterator[Callable[..., Runner]]:
    """Starts a runner; it is stopped in the end."""
    started: list[Runner] = []

    def start(*, scheduled: bool = False) -> Runner:
        runner = Runner(distributor, scheduled=scheduled)
        started.append(runner)
        runner.start()
        return runner

    yield start
    for runner in started:
        runner.stop.set()
        runner.join()


def test_it_sends_retries_and_closes_an_issue_by_itself(
    distributor: Distributor, sandbox: Sandbox, start: Callable[..., Runner]
) -> None:
    sandbox.faults.add(Fault("email", "reader-1@*", "defer", times=1))
    issue = open_for(distributor, 3)
    start()
    until(lambda: state(distributor, issue) is IssueState.FINISHED)
    assert sandbox.inbox.addresses("email") == {f"reader-{n}@readers.example": 1 for n in range(3)}
    [entry] = distributor.ledger.log(issue.id, address="reader-1@readers.example")
    assert [attempt.outcome for attempt in entry.attempts] == ["pending", "sent"]
    beat = distributor.ledger.last_beat("worker")
    assert beat is not None
    assert beat < timedelta(seconds=5)


def test_when_told_to_stop_it_finishes_what_it_holds_and_gives_the_rest_back(
    distributor: Distributor, sandbox: Sandbox, start: Callable[..., Runner]
) -> None:
    sandbox.faults.add(Fault("email", "*", "slow", value=0.2))
    issue = open_for(distributor, 30)
    runner = start()
    until(lambda: sandbox.inbox.count("email") >= 2)
    began = time.monotonic()
    runner.stop.set()
    runner.join()
    assert time.monotonic() - began < 3
    tally = distributor.ledger.tallies(issue.id)["email"]
    assert (tally.sending, tally.unconfirmed) == (0, 0)
    assert tally.sent == sandbox.inbox.count("email") < 30
    sandbox.faults.clear()
    start()  # at once: no lease is left to run out
    until(lambda: state(distributor, issue) is IssueState.FINISHED, 5)
    assert sandbox.inbox.addresses("email") == {f"reader-{n}@readers.example": 1 for n in range(30)}


def test_a_bug_in_the_scheduler_does_not_end_the_sending(
    distributor: Distributor,
    start: Callable[..., Runner],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def buggy(_now: datetime) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(distributor.scheduler, "tick", buggy)
    issue = open_for(distributor, 1)
    start(scheduled=True)
    until(lambda: state(distributor, issue) is IssueState.FINISHED)
    assert "loop_failed thread=scheduler" in caplog.text


def test_a_database_that_is_away_for_a_while_is_waited_for(
    distributor: Distributor,
    start: Callable[..., Runner],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    issue = open_for(distributor, 1)
    due, away = distributor.ledger.due_channels, threading.Event()

    def due_channels() -> object:
        if not away.is_set():
            away.set()
            raise ServiceDown("the database does not answer")
        return due()

    monkeypatch.setattr(distributor.ledger, "due_channels", due_channels)
    start()
    until(lambda: state(distributor, issue) is IssueState.FINISHED)
    waiting = [record for record in caplog.records if record.message.startswith("waiting thread=")]
    assert [record.levelno for record in waiting] == [logging.WARNING]


def test_a_scheduled_one_opens_the_day_s_issue(
    distributor: Distributor, start: Callable[..., Runner], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[datetime] = []
    monkeypatch.setattr(distributor.scheduler, "tick", seen.append)
    start(scheduled=True)
    until(lambda: seen)
    assert abs(datetime.now(UTC) - seen[0]) < timedelta(seconds=10)


def test_one_process_sends_at_a_time_on_the_embedded_database(distributor: Distributor) -> None:
    with sole_sender(distributor.settings) as first, sole_sender(distributor.settings) as second:
        assert (first, second) == (True, False)
    with sole_sender(distributor.settings) as again:
        assert again
