"""The full text's home: pages that are sound and safe, of what went out and nothing else, as files and over HTTP."""

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from email import message_from_bytes
from email.policy import default
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree as ET

import html5lib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rendering_samples import EVERYTHING, SAMPLES, ZONE, make_newsletter, make_post, shared_posts
from services import Project

from distributor.audience import NewSubscriber
from distributor.bootstrap import Distributor, build, prepare
from distributor.channels.email.render import render_email
from distributor.channels.telegram.render import render_telegram
from distributor.channels.wecom.render import render_wecom
from distributor.dispatch import drain, open_issue, write_audience
from distributor.model import Issue, IssueState, OpenedBy, Post, SkipReason
from distributor.posts import read_post
from distributor.rehearsal import into_sandbox
from distributor.rendering import headline, links_in, parse, template_environment, web_address
from distributor.sandbox.server import Sandbox
from distributor.settings import Newsletter, Settings, page_name
from distributor.site import Site, write_whole
from distributor.site.body import PAGE_ANCHORS, render_body
from distributor.site.entries import Entry
from distributor.site.feed import ATOM
from distributor.site.pages import Pages

BASE = "https://news.example.com"
HTML = "{http://www.w3.org/1999/xhtml}"
DAY = date(2026, 3, 5)
TEXT = "---\ntitle: {title}\ndate: {date}\n---\n\n## 头条\n\n谁收到了，谁没有收到，见[账本](https://example.com/ledger)。\n"
#: Everything that a post could try; what the parser itself refuses is tested with the parser.
ATTACKS = """
## A <img src="https://example.com/x.png" onerror="alert(1)"> heading <script>alert(2)</script>

<script>alert(3)</script>

<style>body { display: none }</style>

<p style="position:fixed" onclick="alert(4)" class="top" id="text">styled</p>

<svg onload="alert(5)"><a xlink:href="javascript:alert(6)">x</a></svg>

<iframe src="https://evil.example/"></iframe><form action="https://evil.example/"><input name="x"></form>

[a link](https://example.com/ "<h2>broken out</h2><table>") <a href="https://example.com/" onmouseover="alert(7)" target="_top">b</a>

<a id="contents:" href="https://example.com/own">an anchor of its own</a>

<meta http-equiv="refresh" content="0;url=https://evil.example/"><base href="https://evil.example/"><link rel="stylesheet" href="https://evil.example/">
"""


def pages_of(newsletter: Newsletter, **tables: Any) -> Pages:
    settings = Settings.model_validate(
        {"root": Path(), "web": {"base_url": BASE}, "newsletters": {newsletter.slug: newsletter}, **tables}
    )
    return Pages(settings, template_environment())


def entry_of(post: Post, **changes: Any) -> Entry:
    moment = post.date or datetime(2026, 3, 5, tzinfo=UTC)
    facts = {"slug": post.slug, "title": headline(post), "day": moment.date(), "minted": moment.date()}
    return Entry(**{**facts, "published": moment, "updated": moment, "post": post, **changes})


def page_of(body: str, **facts: Any) -> str:
    newsletter = make_newsletter(url_pattern="", **facts.pop("newsletter", {}))
    return pages_of(newsletter).post(newsletter, entry_of(make_post(body, **facts))).decode()


def strictly(html: str | bytes) -> ET.Element:
    """The page's tree; a mistake that a browser would have to mend raises ParseError."""
    tree: ET.Element = html5lib.HTMLParser(strict=True).parse(html)
    return tree


def of_kind(tree: ET.Element, tag: str) -> list[ET.Element]:
    return list(tree.iter(HTML + tag))


def attributes(tree: ET.Element, name: str) -> list[str]:
    return [element.attrib[name] for element in tree.iter() if name in element.attrib]


# ── a page ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", SAMPLES)
def test_a_page_is_sound_html_with_every_link_of_its_post(name: str) -> None:
    post = make_post(SAMPLES[name], cover_image="https://example.com/c.jpg", categories=("要闻", "a <b> & c"))
    tree = strictly(page_of(post.body, cover_image=post.cover_image, categories=post.categories))
    hrefs = attributes(tree, "href")
    assert set(links_in(parse(post).tree)) <= set(hrefs)
    assert [heading.text for heading in of_kind(tree, "h1")] == [post.title]
    assert not of_kind(tree, "script")


