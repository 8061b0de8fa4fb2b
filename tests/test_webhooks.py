"""Our webhooks: told in the transaction in which it happened, signed, tried again, once."""

import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from fakes import BOTH, QUICK, make_world, migrated_database
from pydantic import SecretStr
from sqlalchemy import insert
from sqlalchemy.exc import IntegrityError
from standardwebhooks import Webhook, WebhookVerificationError
from test_runner import until
from test_signups import ADDRESS, VISIT, asking, link

from distributor.audience import Audience
from distributor.db import Database
from distributor.dispatch import Caller, Policy, calling
from distributor.errors import Kind, Rejected, Unconfirmed
from distributor.ledger import Ledger
from distributor.model import DeliveryState
from distributor.settings import Endpoint
from distributor.tables import suppressions
from distributor.webhooks import LEASE, Webhooks

SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()
OTHER = "whsec_" + base64.b64encode(b"o" * 32).decode()


def endpoint(name: str = "crm", url: str = "http://crm.example/hook", **more: Any) -> Endpoint:
    return Endpoint(name=name, url=url, **{"secrets": (SecretStr(SECRET),), **more})


@pytest.fixture(scope="module", params=BOTH)
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with migrated_database(request, tmp_path_factory) as database:
        yield database


class Office:
    """A world whose news goes to endpoints; `answers` are what they say, in turn, then 204."""

    def __init__(self, database: Database, *endpoints: Endpoint) -> None:
        self.world = make_world(database, policy=Policy(retry=QUICK))
        self.webhooks = Webhooks(database, endpoints or (endpoint(),))
        engine = self.world.engine
        object.__setattr__(engine, "ledger", Ledger(database, self.webhooks))
        object.__setattr__(engine, "audience", Audience(database, self.webhooks))
        self.requests: list[httpx.Request] = []
        self.answers: list[httpx.Response | Exception] = []
        self.caller = Caller(webhooks=self.webhooks, transport=httpx.MockTransport(self._answer))

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if self.answers else httpx.Response(204)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def rested(self) -> None:
        """As if the endpoints had been left alone long enough."""
        self.caller._rests_until.clear()

    def states(self) -> list[tuple[str, str]]:
        return [(call.kind, call.state.value) for call in reversed(self.webhooks.listing())]

    def bodies(self) -> list[Any]:
        return [json.loads(request.content) for request in self.requests]


@pytest.fixture
def office(database: Database) -> Office:
    return Office(database)


def a_reader(office: Office) -> str:
    office.world.audience.sign_up(asking())
    found = office.world.audience.confirm(link(office.world), VISIT)
    assert found
    return found[0].token


class TestWhatIsTold:
    def test_who_comes_and_who_goes(self, office: Office) -> None:
        office.world.audience.unsubscribe(a_reader(office), "link")
        assert office.caller.send_due() == 2
        first, second = office.bodies()
        assert (first["type"], second["type"]) == ("subscription.subscribed", "subscription.unsubscribed")
        assert first["data"] == {
            "newsletter": "daily",
            "channel": "email",
            "address": ADDRESS,
            "source": "confirmation page",
        }

    def test_a_sign_up_alone_is_no_news(self, office: Office) -> None:
        office.world.audience.sign_up(asking())
        assert office.states() == []

    def test_deliveries_that_failed_and_those_in_doubt(self, office: Office) -> None:
        world = office.world
        world.subscribe("good", "gone", "lost")
        office.caller.send_due()
        world.channel.script["gone@readers.example"] = [
            Rejected(text="no such user", code="550", kind=Kind.MAILBOX)
        ]
        world.channel.script["lost@readers.example"] = [Unconfirmed(text="connection lost")]
        world.open()
        world.drain()
        told = {call.kind: call.body["data"]["address"] for call in office.webhooks.listing()}
        assert told["delivery.failed"] == "gone@readers.example"
        assert told["delivery.unconfirmed"] == "lost@readers.example"
        assert "delivery.sent" not in told

    def test_every_delivery_for_who_asks_for_it(self, database: Database) -> None:
        office = Office(database, endpoint(events=("delivery.sent",)))
        office.world.subscribe("one", "two", "three")
        issue = office.world.open()
        office.world.drain()
        assert office.states() == [("delivery.sent", "pending")] * 3
        assert office.world.ledger.tallies(issue.id)["email"].sent == 3

    def test_only_the_newsletters_that_an_endpoint_names(self, database: Database) -> None:
        office = Office(database, endpoint(newsletters=("weekly",)), endpoint("all"))
        a_reader(office)
        assert [call.endpoint for call in office.webhooks.listing()] == ["all"]

    def test_the_same_news_twice_is_one_call(self, office: Office) -> None:
        for _ in range(2):
            office.webhooks.tell("issue.finished", "finished:1", "daily", {"issue": 1})
        assert office.states() == [("issue.finished", "pending")]


