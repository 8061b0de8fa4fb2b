"""A post as an article of a WeChat Official Account; the simulator's own reader of the rules checks each one."""

import re
from contextlib import suppress
from html import unescape
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rendering_samples import (
    EVERYTHING,
    HUGE_CODE,
    HUGE_QUOTE,
    LONG_PARAGRAPHS,
    MANY_LINKS,
    SAMPLES,
    make_newsletter,
    make_post,
    shared_posts,
)

from distributor.channels.wechat.article import write_article
from distributor.channels.wechat.fitting import size
from distributor.channels.wechat.render import load_theme, render_wechat
from distributor.errors import ConfigError, PostError
from distributor.model import AiUse, Message, Post
from distributor.rendering import links_in, outline, parse, template_environment
from distributor.sandbox.article import Article
from distributor.settings import Newsletter

TEMPLATES = template_environment()
TEASER = "go out as a teaser"


def article_of(post: Post, newsletter: Newsletter | None = None) -> Message:
    """The message, within every limit and without anything that WeChat would drop."""
    message = render_wechat(post, newsletter or make_newsletter(), TEMPLATES)
    content = message.content
    assert (message.channel, message.variant, message.parts) == ("wechat", "article", 1)
    assert 0 < len(content["title"]) <= 64
    assert len(content["author"]) <= 16
    assert len(content["digest"]) <= 128
    assert len(content["content_source_url"].encode()) <= 1024
    assert size(content["content"]) < 20_000
    read = Article(content["content"], lambda _: True)
    assert (read.refused, read.violations) == ([], [])
    return message


def html_of(body: str, **facts: object) -> str:
    return article_of(make_post(body, **facts)).content["content"]


def seen(html: str) -> str:
    """What a reader sees, without white space."""
    return "".join(unescape(re.sub(r"<[^>]*>", "", html)).split())


def plain(html: str) -> str:
    """The HTML without styles, and without the frame around it."""
    return re.sub(r' style="[^"]*"', "", html).removeprefix("<section>").removesuffix("</section>")


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_lose_no_link_unless_they_say_so(name: str) -> None:
    post = make_post(SAMPLES[name])
    message = article_of(post)
    shown = unescape(message.content["content"])
    lost = [link for link in links_in(parse(post).tree) if link.removeprefix("mailto:") not in shown]
    assert not lost or any(TEASER in warning for warning in message.warnings)
    assert bool(lost) == (name == "many links")


def test_real_posts() -> None:
    for post in shared_posts():
        message = article_of(post)
        shown = unescape(message.content["content"])
        whole = all(link.removeprefix("mailto:") in shown for link in outline(parse(post)).links)
        assert whole or any(TEASER in warning for warning in message.warnings), post.path


def test_everything_in_order() -> None:
    html = plain(html_of(EVERYTHING))
    assert html == (
        "<h2>A heading of the first level</h2>"
        "<p>Plain <em>emphasis</em>, <strong>strong <em>and both</em></strong>, <s>gone</s>, "
        "<code>a &lt; b &amp;&amp; c</code>, and a "
        "<span>link with <code>code</code> and <strong>bold</strong></span><sup>[1]</sup>.</p>"
        "<blockquote><p>A quotation with <span>a link</span><sup>[2]</sup>.</p>"
        "<blockquote><p>A quotation inside, with <code>code</code>.</p></blockquote>"
        '<pre><code>print("quoted")</code></pre></blockquote>'
        "<pre><code>def less(a, b):<br>\u00a0\u00a0\u00a0\u00a0return a &lt; b</code></pre>"
        "<pre><code>indented &amp; plain</code></pre>"
        "<section><table><tbody><tr><th>Name</th><th>Count</th></tr><tr><td>苹果</td><td>3</td></tr>"
        "<tr><td>pear</td><td>12</td></tr></tbody></table></section>"
        "<section><table><tbody><tr><th>A long column name that needs room</th>"
        "<th>Another one that is long as well</th></tr>"
        "<tr><td>first <span>cell</span><sup>[3]</sup></td><td>second <strong>cell</strong></td></tr>"
        "</tbody></table></section>"
        '<p><img src="https://example.com/a.png" alt="A picture of &lt;nothing&gt;"> and text after it</p>'
        "<p>raw <strong>html</strong><br>second line</p>"
        "<p>Inline <u>underlined</u> text.<sup>[4]</sup> Again.<sup>[4]</sup></p>"
        "<hr>"
        "<p>3. third</p><p>4. fourth</p><p>A second paragraph of the fourth.</p>"
        "<p>Line one<br>\nline two, https://example.com/auto, someone@example.com.</p>"
        "<section><p>注释与参考链接</p>"
        "<p>[1] link with code and bold：https://example.com/x?q=%221%22&amp;r=2</p>"
        "<p>[2] a link：https://example.com/q</p>"
        "<p>[3] cell：https://example.com/cell</p>"
        "<p>[4] The note, with <span>its source</span><sup>[5]</sup>.</p>"
        "<p>[5] its source：https://example.com/source</p></section>"
    )


