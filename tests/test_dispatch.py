"""The stories, with a channel that answers by script, on both databases."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

import pytest
from fakes import (
    BOTH,
    DAY,
    LEASE,
    QUICK,
    FakeChannel,
    World,
    make_newsletter,
    make_post,
    make_world,
    migrated_database,
)
from sqlalchemy import update

from distributor import dispatch
from distributor.channels.handoff import HandoffChannel
from distributor.channels.wecom import WecomChannel
from distributor.db import Database
from distributor.dispatch import (
    AudienceHeld,
    Policy,
    guard_audience,
    lane,
    open_issue,
    plan_resend,
    resend,
    sweep,
    write_audience,
)
from distributor.errors import (
    Kind,
    PostError,
    Rejected,
    RequestRefused,
    Scope,
    ServiceDown,
    Unavailable,
    Unconfirmed,
)
from distributor.ledger import Ledger, ResendRequest
from distributor.model import (
    DeliveryState,
    IssueState,
    Message,
    OpenedBy,
    Parcel,
    Post,
    Receipt,
    Recipient,
    ResendScope,
    SkipReason,
)
from distributor.pacing import Limit
from distributor.preflight import NotFit
from distributor.settings import Newsletter, Settings
from distributor.tables import deliveries

SECOND = timedelta(seconds=1)
DOWN = Unavailable(text="connection refused", scope=Scope.CHANNEL, kind=Kind.NETWORK)
LATER = Unavailable(text="mailbox busy", code="450", kind=Kind.MAILBOX)
ANN, BOB, CY = (f"{name}@readers.example" for name in ("ann", "bob", "cy"))


@pytest.fixture(scope="module", params=BOTH)
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with migrated_database(request, tmp_path_factory) as database:
        yield database


@pytest.fixture(autouse=True)
def _no_waiting_for_what_is_due_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A drain ends when nothing is due: what a retry looks like is seen before it is made."""
    monkeypatch.setattr(lane, "IDLE_PATIENCE", -1.0)


@pytest.fixture
def world(database: Database) -> World:
    return make_world(database)


def asked(scope: ResendScope = ResendScope.FAILED, reason: str = "the relay was ill") -> ResendRequest:
    return ResendRequest(scope=scope, reason=reason, by="ann")


def parts_reached(world: World) -> Sequence[int]:
    return [parcel.message.part for parcel in world.channel.accepted]


