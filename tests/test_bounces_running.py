"""From the envelope of a mail to the reader who gets no more: the runner, the workers' chore, the commands, the doctor."""

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from typing import Any

import pytest
from imap import PASSWORD, Account, serving
from services import Project

from distributor import tasks
from distributor.audience import NewSubscriber
from distributor.bootstrap import Distributor, build, prepare
from distributor.cli import main
from distributor.dispatch import drain, open_issue, write_audience
from distributor.doctor import Finding, Level, examine
from distributor.errors import MailboxDown
from distributor.model import DeliveryState, Event, EventKind, Issue, IssueState, OpenedBy, Permanence
from distributor.posts import read_post
from distributor.runner import Runner
from distributor.sandbox.server import Sandbox
from distributor.schedule import look_for_bounces
from distributor.settings import Settings

DAY = date(2026, 3, 5)
POST = "---\ntitle: 收据\ndate: 2026-03-05\n---\n\n谁收到了，谁没有收到，都写在账上。\n"
SECRETS = {"DISTRIBUTOR_BOUNCE_KEY": "k" * 32, "DISTRIBUTOR_BOUNCE_PASSWORD": PASSWORD}
BOUNCE = (
    "From: MAILER-DAEMON@mx.example.org\r\nTo: <{to}>\r\nSubject: Undelivered\r\nMIME-Version: 1.0\r\n"
    'Content-Type: multipart/report; report-type=delivery-status; boundary="B"\r\n\r\n'
    "--B\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.example.org\r\n\r\n"
    "Final-Recipient: rfc822; x@readers.example\r\nAction: failed\r\nStatus: 5.1.1\r\n"
    "Diagnostic-Code: smtp; 550 5.1.1 user unknown\r\n\r\n--B--\r\n"
)


@pytest.fixture
def account() -> Account:
    return Account()


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(None) as sandbox:
        yield sandbox


@pytest.fixture
def settings(
    project: Project, sandbox: Sandbox, account: Account, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Settings]:
    for name in [name for name in os.environ if name.startswith("DISTRIBUTOR_")]:
        monkeypatch.delenv(name)
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    project.write_post("receipts", POST)
    project.write_post("second", POST.replace("收据", "第二天").replace("-05", "-06"))
    with serving(account) as port:
        bounces = {
            "address": "bounce@bounces.example.com",
            "host": "127.0.0.1",
            "port": port,
            "security": "none",
            "username": "bounces",
            "every": "1s",
            "timeout": "2s",
        }
        yield project.settings(
            environment=SECRETS,
            engine={"sweep": "1s", "slice": 5, "chunk": 100, "lanes": 1},
            email={"rate": 40, "smtp": {"host": "127.0.0.1", "port": sandbox.smtp_port}},
            events={"bounces": bounces},
            operator={"routes": [{"kind": "email", "to": "operator@example.com"}]},
        )


@pytest.fixture
def distributor(settings: Settings) -> Iterator[Distributor]:
    distributor = build(settings)
    prepare(distributor)
    for name in ("a", "b"):
        new = NewSubscriber(channel="email", address=f"{name}@readers.example", source="test")
        distributor.audience.add("ai-daily", new)
    yield distributor
    distributor.close()


def open_with_audience(distributor: Distributor, slug: str, day: date = DAY) -> Issue:
    newsletter = distributor.settings.newsletters["ai-daily"]
    post = read_post(distributor.settings.root / f"posts/{slug}.md", newsletter.zone)
    issue, _ = open_issue(distributor.engine, newsletter, post, day, by=OpenedBy.PERSON)
    write_audience(distributor.engine, issue)
    return issue


def send(distributor: Distributor) -> Issue:
    issue = open_with_audience(distributor, "receipts")
    drain(distributor.engine, "email", seconds=20)
    return issue


def envelope_senders(sandbox: Sandbox) -> dict[str, str]:
    return {entry.address: str(entry.content["sender"]) for entry in sandbox.inbox.entries("email")}


