"""Double opt-in: who asks gets one mail a day, who confirms gets issues, and nobody else gets anything."""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from fakes import BOTH, World, make_world, migrated_database
from sqlalchemy import Table, func, insert, literal, select

from distributor.audience import Answer, NewSubscriber, Received, SignUp, Subscription, Visit, signups
from distributor.db import Database, copy_rows
from distributor.errors import RequestRefused
from distributor.model import ConsentKind, ConsentText, Letter, SubscriptionState, SuppressionReason
from distributor.tables import (
    Utc,
    consent_texts,
    consents,
    events,
    inbox,
    letters,
    subscribers,
    subscription_attributes,
    subscription_tags,
    subscriptions,
)

ADDRESS = "reader@readers.example"
WORDS = ConsentText(version="0123456789abcdef", language="en", text="I agree.")
VISIT = Visit(source="confirmation page", ip="192.0.2.1", wording=WORDS)
DAY = timedelta(days=1)


@pytest.fixture(scope="module", params=BOTH)
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with migrated_database(request, tmp_path_factory) as database:
        yield database


@pytest.fixture
def world(database: Database) -> World:
    return make_world(database)


def asking(address: str = ADDRESS, *newsletters: str, **more: Any) -> SignUp:
    return SignUp(
        address=address,
        newsletters=newsletters or ("daily",),
        language="en",
        source=more.pop("source", "form"),
        ip="192.0.2.7",
        wording=WORDS,
        **more,
    )


def rows(world: World, table: Table) -> list[Mapping[str, Any]]:
    with world.database.read() as connection:
        return [dict(row) for row in connection.execute(select(table)).mappings()]


def kinds(world: World) -> list[str]:
    return [row["kind"] for row in sorted(rows(world, letters), key=lambda row: row["id"])]


def subscriber(world: World) -> int:
    return int(rows(world, subscribers)[0]["id"])


def link(world: World) -> str:
    """A confirmation link, as the mail has one."""
    moment = rows(world, subscribers)[0]["asked_at"]
    token = world.audience.open_confirmation(subscriber(world), moment, reminder=False)
    assert token is not None
    return token


def state(world: World, newsletter: str = "daily") -> SubscriptionState | None:
    found = {row["newsletter"]: row["state"] for row in rows(world, subscriptions)}
    return SubscriptionState(found[newsletter]) if newsletter in found else None


def confirmed(world: World) -> Subscription:
    world.audience.sign_up(asking())
    active = world.audience.confirm(link(world), VISIT)
    assert active
    return active[0]


class TestAsking:
    def test_a_first_time_leaves_one_of_everything(self, world: World) -> None:
        assert world.audience.sign_up(asking(tags=("beta", "beta"))) is Answer.ASKED
        assert kinds(world) == [Letter.CONFIRM]
        assert state(world) is SubscriptionState.PENDING
        evidence = rows(world, consents)[0]
        assert (evidence["kind"], evidence["ip"], evidence["wording"]) == (
            ConsentKind.ASKED,
            "192.0.2.7",
            WORDS.version,
        )
        assert [row["text"] for row in rows(world, consent_texts)] == ["I agree."]
        assert world.audience.count("daily", "email") == 0

    def test_a_second_time_on_a_day_leaves_nothing_new(self, world: World) -> None:
        world.audience.sign_up(asking())
        assert world.audience.sign_up(asking()) is Answer.WAITS
        assert kinds(world) == [Letter.CONFIRM]
        assert len(rows(world, consents)) == 1

    def test_the_next_day_it_asks_again(self, world: World) -> None:
        world.audience.sign_up(asking())
        world.clock.forward(DAY + timedelta(minutes=1))
        assert world.audience.sign_up(asking()) is Answer.ASKED
        assert kinds(world) == [Letter.CONFIRM, Letter.CONFIRM]

    def test_another_newsletter_is_covered_by_the_mail_of_the_day(self, world: World) -> None:
        world.audience.sign_up(asking())
        assert world.audience.sign_up(asking(ADDRESS, "weekly")) is Answer.WAITS
        asked = world.audience.asked(link(world))
        assert asked is not None
        assert sorted(asked.waiting) == ["daily", "weekly"]

    def test_an_active_reader_hears_nothing(self, world: World) -> None:
        confirmed(world)
        world.clock.forward(2 * DAY)
        assert world.audience.sign_up(asking()) is Answer.ACTIVE
        assert kinds(world) == [Letter.CONFIRM, Letter.WELCOME]

    @pytest.mark.parametrize(
        "reason",
        [SuppressionReason.BOUNCED, SuppressionReason.COMPLAINED, SuppressionReason.MANUAL],
    )
    @pytest.mark.parametrize("vouched", [False, True])
    def test_a_suppressed_address_stays_so(
        self, world: World, reason: SuppressionReason, vouched: bool
    ) -> None:
        world.audience.suppress("email", ADDRESS, reason)
        assert world.audience.sign_up(asking(vouched=vouched)) is Answer.SUPPRESSED
        assert rows(world, subscribers) == rows(world, letters) == rows(world, consents) == []

    def test_many_at_once_leave_one_of_everything(self, world: World) -> None:
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: world.audience.sign_up(asking()), range(40)))
        assert answers.count(Answer.ASKED) == 1
        assert answers.count(Answer.WAITS) == 39
        assert len(rows(world, subscribers)) == len(rows(world, subscriptions)) == 1
        assert kinds(world) == [Letter.CONFIRM]

    def test_words_that_were_rolled_back_are_written_down_the_next_time(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object) -> None:
            raise KeyError("behind the evidence")

        with monkeypatch.context() as patch:
            patch.setattr(world.audience, "_ask", fail)
            with pytest.raises(KeyError):
                world.audience.sign_up(asking())
        world.audience.sign_up(asking())
        world.audience.sign_up(asking("other@readers.example"))
        assert [row["version"] for row in rows(world, consent_texts)] == [WORDS.version]
        assert {row["wording"] for row in rows(world, consents)} == {WORDS.version}


