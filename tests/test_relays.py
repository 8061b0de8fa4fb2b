"""Several mail relays: real SMTP servers, the real channel and the engine, on both databases where they matter."""

import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fakes import BOTH, World, make_newsletter, make_world, migrated_database
from services import ROOT, Project, free_port
from sqlalchemy import select

from distributor.channels import EVERYBODY
from distributor.channels.email import EmailChannel
from distributor.channels.email.smtp import SmtpTransport
from distributor.db import Database
from distributor.dispatch import lane, sweep
from distributor.errors import ConfigError
from distributor.model import Issue, Parcel, Recipient
from distributor.sandbox.server import Sandbox
from distributor.settings import EmailSettings, Settings, load_settings
from distributor.tables import chunks, deliveries

SECOND = timedelta(seconds=1)
Table = dict[str, Any]


@pytest.fixture(autouse=True)
def _no_waiting_for_what_is_due_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "IDLE_PATIENCE", -1.0)


@pytest.fixture(scope="module", params=BOTH)
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with migrated_database(request, tmp_path_factory) as database:
        yield database


@pytest.fixture(scope="module")
def sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """For what does not depend on the database."""
    database = Database(f"sqlite:///{tmp_path_factory.mktemp('relays')}/distributor.sqlite3")
    database.upgrade()
    yield database
    database.close()


class Relays:
    """Servers by name; each can be ended, and started again on its port with what it had."""

    def __init__(self, *, pipelining: bool = True) -> None:
        self.pipelining = pipelining
        self.ports: dict[str, int] = {}
        self.arrived: dict[str, Counter[str]] = {}
        self._running: dict[str, tuple[Sandbox, ExitStack]] = {}

    def start(self, *names: str) -> None:
        for name in names:
            stack = ExitStack()
            sandbox = Sandbox(None, smtp_port=self.ports.get(name, 0), pipelining=self.pipelining)
            self._running[name] = (stack.enter_context(sandbox), stack)
            self.ports[name] = sandbox.smtp_port

    def end(self, *names: str) -> None:
        """Their connections break, new ones are refused."""
        for name in names:
            sandbox, stack = self._running.pop(name)
            self.arrived[name] = self.got(name) + sandbox.inbox.addresses("email")
            stack.close()

    def got(self, name: str) -> Counter[str]:
        """Address → mails that a relay took."""
        running = self._running.get(name)
        return self.arrived.get(name, Counter()) + (
            running[0].inbox.addresses("email") if running else Counter()
        )

    @property
    def all(self) -> Counter[str]:
        return sum((self.got(name) for name in self.ports), Counter())

    def close(self) -> None:
        self.end(*list(self._running))


@pytest.fixture
def relays() -> Iterator[Relays]:
    relays = Relays()
    yield relays
    relays.close()