def test_real_posts_have_sound_pages() -> None:
    newsletter = make_newsletter(url_pattern="")
    pages = pages_of(newsletter)
    for post in shared_posts():
        tree = strictly(pages.post(newsletter, entry_of(post)))
        ids = attributes(tree, "id")
        assert len(ids) == len(set(ids)), post.path
        assert set(links_in(parse(post).tree)) <= set(attributes(tree, "href")), post.path


@pytest.mark.parametrize("name", SAMPLES)
def test_anchors_are_there_once_and_lead_somewhere(name: str) -> None:
    tree = strictly(page_of(SAMPLES[name]))
    ids = attributes(tree, "id")
    assert len(ids) == len(set(ids))
    inward = [unquote(href[1:]) for href in attributes(tree, "href") if href.startswith("#")]
    assert set(inward) <= set(ids)


def test_footnotes_lead_there_and_back() -> None:
    html = render_body(parse(make_post(EVERYTHING)), back="back").html
    assert html.count('href="#fn:1"') == 2
    assert '<li id="fn:1">' in html
    for mention in ("fnref:1", "fnref:1:1"):
        assert f'id="{mention}"' in html
        assert f'href="#{mention}" title="back"' in html


def test_a_long_post_has_a_table_of_contents_and_a_short_one_has_none() -> None:
    long = "".join(f"## 第 {n} 节 `x`\n\n{'字' * 500}\n\n### 细节\n\n#### 更细\n\n" for n in range(1, 4))
    body = render_body(parse(make_post(long)), back="")
    assert [(heading.level, heading.text, heading.anchor) for heading in body.contents][:3] == [
        (2, "第 1 节 x", "第-1-节-x"),
        (3, "细节", "细节"),
        (2, "第 2 节 x", "第-2-节-x"),
    ]
    assert [heading.nested for heading in body.contents] == [False, True] * 3
    assert {heading.anchor for heading in body.contents} >= {"细节-2", "细节-3"}
    upside_down = render_body(parse(make_post(f"### 甲\n\n{'字' * 1500}\n\n## 乙\n\n### 丙\n")), back="")
    assert [heading.nested for heading in upside_down.contents] == [False, False, True]
    assert render_body(parse(make_post("## 一\n\n## 二\n\n## 三\n")), back="").contents == ()
    [nav] = of_kind(strictly(page_of(long)), "nav")
    assert [link.text for link in nav.iter(HTML + "a")][:2] == ["第 1 节 x", "细节"]


def test_a_heading_does_not_take_an_anchor_of_the_page() -> None:
    """The link "skip to the text" would lead to the heading."""
    tree = strictly(page_of("## Text\n\n一\n\n## Text\n\n二"))
    ids = attributes(tree, "id")
    assert (ids.count("text"), [heading.attrib["id"] for heading in of_kind(tree, "h2")]) == (
        1,
        ["text-2", "text-3"],
    )


@pytest.mark.parametrize("name", SAMPLES)
def test_every_anchor_of_the_templates_is_reserved(name: str) -> None:
    """Those with a colon no heading can get."""
    html = page_of(SAMPLES[name])
    outside = html.replace(render_body(parse(make_post(SAMPLES[name])), back="").html, "")
    own = set(re.findall(r'\sid="([^":]+)"', outside[: outside.index('<div class="body">')]))
    assert own == PAGE_ANCHORS


@pytest.mark.parametrize("tag", ["noscript", "object", "title", "template", "iframe"])
def test_what_a_mail_hides_a_page_hides_too(tag: str) -> None:
    html = render_body(
        parse(make_post(f"见<{tag}>secret</{tag}>此，\n\n<div><{tag}>secret</{tag}>尾</div>")), back=""
    ).html
    assert "secret" not in html
    assert "此，" in html
    assert "尾" in html


