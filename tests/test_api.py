"""The operators' calls: each one right, and refused to whoever may not; lists join; no secret is in an answer."""

import json
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import httpx
import pytest
from fakes import BOTH, DAY, Clock, World, empty, make_engine, make_newsletter
from pydantic import SecretStr
from services import Project, fresh_database
from serving import problem, row_counts, serving
from sqlalchemy import select

from distributor.bootstrap import Distributor, build
from distributor.errors import Kind, Rejected
from distributor.model import Issue, IssueState, Permission, SubscriptionState, SuppressionReason
from distributor.settings import Endpoint
from distributor.tables import api_tokens, installation, resends, subscriptions, suppressions
from distributor.webhooks import Webhooks

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ENDPOINT = Endpoint(name="crm", url="http://crm.example/hook/secret-path", secrets=(SecretStr(SECRET),))
SUPPRESS = {"address": "somebody@readers.example"}
TAG = {"newsletter": "daily", "add": ["beta"]}
RESEND = {"only": "failed", "reason": "the relay was down", "dry_run": False}
#: Every call: method, path, scope, body.
CALLS = [
    ("GET", "/api/subscribers", "subscribers:read", None),
    ("GET", "/api/subscribers/1", "subscribers:read", None),
    ("GET", "/api/subscribers/1/export", "subscribers:read", None),
    ("POST", "/api/subscribers/1/tags", "subscribers:write", TAG),
    ("DELETE", "/api/subscribers/1/subscriptions/daily", "subscribers:write", None),
    ("DELETE", "/api/subscribers/1", "subscribers:write", None),
    ("POST", "/api/suppressions", "subscribers:write", SUPPRESS),
    ("GET", "/api/issues", "issues:read", None),
    ("GET", "/api/issues/1", "issues:read", None),
    ("POST", "/api/issues/1/pause", "issues:write", None),
    ("POST", "/api/issues/1/resume", "issues:write", None),
    ("POST", "/api/issues/1/cancel", "issues:write", None),
    ("POST", "/api/issues/1/resend", "issues:write", RESEND),
    ("GET", "/api/issues/1/deliveries", "deliveries:read", None),
    ("GET", "/api/deliveries?address=li@readers.example", "deliveries:read", None),
    ("GET", "/api/events?address=li@readers.example", "events:read", None),
    ("GET", "/api/webhook-calls", "webhooks:read", None),
]
#: What no word, no number and no address is.
JUNK = ["%00", "%F0%9F", "' OR 1=1 --", "a" * 400, "%E2%80%AE", "[]"]
LOOKS = [call for call in CALLS if call[0] == "GET"]


@dataclass
class Desk:
    """A running interface over a world, and a token for everything."""

    distributor: Distributor
    world: World
    client: httpx.Client
    token: str = ""

    def call(self, method: str, path: str, body: Any = None, *, token: str | None = None) -> httpx.Response:
        used = self.token if token is None else token
        headers = {"Authorization": f"Bearer {used}"} if used else None
        return self.client.request(method, path, json=body, headers=headers)

    def get(self, path: str, **query: Any) -> Any:
        response = self.client.get(path, params=query, headers={"Authorization": f"Bearer {self.token}"})
        assert response.status_code == 200, response.text
        return response.json()

    def token_with(self, *scopes: str, name: str = "other") -> str:
        return self.distributor.access.create(name, [Permission(scope) for scope in scopes])

    def number_of(self, name: str) -> int:
        (found,) = self.get("/api/subscribers", address=f"{name}@readers.example")["items"]
        number: int = found["id"]
        return number

    def issue(self, *names: str, failed: str = "") -> Issue:
        """One that went out to these readers, and to one that refused."""
        self.world.subscribe(*names, *([failed] if failed else []))
        if failed:
            no = Rejected(code="550", text="no such mailbox", kind=Kind.MAILBOX)
            self.world.channel.script[f"{failed}@readers.example"] = [no]
        issue = self.world.open()
        self.world.drain()
        return issue

    def pages(self, path: str, limit: int, between: Any = None, **query: Any) -> list[Any]:
        """All items of a list, page by page."""
        found: list[Any] = []
        cursor: Mapping[str, str] = {}
        while True:
            page = self.get(path, limit=limit, **query, **cursor)
            assert len(page["items"]) <= limit
            found += page["items"]
            if page["next"] is None:
                return found
            cursor = {"cursor": page["next"]}
            if between:
                between()


