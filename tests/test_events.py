"""What an event does, on both databases: once, whatever comes twice, in another order, or from two processes at once."""

import itertools
import random
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fakes import BOTH, DAY, World, make_world, migrated_database
from sqlalchemy import select

from distributor.audience import Given, ImportOrder, Line, NewSubscriber, fingerprint
from distributor.db import Database
from distributor.dispatch import forget, sweep
from distributor.errors import RequestRefused, Unavailable, Unconfirmed
from distributor.events import Events
from distributor.events.counting import Mail, Standing, gives_up
from distributor.model import (
    LETTER_MARK,
    DeliveryId,
    Event,
    EventKind,
    Issue,
    Letter,
    Parcel,
    Permanence,
    Receipt,
    SuppressionReason,
)
from distributor.schedule import report
from distributor.tables import consents, letters, subscribers, subscriptions, suppressions
from distributor.tables import events as rows

K, P, S = EventKind, Permanence, SuppressionReason
READER = "a@readers.example"
START = datetime(2026, 3, 2, 8, tzinfo=UTC)
number = itertools.count()


@pytest.fixture(scope="module", params=BOTH)
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with migrated_database(request, tmp_path_factory) as database:
        yield database


@pytest.fixture
def world(database: Database) -> World:
    world = make_world(database)
    world.subscribe("a", "b", "c")
    return world


@pytest.fixture
def heard(world: World) -> Events:
    return Events(world.database, world.ledger, world.audience)


def event(kind: EventKind, permanence: Permanence | None = None, day: float = 0, **more: Any) -> Event:
    values: dict[str, Any] = {
        "provider": "ses",
        "event_id": f"event-{next(number)}",
        "kind": kind,
        "permanence": permanence,
        "address": READER,
        "occurred_at": START + timedelta(days=day),
        "detail": "550 5.1.1 no such user",
        **more,
    }
    return Event(**values)


def temporary(day: float = 0, **more: Any) -> Event:
    return event(K.BOUNCED, P.TEMPORARY, day, **more)


def delivered(day: float = 0, **more: Any) -> Event:
    return event(K.DELIVERED, None, day, **more)


def message_id(identity: DeliveryId) -> str:
    return f"<{identity}.{'0' * 24}@news.example.com>"


def of(issue: Issue, seq: int, resend: int = 0) -> dict[str, Any]:
    return {"message_id": message_id(DeliveryId(issue.id, seq, resend))}


def suppressed(world: World) -> dict[str, str]:
    with world.database.read() as connection:
        found = connection.execute(select(suppressions.c.address, suppressions.c.reason))
        return {address.partition("@")[0]: reason for address, reason in found}


def subscribed(world: World) -> dict[str, str]:
    return {item.address.partition("@")[0]: str(item.state) for item in world.audience.listing("daily")}


def state(world: World) -> tuple[object, ...]:
    """Everything that an event may change."""
    with world.database.read() as connection:
        columns = (
            rows.c.provider,
            rows.c.provider_event_id,
            rows.c.kind,
            rows.c.issue_id,
            rows.c.seq,
            rows.c.address,
        )
        told = sorted(tuple(row) for row in connection.execute(select(*columns)))
        ended = sorted(
            map(
                tuple,
                connection.execute(
                    select(subscriptions.c.id, subscriptions.c.state, subscriptions.c.end_reason)
                ),
            )
        )
    issues = [
        [(entry.state, entry.seq) for entry in world.ledger.log(issue.id)] for issue in world.ledger.issues()
    ]
    return suppressed(world), subscribed(world), told, ended, issues


