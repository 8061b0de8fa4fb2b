"""A channel that answers by script, a clock that can be moved, and a small world to send in."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from services import fresh_database
from sqlalchemy import text

from distributor.audience import Audience, NewSubscriber, active
from distributor.channels import EVERYBODY, Channel
from distributor.db import Database
from distributor.dispatch import Engine, Policy, drain, open_issue, takes_subscribers, write_audience
from distributor.errors import SendError
from distributor.journal import Journals
from distributor.ledger import Ledger, LogEntry
from distributor.model import (
    DeliveryState,
    Issue,
    Message,
    OpenedBy,
    Outcome,
    Parcel,
    Post,
    Receipt,
    Recipient,
    Relay,
    Tally,
)
from distributor.pacing import Limit, MemoryPacer
from distributor.settings import EngineSettings, Newsletter, Retry
from distributor.tables import installation, metadata

DAY = date(2026, 3, 2)
LEASE = timedelta(seconds=60)

Answer = Receipt | SendError | Callable[[Parcel], Receipt]


class Clock:
    """The database's clock: real time, moved forward by the test."""

    def __init__(self) -> None:
        self.offset = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.offset

    def forward(self, by: timedelta) -> None:
        self.offset += by


@dataclass
class FakeChannel:
    """Accepts everything, except what `script` says: address → its next answers, in order."""

    name: str = "email"
    overlaps: bool = False
    parts: int = 1
    fixed: Sequence[Recipient] = ()
    ways_out: Sequence[Relay] = (Relay(name="fake"),)
    pace: Sequence[Limit] = ()
    groups: Sequence[str] = ()
    script: dict[str, list[Answer]] = field(default_factory=dict)
    troubles: list[Exception] = field(default_factory=list)
    before: Callable[[Parcel], None] = lambda _parcel: None
    calls: list[Parcel] = field(default_factory=list)
    accepted: list[Parcel] = field(default_factory=list)
    announced: list[Parcel | None] = field(default_factory=list)
    opened: int = 0

    def render(self, post: Post, newsletter: Newsletter) -> Sequence[Message]:
        return [
            Message(
                channel=self.name,
                variant="default",
                content={"text": f"{newsletter.title}: {post.title} {part}/{self.parts}"},
                part=part,
                parts=self.parts,
            )
            for part in range(1, self.parts + 1)
        ]

    def destinations(self, _newsletter: Newsletter, /) -> Sequence[Recipient]:
        return self.fixed

    @property
    def relays(self) -> Sequence[Relay]:
        return self.ways_out

    def pace_groups(self) -> Mapping[str, Collection[str]]:
        return {name: [name] for name in self.groups}

    def pace_group(self, recipient: Recipient) -> str:
        domain = recipient.address.rpartition("@")[2]
        return domain if domain in self.groups else EVERYBODY

    def domain_key(self, recipient: Recipient) -> str:
        _name, at, domain = recipient.address.rpartition("@")
        return f"{self.name}:domain:{domain}" if at and domain not in self.groups else ""

    def limits(self, recipient: Recipient, relay: str) -> Sequence[Limit]:
        group = self.pace_group(recipient)
        own = [Limit(f"{self.name}:{group}")] if group != EVERYBODY else []
        return [*(self.pace or [Limit(f"{self.name}/{relay}")]), *own]

    @contextmanager
    def open(self, _relay: str, /) -> Iterator["FakeChannel"]:
        """The channel is its own transport. Raises the next of `troubles`."""
        self.opened += 1
        if self.troubles:
            raise self.troubles.pop(0)
        yield self

    def send(self, parcel: Parcel, then: Parcel | None = None) -> Receipt:
        self.before(parcel)
        self.calls.append(parcel)
        self.announced.append(then)
        answers = self.script.get(parcel.recipient.address, [])
        answer = answers.pop(0) if answers else Receipt(provider_id=f"id-{len(self.calls)}", code="250")
        if isinstance(answer, SendError):
            raise answer
        receipt = answer if isinstance(answer, Receipt) else answer(parcel)
        self.accepted.append(parcel)
        return receipt

    @property
    def reached(self) -> Sequence[str]:
        """Addresses in the order they were sent to, one entry an accepted part."""
        return [parcel.recipient.address for parcel in self.accepted]


