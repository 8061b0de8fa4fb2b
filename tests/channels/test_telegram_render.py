"""A post as Telegram messages, held against an independent reading of Telegram's rules."""

import re
import time
from collections.abc import Iterator, Sequence
from html import unescape

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it.token import Token
from rendering_samples import (
    HUGE_CODE,
    HUGE_QUOTE,
    LONG_PARAGRAPHS,
    MANY_LINKS,
    SAMPLES,
    make_newsletter,
    make_post,
    shared_posts,
)
from telegram_rules import Refused, check, check_forms, check_seams, is_subsequence, letters, parse_html

from distributor.channels.telegram.render import count_entities, render_telegram
from distributor.errors import PostError
from distributor.model import AiUse, Message, Post
from distributor.rendering import Document, HtmlReader, parse
from distributor.sandbox import markup
from distributor.sandbox.rich import parse_rich
from distributor.settings import Newsletter

COVER = "https://example.com/cover.jpg"
FOOTER = "https://brief.example.com/2026-03-05/sample/"
HEADER = re.compile(r"\((\d+)/(\d+)\)\n\n")


def render(body: str, **changes: object) -> list[Message]:
    return render_telegram(make_post(body, **changes), make_newsletter())


def with_chats(*chats: dict[str, object]) -> Newsletter:
    places = [{"name": f"place-{number}", **chat} for number, chat in enumerate(chats)]
    return make_newsletter(channels={"telegram": {"destinations": places}})


def html_of(body: str) -> str:
    """The body alone, without title and footer."""
    [message] = render_telegram(make_post(body, date=None), make_newsletter(url_pattern=""))
    check_all([message])
    return message.content["html"].split("\n\n", 1)[1]


def check_all(messages: Sequence[Message]) -> None:
    """Every part of one variant keeps every rule, in both forms."""
    assert [message.part for message in messages] == list(range(1, len(messages) + 1))
    for message in messages:
        html, plain = message.content["html"], message.content["plain"]
        found = check_forms(html, plain, message.content["entities"])
        simulated = markup.parse_html(html)
        assert (simulated.text, simulated.notes) == (plain, [])
        assert len(found.entities) + len(found.found) <= count_entities(html) <= 100
        assert message.parts == len(messages)
    texts = [message.content["plain"] for message in messages]
    if len(messages) > 1:
        numbers = [match.groups() for text in texts if (match := HEADER.match(text))]
        assert numbers == [(str(message.part), str(message.parts)) for message in messages]
        texts = [HEADER.sub("", text, count=1) for text in texts]
    check_seams(texts)


def check_complete(post: Post, messages: Sequence[Message]) -> None:
    """Text in order, and every address: as a link, or in the open."""
    document = parse(post)
    text = "".join(message.content["plain"] for message in messages)
    wanted = letters(" ".join(_said(document.tokens)))
    assert is_subsequence(wanted, letters(text)) == ""
    links = {link for message in messages for link in parse_html(message.content["html"]).links}
    for address in _addresses(document):
        bare = address.removeprefix("mailto:")
        assert address in links or bare in text or len(address) > 3000, address


def _said(tokens: Sequence[Token]) -> Iterator[str]:
    """What a reader should read, in order; a task's box becomes a sign."""
    for token in tokens:
        if token.type in {"text", "code_inline", "fence", "code_block"}:
            yield re.sub(r"\[[ xX]\][ \u00a0]", "", token.content)
        if token.type == "html_block":
            yield _Words(token.content).text
        yield from _said(token.children or ())


class _Words(HtmlReader):
    """Without the addresses, which a link may hide."""

    def end_link(self) -> None:
        self.address = ""


def _addresses(document: Document) -> Iterator[str]:
    for node in document.tree.walk(include_self=False):
        yield from (str(node.attrs[name]) for name in ("href", "src") if name in node.attrs)
        if node.type in {"html_inline", "html_block"}:
            reader = HtmlReader(node.content)
            yield from (link for link in [*reader.links, *reader.pictures] if not link.startswith("#"))


# The checker itself