# ── effects ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("told", "reason", "subscription"),
    [
        (event(K.BOUNCED, P.PERMANENT), "bounced", "active"),
        (event(K.BOUNCED, P.TEMPORARY), None, "active"),
        (event(K.BOUNCED, P.POLICY), None, "active"),
        (event(K.DEFERRED, P.TEMPORARY), None, "active"),
        (event(K.DEFERRED, P.POLICY), None, "active"),
        (event(K.COMPLAINED), "complained", "unsubscribed"),
        (event(K.UNSUBSCRIBED, occurred_at=datetime.now(UTC) + timedelta(days=1)), None, "unsubscribed"),
        (event(K.UNSUBSCRIBED), None, "active"),  # it happened before the subscription began
        (event(K.REJECTED, mirrors=S.BOUNCED), "bounced", "active"),
        (event(K.REJECTED, mirrors=S.COMPLAINED), "complained", "unsubscribed"),
        (event(K.REJECTED, P.POLICY), None, "active"),
        (event(K.FAILED), None, "active"),
        (event(K.DELIVERED), None, "active"),
        (event(K.SUBSCRIBED), None, "active"),
        (event(K.UNKNOWN), None, "active"),
    ],
    ids=lambda value: (
        value.kind + (f"-{value.permanence or value.mirrors or ''}") if isinstance(value, Event) else ""
    ),
)
def test_what_one_event_does(
    world: World, heard: Events, told: Event, reason: str | None, subscription: str
) -> None:
    assert heard.record([told]) == 1
    assert suppressed(world) == ({"a": reason} if reason else {})
    assert subscribed(world) == {"a": subscription, "b": "active", "c": "active"}
    before = state(world)
    assert heard.record([told]) == 0
    assert state(world) == before


@pytest.mark.parametrize("kind", [K.QUEUED, K.SENT, K.OPENED, K.CLICKED])
def test_what_readers_do_with_a_mail_is_not_kept(world: World, heard: Events, kind: EventKind) -> None:
    assert heard.record([event(kind)]) == 0
    assert world.ledger.events() == []


def test_an_address_is_known_in_any_spelling(world: World, heard: Events) -> None:
    heard.record([event(K.BOUNCED, P.PERMANENT, address="A@Readers.EXAMPLE")])
    assert suppressed(world) == {"a": "bounced"}


def test_a_complaint_leaves_the_evidence_that_consent_ended(world: World, heard: Events) -> None:
    heard.record([event(K.COMPLAINED)])
    with world.database.read() as connection:
        found = connection.execute(select(consents.c.kind, consents.c.source)).all()
    assert [tuple(row) for row in found] == [("withdrawn", "complained, says ses")]


def test_who_left_by_a_mail_of_the_system_before_gets_no_first_mail_here(world: World, heard: Events) -> None:
    """They moved here today, and begin tomorrow: the system before had mailed them already."""
    tomorrow = world.clock() + timedelta(days=1)
    line = Line(2, "moved@readers.example", consent_at=START)
    world.audience.import_lines(ImportOrder(newsletter="daily", begins_at=tomorrow), [Given([line])])
    heard.record([event(K.UNSUBSCRIBED, address="moved@readers.example", day=1)])
    assert subscribed(world)["moved"] == "unsubscribed"


def test_who_left_one_newsletter_stays_with_the_others(world: World, heard: Events) -> None:
    other = world.newsletter.model_copy(update={"slug": "weekly"})
    world.audience.add("weekly", world_subscriber())
    assert other.slug == "weekly"
    issue = world.open()
    world.drain()
    later: dict[str, Any] = {"occurred_at": datetime.now(UTC) + timedelta(days=1)}
    heard.record([event(K.UNSUBSCRIBED, **later, **of(issue, 1))])
    assert [item.state for item in world.audience.listing("weekly")] == ["active"]
    assert subscribed(world)["a"] == "unsubscribed"
    heard.record([event(K.UNSUBSCRIBED, **later)])  # of which newsletter is not known
    assert [item.state for item in world.audience.listing("weekly")] == ["unsubscribed"]


def world_subscriber() -> Any:
    return NewSubscriber(channel="email", address=READER, source="test")


def test_a_stronger_reason_replaces_a_weaker_one(world: World, heard: Events) -> None:
    heard.record([temporary(day) for day in range(3)])
    assert suppressed(world) == {"a": "undeliverable"}
    heard.record([event(K.BOUNCED, P.PERMANENT)])
    assert suppressed(world) == {"a": "bounced"}
    heard.record([event(K.COMPLAINED), event(K.BOUNCED, P.PERMANENT)])
    assert suppressed(world) == {"a": "complained"}
    with pytest.raises(RequestRefused, match="final"):
        world.audience.unsuppress("email", READER)


def test_somebody_who_was_erased_is_not_written_down_again(world: World, heard: Events) -> None:
    with world.database.read() as connection:
        gone = fingerprint(world.audience.key(connection), "email", READER)
    world.audience.suppress("email", gone, S.ERASED)
    assert heard.record([event(K.COMPLAINED), delivered()]) == 0
    assert world.ledger.events() == []