def test_attacks_stay_inert() -> None:
    html = page_of(
        ATTACKS,
        title='</title><script>alert("title")</script>',
        description='"><script>alert(8)</script>',
        categories=("<script>alert(9)</script>",),
        cover_image='https://example.com/c.jpg?"onload=alert(10)',
    )
    tree = strictly(html)
    for tag in ("script", "iframe", "form", "input", "svg", "base", "object", "embed"):
        assert not of_kind(tree, tag), tag
    assert len(of_kind(tree, "style")) == 1
    assert {link.attrib["rel"] for link in of_kind(tree, "link")} == {"alternate"}
    body = next(element for element in of_kind(tree, "div") if element.attrib.get("class") == "body")
    allowed = {"href", "src", "alt", "title", "id", "class", "tabindex", "loading", "decoding"}
    assert {name for element in body.iter() for name in element.attrib} <= allowed
    assert not [value for value in attributes(tree, "href") if "javascript:" in value]
    assert attributes(body, "title") == ["<h2>broken out</h2><table>"]
    assert "contents:" not in attributes(body, "id")


#: Markup that breaks what stands around it, begun and not ended.
FRAGMENTS = (
    *(
        "<p>",
        "</p>",
        "<table>",
        "<tr>",
        "<td>",
        "</table>",
        "<div>",
        "</div>",
        "<h1>",
        "<h2>",
        "</h2>",
        "<ul>",
        "<li id='fn:1'>",
    ),
    *(
        "<a href='https://x.example/'>",
        "</a>",
        "<select>",
        "<option>",
        "<textarea>",
        "<title>",
        "<svg>",
        "<math>",
        "<template>",
    ),
    *(
        "<form>",
        "<button>",
        "<pre>",
        "<mark>",
        "<sup>",
        "<!--",
        "-->",
        "&lt;",
        "<img src='https://x.example/p'>",
    ),
    *(
        "## 标题\n\n",
        "# 一\n\n",
        "- x\n",
        "1. y\n",
        "> ",
        "\n\n",
        "```\n",
        "**",
        "`",
        "| a | b |\n|--|:-:|\n| 1 | 2 |\n",
    ),
    *("[^1]", "\n\n[^1]: note\n\n", "![p](https://x.example/p.png)", "[l](https://x.example/l)", "字"),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(FRAGMENTS), max_size=25).map("".join))
def test_no_mixture_of_markdown_and_half_html_breaks_a_page(body: str) -> None:
    """Ran with 2,000 examples and free text in between when it was written."""
    tree = strictly(page_of(f"{'字' * 1300}\n\n{body}"))
    [main] = of_kind(tree, "main")
    assert len(of_kind(main, "nav")) <= 1  # the frame still stands around it
    assert not of_kind(tree, "select") + of_kind(tree, "form") + of_kind(tree, "svg")
    inward = {unquote(href[1:]) for href in attributes(tree, "href") if href.startswith("#")}
    assert inward <= set(attributes(tree, "id"))


@pytest.mark.parametrize("kind", ["post", "index", "home"])
def test_pages_load_nothing_but_pictures(kind: str) -> None:
    newsletter = make_newsletter(url_pattern="")
    post = make_post(EVERYTHING, cover_image="https://example.com/c.jpg")
    pages, entry = pages_of(newsletter), entry_of(post)
    html = {
        "post": pages.post(newsletter, entry),
        "index": pages.index(newsletter, [entry]),
        "home": pages.home([(newsletter, [entry])]),
    }[kind]
    tree = strictly(html)
    loaded = [element.tag.removeprefix(HTML) for element in tree.iter() if "src" in element.attrib]
    assert set(loaded) <= {"img"}
    assert not [link for link in of_kind(tree, "link") if link.attrib["rel"] == "stylesheet"]
    assert b"url(" not in html
    assert b"@import" not in html
    [policy] = [m.attrib["content"] for m in of_kind(tree, "meta") if "http-equiv" in m.attrib]
    assert policy.startswith("default-src 'none'")


def test_a_chat_s_card_and_a_search_engine_find_what_they_need() -> None:
    tree = strictly(
        page_of("导语。", cover_image="https://example.com/c.jpg", newsletter={"ai": "assisted"}, slug="早报")
    )
    facts = {
        m.attrib.get("property") or m.attrib.get("name"): m.attrib["content"]
        for m in of_kind(tree, "meta")
        if "content" in m.attrib
    }
    assert facts["og:title"] == "样刊：一天的新闻"
    assert facts["og:description"] == facts["description"] == "导语。"
    assert facts["og:image"] == "https://example.com/c.jpg"
    assert facts["og:site_name"] == "晨间简报"
    [html] = of_kind(tree, "html")
    assert html.attrib["lang"] == "zh-CN"
    assert [moment.attrib["datetime"] for moment in of_kind(tree, "time")] == ["2026-03-05"]
    assert "本期内容由 AI 辅助生成" in "".join(html.itertext())


