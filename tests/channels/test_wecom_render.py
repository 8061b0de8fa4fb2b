"""A post as short WeCom messages."""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rendering_samples import DIGEST, MANY_LINKS, SAMPLES, make_newsletter, make_post, shared_posts

from distributor.channels.wecom.dialects import escape_markdown
from distributor.channels.wecom.render import render_wecom
from distributor.errors import PostError
from distributor.model import Message, Post

LIMITS = {"markdown_v2": ("markdown", 4096), "markdown": ("markdown", 4096), "text": ("text", 2048)}
CARD = {"title": 128, "description": 512}


def robot(mode: str, **options: object) -> dict[str, object]:
    """A newsletter's channels with one robot."""
    return {"wecom": {"destinations": [{"name": "group", "mode": mode, **options}]}}


def of_variant(post: Post, variant: str, **newsletter: object) -> list[Message]:
    messages = render_wecom(post, make_newsletter(**newsletter))
    return [message for message in messages if message.variant == variant]


def card_of(post: Post, **newsletter: object) -> Mapping[str, str]:
    """The card's content, within its limits."""
    (message,) = of_variant(post, "news", **newsletter)
    for key, limit in CARD.items():
        assert 0 < len(message.content[key].encode()) <= limit
    return message.content


def texts_of(post: Post, **newsletter: object) -> dict[str, str]:
    """Text by variant, each within its limit."""
    texts = {}
    for message in render_wecom(post, make_newsletter(**newsletter)):
        if message.variant == "news":
            continue
        key, limit = LIMITS[message.variant]
        assert (message.channel, list(message.content), message.parts) == ("wecom", [key], 1)
        texts[message.variant] = message.content[key]
        assert 0 < len(texts[message.variant].encode()) <= limit
    assert texts.keys() == LIMITS.keys()
    return texts


def test_a_digest_in_each_dialect() -> None:
    texts = texts_of(make_post(DIGEST, ai="assisted"))
    assert texts["markdown_v2"] == (
        "# 样刊：一天的新闻\n*2026 年 3 月 5 日 星期四*\n\n> 导语写在最前面。\n\n"
        "**🔥 头条**\n"
        "1. [新模型发布，价格减半](https://example.com/news?a=1&b=2)：第一段说明发生了什么，见公告。\n\n"
        "**速览**\n"
        "2. [📉 市场观望](https://example.com/market)：大型科技股下跌，分析师保持谨慎。\n"
        "3. 机器人进厂：三家工厂开始试用。\n"
        "4. 没有粗体的一条：它的第二句。\n"
        "5. 紧凑列表：嵌套一层\n"
        "6. 第二项\n\n"
        "[阅读全文](https://brief.example.com/2026-03-05/sample/)\n*本期内容由 AI 辅助生成*"
    )
    assert '<font color="comment">2026 年 3 月 5 日 星期四</font>' in texts["markdown"]
    assert "**速览**\n2) [📉 市场观望]" in texts["markdown"]
    assert texts["markdown"].endswith('\n<font color="comment">本期内容由 AI 辅助生成</font>')
    assert texts["text"].endswith(
        "\n\n阅读全文：https://brief.example.com/2026-03-05/sample/\n本期内容由 AI 辅助生成"
    )
    assert (
        "▍🔥 头条\n1. 新模型发布，价格减半：第一段说明发生了什么，见公告。 https://example.com/news?a=1&b=2\n"
        in texts["text"]
    )


@pytest.mark.parametrize(
    "body",
    [
        "## 只有一节\n\n- 甲\n- 乙\n- 丙\n- 丁",  # one heading says nothing
        "## 一节\n\n- 甲\n\n## 二节\n\n- 乙\n\n## 三节\n\n- 丙",  # one above each item
    ],
)
def test_headings_that_gather_nothing_are_left_out(body: str) -> None:
    assert "**" not in texts_of(make_post(body))["markdown_v2"]


def test_no_second_colon_and_none_behind_a_question() -> None:
    text = texts_of(make_post("- **指标：每焦耳多少字** 换了单位。\n- **还要等多久？** 没人知道。"))["text"]
    assert "1. 指标：每焦耳多少字——换了单位。\n2. 还要等多久？ 没人知道。" in text


def test_the_old_dialect_uses_no_markup_it_does_not_know() -> None:
    for body in SAMPLES.values():
        text = texts_of(make_post(body))["markdown"]
        assert not re.search(r"^\s*[-*+•] |^```|^\||!\[", text, re.MULTILINE)


def items_with(words: int, address: int, count: int) -> str:
    return "\n".join(
        f"- **{'题' * 12}{n}**：{'字' * words}。[源](https://example.com/{'p' * address}{n})"
        for n in range(count)
    )