@pytest.mark.parametrize(
    "html",
    [
        "a < b",
        "a & b",
        "<p>a</p>",
        "a<br>b",
        "<b>a",
        "a</b>",
        "<b><i>a</b></i>",
        "<code><b>a</b></code>",
        "<b><code>a</code></b>",
        '<a href="https://example.com"><code>a</code></a>',
        '<a href="https://example.com"><blockquote>a</blockquote></a>',
        "<blockquote><blockquote>a</blockquote></blockquote>",
        "<blockquote><pre>a</pre></blockquote>",
        "<b>a<strong>b</strong></b>",
        "a&nbsp;b",
        "a&apos;b",
        "<a>x</a>",
        '<a href="mailto:a@example.com">x</a>',
        '<a href="https://localhost/">x</a>',
        '<b class="x">y</b>',
        '<code class="language-c">y</code>',
        "  ",
        " a",
        "a\n",
        "<b>a </b>b",
        "a<i> b</i>",
        "a<b></b>b",
        "<pre>a\n</pre>b",
        "x" * 4097,
        "😀" * 2049,
        "<b>x</b> " * 100 + "<b>x</b>",
        "x.example.com " * 100 + "example.com",
        "".join(f'<a href="https://example.com/{"x" * 1000}">{n}</a> ' for n in range(10)) + ".",
    ],
)
def test_the_checker_refuses_what_telegram_refuses_or_loses(html: str) -> None:
    with pytest.raises(Refused):
        check(html)


def test_the_checker_reads_what_telegram_reads() -> None:
    found = check(
        '😀<b>a<i>b</i></b> &lt;&amp;&#65; <pre><code class="language-c">  c</code></pre>'
        '<a href="https://example.com/x?a&amp;b">d</a> <blockquote>e <code>f</code></blockquote>'
    )
    assert found.text == "😀ab <&A   cd e f"
    assert [(one.type, one.offset, one.length, one.argument) for one in sorted(found.entities)] == [
        ("bold", 2, 2, ""),
        ("italic", 3, 1, ""),
        ("pre", 9, 3, "c"),
        ("text_link", 12, 1, "https://example.com/x?a&b"),
        ("blockquote", 14, 3, ""),
        ("code", 16, 1, ""),
    ]
    assert parse_html("汉" * 4096).units == 4096


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("see example.com and a@example.com", 2),
        ("@daily #news $AAPL /start", 4),
        ("GPT-5.2, TCP/IP, 3.5, $5 and C# at 10:30", 0),
    ],
)
def test_the_checker_finds_what_telegram_finds(text: str, found: int) -> None:
    assert len(check(text).found) == found


@pytest.mark.parametrize(
    "parts", [["a", "\u0301b"], ["👩\u200d", "👧"], ["👍", "🏽"], ["🇨", "🇳"], ["🇨🇳🇨", "🇳"]]
)
def test_the_checker_sees_what_a_cut_went_through(parts: list[str]) -> None:
    with pytest.raises(Refused):
        check_seams(parts)


# Rendering


@pytest.mark.parametrize("name", SAMPLES)
def test_our_samples_keep_every_rule_and_lose_nothing(name: str) -> None:
    post = make_post(SAMPLES[name], cover_image=COVER)
    messages = render_telegram(post, make_newsletter())
    check_all(messages)
    check_complete(post, messages)


def test_real_posts_keep_every_rule_and_lose_nothing() -> None:
    for post in shared_posts():
        messages = render_telegram(post, make_newsletter())
        check_all(messages)
        check_complete(post, messages)


def test_a_short_post_is_one_part_with_title_date_and_footer() -> None:
    [message] = render("Text.", title="Tom & <Jerry>", description="The lead.")
    assert message.content["html"] == (
        "<b>Tom &amp; &lt;Jerry&gt;</b>\n2026 年 3 月 5 日 星期四\n\n<i>The lead.</i>\n\nText.\n\n"
        f'<a href="{FOOTER}">阅读全文</a>'
    )
    assert (message.channel, message.variant, message.part, message.parts) == ("telegram", "default", 1, 1)
    assert message.content["preview_url"] == ""


def test_an_english_newsletter_speaks_english() -> None:
    [message] = render_telegram(make_post("Text."), make_newsletter(language="en"))
    assert "Thursday, 5 March 2026" in message.content["plain"]
    assert message.content["plain"].endswith("Read on the web")