def make_newsletter(channels: Mapping[str, Any] | None = None, **tables: Any) -> Newsletter:
    """The newsletter `daily`; without `channels` it has e-mail alone."""
    return Newsletter.model_validate(
        {
            "slug": "daily",
            "title": "Morning Paper",
            "sender": {"name": "Morning Paper", "address": "paper@news.example.com"},
            "channels": {"email": {}} if channels is None else channels,
            **tables,
        }
    )


def make_post(slug: str = "first", title: str = "A calm morning") -> Post:
    return Post(slug=slug, title=title, date=None, body="Nothing happened, twice.", path=Path(f"{slug}.md"))


@dataclass
class World:
    """One newsletter, its readers, and the engine that sends it; the database's clock can be moved."""

    database: Database
    clock: Clock
    engine: Engine
    newsletter: Newsletter

    @property
    def ledger(self) -> Ledger:
        return self.engine.ledger

    @property
    def audience(self) -> Audience:
        return self.engine.audience

    @property
    def channel(self) -> FakeChannel:
        """The newsletter's first channel."""
        found = self.engine.channels[self.newsletter.channels[0]]
        assert isinstance(found, FakeChannel)
        return found

    def subscribe(self, *names: str, channel: str = "email") -> None:
        """Readers; a name without @ lives at readers.example."""
        for name in names:
            new = NewSubscriber(channel=channel, address=self.address(name, channel), source="test")
            self.audience.add("daily", new)

    def address(self, name: str, channel: str = "email") -> str:
        return name if "@" in name or channel != "email" else f"{name}@readers.example"

    def token(self, name: str, channel: str = "email") -> str:
        address = self.address(name, channel)
        return next(item.token for item in self.audience.listing("daily") if item.address == address)

    def leave(self, name: str, channel: str = "email") -> None:
        self.audience.unsubscribe(self.token(name, channel), "link")

    def open(self, day: date = DAY, slug: str = "first", **options: Any) -> Issue:
        """Opens an issue and writes its audience down."""
        issue, _ = open_issue(
            self.engine, self.newsletter, make_post(slug), day, by=OpenedBy.PERSON, **options
        )
        assert write_audience(self.engine, issue)
        return self.ledger.issue(issue.id)

    def frozen_only(self, **options: Any) -> tuple[Issue, str, datetime]:
        """(issue, the token of its writer, the frozen moment): before the first window is written."""
        issue, _ = open_issue(self.engine, self.newsletter, make_post(), DAY, by=OpenedBy.PERSON, **options)
        token = self.ledger.take_opening(issue.id, LEASE)
        assert token is not None
        moment = self.ledger.freeze(issue.id)
        subscribed = [name for name in self.newsletter.channels if takes_subscribers(self.newsletter, name)]
        self.ledger.plan(
            issue.id,
            {name: active("daily", name, moment) for name in subscribed},
            dict.fromkeys(self.newsletter.channels, 0),
            token=token,
            lease=LEASE,
        )
        return issue, token, moment

    def keep_journals(self, folder: Path) -> Journals:
        """From now on lanes keep journals there."""
        journals = Journals(folder)
        self.engine = replace(self.engine, journals=journals)
        return journals

    def recover(self, *, again: bool = False) -> int:
        """Takes back what ran out, without journals; returns how many chunks."""
        lapsed = self.ledger.lapsed(None, (), timedelta(0))
        for lease in lapsed:
            self.ledger.recover(lease, None, resend=again)
        return len(lapsed)

    def drain(self, channel: str | None = None, **options: Any) -> int:
        return drain(self.engine, channel or self.channel.name, **{"seconds": 10.0, **options})

    def log(self, issue: Issue) -> Mapping[str, LogEntry]:
        """Address → its delivery with its attempts."""
        return {entry.address: entry for entry in self.ledger.log(issue.id, limit=1000)}

    def states(self, issue: Issue) -> Mapping[str, str]:
        """Name → state, with the reason of what was skipped."""
        return {
            address.removesuffix("@readers.example"): f"{entry.state}({entry.reason})"
            if entry.reason
            else str(entry.state)
            for address, entry in self.log(issue).items()
        }

    def check_sum(self, issue: Issue) -> Tally:
        """Asserts that nothing is lost, and that the counters are what the rows say."""
        tallies = self.ledger.tallies(issue.id)
        assert tallies == self.ledger.audit(issue.id)
        total = sum(tallies.values(), Tally())
        assert total.balanced, total
        return total