def test_the_canonical_address_is_the_post_s_own_home() -> None:
    newsletter = make_newsletter()  # its posts live on another site
    html = pages_of(newsletter).post(newsletter, entry_of(make_post("x"))).decode()
    assert 'rel="canonical" href="https://brief.example.com/2026-03-05/sample/"' in html
    assert 'rel="canonical" href="https://blog.example.com/x"' in page_of(
        "x", url="https://blog.example.com/x"
    )


def test_a_page_in_english_is_english_all_over() -> None:
    post = make_post("Text.", title="Rain stops", language="en")
    newsletter = make_newsletter(url_pattern="", language="en", title="The Brief", ai="generated")
    html = pages_of(newsletter).post(newsletter, entry_of(post), older=entry_of(post)).decode()
    assert '<html lang="en">' in html
    assert "Thursday, 5 March 2026" in html
    assert "This issue was generated by AI" in html
    assert "Previous" in html
    assert not re.search(
        r"[\u4e00-\u9fff]",
        re.sub(r"<style>.*?</style>|上海市示例路 8 号|晨间简报", "", html, flags=re.DOTALL),
    )


def test_text_stands_out_enough_in_light_and_in_dark() -> None:
    """WCAG 2.2, 1.4.3: at least 4.5."""
    style = page_of("x")
    for scheme in re.findall(r":root \{([^}]*)\}", style):
        colours = dict(re.findall(r"--(\w+): (#\w{6})", scheme))
        for text in ("ink", "strong", "quiet", "accent", "link"):
            for ground in ("paper", "tint"):
                assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
        for text in ("ink", "link"):
            assert contrast(colours[text], colours["mark"]) >= 4.5, text


def contrast(one: str, other: str) -> float:
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


# ── the feed ─────────────────────────────────────────────────────────────────────────────────────────────────────


def feed_of(newsletter: Newsletter, *entries: Entry, **tables: Any) -> ET.Element:
    return ET.fromstring(pages_of(newsletter, **tables).feed(newsletter, entries))


def texts(feed: ET.Element, path: str) -> list[str | None]:
    return [
        element.text for element in feed.findall("/".join(f"{{{ATOM}}}{step}" for step in path.split("/")))
    ]


def test_the_feed_has_what_rfc_4287_asks_for() -> None:
    newsletter = make_newsletter(url_pattern="", ai="assisted")
    post = make_post(EVERYTHING, categories=("要闻",), description="短\x0b讯")
    later = entry_of(make_post("x", slug="later"), updated=datetime(2026, 3, 7, 1, tzinfo=UTC))
    feed = feed_of(newsletter, later, entry_of(post))
    assert feed.tag == f"{{{ATOM}}}feed"
    for name in ("id", "title", "updated"):
        assert len(texts(feed, name)) == 1
        assert all(texts(feed, f"entry/{name}"))
    assert texts(feed, "author/name") == ["晨间简报"]
    assert texts(feed, "updated") == ["2026-03-07T01:00:00Z"]
    assert texts(feed, "entry/published") == ["2026-03-04T23:00:00Z"] * 2
    links = {link.attrib["rel"]: link.attrib["href"] for link in feed.findall(f"{{{ATOM}}}link")}
    assert links == {"self": f"{BASE}/archive/brief/feed.xml", "alternate": f"{BASE}/archive/brief/"}
    _, content = feed.findall(f"{{{ATOM}}}entry/{{{ATOM}}}content")
    assert content.attrib["type"] == "html"
    assert "本期内容由 AI 辅助生成" in (content.text or "")
    assert '<a href="https://example.com/source">its source</a>' in (content.text or "")
    assert "<script" not in (content.text or "")
    assert "短讯" in texts(feed, "entry/summary")


