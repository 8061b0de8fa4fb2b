"""The pages behind a mail's links, from a real server: one click unsubscribes, a look changes nothing."""

import os
import re
import socket
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from services import OwnServer, Project, Server, fresh_database
from web_site import Site, serving

from distributor.bootstrap import build
from distributor.dispatch import drain
from distributor.model import (
    DeliveryState,
    Issue,
    IssueState,
    OpenedBy,
    SkipReason,
    SubscriptionState,
)
from distributor.posts import read_post
from distributor.rehearsal import into_sandbox
from distributor.sandbox.server import Sandbox

POST = "---\ntitle: 今天的收据\ndate: 2026-03-05\n---\n\n谁收到了，谁没有收到，都写在账上。\n"
ONE_CLICK = "List-Unsubscribe=One-Click"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
MULTIPART = {"Content-Type": "multipart/form-data; boundary=b"}
MULTIPART_BODY = (
    '--b\r\nContent-Disposition: form-data; name="List-Unsubscribe"\r\n\r\nOne-Click\r\n--b--\r\n'
)
#: Everything that a provider may send, or forget to send.
BODIES = {
    "form": (FORM, ONE_CLICK),
    "multipart": (MULTIPART, MULTIPART_BODY),
    "empty": ({}, ""),
    "button": (FORM, ""),
    "nonsense": ({"Content-Type": "multipart/form-data"}, "\x00 not a form"),
}


@pytest.fixture
def site(project: Project) -> Iterator[Site]:
    project.write_post("receipts", POST)
    with serving(project.settings()) as site:
        yield site


class TestUnsubscribing:
    def test_a_look_changes_nothing(self, site: Site) -> None:
        """Scanners and link previews fetch every link of a mail."""
        reader = site.subscribe()
        for method in ("GET", "HEAD", "GET"):
            response = site.client.request(method, f"/u/{reader.token}")
            assert response.status_code == 200
            assert (response.text == "") is (method == "HEAD")
        assert site.state(reader) is SubscriptionState.ACTIVE
        page = site.client.get(f"/u/{reader.token}").text
        assert '<form method="post">' in page
        assert "确认退订" in page
        assert "l•••@readers.example" in page
        assert "li@readers.example" not in page

    @pytest.mark.parametrize("body", BODIES)
    def test_one_post_is_enough_whatever_it_holds(self, site: Site, body: str) -> None:
        reader = site.subscribe()
        headers, content = BODIES[body]
        for _again in range(2):
            response = site.client.post(f"/u/{reader.token}", headers=headers, content=content)
            assert (response.status_code, response.history) == (200, [])
            assert "set-cookie" not in response.headers
            assert "已退订" in response.text
            assert site.state(reader) is SubscriptionState.UNSUBSCRIBED
        first = site.distributor.audience.find(reader.token)
        assert first is not None
        assert first.end_reason == "one click"

    def test_it_ends_one_subscription_and_no_other(self, site: Site) -> None:
        reader, other = site.subscribe(), site.subscribe("wang@readers.example")
        site.client.post(f"/u/{reader.token}")
        assert site.state(other) is SubscriptionState.ACTIVE

    def test_who_has_left_sees_that_and_the_way_back(self, site: Site) -> None:
        reader = site.subscribe()
        site.client.post(f"/u/{reader.token}")
        page = site.client.get(f"/u/{reader.token}").text
        assert "已退订" in page
        assert "确认退订" not in page
        assert f'action="/u/{reader.token}/resubscribe"' in page

    @pytest.mark.parametrize(
        "token", ["nobody-has-this", "x" * 300, "%00", "%E4%B8%AD", "a%27%20OR%201=1", "test"]
    )
    def test_an_unknown_token_gets_one_and_the_same_page(self, site: Site, token: str) -> None:
        asked, posted = site.client.get(f"/u/{token}"), site.client.post(f"/u/{token}", content=ONE_CLICK)
        assert (asked.status_code, posted.status_code) == (404, 404)
        assert asked.text == posted.text == site.client.get("/u/another-one").text
        assert "这个链接不完整，或者已经失效" in asked.text
        assert site.client.head(f"/u/{token}").status_code == 404

    def test_the_way_from_the_mail_s_header_to_a_skipped_delivery(
        self, project: Project, tmp_path: Path
    ) -> None:
        """The URL of `List-Unsubscribe`, posted as a provider does it, before the next delivery."""
        project.write_post("receipts", POST)
        with Sandbox(None) as sandbox:
            settings = into_sandbox(project.settings(), sandbox, tmp_path / "x.sqlite3")
            with serving(settings) as site:
                reader = site.subscribe()
                site.open_issue()
                drain(site.distributor.engine, "email", seconds=10)
                [entry] = sandbox.inbox.entries("email", "li@readers.example")
                header = re.search(rb"List-Unsubscribe: <(\S+)>", sandbox.inbox.mail(entry.id))
                assert header
                path = urlsplit(header[1].decode()).path
                assert site.client.post(path, headers=FORM, content=ONE_CLICK).status_code == 200
                assert site.state(reader) is SubscriptionState.UNSUBSCRIBED

    def test_who_leaves_after_the_freeze_is_skipped(self, project: Project, tmp_path: Path) -> None:
        project.write_post("receipts", POST)
        with Sandbox(None) as sandbox:
            settings = into_sandbox(project.settings(), sandbox, tmp_path / "x.sqlite3")
            with serving(settings) as site:
                reader, _stays = site.subscribe(), site.subscribe("wang@readers.example")
                issue = site.open_issue()
                site.client.post(f"/u/{reader.token}", content=ONE_CLICK)
                drain(site.distributor.engine, "email", seconds=10)
                assert sandbox.inbox.addresses("email") == {"wang@readers.example": 1}
                [entry] = site.distributor.ledger.log(issue.id, states=[DeliveryState.SKIPPED])
                assert (entry.address, entry.reason) == ("li@readers.example", "unsubscribed")