def test_nor_by_a_bounce_of_what_was_sent_before(world: World, heard: Events) -> None:
    """It speaks of a delivery, and the words of the other side name the reader."""
    issue = world.open()
    world.drain()
    forget(world.engine, "email", READER)
    said = event(
        K.BOUNCED, P.PERMANENT, address="", delivery=DeliveryId(issue.id, 1), detail=f"550 <{READER}>"
    )
    assert heard.record([said]) == 0
    assert READER not in str([one for one in world.ledger.events() if one.kind is K.BOUNCED])


# ── counting ─────────────────────────────────────────────────────────────────────────────────────────────────────────

F, D, N = Standing.FAILED, Standing.DELIVERED, Standing.SILENT


@pytest.mark.parametrize(
    ("standings", "given_up"),
    [
        ([F, F], False),
        ([F, F, F], True),
        ([F, F, D, F], False),
        ([F, F, N, F, N], False),
        ([F, N, F, N, F, N], False),
        ([F, N, F, N, F, N, F], True),  # four within thirty days, and no delivery between
        ([F, N, F, D, F, N, F], False),
        ([F, F, D, F, F, D, F, F], False),
        ([D, D, D], False),
        ([], False),
    ],
    ids=lambda value: "".join(s.name[0] for s in value) if isinstance(value, list) else "",
)
def test_in_a_row_and_in_thirty_days(standings: Sequence[Standing], given_up: bool) -> None:
    mails = [Mail(START + timedelta(days=day), standing) for day, standing in enumerate(standings)]
    assert gives_up(mails) is given_up
    random.Random(1).shuffle(mails)
    assert gives_up(mails) is given_up


def test_four_failures_in_more_than_thirty_days_are_not_too_many() -> None:
    mails = [Mail(START + timedelta(days=day), F if day % 2 == 0 else N) for day in range(60)]
    assert gives_up(mails)
    assert not gives_up(
        [Mail(START + timedelta(days=11 * day), F if day % 2 == 0 else N) for day in range(20)]
    )


def test_three_mails_in_a_row_are_too_many(world: World, heard: Events) -> None:
    heard.record([temporary(0), temporary(0.1), temporary(0.2), temporary(1)])
    assert suppressed(world) == {}  # those of no delivery count once a day
    heard.record([temporary(2)])
    assert suppressed(world) == {"a": "undeliverable"}


def sent_issues(world: World, days: int) -> list[Issue]:
    found = []
    for day in range(days):
        issue = world.open(DAY + timedelta(days=day), slug=f"post-{day}")
        world.drain()
        world.clock.forward(timedelta(days=1))
        found.append(issue)
    return found


def test_a_mail_of_which_nothing_was_heard_ends_the_row(world: World, heard: Events) -> None:
    issues = sent_issues(world, 4)
    failures = [temporary(occurred_at=world.clock(), **of(issues[day], 1)) for day in (0, 1, 3)]
    heard.record(failures)
    assert suppressed(world) == {}
    heard.record([temporary(occurred_at=world.clock(), **of(issues[2], 1))])
    assert suppressed(world) == {"a": "undeliverable"}


def test_one_mail_that_is_tried_ten_times_counts_once(world: World, heard: Events) -> None:
    (issue,) = sent_issues(world, 1)
    heard.record([event(K.DEFERRED, P.TEMPORARY, hour / 24, **of(issue, 1)) for hour in range(10)])
    assert suppressed(world) == {}
    (entry,) = world.ledger.log(issue.id, address=READER)
    assert len(entry.events) == 10


def test_a_delivery_that_comes_late_takes_the_suppression_back(world: World, heard: Events) -> None:
    heard.record([temporary(0), temporary(1), temporary(2)])
    assert suppressed(world) == {"a": "undeliverable"}
    heard.record([delivered(1.5)])
    assert suppressed(world) == {}


def test_what_a_person_suppressed_stays(world: World, heard: Events) -> None:
    world.audience.suppress("email", READER, S.MANUAL)
    heard.record([temporary(0), temporary(1), temporary(2), delivered(1.5)])
    assert suppressed(world) == {"a": "manual"}