def test_an_entry_keeps_its_identity_when_the_site_moves_and_the_post_is_edited() -> None:
    newsletter = make_newsletter(url_pattern="")
    entry = entry_of(make_post("x", slug="早报"))
    edited = replace(entry, title="Another", day=date(2027, 1, 1), post=make_post("y", slug="早报"))
    one = feed_of(newsletter, entry)
    other = feed_of(newsletter, edited, site={"base_url": "https://elsewhere.example/pages"})
    assert texts(one, "entry/id") == texts(other, "entry/id")
    assert texts(one, "entry/id") == ["tag:news.example.com,2026-03-05:brief/%E6%97%A9%E6%8A%A5"]


def test_the_feed_holds_the_newest_thirty_and_may_be_empty() -> None:
    newsletter = make_newsletter(url_pattern="")
    many = [entry_of(make_post("x", slug=f"post-{number}")) for number in range(40)]
    assert len(feed_of(newsletter, *many).findall(f"{{{ATOM}}}entry")) == 30
    assert texts(feed_of(newsletter), "updated") == ["1970-01-01T00:00:00Z"]


def test_an_entry_without_its_source_has_a_title_and_a_link() -> None:
    newsletter = make_newsletter(url_pattern="")
    feed = feed_of(newsletter, replace(entry_of(make_post("x")), post=None))
    [link] = feed.findall(f"{{{ATOM}}}entry/{{{ATOM}}}link")
    assert link.attrib["href"] == f"{BASE}/archive/brief/sample/"
    assert texts(feed, "entry/content") == []


# ── addresses ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "slug",
    [
        "..",
        ".",
        ".hidden",
        "feed.xml",
        "index.html",
        "-",
        "a&b",
        "a+b",
        "x" * 300,
        "长" * 200,
        "e\u0301",
        "🎉",
        "a:b",
    ],
)
def test_a_page_s_name_is_one_folder_and_nobody_else_s(slug: str, tmp_path: Path) -> None:
    name = page_name(slug)
    assert re.fullmatch(r"\w[\w.-]*-[0-9a-f]{8}", name)
    assert name not in {page_name(other) for other in ("a-b", "x" * 160, "feed.xml-", "post")}
    (tmp_path / name).mkdir()
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("slug", ["2026-03-05-receipts", "早报-三月五日", "v1.2", "snake_case"])
def test_an_ordinary_slug_is_the_page_s_name(slug: str) -> None:
    assert page_name(slug) == slug


@pytest.mark.parametrize(
    ("tables", "address"),
    [
        ({"web": {"base_url": BASE}}, f"{BASE}/archive/ai-daily/%E6%97%A9%E6%8A%A5/"),
        (
            {"site": {"base_url": "https://x.example/{a}"}},
            "https://x.example/%7Ba%7D/ai-daily/%E6%97%A9%E6%8A%A5/",
        ),
        (
            {"site": {"folder": "out", "serve": False}, "web": {"base_url": BASE}},
            f"{BASE}/archive/ai-daily/%E6%97%A9%E6%8A%A5/",
        ),
        ({"site": {"serve": False}, "web": {"base_url": BASE}}, None),
        ({}, None),
        ({"web": {"base_url": "http://localhost:8025"}}, None),
        ({"web": {"base_url": "http://[::1]:8025"}, "site": {"folder": "out"}}, None),
        ({"web": {"base_url": "http://0.0.0.0"}}, None),
    ],
)
def test_a_link_leads_to_the_site_only_where_readers_reach_it(
    project: Project, tables: dict[str, Any], address: str | None
) -> None:
    newsletter = project.settings(**tables).newsletters["ai-daily"]
    assert web_address(make_post("x", slug="早报"), newsletter) == address


def test_another_home_wins(project: Project) -> None:
    pattern = "https://blog.example.com/{slug}"
    settings = project.settings(web={"base_url": BASE}, newsletter={"url_pattern": pattern})
    newsletter = settings.newsletters["ai-daily"]
    assert web_address(make_post("x"), newsletter) == "https://blog.example.com/sample"
    assert web_address(make_post("x", url="https://a.example/b"), newsletter) == "https://a.example/b"


