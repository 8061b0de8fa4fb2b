"""Deliveries that a person has in hand: neither sent nor in doubt, on both databases."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Self

import pytest
from fakes import BOTH, QUICK, FakeChannel, World, make_newsletter, make_world, migrated_database

from distributor.alerts import Alerts
from distributor.channels.handoff import HandoffChannel
from distributor.db import Database
from distributor.dispatch import lane, resend, sweep
from distributor.dispatch.engine import Policy
from distributor.errors import AWAITING, AwaitingPerson, SendError, Unconfirmed
from distributor.ledger import ResendRequest
from distributor.model import DeliveryState, Issue, Parcel, Receipt, Recipient, ResendScope
from distributor.notices import Notices
from distributor.schedule import look_after, report
from distributor.settings import Settings

PERSON = "desk@example.com"
WITH_THEM = AwaitingPerson(text="awaiting a person: what to post is with them")
LOST = Unconfirmed(text="answer lost")


class Places(FakeChannel):
    """Destinations alone, each with limits of its own."""

    def pace_group(self, recipient: Recipient) -> str:
        return f"to:{recipient.destination}"


@dataclass(frozen=True, kw_only=True)
class WatchedAlerts(Alerts):
    """Counts the pings of the dead man's switch."""

    pings: list[str] = field(default_factory=list)

    def dead_man(self) -> None:
        self.pings.append("all went well")


@pytest.fixture(scope="module", params=BOTH)
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with migrated_database(request, tmp_path_factory) as database:
        yield database


@pytest.fixture(autouse=True)
def _no_waiting_for_what_is_due_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "IDLE_PATIENCE", -1.0)


def world_of(database: Database, *answers: Receipt | SendError, **options: object) -> World:
    """One place in a pack of two parts; its person answers with these."""
    place = Recipient(channel="handoff", address=PERSON, destination="group-one")
    channel = Places(name="handoff", parts=2, fixed=[place], script={PERSON: [Receipt(), *answers]})
    return make_world(database, channels=[channel], **options)


def handed_over(database: Database, *answers: Receipt | SendError, **options: object) -> tuple[World, Issue]:
    world = world_of(database, *answers, **options)
    issue = world.open()
    world.drain()
    return world, issue


def alerts_of(world: World) -> WatchedAlerts:
    settings = Settings(root=Path())
    return WatchedAlerts(settings=settings, channels={}, notices=Notices(world.database))


def asked(scope: ResendScope, channel: str | None = None) -> ResendRequest:
    return ResendRequest(scope=scope, reason="the mail got lost", by="ann", channel=channel)


def parts_of(world: World) -> Sequence[int]:
    return [parcel.message.part for parcel in world.channel.calls]


def test_it_awaits_a_person_and_is_not_in_doubt(database: Database) -> None:
    world, issue = handed_over(database, WITH_THEM)
    entry = world.log(issue)[PERSON]
    assert (entry.state, entry.code, entry.text) == (DeliveryState.UNCONFIRMED, AWAITING, WITH_THEM.text)
    assert [each.seq for each in world.ledger.awaiting(issue.id)] == [entry.seq]
    assert world.ledger.doubtful_destinations() == []
    assert world.check_sum(issue).unconfirmed == 1


def test_a_pack_whose_answer_was_lost_is_in_doubt(database: Database) -> None:
    world, issue = handed_over(database, LOST)
    assert world.ledger.awaiting(issue.id) == []
    assert [each.destination for each in world.ledger.doubtful_destinations()] == ["group-one"]


def test_neither_policy_nor_sweep_nor_drain_hand_it_over_twice(database: Database) -> None:
    policy = Policy(retry=QUICK, on_unconfirmed="resend")
    world, issue = handed_over(database, WITH_THEM, policy=policy)
    for _ in range(3):
        world.clock.forward(timedelta(minutes=5))
        sweep(world.engine)
        world.drain()
    assert parts_of(world) == [1, 2]
    assert len(world.ledger.awaiting(issue.id)) == 1


