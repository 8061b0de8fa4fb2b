"""The preview as a page: what it shows, how it follows a save, and that nothing of a post comes alive in it."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import html5lib
import httpx
import pytest
from browser import Chrome
from previewing import ARTICLE, NEWS, NOW, Scripted, desk_of, serving
from rendering_samples import EVERYTHING, ZONE, make_newsletter, make_post
from services import ROOT, Project

from distributor.errors import PostError
from distributor.model import Message
from distributor.preview import likeness
from distributor.preview.board import (
    MOST_BOARDS,
    Board,
    Desk,
    Meter,
    installed_channels,
    named_post,
    newest,
    send_time,
    view_of,
)
from distributor.preview.server import SANDBOX, Pages, listen
from distributor.preview.watching import Watch, stamp_of

POST = "---\ntitle: {title}\ndate: 2026-03-05\n---\n\n## 头条\n\n**一条新闻** 它的第一句。[来源](https://example.com/a)\n"
BOTH = {"channels": {"email": {"subscribers": True}, "telegram": {"subscribers": True}}}


def write(project: Project, name: str = "first", title: str = "安静的早晨", more: str = "") -> Path:
    return project.write_post(name, POST.format(title=title) + more)


def parsed(html: str) -> Any:
    return html5lib.parse(html, namespaceHTMLElements=False)


def text_of(element: Any) -> str:
    return " ".join("".join(element.itertext()).split())


def part(page: str, name: str) -> Any:
    return parsed(page).find(f".//*[@data-part='{name}']")


class Events:
    """The server's events, over a socket of their own."""

    def __init__(self, response: httpx.Response) -> None:
        self._lines = response.iter_lines()

    def next(self) -> str:
        """The stamp of the next change."""
        for line in self._lines:
            if line.startswith("data: "):
                return line.removeprefix("data: ")
        raise AssertionError("the stream has ended")