def test_every_channel_links_to_the_page(project: Project) -> None:
    newsletter = project.settings(web={"base_url": BASE}).newsletters["ai-daily"]
    post, page = make_post("一句话。", slug="早报"), f"{BASE}/archive/ai-daily/%E6%97%A9%E6%8A%A5/"
    mail = render_email(post, newsletter, template_environment())
    for message in [mail, *render_telegram(post, newsletter), *render_wecom(post, newsletter)]:
        assert page in "".join(message.content.values()), message.channel


# ── what went out, and nothing else ──────────────────────────────────────────────────────────────────────────────


class Shop:
    """A project with a folder for its site."""

    def __init__(self, project: Project, **tables: Any) -> None:
        self.project = project
        site = {"folder": "var/site", **tables.pop("site", {})}
        settings = project.settings(web={"base_url": BASE}, site=site, **tables)
        self.distributor: Distributor = build(settings)
        prepare(self.distributor)
        self.newsletter = settings.newsletters["ai-daily"]
        self.distributor.audience.add(
            "ai-daily", NewSubscriber(channel="email", address="li@readers.example", source="test")
        )

    @property
    def site(self) -> Site:
        return self.distributor.site

    @property
    def folder(self) -> Path:
        return self.project.root / "var/site"

    def write(self, slug: str, day: date = DAY, title: str = "收据") -> Post:
        path = self.project.write_post(slug, TEXT.format(title=title, date=day))
        return read_post(path, ZONE)

    def open(self, slug: str = "receipts", day: date = DAY, **options: Any) -> Issue:
        post = self.write(slug, day, options.pop("title", "收据"))
        by = options.pop("by", OpenedBy.PERSON)
        return open_issue(self.distributor.engine, self.newsletter, post, day, by=by, **options)[0]

    def page(self, slug: str = "receipts") -> Path:
        return self.folder / "ai-daily" / slug / "index.html"

    def listed(self) -> list[str]:
        tree = strictly((self.folder / "ai-daily/index.html").read_bytes())
        [main] = of_kind(tree, "main")
        return [link.attrib["href"].rstrip("/") for link in main.iter(HTML + "a")]

    def build(self, **options: Any) -> Any:
        return self.site.build("ai-daily", self.folder, **options)

    def files(self) -> dict[str, tuple[bytes, int]]:
        found = [path for path in self.folder.rglob("*") if path.is_file()]
        return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in found}


@pytest.fixture
def shop(project: Project) -> Iterator[Shop]:
    shop = Shop(project)
    yield shop
    shop.distributor.close()


def test_the_page_is_there_before_a_delivery_is(shop: Shop) -> None:
    issue = shop.open()
    assert shop.distributor.ledger.log(issue.id) == []
    assert "谁收到了" in shop.page().read_text("utf-8")
    assert shop.listed() == ["receipts"]
    assert (
        b"tag:news.example.com,2026-03-05:ai-daily/receipts"
        in (shop.folder / "ai-daily/feed.xml").read_bytes()
    )
    assert 'href="ai-daily/receipts/"' in (shop.folder / "index.html").read_text("utf-8")


def test_the_mail_that_arrives_leads_to_a_page_that_is_there(project: Project, tmp_path: Path) -> None:
    """As far as the reader's own eyes: the links of the mail, looked up in the folder."""
    shop = Shop(project)
    with Sandbox(None) as sandbox:
        settings = into_sandbox(shop.distributor.settings, sandbox, tmp_path / "x.sqlite3")
        settings = settings.model_copy(update={"site": shop.distributor.settings.site})
        shop.distributor.close()
        shop.distributor = build(settings)
        prepare(shop.distributor)
        new = NewSubscriber(channel="email", address="li@readers.example", source="test")
        shop.distributor.audience.add("ai-daily", new)
        write_audience(shop.distributor.engine, shop.open("早报"))
        drain(shop.distributor.engine, "email", seconds=10)
        [entry] = sandbox.inbox.entries("email", "li@readers.example")
        mail = message_from_bytes(sandbox.inbox.mail(entry.id), policy=default)
        part = mail.get_body(("html",))
        assert part
        html = part.get_content()
    shop.distributor.close()
    pages = {href for href in attributes(html5lib.parse(html), "href") if "/archive/" in href}
    assert pages == {f"{BASE}/archive/ai-daily/%E6%97%A9%E6%8A%A5/"}
    assert "/issues/" not in html
    [path] = [unquote(urlsplit(page).path.removeprefix("/archive/")) for page in pages]
    assert (shop.folder / path / "index.html").is_file()


