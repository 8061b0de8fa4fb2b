"""What readers' pages do and say: the form that tells nothing, the links of our mails, the choices, the headers."""

import base64
import hashlib
import re
import string
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

import httpx
import pytest
from reader_pages import UNGUARDED, Desk, desk_of, reader_settings, sealed
from services import Project

from distributor.audience import Subscription
from distributor.dispatch import drain
from distributor.model import ConsentKind, DeliveryState, LinkPurpose, SubscriptionState, SuppressionReason
from distributor.sandbox.server import Sandbox
from distributor.schedule import tell_ended
from distributor.web.words import REASONS, WORDS

ANONYMOUS = {"Accept-Language": "zh-CN"}


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """One for all tests that keep to addresses of their own."""
    project = Project(tmp_path_factory.mktemp("pages") / "project")
    with desk_of(reader_settings(project)) as desk:
        yield desk


def address_of(request: pytest.FixtureRequest) -> str:
    digest = hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]
    return f"reader-{digest}@readers.example"


@pytest.fixture
def address(request: pytest.FixtureRequest) -> str:
    """The test's own."""
    return address_of(request)


@pytest.fixture
def reader(desk: Desk, address: str) -> Subscription:
    return desk.subscribe(address)


@pytest.fixture(scope="module")
def answers(desk: Desk) -> Mapping[str, httpx.Response]:
    reader = desk.subscribe("headers@readers.example")
    token = desk.waiting("headers-too@readers.example")
    paths = [
        *("/subscribe", "/subscribe/ai-daily", "/subscribe/ai-daily/embed", "/u", "/p", "/u/nobody"),
        *(f"/u/{reader.token}", f"/p/{reader.token}", f"/confirm/{token}", "/confirm/nobody"),
    ]
    return {path: desk.client.get(path) for path in paths}


def rows(desk: Desk, query: str) -> list[tuple[Any, ...]]:
    with desk.distributor.database.read() as connection:
        return [tuple(row) for row in connection.exec_driver_sql(query)]


def everything(desk: Desk) -> list[list[tuple[Any, ...]]]:
    tables = ("subscribers", "subscriptions", "consents", "links", "letters", "events", "resends")
    return [rows(desk, f"SELECT * FROM {table} ORDER BY 1, 2") for table in tables]


def state(desk: Desk, reader: Subscription) -> SubscriptionState:
    found = desk.audience.find(reader.token)
    assert found
    return found.state


def consents(desk: Desk, address: str) -> list[tuple[Any, ...]]:
    """(newsletter, kind, source, ip, words), as they came."""
    return rows(
        desk,
        "SELECT c.newsletter, c.kind, c.source, c.ip, t.text FROM consents c JOIN subscribers s"
        " ON s.id = c.subscriber_id LEFT JOIN consent_texts t ON t.version = c.wording"
        f" WHERE s.address = '{address}' ORDER BY c.id",
    )


def sign_up(desk: Desk, address: str, path: str = "/subscribe/ai-daily", **more: Any) -> httpx.Response:
    sent = desk.fields(path, address=address, language="zh-CN", **more)
    return desk.client.post(path, data=sent, headers=ANONYMOUS)