class Watched(EmailChannel):
    """The e-mail channel; `before` sees every message with its relay, `opened` counts the connections asked for."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.before: Callable[[str, Parcel], None] = lambda _relay, _parcel: None
        self.opened: Counter[str] = Counter()

    def open(self, relay: str) -> SmtpTransport:
        self.opened[relay] += 1
        chosen = next(one for one in self._settings.email.all_relays if one.name == relay)
        channel = self

        class Transport(SmtpTransport):
            def start(self, parcel: Parcel, then: Parcel | None = None) -> None:
                channel.before(relay, parcel)
                super().start(parcel, then)

        return Transport(chosen)


def make_channel(*tables: Table, **email: Any) -> Watched:
    """Of `[[email.relays]]` tables; other keywords are keys of `[email]`."""
    relays = [{"helo": "tests.example", "timeout": "5s", **table} for table in tables]
    settings = EmailSettings.model_validate({"relays": relays, **email})
    return Watched(Settings(root=ROOT, email=settings))


def mail_world(
    database: Database, relays: Relays, tables: Sequence[Table], seed: int = 5, **engine: Any
) -> World:
    """A world whose relays run (those without a port of their own)."""
    relays.start(*(table["name"] for table in tables if "port" not in table))
    channel = make_channel(*({"port": relays.ports.get(table["name"]), **table} for table in tables))
    newsletter = make_newsletter(schedule={"expires": "7d"})
    world = make_world(
        database, channels=[channel], newsletter=newsletter, **{"chunk": 4, "slice": 4, **engine}
    )
    world.engine = replace(world.engine, random=random.Random(seed).random)
    return world


def channel_of(world: World) -> Watched:
    channel = world.engine.channels["email"]
    assert isinstance(channel, Watched)
    return channel


def readers(world: World, number: int, domain: str = "readers.example") -> None:
    world.subscribe(*(f"reader-{each}@{domain}" for each in range(number)))


def carried(world: World, issue: Issue) -> Counter[str | None]:
    """Relay → attempts in the ledger."""
    return Counter(attempt.relay for entry in world.log(issue).values() for attempt in entry.attempts)


def check_nothing_lost(world: World, relays: Relays, issue: Issue, number: int) -> None:
    """Everybody has one mail and one attempt, which names the relay that took it."""
    assert world.check_sum(issue).sent == number
    assert relays.all == Counter(dict.fromkeys(world.log(issue), 1))
    for address, entry in world.log(issue).items():
        (attempt,) = entry.attempts
        assert (entry.tries, attempt.outcome) == (1, "sent")
        assert relays.got(attempt.relay or "")[address] == 1


class TestWeights:
    def test_a_relay_carries_its_share(self, sqlite: Database, relays: Relays) -> None:
        world = mail_world(
            sqlite, relays, [{"name": "big", "weight": 3}, {"name": "small"}], chunk=2, slice=2, lanes=2
        )
        readers(world, 200)
        issue = world.open()
        world.drain("email")
        check_nothing_lost(world, relays, issue, 200)
        assert 0.62 < relays.got("big").total() / 200 < 0.88

    def test_a_chunk_goes_one_way(self, sqlite: Database, relays: Relays) -> None:
        world = mail_world(sqlite, relays, [{"name": "one"}, {"name": "two"}], chunk=5, slice=2)
        readers(world, 50)
        issue = world.open()
        world.drain("email")
        entries = world.ledger.log(issue.id)
        ways = [
            {entry.attempts[0].relay for entry in entries[start : start + 5]} for start in range(0, 50, 5)
        ]
        assert all(len(way) == 1 for way in ways)
        assert len(set.union(*ways)) == 2


FAR = "far.example"


class TestRoutes:
    def test_a_domain_has_its_relay_and_chunks_of_its_own(self, database: Database, relays: Relays) -> None:
        world = mail_world(database, relays, [{"name": "main"}, {"name": "far", "domains": [FAR]}])
        for number in range(6):
            world.subscribe(f"a{number}@readers.example", f"b{number}@{FAR}")
        issue = world.open()
        world.drain("email")
        check_nothing_lost(world, relays, issue, 12)
        assert {address.partition("@")[2] for address in relays.got("far")} == {FAR}
        assert {address.partition("@")[2] for address in relays.got("main")} == {"readers.example"}
        groups = self.groups(world)
        assert set(groups) == {EVERYBODY, "via:far"}
        assert groups["via:far"] == {FAR}

    def groups(self, world: World) -> Mapping[str, set[str]]:
        """Pace group → recipient domains in its chunks."""
        found: dict[str, set[str]] = {}
        query = select(chunks.c.pace_group, deliveries.c.address).where(
            deliveries.c.issue_id == chunks.c.issue_id, deliveries.c.seq.between(chunks.c.lo, chunks.c.hi)
        )
        with world.database.read() as connection:
            for group, address in connection.execute(query):
                found.setdefault(group, set()).add(address.partition("@")[2])
        return found

    def test_two_may_share_a_domain(self, sqlite: Database, relays: Relays) -> None:
        tables: list[Table] = [
            {"name": "main"},
            {"name": "far-a", "domains": [FAR]},
            {"name": "far-b", "domains": [FAR, "farther.example"]},
        ]
        world = mail_world(sqlite, relays, tables, chunk=1, slice=1)
        readers(world, 20, FAR)
        readers(world, 5, "farther.example")
        issue = world.open()
        world.drain("email")
        check_nothing_lost(world, relays, issue, 25)
        assert relays.got("main").total() == 0
        assert {address.partition("@")[2] for address in relays.got("far-a")} == {FAR}
        assert relays.got("far-b").total() > 5

    def test_its_stop_holds_nobody_else_and_it_is_not_hammered(
        self, sqlite: Database, relays: Relays
    ) -> None:
        tables: list[Table] = [{"name": "main"}, {"name": "far", "domains": [FAR], "port": free_port()}]
        world = mail_world(sqlite, relays, tables)
        readers(world, 6, FAR)
        readers(world, 6)
        issue = world.open()
        world.drain("email", seconds=2)
        assert relays.got("main").total() == 6
        assert channel_of(world).opened["far"] == 1
        tally = world.check_sum(issue)
        assert (tally.sent, tally.pending) == (6, 6)
        assert carried(world, issue) == {"main": 6}
        assert set(world.ledger.stopped_channels()) == {"email/far"}

    def test_the_others_relay_may_be_the_one_that_is_down(self, sqlite: Database, relays: Relays) -> None:
        tables: list[Table] = [{"name": "main", "port": free_port()}, {"name": "far", "domains": [FAR]}]
        world = mail_world(sqlite, relays, tables)
        readers(world, 6, FAR)
        readers(world, 6)
        issue = world.open()
        world.drain("email", seconds=2)
        assert relays.got("far").total() == 6
        assert channel_of(world).opened["main"] == 1
        assert world.check_sum(issue).pending == 6


#: Any relays and groups → those of a domain must share a relay and a limit if they share a pace group.
PLANS: Mapping[str, tuple[Sequence[Table], Sequence[Table]]] = {
    "a relay called like a group": (
        [{"name": "main"}, {"name": "qq", "domains": [FAR]}],
        [{"name": "qq", "domains": ["qq.com"]}],
    ),
    "a relay called like everybody": ([{"name": "main"}, {"name": EVERYBODY, "domains": [FAR]}], []),
    "a group called like everybody": ([{"name": "main"}], [{"name": EVERYBODY, "domains": ["qq.com"]}]),
    "a group and a relay": (
        [{"name": "main"}, {"name": "cn", "domains": ["qq.com"]}],
        [{"name": "qq", "domains": ["qq.com", "foxmail.com"], "rate": 5}],
    ),
    "two relays": (
        [{"name": "main"}, {"name": "a", "domains": [FAR, "qq.com"]}, {"name": "b", "domains": ["qq.com"]}],
        [],
    ),
}


@pytest.mark.parametrize("plan", PLANS)
def test_who_shares_a_pace_group_shares_relays_and_limits(plan: str) -> None:
    """A name that would mix groups up may also be refused by the settings."""
    relays, groups = PLANS[plan]
    try:
        channel = make_channel(*relays, domains=groups)
    except ValueError:
        return  # as good
    seen: dict[str, tuple[Any, Any]] = {}
    for domain in (FAR, "qq.com", "foxmail.com", "readers.example"):
        recipient = Recipient(channel="email", address=f"a@{domain}")
        routed = [relay.name for relay in channel.relays if domain in relay.domains]
        ways = routed or [relay.name for relay in channel.relays if not relay.domains]
        mine = (ways, [limit.key for limit in channel.limits(recipient, ways[0])])
        assert seen.setdefault(channel.pace_group(recipient), mine) == mine
    assert EVERYBODY not in channel.pace_groups()


def noon(world: World) -> None:
    """Sets the database's clock to the next noon, so that no day ends during a test."""
    now = datetime.now(UTC)
    world.clock.forward(
        now.replace(hour=12, minute=0, second=0, microsecond=0) + timedelta(days=1) - world.clock()
    )