def test_what_waits_for_approval_is_published_when_it_is_approved(project: Project) -> None:
    shop = Shop(project, newsletter={"schedule": {"approval": "required"}})
    issue = shop.open(by=OpenedBy.SCHEDULER)
    assert issue.state is IssueState.WAITING
    shop.build(all_posts=True)
    assert not shop.page().exists()
    assert shop.listed() == []
    shop.distributor.ledger.approve(issue.id, "chen")
    write_audience(shop.distributor.engine, issue)
    assert shop.page().exists()
    assert shop.listed() == ["receipts"]
    shop.distributor.close()


def test_neighbours_learn_of_each_other(shop: Shop) -> None:
    for number in (3, 4, 5):
        shop.open(f"day-{number}", date(2026, 3, number))
    assert shop.listed() == ["day-5", "day-4", "day-3"]
    hrefs = {
        slug: attributes(strictly(shop.page(slug).read_bytes()), "href")
        for slug in ("day-3", "day-4", "day-5")
    }
    assert "../day-4/" in hrefs["day-3"]
    assert {"../day-3/", "../day-5/"} <= set(hrefs["day-4"])
    assert "../day-4/" in hrefs["day-5"]


def test_a_post_that_did_not_go_out_stays_at_home(shop: Shop) -> None:
    shop.open()
    shop.write("tomorrow", DAY + timedelta(days=1))
    shop.write("draft").path.rename(shop.project.root / "posts/also.md")
    shop.build()
    assert shop.listed() == ["receipts"]


def test_all_posts_are_those_that_could_have_gone_out(shop: Shop) -> None:
    shop.open()
    shop.write("before", date(2026, 1, 1))
    shop.write("future", date(2199, 1, 1))
    shop.project.write_post("draft", "---\ntitle: x\ndate: 2026-01-02\ndraft: true\n---\nx\n")
    shop.project.write_post("undated", "---\ntitle: x\n---\nx\n")
    shop.build(all_posts=True)
    assert shop.listed() == ["receipts", "before"]
    shop.open("next", date(2026, 3, 6))  # the next issue does not drop what a person put there
    assert shop.listed() == ["next", "receipts", "before"]


def test_an_expired_issue_is_shown_if_anybody_could_get_it(shop: Shop) -> None:
    frozen, never = shop.open("frozen"), shop.open("never", date(2026, 3, 6))
    shop.distributor.ledger.freeze(frozen.id)
    with shop.distributor.database.write() as connection:
        connection.exec_driver_sql("UPDATE issues SET expires_at = '2000-01-01 00:00:00'")
    for issue in (frozen, never):
        shop.distributor.ledger.stop_issue(issue.id, IssueState.EXPIRED, SkipReason.EXPIRED)
    shop.build()
    assert shop.listed() == ["frozen"]


def test_what_is_withdrawn_is_not_listed_and_its_page_is_named(shop: Shop) -> None:
    issue, _ = shop.open("cancelled"), shop.open("redrafted", date(2026, 3, 6))
    shop.distributor.ledger.stop_issue(issue.id, IssueState.CANCELLED, SkipReason.CANCELLED)
    path = shop.project.root / "posts/redrafted.md"
    path.write_text(path.read_text("utf-8").replace("title:", "draft: true\ntitle:"), "utf-8")
    built = shop.build(all_posts=True)
    assert shop.listed() == []
    assert {page.name for page in built.withdrawn} == {"cancelled", "redrafted"}
    assert shop.page("cancelled").exists()  # a page is a person's to remove


def test_a_draft_that_a_person_sends_by_its_name_has_a_page(shop: Shop) -> None:
    path = shop.project.write_post(
        "wip", TEXT.format(title="草稿", date=DAY).replace("title:", "draft: true\ntitle:")
    )
    open_issue(shop.distributor.engine, shop.newsletter, read_post(path, ZONE), DAY, by=OpenedBy.PERSON)
    assert shop.page("wip").exists()