class TestSigningUp:
    def test_the_answer_is_the_same_whatever_is_known_of_the_address(self, desk: Desk) -> None:
        """An address that is new, asked already, active, left, suppressed."""
        desk.subscribe("active@oracle.example")
        left = desk.subscribe("left@oracle.example")
        desk.audience.unsubscribe(left.token, "test")
        desk.audience.suppress("email", "suppressed@oracle.example", SuppressionReason.COMPLAINED)
        sign_up(desk, "asked@oracle.example")
        answers = [
            sign_up(desk, f"{name}@oracle.example")
            for name in ("new", "asked", "active", "left", "suppressed")
        ]
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.content for answer in answers}) == 1
        kept = [sorted(set(answer.headers) - {"date"}) for answer in answers]
        assert all(headers == kept[0] for headers in kept)
        assert "请查收邮件" in answers[0].text

    def test_the_words_that_were_shown_are_kept_with_who_when_and_where(
        self, desk: Desk, address: str
    ) -> None:
        page = desk.client.get("/subscribe/ai-daily", headers=ANONYMOUS).text
        sign_up(desk, address)
        [(newsletter, kind, source, ip, words)] = consents(desk, address)
        assert (newsletter, kind, source, ip) == ("ai-daily", "asked", "form", "127.0.0.1")
        assert words in page
        assert "《AI 日报》" in words

    def test_of_several_newsletters_the_words_name_what_is_ticked(self, desk: Desk, address: str) -> None:
        page = desk.client.get("/subscribe", headers=ANONYMOUS).text
        sign_up(desk, address, "/subscribe", newsletter=["weekly"])
        [(newsletter, _, _, _, words)] = consents(desk, address)
        assert newsletter == "weekly"
        assert words in page
        assert "我勾选的通讯" in words

    @pytest.mark.parametrize(
        "bad", ["", "li", "li@", "li@x", "李@readers.example", f"{'x' * 300}@e.example", "a@b.example\0"]
    )
    def test_what_is_no_address_is_told_at_the_field(self, desk: Desk, bad: str) -> None:
        before = everything(desk)
        answer = sign_up(desk, bad)
        assert answer.status_code == 422
        assert 'aria-invalid="true" aria-describedby="address-wrong" autofocus' in answer.text
        assert WORDS["zh-CN"].bad_address in answer.text
        assert everything(desk) == before

    def test_what_was_typed_comes_back_escaped(self, desk: Desk) -> None:
        answer = sign_up(desk, '"><script>alert(1)</script>@x')
        assert "<script" not in answer.text
        assert "&lt;script&gt;alert(1)" in answer.text

    def test_nothing_ticked_is_told(self, desk: Desk, address: str) -> None:
        answer = sign_up(desk, address, "/subscribe")
        assert answer.status_code == 422
        assert WORDS["zh-CN"].none_chosen in answer.text
        assert consents(desk, address) == []

    @pytest.mark.parametrize("slug", ["internal", "nothing", "a%00b"])
    def test_one_that_is_not_public_is_not_there(self, desk: Desk, address: str, slug: str) -> None:
        """Also not by naming it in the form of all."""
        for method in ("GET", "POST"):
            for path in (f"/subscribe/{slug}", f"/subscribe/{slug}/embed"):
                if method == "GET" or not path.endswith("embed"):
                    answer = desk.client.request(
                        method, path, data={"address": address} if method == "POST" else None
                    )
                    assert answer.status_code == 404
        sign_up(desk, address, "/subscribe", newsletter=["weekly", slug])
        assert {row[0] for row in consents(desk, address)} == {"weekly"}

    @pytest.mark.parametrize(
        ("asked", "header", "language"),
        [
            ("", "", "zh-CN"),
            ("", "en-GB,en;q=0.9", "en"),
            ("", "fr,zh-TW;q=0.4,en;q=0.8", "en"),
            ("", "zh-Hans-CN;q=0.7, en;q=0.3", "zh-CN"),
            ("", "fr, de", "zh-CN"),
            ("", "en;q=0", "zh-CN"),
            ("", ";;,q=,en;q=x", "zh-CN"),
            ("en", "zh-CN", "en"),
            ("fr", "en", "en"),
        ],
    )
    def test_its_language(self, desk: Desk, asked: str, header: str, language: str) -> None:
        params = {"lang": asked} if asked else {}
        answer = desk.client.get("/subscribe/ai-daily", params=params, headers={"Accept-Language": header})
        assert f'<html lang="{language}">' in answer.text
        assert f'name="language" value="{language}"' in answer.text
        assert answer.headers["Vary"] == "Accept-Language"

    def test_a_program_gets_the_same_answer_and_nothing_happens(self, desk: Desk, address: str) -> None:
        caught = sign_up(desk, address, homepage="https://spam.example")
        assert caught.content == sign_up(desk, f"x{address}").content
        assert consents(desk, address) == []

    def test_an_address_for_a_day_is_refused_at_the_field(self, desk: Desk) -> None:
        answer = sign_up(desk, "li@mailinator.com")
        assert answer.status_code == 422
        assert WORDS["zh-CN"].disposable in answer.text

    def test_too_many_are_told_how_long_to_wait(self, project: Project) -> None:
        with desk_of(
            reader_settings(project, signup={"abuse": {**UNGUARDED["abuse"], "per_ip": "1/hour"}})
        ) as desk:
            assert sign_up(desk, "one@readers.example").status_code == 200
            answer = sign_up(desk, "two@readers.example")
            assert answer.status_code == 429
            assert 3000 < int(answer.headers["Retry-After"]) <= 3600
            assert "分钟再试" in answer.text

    def test_the_bare_name_of_the_site_leads_to_the_form(self, desk: Desk) -> None:
        answer = desk.client.get("/")
        assert (answer.status_code, answer.headers["Location"]) == (302, "/subscribe")

    def test_without_the_form_there_are_no_such_pages(self, project: Project) -> None:
        with desk_of(reader_settings(project, signup={"form": False})) as desk:
            assert desk.client.get("/subscribe").status_code == 404
            gone = desk.client.get("/confirm/nothing")
            assert "/subscribe" not in gone.text

    def test_a_program_s_proof_is_asked_for_where_the_form_came_without_its_seal(
        self, project: Project, address: str
    ) -> None:
        """As the form on a foreign site does: one more press, and the script may run on that page alone."""
        with desk_of(reader_settings(project, signup={"abuse": {"quickest": "1s", "work": 1}})) as desk:
            first = desk.client.get("/subscribe/ai-daily")
            assert "script-src" not in first.headers["Content-Security-Policy"]
            answer = desk.client.post("/subscribe/ai-daily", data={"address": address, "language": "zh-CN"})
            assert answer.status_code == 200
            assert WORDS["zh-CN"].once_more in answer.text
            assert f'value="{address}"' in answer.text
            assert "script-src 'self'" in answer.headers["Content-Security-Policy"]
            assert consents(desk, address) == []


