"""The shapes in which editors write news, read into items; a post in a sentence or two."""

import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rendering_samples import DIGEST, SAMPLES, make_post, shared_posts

from distributor.rendering import Outline, cut_text, outline, parse, summary, utf8_bytes, utf16_units


def read(body: str) -> Outline:
    return outline(parse(make_post(body)))


def items_of(body: str) -> list[tuple[str, str, list[str]]]:
    return [(item.title, item.body, list(item.links)) for item in read(body).items]


def link(number: int) -> str:
    return f"https://example.com/{number}"


@pytest.mark.parametrize(
    ("body", "items"),
    [
        ("- 一句话。第二句。", [("一句话", "第二句。", [])]),
        ("- [标题](https://example.com/1)", [("标题", "", [link(1)])]),
        ("- [标题](https://example.com/1)：描述。", [("标题", "描述。", [link(1)])]),
        ("- [标题](https://example.com/1) - 描述", [("标题", "描述", [link(1)])]),
        ("- [标题](https://example.com/1)（英文）", [("标题（英文）", "", [link(1)])]),
        ("- [Rust](https://example.com/1) is fast. Yes.", [("Rust is fast.", "Yes.", [link(1)])]),
        ("- **标题**：描述。", [("标题", "描述。", [])]),
        ("- **标题：** 描述。", [("标题", "描述。", [])]),
        ("- **标题**\n  描述。", [("标题", "描述。", [])]),
        ("- **Chrome**\n  描述。", [("Chrome", "描述。", [])]),
        ("- **苹果**宣布降价。后来呢？", [("苹果宣布降价", "后来呢？", [])]),
        ("- **OpenAI** 发布新模型。", [("OpenAI 发布新模型", "", [])]),
        ("- **We** won. Again.", [("We won.", "Again.", [])]),
        ("- 标题\n\n  第二段。", [("标题", "第二段。", [])]),
        ("- **标题**\n  - 要点一\n  - 要点二", [("标题", "要点一", [])]),
        ("1. 3.5 倍的速度", [("3.5 倍的速度", "", [])]),
    ],
)
def test_list_entries(body: str, items: list[tuple[str, str, list[str]]]) -> None:
    assert items_of(body) == items


@pytest.mark.parametrize(
    "source",
    [
        "[来源](https://example.com/1)",
        "[消息来源](https://example.com/1)",
        "（[原文链接](https://example.com/1)）",
        "（来源：[链接](https://example.com/1)）",
        "[[1]](https://example.com/1)",
        "[→ Read more](https://example.com/1)",
        "| [任何名字](https://example.com/1)",
        "（[发布说明](https://example.com/1)）",
        "详见 <https://example.com/1>。",
    ],
)
def test_a_source_at_the_end_is_a_link_and_no_text(source: str) -> None:
    assert items_of(f"- **标题** 描述。{source}") == [("标题", "描述。", [link(1)])]


def test_a_link_inside_a_sentence_stays_text() -> None:
    assert items_of("- **标题** 见[公告](https://example.com/1)的第二页。") == [
        ("标题", "见公告的第二页。", [link(1)])
    ]


def test_an_entry_that_is_a_source_gives_its_link_to_the_one_before() -> None:
    assert items_of("- 新闻\n- [来源](https://example.com/1)\n- ![图](https://example.com/x.png)") == [
        ("新闻", "", [link(1)])
    ]


def test_a_sentence_too_long_for_a_title_is_split_behind_its_name() -> None:
    body = "- 模型发布：“快”字当头：团队今天放出全部权重，最小的一档在旧笔记本上每秒能写出约三十个字，全程不联网。"
    ((title, text, _),) = items_of(body)
    assert title == "模型发布：“快”字当头"
    assert text.startswith("团队今天放出全部权重")
    ((title, _, _),) = items_of("- 外媒：" + "某公司将在下周发布一款没有人见过的新设备，" * 3)
    assert title.startswith("外媒：某公司")  # two characters name who said it, not what


