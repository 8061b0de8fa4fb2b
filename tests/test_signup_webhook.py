"""Another system signs readers up: proven first, then read; the same answer for every address; nothing by a refused call."""

import contextlib
import json
import logging
import re
import socket
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from fakes import empty
from services import Project, free_port
from serving import (
    NEXT_SECRET,
    OTHER_SECRET,
    SECRET,
    UNLIMITED,
    Served,
    problem,
    row_counts,
    serving,
    signed,
)
from sqlalchemy import Table, select

from distributor import doctor
from distributor.audience import NewSubscriber
from distributor.bootstrap import build, prepare
from distributor.cli.serve import _listen
from distributor.errors import ConfigError
from distributor.model import ConsentKind, Letter, SubscriptionState, SuppressionReason
from distributor.tables import (
    consent_texts,
    consents,
    letters,
    subscribers,
    subscription_attributes,
    subscription_tags,
    subscriptions,
)

PATH = "/api/subscribers"
ADDRESS = "li.wei@readers.example"
ASKED, VOUCHED = {"accepted": True, "confirm": True}, {"accepted": True, "confirm": False}
FORM = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=b"
SETTINGS: Mapping[str, Any] = {
    "sources": [
        {"name": "shop"},
        {"name": "church", "scope": "confirmed", "newsletters": ["ai-daily"]},
    ],
    "abuse": UNLIMITED,
}
ENVIRONMENT = {
    "DISTRIBUTOR_SIGNUP_SHOP_SECRET": f"{SECRET} {NEXT_SECRET}",
    "DISTRIBUTOR_SIGNUP_CHURCH_SECRET": OTHER_SECRET,
}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    project = Project(tmp_path_factory.mktemp("webhook"))
    settings = project.settings(environment=ENVIRONMENT, signup=SETTINGS)
    newsletters = settings.newsletters
    weekly = newsletters["ai-daily"].model_copy(update={"slug": "weekly", "language": "en"})
    distributor = build(settings.model_copy(update={"newsletters": {**newsletters, "weekly": weekly}}))
    prepare(distributor)
    with serving(distributor) as served:
        yield served


@pytest.fixture
def site(running: Served) -> Served:
    empty(running.distributor.database)
    return running


def wish(address: str = ADDRESS, **more: Any) -> dict[str, Any]:
    return {"email": address, "newsletters": ["ai-daily"], **more}


def call(site: Served, body: Any = None, **headers: Any) -> httpx.Response:
    """A signed call."""
    content = body if isinstance(body, str | bytes) else json.dumps(body or wish())
    return site.client.post(PATH, content=content, headers=signed(content, **headers))


def rows(site: Served, table: Table) -> list[Mapping[str, Any]]:
    with site.distributor.database.read() as connection:
        return [dict(row) for row in connection.execute(select(table)).mappings()]


def states(site: Served) -> dict[str, str]:
    return {row["newsletter"]: row["state"] for row in rows(site, subscriptions)}


def multipart(*fields: tuple[str, str]) -> str:
    parts = "".join(f'--b\r\nContent-Disposition: form-data; name="{n}"\r\n\r\n{v}\r\n' for n, v in fields)
    return f"{parts}--b--\r\n"