def test_who_was_let_back_in_is_counted_anew(world: World, heard: Events) -> None:
    now = world.clock()
    old = [temporary(occurred_at=now - timedelta(days=day)) for day in (3, 2, 1)]
    heard.record(old)
    world.audience.unsuppress("email", READER)
    heard.record(old)
    heard.record([temporary(occurred_at=now + timedelta(days=1))])
    assert suppressed(world) == {}
    heard.record([temporary(occurred_at=now + timedelta(days=day)) for day in (2, 3)])
    assert suppressed(world) == {"a": "undeliverable"}


# ── order, repetition, two at once ───────────────────────────────────────────────────────────────────────────────────


def a_bad_week(issue: Issue) -> list[Event]:
    """Of three readers: one fails and is delivered in between, one bounces and complains, one fails too often."""
    b, c = "b@readers.example", "c@readers.example"
    return [
        temporary(0, event_id="a0"),
        delivered(1.5, event_id="a1"),
        temporary(1, event_id="a2"),
        temporary(2, event_id="a3"),
        event(K.BOUNCED, P.PERMANENT, 1, event_id="b0", address=b, **of(issue, 2)),
        event(K.COMPLAINED, None, 2, event_id="b1", address=b),
        temporary(0, event_id="b2", address=b),
        temporary(0, event_id="c0", address=c, **of(issue, 3)),
        delivered(0.5, event_id="c1", address=c, **of(issue, 3)),
        *(temporary(1 + day, event_id=f"c{2 + day}", address=c) for day in range(3)),
        event(K.BOUNCED, P.POLICY, 3, event_id="c9", address=c),
    ]


@pytest.mark.parametrize("seed", range(6))
def test_any_order_and_any_repetition_end_in_the_same_state(world: World, heard: Events, seed: int) -> None:
    (issue,) = sent_issues(world, 1)
    told = a_bad_week(issue)
    chance = random.Random(seed)
    calls = [*told, *told]
    chance.shuffle(calls)
    while calls:
        heard.record([calls.pop() for _ in range(min(len(calls), chance.randint(1, 5)))])
    assert suppressed(world) == {"b": "complained", "c": "undeliverable"}
    assert subscribed(world) == {"a": "active", "b": "unsubscribed", "c": "active"}
    assert len(world.ledger.events(limit=100)) == len(told)
    assert world.ledger.heard(issue.id) == {K.DELIVERED: 1, K.BOUNCED: 2}