def drain_twice_at_once(world: World) -> None:
    drains = [threading.Thread(target=world.drain, args=("email",)) for _ in range(2)]
    for each in drains:
        each.start()
    for each in drains:
        each.join()


class TestDailyCap:
    def test_it_is_exact_and_new_the_next_day(self, database: Database, relays: Relays) -> None:
        world = mail_world(database, relays, [{"name": "capped", "daily_cap": 10}])
        noon(world)
        readers(world, 25)
        issue = world.open()
        for total in (10, 20, 25):
            drain_twice_at_once(world)
            world.drain("email")
            assert relays.all.total() == total
            assert world.ledger.due_channels() == {}
            assert world.check_sum(issue).pending == 25 - total
            world.clock.forward(timedelta(days=1))
        check_nothing_lost(world, relays, issue, 25)

    def test_the_others_carry_the_rest(self, database: Database, relays: Relays) -> None:
        world = mail_world(
            database, relays, [{"name": "capped", "daily_cap": 10, "weight": 1000}, {"name": "free"}]
        )
        noon(world)
        readers(world, 30)
        issue = world.open()
        drain_twice_at_once(world)
        check_nothing_lost(world, relays, issue, 30)
        assert relays.got("capped").total() == 10

    def test_a_raised_cap_is_seen_within_minutes(self, sqlite: Database, relays: Relays) -> None:
        world = mail_world(sqlite, relays, [{"name": "capped", "daily_cap": 2}])
        noon(world)
        readers(world, 6)
        issue = world.open()
        world.drain("email")
        raised = make_channel({"name": "capped", "daily_cap": 4, "port": relays.ports["capped"]})
        world.engine = replace(world.engine, channels={"email": raised})
        world.drain("email")
        assert relays.all.total() == 2
        world.clock.forward(timedelta(minutes=10))
        world.drain("email")
        assert relays.all.total() == 4
        assert world.check_sum(issue).pending == 2

    def test_who_is_not_sent_to_uses_none_of_it(self, sqlite: Database, relays: Relays) -> None:
        world = mail_world(sqlite, relays, [{"name": "capped", "daily_cap": 3}])
        noon(world)
        world.subscribe("ann", *(f"{name}@slow.example" for name in "xyz"), "bob", "cy")
        issue = world.open()
        world.engine.pacer.block("email:domain:slow.example", 60)
        world.drain("email")
        assert {name for name, state in world.states(issue).items() if state == "sent"} == {
            "ann",
            "bob",
            "cy",
        }