class TestSigningUp:
    def test_the_reader_is_asked_to_confirm(self, site: Served) -> None:
        response = call(site, wish(name="李伟", tags=["beta"], attributes={"city": "北京"}, language="en-GB"))
        assert (response.status_code, response.json()) == (202, ASKED)
        assert states(site) == {"ai-daily": SubscriptionState.PENDING}
        reader = rows(site, subscribers)[0]
        assert (reader["address"], reader["name"], reader["language"]) == (ADDRESS, "李伟", "en")
        assert [row["tag"] for row in rows(site, subscription_tags)] == ["beta"]
        assert [(row["name"], row["value"]) for row in rows(site, subscription_attributes)] == [
            ("city", "北京")
        ]
        assert Letter.CONFIRM in {row["kind"] for row in rows(site, letters)}

    def test_evidence_is_what_the_caller_knows_and_no_more(self, site: Served) -> None:
        call(site, wish(ip="2001:db8::0:1", consent="  Yes,\nsend me news.  "))
        evidence = rows(site, consents)[0]
        assert (evidence["kind"], evidence["source"]) == (ConsentKind.ASKED, "webhook shop")
        assert evidence["ip"] == "2001:db8::1"
        words = {row["version"]: row["text"] for row in rows(site, consent_texts)}
        assert words[evidence["wording"]] == "Yes, send me news."
        call(site, wish("other@readers.example"))
        silent = rows(site, consents)[1]
        assert (silent["ip"], silent["wording"]) == (None, None)

    @pytest.mark.parametrize("given", ["", "fr", "zh", "zh_Hant"])
    def test_a_language_we_do_not_speak_is_the_newsletter_s(self, site: Served, given: str) -> None:
        call(site, wish(language=given, newsletters=["weekly" if given in {"", "fr"} else "ai-daily"]))
        assert rows(site, subscribers)[0]["language"] == ("en" if given in {"", "fr"} else "zh-CN")

    def test_a_caller_that_may_vouches(self, site: Served) -> None:
        response = call(site, secret=OTHER_SECRET)
        assert (response.status_code, response.json()) == (202, VOUCHED)
        assert states(site) == {"ai-daily": SubscriptionState.ACTIVE}
        assert {row["kind"] for row in rows(site, consents)} == {ConsentKind.ASSERTED}

    def test_and_may_ask_for_a_confirmation_instead(self, site: Served) -> None:
        assert call(site, wish(confirm=True), secret=OTHER_SECRET).json() == ASKED
        assert states(site) == {"ai-daily": SubscriptionState.PENDING}

    def test_a_caller_that_may_not_cannot(self, site: Served) -> None:
        assert call(site, wish(confirm=False)).json() == ASKED
        assert states(site) == {"ai-daily": SubscriptionState.PENDING}

    def test_the_only_newsletter_of_a_source_need_not_be_named(self, site: Served) -> None:
        assert call(site, {"email": ADDRESS}, secret=OTHER_SECRET).status_code == 202
        assert list(states(site)) == ["ai-daily"]
        assert problem(call(site, {"email": ADDRESS}))["errors"] == [
            {"pointer": "#/newsletters", "detail": "name at least one newsletter"}
        ]

    def test_both_secrets_are_good_while_one_takes_over(self, site: Served) -> None:
        assert call(site, secret=NEXT_SECRET).status_code == 202

    @pytest.mark.parametrize(
        ("content_type", "body"),
        [
            (
                FORM,
                "email=li.wei%40readers.example&newsletters=ai-daily,weekly&name=%E6%9D%8E&confirm=on&tags=",
            ),
            (
                FORM + "; charset=UTF-8",
                "EMAIL=li.wei%40readers.example&newsletters[]=ai-daily&newsletters[]=weekly",
            ),
            (
                MULTIPART,
                multipart(("email", ADDRESS), ("newsletters", "weekly"), ("newsletters", "ai-daily")),
            ),
        ],
        ids=["urlencoded", "brackets", "multipart"],
    )
    def test_the_forms_of_site_builders(self, site: Served, content_type: str, body: str) -> None:
        response = call(site, body, content_type=content_type)
        assert (response.status_code, response.json()) == (202, ASKED)
        assert set(states(site)) == {"ai-daily", "weekly"}

    def test_fields_that_a_site_builder_adds_are_left_out(self, site: Served) -> None:
        body = "email=li.wei%40readers.example&newsletters=ai-daily&form-name=f&_gotcha=&attributes%5Bcity%5D=%E4%BA%AC"
        assert call(site, body, content_type=FORM).status_code == 202
        assert [(row["name"], row["value"]) for row in rows(site, subscription_attributes)] == [
            ("city", "京")
        ]

    def test_what_a_reader_typed_is_one_clean_line(self, site: Served) -> None:
        assert call(site, wish(name="Li\r\nBcc: x\u0000\u0085y", tags=["a\tb"])).status_code == 202
        assert rows(site, subscribers)[0]["name"] == "Li Bcc: x y"
        assert rows(site, subscription_tags)[0]["tag"] == "a b"