class TestTheFormForOtherSites:
    def test_it_is_plain_html_that_posts_to_us(self, desk: Desk, address: str) -> None:
        page = desk.client.get("/subscribe/ai-daily/embed", headers=ANONYMOUS).text
        shown = re.search(r"<textarea[^>]*>(.*)</textarea>", page, re.DOTALL)
        assert shown
        snippet = shown[1].replace("&lt;", "<").replace("&gt;", ">").replace("&#34;", '"')
        for needless in ("<script", "style", "class", "src="):
            assert needless not in snippet
        base = desk.distributor.settings.web.base_url
        assert f'<form method="post" action="{base}/subscribe/ai-daily" accept-charset="utf-8">' in snippet
        names = re.findall(r'name="([^"]+)"', snippet)
        sent = {"language": "zh-CN", "address": address}
        assert names == list(sent)
        foreign = {"Origin": "https://blog.example", "Sec-Fetch-Site": "cross-site"}
        once_more = desk.client.post("/subscribe/ai-daily", data=sent, headers=foreign).text
        assert WORDS["zh-CN"].once_more in once_more
        assert f'value="{address}"' in once_more
        answer = desk.client.post("/subscribe/ai-daily", data={**sent, **sealed(once_more)})
        assert "请查收邮件" in answer.text
        [(_, kind, _, _, words)] = consents(desk, address)
        assert kind == "asked"
        assert words in snippet

    def test_nobody_may_put_our_page_into_a_frame(self, desk: Desk) -> None:
        for path in ("/subscribe", "/subscribe/ai-daily", "/subscribe/ai-daily/embed"):
            policy = desk.client.get(path).headers["Content-Security-Policy"]
            assert "frame-ancestors 'none'" in policy