class TestPage:
    def test_every_channel_side_by_side(self, project: Project) -> None:
        project.settings(newsletter=BOTH)
        write(project, more="\n![图](https://example.com/p.png)\n")
        desk = desk_of(project, Scripted("wechat", ("article", ARTICLE)))
        with serving(desk) as address:
            page = httpx.get(address + "/").text
            tree = parsed(page)
            frames = [frame.get("src") for frame in tree.iter("iframe")]
            assert [src.partition("&v=")[0] for src in frames] == [
                *("/mail/light?post=first.md", "/mail/dark?post=first.md") * 2,
                "/article?post=first.md",
            ]
            for src in frames:
                assert httpx.get(address + src).status_code == 200
        assert [section.get("id") for section in tree.iter("section") if section.get("id")] == [
            *("email", "telegram", "wecom", "wechat")
        ]
        assert "一条新闻" in text_of(part(page, "telegram"))
        assert {text_of(each).removesuffix("Copy") for each in part(page, "wecom").iter("figcaption")} == {
            *("markdown_v2", "markdown", "text")
        }
        assert "not used by this newsletter" in text_of(part(page, "wecom").find("h2"))
        assert "not used" not in text_of(part(page, "telegram").find("h2"))
        about = text_of(part(page, "about"))
        facts = [(text_of(each[0]), text_of(each[1])) for each in part(page, "about").findall("dl/div")]
        assert facts[:4] == [
            ("file", "posts/first.md"),
            ("slug", "first"),
            ("date", "2026-03-05 00:00"),
            ("language", "zh-CN"),
        ]
        assert "Goes out: Thu 2026-03-05 07:30 Asia/Shanghai" in about

    def test_an_inbox_row_has_sender_subject_and_first_words(self, project: Project) -> None:
        write(project)
        row = parsed_page(desk_of(project)).find(".//*[@class='inbox dark']")
        assert text_of(row) == "A AI 日报 daily@news.example.com 安静的早晨一条新闻 它的第一句。 07:30"

    def test_meters_stand_beside_each_message(self, project: Project) -> None:
        project.settings(newsletter=BOTH)
        write(project, more="\n很长的一段话。" * 420)
        tree = parsed_page(desk_of(project))
        meters = tree.findall(".//*[@data-part='telegram']//*[@class='measure near']/meter")
        assert meters
        for meter in meters:
            assert 0.7 <= int(meter.get("value")) / int(meter.get("max")) <= 1
            assert tree.find(f".//*[@id='{meter.get('aria-labelledby')}']") is not None

    def test_a_news_card_and_a_channel_of_another_package(self, project: Project) -> None:
        write(project)
        tree = parsed_page(
            desk_of(
                project,
                Scripted("wecom", ("news", NEWS)),
                Scripted("pigeon", ("small", {"note": "<b>coo</b>"})),
            )
        )
        card = tree.find(".//*[@class='news']")
        assert card.get("href") == NEWS["url"]
        assert card.find(".//img").get("src") == NEWS["picurl"]
        assert text_of(card).startswith(NEWS["title"])
        assert text_of(tree.find(".//*[@id='pigeon']//dl")) == "note<b>coo</b>"

    def test_a_variant_of_tomorrow_is_shown_as_it_stands(self, project: Project) -> None:
        write(project)
        messages = (
            ("default", {"html": "<b>now</b>", "plain": "now", "preview_url": ""}),
            ("rich", {"blocks": "<h1>"}),
        )
        tree = parsed_page(desk_of(project, Scripted("telegram", *messages)))
        telegram = tree.find(".//*[@id='telegram']")
        assert [text_of(bubble) for bubble in telegram.iterfind(".//*[@class='said']")] == ["now", "now"]
        assert text_of(telegram.find(".//dl")) == "blocks<h1>"

    def test_a_channel_that_cannot_be_shown_leaves_the_others(self, project: Project) -> None:
        write(project)
        desk = desk_of(project, Scripted("wechat", error=RuntimeError("no such luck")))
        tree = parsed_page(desk)
        assert "Cannot be shown: RuntimeError: no such luck" in text_of(tree.find(".//*[@id='wechat']"))
        assert tree.find(".//*[@data-part='troubles']/*") is None  # the newsletter does not use it
        assert tree.find(".//*[@id='email']//iframe") is not None

    def test_warnings_are_told_once_with_their_channels(self, project: Project) -> None:
        project.settings(newsletter=BOTH)
        desk, board = desk_of(project), None
        write(project, more="\n![](https://example.com/p.png)\n")
        board = desk.board()
        view = replace(board.panels[0].views[0], message=warned("far"))
        panels = [replace(panel, views=[view]) for panel in board.panels]
        assert replace(board, panels=panels).warnings == [("far", ["email", "telegram"])]

    def test_the_chooser_has_every_post_newest_first(self, project: Project) -> None:
        write(project, "today")
        project.write_post("old", "---\ntitle: old\ndate: 2026-03-01\ndraft: true\n---\n\nText.\n")
        project.write_post("undated", "No date at all.\n")
        project.write_post("bad", "---\ntitle: [\n---\n")
        tree = parsed_page(desk_of(project))
        options = [(option.get("value"), text_of(option)) for option in tree.iter("option")]
        assert options == [
            ("today.md", "2026-03-05 · 安静的早晨"),
            ("old.md", "2026-03-01 · old (draft)"),
            ("undated.md", "no date · undated"),
            ("bad.md", "no date · bad.md (cannot be read)"),
        ]
        assert [option.get("value") for option in tree.iter("option") if "selected" in option.attrib] == [
            "today.md"
        ]

    def test_another_post_is_a_link(self, project: Project) -> None:
        write(project)
        write(project, "second", "另一天")
        with serving(desk_of(project)) as address:
            assert "<title>另一天 · Preview</title>" in httpx.get(address + "/?post=second.md").text
            gone = httpx.get(address + "/?post=third.md")
            assert 'there is no post "third.md"' in text_of(part(gone.text, "troubles"))
            assert httpx.get(address + "/mail/light?post=third.md").status_code == 404

    def test_no_file_outside_the_folder_is_read(self, project: Project) -> None:
        write(project)
        (project.root / "secret.md").write_text("# hush\n", "utf-8")
        with serving(desk_of(project)) as address:
            for key in ("../secret.md", str(project.root / "secret.md")):
                assert "hush" not in httpx.get(address + "/", params={"post": key}).text
            for path in ("/..%2f..%2fpyproject.toml", "/page.html.j2"):
                assert httpx.get(address + path).status_code == 404

    def test_a_post_beside_the_folder_can_be_named(self, project: Project, tmp_path: Path) -> None:
        outside = tmp_path / "elsewhere.md"
        outside.write_text(POST.format(title="在别处"), "utf-8")
        board = desk_of(project, opened=outside).board()
        assert (board.post and board.post.title, board.key) == ("在别处", str(outside))

    def test_an_empty_folder_says_so(self, project: Project) -> None:
        tree = parsed_page(desk_of(project))
        assert "no post is here yet" in text_of(tree.find(".//*[@data-part='troubles']"))