class TestCalling:
    def test_is_signed_as_the_standard_says(self, office: Office) -> None:
        a_reader(office)
        office.caller.send_due()
        [request] = office.requests
        assert (
            Webhook(SECRET).verify(request.content, dict(request.headers))["type"]
            == "subscription.subscribed"
        )
        with pytest.raises(WebhookVerificationError):
            Webhook(OTHER).verify(request.content, dict(request.headers))

    def test_is_signed_by_both_secrets_while_one_replaces_the_other(self, database: Database) -> None:
        office = Office(database, endpoint(secrets=(SecretStr(SECRET), SecretStr(OTHER))))
        a_reader(office)
        office.caller.send_due()
        for secret in (SECRET, OTHER):
            assert Webhook(secret).verify(office.requests[0].content, dict(office.requests[0].headers))

    @pytest.mark.parametrize(
        "answer",
        [
            httpx.Response(500, text="boom\x00\n"),
            httpx.Response(302, headers={"location": "http://elsewhere.example/"}),
            httpx.ConnectError("refused at http://crm.example/hook?key=secret"),
            httpx.ReadTimeout("slow"),
        ],
        ids=["500", "redirect", "refused", "slow"],
    )
    def test_what_fails_is_tried_again_with_the_same_id(
        self, office: Office, answer: httpx.Response | Exception
    ) -> None:
        a_reader(office)
        office.answers = [answer]
        assert office.caller.send_due() == 0
        [call] = office.webhooks.listing()
        assert (call.state, call.tries) == (DeliveryState.PENDING, 1)
        assert "secret" not in call.text
        assert "\x00" not in call.text
        office.world.clock.forward(timedelta(seconds=6))
        office.rested()
        assert office.caller.send_due() == 1
        first, second = (request.headers["webhook-id"] for request in office.requests)
        assert first == second

    def test_an_endpoint_that_fails_keeps_the_tries_of_its_other_calls(self, office: Office) -> None:
        office.world.audience.unsubscribe(a_reader(office), "link")
        office.answers = [httpx.Response(500)]
        office.caller.send_due()
        assert office.caller.send_due() == 0  # it rests
        assert len(office.requests) == 1
        assert sorted(call.tries for call in office.webhooks.listing()) == [0, 1]

    def test_heeds_retry_after(self, office: Office) -> None:
        a_reader(office)
        office.answers = [httpx.Response(503, headers={"retry-after": "3600"})]
        office.caller.send_due()
        office.rested()
        office.world.clock.forward(timedelta(minutes=59))
        assert office.caller.send_due() == 0
        office.world.clock.forward(timedelta(minutes=2))
        assert office.caller.send_due() == 1

    def test_gives_up_after_three_days_and_a_person_may_ask_again(self, office: Office) -> None:
        a_reader(office)
        office.answers = [httpx.Response(500)] * 9
        for _ in range(9):
            office.rested()
            office.caller.send_due()
            office.world.clock.forward(timedelta(days=1, minutes=1))
        assert office.states() == [("subscription.subscribed", "failed")]
        assert office.webhooks.again("crm") == 1
        office.rested()
        assert office.caller.send_due() == 1

    def test_leaves_who_is_gone_alone(self, office: Office) -> None:
        a_reader(office)
        office.answers = [httpx.Response(410)]
        office.caller.send_due()
        office.rested()
        office.world.clock.forward(timedelta(days=1))
        assert office.caller.send_due() == 0
        assert len(office.requests) == 1

    def test_goes_on_after_a_kill(self, office: Office) -> None:
        a_reader(office)
        assert len(office.webhooks.take_due("crm")) == 1
        assert office.caller.send_due() == 0
        office.world.clock.forward(LEASE + timedelta(seconds=1))
        assert office.caller.send_due() == 1

    def test_told_to_stop_it_leaves_the_rest_at_once(self, office: Office) -> None:
        a_reader(office)
        stop = threading.Event()
        stop.set()
        assert office.caller.send_due(stop) == 0
        assert office.caller.send_due() == 1

    def test_what_waits_too_long_is_given_up_and_all_of_it_goes_in_the_end(self, office: Office) -> None:
        office.world.audience.unsubscribe(a_reader(office), "link")
        office.answers = [httpx.Response(204), httpx.Response(500)]
        office.caller.send_due()
        office.world.clock.forward(timedelta(days=4))
        office.webhooks.forget(timedelta(days=30))
        assert office.states() == [
            ("subscription.subscribed", "sent"),
            ("subscription.unsubscribed", "failed"),
        ]
        office.world.clock.forward(timedelta(days=27))
        office.webhooks.forget(timedelta(days=30))
        assert office.states() == []