@pytest.fixture(scope="module", params=BOTH)
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with ExitStack() as stack:
        project = Project(tmp_path_factory.mktemp("api"))
        url = f"sqlite:///{project.root}/distributor.sqlite3"
        if request.param == "postgresql":
            url = stack.enter_context(fresh_database(request.getfixturevalue("postgres_server")))
        built = build(project.settings(database={"url": url}))
        built.database.upgrade()
        newsletter = make_newsletter()
        engine = make_engine(built.database, newsletter=newsletter)
        clock = Clock()
        built.database._clock = clock
        caller = replace(built.caller, webhooks=Webhooks(built.database, [ENDPOINT]))
        reception = replace(
            built.reception, audience=engine.audience, newsletters={newsletter.slug: newsletter}
        )
        distributor = replace(
            built,
            engine=engine,
            ledger=engine.ledger,
            audience=engine.audience,
            channels=engine.channels,
            caller=caller,
            reception=reception,
        )
        served = stack.enter_context(serving(distributor))
        world = World(built.database, clock, engine, newsletter)
        yield Desk(distributor, world, served.client)


@pytest.fixture
def desk(running: Desk) -> Desk:
    empty(running.world.database)
    channel = running.world.channel
    channel.script.clear()
    channel.calls.clear()
    channel.accepted.clear()
    running.world.clock.offset = timedelta()
    running.token = running.distributor.access.create("desk", list(Permission))
    return running


class TestWhoMayCall:
    def test_these_are_all_the_calls_there_are(self, desk: Desk) -> None:
        described = {
            (method.upper(), path): operation["security"][0]["token"]
            for path, methods in desk.client.get("/openapi.json").json()["paths"].items()
            for method, operation in methods.items()
            if "security" in operation
        }
        tried = {
            (method, _described(path.partition("?")[0])): [scope] for method, path, scope, _body in CALLS
        }
        assert tried == described

    def test_nobody_without_a_token_that_allows_it(self, desk: Desk) -> None:
        desk.issue("li", failed="gone")
        revoked = desk.token_with(*Permission, name="revoked")
        desk.distributor.access.revoke("revoked")
        tokens = {
            scope: desk.token_with(*(set(Permission) - {scope}), name=f"not {scope}") for scope in Permission
        }
        before = row_counts(desk.world.database)
        for method, path, scope, body in CALLS:
            for token in ("", "dst_" + "A" * 43, revoked):
                response = desk.call(method, path, body, token=token)
                assert problem(response)["type"] == "/docs#no-token", path
                assert (response.status_code, response.headers["WWW-Authenticate"]) == (401, "Bearer")
            refused = desk.call(method, path, body, token=tokens[Permission(scope)])
            assert (refused.status_code, problem(refused)["type"]) == (403, "/docs#not-allowed")
            assert f'error="insufficient_scope", scope="{scope}"' in refused.headers["WWW-Authenticate"]
        assert row_counts(desk.world.database) == before
        issue = desk.world.ledger.issue(1)
        assert (issue.state, issue.paused) == (IssueState.SENDING, False)

    @pytest.mark.parametrize(("method", "path", "scope", "body"), CALLS)
    def test_a_token_with_its_scope_is_enough(
        self, desk: Desk, method: str, path: str, scope: str, body: Any
    ) -> None:
        desk.issue("li", failed="gone")
        response = desk.call(method, path, body, token=desk.token_with(scope))
        assert response.status_code == 200, response.text

    def test_another_scheme_is_no_token(self, desk: Desk) -> None:
        for header in (
            f"Basic {desk.token}",
            f"Token {desk.token}",
            desk.token,
            "Bearer",
            "Bearer \xff",
        ):
            response = desk.client.get("/api/issues", headers=[(b"Authorization", header.encode("latin-1"))])
            assert response.status_code == 401, header

    def test_a_token_in_the_address_or_a_cookie_is_none(self, desk: Desk) -> None:
        assert desk.client.get(f"/api/issues?token={desk.token}&access_token={desk.token}").status_code == 401
        assert desk.client.get("/api/issues", headers={"Cookie": f"token={desk.token}"}).status_code == 401