class TestTheBrowserSCopy:
    def test_it_is_the_mail_without_anything_of_a_reader(self, site: Site) -> None:
        reader = site.subscribe()
        issue = site.open_issue()
        response = site.client.get(f"/issues/{issue.id}")
        assert response.status_code == 200
        assert "都写在账上" in response.text
        assert reader.token not in response.text
        assert "__UNSUBSCRIBE_URL__" not in response.text
        assert "__PREFERENCES_URL__" not in response.text
        assert "__VIEW_URL__" not in response.text
        base = site.distributor.settings.web.base_url
        assert f'href="{base}/u"' in response.text
        assert f'href="{base}/p"' in response.text
        assert "script" not in response.headers["Content-Security-Policy"]
        assert site.client.head(f"/issues/{issue.id}").status_code == 200

    @pytest.mark.parametrize("path", ["/u", "/p"])
    def test_the_links_at_its_foot_explain_themselves(self, site: Site, path: str) -> None:
        response = site.client.get(path)
        assert response.status_code == 200
        assert "不属于任何一位读者" in response.text
        assert "<button" not in response.text

    @pytest.mark.parametrize("number", ["1", "0", "-1", "abc", "9" * 30, "1%00"])
    def test_one_that_is_not_there(self, site: Site, number: str) -> None:
        response = site.client.get(f"/issues/{number}")
        assert response.status_code == 404
        assert "没有找到" in response.text

    def test_what_nobody_approved_is_not_shown(self, project: Project) -> None:
        project.write_post("receipts", POST)
        with serving(project.settings(newsletter={"schedule": {"approval": "required"}})) as site:
            site.subscribe()
            issue = site.open_issue(by=OpenedBy.SCHEDULER)
            assert site.client.get(f"/issues/{issue.id}").status_code == 404
            site.distributor.ledger.approve(issue.id, "chen")
            assert site.client.get(f"/issues/{issue.id}").status_code == 200


def goes_out(site: Site, **options: OpenedBy) -> Issue:
    """An issue with one reader."""
    site.subscribe()
    return site.open_issue(**options)