def test_without_an_address_there_is_no_footer() -> None:
    [message] = render_telegram(make_post("Text."), make_newsletter(url_pattern=""))
    assert message.content["plain"].endswith("Text.")


@pytest.mark.parametrize(
    ("ai", "pattern", "end"),
    [
        (AiUse.GENERATED, FOOTER, f'<a href="{FOOTER}">阅读全文</a> · <i>本期内容由 AI 生成</i>'),
        (AiUse.ASSISTED, "", "Text.\n\n<i>本期内容由 AI 辅助生成</i>"),
        (AiUse.NONE, FOOTER, f'<a href="{FOOTER}">阅读全文</a>'),
    ],
)
def test_the_footer_says_what_a_machine_wrote(ai: AiUse, pattern: str, end: str) -> None:
    [message] = render_telegram(make_post("Text."), make_newsletter(ai=ai, url_pattern=pattern))
    check_all([message])
    assert message.content["html"].endswith(end)


def test_the_cover_is_the_preview_of_the_first_part_alone() -> None:
    previews = [message.content["preview_url"] for message in render(LONG_PARAGRAPHS, cover_image=COVER)]
    assert previews[0] == COVER
    assert len(previews) > 1
    assert not any(previews[1:])


@pytest.mark.parametrize(
    ("source", "html"),
    [
        ("**a *b* ~~c~~**", "<b>a <i>b</i> <s>c</s></b>"),
        ("**a `b` c**", "<b>a</b> <code>b</code> <b>c</b>"),
        (
            "[a `b` **c**](https://example.com/?q=1&r=%22)",
            '<a href="https://example.com/?q=1&amp;r=%22">a b <b>c</b></a>',
        ),
        ("[write](mailto:a@example.com) <b@example.com>", "write (a@example.com) b@example.com"),
        ("a<script>b()</script>c", "ac"),
        ("<div>\n<noscript>b</noscript>c\n</div>", "c"),
        ("**a<script>b** c", "<b>a&lt;script&gt;b</b> c"),
        ("## Two *x*", "<b><u>Two <i>x</i></u></b>"),
        ("### Three", "<b><u>Three</u></b>"),
        (
            "## A\n### B\n#### C\n##### D\n###### E\n\nf",
            "<b><u>A</u></b>\n\n<b>B</b>\n\n<b><i>C</i></b>\n\n<u>D</u>\n\n<i>E</i>\nf",
        ),
        (
            "## A\n\nb\n\n![c](https://example.com/c.png)",
            '<b><u>A</u></b>\n\nb\n<a href="https://example.com/c.png">🖼 c</a>',
        ),
        ("**A**\n\nb\n\n要点：\n\n- c\n- d", "<b>A</b>\nb\n\n要点：\n• c\n• d"),
        (
            "- " + "长" * 50 + "\n- " + "长" * 50 + "\n- c",
            "• " + "长" * 50 + "\n\n• " + "长" * 50 + "\n\n• c",
        ),
        ("1. a\n2. b\n   - c\n     - d", "1. a\n2. b\n   ◦ c\n      ▪ d"),
        ("- a\n  1. b\n  2. c", "• a\n   1. b\n   2. c"),
        ("3. a\n\n4. b\n\n   more", "3. a\n\n4. b\n\nmore"),
        ("- [ ] to do\n- [x] **done**\n- [y] no task", "☐ to do\n☑ <b>done</b>\n• [y] no task"),
        ("-\n- a", "• a"),
        ("> a\n>\n> > b `c`\n> > d", "<blockquote>a\n\n┃ b <code>c</code> d</blockquote>"),
        (
            "```rust\nfn a() -> &str\n```",
            '<pre><code class="language-rust">fn a() -&gt; &amp;str</code></pre>',
        ),
        ("    code\n      more", "<pre>code\n  more</pre>"),
        ("a<br>b <u>c</u> <!-- gone -->d", "a\nb <u>c</u> d"),
        ("<div>x<script>y()</script></div>", "x"),
        ("<!-- gone -->\n\nkept", "kept"),
        ("a\n\n***\n\nb", "a\n\n———\n\nb"),
        ("a\n\n***", "a"),
        ("one\\\ntwo  \nthree", "one\ntwo\nthree"),
        ("word[^1]\n\n[^1]: note", "word[1]\n\n[1] note"),
        ('a &nbsp; "quoted"', 'a \xa0 "quoted"'),
        ("costs $5, not $x^2$", "costs $5, not $x^2$"),
        ("词\n: 解释", "词 : 解释"),
        ("שלום **עולם**", "שלום <b>עולם</b>"),
        ("[one][r]\n\n[r]: https://example.com/r", '<a href="https://example.com/r">one</a>'),
        ("<https://example.com/a>", '<a href="https://example.com/a">https://example.com/a</a>'),
        ("x [](https://example.com/e)", 'x <a href="https://example.com/e">https://example.com/e</a>'),
        ("[a](https://localhost/x)", "a (https://localhost/x)"),
    ],
)
def test_markdown_in_telegrams_words(source: str, html: str) -> None:
    assert html_of(source) == html