def test_a_page_whose_source_is_gone_stays_and_is_reported(shop: Shop) -> None:
    shop.open("gone")
    shop.open("stays", date(2026, 3, 6))
    before = shop.page("gone").read_bytes()
    (shop.project.root / "posts/gone.md").unlink()
    built = shop.build()
    assert (built.pages, built.missing) == (2, ["gone"])
    assert shop.page("gone").read_bytes() == before
    assert shop.listed() == ["stays", "gone"]
    shop.page("gone").unlink()
    assert shop.build().pages == 1
    assert shop.listed() == ["stays"]
    assert "../gone/" not in shop.page("stays").read_text("utf-8")


def test_a_post_edited_into_something_that_cannot_be_shown_is_reported(shop: Shop) -> None:
    shop.open()
    before = shop.page().read_bytes()
    path = shop.project.root / "posts/receipts.md"
    path.write_text(path.read_text("utf-8").replace("https://example.com/ledger", "ledger.html"), "utf-8")
    built = shop.build()
    assert [("receipts.md:8" in trouble, "ledger.html" in trouble) for trouble in built.broken] == [
        (True, True)
    ]
    assert shop.page().read_bytes() == before


def test_an_edited_post_is_shown_as_it_is_now_and_its_feed_entry_says_when(shop: Shop) -> None:
    shop.open()
    feed = shop.folder / "ai-daily/feed.xml"
    before = ET.fromstring(feed.read_bytes())
    path = shop.project.root / "posts/receipts.md"
    path.write_text(path.read_text("utf-8").replace("谁收到了", "更正：谁收到了"), "utf-8")
    later = datetime.now(UTC).timestamp() + 3600
    os.utime(path, (later, later))
    shop.build()
    after = ET.fromstring(feed.read_bytes())
    assert "更正" in shop.page().read_text("utf-8")
    assert texts(before, "entry/id") == texts(after, "entry/id")
    assert texts(before, "entry/published") == texts(after, "entry/published")
    assert texts(before, "entry/updated") < texts(after, "entry/updated")


def test_building_again_changes_no_byte(shop: Shop) -> None:
    for number in (3, 4, 5):
        shop.open(f"day-{number}", date(2026, 3, number))
    shop.build()
    before = shop.files()
    assert shop.build().written == 0
    assert (
        Site(shop.distributor.settings, shop.distributor.ledger, tell=print)
        .build("ai-daily", shop.folder)
        .written
        == 0
    )
    assert shop.files() == before


def test_an_issue_does_not_wait_for_a_page_that_cannot_be_written(shop: Shop) -> None:
    shop.folder.parent.mkdir(exist_ok=True)
    shop.folder.write_text("a file where the folder should be", "utf-8")
    issue = shop.open()
    assert write_audience(shop.distributor.engine, issue)
    [notice] = shop.distributor.notices.listing(10)
    assert "the page of issue 1 was not written" in notice.subject
    assert "distributor site build" in notice.body


def test_a_rehearsal_publishes_nothing(shop: Shop, tmp_path: Path) -> None:
    with Sandbox(None) as sandbox:
        settings = into_sandbox(shop.distributor.settings, sandbox, tmp_path / "x.sqlite3")
    assert settings.site.folder == ""


def test_a_file_is_put_there_in_one_piece(tmp_path: Path) -> None:
    path = tmp_path / "new/folder/index.html"
    assert write_whole(path, b"one")
    assert not write_whole(path, b"one")
    assert write_whole(path, b"two")
    assert [found.name for found in path.parent.iterdir()] == ["index.html"]
    (tmp_path / "taken/in").mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        write_whole(tmp_path / "taken", b"x")
    assert sorted(found.name for found in tmp_path.iterdir()) == ["new", "taken"]


def test_a_file_that_changed_is_read_again_and_no_other(shop: Shop) -> None:
    shop.write("one")
    shop.write("two")
    shelf = shop.site.shelves["ai-daily"]
    before = shelf.posts()
    shop.write("two", title="另一个")
    after = shelf.posts()
    assert after["one"][0] is before["one"][0]
    assert after["two"][0].title == "另一个"
    (shop.project.root / "posts/one.md").unlink()
    assert set(shelf.posts()) == {"two"}