def test_two_processes_that_hear_at_once_count_together(world: World, heard: Events) -> None:
    start = threading.Barrier(6)

    def tell(day: int) -> int:
        start.wait()
        return heard.record([temporary(day // 2, event_id=f"same-{day // 2}")])  # each one twice

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(tell, range(6))) == 3
    assert suppressed(world) == {"a": "undeliverable"}


# ── the delivery ─────────────────────────────────────────────────────────────────────────────────────────────────────


def lose_the_answer(world: World, *names: str) -> None:
    for name in names:
        world.channel.script[world.address(name)] = [Unconfirmed(text="no reply to the final dot")]


@pytest.mark.parametrize("kind", [K.DELIVERED, K.BOUNCED, K.COMPLAINED, K.DEFERRED, K.SENT, K.OPENED])
def test_news_of_an_unconfirmed_delivery_settles_it(world: World, heard: Events, kind: EventKind) -> None:
    lose_the_answer(world, "a", "b")
    issue = world.open()
    world.drain()
    assert world.states(issue) == {"a": "unconfirmed", "b": "unconfirmed", "c": "sent"}
    heard.record([event(kind, **of(issue, 1))])
    assert world.states(issue) == {"a": "sent", "b": "unconfirmed", "c": "sent"}
    world.check_sum(issue)
    assert world.log(issue)[READER].text == "ses has news of it"


@pytest.mark.parametrize(
    "told",
    [
        event(K.REJECTED, mirrors=S.BOUNCED),
        event(K.FAILED),
        event(K.DELIVERED, address="b@readers.example"),
        event(K.DELIVERED, message_id="<1.1.1.000000000000000000000000@news.example.com>"),
        event(K.DELIVERED, message_id="<somebody@else.example>"),
        event(K.DELIVERED, message_id="<1.99.0.000000000000000000000000@news.example.com>"),
        event(K.DELIVERED, message_id="", receipt="somebody-else"),
    ],
    ids=[
        "rejected",
        "failed",
        "another reader's",
        "another resend",
        "not ours",
        "nobody's",
        "another receipt",
    ],
)
def test_what_proves_nothing_settles_nothing(world: World, heard: Events, told: Event) -> None:
    lose_the_answer(world, "a")
    issue = world.open()
    world.drain()
    found = (
        told
        if told.message_id or told.receipt
        else event(told.kind, address=told.address, mirrors=told.mirrors, **of(issue, 1))
    )
    heard.record([found])
    assert world.states(issue)["a"] == "unconfirmed"


def test_news_that_came_before_the_doubt_settles_it_at_the_next_sweep(world: World, heard: Events) -> None:
    """The provider is quicker than the worker, whose answer is then lost."""

    def accepted_and_lost(parcel: Parcel) -> Receipt:
        heard.record([delivered(occurred_at=world.clock(), message_id=message_id(parcel.identity))])
        raise Unconfirmed(text="no reply to the final dot")

    world.channel.script[READER] = [accepted_and_lost]
    issue = world.open()
    world.drain()
    assert world.states(issue)["a"] == "unconfirmed"
    sweep(world.engine)
    assert world.states(issue)["a"] == "sent"
    world.check_sum(issue)


def test_a_delivery_is_found_by_the_receipt_of_its_relay(world: World, heard: Events) -> None:
    world.channel.script[READER] = [Receipt(provider_id="0102018e-ses-000000", code="250")]
    issue = world.open()
    world.drain()
    heard.record(
        [
            delivered(receipt="0102018e-ses-000000"),
            event(K.COMPLAINED, address="b@readers.example", receipt="0102018e-ses-000000"),
        ]
    )
    assert world.ledger.heard(issue.id) == {K.DELIVERED: 1}


def test_the_log_shows_what_was_heard_later_and_the_report_counts_it(world: World, heard: Events) -> None:
    issue = world.open()
    world.drain()
    for seq, name in ((1, "a"), (2, "b"), (3, "c")):
        heard.record([delivered(address=world.address(name), **of(issue, seq))])
    heard.record([event(K.COMPLAINED, day=1, address="b@readers.example", **of(issue, 2))])
    assert [told.kind for told in world.log(issue)["b@readers.example"].events] == ["delivered", "complained"]
    assert world.states(issue) == {
        "a": "sent",
        "b": "sent",
        "c": "sent",
    }  # beside the state, never instead of it
    assert report(world.engine, issue).endswith("heard of them: 3 delivered, 1 complained")


def test_a_bounce_is_about_the_reader_of_its_delivery_whoever_it_names(world: World, heard: Events) -> None:
    issue = world.open()
    world.drain()
    bounce: dict[str, Any] = {"provider": "bounces", "address": "somebody@elsewhere.example"}
    heard.record([event(K.BOUNCED, P.PERMANENT, delivery=DeliveryId(issue.id, 2), **bounce)])
    assert suppressed(world) == {"b": "bounced"}
    before = state(world)
    assert heard.record([event(K.BOUNCED, P.PERMANENT, delivery=DeliveryId(issue.id, 99), **bounce)]) == 0
    assert heard.record([event(K.BOUNCED, P.PERMANENT, delivery=DeliveryId(99, 1), **bounce)]) == 0
    assert state(world) == before


def test_the_bounce_of_a_letter_is_about_its_reader(world: World, heard: Events) -> None:
    with world.database.write() as connection:
        found = select(subscribers.c.id).where(subscribers.c.address == READER)
        reader = connection.execute(found).scalar_one()
        world.audience._letter(connection, Letter.CONFIRM, reader, "daily", "en", world.clock())
        number = connection.execute(select(letters.c.id)).scalar_one()
    bounce: dict[str, Any] = {"provider": "bounces", "address": ""}
    for mark, new in ((0, 0), (1, 0), (LETTER_MARK, 1)):
        told = event(K.BOUNCED, P.PERMANENT, delivery=DeliveryId(0, number, mark), **bounce)
        assert heard.record([told]) == new
    assert suppressed(world) == {"a": "bounced"}


def test_the_bounce_of_a_letter_that_is_gone_is_about_nobody(world: World, heard: Events) -> None:
    """Its reader was erased, and somebody else signed up: SQLite would give the highest number again."""

    def letter(name: str) -> int:
        with world.database.write() as connection:
            of = select(subscribers.c.id).where(subscribers.c.address == world.address(name))
            reader = connection.execute(of).scalar_one()
            world.audience._letter(connection, Letter.CONFIRM, reader, "daily", "en", world.clock())
            mine = select(letters.c.id).where(letters.c.subscriber_id == reader)
            return int(connection.execute(mine).scalar_one())

    gone = letter("a")
    forget(world.engine, "email", READER)
    assert letter("b") != gone
    told = event(K.BOUNCED, P.PERMANENT, address="", delivery=DeliveryId(0, gone, LETTER_MARK))
    assert heard.record([told]) == 0
    assert "b" not in suppressed(world)


# ── what is about us ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def told(heard: Events) -> list[str]:
    """The keys of the notices."""
    keys: list[str] = []
    heard.alarms.tell = lambda key, *_: keys.append(key)
    return keys


def test_a_domain_that_refuses_us_for_what_we_are_is_told(heard: Events, told: list[str]) -> None:
    heard.record([event(K.BOUNCED, P.POLICY, address=f"{n}@qq.example") for n in range(19)])
    heard.record([event(K.BOUNCED, P.TEMPORARY, address=f"{n}@qq.example") for n in range(30)])
    heard.record([event(K.BOUNCED, P.POLICY, address=f"{n}@other.example") for n in range(19)])
    assert told == []
    heard.record([event(K.DEFERRED, P.POLICY, address="20@qq.example")])
    (key,) = told
    assert key.startswith("policy:qq.example:")


def test_an_issue_that_many_call_spam_is_told(world: World, heard: Events, told: list[str]) -> None:
    issue = world.open()
    world.drain()
    complaints = [
        event(K.COMPLAINED, address=world.address(n), **of(issue, seq)) for seq, n in enumerate("abc", 1)
    ]
    for complaint in complaints[:2]:
        heard.record([complaint])
    assert told == []
    heard.record([complaints[2]])
    heard.record([complaints[2]])
    assert told == [f"complaints:{issue.id}"]


# ── while an issue is being delivered ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", [K.BOUNCED, K.COMPLAINED, K.UNSUBSCRIBED])
def test_who_bounces_or_complains_in_an_issue_gets_nothing_more_in_it_and_the_next(
    world: World, heard: Events, kind: EventKind
) -> None:
    """Of twelve readers in chunks of three, the news of the last two come while the first is being sent to."""
    others = [f"reader-{place:02}" for place in range(9)]
    world.subscribe(*others)
    late = others[-2:]

    def bring_news(parcel: Parcel) -> None:
        if parcel.recipient.address == READER:
            permanence = P.PERMANENT if kind is K.BOUNCED else None
            now = world.clock()
            heard.record(
                [event(kind, permanence, address=world.address(name), occurred_at=now) for name in late]
            )

    world.channel.before = bring_news
    issue = world.open()
    world.drain()
    reason = "unsubscribed" if kind is K.UNSUBSCRIBED else "suppressed"
    assert [world.states(issue)[name] for name in late] == [f"skipped({reason})"] * 2
    assert not set(world.channel.reached) & {world.address(name) for name in late}
    assert world.check_sum(issue).sent == 10
    following = world.open(DAY + timedelta(days=1), slug="second")
    world.drain()
    assert set(world.states(following)) == {"a", "b", "c", *others[:-2]}


def test_a_retry_is_not_made_when_a_bounce_comes_before_it(world: World, heard: Events) -> None:
    """The relay has refused for now; meanwhile the provider of an earlier mail says that the mailbox is gone."""
    world.channel.script[READER] = [Unavailable(text="451 try again", retry_after=timedelta(minutes=10))]
    issue = world.open()
    world.drain()
    assert world.states(issue)["a"] == "pending"
    heard.record([event(K.BOUNCED, P.PERMANENT)])
    world.clock.forward(timedelta(minutes=11))
    world.drain()
    assert world.states(issue)["a"] == "skipped(suppressed)"
    assert READER not in world.channel.reached