class TestFollowing:
    def test_a_save_is_told_and_shown(self, project: Project) -> None:
        write(project)
        with (
            serving(desk_of(project)) as address,
            httpx.stream("GET", address + "/events", timeout=20) as answer,
        ):
            assert answer.headers["content-type"].startswith("text/event-stream")
            events = Events(answer)
            first = httpx.get(address + "/").text
            seen = {events.next(), stamp_in(first)}
            write(project, title="吵闹的早晨")
            told = [events.next()]
            second = httpx.get(address + "/").text
            if told[0] in seen:  # the folder was not known before the first page
                told.append(events.next())
        assert "安静的早晨" in first
        assert "吵闹的早晨" in second
        assert stamp_in(second) == told[-1]

    @pytest.mark.parametrize(
        "name", ["config/distributor.toml", "config/newsletters/ai-daily.toml", "posts/first.md"]
    )
    def test_what_is_watched(self, project: Project, name: str) -> None:
        write(project)
        desk = desk_of(project)
        before = desk.board().stamp
        assert desk.board().stamp == before
        with (project.root / name).open("a", encoding="utf-8") as file:
            file.write("\n# more\n")
        assert desk.board().stamp != before

    def test_a_template_of_the_project_is_watched_and_used(self, project: Project) -> None:
        write(project)
        desk = desk_of(project)
        desk.board()
        override(project, "{{ wrap('my own footer', 70) }} {{ unsubscribe_url }} {{ view_url }}\n")
        assert "my own footer" in email_text(desk.board())

    def test_many_who_ask_look_once(self) -> None:
        looks: list[int] = []
        watch = Watch(lambda: looks.append(1) or [])  # type: ignore[func-returns-value]
        assert len({watch.stamp() for _ in range(50)}) == 1
        assert len(looks) == 1
        watch.stamp(now=True)
        assert len(looks) == 2

    def test_a_file_that_goes_and_comes_back_as_another_is_a_change(self, tmp_path: Path) -> None:
        path = tmp_path / "a.md"
        path.write_text("same", "utf-8")
        before = stamp_of([path])
        new = tmp_path / "b"
        new.write_text("same", "utf-8")
        os.utime(new, ns=(path.stat().st_mtime_ns,) * 2)
        new.replace(path)
        assert stamp_of([path]) != before
        assert stamp_of([tmp_path / "gone.md"]) == stamp_of([])