class TestConfirming:
    def test_begins_the_subscription_with_its_evidence(self, world: World) -> None:
        found = confirmed(world)
        assert found.state is SubscriptionState.ACTIVE
        assert world.audience.count("daily", "email") == 1
        assert [row["kind"] for row in rows(world, consents)] == [ConsentKind.ASKED, ConsentKind.CONFIRMED]
        assert rows(world, consents)[1]["source"] == "confirmation page"
        assert rows(world, subscriptions)[0]["source"] == "form"
        assert [row["kind"] for row in rows(world, events)] == ["subscribed"]
        assert kinds(world) == [Letter.CONFIRM, Letter.WELCOME]

    def test_again_and_again_is_harmless(self, world: World) -> None:
        world.audience.sign_up(asking())
        token = link(world)
        for _ in range(3):
            assert world.audience.confirm(token, VISIT)
        assert kinds(world) == [Letter.CONFIRM, Letter.WELCOME]
        assert len(rows(world, consents)) == 2

    def test_all_links_of_one_reader_work(self, world: World) -> None:
        world.audience.sign_up(asking())
        first = link(world)
        assert link(world) != first
        assert world.audience.confirm(first, VISIT)

    def test_without_a_welcome_when_none_is_wanted(self, world: World) -> None:
        world.audience.sign_up(asking())
        world.audience.confirm(link(world), VISIT, welcome=False)
        assert kinds(world) == [Letter.CONFIRM]

    @pytest.mark.parametrize("token", ["", "nobody", "x" * 500])
    def test_an_unknown_link_does_nothing(self, world: World, token: str) -> None:
        world.audience.sign_up(asking())
        assert world.audience.asked(token) is None
        assert world.audience.confirm(token, VISIT) is None
        assert state(world) is SubscriptionState.PENDING

    def test_an_expired_link_does_nothing(self, world: World) -> None:
        world.audience.sign_up(asking())
        token = link(world)
        world.clock.forward(31 * DAY)
        asked = world.audience.asked(token)
        assert asked is not None
        assert asked.expired
        assert world.audience.confirm(token, VISIT) is None

    def test_who_complained_meanwhile_is_not_begun(self, world: World) -> None:
        world.audience.sign_up(asking())
        token = link(world)
        world.audience.suppress("email", ADDRESS, SuppressionReason.COMPLAINED)
        assert world.audience.confirm(token, VISIT) is None
        assert state(world) is SubscriptionState.PENDING

    def test_who_left_comes_back_by_confirming_alone(self, world: World) -> None:
        found = confirmed(world)
        world.audience.unsubscribe(found.token, "link")
        world.clock.forward(2 * DAY)
        assert world.audience.sign_up(asking()) is Answer.ASKED
        assert world.audience.sign_up(asking()) is Answer.WAITS
        assert state(world) is SubscriptionState.UNSUBSCRIBED
        assert [row["kind"] for row in rows(world, consents)].count(ConsentKind.ASKED) == 2
        assert world.audience.confirm(link(world), VISIT)
        assert state(world) is SubscriptionState.ACTIVE

    def test_an_old_link_does_not_bring_back_who_left_since(self, world: World) -> None:
        world.audience.sign_up(asking())
        token = link(world)
        [found] = world.audience.confirm(token, VISIT) or []
        world.clock.forward(timedelta(minutes=1))
        world.audience.unsubscribe(found.token, "link")
        assert world.audience.confirm(token, VISIT) == []
        assert state(world) is SubscriptionState.UNSUBSCRIBED

    def test_begins_what_was_shown_and_nothing_else(self, world: World) -> None:
        world.audience.sign_up(asking(ADDRESS, "daily", "weekly"))
        token = link(world)
        assert world.audience.confirm(token, VISIT, newsletters=["daily"])
        assert (state(world), state(world, "weekly")) == (
            SubscriptionState.ACTIVE,
            SubscriptionState.PENDING,
        )