class TestDown:
    def test_one_that_dies_in_the_middle(self, database: Database, relays: Relays) -> None:
        world = mail_world(database, relays, [{"name": "one"}, {"name": "two"}, {"name": "three"}], lanes=2)
        readers(world, 60)
        issue = world.open()
        dying = threading.Lock()

        def die(relay: str, _parcel: Parcel) -> None:
            if relay == "one" and relays.got("one").total() > 4 and dying.acquire(blocking=False):
                relays.end("one")

        channel_of(world).before = die
        world.drain("email")
        check = world.check_sum(issue)
        assert relays.got("one").total() < 20
        assert check.failed == check.pending == 0
        assert max(relays.all.values()) == 1
        # The other lane may have had a message under way when its connection broke.
        assert check.unconfirmed <= 1
        assert check.sent + check.unconfirmed == 60
        assert set(world.ledger.stopped_channels()) == {"email/one"}

    def test_no_reader_pays_for_it_with_a_try_and_it_is_used_again(
        self, database: Database, relays: Relays
    ) -> None:
        relays.pipelining = (
            False  # else the envelope of the next message is answered already, and its body leaves
        )
        world = mail_world(database, relays, [{"name": "one"}, {"name": "two"}])
        readers(world, 40)
        issue = world.open()

        def die(relay: str, _parcel: Parcel) -> None:
            if relay == "one" and relays.got("one").total() == 5:
                relays.end("one")
                relays.arrived["one"]["dead"] = 1  # only once

        channel_of(world).before = die
        world.drain("email")
        del relays.arrived["one"]["dead"]
        check_nothing_lost(world, relays, issue, 40)
        assert relays.got("one").total() == 5
        stop = world.ledger.stopped_channels()["email/one"]
        assert timedelta(0) < stop.until - world.clock() <= 5 * SECOND
        assert f":{relays.ports['one']}" in stop.reason
        relays.start("one")
        channel_of(world).before = lambda _relay, _parcel: None
        world.clock.forward(timedelta(days=1))
        later = world.open(issue.local_date + timedelta(days=1), "second")
        world.drain("email")
        assert world.check_sum(later).sent == 40
        assert carried(world, later)["one"] > 5
        assert world.ledger.stopped_channels() == {}

    def test_a_stopped_one_is_not_asked_before_its_time(self, sqlite: Database, relays: Relays) -> None:
        world = mail_world(sqlite, relays, [{"name": "one", "port": free_port()}, {"name": "two"}], chunk=1)
        readers(world, 30)
        issue = world.open()
        world.drain("email")
        assert channel_of(world).opened["one"] == 1
        check_nothing_lost(world, relays, issue, 30)

    def test_all_of_them(self, database: Database, relays: Relays) -> None:
        world = mail_world(database, relays, [{"name": "one"}, {"name": "two"}], lanes=2)
        readers(world, 12)
        issue = world.open()
        relays.end("one", "two")
        began = time.monotonic()
        for _round in range(3):
            assert world.drain("email") == 0
            sweep(world.engine)
        assert time.monotonic() - began < 5
        assert set(world.ledger.stopped_channels()) == {"email/one", "email/two"}
        assert all(number <= 2 for number in channel_of(world).opened.values())
        assert carried(world, issue) == {}
        assert world.ledger.due_channels() == {}, "nobody is woken for nothing"
        relays.start("one", "two")
        world.clock.forward(6 * SECOND)
        world.drain("email")
        check_nothing_lost(world, relays, issue, 12)
        assert set(world.ledger.stopped_channels()) <= {"email/one", "email/two"}

    def test_one_that_refuses_the_login(self, sqlite: Database, relays: Relays) -> None:
        login = {"username": "daily", "password": "not-it-4711"}
        world = mail_world(sqlite, relays, [{"name": "one", "weight": 1000, **login}, {"name": "two"}])
        readers(world, 20)
        issue = world.open()
        world.drain("email")
        check_nothing_lost(world, relays, issue, 20)
        assert carried(world, issue) == {"two": 20}
        reason = world.ledger.stopped_channels()["email/one"].reason
        assert "the login was refused" in reason
        assert "4711" not in reason
        assert "DISTRIBUTOR_RELAY_ONE_PASSWORD" in reason, (
            "the variable that this relay's password comes from"
        )

    def test_one_that_hangs_up_on_everybody_is_left_alone(self, sqlite: Database, relays: Relays) -> None:
        with hanging_up() as (port, connections):
            tables: list[Table] = [{"name": "one", "weight": 1000, "port": port}, {"name": "two"}]
            world = mail_world(sqlite, relays, tables)
            readers(world, 20)
            issue = world.open()
            world.drain("email")
            check_nothing_lost(world, relays, issue, 20)
            assert len(connections) == 1