def _described(path: str) -> str:
    return path.replace("/1", "/{number}").replace("subscriptions/daily", "subscriptions/{newsletter}")


class TestSubscribers:
    def test_one_with_everything_it_subscribed_to(self, desk: Desk) -> None:
        desk.world.subscribe("li")
        found = desk.get("/api/subscribers/1")
        assert (found["address"], found["channel"], found["suppressed"]) == (
            "li@readers.example",
            "email",
            None,
        )
        (subscription,) = found["subscriptions"]
        assert (subscription["newsletter"], subscription["state"], subscription["source"]) == (
            "daily",
            "active",
            "test",
        )
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+(Z|\+00:00)", subscription["consent_at"])

    @pytest.mark.parametrize(
        ("query", "names"),
        [
            ({}, ["li", "wang", "gone"]),
            ({"newsletter": "daily"}, ["li", "wang", "gone"]),
            ({"newsletter": "weekly"}, []),
            ({"state": "active"}, ["li", "wang"]),
            ({"state": "unsubscribed"}, ["gone"]),
            ({"address": "Li@Readers.example"}, ["li"]),
            ({"address": "li@readers.example", "state": "unsubscribed"}, []),
            ({"channel": "telegram"}, []),
            ({"channel": "telegram", "address": "12345"}, []),
        ],
    )
    def test_narrowed(self, desk: Desk, query: dict[str, str], names: list[str]) -> None:
        desk.world.subscribe("li", "wang", "gone")
        desk.world.leave("gone")
        found = [one["address"] for one in desk.get("/api/subscribers", **query)["items"]]
        assert found == [f"{name}@readers.example" for name in names]

    def test_a_subscription_ends_once(self, desk: Desk) -> None:
        desk.world.subscribe("li")
        for _ in range(2):
            response = desk.call("DELETE", "/api/subscribers/1/subscriptions/daily")
            (subscription,) = response.json()["subscriptions"]
            assert (response.status_code, subscription["state"]) == (200, SubscriptionState.UNSUBSCRIBED)
            assert subscription["end_reason"] == "API token desk"

    def test_tags_and_attributes(self, desk: Desk) -> None:
        desk.world.subscribe("li")
        change = {"newsletter": "daily", "add": ["beta", "Old"], "attributes": {"city": "北京", "plan": "a"}}
        desk.call("POST", "/api/subscribers/1/tags", change)
        change = {"newsletter": "daily", "remove": ["OLD"], "attributes": {"plan": ""}}
        response = desk.call("POST", "/api/subscribers/1/tags", change)
        expected = {"tags": ["beta"], "attributes": {"city": "北京"}}
        assert (response.status_code, response.json()) == (200, expected)
        (subscription,) = desk.get("/api/subscribers/1")["subscriptions"]
        assert {key: subscription[key] for key in expected} == expected

    def test_a_tag_that_is_none(self, desk: Desk) -> None:
        desk.world.subscribe("li")
        response = desk.call("POST", "/api/subscribers/1/tags", {"newsletter": "daily", "add": ["a,b"]})
        assert (response.status_code, problem(response)["type"]) == (422, "/docs#wrong-fields")

    def test_an_address_is_suppressed(self, desk: Desk) -> None:
        desk.world.subscribe("li")
        body = {"address": " LI@Readers.example", "note": "asked by\ntelephone"}
        response = desk.call("POST", "/api/suppressions", body)
        assert response.json() == {"channel": "email", "address": "li@readers.example"}
        assert desk.get("/api/subscribers/1")["suppressed"] == SuppressionReason.MANUAL
        with desk.world.database.read() as connection:
            assert connection.execute(select(suppressions.c.note)).scalar_one() == (
                "API token desk: asked by telephone"
            )

    def test_a_complaint_stays_one(self, desk: Desk) -> None:
        desk.world.subscribe("li")
        desk.world.audience.suppress("email", "li@readers.example", SuppressionReason.COMPLAINED)
        desk.call("POST", "/api/suppressions", {"address": "li@readers.example"})
        assert desk.get("/api/subscribers/1")["suppressed"] == SuppressionReason.COMPLAINED

    def test_a_person_is_shown_and_forgotten(self, desk: Desk) -> None:
        desk.issue("li", "wang")
        shown = desk.get("/api/subscribers/1/export")
        assert shown["places"][0]["address"] == "li@readers.example"
        assert len(shown["places"][0]["deliveries"]) == 1
        done = desk.call("DELETE", "/api/subscribers/1").json()
        assert done == {
            "places": [{"channel": "email", "address": "li@readers.example"}],
            "deliveries": 1,
            "skipped": 0,
            "calls": 0,
        }
        assert desk.call("GET", "/api/subscribers/1").status_code == 404
        assert "li@" not in json.dumps(desk.get("/api/issues/1/deliveries"))
        assert desk.number_of("wang") == 2

    def test_a_person_whose_mail_is_in_hand_is_not_forgotten_yet(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        desk.world.subscribe("li")
        issue = desk.world.open()
        monkeypatch.setattr(desk.world.ledger, "in_hand", lambda *_who: [issue.id], raising=True)
        monkeypatch.setattr("distributor.web.api.subscribers.PATIENCE", timedelta(0))
        response = desk.call("DELETE", "/api/subscribers/1")
        assert (response.status_code, problem(response)["type"]) == (409, "/docs#not-possible")


class TestIssues:
    def test_one_with_its_numbers(self, desk: Desk) -> None:
        desk.issue("li", "wang", failed="gone")
        found = desk.get("/api/issues/1")
        assert (found["slug"], found["local_date"], found["state"]) == ("first", DAY.isoformat(), "sending")
        assert found["deliveries"] == {
            "email": {
                "planned": 3,
                "pending": 0,
                "sending": 0,
                "sent": 2,
                "failed": 1,
                "unconfirmed": 0,
                "skipped": 0,
            }
        }
        assert desk.get("/api/issues")["items"] == [found]

    @pytest.mark.parametrize(
        ("query", "count"),
        [
            ({"newsletter": "daily"}, 1),
            ({"newsletter": "weekly"}, 0),
            ({"state": ["sending", "waiting"]}, 1),
            ({"state": "finished"}, 0),
        ],
    )
    def test_narrowed(self, desk: Desk, query: dict[str, Any], count: int) -> None:
        desk.issue("li")
        assert len(desk.get("/api/issues", **query)["items"]) == count

    def test_paused_it_sends_nothing_until_it_is_resumed(self, desk: Desk) -> None:
        desk.world.subscribe("li")
        desk.world.open()
        assert desk.call("POST", "/api/issues/1/pause").json()["paused"] is True
        assert desk.world.drain() == 0
        assert desk.call("POST", "/api/issues/1/resume").json()["paused"] is False
        desk.world.drain()
        assert desk.get("/api/issues/1")["deliveries"]["email"]["sent"] == 1

    def test_cancelled_the_rest_is_skipped(self, desk: Desk) -> None:
        desk.world.subscribe("li", "wang")
        desk.world.open()
        found = desk.call("POST", "/api/issues/1/cancel").json()
        assert (found["state"], found["deliveries"]["email"]["skipped"]) == ("cancelled", 2)

    @pytest.mark.parametrize("how", ["pause", "resume", "cancel"])
    def test_what_is_over_stays_as_it_is(self, desk: Desk, how: str) -> None:
        desk.world.subscribe("li")
        desk.world.open()
        desk.call("POST", "/api/issues/1/cancel")
        before = desk.get("/api/issues/1")
        response = desk.call("POST", f"/api/issues/1/{how}")
        told = problem(response)
        assert (response.status_code, told["type"]) == (409, "/docs#not-possible")
        assert told["detail"] == "issue 1 is cancelled already"
        assert desk.get("/api/issues/1") == before

    def test_a_held_one_does_not_go_on(self, desk: Desk) -> None:
        desk.issue("li")
        desk.world.ledger.hold(1, "the database was set back")
        response = desk.call("POST", "/api/issues/1/resume")
        assert response.status_code == 409
        assert "is held, until somebody reconciles it" in problem(response)["detail"]
        assert desk.get("/api/issues/1")["hold"] == "the database was set back"


class TestResend:
    def test_it_is_a_dry_run_unless_that_is_denied(self, desk: Desk) -> None:
        desk.issue("li", failed="gone")
        body = {"only": "failed", "reason": "the relay was down"}
        before = row_counts(desk.world.database)
        response = desk.call("POST", "/api/issues/1/resend", body)
        assert response.json() == {"done": False, "deliveries": 1, "by_channel": {"email": 1}}
        assert row_counts(desk.world.database) == before
        assert desk.world.drain() == 0

    def test_done_it_goes_out_again_and_says_by_whom(self, desk: Desk) -> None:
        desk.issue("li", failed="gone")
        response = desk.call("POST", "/api/issues/1/resend", RESEND)
        assert response.json() == {"done": True, "deliveries": 1, "by_channel": {"email": 1}}
        with desk.world.database.read() as connection:
            asked = connection.execute(select(resends.c.asked_by, resends.c.reason)).one()
        assert tuple(asked) == ("API token desk", "the relay was down")
        desk.world.drain()
        assert desk.get("/api/issues/1")["deliveries"]["email"]["sent"] == 2
        (entry,) = desk.get("/api/deliveries", address="gone@readers.example")["items"]
        assert [attempt["reason"] for attempt in entry["attempts"]] == [None, "the relay was down"]

    def test_to_one_address(self, desk: Desk) -> None:
        desk.issue("li", "wang")
        body = {"only": "all", "reason": "lost it", "address": "LI@readers.example", "dry_run": False}
        assert desk.call("POST", "/api/issues/1/resend", body).json()["deliveries"] == 1
        desk.world.drain()
        assert [one for one in desk.world.channel.reached if one.startswith("li")] == [
            "li@readers.example"
        ] * 2

    def test_not_before_it_was_sent(self, desk: Desk) -> None:
        desk.world.subscribe("li")
        desk.world.frozen_only()
        response = desk.call("POST", "/api/issues/1/resend", RESEND)
        assert (response.status_code, problem(response)["type"]) == (409, "/docs#not-possible")

    @pytest.mark.parametrize(
        ("change", "pointer"),
        [
            ({"only": "some"}, "#/only"),
            ({"reason": ""}, "#/reason"),
            ({"reason": " \n"}, "#/reason"),
            ({"reason": "r" * 501}, "#/reason"),
            ({"dry_run": "perhaps"}, "#/dry_run"),
            ({"channel": "pigeon"}, "#/channel"),
            ({"channel": "email", "address": "nobody"}, "#/address"),
            ({"yes": True}, "#/yes"),
        ],
    )
    def test_fields_that_cannot_be_used(self, desk: Desk, change: dict[str, Any], pointer: str) -> None:
        desk.issue("li", failed="gone")
        response = desk.call("POST", "/api/issues/1/resend", {**RESEND, **change})
        assert response.status_code == 422
        assert [error["pointer"] for error in problem(response)["errors"]] == [pointer]
        assert desk.world.drain() == 0


class TestDeliveries:
    def test_with_every_try(self, desk: Desk) -> None:
        desk.issue("li", failed="gone")
        sent, failed = desk.get("/api/issues/1/deliveries")["items"]
        assert (sent["issue"], sent["number"], sent["address"]) == (1, 1, "li@readers.example")
        assert (sent["state"], sent["receipts"]) == ("sent", ["id-1"])
        assert (failed["state"], failed["code"]) == ("failed", "550")
        (attempt,) = failed["attempts"]
        assert (attempt["trigger"], attempt["outcome"], attempt["code"]) == ("scheduled", "failed", "550")

    @pytest.mark.parametrize(
        ("query", "count"),
        [
            ({"state": "failed"}, 1),
            ({"state": ["failed", "sent"]}, 3),
            ({"state": "pending"}, 0),
            ({"channel": "telegram"}, 0),
        ],
    )
    def test_narrowed(self, desk: Desk, query: dict[str, Any], count: int) -> None:
        desk.issue("li", "wang", failed="gone")
        assert len(desk.get("/api/issues/1/deliveries", **query)["items"]) == count


class TestEvents:
    @pytest.mark.parametrize(
        ("query", "count"),
        [
            ({"address": "LI@readers.example"}, 1),
            ({"address": "li@readers.example", "newsletter": "weekly"}, 0),
            ({"newsletter": "daily"}, 2),
            ({"channel": "telegram"}, 0),
            ({"kind": ["unsubscribed", "bounced"]}, 2),
            ({"kind": "bounced"}, 0),
        ],
    )
    def test_narrowed(self, desk: Desk, query: dict[str, Any], count: int) -> None:
        desk.world.subscribe("li", "wang")
        desk.world.leave("li")
        desk.world.leave("wang")
        assert len(desk.get("/api/events", **query)["items"]) == count


class TestPages:
    """While rows are added: what was there is told once, and nothing is left out."""

    def test_of_subscribers(self, desk: Desk) -> None:
        names = [f"reader{number}" for number in range(23)]
        desk.world.subscribe(*names)
        late = iter(range(100))
        found = desk.pages("/api/subscribers", 5, lambda: desk.world.subscribe(f"late{next(late)}"))
        numbers = [one["id"] for one in found]
        assert numbers == sorted(set(numbers))
        assert [one["address"].partition("@")[0] for one in found][:23] == names

    def test_of_issues(self, desk: Desk) -> None:
        desk.world.subscribe("li")
        for number in range(5):
            desk.world.open(DAY + timedelta(days=number), slug=f"post{number}")
        later = iter(range(5, 50))

        def another() -> None:
            number = next(later)
            desk.world.open(DAY + timedelta(days=number), slug=f"post{number}")

        assert [one["id"] for one in desk.pages("/api/issues", 2, another)] == [5, 4, 3, 2, 1]

    @pytest.mark.parametrize("query", [{}, {"state": "pending"}])
    def test_of_an_issues_deliveries(self, desk: Desk, query: dict[str, str]) -> None:
        desk.world.subscribe(*(f"reader{number}" for number in range(11)))
        desk.world.open()
        found = desk.pages("/api/issues/1/deliveries", 3, **query)
        assert [one["number"] for one in found] == list(range(1, 12))

    def test_of_what_an_address_got(self, desk: Desk) -> None:
        desk.world.subscribe("li", "wang")
        for number in range(5):
            desk.world.open(DAY + timedelta(days=number), slug=f"post{number}")
        later = iter(range(5, 50))

        def another() -> None:
            number = next(later)
            desk.world.open(DAY + timedelta(days=number), slug=f"post{number}")

        found = desk.pages("/api/deliveries", 2, another, address="wang@readers.example")
        assert [one["issue"] for one in found] == [5, 4, 3, 2, 1]
        assert {one["address"] for one in found} == {"wang@readers.example"}

    def test_of_events(self, desk: Desk) -> None:
        for number in range(7):
            desk.world.subscribe(f"r{number}")
            desk.world.leave(f"r{number}")
        late = iter(range(100))

        def another() -> None:
            desk.world.subscribe(name := f"late{next(late)}")
            desk.world.leave(name)

        found = desk.pages("/api/events", 3, another, kind="unsubscribed")
        assert [one["address"].partition("@")[0] for one in found] == [f"r{n}" for n in range(6, -1, -1)]
        assert {(one["kind"], one["provider"], one["detail"]) for one in found} == {
            ("unsubscribed", "distributor", "link")
        }

    def test_of_webhook_calls(self, desk: Desk) -> None:
        webhooks = desk.distributor.caller.webhooks

        def tell(number: int) -> None:
            webhooks.tell("issue.finished", f"event {number}", "daily", {"issue": number})

        for number in range(7):
            tell(number)
        later = iter(range(7, 50))
        found = desk.pages("/api/webhook-calls", 3, lambda: tell(next(later)))
        assert [one["id"] for one in found] == [7, 6, 5, 4, 3, 2, 1]
        assert {(one["endpoint"], one["kind"], one["state"]) for one in found} == {
            ("crm", "issue.finished", "pending")
        }

    @pytest.mark.parametrize("limit", [3, 4])
    def test_the_last_page_says_so(self, desk: Desk, limit: int) -> None:
        desk.world.subscribe("a", "b", "c")
        page = desk.get("/api/subscribers", limit=limit)
        assert (len(page["items"]), page["next"]) == (3, None)

    def test_a_cursor_shows_no_number(self, desk: Desk) -> None:
        desk.world.subscribe("a", "b")
        assert not re.search(r"\d{3}|:", desk.get("/api/subscribers", limit=1)["next"])

    @pytest.mark.parametrize("cursor", ["1", "x", "%00", "é", "AAAA", "c3Vic2NyaWJlcnMgLTE", "a" * 101])
    def test_what_is_no_cursor(self, desk: Desk, cursor: str) -> None:
        response = desk.call("GET", f"/api/subscribers?cursor={cursor}")
        assert response.status_code == 422
        assert [error["parameter"] for error in problem(response)["errors"]] == ["cursor"]

    def test_the_cursor_of_another_list(self, desk: Desk) -> None:
        desk.world.subscribe("a", "b")
        cursor = desk.get("/api/subscribers", limit=1)["next"]
        assert desk.call("GET", f"/api/issues?cursor={cursor}").status_code == 422


class TestOtherParameters:
    @pytest.mark.parametrize(
        ("method", "path", "others"),
        [
            ("GET", "/api/subscribers?adress=li@readers.example", ["adress"]),
            ("GET", "/api/issues?limit=3&State=sent&states=sent", ["State", "states"]),
            ("DELETE", "/api/subscribers/1?dry_run=1", ["dry_run"]),
            (
                "GET",
                "/api/issues?" + "&".join(f"{letter * 70}=1" for letter in "abcdefg"),
                [letter * 60 for letter in "abcde"],
            ),
        ],
    )
    def test_what_a_call_does_not_know_is_refused(
        self, desk: Desk, method: str, path: str, others: list[str]
    ) -> None:
        desk.world.subscribe("li")
        before = row_counts(desk.world.database)
        response = desk.call(method, path)
        assert (response.status_code, problem(response)["type"]) == (422, "/docs#wrong-fields")
        assert [error["parameter"] for error in problem(response)["errors"]] == others
        assert row_counts(desk.world.database) == before


class TestWhatIsNotThere:
    def test_a_number_that_nothing_has(self, desk: Desk) -> None:
        desk.issue("li", failed="gone")
        before = row_counts(desk.world.database)
        sorts = {404: "/docs#not-found", 422: "/docs#wrong-fields"}
        numbers = {"99": 404, str(2**53 - 1): 404, "0": 422, "-1": 422, str(2**64): 422, "x": 422}
        for method, path, _scope, body in [call for call in CALLS if "/1" in call[1]]:
            for number, status in numbers.items():
                response = desk.call(method, path.replace("/1", f"/{number}"), body)
                assert (response.status_code, problem(response)["type"]) == (status, sorts[status]), number
        assert row_counts(desk.world.database) == before

    @pytest.mark.parametrize("newsletter", ["weekly", "%00", "' OR 1=1 --", "a" * 64])
    def test_a_subscription_that_nobody_has(self, desk: Desk, newsletter: str) -> None:
        desk.world.subscribe("li")
        response = desk.call("DELETE", f"/api/subscribers/1/subscriptions/{newsletter}")
        assert response.status_code in {404, 422}
        assert desk.get("/api/subscribers/1")["subscriptions"][0]["state"] == "active"
        body = {"newsletter": "weekly", "add": ["a"]}
        assert desk.call("POST", "/api/subscribers/1/tags", body).status_code == 404

    @pytest.mark.parametrize(
        "parameter",
        [
            "subscribers?newsletter",
            "subscribers?state",
            "subscribers?channel",
            "subscribers?address",
            "subscribers?channel=telegram&address",
            "subscribers?limit",
            "issues?newsletter",
            "issues?state",
            "issues/1/deliveries?channel",
            "deliveries?address",
            "deliveries?address=li@readers.example&channel",
            "events?newsletter",
            "events?address",
            "events?kind",
            "webhook-calls?endpoint",
            "webhook-calls?state",
        ],
    )
    def test_junk_in_a_parameter(self, desk: Desk, parameter: str) -> None:
        desk.world.subscribe("li")
        desk.world.open()
        for junk in JUNK:
            response = desk.call("GET", f"/api/{parameter}={junk}")
            assert response.status_code == 422, junk
            assert (
                problem(response)["errors"][0]["parameter"] == parameter.rpartition("?")[2].rpartition("&")[2]
            )

    @pytest.mark.parametrize(
        ("content", "status", "sort"),
        [
            (b"{", 400, "unreadable"),
            (b"\xff\xfe", 400, "unreadable"),
            (b"[" * 5000, 400, "unreadable"),
            (b"", 422, "wrong-fields"),
            (b"[]", 422, "wrong-fields"),
            (b"null", 422, "wrong-fields"),
            (b'{"address": null}', 422, "wrong-fields"),
            (b'{"address": NaN}', 422, "wrong-fields"),
            (b'{"address": "\\ud800@readers.example"}', 422, "wrong-fields"),
            (b'{"address": "a\\u0000b@readers.example"}', 422, "wrong-fields"),
            (b'{"address": "somebody@readers.example", "b/~\\u0000": 1}', 422, "wrong-fields"),
        ],
    )
    def test_junk_in_the_body(self, desk: Desk, content: bytes, status: int, sort: str) -> None:
        headers = {"Authorization": f"Bearer {desk.token}", "Content-Type": "application/json"}
        before = row_counts(desk.world.database)
        response = desk.client.post("/api/suppressions", content=content, headers=headers)
        assert (response.status_code, problem(response)["type"]) == (status, f"/docs#{sort}")
        assert row_counts(desk.world.database) == before


class TestSecrets:
    def test_none_is_in_an_answer(self, desk: Desk) -> None:
        desk.issue("li", "wang", failed="gone")
        desk.world.leave("wang")
        desk.distributor.caller.webhooks.tell("issue.finished", "1", "daily", {"issue": 1})
        with desk.world.database.read() as connection:
            secrets = [
                *connection.execute(select(subscriptions.c.token)).scalars(),
                *connection.execute(select(api_tokens.c.hash)).scalars(),
                *connection.execute(select(installation.c.value)).scalars(),
            ]
        assert len(secrets) >= 4
        answers = "".join(
            json.dumps(desk.get(path.partition("?")[0], **_query(path))) for _, path, *_ in LOOKS
        )
        assert "li@readers.example" in answers
        for secret in (*secrets, desk.token, SECRET, "secret-path"):
            assert secret not in answers

    def test_the_log_says_who_did_what_and_never_the_token(
        self, desk: Desk, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        desk.issue("li", "wang", failed="gone")
        for method, path, _scope, body in CALLS:
            if path != "/api/subscribers/1":
                assert desk.call(method, path, body).status_code in {200, 409}
        desk.call("DELETE", "/api/subscribers/1")
        told = [
            record.getMessage() for record in caplog.records if record.name.startswith("distributor.web.api")
        ]
        assert [line.split()[0] for line in told] == [
            "person_exported",
            "subscription_tagged",
            "subscription_ended",
            "address_suppressed",
            "issue_changed",
            "issue_changed",
            "issue_changed",
            "issue_resent",
            "person_forgotten",
        ]
        assert all(line.endswith("by=API token desk") for line in told)
        assert not any("@" in line for line in told)
        assert desk.token not in caplog.text


def _query(path: str) -> dict[str, str]:
    return dict(httpx.URL(path).params)


def test_a_database_that_is_away_is_told(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    from distributor.errors import ServiceDown  # noqa: PLC0415

    def away(*_arguments: object) -> None:
        raise ServiceDown("postgresql://somebody:hush@db.example/ does not answer")

    monkeypatch.setattr(desk.distributor.access, "find", away)
    response = desk.call("GET", "/api/issues")
    assert (response.status_code, problem(response)["type"]) == (503, "/docs#unavailable")
    assert response.headers["Retry-After"] == "60"
    assert "hush" not in response.text