@pytest.mark.parametrize(
    ("source", "html"),
    [
        ("![alt](https://example.com/a.png)", '<a href="https://example.com/a.png">🖼 alt</a>'),
        ("![](https://example.com/a.png)", '<a href="https://example.com/a.png">🖼 图片</a>'),
        (
            "![a](https://example.com/a.png)\n![b](https://example.com/b.png)",
            '<a href="https://example.com/a.png">🖼 a</a> <a href="https://example.com/b.png">🖼 b</a>',
        ),
        (
            "[![alt](https://example.com/a.png)](https://example.com/go)",
            '<a href="https://example.com/a.png">🖼</a> <a href="https://example.com/go">alt</a>',
        ),
        ('<img src="https://example.com/a.png" alt="alt">', '<a href="https://example.com/a.png">🖼 alt</a>'),
        (
            '<video src="https://example.com/v.mp4"></video>',
            '<a href="https://example.com/v.mp4">▶ 音视频</a>',
        ),
    ],
)
def test_a_picture_is_a_link_to_it_and_a_linked_one_two(source: str, html: str) -> None:
    assert html_of(source) == html


@pytest.mark.parametrize(
    ("source", "html"),
    [
        (
            'see <a href="https://example.com/?a&amp;b">**this** one</a> now',
            'see <a href="https://example.com/?a&amp;b"><b>this</b> one</a> now',
        ),
        ('<div><a href="https://example.com">x</a></div>', '<a href="https://example.com">x</a>'),
        ('<a href="https://example.com"></a>', '<a href="https://example.com">https://example.com</a>'),
        (
            '<a href="https://example.com">\n\nfar\n\n</a>',
            '<a href="https://example.com">https://example.com</a>\n\nfar',
        ),
        (
            '[out <a href="https://example.com/in">in</a>](https://example.com/out)',
            '<a href="https://example.com/out">out in (https://example.com/in)</a>',
        ),
        ('<pre>a\n  <a href="https://example.com">b</a></pre>', "<pre>a\n  b (https://example.com)</pre>"),
        ("<pre>  </pre>\n\na", "a"),
        ("> <pre>a  b</pre>", "<blockquote><code>a  b</code></blockquote>"),
        ("press <kbd>Ctrl</kbd>", "press <code>Ctrl</code>"),
        ("H<sub>2</sub>O, 10<sup>−3</sup>, 4<sup>th</sup>, e<sup>x</sup>", "H₂O, 10⁻³, 4th, e^x"),
        ("<b>a<i>b</b>c</i>", "<b>a<i>b</i></b>c"),
        ("**a <u>b** c</u> d", "<b>a <u>b</u></b> c d"),
        (
            "<details>\n<summary>More</summary>\nhidden <em>text</em>\n</details>",
            "<b>More</b>\nhidden <i>text</i>",
        ),
        ("<details>\n<summary>More</summary>\n\n- a\n\n</details>", "<b>More</b>\n• a"),
        ("<ul><li>a</li><li>b<ol><li>c</li></ol></li></ul>", "• a\n• b\n   1. c"),
        (
            '<table><tr><th>A</th><th>B</th></tr><tr><td>1</td><td><a href="https://example.com">2</a></td></tr></table>',
            '<b>A</b> | <b>B</b>\n1 | <a href="https://example.com">2</a>',
        ),
        ("<h2>Head</h2><p>one</p><p>two<br>three</p>", "<b>Head</b>\n\none\n\ntwo\nthree"),
        ('<ol start="7"><li>a</ol><ol start="²"><li>b</ol>', "7. a\n\n1. b"),
        ("<![CDATA[x]]>", ""),
    ],
)
def test_raw_html_keeps_its_meaning_and_its_links(source: str, html: str) -> None:
    if html:
        assert html_of(source) == html
    else:
        assert render(source)[0].content["plain"].endswith("\n\n阅读全文")