def test_each_address_is_noted_once() -> None:
    html = plain(html_of("[甲](https://e.org/a)、[乙](https://e.org/b)、[又是甲](https://e.org/a)"))
    assert (
        "<span>甲</span><sup>[1]</sup>、<span>乙</span><sup>[2]</sup>、<span>又是甲</span><sup>[1]</sup>"
        in html
    )
    assert html.count("https://e.org/a") == html.count("https://e.org/b") == 1


@pytest.mark.parametrize(
    ("body", "html"),
    [
        ("[往期](https://mp.weixin.qq.com/s/abc)", '<a href="https://mp.weixin.qq.com/s/abc">往期</a>'),
        ("<https://e.org/a?b=1&c=2>", "https://e.org/a?b=1&amp;c=2"),
        ("[https://e.org](https://e.org)", "https://e.org"),
        ("[编辑部](mailto:desk@example.com)", "编辑部 (desk@example.com)"),
        ("<desk@example.com>", "desk@example.com"),
        ("[目录](#toc)", "目录"),
        ('<a href="#toc">目录</a>', "目录"),
    ],
)
def test_links_that_need_no_note(body: str, html: str) -> None:
    assert plain(html_of(body)) == f"<p>{html}</p>"


def test_nested_lists_are_paragraphs_with_their_bullets() -> None:
    html = html_of("- 一\n  - 二\n    1. 三\n- 四\n\n  段落\n\n  ```\n  code\n  ```\n")
    assert plain(html) == (
        "<p>• 一</p><p>• 二</p><p>1. 三</p><p>• 四</p><p>段落</p><pre><code>code</code></pre>"
    )
    insets = re.findall(r"padding-left:([\d.]+)em", html)
    assert insets == ["1.5", "3", "4.5", "1.5", "1.5"]
    assert "margin-left:1.5em" in html


@pytest.mark.parametrize(
    ("body", "html"),
    [
        (
            "![图](https://e.org/a.png)",
            '<figure><img src="https://e.org/a.png" alt="图"><figcaption>图</figcaption></figure>',
        ),
        ("![](https://e.org/a.png)", '<figure><img src="https://e.org/a.png"></figure>'),
        (
            "[![图](https://e.org/a.png)](https://e.org/page)",
            (
                '<figure><img src="https://e.org/a.png" alt="图"><figcaption>图<sup>[1]</sup></figcaption></figure>'
                "<section><p>参考链接</p><p>[1] 图：https://e.org/page</p></section>"
            ),
        ),
        (
            "[![](https://e.org/a.png)](https://mp.weixin.qq.com/s/abc)",
            '<figure><a href="https://mp.weixin.qq.com/s/abc"><img src="https://e.org/a.png"></a></figure>',
        ),
        (
            "![](https://e.org/a.png)\n![](https://e.org/b.png)",
            '<figure><img src="https://e.org/a.png"></figure><figure><img src="https://e.org/b.png"></figure>',
        ),
    ],
)
def test_pictures(body: str, html: str) -> None:
    assert plain(html_of(body)) == html


def test_the_cover_stands_above_the_text_once() -> None:
    cover = "https://e.org/cover.webp"
    assert plain(html_of("文", cover_image=cover)) == f'<figure><img src="{cover}"></figure><p>文</p>'
    assert html_of(f"文\n\n![]({cover})", cover_image=cover).count(cover) == 1
    assert article_of(make_post("文", cover_image=cover)).content["cover"] == cover


def test_wide_tables_scroll_and_align() -> None:
    html = html_of("| a | b | c | d |\n|:-:|--:|---|---|\n| 1 | 2 | 3 | 4 |")
    assert "overflow-x:auto" in html
    assert "min-width:384px" in html
    assert html.count("text-align:center") == html.count("text-align:right") == 2


def test_raw_html_gets_the_same_form() -> None:
    html = plain(
        html_of('<ul><li>一 <a href="https://e.org">源</a></li></ul>\n\n<dl><dt>词</dt><dd>义</dd></dl>')
    )
    assert html == (
        "<p>• 一 <span>源</span><sup>[1]</sup></p><p><strong>词</strong></p><p>义</p>"
        "<section><p>参考链接</p><p>[1] 源：https://e.org</p></section>"
    )


def test_the_ai_label_ends_the_article() -> None:
    html = html_of("文", ai=AiUse.GENERATED)
    assert plain(html).endswith("<p>本期内容由 AI 生成</p>")
    english = article_of(make_post("Text", language="en", ai=AiUse.ASSISTED)).content["content"]
    assert plain(english).endswith("<p>This issue was written with the help of AI</p>")