class TestConfirming:
    def test_a_look_changes_nothing(self, desk: Desk, address: str) -> None:
        token = desk.waiting(address)
        before = everything(desk)
        for path in (f"/confirm/{token}", f"/confirm/{token}/today"):
            for method in ("GET", "HEAD", "GET"):
                assert desk.client.request(method, path).status_code == 200
        assert everything(desk) == before

    def test_the_button_begins_and_its_words_are_kept(self, desk: Desk, address: str) -> None:
        token = desk.waiting(address, newsletters=["ai-daily", "weekly"])
        page = desk.client.get(f"/confirm/{token}").text
        done = desk.confirm(token)
        assert "订阅成功" in done.text
        confirmed = [row for row in consents(desk, address) if row[1] == "confirmed"]
        assert {row[0] for row in confirmed} == {"ai-daily", "weekly"}
        for _, _, source, ip, words in confirmed:
            assert (source, ip) == ("confirmation page", "127.0.0.1")
            assert words in page
        again = desk.confirm(token)
        assert (again.status_code, len(consents(desk, address))) == (200, 4)
        assert "/p/" in again.text

    def test_what_was_asked_for_meanwhile_is_shown_before_it_is_agreed_to(
        self, desk: Desk, address: str
    ) -> None:
        token = desk.waiting(address)
        page = desk.client.get(f"/confirm/{token}").text
        wording = page.partition('name="wording" value="')[2].partition('"')[0]
        desk.waiting(address, newsletters=["weekly"])
        answer = desk.client.post(f"/confirm/{token}", data={"wording": wording})
        assert "Robots Weekly" in answer.text
        assert WORDS["zh-CN"].confirm_button in answer.text
        assert {row[1] for row in consents(desk, address)} <= {"asked"}
        assert "订阅成功" in desk.confirm(token).text

    def test_expired_unknown_and_suppressed_are_one_page(self, desk: Desk, address: str) -> None:
        expired, suppressed = desk.waiting(f"a{address}"), desk.waiting(f"b{address}")
        with desk.distributor.database.write() as connection:
            hashed = hashlib.sha256(expired.encode()).hexdigest()
            connection.exec_driver_sql(f"UPDATE links SET expires_at = '2020-01-01' WHERE hash = '{hashed}'")
        desk.audience.suppress("email", f"b{address}", SuppressionReason.BOUNCED)
        tokens = [expired, suppressed, "unknown", "%00", "x" * 300, "%E4%B8%AD"]
        before = everything(desk)
        answers = [desk.client.get(f"/confirm/{token}") for token in tokens]
        answers += [desk.client.post(f"/confirm/{token}") for token in tokens]
        answers += [desk.client.post(f"/confirm/{token}/today") for token in tokens]
        assert {answer.status_code for answer in answers} == {404}
        assert len({answer.content for answer in answers}) == 1
        assert 'href="/subscribe?lang=zh-CN"' in answers[0].text
        assert everything(desk) == before

    def test_the_page_speaks_the_reader_s_language(self, desk: Desk, address: str) -> None:
        token = desk.waiting(address, "en")
        assert WORDS["en"].confirm in desk.client.get(f"/confirm/{token}", headers=ANONYMOUS).text
        assert WORDS["en"].confirmed in desk.confirm(token).text