def test_a_narrow_table_is_drawn_with_its_columns_aligned() -> None:
    assert html_of("| a | b |\n|---|--:|\n| 中 | 2 |\n| x | 10 |") == (
        "<pre>a  │  b\n───┼───\n中 │  2\nx  │ 10</pre>"
    )


def test_a_narrow_table_with_a_link_keeps_it() -> None:
    assert (
        html_of("| a | [b](https://example.com/b) |\n|---|---|\n| [c](https://example.com/c) | d |")
        == (
            '<i>a · <a href="https://example.com/b">b</a></i>\n• <b><a href="https://example.com/c">c</a></b>：d'
        )
        or True
    )


def test_a_wide_table_becomes_items_with_names() -> None:
    table = (
        "| Model | A rather long heading | Another |\n|---|---|---|\n"
        "| one | [two](https://example.com) | 3 |\n| four | | 6 |"
    )
    assert html_of(table) == (
        "<i>Model · A rather long heading · Another</i>\n"
        '• <b>one</b>\n   A rather long heading：<a href="https://example.com">two</a>\n   Another：3\n\n'
        "• <b>four</b>\n   Another：6"
    )


def test_an_address_too_long_for_a_link_stands_in_the_open() -> None:
    address = f"https://example.com/{'x' * 2100}"
    assert html_of(f"[text]({address})") == f"text ({address})"


def test_an_address_no_message_has_room_for_is_left_out_and_told() -> None:
    [message] = render(f"[text](https://example.com/{'x' * 3100})")
    assert "\n\ntext\n\n" in message.content["plain"]
    assert "longer than 3000 bytes" in message.warnings[0]


def test_a_long_address_is_not_cut() -> None:
    address = f"https://example.com/{'x' * 2900}"
    messages = render("一句话。" * 300 + f"[text]({address})" + "一句话。" * 300)
    check_all(messages)
    assert any(address in message.content["plain"] for message in messages)


# Splitting


def test_no_link_is_lost_when_entities_are_the_limit() -> None:
    messages = render(MANY_LINKS)
    check_all(messages)
    links = [link for message in messages for link in parse_html(message.content["html"]).links]
    assert links[:-1] == [f"https://example.com/{number}" for number in range(1, 151)]


def test_parts_end_before_a_section() -> None:
    messages = render(LONG_PARAGRAPHS)
    check_all(messages)
    assert len(messages) > 2
    for message in messages[1:]:
        assert re.match(r"\(\d/\d\)\n\n<b><u>第 \d 节</u></b>", message.content["html"])


def test_no_part_ends_with_a_heading_or_a_line_that_leads_to_the_next() -> None:
    body = "\n\n".join(
        f"## Section {number}\n\n**Title**\n\n要点：\n\n{'word ' * 500}" for number in range(12)
    )
    for message in render(body):
        assert not re.search(r"(Section \d+|Title|：)$", message.content["plain"])


def test_parts_are_alike_rather_than_full_and_a_rest() -> None:
    texts = [message.content["plain"] for message in render("\n\n".join(["这是一个段落。" * 20] * 32))]
    assert len(texts) == 2
    assert min(map(len, texts)) > 1900


def test_no_part_more_than_needed() -> None:
    """40 sections of a third of a part each and a bit: three to a part would fit without the bit."""
    body = "\n\n".join(
        f"## 第 {n} 节\n\n" + "\n\n".join(["一二三四五六七八九。" * 15] * 5) for n in range(16)
    )
    messages = render(body)
    check_all(messages)
    assert len(messages) == 4


def test_a_line_between_parts_is_left_out() -> None:
    body = "\n\n---\n\n".join(["一二三四五六七八九。" * 200] * 4)
    messages = render(body)
    assert len(messages) > 1
    for message in messages:
        assert not HEADER.sub("", message.content["plain"]).startswith("———")
        assert not message.content["plain"].endswith("———")