@contextmanager
def hanging_up() -> Iterator[tuple[int, Sequence[Any]]]:
    """(port, the connections it got): a server that hangs up at once."""
    connections: list[Any] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, peer = server.accept()
                except OSError:
                    return
                connections.append(peer)
                connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1], connections
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


class TestPace:
    def test_each_has_its_own_and_a_slow_one_holds_nobody_else(
        self, sqlite: Database, relays: Relays
    ) -> None:
        tables: list[Table] = [{"name": "slow", "rate": 10}, {"name": "fast", "domains": [FAR]}]
        world = mail_world(sqlite, relays, tables, chunk=10, slice=10, lanes=2)
        readers(world, 60)
        readers(world, 40, FAR)
        issue = world.open()
        world.drain("email", seconds=4)
        assert world.check_sum(issue).sent == relays.all.total()
        assert 10 <= relays.got("slow").total() <= 60
        assert relays.got("fast").total() == 40, "more slow chunks than lanes: they must take turns"


def write_config(project: Project, email: str) -> None:
    project.settings()
    (project.root / "config/distributor.toml").write_text(email, "utf-8")


def mistakes(project: Project, text: str, environment: Mapping[str, str] | None = None) -> Sequence[str]:
    write_config(project, text)
    with pytest.raises(ConfigError) as raised:
        load_settings(project.root, environment or {})
    return [line.removeprefix(f"{project.root}/config/distributor.toml") for line in raised.value.mistakes]