def test_words_in_the_posts_language() -> None:
    html = plain(
        article_of(make_post("[a](https://e.org) b[^1]\n\n[^1]: note", language="en")).content["content"]
    )
    assert "<p>Notes and links</p><p>[1] a: https://e.org</p><p>[2] note</p>" in html
    assert "<p>注释</p>" in plain(html_of("文[^1]\n\n[^1]: 注"))


# ── limits ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("length", "kept", "warning"),
    [(32, 32, ""), (33, 33, "WeChat may refuse it"), (64, 64, "may refuse"), (65, 64, "is cut for WeChat")],
)
def test_title(length: int, kept: int, warning: str) -> None:
    message = article_of(make_post("文", title="题" * length))
    assert len(message.content["title"]) == kept
    told = [line for line in message.warnings if "title" in line]
    assert (len(told), warning in "".join(told)) == (bool(warning), True)


def test_author() -> None:
    sender = {"name": "一二三四五六七八九十一二三四五六七", "address": "a@example.com"}
    assert (
        article_of(make_post("文"), make_newsletter(sender=sender)).content["author"]
        == sender["name"][:15] + "…"
    )


def test_digest_is_the_description_or_the_lead() -> None:
    assert article_of(make_post("导语。\n\n后文", description="简介")).content["digest"] == "简介"
    assert article_of(make_post("导语。\n\n后文")).content["digest"] == "导语。"
    assert article_of(make_post("![](https://e.org/a.png)")).content["digest"] == ""


def test_a_source_that_is_too_long_is_left_out() -> None:
    url = f"https://e.org/{'a' * 1011}"
    message = article_of(make_post("文", url=url))
    assert message.content["content_source_url"] == ""
    assert any("1024 bytes" in warning for warning in message.warnings)
    assert article_of(make_post("文", url=url[:-1])).content["content_source_url"] == url[:-1]


def test_styles_go_before_text_does() -> None:
    """A post that fits without most of its styles is whole."""
    body = "\n\n".join(f"- 第 {n} 条，[链接](https://example.com/item/{n})" for n in range(140))
    message = article_of(make_post(body))
    assert not message.warnings
    assert all(f"example.com/item/{n}<" in message.content["content"] for n in range(140))
    theme = load_theme(TEMPLATES)
    assert theme.styles["link"] not in message.content["content"]


def test_a_post_that_fits_without_styles_is_whole() -> None:
    message = article_of(make_post("\n\n".join(f"第 {n} 段，" + "字" * 30 for n in range(370))))
    html = message.content["content"]
    assert not message.warnings
    assert "第 369 段" in html
    assert html.count("style=") == 1
    assert html.count("</p><br><p>") == 369


@pytest.mark.parametrize(
    "body", [MANY_LINKS, HUGE_CODE, HUGE_QUOTE * 2, "没有尽头的一句话" * 3000, LONG_PARAGRAPHS * 3]
)
def test_a_teaser_says_so_and_leads_to_the_rest(body: str) -> None:
    message = article_of(make_post(body))
    (warning,) = [line for line in message.warnings if TEASER in line]
    html = message.content["content"]
    assert "阅读全文：https://brief.example.com/2026-03-05/sample/" in html
    assert size(html) > 10_000, "as much as there is room for"
    numbers = [int(number) for number in re.findall(r"<sup>\[(\d+)\]</sup>", html)]
    assert max(numbers, default=0) == len(re.findall(r"<p[^>]*>\[\d+\] ", html)), "its notes, and no others"
    assert "url" not in warning


def test_a_teaser_is_cut_before_a_section() -> None:
    sections = "\n\n".join(
        f"## 第 {n} 节\n\n" + "一段文字。" * 300 + "\n\n" + "又一段。" * 100 for n in range(30)
    )
    html = html_of(sections)
    kept = re.findall(r"第 (\d+) 节", html)
    assert kept == [str(n) for n in range(len(kept))]
    assert html.rindex("又一段") > html.rindex("第 "), "the last section is whole"


def test_a_very_long_paragraph_behind_a_short_one_is_begun() -> None:
    html = html_of("## 题\n\n短。\n\n" + "很长的一段。" * 9000)
    assert size(html) > 15_000
    assert "很长的一段。</p>" in html


def test_a_teaser_without_an_address_asks_for_one() -> None:
    message = article_of(make_post("字" * 30_000), make_newsletter(url_pattern=""))
    assert any("give the post a `url`" in warning for warning in message.warnings)
    assert "……" in message.content["content"]


def test_pictures_count_as_long_as_wechats_addresses() -> None:
    html = html_of("\n\n".join(f"![](https://e.org/{n}.png)" for n in range(60)))
    assert size(html) - len(html) >= 60 * 100
    hosted = re.sub(r'src="[^"]*"', f'src="{"x" * 160}"', html)
    assert len(hosted) < 20_000