class TestOpening:
    def test_the_same_day_gives_the_same_issue_without_rendering_again(self, world: World) -> None:
        world.subscribe("ann")
        first = world.open()
        again, opened = open_issue(
            world.engine, world.newsletter, make_post("other"), DAY, by=OpenedBy.SCHEDULER
        )
        assert (again.id, again.slug, opened) == (first.id, "first", False)

    def test_a_post_on_another_day_is_refused(self, world: World) -> None:
        world.subscribe("ann")
        world.open()
        with pytest.raises(RequestRefused, match="already has issue"):
            world.open(DAY + timedelta(days=1))

    @pytest.mark.parametrize(
        ("by", "approval", "state"),
        [
            (OpenedBy.SCHEDULER, "auto", IssueState.OPENING),
            (OpenedBy.SCHEDULER, "required", IssueState.WAITING),
            (OpenedBy.SCHEDULER, "auto-at-deadline", IssueState.WAITING),
            (OpenedBy.PERSON, "required", IssueState.OPENING),
        ],
    )
    def test_only_the_scheduler_waits_for_approval(
        self, database: Database, by: OpenedBy, approval: str, state: IssueState
    ) -> None:
        newsletter = make_newsletter(schedule={"approval": approval})
        world = make_world(database, newsletter=newsletter)
        world.subscribe("ann")
        issue, _ = open_issue(world.engine, newsletter, make_post(), DAY, by=by)
        assert issue.state is state
        world.clock.forward(timedelta(minutes=31))
        sweep(world.engine)
        went = approval == "auto-at-deadline" or state is IssueState.OPENING
        assert (world.ledger.issue(issue.id).state is IssueState.SENDING) is went

    def test_nobody_is_not_an_audience(self, world: World) -> None:
        with pytest.raises(AudienceHeld, match="only 0 recipients"):
            world.open()
        assert world.open(guarded=False).state is IssueState.SENDING

    def test_far_fewer_than_last_time_is_held(self, world: World) -> None:
        world.subscribe("a", "b", "c", "d", "e")
        world.open()
        world.leave("a")
        guard_audience(world.engine, world.newsletter)
        world.leave("b")
        with pytest.raises(AudienceHeld, match="has 3 recipients, the last issue had 5: more than 30% fewer"):
            guard_audience(world.engine, world.newsletter)

    def test_destinations_and_readers_each_get_it_once(self, database: Database) -> None:
        place = Recipient(channel="email", address=ANN, destination="team")
        world = make_world(database, channels=[FakeChannel(fixed=[place])])
        world.subscribe("ann", "bob")
        issue = world.open()
        assert world.check_sum(issue).planned == 2
        assert world.drain() == 2
        assert sorted(world.channel.reached) == [ANN, BOB]

    def test_a_channel_without_subscribers_has_its_destinations_alone(self, database: Database) -> None:
        place = Recipient(channel="wecom", address="team-robot", destination="team-robot")
        newsletter = make_newsletter({"wecom": {}})
        world = make_world(database, channels=[FakeChannel("wecom", fixed=[place])], newsletter=newsletter)
        world.open()
        world.drain()
        assert world.channel.reached == ["team-robot"]

    def test_only_one_writes_the_audience(self, world: World) -> None:
        world.subscribe("ann")
        issue, _, _ = world.frozen_only()
        assert not write_audience(world.engine, issue)
        world.clock.forward(LEASE)
        assert sweep(world.engine).due == {"email": 1}
        assert world.ledger.issue(issue.id).state is IssueState.SENDING

    def test_a_cancelled_issue_is_not_written_on(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        world.subscribe("ann", "bob")
        issue, _ = open_issue(world.engine, world.newsletter, make_post(), DAY, by=OpenedBy.PERSON)
        freeze = Ledger.freeze

        def cancelled_meanwhile(ledger: Ledger, issue_id: int, *rest: Any) -> Any:
            moment = freeze(ledger, issue_id, *rest)
            ledger.stop_issue(issue_id, IssueState.CANCELLED, SkipReason.CANCELLED)
            return moment

        monkeypatch.setattr(Ledger, "freeze", cancelled_meanwhile)
        assert not write_audience(world.engine, issue)
        assert world.check_sum(issue).planned == 0


@dataclass
class Faulty(FakeChannel):
    """Its renderer meets what it does not expect."""

    error: Exception = field(default_factory=RecursionError)

    def render(self, _post: Post, _newsletter: Newsletter) -> Sequence[Message]:
        raise self.error


class TestABugInARenderer:
    @pytest.mark.parametrize(
        "error", [RecursionError("maximum recursion depth"), ValueError("odd"), KeyError()]
    )
    def test_it_is_a_refusal_that_names_channel_and_post(
        self, database: Database, error: Exception, caplog: pytest.LogCaptureFixture
    ) -> None:
        channels = [FakeChannel(), Faulty("telegram", error=error)]
        world = make_world(database, channels=channels)
        world.subscribe("ann")
        newsletter = make_newsletter({"email": {}, "telegram": {}})
        with pytest.raises(NotFit) as caught:
            open_issue(world.engine, newsletter, make_post(), DAY, by=OpenedBy.PERSON)
        assert str(caught.value).startswith("first.md: error: refused: it cannot be shown on telegram (")
        assert f"{type(error).__name__}" in str(caught.value)
        assert "Traceback" in caplog.text
        with pytest.raises(PostError, match=r"^first\.md: it cannot be shown on telegram"):
            dispatch.render(world.engine, newsletter, make_post())

    @pytest.mark.parametrize("part", ["host_pictures", "facts"])
    def test_so_is_one_around_it(self, world: World, part: str) -> None:
        def broken(*_: object, **__: object) -> NoReturn:
            raise RecursionError

        engine = replace(world.engine, **{part: broken})  # type: ignore[arg-type]
        findings = dispatch.inspect(engine, world.newsletter, make_post(), DAY).findings
        assert ["RecursionError" in finding.text for finding in findings if finding.check == "refused"] == [
            True
        ]


SECRET = "hunter2"


def explode(_parcel: Parcel) -> Receipt:
    raise KeyError(SECRET)


class TestSending:
    def test_everybody_gets_it_once(self, database: Database) -> None:
        world = make_world(database, lanes=3)
        names = [f"reader-{number}" for number in range(20)]
        world.subscribe(*names)
        issue = world.open()
        assert world.drain() == 20
        assert world.drain() == 0
        assert sorted(world.channel.reached) == sorted(world.address(name) for name in names)
        assert world.check_sum(issue).sent == 20
        assert [each.id for each in sweep(world.engine).finished] == [issue.id]

    def test_a_parcel_carries_what_differs_by_recipient(self, world: World) -> None:
        world.subscribe("ann")
        issue = world.open()
        world.drain()
        (parcel,) = world.channel.accepted
        assert parcel.values == {
            "__UNSUBSCRIBE_URL__": f"http://news.example/u/{world.token('ann')}",
            "__PREFERENCES_URL__": f"http://news.example/p/{world.token('ann')}",
            "__VIEW_URL__": f"http://news.example/issues/{issue.id}",
        }
        assert parcel.sent_date == issue.frozen_at
        assert str(parcel.identity) == f"{issue.id}.1.0"

    def test_who_leaves_between_two_slices_is_skipped(self, world: World) -> None:
        world.subscribe("ann", "bob", "cy")
        issue = world.open()
        world.channel.before = lambda parcel: world.leave("cy") if parcel.recipient.address == ANN else None
        world.drain()
        assert world.states(issue) == {"ann": "sent", "bob": "sent", "cy": "skipped(unsubscribed)"}
        world.check_sum(issue)

    def test_a_retry_repeats_identity_and_date_a_resend_does_not(self, world: World) -> None:
        world.subscribe("ann")
        world.channel.script[ANN] = [LATER, Rejected(text="no")]
        issue = world.open()
        world.drain()
        world.clock.forward(2 * SECOND)
        world.drain()
        resend(world.engine, issue.id, asked())
        world.channel.script[ANN] = [LATER]
        world.drain()
        world.clock.forward(4 * SECOND)
        world.drain()
        first, second, third, fourth = world.channel.calls
        assert (first.identity, first.sent_date) == (second.identity, second.sent_date)
        assert (third.identity, third.sent_date) == (fourth.identity, fourth.sent_date)
        assert third.identity.resend == 1
        assert third.sent_date > first.sent_date

    def test_stopping_gives_the_rest_back(self, world: World) -> None:
        world.subscribe("ann", "bob", "cy")
        issue = world.open()
        stop = threading.Event()
        world.channel.before = lambda _parcel: stop.set()
        assert world.drain(stop=stop) == 1
        assert world.states(issue) == {"ann": "sent", "bob": "pending", "cy": "pending"}
        assert world.ledger.due_channels() == {"email": 1}
        assert [entry.tries for entry in world.ledger.log(issue.id)] == [1, 0, 0]
        world.check_sum(issue)

    def test_no_time_left_starts_nothing(self, world: World) -> None:
        world.subscribe("ann")
        world.open()
        assert world.drain(seconds=0) == 0
        assert world.channel.opened == 0

    def test_an_old_slice_is_given_back(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(lane, "SLICE_AGE", 0.0)
        world.subscribe("ann")
        issue = world.open()
        assert world.drain(seconds=0.2) == 0
        assert world.states(issue) == {"ann": "pending"}

    def test_a_bug_in_a_transport_is_loud_and_its_delivery_alone_in_doubt(
        self, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        world.subscribe("ann", "bob")
        world.channel.script[ANN] = [explode]
        issue = world.open()
        assert world.drain() == 2
        assert world.states(issue) == {"ann": "unconfirmed", "bob": "sent"}
        entry = world.log(issue)[ANN]
        assert (entry.code, entry.text) == (
            "bug",
            "the transport met a bug (KeyError): it may have gone; see the log",
        )
        assert f"transport_bug channel=email delivery={issue.id}." in caplog.text
        assert "in explode" in caplog.text
        assert "hunter2" not in caplog.text
        world.check_sum(issue)

    def test_a_bug_that_comes_again_and_again_stops_the_channel(self, world: World) -> None:
        """Else it would bring the whole audience into doubt."""
        names = [f"reader-{number}" for number in range(9)]
        world.subscribe(*names)
        world.channel.script = {world.address(name): [explode] for name in names}
        issue = world.open()
        world.drain()
        assert world.check_sum(issue).unconfirmed == lane.MOST_BUGS
        assert "met a bug (KeyError) 3 times" in world.ledger.stopped_channels()["email"].reason

    def test_a_message_that_the_issue_does_not_have_fails_alone_and_says_so(self, world: World) -> None:
        world.subscribe("ann", "bob", "cy")
        issue = world.open()
        ann = world.log(issue)[ANN].seq
        with world.database.write() as connection:
            mine = (deliveries.c.issue_id == issue.id, deliveries.c.seq == ann)
            connection.execute(update(deliveries).where(*mine).values(variant="gone"))
        world.drain()
        assert world.states(issue) == {"ann": "failed", "bob": "sent", "cy": "sent"}
        entry = world.log(issue)[ANN]
        assert entry.text == "the issue has no message of the variant 'gone', and nothing was sent"
        world.check_sum(issue)


class TestFailures:
    @pytest.mark.parametrize(
        ("error", "state", "code"),
        [
            (Rejected(text="no such user", code="550"), "failed", "550"),
            (Unconfirmed(text="answer lost", code="read"), "unconfirmed", "read"),
            (LATER, "pending", "450"),
        ],
    )
    def test_an_error_concerns_its_recipient(
        self, world: World, error: Rejected | Unconfirmed | Unavailable, state: str, code: str
    ) -> None:
        world.subscribe("ann", "bob")
        world.channel.script[ANN] = [error]
        issue = world.open()
        assert world.drain() == 2
        assert world.states(issue) == {"ann": state, "bob": "sent"}
        (attempt,) = world.log(issue)[ANN].attempts
        assert (attempt.code, attempt.text, attempt.worker) == (code, error.text, "worker:1")
        world.check_sum(issue)

    def test_it_gives_up_after_the_last_try(self, world: World) -> None:
        world.subscribe("ann")
        world.channel.script[ANN] = [LATER] * 5
        issue = world.open()
        for _round in range(5):
            world.drain()
            world.clock.forward(2 * SECOND)
        entry = world.log(issue)[ANN]
        assert (entry.state, entry.tries, len(entry.attempts)) == (DeliveryState.FAILED, QUICK.tries, 3)
        assert entry.text == "mailbox busy (gave up after 3 tries)"

    def test_a_policy_may_resend_what_is_unconfirmed(self, database: Database) -> None:
        world = make_world(database, policy=Policy(retry=QUICK, on_unconfirmed="resend"))
        world.subscribe("ann")
        world.channel.script[ANN] = [Unconfirmed(text="answer lost")]
        issue = world.open()
        world.drain()
        world.clock.forward(2 * SECOND)
        world.drain()
        assert world.states(issue) == {"ann": "sent"}
        assert [attempt.outcome for attempt in world.log(issue)[ANN].attempts] == ["pending", "sent"]

    @pytest.mark.parametrize(("suppress", "suppressed"), [(True, "bounced"), (False, None)])
    def test_a_refusal_may_suppress_the_address(
        self, world: World, suppress: bool, suppressed: str | None
    ) -> None:
        world.subscribe("ann")
        world.channel.script[ANN] = [Rejected(text="no such user", suppress=suppress)]
        world.open()
        world.drain()
        assert [each.suppressed for each in world.audience.listing("daily")] == [suppressed]
        assert world.audience.count("daily", "email") == (0 if suppress else 1)

    def test_a_reader_who_blocked_the_bot_is_suppressed(self, database: Database) -> None:
        world = make_world(database, channels=[FakeChannel("telegram")])
        world.subscribe("4711", channel="telegram")
        world.channel.script["4711"] = [Rejected(text="bot was blocked by the user", suppress=True)]
        world.open()
        world.drain()
        assert [each.suppressed for each in world.audience.listing("daily")] == ["blocked"]


class TestMigratedChats:
    MOVED = Unavailable(text="group migrated", retry_after=timedelta(0), counts=False, new_address="-1002")

    def sent(self, database: Database, answer: Any, *chats: str) -> World:
        world = make_world(database, channels=[FakeChannel("telegram", script={"-1": [answer]})])
        world.subscribe(*chats, channel="telegram")
        world.open()
        for _round in range(2):
            world.drain()
            world.clock.forward(2 * SECOND)
        return world

    @pytest.mark.parametrize("answer", [MOVED, Receipt(provider_id="7", address="-1002")])
    def test_the_delivery_and_the_reader_move_along(self, database: Database, answer: Any) -> None:
        world = self.sent(database, answer, "-1")
        issue = world.ledger.issues()[0]
        assert world.states(issue) == {"-1002": "sent"}
        assert [each.address for each in world.audience.listing("daily")] == ["-1002"]
        # Being sent elsewhere uses up a try: from place to place for ever must come to an end.
        assert world.log(issue)["-1002"].tries == (1 if isinstance(answer, Receipt) else 2)

    def test_a_place_that_is_known_already_is_no_trouble(self, database: Database) -> None:
        world = self.sent(database, self.MOVED, "-1", "-1002")
        issue = world.ledger.issues()[0]
        assert world.states(issue) == {"-1": "sent", "-1002": "sent"}
        assert world.check_sum(issue).sent == 2


class TestVariants:
    def test_a_destination_that_came_after_the_freeze_gets_what_there_is(self, database: Database) -> None:
        place = Recipient(channel="telegram", address="@late", variant="public", destination="late")
        world = make_world(database, channels=[FakeChannel("telegram", fixed=[place])])
        issue = world.open()
        world.drain()
        assert world.states(issue) == {"@late": "sent"}
        assert [parcel.message.variant for parcel in world.channel.accepted] == ["default"]

    def test_one_that_asks_for_more_than_was_frozen_gets_the_plain_message(self, database: Database) -> None:
        def newsletter(*places: Mapping[str, Any]) -> Newsletter:
            return make_newsletter({"wecom": {"destinations": list(places)}})

        before = newsletter({"name": "a"})
        channel = WecomChannel(Settings(root=Path(), newsletters={"daily": before}))
        world = make_world(database, channels=[channel], newsletter=before)
        issue, _ = open_issue(world.engine, before, make_post(), DAY, by=OpenedBy.PERSON)
        after = newsletter({"name": "a"}, {"name": "b", "mode": "text", "mention_all": True})
        assert write_audience(replace(world.engine, newsletters={"daily": after}), issue)
        found = {entry.address: entry.variant for entry in world.ledger.log(issue.id)}
        assert found == {"a": "markdown_v2", "b": "text"}

    def test_what_nothing_was_frozen_for_is_left_out_and_told(
        self, database: Database, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A hand-off place has a pack of its own, and a whole channel has messages of its own."""

        def newsletter(*names: str, **more: Mapping[str, Any]) -> Newsletter:
            places = [{"name": name, "title": name, "to": "desk@example.com"} for name in names]
            return make_newsletter({"handoff": {"destinations": places}, **more})

        before, after = newsletter("one"), newsletter("one", "two", email={})
        settings = Settings(root=Path(), newsletters={"daily": before})
        world = make_world(database, channels=[HandoffChannel(settings), FakeChannel()], newsletter=before)
        world.subscribe("ann")
        issue, _ = open_issue(world.engine, before, make_post(), DAY, by=OpenedBy.PERSON)
        told: list[str] = []
        assert write_audience(replace(world.engine, newsletters={"daily": after}), issue, told.append)
        assert world.states(issue) == {"one": "pending"}
        assert world.check_sum(issue).planned == 1
        assert [text.partition(" goes out without ")[2].partition(":")[0] for text in told] == [
            "the destination two of handoff",
            "the subscribers of email",
        ]
        assert all(text in caplog.text for text in told)


class TestParts:
    def test_a_long_message_resumes_at_the_part_that_failed(self, database: Database) -> None:
        channel = FakeChannel(parts=3, script={ANN: [Receipt(provider_id="p1"), LATER]})
        world = make_world(database, channels=[channel])
        world.subscribe("ann")
        issue = world.open()
        world.drain()
        entry = world.log(issue)[ANN]
        assert (entry.state, entry.parts_sent, entry.receipts) == (DeliveryState.PENDING, 1, ("p1",))
        world.clock.forward(2 * SECOND)
        world.drain()
        entry = world.log(issue)[ANN]
        assert (entry.state, entry.receipts) == (DeliveryState.SENT, ("p1", "id-3", "id-4"))
        assert parts_reached(world) == [1, 2, 3]

    @pytest.mark.parametrize(
        ("answers", "scope", "parts"),
        [
            ([Receipt(), Unconfirmed(text="lost")], ResendScope.UNCONFIRMED, [1, 2, 3]),
            ([Receipt(), Rejected(text="no")], ResendScope.FAILED, [1, 2, 3]),
            ([], ResendScope.ALL, [1, 2, 3, 1, 2, 3]),
        ],
    )
    def test_a_resend_resumes_too_and_starts_anew_what_was_sent(
        self, database: Database, answers: Sequence[Any], scope: ResendScope, parts: Sequence[int]
    ) -> None:
        world = make_world(database, channels=[FakeChannel(parts=3, script={ANN: list(answers)})])
        world.subscribe("ann")
        issue = world.open()
        world.drain()
        assert resend(world.engine, issue.id, asked(scope)) == 1
        world.drain()
        assert parts_reached(world) == parts
        assert len(world.log(issue)[ANN].receipts) == 3
        assert world.check_sum(issue).sent == 1

    def test_each_part_knows_the_receipts_of_those_before_it(self, database: Database) -> None:
        world = make_world(database, channels=[FakeChannel(parts=3, script={ANN: [Receipt("p1"), LATER]})])
        world.subscribe("ann")
        world.open()
        world.drain()
        world.clock.forward(2 * SECOND)
        world.drain()
        assert [parcel.receipts for parcel in world.channel.accepted] == [(), ("p1",), ("p1", "id-3")]

    @pytest.mark.parametrize("first", [[], [Receipt("p1"), LATER]], ids=["at once", "after a part"])
    def test_what_stands_for_all_parts_ends_the_delivery(
        self, database: Database, first: Sequence[Any]
    ) -> None:
        answers = [*first, Receipt("all", whole=True)]
        world = make_world(database, channels=[FakeChannel(parts=3, script={ANN: answers})])
        world.subscribe("ann")
        issue = world.open()
        for _ in range(2):
            world.drain()
            world.clock.forward(2 * SECOND)
        entry = world.log(issue)[ANN]
        assert (entry.state, entry.parts_sent) == (DeliveryState.SENT, 3)
        assert entry.receipts == (("p1", "all", "all") if first else ("all", "all", "all"))
        assert world.check_sum(issue).sent == 1

    def test_too_long_a_pause_between_parts_gives_it_back_without_a_try(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(lane, "PART_WAIT", 0.0)
        limit = Limit("chat", rate=10)
        world = make_world(database, channels=[FakeChannel(parts=2, pace=[limit])])
        world.subscribe("ann")
        issue = world.open()
        world.drain()
        entry = world.log(issue)[ANN]
        assert (entry.state, entry.parts_sent, entry.tries) == (DeliveryState.PENDING, 1, 0)
        world.clock.forward(SECOND)
        world.engine.sleep(0.1)
        world.drain()
        assert parts_reached(world) == [1, 2]


class TestChannelTrouble:
    def test_the_channel_stops_and_no_reader_pays_for_it(self, world: World) -> None:
        world.subscribe("ann", "bob")
        world.channel.script[ANN] = [DOWN]
        issue = world.open()
        assert world.drain() == 0
        assert [(entry.state, entry.tries, entry.attempts) for entry in world.ledger.log(issue.id)] == [
            (DeliveryState.PENDING, 0, ())
        ] * 2
        assert world.ledger.stopped_channels()["email"].reason == "connection refused"
        assert world.drain() == 0
        assert len(world.channel.calls) == 1
        world.check_sum(issue)

    @pytest.mark.parametrize("error", [DOWN, Rejected(text="login refused", scope=Scope.CHANNEL)])
    def test_so_it_does_when_no_connection_opens(self, world: World, error: Unavailable | Rejected) -> None:
        world.subscribe("ann")
        world.channel.troubles = [error]
        issue = world.open()
        assert world.drain() == 0
        assert world.states(issue) == {"ann": "pending"}
        assert world.ledger.stop_count("email") == 1

    def test_so_it_does_when_opening_meets_a_bug(
        self, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        world.subscribe("ann")
        world.channel.troubles = [ValueError(SECRET)]
        issue = world.open()
        assert world.drain() == 0
        assert world.states(issue) == {"ann": "pending"}
        assert world.ledger.stopped_channels()["email"].reason.startswith(
            "no connection opens: the transport met a bug (ValueError)"
        )
        assert "transport_bug channel=email relay=fake ValueError" in caplog.text
        assert "hunter2" not in caplog.text

    def test_it_waits_longer_each_time_and_a_success_clears_it(self, world: World) -> None:
        world.subscribe("ann")
        world.channel.troubles = [DOWN, DOWN, DOWN]
        issue = world.open()
        waits = []
        for _trouble in range(3):
            world.drain()
            stop = world.ledger.stopped_channels()["email"]
            waits.append(round((stop.until - world.clock()).total_seconds()))
            world.clock.forward(stop.until - world.clock())
        assert waits == [5, 10, 20]
        assert world.drain() == 1
        assert world.states(issue) == {"ann": "sent"}
        assert world.ledger.stopped_channels() == {}
        assert world.log(issue)[ANN].tries == 1

    def test_several_lanes_stop_it_once(self, database: Database) -> None:
        world = make_world(database, lanes=3, chunk=1)
        world.subscribe("ann", "bob", "cy")
        world.channel.troubles = [DOWN] * 3
        world.open()
        world.drain()
        assert world.ledger.stop_count("email") == 1


class TestPace:
    def test_a_slow_domain_is_put_off_and_the_others_go_on(self, world: World) -> None:
        slow = ["ann@slow.example", "bob@slow.example"]
        world.subscribe(*slow, "cy")
        world.channel.script[slow[0]] = [
            Unavailable(
                text="too fast",
                scope=Scope.DOMAIN,
                kind=Kind.THROTTLE,
                retry_after=30 * SECOND,
                counts=False,
            )
        ]
        issue = world.open()
        assert world.drain() == 2
        assert world.states(issue) == {slow[0]: "pending", slow[1]: "pending", "cy": "sent"}
        assert [parcel.recipient.address for parcel in world.channel.calls] == [slow[0], CY]
        assert [entry.tries for entry in world.log(issue).values()] == [0, 0, 1]
        assert world.ledger.due_channels() == {}
        world.check_sum(issue)

    def test_a_throttled_login_holds_the_whole_channel(self, database: Database) -> None:
        limit = Limit("email", rate=1000, burst=1000)
        world = make_world(database, channels=[FakeChannel(pace=[limit])])
        world.subscribe("ann", "bob")
        world.channel.script[ANN] = [
            Unavailable(text="too fast", scope=Scope.CREDENTIAL, kind=Kind.THROTTLE, retry_after=30 * SECOND)
        ]
        issue = world.open()
        assert world.drain() == 1
        assert world.states(issue) == {"ann": "pending", "bob": "pending"}
        assert 29 < world.engine.pacer.reserve([limit]).wait <= 30
        assert world.ledger.due_channels() == {}

    def test_what_is_sent_may_ask_to_wait_all_the_same(self, database: Database) -> None:
        """An edit behind the last part that is one too many: the delivery is done, and the bot is to wait."""
        limit = Limit("email", rate=1000, burst=1000)
        world = make_world(database, channels=[FakeChannel(pace=[limit])])
        world.subscribe("ann", "bob")
        world.channel.script[ANN] = [Receipt(retry_after=600 * SECOND)]
        issue = world.open()
        assert world.drain() == 1
        assert world.states(issue) == {"ann": "sent", "bob": "pending"}
        assert 598 < world.engine.pacer.reserve([limit]).wait <= 600
        world.check_sum(issue)

    def test_a_short_wait_is_waited_out(self, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(lane, "IDLE_PATIENCE", 2.0)
        slept: list[float] = []
        world = make_world(database, channels=[FakeChannel(pace=[Limit("email", rate=3)])])
        sleep = world.engine.sleep

        def note(seconds: float) -> None:
            slept.append(seconds)
            sleep(seconds)

        world.engine = replace(world.engine, sleep=note)
        world.subscribe("ann", "bob", "cy")
        world.open()
        assert world.drain() == 3
        assert all(0 < wait <= 1 / 3 for wait in slept)
        assert sum(slept) > 0.3  # most of two intervals


class TestOurOwnTrouble:
    def failing(self, world: World, method: str, errors: Sequence[Exception | None]) -> None:
        """The ledger's method raises each of these first; None lets a call through."""
        left = list(errors)
        ledger = world.ledger
        real: Callable[..., Any] = getattr(ledger, method)

        def wrapped(*arguments: Any) -> Any:
            if left and (error := left.pop(0)):
                raise error
            return real(*arguments)

        setattr(ledger, method, wrapped)

    def test_results_wait_for_the_database(self, world: World) -> None:
        slept: list[float] = []
        world.engine = replace(world.engine, sleep=slept.append)
        world.subscribe("ann")
        issue = world.open()
        self.failing(world, "turn", [None, ServiceDown("gone")])
        self.failing(world, "finish", [ServiceDown("gone")] * 3)
        assert world.drain() == 1
        assert slept == [0.5, 1.0, 2.0]
        assert world.states(issue) == {"ann": "sent"}
        assert world.channel.reached == [ANN]

    def test_an_outage_longer_than_the_lease_loses_no_answer(self, world: World) -> None:
        world.engine = replace(world.engine, sleep=lambda _seconds: world.clock.forward(2 * LEASE))
        world.subscribe("ann", "bob", "cy")
        issue = world.open()
        self.failing(world, "turn", [None, ServiceDown("gone")])
        self.failing(world, "finish", [ServiceDown("gone")])
        world.drain()
        sweep(world.engine)
        assert world.states(issue) == {"ann": "sent", "bob": "sent", "cy": "sent"}
        assert world.channel.reached == [ANN, BOB, CY]
        world.check_sum(issue)

    def test_an_answer_after_the_chunk_was_taken_back_settles_it_late(self, world: World) -> None:
        def overtaken(_parcel: Any) -> Receipt:
            world.clock.forward(LEASE)
            assert sweep(world.engine).recovered == 1
            return Receipt(provider_id="late")

        world.subscribe("ann")
        world.channel.script[ANN] = [overtaken]
        issue = world.open()
        world.drain()
        assert world.states(issue) == {"ann": "sent"}
        assert world.log(issue)[ANN].receipts == ("late",)
        world.check_sum(issue)


class TestResend:
    def test_a_reason_is_wanted(self, world: World) -> None:
        world.subscribe("ann")
        issue = world.open()
        for story in (plan_resend, resend):
            with pytest.raises(RequestRefused, match="needs a reason"):
                story(world.engine, issue.id, asked(reason=" "))

    def test_an_issue_that_is_not_out_yet_is_refused(self, world: World) -> None:
        world.subscribe("ann")
        issue, _, _ = world.frozen_only()
        with pytest.raises(RequestRefused, match="has not been sent yet"):
            resend(world.engine, issue.id, asked())

    def test_a_plan_says_what_the_resend_then_does(self, world: World) -> None:
        world.subscribe("ann", "bob")
        world.channel.script = {ANN: [Rejected(text="no")], BOB: [Unconfirmed(text="lost")]}
        issue = world.open()
        world.drain()
        sweep(world.engine)
        for scope in (ResendScope.FAILED, ResendScope.UNCONFIRMED):
            plan = plan_resend(world.engine, issue.id, asked(scope))
            assert (plan.by_channel, plan.total) == ({"email": 1}, 1)
            assert resend(world.engine, issue.id, asked(scope)) == 1
        assert world.drain() == 2
        assert [each.id for each in sweep(world.engine).finished] == [issue.id]

    def test_after_retention_nobody_can_say_who_is_missing(self, world: World) -> None:
        world.subscribe("ann")
        issue = world.open()
        world.drain()
        sweep(world.engine)
        with world.database.write() as connection:
            world.database.drop_issues(connection, deliveries, below=1_000)
        for act in (plan_resend, resend):
            with pytest.raises(RequestRefused, match="kept no more"):
                act(world.engine, issue.id, asked(ResendScope.MISSING))
        assert world.channel.reached == [ANN]

    def test_the_missing_ones_get_it(self, world: World) -> None:
        world.subscribe("ann", "gone")
        issue = world.open()
        world.drain()
        world.subscribe("late")
        world.leave("gone")
        missing = asked(ResendScope.MISSING)
        assert plan_resend(world.engine, issue.id, missing).by_channel == {"email": 1}
        assert resend(world.engine, issue.id, missing) == 1
        assert plan_resend(world.engine, issue.id, missing).total == 0
        world.drain()
        assert world.channel.reached[2:] == ["late@readers.example"]
        assert world.check_sum(issue).planned == 3


class TestSweeping:
    def test_old_news_expires(self, world: World) -> None:
        world.subscribe("ann")
        issue = world.open()
        world.clock.forward(timedelta(hours=12))
        swept = sweep(world.engine)
        assert ([each.id for each in swept.expired], swept.due) == ([issue.id], {})
        assert world.drain() == 0
        assert world.states(issue) == {"ann": "skipped(expired)"}
        world.check_sum(issue)

    @pytest.mark.parametrize("answer", [Receipt(), LATER])
    def test_what_was_in_hand_when_it_was_cancelled_ends(self, world: World, answer: Any) -> None:
        world.subscribe("ann", "bob")
        issue = world.open()

        def cancel(_parcel: Any) -> None:
            world.ledger.stop_issue(issue.id, IssueState.CANCELLED, SkipReason.CANCELLED)

        world.channel.script[ANN] = [answer]
        world.channel.before = cancel
        world.drain()
        sweep(world.engine)
        ann = "sent" if isinstance(answer, Receipt) else "skipped(cancelled)"
        assert world.states(issue)["ann"] == ann
        assert world.check_sum(issue).open == 0
        assert world.ledger.issue(issue.id).state is IssueState.CANCELLED

    def test_a_lost_worker_is_made_up_for(self, database: Database) -> None:
        world = make_world(database, policy=Policy(retry=QUICK, on_unconfirmed="resend"))
        world.subscribe("ann")
        issue = world.open()
        chunk = world.ledger.lease("email", "worker:2", LEASE)
        assert chunk is not None
        world.ledger.begin(chunk, 10, LEASE)
        world.clock.forward(LEASE)
        assert sweep(world.engine).recovered == 1
        assert world.drain() == 1
        assert world.states(issue) == {"ann": "sent"}

    def test_a_test_send_leaves_no_trace(self, world: World) -> None:
        (receipt,) = dispatch.test_send(
            world.engine, world.newsletter, make_post(), "email", " Ann@Readers.example"
        )
        assert receipt.provider_id == "id-1"
        assert world.channel.reached == [ANN]
        assert world.ledger.issues() == []


class TestAtOnce:
    def test_a_person_may_interfere_while_lanes_send(self, database: Database) -> None:
        world = make_world(database, lanes=4, chunk=5)
        names = [f"reader-{number}" for number in range(60)]
        world.subscribe(*names)
        for name in names[::3]:
            world.channel.script[world.address(name)] = [Rejected(text="no")]
        issue = world.open()
        over = threading.Event()
        errors: list[Exception] = []

        def interfere() -> None:
            try:
                while not over.is_set():
                    resend(world.engine, issue.id, asked())
                    sweep(world.engine)
            except Exception as error:  # shown by the test's own thread
                errors.append(error)

        person = threading.Thread(target=interfere)
        person.start()
        for _round in range(3):
            world.drain()
        over.set()
        person.join()
        world.drain()
        assert errors == []
        resend(world.engine, issue.id, asked())
        world.drain()
        assert world.check_sum(issue).sent == 60
        assert sorted(world.channel.reached) == sorted(world.address(name) for name in names)