def test_an_entry_that_only_gathers_is_a_heading() -> None:
    body = (
        "- 大模型\n  - [一](https://example.com/1)\n  - [二](https://example.com/2)\n"
        "- 硬件\n  - [三](https://example.com/3)\n  - [四](https://example.com/4)"
    )
    found = read(body)
    assert [(one.heading, [item.title for item in one.items]) for one in found.sections] == [
        ("大模型", ["一", "二"]),
        ("硬件", ["三", "四"]),
    ]


def test_numbered_paragraphs_and_what_stands_below_them() -> None:
    body = (
        "## 文章\n\n1、[标题](https://example.com/1)（英文）\n\n![图](https://example.com/x.png)\n\n它说了什么。\n\n"
        "更多。\n\n2、没有链接的一条，见[这里](https://example.com/2)（下图）。\n\n② 第三条"
    )
    assert items_of(body) == [
        ("标题（英文）", "它说了什么。", [link(1)]),
        ("没有链接的一条，见这里", "", [link(2)]),
        ("第三条", "", []),
    ]


def test_bold_lines_and_bold_names() -> None:
    body = (
        "**标题一**\n\n正文一。\n\n[来源](https://example.com/1)\n\n**苹果**：发布新机。\n\n**谷歌：** 更新搜索。\n\n"
        "**这是正文里强调的一整句话，不是标题。**"
    )
    assert items_of(body) == [
        ("标题一", "正文一。", [link(1)]),
        ("苹果", "发布新机。", []),
        ("谷歌", "更新搜索。", []),
    ]


def test_a_list_below_a_bold_line_is_its_text_or_gathered_by_it() -> None:
    assert items_of("**标题**\n\n- 要点一\n- 要点二") == [("标题", "要点一", [])]
    found = read("**大模型**\n\n- [一](https://example.com/1)\n- [二](https://example.com/2)")
    assert [(one.heading, [item.title for item in one.items]) for one in found.sections] == [
        ("大模型", ["一", "二"])
    ]


def test_headings_are_items_below_the_heading_that_gathers_them() -> None:
    body = "## 要闻\n\n### 1. 第一条\n\n正文。[来源](https://example.com/1)\n\n### 2、第二条\n\n正文。\n\n## 观察\n\n长文。"
    found = read(body)
    assert [(one.heading, [(item.title, item.body) for item in one.items]) for one in found.sections] == [
        ("要闻", [("第一条", "正文。"), ("第二条", "正文。")]),
        ("", [("观察", "长文。")]),
    ]
    assert found.items[0].links == [link(1)]


def test_a_long_text_does_not_lead_to_what_it_refers_to() -> None:
    body = "## 观察\n\n" + "\n\n".join(f"第 {n} 段提到[某事](https://example.com/{n})。" for n in range(5))
    assert items_of(body) == [("观察", "第 0 段提到某事。", [])]


def test_tables_of_links_are_items_and_tables_of_numbers_are_not() -> None:
    table = "| 名称 | 说明 | 年 |\n|---|---|---|\n| [甲](https://example.com/1) | 很好用的工具 | 2026 |"
    assert items_of(table) == [("甲", "很好用的工具", [link(1)])]
    assert items_of("| 名称 | 数 |\n|---|---|\n| 甲 | 3 |") == []


# The lead