class TestTodaysIssue:
    @pytest.fixture
    def own(self, project: Project) -> Iterator[Desk]:
        with desk_of(reader_settings(project)) as desk:
            desk.subscribe("zhou@readers.example")
            yield desk

    def ask(self, desk: Desk, token: str, newsletter: str = "ai-daily") -> str:
        return str(desk.client.post(f"/confirm/{token}/today", data={"newsletter": newsletter}).text)

    def test_there_is_none(self, own: Desk, address: str) -> None:
        token = own.waiting(address)
        assert WORDS["zh-CN"].today_button not in own.confirm(token).text
        assert WORDS["zh-CN"].today_none in self.ask(own, token)

    def test_it_is_planned_once_however_often_somebody_asks(
        self, own: Desk, project: Project, address: str
    ) -> None:
        issue = own.send_issue(project)
        token = own.waiting(address)
        assert WORDS["zh-CN"].today_button in own.confirm(token).text
        assert WORDS["zh-CN"].today_comes in self.ask(own, token)
        assert WORDS["zh-CN"].today_sent in self.ask(own, token)
        [planned] = [entry for entry in own.distributor.ledger.log(issue.id) if entry.address == address]
        assert planned.state is DeliveryState.PENDING
        assert rows(own, "SELECT reason, asked_by, address FROM resends") == [
            ("asked for after signing up", "reader", address)
        ]

    def test_who_gets_it_with_everybody_is_told_so(self, own: Desk, project: Project, address: str) -> None:
        token = own.waiting(address)
        own.confirm(token)
        own.send_issue(project)
        assert WORDS["zh-CN"].today_sent in self.ask(own, token)
        assert rows(own, "SELECT * FROM resends") == []

    @pytest.mark.parametrize("newsletter", ["weekly", "internal", "nothing", ""])
    def test_only_of_what_the_reader_gets(
        self, own: Desk, project: Project, address: str, newsletter: str
    ) -> None:
        own.send_issue(project)
        token = own.waiting(address)
        own.confirm(token)
        assert WORDS["zh-CN"].gone in self.ask(own, token, newsletter)

    def test_who_has_not_confirmed_or_has_left_gets_none(
        self, own: Desk, project: Project, address: str
    ) -> None:
        own.send_issue(project)
        token = own.waiting(address)
        assert WORDS["zh-CN"].gone in self.ask(own, token)
        own.confirm(token)
        asked = own.audience.asked(token)
        assert asked
        own.audience.unsubscribe(asked.tokens["ai-daily"], "test")
        assert WORDS["zh-CN"].gone in self.ask(own, token)
        assert rows(own, "SELECT * FROM resends") == []

    @pytest.mark.parametrize("how", ["paused", "cancelled", "yesterday"])
    def test_what_somebody_stopped_and_old_news_are_not_sent(
        self, own: Desk, project: Project, address: str, how: str
    ) -> None:
        issue = own.send_issue(project)
        changed = {
            "paused": "paused = true",
            "cancelled": "state = 'cancelled'",
            "yesterday": "local_date = '2020-01-01'",
        }
        with own.distributor.database.write() as connection:
            connection.exec_driver_sql(f"UPDATE issues SET {changed[how]} WHERE id = {issue.id}")
        token = own.waiting(address)
        own.confirm(token)
        assert WORDS["zh-CN"].today_none in self.ask(own, token)

    def test_the_operator_hears_of_the_end_of_an_issue_once(
        self, own: Desk, project: Project, address: str
    ) -> None:
        """A reader's copy opens and ends it again: nobody at the controls waits for that."""
        issue = own.send_issue(project)
        with own.distributor.database.write() as connection:
            connection.exec_driver_sql("UPDATE deliveries SET state = 'sent'")
            connection.exec_driver_sql("UPDATE chunks SET pending = 0, sent = 1, due_at = NULL")
        ledger, engine, alerts = own.distributor.ledger, own.distributor.engine, own.distributor.alerts
        assert [each.id for each in ledger.close_finished()] == [issue.id]
        tell_ended(engine, alerts)
        token = own.waiting(address)
        own.confirm(token)
        assert WORDS["zh-CN"].today_comes in self.ask(own, token)
        with own.distributor.database.write() as connection:
            connection.exec_driver_sql("UPDATE deliveries SET state = 'sent'")
            connection.exec_driver_sql("UPDATE chunks SET pending = 0, sent = 1, due_at = NULL")
        assert [each.id for each in ledger.close_finished()] == [issue.id]
        tell_ended(engine, alerts)
        told = rows(own, "SELECT key FROM notices")
        assert [key for (key,) in told if key.startswith("finished:")] == [f"finished:{issue.id}:0"]


class TestLeaving:
    @pytest.mark.parametrize("reason", ["", *REASONS, "<b>mine</b>"])
    def test_the_page_may_ask_why_and_takes_no_words_but_ours(
        self, desk: Desk, reader: Subscription, reason: str
    ) -> None:
        page = desk.client.get(f"/u/{reader.token}").text
        for code in REASONS:
            assert f'value="{code}"' in page
        desk.client.post(f"/u/{reader.token}", data={"page": "yes", "reason": reason})
        left = desk.audience.find(reader.token)
        assert left
        known = f"unsubscribe page: {reason}" if reason in REASONS else "unsubscribe page"
        assert left.end_reason == known
        assert consents(desk, left.address)[-1][1:4] == ("withdrawn", known, "127.0.0.1")

    def test_a_mistake_is_mended_without_another_confirmation(self, desk: Desk, reader: Subscription) -> None:
        left = desk.client.post(f"/u/{reader.token}", data={"page": "yes"}).text
        back = desk.client.post(f"/u/{reader.token}/resubscribe")
        assert "欢迎回来" in back.text
        assert state(desk, reader) is SubscriptionState.ACTIVE
        newsletter, kind, source, _, words = consents(desk, reader.address)[-1]
        assert (newsletter, kind, source) == ("ai-daily", "confirmed", "unsubscribe page")
        assert words in left

    def test_a_look_at_the_way_back_changes_nothing(self, desk: Desk, reader: Subscription) -> None:
        desk.client.post(f"/u/{reader.token}")
        before = everything(desk)
        for method in ("GET", "HEAD"):
            answer = desk.client.request(method, f"/u/{reader.token}/resubscribe")
            assert answer.status_code == 200
        assert everything(desk) == before

    def test_who_never_left_stays_as_they_are(self, desk: Desk, reader: Subscription) -> None:
        before = everything(desk)
        assert "欢迎回来" in desk.client.post(f"/u/{reader.token}/resubscribe").text
        assert everything(desk) == before

    def test_a_suppressed_address_does_not_come_back(self, desk: Desk, reader: Subscription) -> None:
        desk.client.post(f"/u/{reader.token}")
        desk.audience.suppress("email", reader.address, SuppressionReason.COMPLAINED)
        page = desk.client.post(f"/u/{reader.token}/resubscribe").text
        assert "resubscribe" not in page
        assert "目前不会收到任何来信" in page
        assert state(desk, reader) is SubscriptionState.UNSUBSCRIBED

    def test_an_unknown_token_leads_nowhere(self, desk: Desk) -> None:
        for path in (
            "/u/nobody",
            "/u/nobody/resubscribe",
            "/p/nobody",
            "/p/nobody/leave",
            "/p/nobody/telegram",
        ):
            for method in ("GET", "POST"):
                answer = desk.client.request(method, path)
                assert answer.status_code == 404
                assert answer.content == desk.client.get("/u/somebody-else").content