class TestNoOracle:
    def answer(self, site: Served, secret: str) -> tuple[int, bytes, list[str]]:
        response = call(site, secret=secret)
        return response.status_code, response.content, sorted(response.headers)

    @pytest.mark.parametrize("secret", [SECRET, OTHER_SECRET], ids=["confirm", "confirmed"])
    def test_every_address_gets_the_same_answer(self, site: Served, secret: str) -> None:
        audience = site.distributor.audience
        seen = {str(self.answer(site, secret))}  # new
        seen.add(str(self.answer(site, secret)))  # asked before
        active = audience.add("ai-daily", NewSubscriber(channel="email", address=ADDRESS, source="test"))
        seen.add(str(self.answer(site, secret)))
        audience.unsubscribe(active.token, "test")
        seen.add(str(self.answer(site, secret)))  # left
        audience.suppress("email", ADDRESS, SuppressionReason.COMPLAINED)
        before = row_counts(site.distributor.database)
        seen.add(str(self.answer(site, secret)))
        assert len(seen) == 1
        after = row_counts(site.distributor.database)
        assert after | {"inbox": 0} == before | {"inbox": 0}  # suppressed: nothing but the call's id is kept

    def test_whoever_left_is_not_begun_again_by_a_caller(self, site: Served) -> None:
        audience = site.distributor.audience
        active = audience.add("ai-daily", NewSubscriber(channel="email", address=ADDRESS, source="test"))
        audience.unsubscribe(active.token, "test")
        call(site, secret=OTHER_SECRET)
        assert states(site) == {"ai-daily": SubscriptionState.UNSUBSCRIBED}


class TestRepeating:
    def test_the_same_call_again_does_nothing_and_is_answered_alike(self, site: Served) -> None:
        first = call(site, number="msg_1")
        before = row_counts(site.distributor.database)
        again = call(site, number="msg_1")
        assert (again.status_code, again.content) == (first.status_code, first.content)
        assert row_counts(site.distributor.database) == before

    def test_its_id_with_another_body_is_a_conflict(self, site: Served) -> None:
        call(site, number="msg_1")
        before = row_counts(site.distributor.database)
        response = call(site, wish("other@readers.example"), number="msg_1")
        assert (response.status_code, problem(response)["type"]) == (409, "/docs#id-used")
        assert row_counts(site.distributor.database) == before

    def test_two_sources_may_use_one_id(self, site: Served) -> None:
        call(site, number="msg_1")
        assert call(site, number="msg_1", secret=OTHER_SECRET).status_code == 202
        assert states(site) == {"ai-daily": SubscriptionState.ACTIVE}


def deep(levels: int) -> str:
    return '{"email":' + "[" * levels + "]" * levels + "}"


def good(**more: Any) -> str:
    return json.dumps(wish(**more))