TWO = '[[email.relays]]\nname = "relay-a"\n[[email.relays]]\nname = "relay-b"\n'


class TestSettings:
    @pytest.mark.parametrize(
        ("text", "mistake"),
        [
            (TWO.replace("relay-b", "relay-a"), ": email: email.relays: a name stands there twice: relay-a"),
            (
                '[[email.relays]]\nname = "a"\ndomains = ["far.example"]',
                "email.relays: one of them must carry everybody else: leave its `domains` out",
            ),
            (
                f'{TWO}password = "opensesame"',
                ":5: email.relays.password: a secret must not stand in a file; set DISTRIBUTOR_RELAY_RELAY_B_PASSWORD",
            ),
            (f"{TWO}weight = 0", ":5: email.relays.1.weight: "),
            (f"{TWO}daily_cap = -1", ":5: email.relays.1.daily_cap: "),
            (f"{TWO}wieght = 2", ":5: email.relays.1.wieght: unknown key"),
            (TWO.replace("relay-b", "Relay B"), ":4: email.relays.1.name: "),
            ("[[email.relays]]\nweight = 2", "email.relays.0.name: missing"),
        ],
    )
    def test_a_mistake_is_told_with_its_place(self, project: Project, text: str, mistake: str) -> None:
        (found,) = mistakes(project, text)
        assert mistake in found
        assert "opensesame" not in found

    @pytest.mark.parametrize("table", ["relays", "domains"])
    def test_a_domain_is_one_however_it_is_written(self, project: Project, table: str) -> None:
        """Addresses are kept in lower case; a route in capitals would never be taken."""
        rest = TWO if table == "relays" else ""
        write_config(project, f'{rest}[[email.{table}]]\nname = "far"\ndomains = ["Far.Example"]\n')
        email = load_settings(project.root, {}).email
        channel = EmailChannel(Settings(root=project.root, email=email))
        group = channel.pace_group(Recipient(channel="email", address="a@far.example"))
        assert group != EVERYBODY

    def test_passwords_come_from_the_environment_each_to_its_own(
        self, project: Project, tmp_path: Path
    ) -> None:
        secret = tmp_path / "secret"
        secret.write_text("second-4712\n")
        write_config(project, TWO)
        environment = {
            "DISTRIBUTOR_RELAY_RELAY_A_PASSWORD": "first-4711",
            "DISTRIBUTOR_RELAY_RELAY_B_PASSWORD_FILE": str(secret),
            "DISTRIBUTOR_SMTP_PASSWORD": "of-another-server",
        }
        first, second = load_settings(project.root, environment).email.all_relays
        assert first.password.get_secret_value() == "first-4711"
        assert second.password.get_secret_value() == "second-4712"
        assert "4711" not in repr(first)

    def test_without_relays_there_is_the_one_of_smtp(self, project: Project) -> None:
        write_config(project, '[email.smtp]\nhost = "mail.example"\nport = 587\n')
        email = load_settings(project.root, {"DISTRIBUTOR_SMTP_PASSWORD": "4711"}).email
        (relay,) = email.all_relays
        assert (relay.name, relay.host, relay.port) == ("smtp", "mail.example", 587)
        assert relay.password.get_secret_value() == "4711"
        (way,) = EmailChannel(Settings(root=project.root, email=email)).relays
        assert (way.name, way.weight, way.daily_cap, way.domains) == ("smtp", 1, 0, frozenset())