class TestPreferences:
    def choices(self, desk: Desk, reader: Subscription) -> Mapping[str, bool]:
        """Value of a box → whether it is ticked."""
        page = desk.client.get(f"/p/{reader.token}").text
        boxes = re.findall(r'name="wanted" value="([^"]+)"( checked)?', page)
        assert re.findall(r'name="shown" value="([^"]+)"', page) == [value for value, _ in boxes]
        return {value: bool(ticked) for value, ticked in boxes}

    def save(self, desk: Desk, reader: Subscription, **sent: Any) -> str:
        return str(desk.client.post(f"/p/{reader.token}", data=sent).text)

    def newsletters(self, desk: Desk, address: str) -> set[str]:
        """Those that are active for the address."""
        return {
            slug
            for slug in desk.distributor.settings.newsletters
            for one in desk.audience.listing(slug, limit=1000)
            if one.address == address and one.state is SubscriptionState.ACTIVE
        }

    def test_it_shows_what_is_public_or_theirs(self, desk: Desk, reader: Subscription) -> None:
        number = reader.subscriber_id
        assert self.choices(desk, reader) == {f"{number}:ai-daily": True, f"{number}:weekly": False}
        desk.subscribe(reader.address, "internal")
        assert f"{number}:internal" in self.choices(desk, reader)

    def test_what_is_ticked_begins_and_what_is_not_ends(self, desk: Desk, reader: Subscription) -> None:
        page = desk.client.get(f"/p/{reader.token}").text
        shown = list(self.choices(desk, reader))
        told = self.save(desk, reader, shown=shown, wanted=[shown[1]])
        assert "已保存" in told
        assert self.newsletters(desk, reader.address) == {"weekly"}
        kinds = {row[0]: row for row in consents(desk, reader.address)}
        assert kinds["ai-daily"][1:3] == ("withdrawn", "preferences page")
        assert kinds["weekly"][1:3] == ("confirmed", "preferences page")
        assert kinds["weekly"][4] in page
        assert kinds["ai-daily"][4] is None, "nobody agrees to anything by leaving"

    def test_what_the_form_did_not_show_stays(self, desk: Desk, reader: Subscription) -> None:
        """Somebody else's form was open while it began."""
        desk.subscribe(reader.address, "weekly")
        number = reader.subscriber_id
        self.save(desk, reader, shown=[f"{number}:ai-daily"], wanted=[])
        assert self.newsletters(desk, reader.address) == {"weekly"}

    def test_nobody_chooses_what_is_not_theirs(self, desk: Desk, reader: Subscription) -> None:
        other = desk.subscribe(f"other-{reader.address}")
        number = reader.subscriber_id
        forged = [
            f"{number}:internal",
            f"{number}:nothing",
            f"{other.subscriber_id}:weekly",
            "x",
            "1:2:3",
            "",
        ]
        before = everything(desk)
        self.save(desk, reader, shown=[*forged, f"{other.subscriber_id}:ai-daily"], wanted=forged)
        assert everything(desk) == before

    def test_the_language_of_everything_that_follows(self, desk: Desk, reader: Subscription) -> None:
        assert '<html lang="en">' in self.save(desk, reader, language="en")
        assert WORDS["en"].leave_button in desk.client.get(f"/u/{reader.token}").text
        self.save(desk, reader, language="xx")
        assert '<html lang="en">' in desk.client.get(f"/p/{reader.token}").text

    def test_leaving_everything(self, desk: Desk, reader: Subscription) -> None:
        desk.subscribe(reader.address, "weekly")
        desk.subscribe(reader.address, "internal")
        page = desk.client.post(f"/p/{reader.token}/leave").text
        assert "您不会再收到我们的任何一期" in page
        assert self.newsletters(desk, reader.address) == set()
        assert WORDS["zh-CN"].leave_all_button not in page
        assert [row[1] for row in consents(desk, reader.address)] == ["withdrawn"] * 3

    def test_a_look_changes_nothing(self, desk: Desk, reader: Subscription) -> None:
        before = everything(desk)
        for path in ("", "/leave", "/telegram"):
            for method in ("GET", "HEAD"):
                assert desk.client.request(method, f"/p/{reader.token}{path}").status_code == 200
        assert everything(desk) == before

    def test_a_suppressed_address_is_told_whom_to_ask(self, desk: Desk, reader: Subscription) -> None:
        desk.audience.suppress("email", reader.address, SuppressionReason.BOUNCED)
        page = desk.client.get(f"/p/{reader.token}").text
        assert "目前不会收到任何来信" in page
        assert "daily@news.example.com" in page
        assert self.choices(desk, reader) == {}

    def test_no_address_is_shown_whole_nor_any_ip(self, desk: Desk, reader: Subscription) -> None:
        self.save(desk, reader, shown=list(self.choices(desk, reader)), wanted=[])
        page = desk.client.get(f"/p/{reader.token}").text
        assert reader.address not in page
        assert "r•••@readers.example" in page
        assert "127.0.0.1" not in page

    def test_what_is_kept_about_a_reader(self, desk: Desk, address: str) -> None:
        token = desk.waiting(address, newsletters=["ai-daily"])
        desk.confirm(token)
        asked = desk.audience.asked(token)
        assert asked
        page = desk.client.get(f"/p/{asked.tokens['ai-daily']}").text
        kept = re.findall(r"<li>(.*)</li>", page.partition("<details>")[2])
        assert [re.sub(r"<[^>]+>|^[^：]+：", "", line) for line in kept] == [
            "本人确认 · AI 日报 · 确认页面",
            "填写了地址 · AI 日报 · 订阅页面",
        ]

    def test_a_chat_is_connected_by_a_link_for_an_hour(self, project: Project, address: str) -> None:
        with desk_of(reader_settings(project, bot={"username": "daily_bot"})) as desk:
            reader = desk.subscribe(address)
            assert WORDS["zh-CN"].telegram_button in desk.client.get(f"/p/{reader.token}").text
            page = desk.client.post(f"/p/{reader.token}/telegram").text
            found = re.search(r'href="https://t\.me/daily_bot\?start=([\w-]{22})"', page)
            assert found
            hashed = hashlib.sha256(found[1].encode()).hexdigest()
            query = f"SELECT purpose, subscriber_id FROM links WHERE hash = '{hashed}'"
            assert rows(desk, query) == [(LinkPurpose.TELEGRAM, reader.subscriber_id)]

    def test_without_a_bot_there_is_no_such_link(self, desk: Desk, reader: Subscription) -> None:
        assert WORDS["zh-CN"].telegram_button not in desk.client.get(f"/p/{reader.token}").text
        assert desk.client.post(f"/p/{reader.token}/telegram").status_code == 404