def until(what: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def suppressed(distributor: Distributor) -> dict[str, str | None]:
    return {
        item.address.partition("@")[0]: item.suppressed for item in distributor.audience.listing("ai-daily")
    }


def test_the_runner_reads_what_came_back_to_the_envelopes_of_its_mails(
    distributor: Distributor, sandbox: Sandbox, account: Account
) -> None:
    issue = send(distributor)
    senders = envelope_senders(sandbox)
    assert all(sender.endswith("@bounces.example.com") for sender in senders.values())
    assert len(set(senders.values())) == 2
    runner = Runner(distributor)
    runner.start()
    try:
        account.put(BOUNCE.format(to=senders["b@readers.example"]).encode())
        until(lambda: suppressed(distributor)["b"])
    finally:
        runner.stop.set()
        runner.join()
    assert suppressed(distributor) == {"a": None, "b": "bounced"}
    assert [entry.state for entry in distributor.ledger.log(issue.id)] == [DeliveryState.SENT] * 2
    until(lambda: len(account.folders.get("Processed", [])) == 1)


@pytest.mark.parametrize("kind", [EventKind.BOUNCED, EventKind.COMPLAINED])
def test_who_bounces_or_complains_while_the_runner_sends_gets_nothing_more(
    distributor: Distributor, sandbox: Sandbox, kind: EventKind
) -> None:
    """Fifty readers at forty a second; the news about the last five comes with the first mail. Then the next issue."""
    for number in range(48):
        new = NewSubscriber(channel="email", address=f"reader-{number:02}@readers.example", source="test")
        distributor.audience.add("ai-daily", new)
    late = [f"reader-{number}@readers.example" for number in range(43, 48)]
    issue = open_with_audience(distributor, "receipts")
    runner = Runner(distributor, scheduled=False)
    runner.start()
    try:
        until(lambda: sandbox.inbox.addresses("email"))
        permanence = Permanence.PERMANENT if kind is EventKind.BOUNCED else None
        now = datetime.now(UTC)
        news = [
            Event(provider="ses", event_id=a, kind=kind, permanence=permanence, address=a, occurred_at=now)
            for a in late
        ]
        assert distributor.events.record(news) == 5
        until(lambda: distributor.ledger.issue(issue.id).state is IssueState.FINISHED, 60)
        skipped = distributor.ledger.log(issue.id, states=[DeliveryState.SKIPPED])
        assert [(entry.address, entry.reason) for entry in skipped] == [(a, "suppressed") for a in late]
        assert not set(sandbox.inbox.addresses("email")) & set(late)
        following = open_with_audience(distributor, "second", date(2026, 3, 6))
        until(lambda: distributor.ledger.issue(following.id).state is IssueState.FINISHED, 60)
    finally:
        runner.stop.set()
        runner.join()
    assert sum(tally.sent for tally in distributor.ledger.tallies(following.id).values()) == 45
    assert not set(sandbox.inbox.addresses("email")) & set(late)


def test_a_command_that_sends_leaves_the_mailbox_alone(distributor: Distributor, account: Account) -> None:
    """A rehearsal would take its bounces away from the real ledger."""
    runner = Runner(distributor, scheduled=False)
    assert [thread.name for thread in runner._threads if thread.name == "bounces"] == []
    assert account.commands == []


def test_a_mailbox_that_cannot_be_read_is_told_once_a_day(distributor: Distributor) -> None:
    def down() -> object:
        raise MailboxDown("the bounce mailbox imap.example.com:993: it does not answer")

    for _ in range(3):
        look_for_bounces(down, distributor.alerts)
    (notice,) = distributor.notices.listing(10)
    assert notice.subject == "the bounce mailbox cannot be read"


def test_a_worker_reads_on_a_thread_one_look_at_a_time(
    settings: Settings, sandbox: Sandbox, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = tasks.configure(settings)
    assert app.conf.beat_schedule["bounces"]["task"] == "bounces"
    distributor = tasks._distributor()
    prepare(distributor)
    distributor.audience.add(
        "ai-daily", NewSubscriber(channel="email", address="b@readers.example", source="test")
    )
    send(distributor)
    account.put(BOUNCE.format(to=envelope_senders(sandbox)["b@readers.example"]).encode())
    go_on, looks = threading.Event(), []

    def slow(collect: Callable[[], object], *_: Any) -> None:
        looks.append(threading.current_thread().name)
        go_on.wait(20)
        collect()

    monkeypatch.setattr(tasks, "look_for_bounces", slow)
    try:
        for _ in range(3):
            tasks.bounces()  # returns at once, though the mail server does not answer
        until(lambda: looks)
        assert looks == ["bounces"]
        go_on.set()
        until(lambda: suppressed(distributor) == {"b": "bounced"})
        until(lambda: not tasks._looking.locked())
    finally:
        go_on.set()
        distributor.close()
        tasks._build.cache_clear()
        app.conf.beat_schedule.pop("bounces")


def test_without_a_mailbox_no_chore_is_made(project: Project) -> None:
    settings = project.settings()
    assert "bounces" not in tasks.configure(settings).conf.beat_schedule
    distributor = build(settings)
    assert distributor.collect_bounces is None
    distributor.close()


def test_the_commands_show_what_was_heard(
    distributor: Distributor, sandbox: Sandbox, account: Account, capsys: pytest.CaptureFixture[str]
) -> None:
    issue = send(distributor)
    account.put(BOUNCE.format(to=envelope_senders(sandbox)["b@readers.example"]).encode())
    assert distributor.collect_bounces
    distributor.collect_bounces()

    def run(*words: str) -> str:
        capsys.readouterr()
        before, sys.argv = sys.argv, ["distributor", "-C", str(distributor.settings.root), *words]
        try:
            with pytest.raises(SystemExit) as ended:
                main()
        finally:
            sys.argv = before
        assert not ended.value.code
        return capsys.readouterr().out

    (found,) = json.loads(run("events", "--json"))
    assert (found["provider"], found["kind"], found["permanence"]) == ("bounces", "bounced", "permanent")
    assert json.loads(run("events", "--address", " B@readers.example", "--kind", "bounced", "--json")) == [
        found
    ]
    assert json.loads(run("events", "--address", "a@readers.example", "--json")) == []
    assert json.loads(run("events", "--issue", "99", "--json")) == []
    assert json.loads(run("events", "--before", str(found["id"]), "--json")) == []
    assert "no events match" in run("events", "--kind", "complained")
    shown = run("events", "--limit", "1")
    assert "bounced (permanent)" in shown
    assert f"{issue.id}.{found['seq']}" in shown
    assert f"--before {found['id']}" in shown
    assert "bounces says: bounced (permanent)  5.1.1 550" in run("log", str(issue.id)).replace(
        "550 5.1.1", "5.1.1 550"
    )
    (entry,) = [row for row in json.loads(run("log", str(issue.id), "--json")) if row["events"]]
    assert entry["events"][0]["kind"] == "bounced"
    assert "heard of them: 1 bounced" in run("status", str(issue.id))
    assert json.loads(run("status", str(issue.id), "--json"))["heard"] == {"bounced": 1}


# ── the doctor ───────────────────────────────────────────────────────────────────────────────────────────────────────


class NoNames:
    """A name server that knows one domain."""

    def txt(self, name: str) -> list[str]:
        return ["v=spf1 -all"] if name == "bounces.daily.internal" else []

    def hosts(self, name: str) -> list[str]:
        return ["mx.daily.internal"] if name == "bounces.daily.internal" else []


def look(settings: Settings, check: str) -> list[Finding]:
    found = examine(
        settings,
        probe_database=lambda: "SQLite",
        now=lambda: datetime.now(UTC),
        resolver=NoNames(),
        timeout=2,
    )
    return [finding for finding in found if finding.check == check]


def with_bounces(settings: Settings, **bounces: Any) -> Settings:
    table = settings.events.bounces.model_dump() | bounces
    changed = settings.events.model_copy(
        update={"bounces": type(settings.events.bounces).model_validate(table)}
    )
    return settings.model_copy(update={"events": changed})


def test_the_doctor_reads_the_mailbox(settings: Settings, account: Account) -> None:
    account.put(b"Subject: hello\r\n\r\n")
    found = look(with_bounces(settings, address="bounce@bounces.daily.internal"), "bounces")
    assert [finding.level for finding in found] == [Level.OK] * 3
    assert "1 mails wait in INBOX" in found[-1].text
    assert len(account.folders["INBOX"]) == 1


@pytest.mark.parametrize(
    ("address", "levels", "said"),
    [
        ("bounce@bounces.example.com", [Level.WARN], "reserved"),
        ("bounce@nowhere.daily.internal", [Level.FAIL, Level.WARN], "neither MX nor address"),
    ],
)
def test_the_doctor_looks_at_the_domain_of_the_envelope(
    settings: Settings, address: str, levels: list[Level], said: str
) -> None:
    found = look(with_bounces(settings, address=address), "bounces")
    assert [finding.level for finding in found[:-1]] == levels
    assert said in found[0].text


@pytest.mark.parametrize(
    ("bounces", "level", "said"),
    [
        ({"password": "guess"}, Level.FAIL, "DISTRIBUTOR_BOUNCE_PASSWORD"),
        ({"folder": "Nowhere"}, Level.FAIL, "open the folder Nowhere"),
        ({"port": 1}, Level.FAIL, "events.bounces.host"),
        ({"host": ""}, Level.WARN, "no mailbox is read"),
        ({"host": "", "address": ""}, Level.OK, "nobody reads them"),
    ],
)
def test_the_doctor_says_what_is_wrong_with_it(
    settings: Settings, bounces: dict[str, Any], level: Level, said: str
) -> None:
    finding = look(with_bounces(settings, **bounces), "bounces")[-1]
    assert (finding.level, said in f"{finding.text} {finding.fix}") == (level, True)
    assert "guess" not in finding.text


@pytest.mark.parametrize(
    ("base_url", "level", "said"),
    [
        ("https://news.example.com", Level.OK, "https://news.example.com/events/postmark"),
        ("http://news.example.com", Level.WARN, "https"),
        ("http://127.0.0.1:8025", Level.WARN, "web.base_url"),
    ],
)
def test_the_doctor_knows_where_providers_reach_us(
    project: Project, base_url: str, level: Level, said: str
) -> None:
    settings = project.settings(
        environment={"DISTRIBUTOR_POSTMARK_SECRET": "hush-hush"},
        events={"providers": ["postmark"]},
        web={"base_url": base_url},
    )
    (finding,) = look(settings, "events")
    assert (finding.level, said in f"{finding.text} {finding.fix}") == (level, True)
    assert "hush-hush" not in finding.text


def test_the_doctor_finds_a_key_that_is_none(project: Project) -> None:
    settings = project.settings(
        events={"providers": ["sendgrid"], "sendgrid": {"verification_key": "bm8ga2V5"}}
    )
    (finding,) = look(settings, "events")
    assert (finding.level, "verification_key" in finding.text) == (Level.FAIL, True)