BOTH = ("sqlite", pytest.param("postgresql", marks=pytest.mark.services))


@contextmanager
def migrated_database(request: pytest.FixtureRequest, folders: pytest.TempPathFactory) -> Iterator[Database]:
    """A database with our tables, of the kind that `request.param` names.

    For many tests in turn: making the tables, and compiling the statements anew, would take most of their time.
    """
    with ExitStack() as stack:
        if request.param == "sqlite":
            url = f"sqlite:///{folders.mktemp('sqlite')}/distributor.sqlite3"
        else:
            url = stack.enter_context(fresh_database(request.getfixturevalue("postgres_server")))
        database = Database(url)
        stack.callback(database.close)
        database.upgrade()
        yield database


def empty(database: Database) -> None:
    """Deletes all rows but the installation's key; keys count from 1 again."""
    tables = [table for table in metadata.sorted_tables if table is not installation]
    with database.write() as connection:
        if not database.sqlite:
            names = ", ".join(table.name for table in tables)
            connection.execute(text(f"TRUNCATE {names} RESTART IDENTITY"))
            return
        for table in reversed(tables):
            connection.execute(table.delete())


#: Retries at once (a second is the shortest wait), three tries.
QUICK = Retry(tries=3, first=timedelta(seconds=1), longest=timedelta(seconds=1))


def make_engine(
    database: Database,
    *,
    channels: Sequence[Channel] = (),
    newsletter: Newsletter | None = None,
    policy: Policy | None = None,
    **settings: Any,
) -> Engine:
    """An engine on a migrated database; `settings` are keys of EngineSettings."""
    known = {channel.name: channel for channel in channels or (FakeChannel(),)}
    newsletter = newsletter or make_newsletter({name: {} for name in known})
    return Engine(
        ledger=Ledger(database),
        audience=Audience(database),
        channels=known,
        policies=dict.fromkeys(known, policy or Policy(retry=QUICK)),
        newsletters={newsletter.slug: newsletter},
        pacer=MemoryPacer(),
        settings=EngineSettings.model_validate(
            {"chunk": 3, "slice": 2, "lanes": 1, "connections": 1, **settings}
        ),
        base_url="http://news.example",
        worker="worker:1",
        random=lambda: 0.0,
    )


def make_world(database: Database, **engine: Any) -> World:
    """A world on a migrated database, which is emptied first; the keywords are those of `make_engine`."""
    clock = Clock()
    empty(database)
    database._clock = clock
    made = make_engine(database, **engine)
    (newsletter,) = made.newsletters.values()
    return World(database, clock, made, newsletter)


def outcome_of(delivery: Any, state: DeliveryState = DeliveryState.SENT, **details: Any) -> Outcome:
    """An outcome as a worker would report it."""
    parts = {"parts_sent": 1} if state is DeliveryState.SENT else {"parts_sent": delivery.parts_sent}
    return Outcome(
        delivery=delivery,
        state=state,
        started_at=datetime.now(UTC),
        duration_ms=1,
        **{**parts, **details},
    )