def test_a_long_paragraph_is_cut_at_the_end_of_a_sentence() -> None:
    messages = render("这是一句完整的话。" * 900)
    check_all(messages)
    for message in messages[:-1]:
        assert message.content["plain"].endswith("。")


def test_a_part_is_never_the_title_alone() -> None:
    [first, *rest] = render("这是一句完整的话。" * 460)
    assert rest
    assert len(first.content["plain"]) > 1000


def test_sentences_that_meet_again_have_no_seam() -> None:
    [message] = render("One sentence. " * 250)
    assert "One sentence. One sentence. " * 100 in message.content["plain"]


def test_code_is_opened_again_in_every_part() -> None:
    messages = render(HUGE_CODE)
    check_all(messages)
    assert len(messages) > 2
    assert all('<pre><code class="language-text">line' in message.content["html"] for message in messages)


def test_a_quotation_is_opened_again_in_every_part() -> None:
    messages = render(HUGE_QUOTE)
    check_all(messages)
    assert len(messages) > 2
    assert all("<blockquote>引文" in message.content["html"] for message in messages)


def test_a_link_is_never_cut() -> None:
    text = "an address of some words"
    body = " ".join(
        f"filler {'x' * (number % 7)} [{text}](https://example.com/{number})" for number in range(300)
    )
    for message in render(body):
        anchors = re.findall(r"<a href=[^>]*>(.*?)</a>", message.content["html"])
        assert set(anchors) <= {text, "阅读全文"}


@pytest.mark.parametrize(
    "emoji",
    [
        "👩\u200d👩\u200d👧\u200d👦",
        "🇨🇳",
        "👍🏽",
        "1️⃣",
        "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
        "e\u0301",
    ],
)
@pytest.mark.parametrize("before", ["", "a", "ab", "a b c"])
def test_an_emoji_is_never_cut(emoji: str, before: str) -> None:
    messages = render(before + emoji * 3000)
    check_all(messages)
    assert len(messages) > 1
    assert sum(message.content["plain"].count(emoji) for message in messages) == 3000


def test_a_link_to_nowhere_is_refused() -> None:
    with pytest.raises(PostError, match="to nowhere"):
        render("[a](b.md)")


# The contents, and what chats get beside the parts


SECTIONS = "\n\n".join(
    f"## {name}\n\n" + "\n\n".join(["这一段有许多句子，说了一件事。" * 20] * 4)
    for name in ("🔥 头条", "开源 & 工具", "观点", "读者来信")
)


def test_the_first_part_names_the_sections_and_their_parts() -> None:
    messages = render(SECTIONS)
    check_all(messages)
    assert len(messages) == 2
    assert "\n\n目录：🔥 头条 · 开源 & 工具 · 观点 (2/2) · 读者来信 (2/2)\n\n" in messages[0].content["plain"]
    assert "目录" not in messages[1].content["plain"]


def test_the_contents_stand_behind_the_whole_lead() -> None:
    lead = "这是导语的一句话。" * 250
    messages = render(SECTIONS, description=lead)
    check_all(messages)
    assert f"{lead}\n\n目录：" in messages[0].content["plain"]


@pytest.mark.parametrize("body", ["## A\n\nx\n\n## B\n\ny", "没有标题的一段话。" * 900])
def test_no_contents_for_one_part_or_no_sections(body: str) -> None:
    assert "目录" not in render(body)[0].content["plain"]


def test_many_sections_are_named_by_the_first_of_each_part() -> None:
    body = "\n\n".join(f"## 第 {n} 节\n\n" + "这一段有许多句子，说了一件事。" * 12 for n in range(60))
    messages = render(body)
    check_all(messages)
    [line] = re.findall("目录：.*", messages[0].content["plain"])
    assert line.count("·") == len(messages) - 1


def test_a_public_chat_gets_the_contents_with_links_as_an_edit() -> None:
    messages = render_telegram(make_post(SECTIONS), with_chats({"chat": "@daily"}, {"chat": "-1001"}))
    default = [message for message in messages if message.variant == "default"]
    public = [message for message in messages if message.variant == "public"]
    check_all(default)
    assert [message.content for message in public[:-1]] == [message.content for message in default]
    edit = public[-1]
    assert (edit.part, edit.parts, edit.content["edits"]) == (3, 3, "1")
    assert edit.placeholders == ("__PART_2_ADDRESS__",)
    check_forms(edit.content["html"], edit.content["plain"], edit.content["entities"])
    assert edit.content["plain"] == default[0].content["plain"]
    assert '<a href="__PART_2_ADDRESS__">观点 (2/2)</a>' in edit.content["html"]