class TestVouching:
    def test_begins_at_once_and_says_who_said_so(self, world: World) -> None:
        assert world.audience.sign_up(asking(vouched=True, source="webhook shop")) is Answer.ACTIVATED
        assert state(world) is SubscriptionState.ACTIVE
        assert [(row["kind"], row["source"]) for row in rows(world, consents)] == [
            (ConsentKind.ASSERTED, "webhook shop")
        ]
        assert kinds(world) == [Letter.WELCOME]

    def test_begins_what_was_pending(self, world: World) -> None:
        world.audience.sign_up(asking())
        assert world.audience.sign_up(asking(vouched=True)) is Answer.ACTIVATED
        assert state(world) is SubscriptionState.ACTIVE

    def test_never_overrides_a_reader_who_left(self, world: World) -> None:
        found = confirmed(world)
        world.audience.unsubscribe(found.token, "link")
        world.clock.forward(2 * DAY)
        assert world.audience.sign_up(asking(vouched=True)) is Answer.ASKED
        assert state(world) is SubscriptionState.UNSUBSCRIBED

    def test_the_same_webhook_counts_once(self, world: World) -> None:
        received = Received(source="shop", key="msg_1", body_hash="aa")
        assert world.audience.sign_up(asking(received=received)) is Answer.ASKED
        assert world.audience.sign_up(asking(received=received)) is Answer.REPEATED
        other = Received(source="shop", key="msg_1", body_hash="bb")
        assert world.audience.sign_up(asking("other@readers.example", received=other)) is Answer.CONFLICT
        assert len(rows(world, subscribers)) == len(rows(world, inbox)) == 1
        world.clock.forward(8 * DAY)
        world.audience.forget_received(7 * DAY)
        assert rows(world, inbox) == []


class TestAddingByHand:
    """The operator vouches: what waits begins, and the evidence says who said so."""

    def test_whoever_has_not_confirmed_is_begun(self, world: World) -> None:
        world.audience.sign_up(asking())
        new = NewSubscriber(channel="email", address=ADDRESS, source="fair 2026")
        assert world.audience.add("daily", new).state is SubscriptionState.ACTIVE
        assert world.audience.count("daily", "email") == 1
        last = rows(world, consents)[-1]
        assert (last["kind"], last["source"]) == (ConsentKind.ASSERTED, "fair 2026")

    def test_whoever_came_back_has_evidence_of_it(self, world: World) -> None:
        world.audience.unsubscribe(confirmed(world).token, "link")
        new = NewSubscriber(channel="email", address=ADDRESS, source="by telephone")
        world.audience.add("daily", new, resubscribe=True)
        assert [row["kind"] for row in rows(world, consents)][-2:] == [
            ConsentKind.WITHDRAWN,
            ConsentKind.ASSERTED,
        ]
        assert [row["kind"] for row in rows(world, events)][-1] == "subscribed"