@pytest.mark.parametrize(
    ("body", "bodies", "links", "items"),
    [
        (items_with(5, 10, 5), 5, 5, 5),
        (items_with(90, 20, 9), 4, 9, 9),  # bodies go first, from the last one up
        (items_with(5, 300, 9), 0, 4, 9),  # then the links of lower items
    ],
)
def test_what_does_not_fit_is_left_out_in_order(body: str, bodies: int, links: int, items: int) -> None:
    text = texts_of(make_post(body))["text"]
    found = (text.count("字。"), text.count("https://example.com/"), text.count("题" * 12))
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
    assert "1. 第一节：正文\n2. 第二节：正文" in text


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("# 标题", "＃ 标题"),
        ("#1 in the charts", "＃1 in the charts"),
        ("> 引文", "＞ 引文"),
        ("2025. 新年", "2025． 新年"),
        ("3.5 倍", "3.5 倍"),
        ("-40% 的价格", "-40% 的价格"),
        ("- 列表", "－ 列表"),
        ("--- 线", "－－－ 线"),
        ("*斜* **粗** `码`", "＊斜＊ ＊＊粗＊＊ ｀码｀"),
        ("_斜_ 与 snake_case", "＿斜＿ 与 snake_case"),
        ("~~删~~ 与 ~5 元", "～～删～～ 与 ~5 元"),
        ("[链接](x) ![图](y)", "【链接】(x) !【图】(y)"),
        ("[视频] 开源", "【视频】开源"),
        ("| 表 | 格 |", "｜ 表 ｜ 格 ｜"),
        ("<font color='info'>x</font> <@all> a < b", "＜font color='info'＞x＜/font＞ ＜@all＞ a ＜ b"),
        ("AT&amp;T R&D", "AT＆amp;T R&D"),
        (r"反斜 \* C:\dir", "反斜 ＼＊ C:\\dir"),
        ("见 https://e.org/a_b_(c)*d 后 _x_", "见 https://e.org/a_b_(c)*d 后 ＿x＿"),
        ("😀 平常的一句话，没有标记。", "😀 平常的一句话，没有标记。"),
    ],
)
def test_text_is_shown_as_it_was_written(written: str, shown: str) -> None:
    assert escape_markdown(written) == shown


def test_markup_in_titles_is_defused() -> None:
    texts = texts_of(make_post("- **[活动] <b>`x`*y*\\* | @all** text", title="# > [重要] <@all>"))
    assert texts["markdown_v2"].startswith("# ＃ ＞ 【重要】＜@all＞\n")
    assert "1. 【活动】xy＊ ｜ @all text" in texts["markdown_v2"]
    assert texts["text"].startswith("# > [重要] <@all>\n")


# Cards


def test_a_card() -> None:
    post = make_post(DIGEST, cover_image="https://example.com/封面.png", ai="generated")
    assert card_of(post) == {
        "title": "样刊：一天的新闻",
        "description": "导语写在最前面。后面还有一句。\n本期内容由 AI 生成",
        "url": "https://brief.example.com/2026-03-05/sample/",
        "picurl": "https://example.com/%E5%B0%81%E9%9D%A2.png",
    }


def test_a_card_without_a_cover_has_no_picture() -> None:
    assert "picurl" not in card_of(make_post(DIGEST))


def test_a_card_is_cut_at_a_sentence_and_keeps_its_label() -> None:
    post = make_post("正文。", title="长" * 60, description="一句话说完。" * 60, ai="generated")
    card = card_of(post)
    assert card["title"] == "长" * 41 + "…"
    words, label = card["description"].split("\n")
    assert words == "一句话说完。" * 27
    assert label == "本期内容由 AI 生成"


def test_a_card_needs_somewhere_to_lead() -> None:
    newsletter = {"url_pattern": "", "channels": robot("news")}
    with pytest.raises(PostError, match=r"the WeCom robot 'group' sends a card.*set `url`.*another `mode`"):
        render_wecom(make_post("text"), make_newsletter(**newsletter))
    assert (
        card_of(make_post("text", url="https://example.com/1"), **newsletter)["url"]
        == "https://example.com/1"
    )


@pytest.mark.parametrize("mode", ["markdown_v2", "markdown", "text"])
def test_posts_without_an_address_go_to_robots_that_send_no_cards(mode: str) -> None:
    messages = render_wecom(make_post("text"), make_newsletter(url_pattern="", channels=robot(mode)))
    assert {message.variant for message in messages} == LIMITS.keys()


# What a destination asks for