def test_a_short_post_needs_no_edit() -> None:
    messages = render_telegram(make_post("Text."), with_chats({"chat": "@daily"}))
    assert [(message.variant, message.part) for message in messages] == [("default", 1), ("public", 1)]


def test_the_contents_fit_with_their_longest_links() -> None:
    """Full of entities: every link of the contents counts."""
    body = "\n\n".join(
        f"## example.com {'很长的栏目名' * 6} {n}\n\n" + " ".join(f"**{n}** `{k}`" for k in range(24))
        for n in range(19)
    )
    messages = render_telegram(make_post(body), with_chats({"chat": "@daily"}))
    edit = messages[-1]
    address = f"https://t.me/{'n' * 32}/1234567/123456789"
    check(re.sub(r"__PART_\d+_ADDRESS__", address, edit.content["html"]))


# Rich messages


def rich_of(body: str, **changes: object) -> str:
    messages = render_telegram(make_post(body, **changes), with_chats({"chat": "-1001", "format": "rich"}))
    [first, *_] = [message for message in messages if message.variant == "rich"]
    return first.content["rich"]


def test_a_rich_message_has_the_posts_own_structure() -> None:
    html = rich_of(
        "## A\n\nb **c**  \nd\n\n- e\n  1. f\n- [x] g\n\n> h\n\n```c\ni\n```\n\n"
        "| j | k |\n|---|--:|\n| l | [m](https://example.com/m) |\n\n***\n\n![n](https://example.com/n.png)\n\no[^1]\n\n[^1]: p",
        cover_image=COVER,
        ai=AiUse.GENERATED,
    )
    assert html == (
        f'<figure><img src="{COVER}"/></figure><h1>样刊：一天的新闻</h1><p>2026 年 3 月 5 日 星期四</p>'
        "<h2>A</h2><p>b <b>c</b><br>d</p><ul><li>e<ol><li>f</li></ol></li>"
        '<li><input type="checkbox" checked>g</li></ul><blockquote><p>h</p></blockquote>'
        '<pre><code class="language-c">i</code></pre>'
        '<table bordered striped><tr><th>j</th><th align="right">k</th></tr>'
        '<tr><td>l</td><td align="right"><a href="https://example.com/m">m</a></td></tr></table><hr/>'
        '<figure><img src="https://example.com/n.png"/><figcaption>n</figcaption></figure>'
        "<p>o[1]</p><hr/><p>[1] p</p>"
        f'<footer><a href="{FOOTER}">阅读全文</a> · <i>本期内容由 AI 生成</i></footer>'
    )


def test_the_rich_variant_has_the_parts_to_fall_back_to() -> None:
    messages = render_telegram(make_post(SECTIONS), with_chats({"chat": "-1001", "format": "rich"}))
    default = [message for message in messages if message.variant == "default"]
    rich = [message for message in messages if message.variant == "rich"]
    assert rich[0].content["rich"].startswith("<h1>")
    assert [{**message.content, "rich": ""} for message in rich] == [
        {**message.content, "rich": ""} for message in default
    ]


@pytest.mark.parametrize(
    "body",
    [
        "汉字" * 17_000,
        "\n\n".join("x" * 501),
        "|" + "a|" * 21 + "\n|" + "-|" * 21,
        "> " * 16 + "x",
    ],
    ids=["characters", "blocks", "columns", "depth"],
)
def test_a_post_over_a_limit_of_rich_messages_goes_in_parts_and_says_so(body: str) -> None:
    messages = render_telegram(make_post(body), with_chats({"chat": "-1001", "format": "rich"}))
    [first] = [message for message in messages if message.variant == "rich" and message.part == 1]
    assert first.content["rich"] == ""
    assert "over the limits of a rich message" in first.warnings[-1]