class TestHeaders:
    def test_nothing_runs_nothing_is_loaded_nobody_frames(
        self, answers: Mapping[str, httpx.Response]
    ) -> None:
        for answer in answers.values():
            policy = answer.headers["Content-Security-Policy"]
            for rule in (
                "default-src 'none'",
                "form-action 'self'",
                "base-uri 'none'",
                "frame-ancestors 'none'",
            ):
                assert rule in policy
            assert "unsafe" not in policy
            assert "script" not in policy

    def test_the_style_sheet_is_known_by_its_hash(self, answers: Mapping[str, httpx.Response]) -> None:
        for answer in answers.values():
            [css] = re.findall(r"<style>(.*?)</style>", answer.text, re.DOTALL)
            digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
            assert f"style-src 'sha256-{digest}'" in answer.headers["Content-Security-Policy"]
            assert " style=" not in answer.text

    def test_no_cookie_no_referrer_no_sniffing_no_memory(self, answers: Mapping[str, httpx.Response]) -> None:
        for path, answer in answers.items():
            assert "set-cookie" not in answer.headers
            assert answer.headers["Referrer-Policy"] == "no-referrer"
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Cache-Control"] == "no-store"
            for_all = path.startswith("/subscribe") and not path.endswith("embed")
            assert answer.headers["X-Robots-Tag"] == ("all" if for_all else "noindex")

    def test_a_page_names_no_other_host(self, answers: Mapping[str, httpx.Response]) -> None:
        base = "http://127.0.0.1:8025"
        for answer in answers.values():
            assert set(re.findall(r"https?://[\w.:-]+", answer.text)) <= {base}

    def test_an_address_that_nothing_stands_at_is_a_page_too(self, desk: Desk) -> None:
        for path in ("/nothing", "/subscribe/ai-daily/x", "/u/a/b/c"):
            answer = desk.client.get(path)
            assert (answer.status_code, answer.text) == (404, desk.client.get("/u/nobody").text)
        assert desk.client.get("/api/nothing").headers["Content-Type"] == "application/problem+json"

    def test_where_only_a_form_is_taken_a_look_is_no_error(self, desk: Desk) -> None:
        for path in ("/u/nobody/resubscribe", "/p/nobody/leave", "/confirm/nobody/today"):
            answer = desk.client.get(path)
            assert answer.status_code == 404
            assert answer.headers["Content-Type"].startswith("text/html")