def test_a_link_to_nowhere_is_refused() -> None:
    with pytest.raises(PostError, match="a link to nowhere"):
        article_of(make_post("[x](page.html)"))


def test_a_projects_own_theme(tmp_path: Path) -> None:
    folder = tmp_path / "templates" / "wechat"
    folder.mkdir(parents=True)
    (folder / "theme.j2").write_text('{% set styles = {"p": "color:red"} %}{% set essential = [] %}')
    templates = template_environment(tmp_path)
    html = render_wechat(make_post("文"), make_newsletter(), templates).content["content"]
    assert html == '<section><p style="color:red">文</p></section>'
    (folder / "theme.j2").write_text('{% set styles = "none" %}')
    with pytest.raises(ConfigError, match=r"theme\.j2"):
        render_wechat(make_post("文"), make_newsletter(), template_environment(tmp_path))


# ── anything at all ──────────────────────────────────────────────────────────────────────────────────────────────

WORDS = st.text(alphabet="字词 ab\u0301😀שׁ\ufdd0\ufdd1&<>0123", min_size=1, max_size=12)
LINES = st.one_of(
    WORDS,
    WORDS.map(lambda text: f"# {text}"),
    WORDS.map(lambda text: f"- {text}\n  - {text}\n    1. {text}"),
    WORDS.map(lambda text: f"> {text}\n> - {text}"),
    WORDS.map(lambda text: f"| {text} | b |\n|---|---|\n| ![{text}](https://e.org/a.png) | `{text}` |"),
    WORDS.map(lambda text: f"[{text}](https://e.org/{len(text)}) **{text}**[^1]"),
    WORDS.map(lambda text: f"<details><summary>{text}</summary><p>{text}"),
    WORDS.map(lambda text: f"```\n{text}\n```"),
    st.just("[^1]: 注 [源](https://e.org/n)[^1]"),
    st.just('<td><a href="https://e.org/td"><p>x'),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(LINES, max_size=12).map("\n\n".join))
def test_no_document_breaks_a_rule(body: str) -> None:
    with suppress(PostError):
        article_of(make_post(body))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(alphabet="字词句abc", min_size=1, max_size=9), min_size=1, max_size=9))
def test_words_stay_in_order(words: list[str]) -> None:
    shapes = ["{}", "## {}", "- {}\n  - {}", "> {}", "```\n{}\n```", "| {} |\n|---|\n| {} |"]
    body = "\n\n".join(shapes[place % len(shapes)].format(word, word) for place, word in enumerate(words))
    text = seen(html_of(body))
    position = 0
    for word in words:
        position = text.index(word, position) + len(word)


def test_footnotes_that_refer_to_each_other() -> None:
    html = plain(html_of("文[^a]\n\n[^a]: 甲[^b]\n\n[^b]: 乙[^a]"))
    assert "<p>[1] 甲<sup>[2]</sup></p><p>[2] 乙<sup>[1]</sup></p>" in html


def test_blocks_know_how_many_notes_they_need() -> None:
    document = parse(make_post("a\n\n[b](https://e.org/b)\n\nc\n\n[d](https://e.org/d)"))
    article = write_article(document, "", {}, ": ")
    assert [block.notes for block in article.blocks] == [0, 1, 1, 2]
    assert article.notes == ["<p>[1] b: https://e.org/b</p>", "<p>[2] d: https://e.org/d</p>"]


def test_blanks_beside_an_address_stay_in_a_list() -> None:
    html = html_of("- <https://example.com/0>  **A**")
    assert re.search(r"https://example\.com/0\s+<strong[^>]*>A</strong>", html)


def wechat_to(*destinations: dict[str, str]) -> Newsletter:
    return make_newsletter(channels={"wechat": {"destinations": list(destinations)}})


def test_a_post_that_no_cover_can_be_found_for_is_refused() -> None:
    """Before anything is sent: WeChat takes no article without one."""
    newsletter = wechat_to(
        {"name": "main"}, {"name": "covered", "default_cover": "cover.png"}, {"name": "all"}
    )
    with pytest.raises(
        PostError, match=r"`cover_image`, or set `default_cover` for main, all under"
    ) as caught:
        render_wechat(make_post("文"), newsletter, TEMPLATES)
    assert "config/newsletters/brief.toml" in str(caught.value)
    assert caught.value.path == Path("posts/sample.md")


@pytest.mark.parametrize(
    ("cover", "place"),
    [("https://e.org/c.png", {"name": "main"}), (None, {"name": "main", "default_cover": "cover.png"})],
)
def test_one_cover_is_enough(cover: str | None, place: dict[str, str]) -> None:
    assert article_of(make_post("文", cover_image=cover), wechat_to(place)).content["cover"] == (cover or "")
