"""A post as Telegram messages, held against an independent reading of Telegram's rules."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rendering_samples import (
    DIGEST,
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
from telegram_rules import Refused, check, parse_html

from distributor.channels.telegram.render import count_entities, render_telegram
from distributor.errors import PostError
from distributor.model import Message, Post
from distributor.rendering import outline, parse

COVER = "https://example.com/cover.jpg"


def render(body: str, **changes: object) -> list[Message]:
    return render_telegram(make_post(body, **changes), make_newsletter())


def html_of(body: str) -> str:
    """The body alone, without title and footer."""
    [message] = render_telegram(make_post(body, date=None), make_newsletter(url_pattern=""))
    return message.content["html"].split("\n\n", 1)[1]


def check_all(messages: list[Message]) -> None:
    assert [message.part for message in messages] == list(range(1, len(messages) + 1))
    for message in messages:
        found = check(message.content["html"])
        assert found.text == message.content["plain"]
        assert len(found.entities) <= count_entities(message.content["html"]) <= 100
        assert message.parts == len(messages)
        assert message.content["plain"].startswith(f"({message.part}/{message.parts})\n\n") == (
            message.parts > 1
        )


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
        '<a href="x"><code>a</code></a>',
        "<blockquote><blockquote>a</blockquote></blockquote>",
        "a&nbsp;b",
        "<a>x</a>",
        '<b class="x">y</b>',
        "  ",
        "x" * 4097,
        "😀" * 2049,
        "<b>x</b> " * 101,
        "汉" * 3200,
    ],
)
def test_the_checker_refuses_what_telegram_refuses(html: str) -> None:
    with pytest.raises(Refused):
        check(html)


def test_the_checker_reads_what_telegram_reads() -> None:
    found = parse_html(
        '<b>a<i>b</i></b> &lt;&amp;&#65; <pre><code class="language-c">c</code></pre><a href="x?a&amp;b">d</a>'
    )
    assert found.text == "ab <&A cd"
    assert sorted(tag for tag, _, _ in found.entities) == ["a", "b", "i", "pre"]
    assert found.links == ["x?a&b"]


# Rendering


@pytest.mark.parametrize("name", SAMPLES)
def test_our_samples_keep_every_rule(name: str) -> None:
    check_all(render(SAMPLES[name], cover_image=COVER))


def test_real_posts_keep_every_rule_and_every_link() -> None:
    for post in shared_posts():
        messages = render_telegram(post, make_newsletter())
        check_all(messages)
        links = {link for message in messages for link in parse_html(message.content["html"]).links}
        assert {link for link in outline(parse(post)).links if not link.startswith("mailto:")} <= links


def test_a_short_post_is_one_part_with_title_date_and_footer() -> None:
    [message] = render("Text.", title="Tom & <Jerry>", description="The lead.")
    assert message.content["html"] == (
        "<b>Tom &amp; &lt;Jerry&gt;</b>\n2026 年 3 月 5 日 星期四\n\n<i>The lead.</i>\n\nText.\n\n"
        '<a href="https://brief.example.com/2026-03-05/sample/">阅读全文</a>'
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


def test_the_cover_is_the_preview_of_the_first_part_alone() -> None:
    previews = [message.content["preview_url"] for message in render(LONG_PARAGRAPHS, cover_image=COVER)]
    assert previews[0] == COVER
    assert len(previews) > 1
    assert not any(previews[1:])


@pytest.mark.parametrize(
    ("source", "html"),
    [
        ("**a *b* ~~c~~**", "<b>a <i>b</i> <s>c</s></b>"),
        ("**a `b` c**", "<b>a </b><code>b</code><b> c</b>"),
        (
            "[a `b` **c**](https://example.com/?q=1&r=%22)",
            '<a href="https://example.com/?q=1&amp;r=%22">a b <b>c</b></a>',
        ),
        ("[write](mailto:a@example.com) <b@example.com>", "write (a@example.com) b@example.com"),
        ("a<script>b()</script>c", "ac"),
        ("**a<script>b** c", "<b>a</b>"),
        ("## Head *x*", "<b>Head <i>x</i></b>"),
        ("1. a\n2. b\n   - c\n     - d", "1. a\n2. b\n   • c\n      • d"),
        ("3. a\n\n4. b\n\n   more", "3. a\n\n4. b\n\nmore"),
        ("> a\n>\n> > b `c`", "<blockquote>a\n\nb <code>c</code></blockquote>"),
        (
            "```rust\nfn a() -> &str\n```",
            '<pre><code class="language-rust">fn a() -&gt; &amp;str</code></pre>',
        ),
        ("    code", "<pre>code</pre>"),
        ("![alt](https://example.com/a.png)", '<a href="https://example.com/a.png">🖼 alt</a>'),
        ("a<br>b <u>c</u> <!-- gone -->d", "a\nb c d"),
        ("<div>x<script>y()</script></div>", "x"),
        ("<!-- gone -->\n\nkept", "kept"),
        ("a\n\n***\n\nb", "a\n\n———\n\nb"),
        ("| a | b |\n|---|---|\n| 中 | 2 |", "<pre>a  │ b\n───┼──\n中 │ 2</pre>"),
        ("word[^1]\n\n[^1]: note", "word[1]\n\n[1] note"),
        ('a &nbsp; "quoted"', 'a \xa0 "quoted"'),
    ],
)
def test_markdown_in_telegrams_words(source: str, html: str) -> None:
    assert html_of(source) == html


def test_a_wide_table_becomes_lines() -> None:
    table = (
        "| A rather long heading | Another long heading |\n|---|---|\n| one | [two](https://example.com) |"
    )
    assert html_of(table) == (
        '<b>A rather long heading: </b>one\n<b>Another long heading: </b><a href="https://example.com">two</a>'
    )


def test_a_link_too_long_for_a_message_leaves_its_text() -> None:
    assert html_of(f"[text](https://example.com/{'&' * 600})") == "text"


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
        assert re.match(r"\(\d/\d\)\n\n<b>第 \d 节</b>", message.content["html"])


def test_no_part_ends_with_a_heading() -> None:
    body = "\n\n".join(f"## Section {number}\n\n{'word ' * 500}" for number in range(12))
    for message in render(body):
        assert not re.search(r"Section \d+$", message.content["plain"])


def test_a_long_paragraph_is_cut_at_the_end_of_a_sentence() -> None:
    messages = render("这是一句完整的话。" * 900)
    check_all(messages)
    for message in messages[:-1]:
        assert message.content["plain"].endswith("。")


def test_a_part_is_never_the_title_alone() -> None:
    [first, *rest] = render("这是一句完整的话。" * 345)
    assert rest
    assert len(first.content["plain"]) > 1000


def test_sentences_that_meet_again_have_no_seam() -> None:
    [message] = render("One sentence. " * 250)
    assert "One sentence. One sentence. " * 100 in message.content["plain"]


def test_nothing_is_lost_by_cutting() -> None:
    for body in (LONG_PARAGRAPHS, HUGE_CODE, HUGE_QUOTE, DIGEST, EVERYTHING):
        blocks = "".join(message.content["plain"] for message in render(body))
        whole = re.sub(r"\(\d+/\d+\)|\s", "", blocks)
        for word in re.findall(r"第 \d+ [节行]|line \d+", body):
            assert word.replace(" ", "") in whole


def test_code_is_opened_again_in_every_part() -> None:
    messages = render(HUGE_CODE)
    assert len(messages) > 2
    assert all('<pre><code class="language-text">line' in message.content["html"] for message in messages)


def test_a_quotation_is_opened_again_in_every_part() -> None:
    messages = render(HUGE_QUOTE)
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


def test_an_emoji_is_never_cut() -> None:
    family = "👩\u200d👩\u200d👧\u200d👦"
    for message in render(family * 1500):
        assert message.content["plain"].count("👩") == 2 * message.content["plain"].count("👦")


def test_a_link_to_nowhere_is_refused() -> None:
    with pytest.raises(PostError, match="to nowhere"):
        render("[a](b.md)")


PIECES = st.sampled_from(
    [
        *(
            "**",
            "*",
            "`",
            "~~",
            "[",
            "](https://example.com/a?b&c)",
            "\n",
            "\n\n",
            "> ",
            "- ",
            "1. ",
            "    ",
            "```\n",
            "| ",
        ),
        *(
            "word ",
            "中文句子。",
            "😀",
            "&amp;",
            "<b>",
            "</b>",
            "<!--",
            "-->",
            "![x](https://example.com/i.png)",
            "|---|\n",
        ),
        *("# ", "^[note]", "\\", "<https://example.com>", "长" * 700, "x" * 1500, "**粗** " * 60),
    ]
)


@settings(deadline=None, max_examples=150)
@given(st.lists(PIECES, max_size=40).map("".join))
def test_no_markdown_breaks_a_rule(body: str) -> None:
    post: Post = make_post(body)
    try:
        messages = render_telegram(post, make_newsletter())
    except PostError:
        return
    check_all(messages)