class TestReminding:
    def test_is_written_down_with_the_confirmation(self, world: World) -> None:
        world.audience.sign_up(asking(remind_after=DAY))
        assert kinds(world) == [Letter.CONFIRM, Letter.REMIND]
        first, second = rows(world, letters)
        assert second["due_at"] - first["due_at"] == DAY

    def test_comes_once(self, world: World) -> None:
        world.audience.sign_up(asking(remind_after=DAY))
        world.clock.forward(3 * DAY)
        world.audience.sign_up(asking(remind_after=DAY))
        assert kinds(world) == [Letter.CONFIRM, Letter.REMIND, Letter.CONFIRM]

    def test_is_the_mail_of_its_day(self, world: World) -> None:
        world.audience.sign_up(asking(remind_after=DAY))
        asked_at = rows(world, subscribers)[0]["asked_at"]
        world.clock.forward(DAY + timedelta(minutes=1))
        assert world.audience.open_confirmation(subscriber(world), asked_at, reminder=True)
        assert world.audience.sign_up(asking()) is Answer.WAITS

    def test_is_needless_once_somebody_asked_again(self, world: World) -> None:
        world.audience.sign_up(asking(remind_after=DAY))
        asked_at = rows(world, subscribers)[0]["asked_at"]
        world.clock.forward(DAY + timedelta(minutes=1))
        assert world.audience.sign_up(asking()) is Answer.ASKED
        assert world.audience.open_confirmation(subscriber(world), asked_at, reminder=True) is None

    def test_tried_once_more_it_is_still_the_same_one(self, world: World) -> None:
        world.audience.sign_up(asking(remind_after=DAY))
        asked_at = rows(world, subscribers)[0]["asked_at"]
        for _ in range(2):
            world.clock.forward(DAY)
            assert world.audience.open_confirmation(subscriber(world), asked_at, reminder=True)