#: name → (status, type, body, what differs in the headers)
REFUSED: Mapping[str, tuple[int, str, str | bytes, dict[str, Any]]] = {
    "bad signature": (401, "not-signed", good(), {"webhook_signature": "v1," + "A" * 43 + "="}),
    "another's secret": (401, "not-signed", good(), {"secret": "whsec_" + "B" * 40}),
    "old": (401, "not-signed", good(), {"ago": timedelta(minutes=6)}),
    "from the future": (401, "not-signed", good(), {"ago": -timedelta(minutes=6)}),
    "time of another kind": (401, "not-signed", good(), {"webhook_timestamp": "soon"}),
    "id with blanks": (401, "not-signed", good(), {"webhook_id": "a b"}),
    "no UTF-8, unsigned": (401, "not-signed", b"\xff", {"webhook_signature": "v1,x"}),
    "no UTF-8": (400, "unreadable", b'{"email": "\xff"}', {}),
    "GB18030": (400, "unreadable", '{"email": "李@x.example"}'.encode("gb18030"), {}),
    "no UTF-8 in a form": (400, "unreadable", "email=%FF", {"content_type": FORM}),
    "no JSON": (400, "unreadable", '{"email": ', {}),
    "empty": (400, "unreadable", "", {}),
    "deep": (400, "unreadable", deep(9), {}),
    "very deep": (400, "unreadable", deep(20_000), {}),
    "a name twice": (400, "unreadable", '{"email": "a@x.example", "email": "b@x.example"}', {}),
    "NaN": (400, "unreadable", '{"email": NaN}', {}),
    "huge number": (400, "unreadable", '{"email": ' + "9" * 5000 + "}", {}),
    "no boundary": (400, "unreadable", "x", {"content_type": "multipart/form-data"}),
    "a file": (
        400,
        "unreadable",
        multipart(("email", ADDRESS)).replace('name="email"', 'name="email"; filename="x"'),
        {"content_type": MULTIPART},
    ),
    "a torn form": (422, "wrong-fields", "--b\r\nContent-Disp", {"content_type": MULTIPART}),
    "many fields": (400, "unreadable", "a=1&" * 200, {"content_type": FORM}),
    "wrong type": (415, "wrong-type", good(), {"content_type": "text/plain"}),
    "no type": (415, "wrong-type", good(), {"content_type": ""}),
    "wrong charset": (415, "wrong-type", good(), {"content_type": "application/json; charset=gbk"}),
    "oversized": (413, "too-large", good(name="x" * 70_000), {}),
    "no address": (422, "wrong-fields", '{"newsletters": ["ai-daily"]}', {}),
    "wrong address": (422, "wrong-fields", json.dumps(wish("nobody")), {}),
    "address with NUL": (422, "wrong-fields", json.dumps(wish("a\u0000b@readers.example")), {}),
    "half a character": (422, "wrong-fields", good(name="\ud800"), {}),
    "half a character as a name": (422, "wrong-fields", good(attributes={"\ud800": "x"}), {}),
    "unknown field": (422, "wrong-fields", good(newsletter="ai-daily"), {}),
    "a list": (422, "wrong-fields", "[]", {}),
    "null": (422, "wrong-fields", "null", {}),
    "wrong IP": (422, "wrong-fields", good(ip="here"), {}),
    "a number as text": (422, "wrong-fields", good(attributes={"age": 30}), {}),
    "many tags": (422, "wrong-fields", good(tags=[str(n) for n in range(21)]), {}),
    "unknown newsletter": (422, "wrong-fields", good(newsletters=["ai-daily", "secret"]), {}),
    "one that it may not": (422, "wrong-fields", good(newsletters=["weekly"]), {"secret": OTHER_SECRET}),
    "two addresses": (
        422,
        "wrong-fields",
        "email=a%40x.example&email=b%40x.example&newsletters=weekly",
        {"content_type": FORM},
    ),
}