class TestTrouble:
    def test_a_broken_post_keeps_the_last_good_rendering_and_recovers(self, project: Project) -> None:
        path = write(project)
        with serving(desk_of(project, opened=path)) as address:
            good = httpx.get(address + "/").text
            path.write_text("---\ntitle: 早晨\ndate: [\n---\n\ntext\n", "utf-8")
            broken = httpx.get(address + "/").text
            mail = httpx.get(address + "/mail/light").text
            write(project, title="又好了")
            mended = httpx.get(address + "/").text
        banner = text_of(part(broken, "troubles"))
        assert re.match(r"posts/first\.md:\d+ ", banner)
        assert "Below is the last good rendering" in banner
        assert "安静的早晨" in mail
        assert "安静的早晨" in text_of(part(broken, "telegram"))
        for page in (good, mended):
            assert text_of(part(page, "troubles")) == ""
        assert "又好了" in mended

    def test_a_link_to_nowhere_is_told_once_with_its_line(self, project: Project) -> None:
        project.settings(newsletter=BOTH)
        desk, path = desk_of(project), write(project)
        desk.board()
        write(project, more="\n[nowhere](javascript:alert(1))\n")
        [trouble] = desk.board().troubles
        assert (trouble.file, trouble.line) == ("posts/first.md", len(path.read_text("utf-8").splitlines()))
        assert trouble.source == "[nowhere](javascript:alert(1))"
        assert [panel.views != () for panel in desk.board().panels if panel.used] == [True, True]

    def test_the_last_good_rendering_is_never_another_posts(self, project: Project) -> None:
        write(project, "yesterday", "昨天")
        later = Scripted("email", error=PostError(project.root / "posts/new.md", "far too long"))
        desk = desk_of(project)
        assert desk.board().panels[0].views
        project.write_post("new", "---\ntitle: 今天\ndate: 2026-03-06\n---\n\nText.\n")
        (project.root / "posts/yesterday.md").unlink()
        desk.channels = desk_of(project, later).channels
        board = desk.board()
        assert board.post
        assert (board.post.title, board.panels[0].views) == ("今天", ())

    def test_a_broken_setting(self, project: Project) -> None:
        write(project)
        desk = desk_of(project)
        desk.board()
        path = project.root / "config/newsletters/ai-daily.toml"
        good = path.read_text("utf-8")
        path.write_text(good + "\nlanguage = 'tlh'\n", "utf-8")
        board = desk.board()
        [trouble] = board.troubles
        assert "config/newsletters/ai-daily.toml" in trouble.reason
        assert str(project.root) not in trouble.reason
        assert board.post
        path.write_text(good, "utf-8")
        assert desk.board().troubles == []

    @pytest.mark.parametrize(
        ("template", "line", "reason"),
        [
            ("one\n{% if %}\n", 2, "Expected an expression"),
            ("one\ntwo\n{{ nobody_knows }}\n", 3, "is undefined"),
        ],
        ids=["syntax", "undefined"],
    )
    def test_a_broken_template(self, project: Project, template: str, line: int, reason: str) -> None:
        write(project)
        path = override(project, template)
        [trouble] = desk_of(project).board().troubles
        assert (trouble.file, trouble.line) == (str(path.relative_to(project.root)), line)
        assert reason in trouble.reason
        assert trouble.source == template.splitlines()[line - 1]

    def test_a_channel_that_is_not_installed(self, project: Project) -> None:
        write(project)
        project.settings(newsletter={"channels": {"email": {}, "pigeon": {}}})
        board = desk_of(project).board()
        assert [trouble.reason for trouble in board.troubles] == ["no channel is called 'pigeon'"]
        assert [(panel.channel, len(panel.views)) for panel in board.panels[:2]] == [
            ("email", 1),
            ("pigeon", 0),
        ]

    def test_a_post_that_is_named_and_broken_is_opened_all_the_same(self, project: Project) -> None:
        path = project.write_post("bad", "---\ntitle: [\n---\n")
        folder = project.root / "posts"
        assert named_post(folder, "bad", ZONE) == path.resolve()
        with pytest.raises(PostError, match='no post is called "worse"'):
            named_post(folder, "worse", ZONE)
        assert desk_of(project, opened=path).board().troubles[0].file == "posts/bad.md"


HOSTILE = """
<script>top.hacked = 1</script>
<img src="https://example.com/x.png" onerror="top.hacked = 2">
<iframe srcdoc="<script>top.hacked = 3</script>"></iframe>

Text <svg onload="top.hacked = 4"> and `</script><script>top.hacked = 5</script>`.

![" onerror="top.hacked = 6](https://example.com/p.png)
"""
EVIL = '"><script>top.hacked = 7</script><img src=x onerror="top.hacked = 8">'