@contextmanager
def listening(answer: Callable[[bytes], int]) -> Iterator[str]:
    """A real server; `answer` gives the status for a body."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            Webhook(SECRET).verify(body, dict(self.headers))
            self.send_response(answer(body))
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/hook"
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_endpoint_that_hangs_or_never_ends_its_answer_keeps_nobody_waiting(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calling, "PATIENCE", 0.2)
    over = threading.Event()
    with listening(lambda _body: 204 if over.wait(20) else 500) as hangs, listening(lambda _body: 204) as url:
        office = Office(database, endpoint("hangs", hangs), endpoint("quick", url))
        caller = Caller(webhooks=office.webhooks)
        for number in range(3):
            office.webhooks.tell("issue.finished", f"finished:{number}", "daily", {"issue": number})
            caller.send_due()
            until(lambda: {call.state for call in office.webhooks.listing(endpoint="quick")} == {"sent"})
        waiting = [call.state for call in office.webhooks.listing(endpoint="hangs")]
        over.set()
        until(lambda: "sending" not in {state for _kind, state in office.states()})
    assert "sending" in waiting
    assert "sent" not in waiting


def test_of_an_answer_without_end_a_little_is_read(office: Office, caplog: pytest.LogCaptureFixture) -> None:
    read: list[int] = []

    def endless() -> Iterator[bytes]:
        for number in range(1000):
            read.append(number)
            yield b"nobody@readers.example " * 100

    a_reader(office)
    office.answers = [httpx.Response(500, content=endless())]
    office.caller.send_due()
    assert len(read) < 20
    [call] = office.webhooks.listing()
    assert call.text.startswith("nobody@readers.example")
    assert len(call.text) <= 200
    assert "nobody@" not in caplog.text  # what an endpoint repeats is in no log


def test_an_error_of_the_database_names_nobody(database: Database) -> None:
    row = {"channel": "email", "reason": "manual", "note": ""}
    with pytest.raises(IntegrityError) as refused, database.write() as connection:
        connection.execute(insert(suppressions), {"address": ADDRESS, "created_at": None, **row})
    said = str(refused.value).partition("DETAIL")[0]  # what PostgreSQL adds is its own (log_error_verbosity)
    assert ADDRESS not in said


def test_over_a_real_connection_two_callers_tell_each_thing_once(database: Database) -> None:
    got: list[bytes] = []
    with listening(lambda body: got.append(body) or 204) as url:  # type: ignore[func-returns-value]
        office = Office(database, endpoint(url=url))
        for number in range(20):
            office.webhooks.tell("issue.finished", f"finished:{number}", "daily", {"issue": number})
        callers = [Caller(webhooks=office.webhooks) for _ in range(2)]
        threads = [threading.Thread(target=caller.send_due) for caller in callers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(json.loads(body)["data"]["issue"] for body in got) == list(range(20))
    assert {state for _kind, state in office.states()} == {"sent"}