class TestRefusing:
    @pytest.mark.parametrize("name", REFUSED)
    def test_says_why_and_stores_nothing(self, site: Served, name: str) -> None:
        status, kind, body, changes = REFUSED[name]
        before = row_counts(site.distributor.database)
        response = call(site, body, **changes)
        assert response.status_code == status
        told = problem(response)
        assert told["type"] == f"/docs#{kind}"
        assert ("errors" in told) == (status == 422)
        assert row_counts(site.distributor.database) == before

    @pytest.mark.parametrize("missing", ["webhook-id", "webhook-timestamp", "webhook-signature"])
    def test_unsigned(self, site: Served, missing: str) -> None:
        before = row_counts(site.distributor.database)
        headers = signed(good())
        del headers[missing]
        response = site.client.post(PATH, content=good(), headers=headers)
        assert (response.status_code, problem(response)["type"]) == (401, "/docs#not-signed")
        assert response.headers["WWW-Authenticate"]
        assert row_counts(site.distributor.database) == before

    def test_a_body_changed_on_its_way(self, site: Served) -> None:
        response = site.client.post(PATH, content=good() + " ", headers=signed(good()))
        assert response.status_code == 401
        assert rows(site, subscribers) == []

    def test_errors_lead_to_their_fields(self, site: Served) -> None:
        body = {"email": "a@@b", "newsletters": ["ai-daily"], "tags": ["good", ""], "a/b~": 1}
        errors = {error["pointer"]: error["detail"] for error in problem(call(site, body))["errors"]}
        assert set(errors) == {"#/email", "#/tags/1", "#/a~1b~0"}

    def test_a_long_body_without_a_length_is_not_read_to_its_end(self, site: Served) -> None:
        def pieces() -> Iterator[bytes]:
            for _ in range(100):
                yield b"x" * 1000

        response = site.client.post(PATH, content=pieces(), headers=signed(""))
        assert (response.status_code, problem(response)["type"]) == (413, "/docs#too-large")

    def test_too_many_for_one_address(self, tmp_path: Path) -> None:
        settings = Project(tmp_path).settings(environment=ENVIRONMENT, signup={"sources": [{"name": "shop"}]})
        distributor = build(settings)
        prepare(distributor)
        with serving(distributor) as site:
            taken = [call(site, number=f"msg_{number}").status_code for number in range(5)]
            before = row_counts(distributor.database)
            response = call(site)
            repeated = call(site, number="msg_1")
            after = row_counts(distributor.database)
        assert taken == [202] * 5
        assert (response.status_code, problem(response)["type"]) == (429, "/docs#too-often")
        assert 0 < int(response.headers["Retry-After"]) <= 86400
        assert (repeated.status_code, repeated.json()) == (202, ASKED)  # no sign-up, but one that was
        assert after == before

    def test_an_address_that_lives_for_a_day(self, site: Served) -> None:
        before = row_counts(site.distributor.database)
        response = call(site, wish("somebody@mailinator.com"))
        assert (response.status_code, problem(response)["errors"][0]["pointer"]) == (422, "#/email")
        assert row_counts(site.distributor.database) == before

    def test_without_the_database(self, tmp_path: Path) -> None:
        url = f"postgresql://nobody@127.0.0.1:{free_port()}/nothing"
        settings = Project(tmp_path).settings(environment=ENVIRONMENT, signup=SETTINGS, database={"url": url})
        with serving(build(settings)) as site:
            response = call(site)
            assert (response.status_code, problem(response)["type"]) == (503, "/docs#unavailable")
            assert int(response.headers["Retry-After"]) > 0
            assert "127.0.0.1" not in response.text
            assert call(site, "x").status_code == 400  # whoever sends nonsense hears that first

    @pytest.mark.parametrize(
        ("method", "path", "status"),
        [("PUT", PATH, 405), ("GET", "/api/nothing", 404), ("PUT", "/api/", 404)],
    )
    def test_what_is_not_there_is_a_problem_too(
        self, site: Served, method: str, path: str, status: int
    ) -> None:
        response = site.client.request(method, path)
        assert response.status_code == status
        assert problem(response)["type"] == "about:blank"


class TestTheLog:
    def test_has_no_secret_and_no_address(self, site: Served, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.INFO, "distributor"):
            call(site, number="msg_7")
            call(site, number="msg_7", webhook_signature="v1,forged")
            call(site, '{"email": "li.wei@readers.example", "oops": 1}', number="msg_8")
        text = caplog.text
        assert (
            "signup_taken source=shop id=msg_7 answer=asked vouched=False address=l•••@readers.example"
            in text
        )
        assert "signup_forged" in text
        assert "signup_refused source=shop id=msg_8 why=wrong-fields" in text
        assert ADDRESS not in text
        assert not any(secret[6:] in text for secret in (SECRET, NEXT_SECRET, OTHER_SECRET))

    def test_nobody_writes_lines_of_their_own_into_it(
        self, site: Served, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.INFO, "distributor"):
            call(site, wish(name="x\nsignup_taken source=forged"))
        assert len([line for line in caplog.text.splitlines() if "signup_taken" in line]) == 1