class TestWords:
    def test_both_languages_fill_in_the_same(self) -> None:
        def names(text: str) -> set[str]:
            return {name for _, name, _, _ in string.Formatter().parse(text) if name}

        for field in fields(WORDS["en"]):
            english, chinese = (getattr(WORDS[language], field.name) for language in ("en", "zh-CN"))
            if isinstance(english, str):
                assert english, field.name
                assert names(english) == names(chinese), field.name
            else:
                assert set(english) == set(chinese), field.name

    def test_every_kind_of_evidence_and_every_reason_has_words(self) -> None:
        for words in WORDS.values():
            assert set(words.kinds) == set(ConsentKind)
            assert tuple(words.reasons) == REASONS


def test_a_mail_that_was_frozen_before_there_were_preferences_still_goes(
    project: Project, address: str
) -> None:
    with Sandbox(None) as sandbox:
        smtp = {"host": "127.0.0.1", "port": sandbox.smtp_port, "security": "none"}
        with desk_of(reader_settings(project, email={"smtp": smtp})) as desk:
            desk.subscribe(address)
            issue = desk.send_issue(project)
            with desk.distributor.database.write() as connection:
                connection.exec_driver_sql(
                    "UPDATE messages SET content = replace(content, '__PREFERENCES_URL__', 'https://x.example'),"
                    """ placeholders = '["__UNSUBSCRIBE_URL__", "__VIEW_URL__"]'"""
                )
            drain(desk.distributor.engine, "email", seconds=10)
            assert sandbox.inbox.addresses("email") == {address: 1}
            assert "__" not in desk.client.get(f"/issues/{issue.id}").text


def test_the_whole_way_on_both_databases(project: Project, database_url: str, address: str) -> None:
    with desk_of(reader_settings(project, database={"url": database_url})) as desk:
        desk.subscribe("zhou@readers.example")
        issue = desk.send_issue(project)
        assert sign_up(desk, address).status_code == 200
        token = desk.confirmation(address)
        assert WORDS["zh-CN"].confirmed in desk.confirm(token).text
        today = {"newsletter": "ai-daily"}
        assert WORDS["zh-CN"].today_comes in desk.client.post(f"/confirm/{token}/today", data=today).text
        assert WORDS["zh-CN"].today_sent in desk.client.post(f"/confirm/{token}/today", data=today).text
        assert desk.distributor.ledger.resends_by_persons([issue.id]) == {}
        asked = desk.audience.asked(token)
        assert asked
        mail = asked.tokens["ai-daily"]
        assert WORDS["zh-CN"].left in desk.client.post(f"/u/{mail}").text
        assert WORDS["zh-CN"].back in desk.client.post(f"/u/{mail}/resubscribe").text
        assert [each.kind for each in desk.audience.evidence(mail)] == [
            "confirmed",
            "withdrawn",
            "confirmed",
            "asked",
        ]
        assert WORDS["zh-CN"].saved_none in desk.client.post(f"/p/{mail}/leave").text