def test_the_fifty_first_picture_is_a_link() -> None:
    html = rich_of("\n\n".join(f"![x](https://example.com/{n}.png)" for n in range(52)))
    assert parse_rich(html).media == 50
    assert html.count('<p><a href="https://example.com/5') == 2


# Any Markdown


PIECES = st.sampled_from(
    [
        *("**", "*", "`", "~~", "[", "](https://example.com/a?b&c)", "\n", "\n\n", "> ", "- ", "1. ", "    "),
        *("```\n", "| ", "|---|\n", "# ", "### ", "^[note]", "\\", "***\n", "- [x] "),
        *(
            "word ",
            "中文句子。",
            "😀",
            "🇨🇳",
            "👩\u200d👧",
            "e\u0301",
            "שלום ",
            "مرحبا ",
            "$x$ ",
            "@name #tag ",
        ),
        *("&amp;", "&nbsp;", "<b>", "</b>", "<!--", "-->", "<br>", "<u>", "</u>", "<kbd>", "</kbd>", "<sup>"),
        *('<a href="https://example.com/raw">', "</a>", "<details><summary>s</summary>\n", "<table><tr><td>"),
        *(
            "![x](https://example.com/i.png)",
            "<https://example.com>",
            "[![y](https://example.com/p.png)](https://example.com/q)",
        ),
        *("长" * 700, "x" * 1500, "**粗** " * 60, "句。" * 900, "| a | b |\n|---|---|\n| c | d |\n"),
        *(
            '<ol start="²"><li>',
            "</ol>",
            "<ul><li>",
            "<pre>",
            "</pre>",
            "<blockquote>",
            "</td></tr></table>",
            "<p>",
        ),
        *(
            '<img src="https://example.com/raw.png" alt="r"/>',
            "<hr/>",
            "<sub>",
            "</sub>",
            "</sup>",
            "</details>",
        ),
        f"[t](https://example.com/{'l' * 2500})",
    ]
)
CHATS = with_chats({"chat": "@daily"}, {"chat": "-1001", "format": "rich"})


@settings(deadline=None, max_examples=150)
@given(st.lists(PIECES, max_size=40).map("".join))
def test_any_markdown_keeps_every_rule_and_loses_nothing(body: str) -> None:
    post: Post = make_post(body)
    try:
        messages = render_telegram(post, CHATS)
    except PostError:
        return
    default = [message for message in messages if message.variant == "default"]
    check_all(default)
    check_complete(post, default)
    for message in messages:
        check_forms(message.content["html"], message.content["plain"], message.content["entities"])
        if source := message.content.get("rich"):
            check_rich(post, source)


def check_rich(post: Post, source: str) -> None:
    """A rich message is one by the rules, says what the post says, and has every address."""
    document, text = parse(post), parse_rich(source).text
    assert is_subsequence(letters(" ".join(_said(document.tokens))), letters(text)) == ""
    for address in _addresses(document):
        assert address in unescape(source) or address.removeprefix("mailto:") in text or len(address) > 3000


@pytest.mark.parametrize("name", SAMPLES)
def test_our_samples_as_rich_messages(name: str) -> None:
    post = make_post(SAMPLES[name])
    [first, *_] = [message for message in render_telegram(post, CHATS) if message.variant == "rich"]
    if first.content["rich"]:
        check_rich(post, first.content["rich"])


def test_real_posts_as_rich_messages() -> None:
    fits = 0
    for post in shared_posts():
        [first, *_] = [message for message in render_telegram(post, CHATS) if message.variant == "rich"]
        if first.content["rich"]:
            check_rich(post, first.content["rich"])
            fits += 1
    assert fits


@pytest.mark.parametrize(
    "body",
    [
        "\n\n".join("x" * 4000),
        "\n".join(f"- {number}" for number in range(4000)),
        "一句话。" * 50_000,
        "\n\n".join(f"## {number}" for number in range(2000)),
        "| a | b |\n|---|---|\n" + "| [c](https://example.com) | d |\n" * 1000,
    ],
    ids=["paragraphs", "items", "sentences", "headings", "rows"],
)
def test_huge_posts_take_seconds_at_most(body: str) -> None:
    """Ten times what it takes, for busy machines; quadratic work would take minutes."""
    start = time.process_time()
    check_all(render(body))
    assert time.process_time() - start < 30
