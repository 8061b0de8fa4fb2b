"""`distributor tokens …` and `distributor webhooks …`."""

import re
from collections.abc import Iterator

import pytest
from pydantic import SecretStr
from test_cli import Shop, shop

from distributor.access import Access
from distributor.bootstrap import database_url
from distributor.db import Database
from distributor.model import DeliveryState, Permission
from distributor.settings import Endpoint, load_settings
from distributor.webhooks import Webhooks

__all__ = ["shop"]  # the fixture

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ENDPOINT = Endpoint(name="crm", url="https://crm.example/hook", secrets=(SecretStr(SECRET),))


@pytest.fixture
def database(shop: Shop) -> Iterator[Database]:
    assert shop.run("db", "upgrade").status == 0
    database = Database(database_url(load_settings(shop.project.root, {})))
    yield database
    database.close()


class TestTokens:
    def test_one_is_made_shown_once_used_and_revoked(self, shop: Shop, database: Database) -> None:
        words = ("--scope", "issues:read", "--scope", "issues:write")
        made = shop.run("tokens", "create", "crm", *words)
        assert made.status == 0
        (token,) = re.findall(r"^dst_\S{43}$", made.out, re.MULTILINE)
        access = Access(database)
        found = access.find(token)
        assert found is not None
        assert found.scopes == {Permission.ISSUES_READ, Permission.ISSUES_WRITE}
        listed = shop.run("tokens", "list")
        assert "issues:read issues:write" in listed.out
        assert token not in listed.out + listed.err
        revoked = shop.run("tokens", "revoke", "crm")
        assert "crm is worth nothing any more" in revoked.out
        assert access.find(token) is None

    def test_the_list_for_programs(self, shop: Shop) -> None:
        shop.run("tokens", "create", "crm", "--scope", "events:read")
        (listed,) = shop.run("tokens", "list", "--json").json
        assert (listed["name"], listed["scopes"], listed["used"], listed["revoked"]) == (
            "crm",
            "events:read",
            "never",
            "",
        )

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["create", "crm", "--scope", "issues:read"], "'crm' already; revoke it first"),
            (["create", "two\nlines", "--scope", "issues:read"], "on one line"),
            (["create", "shop"], "--scope"),
            (["create", "shop", "--scope", "everything"], "everything"),
            (["revoke", "shop"], "no token is called 'shop'; see: distributor tokens list"),
        ],
    )
    def test_refused(self, shop: Shop, words: list[str], said: str) -> None:
        shop.run("tokens", "create", "crm", "--scope", "issues:read")
        done = shop.run("tokens", *words)
        assert done.status == 2
        assert said in done.err
        assert len(shop.run("tokens", "list", "--json").json) == 1


class TestWebhooks:
    @pytest.fixture
    def webhooks(self, shop: Shop, database: Database, monkeypatch: pytest.MonkeyPatch) -> Webhooks:
        """Two calls, the older one given up."""
        monkeypatch.setenv("DISTRIBUTOR_WEBHOOK_CRM_SECRET", SECRET)
        shop.configure(webhooks={"endpoints": [{"name": "crm", "url": str(ENDPOINT.url)}]})
        webhooks = Webhooks(database, [ENDPOINT])
        webhooks.tell("issue.finished", "1", "ai-daily", {"issue": 1})
        (call,) = webhooks.take_due("crm")
        webhooks.settle(call, DeliveryState.FAILED, code="500", text="out of order")
        webhooks.tell("issue.finished", "2", "ai-daily", {"issue": 2})
        return webhooks

    def test_what_was_told_the_newest_first(self, shop: Shop, webhooks: Webhooks) -> None:
        assert webhooks.endpoints
        listed = shop.run("webhooks", "log", "--json").json
        assert [(one["id"], one["state"], one["code"]) for one in listed] == [
            (2, "pending", ""),
            (1, "failed", "500"),
        ]
        assert "out of order" in shop.run("webhooks", "log").out

    @pytest.mark.parametrize(
        ("words", "numbers"),
        [
            (["--endpoint", "crm"], [2, 1]),
            (["--endpoint", "shop"], []),
            (["--state", "failed"], [1]),
            (["--before", "2"], [1]),
            (["--limit", "1"], [2]),
        ],
    )
    def test_some_of_it(self, shop: Shop, webhooks: Webhooks, words: list[str], numbers: list[int]) -> None:
        assert webhooks.endpoints
        assert [one["id"] for one in shop.run("webhooks", "log", *words, "--json").json] == numbers

    def test_where_it_goes_on(self, shop: Shop, webhooks: Webhooks) -> None:
        assert webhooks.endpoints
        assert "… more: --before 2" in shop.run("webhooks", "log", "--limit", "1").out
        assert SECRET not in shop.run("webhooks", "log", "--json").out

    def test_what_was_given_up_is_sent_again(self, shop: Shop, webhooks: Webhooks) -> None:
        assert shop.run("webhooks", "again", "crm").out == "1 calls go to crm again\n"
        assert [call.state for call in webhooks.listing()] == [DeliveryState.PENDING] * 2
        assert shop.run("webhooks", "again", "crm", "--number", "1").out == "0 calls go to crm again\n"

    def test_doctor_looks_for_the_secret(
        self, shop: Shop, webhooks: Webhooks, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert webhooks.endpoints
        assert "webhooks: crm is told; secrets: 1" in shop.run("doctor").out
        monkeypatch.delenv("DISTRIBUTOR_WEBHOOK_CRM_SECRET")
        said = shop.run("doctor").out
        assert "webhooks: crm has no secret: its calls are not signed" in said
        assert "DISTRIBUTOR_WEBHOOK_CRM_SECRET" in said

    @pytest.mark.parametrize("secret", ["whsec_", "whsec_dG9vIHNob3J0", "hush"])
    def test_a_secret_that_is_none_stops_the_start(
        self, shop: Shop, webhooks: Webhooks, monkeypatch: pytest.MonkeyPatch, secret: str
    ) -> None:
        assert webhooks.endpoints
        monkeypatch.setenv("DISTRIBUTOR_WEBHOOK_CRM_SECRET", secret)
        done = shop.run("webhooks", "log")
        assert done.status == 2
        assert "DISTRIBUTOR_WEBHOOK_CRM_SECRET" in done.err
        assert "expected 24 to 64 bytes in base64" in done.err
        assert secret not in done.err

    def test_an_endpoint_that_is_not_there(self, shop: Shop, webhooks: Webhooks) -> None:
        assert webhooks.endpoints
        done = shop.run("webhooks", "again", "shop")
        assert done.status == 2
        assert "no endpoint is called 'shop'; there are: crm" in done.err