@pytest.mark.parametrize(
    ("body", "lead", "introduction"),
    [
        ("导语。\n\n- 甲", "导语。", "导语。"),
        ("![图](https://example.com/x.png)\n\n导语。", "导语。", "导语。"),
        ("> 2026-03-05T07:00:00Z\n\n> 引言。\n\n- 甲", "引言。", "引言。"),
        ("以下是今天的新闻：\n\n- 甲", "", ""),
        ("大家好，欢迎收看今天的日报！今天有三件事。", "今天有三件事。", "今天有三件事。"),
        ("Hello and welcome to another issue! Three things.", "Three things.", "Three things."),
        ("大家好，模型今天降价了。", "大家好，模型今天降价了。", "大家好，模型今天降价了。"),
        ("欢迎投稿。", "欢迎投稿。", "欢迎投稿。"),
        ("## 今日看点\n\n三件大事。\n\n## 头条\n\n- 甲", "三件大事。", "三件大事。"),
        ("## 头条\n\n**标题**\n\n正文。", "正文。", ""),
        ("- 甲\n\n后记。", "后记。", ""),
        ("## 数据\n\n（一）\n\n正文。", "正文。", ""),
    ],
)
def test_lead_and_introduction(body: str, lead: str, introduction: str) -> None:
    found = read(body)
    assert (found.lead, found.introduction) == (lead, introduction)


# Summaries


@pytest.mark.parametrize(
    ("body", "description", "said"),
    [
        (DIGEST, "编辑\n写的。", "编辑 写的。"),
        (DIGEST, None, "导语写在最前面。后面还有一句。"),
        ("- 甲\n- 乙\n- 丙", None, "甲；乙；丙"),
        ("- One\n- Two", None, "One; Two"),
        ("## 第一节\n\n## 第二节", None, "第一节；第二节"),
        ("![图](https://example.com/x.png)", None, ""),
    ],
)
def test_a_summary_says_what_the_post_says(body: str, description: str | None, said: str) -> None:
    post = make_post(body, description=description)
    assert summary(post, parse(post), 120) == said


def test_a_summary_of_titles_has_whole_ones() -> None:
    post = make_post("- 第一个标题\n- 第二个标题\n- 第三个标题")
    assert summary(post, parse(post), 12) == "第一个标题；第二个标题"
    assert summary(post, parse(post), 4) == "第一个…"


@pytest.mark.parametrize(
    ("text", "limit", "expected"),
    [
        ("短。", 9, "短。"),
        ("第一句。第二句很长很长。", 8, "第一句。"),
        ("First one. Second one is long.", 20, "First one."),
        ("没有句号，只有逗号，再来一段很长的话", 14, "没有句号，只有逗号…"),
        ("完。没有句号的一大段话一直写下去", 12, "完。没有句号的一大段话…"),  # not two characters of a dozen
        ("看这里 https://example.com/a/long/path", 20, "看这里…"),
        ("https://example.com/a/long/path", 20, ""),
    ],
)
def test_cut_where_it_hurts_least(text: str, limit: int, expected: str) -> None:
    assert cut_text(text, limit) == expected


@given(st.text(max_size=200), st.integers(0, 90), st.sampled_from([len, utf16_units, utf8_bytes]))
def test_a_cut_text_fits_and_is_a_beginning(text: str, limit: int, measure: Callable[[str], int]) -> None:
    result = cut_text(text, limit, measure)
    assert measure(result) <= limit
    assert text.startswith(result.removesuffix("…"))


def test_nothing_is_invented() -> None:
    posts = [*map(make_post, SAMPLES.values()), *shared_posts()]
    for post in posts:
        document = parse(post)
        source = "".join(post.body.split())
        for word in (
            summary(post, document, 160).removesuffix("…").replace(";", " ").replace("；", " ").split()
        ):
            plain = "".join(filter(str.isalnum, word))
            assert plain in "".join(filter(str.isalnum, source))


@pytest.mark.parametrize(
    "unit", ["（", "。", "、", " ", "。[x](https://e.org)", "**a**：", "_", "[", "1、", "“", "，", "\\"]
)
def test_no_text_takes_long(unit: str) -> None:
    """A paragraph of one thing, over and over: the patterns look at each place a bounded number of times."""
    began = time.monotonic()
    post = make_post("题 " + unit * 4000)
    document = parse(post)
    outline(document)
    summary(post, document, 160)
    assert time.monotonic() - began < 10
