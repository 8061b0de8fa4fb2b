"""A post as short WeCom messages."""

import re
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rendering_samples import DIGEST, MANY_LINKS, SAMPLES, make_newsletter, make_post, shared_posts

from distributor.channels.wecom.render import render_wecom
from distributor.errors import PostError
from distributor.model import Post

LIMITS = {"markdown_v2": ("markdown", 4096), "markdown": ("markdown", 4096), "text": ("text", 2048)}


def texts_of(post: Post, **newsletter: object) -> dict[str, str]:
    """Text by variant, each within its limit."""
    texts = {}
    for message in render_wecom(post, make_newsletter(**newsletter)):
        key, limit = LIMITS[message.variant]
        assert (message.channel, list(message.content), message.parts) == ("wecom", [key], 1)
        texts[message.variant] = message.content[key]
        assert 0 < len(texts[message.variant].encode()) <= limit
    assert texts.keys() == LIMITS.keys()
    return texts


def test_a_digest_in_each_dialect() -> None:
    texts = texts_of(make_post(DIGEST))
    assert texts["markdown_v2"] == (
        "# 样刊：一天的新闻\n*2026 年 3 月 5 日 星期四*\n\n> 导语写在最前面。\n\n"
        "1. [新模型发布，价格减半](https://example.com/news?a=1&b=2)：第一段说明发生了什么，见公告。\n"
        "2. [📉 市场观望](https://example.com/market)：大型科技股下跌，分析师保持谨慎。\n"
        "3. 机器人进厂：三家工厂开始试用。\n"
        "4. 没有粗体的一条：它的第二句。\n"
        "5. 紧凑列表\n"
        "6. 第二项\n\n"
        "[阅读全文](https://brief.example.com/2026-03-05/sample/)"
    )
    assert '<font color="comment">2026 年 3 月 5 日 星期四</font>' in texts["markdown"]
    assert texts["text"].endswith("\n\n阅读全文：https://brief.example.com/2026-03-05/sample/")
    assert (
        "1. 新模型发布，价格减半：第一段说明发生了什么，见公告。 https://example.com/news?a=1&b=2\n"
        in texts["text"]
    )


def test_the_old_dialect_uses_no_markup_it_does_not_know() -> None:
    for body in SAMPLES.values():
        text = texts_of(make_post(body))["markdown"]
        assert not re.search(r"^\s*[-*+•] |^```|^\||!\[", text, re.MULTILINE)


def items_with(words: int, address: int, count: int) -> str:
    return "\n".join(
        f"- **{'题' * 12}{n}** {'字' * words}。[源](https://example.com/{'p' * address}{n})"
        for n in range(count)
    )


@pytest.mark.parametrize(
    ("body", "bodies", "links", "items"),
    [
        (items_with(5, 10, 5), 5, 5, 5),
        (items_with(90, 20, 9), 0, 9, 9),  # bodies go first
        (items_with(5, 300, 9), 0, 4, 9),  # then the links of lower items
    ],
)
def test_what_does_not_fit_is_left_out_in_order(body: str, bodies: int, links: int, items: int) -> None:
    text = texts_of(make_post(body))["text"]
    found = (text.count("字" * 5), text.count("https://example.com/"), text.count("题" * 12))
    assert found == (bodies, links, items)


def test_ten_items_at_most_and_the_number_of_all() -> None:
    text = texts_of(make_post(MANY_LINKS))["markdown_v2"]
    assert re.findall(r"^(\d+)\. ", text, re.MULTILINE) == [str(number) for number in range(1, 11)]
    assert "……等 150 条" in text
    english = texts_of(make_post(MANY_LINKS), language="en")["text"]
    assert "… 150 items in all" in english


def test_the_barest_form_drops_items() -> None:
    body = "\n".join(f"- {'很长的标题' * 40}" for _ in range(10))
    text = texts_of(
        make_post(body, title="题" * 300, description="导" * 300, url=f"https://example.com/{'u' * 480}")
    )
    assert "……等 10 条" in text["text"]
    assert "https://example.com/uuu" in text["text"]


def test_headings_are_the_items_of_a_post_without_lists() -> None:
    text = texts_of(make_post("前言。\n\n## 第一节\n\n正文\n\n## 第二节\n\n正文"))["text"]
    assert "1. 第一节\n2. 第二节" in text


def test_markup_in_titles_is_defused() -> None:
    texts = texts_of(make_post("- **[活动] <b>`x`*y*\\* | @all** text", title="# > [重要] <@all>"))
    assert texts["markdown_v2"].startswith("# 【重要】 ＜＠all＞\n".replace("＠", "@"))
    assert "1. 【活动】 xy＊ ｜ @all：text" in texts["markdown_v2"]
    assert texts["text"].startswith("# > [重要] <@all>\n")


def test_parentheses_in_an_address_do_not_end_the_link() -> None:
    text = texts_of(make_post("- [维基](https://example.com/a_(b))"))["markdown_v2"]
    assert "[维基](https://example.com/a_%28b%29)" in text


def test_a_post_without_an_address_carries_a_warning() -> None:
    messages = render_wecom(make_post("text"), make_newsletter(url_pattern=""))
    for message in messages:
        assert message.warnings == [
            "posts/sample.md: no address for the full text: set `url` or `url_pattern`"
        ]
        assert "阅读全文" not in str(message.content)


def test_an_address_too_long_for_the_form_is_left_out_with_a_warning() -> None:
    messages = render_wecom(make_post("text", url=f"https://example.com/{'a' * 600}"), make_newsletter())
    assert "longer than 512 bytes" in messages[0].warnings[0]


def test_real_posts_fit() -> None:
    for post in shared_posts():
        texts_of(post)


@given(
    st.lists(st.text(max_size=400), max_size=15),
    st.text(min_size=1, max_size=300),
    st.text(max_size=500),
    st.booleans(),
)
def test_any_digest_fits(lines: list[str], title: str, lead: str, listed: bool) -> None:
    body = "\n".join(("- " if listed else "## ") + line.replace("\n", " ") for line in lines)
    with suppress(PostError):  # a link to nowhere
        texts_of(make_post(body, title=title, description=lead))