class TestForgetting:
    def test_whoever_was_asked_again_has_a_month_from_then(self, world: World) -> None:
        world.audience.sign_up(asking())
        world.clock.forward(29 * DAY)
        assert world.audience.sign_up(asking()) is Answer.ASKED
        token = link(world)
        world.clock.forward(2 * DAY)
        assert world.audience.forget_pending() == 0
        assert world.audience.confirm(token, VISIT)

    def test_nothing_is_left_that_the_next_one_would_inherit(self, world: World) -> None:
        """SQLite gives a number again once its row is gone."""
        world.audience.sign_up(asking(tags=("beta",), attributes={"city": "Kunming"}))
        world.clock.forward(31 * DAY)
        assert world.audience.forget_pending() == 1
        assert rows(world, subscription_tags) == rows(world, subscription_attributes) == []

    def test_more_than_a_statement_may_name(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(signups, "WINDOW", 30_000)
        with world.database.write() as connection:
            now = world.database.now(connection)
            old = {
                "channel": "email",
                "domain": "many.example",
                "name": "",
                "language": "en",
                "created_at": now,
            }
            people = [{"address": f"{n}@many.example", **old} for n in range(70_000)]
            copy_rows(
                world.database,
                subscribers,
                tuple(people[0]),
                [tuple(row.values()) for row in people],
                connection,
            )
            wanted = select(
                subscribers.c.id,
                literal("daily"),
                literal(SubscriptionState.PENDING),
                subscribers.c.address,
                literal("form"),
                literal(now, Utc()),
            )
            names = ["subscriber_id", "newsletter", "state", "token", "source", "consent_at"]
            connection.execute(insert(subscriptions).from_select(names, wanted))
        world.clock.forward(31 * DAY)
        assert world.audience.forget_pending() == 70_000

    def test_who_never_confirmed_is_gone_after_a_month(self, world: World) -> None:
        world.audience.sign_up(asking())
        link(world)
        world.clock.forward(31 * DAY)
        assert world.audience.forget_pending() == 1
        assert rows(world, subscribers) == rows(world, subscriptions) == rows(world, consents) == []
        assert rows(world, letters) == []

    def test_who_did_is_kept_and_so_is_who_left(self, world: World) -> None:
        found = confirmed(world)
        world.audience.sign_up(asking(ADDRESS, "weekly"))
        world.audience.unsubscribe(found.token, "link")
        world.clock.forward(31 * DAY)
        assert world.audience.forget_pending() == 0
        assert [row["newsletter"] for row in rows(world, subscriptions)] == ["daily"]

    def test_erased_people_come_back_by_themselves_alone(self, world: World) -> None:
        from distributor.audience import fingerprint  # noqa: PLC0415 - the one test that needs it

        with world.database.read() as connection:
            erased = fingerprint(world.audience.key(connection), "email", ADDRESS)
        world.audience.suppress("email", erased, SuppressionReason.ERASED)
        assert world.audience.sign_up(asking(vouched=True)) is Answer.SUPPRESSED
        assert world.audience.sign_up(asking()) is Answer.ASKED
        assert world.audience.confirm(link(world), VISIT)
        assert world.audience.count("daily", "email") == 1

    def test_of_who_was_erased_the_stronger_reason_stands_too(self, world: World) -> None:
        from distributor.audience import fingerprint  # noqa: PLC0415 - as above

        with world.database.read() as connection:
            erased = fingerprint(world.audience.key(connection), "email", ADDRESS)
        world.audience.suppress("email", erased, SuppressionReason.ERASED)
        for reason in ("bounced", "complained", "manual"):
            world.audience.suppress("email", ADDRESS, SuppressionReason(reason))
        with pytest.raises(RequestRefused, match="complained"):
            world.audience.unsuppress("email", ADDRESS)


class TestPreferences:
    def test_choosing_begins_and_ends(self, world: World) -> None:
        found = confirmed(world)
        number = found.subscriber_id
        wanted = {(number, "weekly"): True, (number, "daily"): False}
        chosen = world.audience.choose(found.token, wanted, "zh-CN", Visit(source="preferences"))
        assert chosen is not None
        assert chosen.active == {(number, "weekly")}
        assert chosen.language == "zh-CN"
        assert [row["kind"] for row in rows(world, consents)][2:] == [
            ConsentKind.CONFIRMED,
            ConsentKind.WITHDRAWN,
        ]

    def test_a_button_pressed_twice_counts_once(self, world: World) -> None:
        found = confirmed(world)
        wanted = {(found.subscriber_id, "weekly"): True}
        with ThreadPoolExecutor(8) as pool:
            pressed = [
                pool.submit(world.audience.choose, found.token, wanted, None, VISIT) for _ in range(24)
            ]
            assert all(one.result() for one in pressed)
        begun = [row for row in rows(world, consents) if row["newsletter"] == "weekly"]
        assert len(begun) == 1
        world.audience.unsubscribe(found.token, "link")
        with ThreadPoolExecutor(8) as pool:
            back = [pool.submit(world.audience.resubscribe, found.token, VISIT) for _ in range(24)]
            assert all(one.result() for one in back)
        came_back = [row for row in rows(world, consents) if row["newsletter"] == "daily"]
        assert [row["kind"] for row in came_back] == ["asked", "confirmed", "withdrawn", "confirmed"]

    def test_only_ones_own_places_count(self, world: World) -> None:
        found = confirmed(world)
        world.subscribe("other")
        other = next(row["id"] for row in rows(world, subscribers) if row["address"].startswith("other"))
        world.audience.choose(
            found.token, {(other, "weekly"): True, (other, "daily"): False}, None, Visit(source="p")
        )
        with world.database.read() as connection:
            query = select(func.count()).where(
                subscriptions.c.subscriber_id == other, subscriptions.c.state == SubscriptionState.ACTIVE
            )
            assert connection.execute(query).scalar_one() == 1

    def test_a_suppressed_place_gets_nothing_more(self, world: World) -> None:
        found = confirmed(world)
        world.audience.suppress("email", ADDRESS, SuppressionReason.BOUNCED)
        chosen = world.audience.choose(
            found.token, {(found.subscriber_id, "weekly"): True}, None, Visit(source="p")
        )
        assert chosen is not None
        assert chosen.places[0].suppressed == SuppressionReason.BOUNCED
        assert chosen.active == {(found.subscriber_id, "daily")}

    def test_coming_back_needs_the_own_link(self, world: World) -> None:
        found = confirmed(world)
        world.audience.unsubscribe(found.token, "link")
        assert world.audience.resubscribe("nobody", VISIT) is None
        back = world.audience.resubscribe(found.token, VISIT)
        assert back is not None
        assert back.state is SubscriptionState.ACTIVE
        assert [row["kind"] for row in rows(world, consents)][-1] == ConsentKind.CONFIRMED

    def test_who_complained_does_not_come_back(self, world: World) -> None:
        found = confirmed(world)
        world.audience.unsubscribe(found.token, "link", goodbye=True)
        world.audience.suppress("email", ADDRESS, SuppressionReason.COMPLAINED)
        assert world.audience.resubscribe(found.token, VISIT) is None
        assert kinds(world)[-1] == Letter.GOODBYE