class TestTheSite:
    PAGES = ("/archive/", "/archive/ai-daily/", "/archive/ai-daily/receipts/", "/archive/ai-daily/feed.xml")

    @pytest.fixture
    def open_site(self, site: Site) -> Site:
        goes_out(site)
        return site

    @pytest.mark.parametrize("path", PAGES)
    def test_what_went_out_is_there_for_everybody_to_keep(self, open_site: Site, path: str) -> None:
        response = open_site.client.get(path)
        assert response.status_code == 200
        assert "今天的收据" in response.text
        headers = response.headers
        assert headers["Cache-Control"] == "public, max-age=300"
        assert headers["X-Robots-Tag"] == "all"
        assert "noindex" not in response.text
        assert headers["X-Content-Type-Options"] == "nosniff"
        policy = headers["Content-Security-Policy"]
        assert "script" not in policy
        for rule in ("default-src 'none'", "img-src https:", "form-action 'none'", "frame-ancestors 'none'"):
            assert rule in policy
        kind = "application/atom+xml" if path.endswith(".xml") else "text/html"
        assert headers["Content-Type"] == f"{kind}; charset=utf-8"

    @pytest.mark.parametrize("path", PAGES)
    def test_who_has_it_already_is_told_so(self, open_site: Site, path: str) -> None:
        tag = open_site.client.get(path).headers["ETag"]
        assert open_site.client.head(path).headers["ETag"] == tag
        assert open_site.client.head(path).text == ""
        for known in (tag, f"W/{tag}", f'"other", {tag}'):
            response = open_site.client.get(path, headers={"If-None-Match": known})
            assert (response.status_code, response.content) == (304, b"")
            assert response.headers["ETag"] == tag
        assert open_site.client.get(path, headers={"If-None-Match": '"other"'}).status_code == 200

    def test_nothing_of_a_reader_is_on_any_page(self, site: Site) -> None:
        reader = site.subscribe()
        site.open_issue()
        for path in self.PAGES:
            text = site.client.get(path).text
            assert reader.token not in text
            assert "li@readers" not in text
            assert "/u/" not in text

    @pytest.mark.parametrize(
        "path",
        [
            *("nowhere/", "nowhere/feed.xml", "ai-daily/nothing/", "ai-daily/feed.xml/", "ai-daily/..%2f/"),
            *("ai-daily/%2e%2e/", "ai-daily/..%2f..%2fconfig%2f", "..%2f..%2fconfig/", "ai-daily/%00/"),
            *("ai-daily/index.html/", "ai-daily/.hidden/", f"ai-daily/{'x' * 3000}/"),
        ],
    )
    @pytest.mark.parametrize("folder", ["", "var/site"])
    def test_what_is_not_there_and_ways_out(self, project: Project, path: str, folder: str) -> None:
        project.write_post("receipts", POST)
        secret = project.root / "config/index.html"
        secret.write_text("secret", "utf-8")
        with serving(project.settings(site={"folder": folder})) as site:
            goes_out(site)
            response = site.client.get(f"/archive/{path}")
            assert response.status_code == 404
            assert "secret" not in response.text
            assert response.headers["Cache-Control"] == "no-store"

    def test_what_has_not_gone_out_is_not_there(self, project: Project) -> None:
        project.write_post("receipts", POST)
        with serving(project.settings(newsletter={"schedule": {"approval": "required"}})) as site:
            assert site.client.get("/archive/ai-daily/receipts/").status_code == 404
            issue = goes_out(site, by=OpenedBy.SCHEDULER)
            assert site.client.get("/archive/ai-daily/receipts/").status_code == 404
            for path in ("/archive/", "/archive/ai-daily/", "/archive/ai-daily/feed.xml"):
                assert "今天的收据" not in site.client.get(path).text
            site.distributor.ledger.approve(issue.id, "chen")
            assert site.client.get("/archive/ai-daily/receipts/").status_code == 200
            assert "今天的收据" in site.client.get("/archive/ai-daily/feed.xml").text

    @pytest.mark.parametrize(
        ("state", "reason"),
        [
            (IssueState.CANCELLED, SkipReason.CANCELLED),
            (IssueState.EXPIRED, SkipReason.EXPIRED),
        ],
    )
    def test_what_was_cancelled_instead_of_approved_is_shown_nowhere(
        self, project: Project, state: IssueState, reason: SkipReason
    ) -> None:
        project.write_post("receipts", POST)
        with serving(project.settings(newsletter={"schedule": {"approval": "required"}})) as site:
            issue = goes_out(site, by=OpenedBy.SCHEDULER)
            with site.distributor.database.write() as connection:
                connection.exec_driver_sql("UPDATE issues SET expires_at = '2000-01-01 00:00:00'")
            site.distributor.ledger.stop_issue(issue.id, state, reason)
            assert site.distributor.ledger.issue(issue.id).state is state
            assert site.distributor.ledger.messages(issue.id, "email")
            for path in (f"/issues/{issue.id}", "/archive/ai-daily/receipts/"):
                assert site.client.get(path).status_code == 404
            for path in ("/archive/", "/archive/ai-daily/", "/archive/ai-daily/feed.xml"):
                assert "今天的收据" not in site.client.get(path).text

    @pytest.mark.parametrize("name", ["2026-03-05-早报", "a&b +c", "长" * 120])
    def test_a_slug_of_any_kind_is_found_under_the_address_that_is_mailed(
        self, project: Project, name: str
    ) -> None:
        project.write_post("receipts", POST.replace("title:", f'slug: "{name}"\ntitle:'))
        with serving(project.settings(web={"base_url": "https://news.example.com"})) as site:
            issue = goes_out(site)
            address = site.distributor.site.page_of(issue)
            assert address
            assert address.isascii()
            assert site.client.get(urlsplit(address).path).status_code == 200
            mail = site.distributor.ledger.messages(issue.id, "email")["default"][0]
            assert f'href="{address}"' in mail.content["html"]

    def test_where_the_source_is_gone_the_frozen_mail_is_shown(self, open_site: Site) -> None:
        root = open_site.distributor.settings.root
        (root / "posts/receipts.md").unlink()
        response = open_site.client.get("/archive/ai-daily/receipts/")
        base = open_site.distributor.settings.web.base_url
        assert (response.status_code, response.headers["Location"]) == (302, f"{base}/issues/1")
        assert "今天的收据" in open_site.client.get("/archive/ai-daily/").text

    def test_a_broken_correction_leads_to_the_frozen_mail_too(self, open_site: Site) -> None:
        path = open_site.distributor.settings.root / "posts/receipts.md"
        path.write_text(POST + "\n[dead](nowhere.html)\n", "utf-8")
        assert open_site.client.get("/archive/ai-daily/receipts/").status_code == 302
        assert open_site.client.get("/archive/ai-daily/feed.xml").status_code == 200

    def test_files_in_a_folder_do_not_keep_what_was_corrected_or_withdrawn(self, project: Project) -> None:
        project.write_post("receipts", POST)
        with serving(project.settings(site={"folder": "public"})) as site:
            issue = goes_out(site)
            path = project.root / "posts/receipts.md"
            site.distributor.site.publish(
                issue, read_post(path, site.distributor.settings.newsletters["ai-daily"].zone)
            )
            page = project.root / "public/ai-daily/receipts/index.html"
            assert "谁收到了" in page.read_text("utf-8")
            path.write_text(POST.replace("谁收到了", "更正：谁收到了"), "utf-8")
            os.utime(path, (1, 1))  # as an archive is unpacked: older than the page
            for address in self.PAGES[2:]:
                assert "更正" in site.client.get(address).text
            path.write_text(POST.replace("title:", "draft: true\ntitle:"), "utf-8")
            for address in ("/archive/", "/archive/ai-daily/", "/archive/ai-daily/feed.xml"):
                assert "今天的收据" not in site.client.get(address).text
            assert site.client.get("/archive/ai-daily/receipts/").status_code == 302
            path.unlink()
            assert "谁收到了" in site.client.get("/archive/ai-daily/receipts/").text
            assert page.exists()

    def test_a_post_without_an_issue_is_withdrawn_as_well(self, project: Project) -> None:
        project.write_post("receipts", POST)
        with serving(project.settings(site={"folder": "public"})) as site:
            site.distributor.site.build("ai-daily", project.root / "public", all_posts=True)
            assert site.client.get("/archive/ai-daily/receipts/").status_code == 200
            project.write_post("receipts", POST.replace("title:", "draft: true\ntitle:"))
            assert site.client.get("/archive/ai-daily/receipts/").status_code == 404

    def test_a_correction_is_seen_at_once(self, open_site: Site) -> None:
        path = open_site.distributor.settings.root / "posts/receipts.md"
        tags = {page: open_site.client.get(page).headers["ETag"] for page in self.PAGES[2:]}
        path.write_text(POST.replace("都写在账上", "更正：都写在账上"), "utf-8")
        for page, tag in tags.items():
            response = open_site.client.get(page, headers={"If-None-Match": tag})
            assert response.status_code == 200
            assert "更正" in response.text

    def test_the_folder_s_files_are_what_is_served(self, project: Project) -> None:
        project.write_post("receipts", POST)
        with serving(project.settings(site={"folder": "var/site"})) as site:
            goes_out(site)
            path = project.root / "var/site/ai-daily/receipts/index.html"
            path.write_text("<!doctype html>\nwritten", "utf-8")
            assert "written" in site.client.get("/archive/ai-daily/receipts/").text
            path.unlink()
            assert "都写在账上" in site.client.get("/archive/ai-daily/receipts/").text

    def test_search_engines_are_sent_away_on_demand(self, project: Project) -> None:
        project.write_post("receipts", POST)
        with serving(project.settings(site={"index": False})) as site:
            goes_out(site)
            for path in self.PAGES:
                assert site.client.get(path).headers["X-Robots-Tag"] == "noindex"
            assert '<meta name="robots" content="noindex">' in site.client.get(self.PAGES[2]).text

    def test_there_is_none_when_the_settings_say_so(self, project: Project) -> None:
        project.write_post("receipts", POST)
        with serving(project.settings(site={"serve": False})) as site:
            goes_out(site)
            assert {site.client.get(path).status_code for path in self.PAGES} == {404}