def test_mentioning_everybody() -> None:
    post = make_post(DIGEST)
    (message,) = of_variant(post, "text+all", channels=robot("text", mention_all=True))
    assert message.content == {"text": texts_of(post)["text"], "mentioned": "@all"}


@pytest.mark.parametrize("mode", ["markdown_v2", "markdown", "text"])
def test_parts_when_asked(mode: str) -> None:
    post = make_post(MANY_LINKS, description="导语。")
    parts = of_variant(post, f"{mode}+split", channels=robot(mode, overflow="split"))
    key, limit = LIMITS[mode]
    count = len(parts)
    assert 1 < count <= 8
    assert [(message.part, message.parts) for message in parts] == [(n, count) for n in range(1, count + 1)]
    texts = [message.content[key] for message in parts]
    for number, text in enumerate(texts, 1):
        assert len(text.encode()) <= limit
        assert text.split("\n")[0].removeprefix("# ") == f"样刊：一天的新闻 ({number}/{count})"
        assert ("导语。" in text, "阅读全文" in text) == (number == 1, number == count)
    items = re.findall(r"^(\d+)[.)] .*第 (\d+) 条", "\n".join(texts), re.MULTILINE)
    assert items[:3] == [("1", "1"), ("2", "2"), ("3", "3")]
    assert [n for n, _ in items] == [n for _, n in items]
    if mode != "text":
        assert len(items) == 150  # all of them, links included
        assert "\n".join(texts).count("https://example.com/") == 150


def test_parts_are_as_full_as_they_can_be() -> None:
    post = make_post(MANY_LINKS)
    parts = of_variant(post, "markdown_v2+split", channels=robot("markdown_v2", overflow="split"))
    sizes = [len(message.content["markdown"].encode()) for message in parts]
    assert min(sizes[:-1]) > 4096 - 400


def test_what_fits_is_one_message_also_when_parts_were_asked_for() -> None:
    post = make_post(DIGEST)
    (message,) = of_variant(post, "text+split", channels=robot("text", overflow="split"))
    assert message.content == {"text": texts_of(post)["text"]}


def test_only_the_first_part_rings() -> None:
    post = make_post(MANY_LINKS)
    channels = robot("text", overflow="split", mention_all=True)
    parts = of_variant(post, "text+split+all", channels=channels)
    assert ["mentioned" in message.content for message in parts] == [True] + [False] * (len(parts) - 1)


def test_a_post_too_long_for_any_number_of_parts_is_shortened() -> None:
    body = "\n".join(f"- **第 {n} 条** {'字' * 90}。[源](https://example.com/{n})" for n in range(1, 1200))
    parts = of_variant(make_post(body), "text+split", channels=robot("text", overflow="split"))
    assert len(parts) <= 8
    assert "……等 1199 条" in parts[-1].content["text"]


# Limits


def test_parentheses_in_an_address_do_not_end_the_link() -> None:
    text = texts_of(make_post("- [维基](https://example.com/a_(b))"))["markdown_v2"]
    assert "[维基](https://example.com/a_%28b%29)" in text


def test_a_title_that_is_a_long_address_is_told_by_its_text_or_its_host() -> None:
    address = f"https://example.com/?{'&'.join(f'p{n}=v' for n in range(40))}"
    text = texts_of(make_post(f"# {address}\n\n说明一句。"))["markdown_v2"]
    assert f"1. [说明一句。]({address})" in text
    text = texts_of(make_post(f"# {address}\n\n# {address}2\n\n# 三"))["markdown_v2"]
    assert "1. example.com\n2. example.com\n3. 三" in text
    with_login = address.replace("https://", "https://name:word@")
    assert "1. example.com\n2. 二" in texts_of(make_post(f"# {with_login}\n\n# 二"))["text"]


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
        card_of(replace(post, url="https://example.com/full"))


def test_the_seed_post_is_one_message_with_all_its_items() -> None:
    post = next(shared_posts())
    for text in texts_of(post).values():
        assert re.findall(r"^(\d)[.)] ", text, re.MULTILINE) == list("12345678")
        assert text.count("：") >= 8  # every item has its body
        assert "条" not in text.split("\n\n")[-2][-6:]


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


@settings(deadline=None)  # three modes, twice
@given(st.text(st.sampled_from("*_`[]()<>#|-~:.!1 中a&\\题"), min_size=1, max_size=400), st.integers(1, 40))
def test_any_markup_fits_into_parts(title: str, count: int) -> None:
    post = make_post("- x\n" * count, title=title, description=title, url=f"https://example.com/{'(' * 170}")
    for mode, (key, limit) in LIMITS.items():
        parts = of_variant(post, f"{mode}+split", channels=robot(mode, overflow="split"))
        assert all(len(message.content[key].encode()) <= limit for message in parts)