class TestSafety:
    """The editor's own posts are no enemy; what they paste from elsewhere may be."""

    @pytest.fixture
    def hostile(self, project: Project) -> Desk:
        project.settings(newsletter=BOTH)
        title = json.dumps(EVIL)
        project.write_post(
            "evil", f"---\ntitle: {title}\ndate: 2026-03-05\ncategories: [{title}]\n---\n{HOSTILE}"
        )
        return desk_of(
            project,
            Scripted("wechat", ("article", {**ARTICLE, "title": EVIL, "content": EVIL, "digest": EVIL})),
            Scripted("telegram", ("default", {"html": EVIL, "plain": EVIL, "preview_url": EVIL})),
            Scripted(
                "wecom", ("markdown", {"markdown": EVIL}), ("news", {**NEWS, "title": EVIL, "picurl": EVIL})
            ),
            Scripted("pigeon", (EVIL, {EVIL: EVIL})),
        )

    def test_nothing_of_a_post_becomes_an_element_of_the_page(self, hostile: Desk) -> None:
        tree = parsed_page(hostile)
        assert [script.get("src") for script in tree.iter("script")] == ["/page.js"]
        for element in tree.iter():
            assert not [name for name in element.attrib if str(name).startswith("on")], element.tag
            for name in ("href", "src"):
                assert not str(element.get(name, "")).lower().startswith(("javascript:", "data:text"))
        assert "Telegram would refuse this" in text_of(tree.find(".//*[@data-part='telegram']"))

    def test_nothing_comes_alive_in_a_browser(self, hostile: Desk, chrome: Chrome) -> None:
        with serving(hostile) as address:
            chrome.show(address + "/", width=1200, ready="document.querySelector('#live.on')")
            assert chrome.evaluate("typeof window.hacked") == "undefined"
            assert chrome.evaluate("document.querySelectorAll('iframe').length") == 5
            assert chrome.evaluate(
                "[...document.querySelectorAll('iframe')].every((frame) => typeof frame.contentWindow.hacked === 'undefined')"
            )

    def test_the_policy_of_page_and_frames(self, hostile: Desk) -> None:
        with serving(hostile) as address:
            page = httpx.get(address + "/")
            policy = page.headers["content-security-policy"]
            assert "default-src 'none'; script-src 'self'; style-src 'self';" in policy
            assert "frame-ancestors 'none'" in policy
            assert page.headers["cache-control"] == "no-store"
            frames = list(parsed(page.text).iter("iframe"))
            assert {frame.get("sandbox") for frame in frames} == {SANDBOX}
            assert "allow-scripts" not in SANDBOX
            for frame in frames:
                answer = httpx.get(address + frame.get("src"))
                policy = answer.headers["content-security-policy"]
                assert policy.startswith(
                    "default-src 'none'; style-src 'unsafe-inline'; img-src https: http: data:;"
                )
                assert policy.endswith(f"sandbox {SANDBOX}")
            source = httpx.get(address + "/article/source")
            assert source.headers["content-type"].startswith("text/plain")
            assert source.headers["x-content-type-options"] == "nosniff"

    def test_only_this_machine_under_its_own_name(self, project: Project) -> None:
        write(project)
        with serving(desk_of(project)) as address:
            assert httpx.get(address + "/", headers={"Host": "rebound.example.com"}).status_code == 400
            port = int(address.rpartition(":")[2])
            assert httpx.get(f"http://localhost:{port}/").status_code == 200
            assert listening_on(port) == {"127.0.0.1"}

    @pytest.mark.parametrize(
        ("headers", "status"),
        [
            ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}, 403),
            ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}, 403),
            ({"Sec-Fetch-Site": "cross-site"}, 403),
            (
                {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
                200,
            ),
            ({"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"}, 200),
            ({"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}, 200),
        ],
    )
    def test_pages_of_other_sites_may_lead_here_and_not_ask(
        self, project: Project, headers: dict[str, str], status: int
    ) -> None:
        write(project)
        desk = desk_of(project)
        with serving(desk) as address:
            answer = httpx.get(address + "/", headers=headers)
            assert answer.status_code == status
            assert answer.headers["x-content-type-options"] == "nosniff"
        assert (desk._boards == {}) == (status == 403)

    def test_keys_that_are_no_posts_leave_nothing_behind(self, project: Project) -> None:
        write(project)
        desk = desk_of(project)
        desk.board()
        for number in range(50):
            [trouble] = desk.board(f"x{number}").troubles
            assert "there is no post" in trouble.reason
        assert set(desk._boards) == {"", "first.md"}

    def test_boards_of_many_posts_are_kept_by_their_last_use(self, project: Project) -> None:
        names = [f"post-{number:02}" for number in range(MOST_BOARDS + 5)]
        for name in names:
            write(project, name)
        desk = desk_of(project)
        kept = desk.board("post-00.md")
        for name in names[1:]:
            desk.board(f"{name}.md")
            assert desk.board("post-00.md") is kept
        assert len(desk._boards) == MOST_BOARDS

    def test_the_page_asks_for_nothing_from_outside(self, project: Project) -> None:
        write(project)
        with serving(desk_of(project)) as address:
            page = httpx.get(address + "/").text
            for name in ("/page.css", "/page.js"):
                assert name in page
                asset = httpx.get(address + name)
                assert "://" not in asset.text
                assert asset.headers["content-type"].startswith(("text/css", "text/javascript"))


class TestBrowser:
    """What a script does, in a real browser."""

    def test_the_page_follows_a_save_and_keeps_what_did_not_change(
        self, project: Project, chrome: Chrome
    ) -> None:
        path = write(project, more="\n一段很长的话，为了有地方可滚。\n" * 60)
        with serving(desk_of(project, opened=path)) as address:
            chrome.show(address + "/", width=1200, ready="document.querySelector('#live.on')")
            chrome.evaluate(
                "window.before = document.querySelector('iframe'); window.before.contentWindow.scrollTo(0, 300);"
                " document.querySelector('.chat').scrollTo(0, 200)"
            )
            chrome.evaluate("document.getElementById('post').focus()")
            write(project, title="吵闹的早晨", more="\n一段很长的话，为了有地方可滚。\n" * 60)
            chrome.wait_until("document.title.startsWith('吵闹')")
            chrome.wait_until("document.querySelector('iframe').contentWindow.scrollY === 300")
            assert chrome.evaluate("document.querySelector('.chat').scrollTop") == 200
            assert chrome.evaluate("document.querySelector('iframe') !== window.before")
            assert chrome.evaluate("document.activeElement.id") == "post"
            path.write_text("---\ntitle: [\n---\n", "utf-8")
            chrome.evaluate("window.before = document.querySelector('iframe'); 0")
            chrome.wait_until("document.querySelector('.trouble')")
            assert chrome.evaluate("document.querySelector('iframe') === window.before")
            write(project, title="又好了")
            chrome.wait_until("!document.querySelector('.trouble') && document.title.startsWith('又好了')")

    def test_the_chooser_goes_from_post_to_post_and_keeps_the_focus(
        self, project: Project, chrome: Chrome
    ) -> None:
        write(project)
        write(project, "second", "另一天")
        with serving(desk_of(project)) as address:
            chrome.show(address + "/", width=1200, ready="document.querySelector('#live.on')")
            chrome.evaluate(
                "window.post = document.getElementById('post'); post.focus(); post.value = 'second.md';"
                " post.dispatchEvent(new Event('change', { bubbles: true }))"
            )
            chrome.wait_until("document.title.startsWith('另一天')")
            assert (
                chrome.evaluate("location.search + ' ' + document.activeElement.id") == "?post=second.md post"
            )
            chrome.evaluate("history.back()")
            chrome.wait_until("document.title.startsWith('安静的早晨')")

    def test_the_server_going_away_is_told(self, project: Project, chrome: Chrome) -> None:
        write(project)
        with serving(desk_of(project)) as address:
            chrome.show(address + "/", width=1200, ready="document.querySelector('#live.on')")
        chrome.wait_until("document.querySelector('#live.off')?.textContent.includes('the server is away')")

    @pytest.mark.parametrize("newer", [True, False], ids=["clipboard API", "the old way"])
    def test_the_article_is_copied_with_its_formatting(
        self, project: Project, chrome: Chrome, newer: bool
    ) -> None:
        write(project)
        with serving(desk_of(project, Scripted("wechat", ("article", ARTICLE)))) as address:
            chrome.show(address + "/", width=1200, ready="sources.size === 1")
            chrome.allow("clipboardReadWrite", "clipboardSanitizedWrite")
            if not newer:
                chrome.evaluate("delete window.ClipboardItem")
            chrome.evaluate("document.querySelector('[data-article]').click()")
            chrome.wait_until("document.getElementById('told').textContent === 'Copied'")
            html = chrome.evaluate(clipboard("text/html"))
            text = chrome.evaluate(clipboard("text/plain"))
        assert 'src="https://images.example.com/cover.png"' in html
        assert "border-left: 4px solid" in html.replace("border-left:4px", "border-left: 4px")
        assert "<strong" in html
        assert text.startswith("头条\n新模型发布，价格减半。")

    def test_a_text_is_copied_as_it_is(self, project: Project, chrome: Chrome) -> None:
        write(project)
        desk = desk_of(project, Scripted("wecom", ("markdown_v2", {"markdown": "# a <b>\n> c"})))
        with serving(desk) as address:
            chrome.show(address + "/", width=1200)
            chrome.allow("clipboardReadWrite", "clipboardSanitizedWrite")
            chrome.evaluate("document.querySelector('#wecom [data-copy]').click()")
            chrome.wait_until("document.getElementById('told').textContent === 'Copied'")
            assert chrome.evaluate(clipboard("text/plain")) == "# a <b>\n> c"

    def test_the_colour_schemes_of_the_frames_are_their_own(self, project: Project, chrome: Chrome) -> None:
        write(project)
        ground = "getComputedStyle(document.querySelectorAll('iframe')[{}].contentDocument.querySelector('.sheet')).backgroundColor"
        with serving(desk_of(project)) as address:
            for dark in (False, True):
                chrome.show(address + "/", width=1200, dark=dark)
                light_sheet, dark_sheet = (chrome.evaluate(ground.format(number)) for number in (0, 1))
                assert brightness(light_sheet) > 200
                assert brightness(dark_sheet) < 60


class TestLikeness:
    def test_dark_rules_are_settled(self) -> None:
        html = (
            "<html><head><style>@media (prefers-color-scheme:dark) { a {} }"
            "@media (max-width: 600px) and ( prefers-color-scheme: LIGHT ) { b {} }</style></head>"
            '<body><picture><source media="(prefers-color-scheme: dark)" srcset="d.png"></picture>'
            "<p>(prefers-color-scheme: dark)</p></body></html>"
        )
        dark, light = likeness.mail(html, dark=True), likeness.mail(html, dark=False)
        assert "@media (min-width: 0) { a {} }" in dark
        assert "(max-width: 600px) and (max-width: 0) { b {} }" in dark
        assert 'media="(min-width: 0)"' in dark
        assert "<p>(prefers-color-scheme: dark)</p>" in dark  # a text stays
        assert "@media (max-width: 0) { a {} }" in light
        assert "(max-width: 600px) and (min-width: 0) { b {} }" in light
        assert '<head><base target="_blank"><style>:root { color-scheme: only dark; }' in dark
        assert likeness.mail("<p>x</p>", dark=False).endswith("</style><p>x</p>")

    def test_the_preheader_ends_where_its_padding_begins(self) -> None:
        padded = "<head><title>t</title></head><body><div style='display:none'>first  words&#847;&nbsp;&#847;</div>then"
        assert likeness.preheader(padded) == "first words"
        assert likeness.preheader("<p>no <b>head</b></p>") == "no head"

    def test_a_bubble_is_what_telegram_reads(self) -> None:
        shown = likeness.bubble("<b>a</b> &lt;i&gt; <pre><code class='language-py'>x</code></pre>\n\nend")
        assert shown == "<b>a</b> &lt;i&gt; <pre>x</pre>\nend"
        assert likeness.bubble("<script>x").startswith("<strong>Telegram would refuse this: ")
        assert "<script" not in likeness.bubble("<script>x")

    def test_a_card_has_the_dialects_colours(self) -> None:
        shown = likeness.card("markdown", {"markdown": '<font color="comment">grey</font> <b>no</b>'})
        assert '<span class="comment">grey</span> &lt;b&gt;no&lt;/b&gt;' in shown
        assert likeness.card("text", {"text": "a\n<b>"}) == "<p class=plain>a\n&lt;b&gt;</p>"


class TestValues:
    @pytest.mark.parametrize(
        ("value", "level"), [(0, "fine"), (69, "fine"), (70, "near"), (100, "near"), (101, "over")]
    )
    def test_levels_of_a_meter(self, value: int, level: str) -> None:
        assert Meter(name="bytes", value=value, limit=100).level == level

    def test_limits_of_single_texts(self) -> None:
        view = view_of(
            Message(channel="wecom", variant="news", content={"title": "题" * 43, "description": "x"})
        )
        assert [(meter.name, meter.value, meter.limit) for meter in view.meters] == [
            ("utf8_bytes", 1, 512),
            ("title utf8_bytes", 129, 128),
        ]

    @pytest.mark.parametrize(
        ("post", "schedule", "words"),
        [
            ({}, {}, "Thu 2026-03-05 07:30 Asia/Shanghai"),
            ({"draft": True}, {}, "only when a person sends it by name: it is a draft"),
            ({"date": None}, {}, "only when a person sends it by name: it has no date"),
            (
                {},
                {"skip": [date(2026, 3, 5)]},
                "only when a person sends it: Thu 2026-03-05 is a day without an issue",
            ),
            ({}, {"jitter": "5m"}, "Thu 2026-03-05 07:30 Asia/Shanghai at the earliest"),
            (
                {},
                {"approval": "required"},
                "Thu 2026-03-05 07:30 Asia/Shanghai at the earliest, after approval",
            ),
        ],
    )
    def test_when_it_goes_out(self, post: dict[str, Any], schedule: dict[str, Any], words: str) -> None:
        assert send_time(make_post("text", **post), make_newsletter(schedule=schedule)) == words

    def test_todays_post_else_the_newest(self) -> None:
        newsletter = make_newsletter()
        days = [
            make_post("text", slug=str(day), date=datetime(2026, 3, day, tzinfo=ZONE)) for day in (4, 5, 6)
        ]
        undated = make_post("text", slug="undated", date=None)
        assert newest([*days, undated], newsletter, NOW, None).slug == "5"
        assert newest([*days, undated], newsletter, datetime(2026, 4, 1, tzinfo=UTC), None).slug == "6"
        with pytest.raises(PostError):
            newest([], newsletter, NOW, None)

    def test_every_built_in_channel_is_built_without_secrets(self, project: Project) -> None:
        channels = installed_channels(project.settings())
        assert {"email", "telegram", "wecom"} <= {
            name for name, channel in channels.items() if not isinstance(channel, Exception)
        }

    def test_a_package_that_is_not_there(self, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
        class Point:
            name = "pigeon"

            def load(self) -> None:
                raise ModuleNotFoundError("No module named 'pigeon'")

        monkeypatch.setattr("distributor.preview.board.entry_points", lambda **_group: [Point()])
        assert isinstance(installed_channels(project.settings())["pigeon"], ImportError)

    def test_everything_of_markdown_can_be_shown(self, project: Project) -> None:
        project.settings(newsletter=BOTH)
        project.write_post("all", f"---\ntitle: t\ndate: 2026-03-05\n---\n{EVERYTHING}")
        board = desk_of(project).board()
        assert board.troubles == []
        assert "would refuse" not in str(
            parsed_page(desk_of(project)).find(".//*[@data-part='telegram']").itertext()
        )


class TestCommand:
    def test_it_serves_until_it_is_told_to_stop(self, project: Project) -> None:
        write(project)
        with command(project, "--serve", "--port", "0") as process:
            assert process.stdout
            address = re.search(r"http://127\.0\.0\.1:\d+/", process.stdout.readline())
            assert address
            with httpx.stream("GET", address[0] + "events", timeout=20) as answer:
                Events(answer).next()
                assert "安静的早晨" in httpx.get(address[0], timeout=20).text
                process.send_signal(signal.SIGINT)
                assert process.wait(20) == 0
            assert process.stderr
            assert process.stderr.read() == ""

    def test_a_taken_port_is_wrong_use(self, project: Project) -> None:
        write(project)
        with (
            listen(0) as taken,
            command(project, "--serve", "--port", str(taken.getsockname()[1])) as process,
        ):
            assert process.wait(30) == 2
            assert process.stderr
            assert "choose another with --port" in process.stderr.read()

    def test_files_of_todays_post(self, project: Project) -> None:
        project.write_post("now", f"---\ntitle: 今天\ndate: {datetime.now(ZONE):%Y-%m-%d}\n---\n\nText.\n")
        out = project.root / "out"
        with command(project, "--out", str(out)) as process:
            assert process.wait(30) == 0
        assert "今天" in (out / "email.html").read_text("utf-8")

    def test_a_post_that_nobody_has(self, project: Project) -> None:
        with command(project, "nothing", "--serve") as process:
            assert process.wait(30) == 2
            assert process.stderr
            assert 'no post is called "nothing"' in process.stderr.read()


# What the tests have in common


def parsed_page(desk: Desk) -> Any:
    """The page as the server answers it, without the way through a socket."""
    return parsed(bytes(Pages(desk, lambda: False).page().body).decode())


def stamp_in(page: str) -> str:
    found = re.search(r'data-stamp="(\w+)"', page)
    assert found
    return found[1]


def warned(*warnings: str) -> Message:
    return Message(channel="email", variant="default", content={}, warnings=warnings)


def email_text(board: Board) -> str:
    panel = board.panel("email")
    assert panel
    return panel.views[0].content["text"]


def override(project: Project, text: str) -> Path:
    """The project's own template of the mail's text."""
    path = project.root / "templates/email/issue.txt.j2"
    path.parent.mkdir(parents=True)
    path.write_text(text, "utf-8")
    return path


def clipboard(kind: str) -> str:
    return f"navigator.clipboard.read().then(([item]) => item.getType('{kind}')).then((blob) => blob.text())"


def brightness(colour: str) -> int:
    return max(int(number) for number in re.findall(r"\d+", colour)[:3])


def listening_on(port: int) -> set[str]:
    """Addresses of this host that answer on the port; one that listens everywhere answers on both."""
    found = set()
    for address in ("127.0.0.1", "127.0.0.2"):
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex((address, port)) == 0:
                found.add(address)
    return found


def command(project: Project, *words: str) -> "subprocess.Popen[str]":
    argv: Sequence[str] = [sys.executable, "-m", "distributor", "-C", str(project.root), "preview", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