#: Bytes that no client of good will sends.
JUNK: Mapping[str, bytes] = {
    "no HTTP": b"\x00\x01\x02\r\n\r\n",
    "half a head": b"POST /api/subscribers HTTP/1.1\r\nHost",
    "bad chunking": b"POST /api/subscribers HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nxx\r\n",
    "a chunk that ends early": b"POST /api/subscribers HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nxx",
    "two lengths": b"POST /api/subscribers HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "length and chunks": b"POST /api/subscribers HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a length beyond measure": b"POST /api/subscribers HTTP/1.1\r\nHost: x\r\nContent-Length: "
    + b"9" * 30
    + b"\r\n\r\n",
    "a shorter body": b"POST /api/subscribers HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n{}",
    "huge headers": b"POST /api/subscribers HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 200_000 + b"\r\n\r\n",
    "NUL in a header": b"POST /api/subscribers HTTP/1.1\r\nHost: x\r\nwebhook-id: a\x00b\r\n\r\n",
    "latin-1 in a header": b"POST /api/subscribers HTTP/1.1\r\nHost: x\r\nwebhook-id: \xe9\r\nwebhook-timestamp: \xb2\r\nwebhook-signature: \xff\r\n\r\n",
    "an id a thousand times": b"POST /api/subscribers HTTP/1.1\r\nHost: x\r\n"
    + b"webhook-id: a\r\n" * 1000
    + b"\r\n",
    "a path with NUL": b"POST /api/subscribers%00 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
}


@pytest.mark.parametrize("name", JUNK)
def test_junk_does_no_harm(site: Served, name: str) -> None:
    with socket.create_connection(("127.0.0.1", site.port), timeout=10) as connection:
        answer = b""
        with contextlib.suppress(OSError):  # it may hang up in the middle
            connection.sendall(JUNK[name])
            connection.shutdown(socket.SHUT_WR)
            answer = connection.recv(64)
    assert not answer or re.match(rb"HTTP/1\.1 4\d\d ", answer), answer
    assert not any(row_counts(site.distributor.database)[table.name] for table in (subscribers, letters))
    assert call(site).status_code == 202


class TestSettings:
    @pytest.mark.parametrize(
        ("secrets", "said"),
        [
            (
                {"DISTRIBUTOR_SIGNUP_SHOP_SECRET": "whsec_short"},
                "DISTRIBUTOR_SIGNUP_SHOP_SECRET: a secret: expected",
            ),
            (
                {"DISTRIBUTOR_SIGNUP_SHOP_SECRET": SECRET, "DISTRIBUTOR_SIGNUP_CHURCH_SECRET": SECRET},
                "the same",
            ),
        ],
    )
    def test_secrets_that_cannot_work_are_mistakes(
        self, tmp_path: Path, secrets: dict[str, str], said: str
    ) -> None:
        with pytest.raises(ConfigError, match=said) as told:
            Project(tmp_path).settings(environment=secrets, signup=SETTINGS)
        assert not any(secret[6:] in str(told.value) for secret in secrets.values())

    def test_a_name_stands_there_once(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="twice: shop"):
            Project(tmp_path).settings(signup={"sources": [{"name": "shop"}, {"name": "shop"}]})

    def test_a_source_s_newsletters_exist(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="shop: no newsletter is called 'nope'"):
            Project(tmp_path).settings(signup={"sources": [{"name": "shop", "newsletters": ["nope"]}]})

    def test_the_doctor_names_the_secret_that_is_missing_and_prints_none(self, tmp_path: Path) -> None:
        environment = {"DISTRIBUTOR_SIGNUP_SHOP_SECRET": SECRET}
        settings = Project(tmp_path).settings(environment=environment, signup=SETTINGS)
        shop, church = (doctor.signup_source(source) for source in settings.signup.sources)
        assert "secrets: 1" in str(shop)
        assert "DISTRIBUTOR_SIGNUP_CHURCH_SECRET" in str(church)
        assert SECRET[6:] not in str([*doctor.effective(settings), shop, church])


def test_the_pages_port_is_known_to_be_tcp(project: Project) -> None:
    """asyncio turns Nagle's algorithm off for nothing else, and answers would come 40 ms late."""
    distributor = build(project.settings(web={"port": free_port()}))
    with _listen(distributor) as listening:
        assert listening.proto == socket.IPPROTO_TCP
    distributor.close()