class TestHardening:
    @pytest.mark.parametrize("path", ["/u/x", "/u", "/issues/1", "/healthz", "/nowhere", "/"])
    def test_every_answer_has_its_headers(self, site: Site, path: str) -> None:
        headers = site.client.get(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["X-Robots-Tag"] == "noindex"
        assert headers["Cache-Control"] == "no-store"
        assert headers["Content-Security-Policy"].startswith("default-src 'none'")

    def test_pages_may_load_nothing_and_send_forms_home_only(self, site: Site) -> None:
        policy = site.client.get("/u").headers["Content-Security-Policy"]
        for rule in ("form-action 'self'", "frame-ancestors 'none'", "base-uri 'none'"):
            assert rule in policy

    @pytest.mark.parametrize("framing", ["Content-Length: 52428800", "Transfer-Encoding: chunked"])
    def test_a_huge_body_is_not_kept_in_memory(self, site: Site, framing: str) -> None:
        reader = site.subscribe()
        tracemalloc.start()
        try:
            status = post_megabytes(site.port, f"/u/{reader.token}", framing, 50)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert status == b"413"
        assert peak < 10 * 2**20
        assert site.state(reader) is SubscriptionState.ACTIVE
        assert site.client.get("/healthz").status_code == 200

    def test_a_newsletter_in_english_has_english_pages(self, project: Project) -> None:
        with serving(project.settings(newsletter={"language": "en", "title": "The <Daily>"})) as site:
            reader = site.subscribe()
            page = site.client.get(f"/u/{reader.token}").text
            assert '<html lang="en">' in page
            assert "Leave “The &lt;Daily&gt;”?" in page
            assert "You have left" in site.client.post(f"/u/{reader.token}").text
            assert "no longer valid" in site.client.get("/u/x").text


class TestHealth:
    def test_it_answers_while_the_database_does(self, site: Site) -> None:
        response = site.client.get("/healthz")
        assert (response.status_code, response.text) == (200, "ok\n")

    @pytest.mark.services
    def test_without_the_database_every_page_says_503_and_recovers(
        self, project: Project, postgres_server: Server
    ) -> None:
        if not isinstance(postgres_server, OwnServer):
            pytest.skip("the server is not ours to stop")
        with fresh_database(postgres_server) as url:
            settings = project.settings(database={"url": url})
            upgraded = build(settings)
            upgraded.database.upgrade()
            upgraded.close()
            with serving(settings) as site:
                reader = site.subscribe()
                assert site.client.get("/u/%00").status_code == 404
                postgres_server.stop()
                for method, path in (
                    ("GET", "/healthz"),
                    ("POST", f"/u/{reader.token}"),
                    ("GET", "/issues/1"),
                ):
                    response = site.client.request(method, path)
                    assert response.status_code == 503, path
                    assert response.headers["Retry-After"] == "60"
                    assert response.headers["Cache-Control"] == "no-store"
                postgres_server.start()
                assert site.client.get("/healthz").status_code == 200
                assert site.client.post(f"/u/{reader.token}", content=ONE_CLICK).status_code == 200


def post_megabytes(port: int, path: str, framing: str, megabytes: int) -> bytes:
    """The status that so large a body gets."""
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n".encode()
    piece, end = b"x" * 2**20, b""
    if "chunked" in framing:
        piece, end = b"100000\r\n" + piece + b"\r\n", b"0\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(head)
        for _ in range(megabytes):
            connection.sendall(piece)
        connection.sendall(end)
        return connection.recv(12)[9:]