@pytest.mark.parametrize(("sent", "state"), [(True, DeliveryState.SENT), (False, DeliveryState.FAILED)])
def test_a_person_s_word_settles_it(database: Database, sent: bool, state: DeliveryState) -> None:
    world, issue = handed_over(database, WITH_THEM)
    seq = world.log(issue)[PERSON].seq
    world.ledger.resolve(issue.id, seq, sent=sent, by="ann")
    assert world.log(issue)[PERSON].state is state
    assert world.ledger.awaiting(issue.id) == []
    world.check_sum(issue)


def test_a_resend_of_what_is_in_doubt_leaves_it_alone(database: Database) -> None:
    world, issue = handed_over(database, WITH_THEM)
    assert resend(world.engine, issue.id, asked(ResendScope.UNCONFIRMED)) == 0


@pytest.mark.parametrize(
    ("scope", "channel"),
    [(ResendScope.UNCONFIRMED, "handoff"), (ResendScope.ALL, None)],
)
def test_asked_for_by_name_all_of_it_goes_again(
    database: Database, scope: ResendScope, channel: str | None
) -> None:
    world, issue = handed_over(database, WITH_THEM, Receipt(), WITH_THEM)
    assert resend(world.engine, issue.id, asked(scope, channel)) == 1
    world.drain()
    assert parts_of(world) == [1, 2, 1, 2]
    assert len(world.ledger.awaiting(issue.id)) == 1


def test_what_was_not_posted_starts_anew(database: Database) -> None:
    world, issue = handed_over(database, WITH_THEM, Receipt(), WITH_THEM)
    world.ledger.resolve(issue.id, world.log(issue)[PERSON].seq, sent=False, by="ann")
    assert resend(world.engine, issue.id, asked(ResendScope.FAILED)) == 1
    world.drain()
    assert parts_of(world) == [1, 2, 1, 2]


# What the operator is told


def test_the_report_says_who_is_awaited_and_the_watchdog_is_told_that_all_is_well(database: Database) -> None:
    world, issue = handed_over(database, WITH_THEM)
    alerts = alerts_of(world)
    look_after(world.engine, alerts)
    (notice,) = alerts.notices.listing()
    assert notice.subject.endswith(": done, 0 sent, 1 awaiting a person")
    seq = world.log(issue)[PERSON].seq
    assert f"group-one: distributor resolve {issue.id}.{seq} --sent   (or --not-sent)" in notice.body
    assert "the answer was lost" not in notice.body
    assert "1 of them awaiting a person" in report(world.engine, issue)
    assert alerts.pings == ["all went well"]


def test_one_person_for_two_places_gets_a_pack_for_each(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = [{"name": name, "title": name, "to": PERSON} for name in ("group-one", "group-two")]
    newsletter = make_newsletter({"handoff": {"destinations": places}})
    channel = HandoffChannel(Settings(root=Path(), newsletters={"daily": newsletter}))
    world = make_world(database, channels=[channel], newsletter=newsletter)
    handed: list[tuple[str, str]] = []

    class ByHand:
        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None: ...

        def send(self, parcel: Parcel, then: Parcel | None = None) -> Receipt:  # noqa: ARG002
            handed.append((parcel.message.content["place"], parcel.message.content["to"]))
            raise WITH_THEM

    monkeypatch.setattr(channel, "open", lambda _relay: ByHand())
    issue = world.open()
    world.drain("handoff")
    assert sorted(handed) == [("group-one", PERSON), ("group-two", PERSON)]
    entries = world.ledger.log(issue.id)
    assert sorted(entry.destination or "" for entry in entries) == ["group-one", "group-two"]
    assert world.ledger.tallies(issue.id)["handoff"].unconfirmed == 2


def test_one_in_doubt_is_an_alarm_as_before(database: Database) -> None:
    world, _ = handed_over(database, LOST)
    alerts = alerts_of(world)
    look_after(world.engine, alerts)
    subjects = [notice.subject for notice in alerts.notices.listing()]
    assert any("it may have gone, nobody knows" in subject for subject in subjects)
    assert any("1 unconfirmed, please look" in subject for subject in subjects)
    assert alerts.pings == []
