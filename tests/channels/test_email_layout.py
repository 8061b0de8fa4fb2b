"""Cards, records, captions: what is laid out, and that nothing gets lost on the way."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import html as lxml_html
from rendering_samples import make_post

from distributor.channels.email.layout import MOST_CARDS, lay_out
from distributor.rendering import AFTER_TITLE, parse, to_html


def laid_out(body: str, **options: bool) -> str:
    return lay_out(to_html(parse(make_post(body)), picture_width=536), joint="：", **options)


def words(html: str) -> str:
    return re.sub(
        r"\s+", "", str(lxml_html.fragment_fromstring(html or "<p></p>", create_parent="div").text_content())
    )


# Cards


def test_numbered_news_become_cards() -> None:
    html = laid_out("1. **甲** 说明\n2. **乙**\n   换行后的[说明](https://example.com/)\n")
    table = lxml_html.fragment_fromstring(html)
    assert (table.tag, table.get("class"), table.get("role")) == ("table", "cards", "presentation")
    assert [cell.get("class") for cell in table.iter("td")] == ["number", "card", "nextnumber", "nextcard"]
    assert [cell.text_content().strip() for cell in table.iter("td")] == [
        "1",
        "甲说明",
        "2",
        "乙换行后的说明",
    ]
    assert [title.text_content() for title in table.find_class("cardtitle")] == ["甲", "乙"]
    assert not list(table.iter("br"))
    assert [link.get("href") for link in table.iter("a")] == ["https://example.com/"]


def test_the_mark_between_a_title_and_its_text_goes() -> None:
    html = laid_out("1. **新模型**：价格减半\n2. **新手机** - 明天上市")
    assert words(html) == "1新模型价格减半2新手机明天上市"
    assert "<td" in laid_out(
        '<ol start="x"><li><strong>甲</strong>：一</li><li><strong>乙</strong>：二</li></ol>'
    )


def test_footnotes_are_no_news() -> None:
    html = laid_out("甲[^1] 乙[^2]\n\n[^1]: **某某**：注\n[^2]: **某某**：注", footnotes=True)
    assert "cards" not in html
    assert 'class="footnotes"' in html


def test_footnotes_inside_markup_that_is_not_closed() -> None:
    assert 'class="footnotes"' in laid_out("<blockquote>\n\ntext[^1]\n\n[^1]: note", footnotes=True)


def test_cards_keep_their_numbers_and_what_is_inside() -> None:
    html = laid_out(
        "3. **丙**\n\n   第一段\n\n   - 子项\n     - 孙项\n\n   > 引文\n\n4. **丁**\n\n       代码\n"
    )
    assert words(html) == "3丙第一段子项孙项引文4丁代码"
    assert html.count("<ul>") == 2
    assert "<pre>" in html
    assert "<blockquote>" in html


@pytest.mark.parametrize(
    "body",
    [
        "1. **唯一** 的一条",
        "1. **甲** 有标题\n2. 没有标题",
        "1. 没有标题\n2. 也没有",
        "1. **小米**发布新车。\n2. **华为**推出新手机。",
        "1. **OpenAI** 发布模型。\n2. **谷歌**、苹果和微软联合声明",
        '<ol start="x"><li>一</li><li>二</li></ol>',
        "- **甲** 点\n- **乙** 点",
        "> 1. **甲** 在引文里\n> 2. **乙** 也是",
        "\n".join(f"{n}. **第{n}** 条" for n in range(1, MOST_CARDS + 2)),
    ],
)
def test_other_lists_stay_lists(body: str) -> None:
    html = laid_out(body)
    assert "cards" not in html
    assert "<li>" in html


# Tables


def test_a_table_that_fits_stays_one() -> None:
    html = laid_out("| 名 | 数 |\n|---|--:|\n| 甲 | 1 |")
    assert '<table class="data">' in html
    assert html.count('scope="col"') == 2
    assert re.findall(r'<th[^>]*align="(\w+)"', html) == ["left", "right"]


WIDE = "| 一 | 二 | 三 | 四 | 五 | 六 |\n|---|---|---|---|---|---|\n| a | [b](https://example.com/) | **c** |  | e | f |"


def test_a_table_too_wide_for_a_phone_becomes_records() -> None:
    html = laid_out(f"{WIDE}\n\n尾")
    assert "<table" not in html
    assert words(html) == "一：a二：b三：c五：e六：f尾"
    assert '<a href="https://example.com/">' in html


def test_long_rows_become_records_as_well() -> None:
    long = "很长的一格" * 6
    assert "record" in laid_out(f"| 一 | 二 | 三 | 四 |\n|---|---|---|---|\n| {long} | {long} | c | d |")
    assert "record" not in laid_out(f"| 一 | 二 | 三 |\n|---|---|---|\n| {long} | {long} | c |")


def test_a_head_with_links_keeps_them() -> None:
    html = laid_out(WIDE.replace("| 一 |", "| [一](https://example.com/one) |"))
    assert '<a href="https://example.com/one">' in html
    assert '<table class="data">' in html
    picture = laid_out(WIDE.replace("| 一 |", "| ![一](https://example.com/one.png) |"))
    assert 'src="https://example.com/one.png"' in picture


# Paragraphs, pictures, notes, headings


def test_a_bold_line_is_a_headline() -> None:
    assert '<p class="headline"><strong>标题</strong></p>' in laid_out("**标题**\n\n正文")
    assert "headline" not in laid_out("**重点**在句首")


def test_a_pictures_title_is_its_caption() -> None:
    html = laid_out('![图](https://example.com/a.png "说明 <1>")')
    assert '<p class="caption">说明 &lt;1&gt;</p>' in html
    assert 'class="figure"' in html


def test_footnotes_are_set_apart() -> None:
    html = laid_out("话[^1]\n\n---\n\n1. 一\n2. 二\n\n[^1]: 注", footnotes=True)
    assert html.count("<hr>") == 1  # the author's own
    assert re.search(r'<ol class="footnotes">\s*<li><p>注', html)


def test_headings_leave_out_no_level() -> None:
    html = laid_out("### 三\n\n##### 五\n\n## 二\n\n#### 四")
    assert re.findall(r"<(h\d)>", html) == ["h2", "h3", "h2", "h3"]


def test_text_in_front_of_everything_stays_text() -> None:
    assert lay_out("&lt;script&gt;alert(1)&lt;/script&gt; <p>x</p>", joint="：").startswith("&lt;script&gt;")


# Nothing is lost

FRAGMENTS = st.lists(
    st.sampled_from(
        [
            *("1. **甲** 说\n2. **乙** 说", "1. **甲**\n   说\n\n   再说\n2. **乙**", WIDE, "**标题**", "> 引", "- 点\n  - 点"),
            *("字[^1]\n\n[^1]: 注", "![图](https://example.com/a.png 'T')", "## 节", "#### 深", "<b>生</b><table><tr><td>格</td></tr></table>"),
            *("`a < b`", "```\n代 码\n```", "1. **[甲](https://example.com/1)**\n2. **乙**：*说* <br> 说", "1. a\n\n<table><tr><th>x<th>y</table>"),
        ]
    ),
    max_size=6,
)  # fmt: skip


@settings(deadline=None, max_examples=100)
@given(FRAGMENTS)
def test_every_word_and_link_is_kept_in_its_order(blocks: list[str]) -> None:
    html = to_html(parse(make_post("\n\n".join(blocks))), picture_width=536)
    after = lay_out(html, joint="：")
    assert re.findall(r'href="([^"]*)"', html) == re.findall(r'href="([^"]*)"', after)
    expected, rest = words(html), iter(words(after))
    labels = "一二三四五六"  # of records: told once a row
    assert all(letter in rest for letter in expected if letter not in labels and letter not in AFTER_TITLE)
