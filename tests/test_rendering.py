"""Markdown → HTML, plain text, outline; templates; measuring and cutting."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import UndefinedError
from jinja2.exceptions import SecurityError
from rendering_samples import DIGEST, EVERYTHING, make_newsletter, make_post, shared_posts

from distributor.errors import PostError
from distributor.rendering import (
    HtmlReader,
    cut,
    display_width,
    headline,
    outline,
    parse,
    template_environment,
    to_html,
    to_text,
    utf8_bytes,
    utf16_units,
    web_address,
    wrap,
)


def html_of(body: str) -> str:
    return to_html(parse(make_post(body)), picture_width=536)


def text_of(body: str, columns: int = 76) -> str:
    return to_text(parse(make_post(body)), columns=columns)


# Addresses


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ("[a](other.md)", 5),
        ("fine\n\n[a](/path)", 7),
        ("fine\nstill fine\n[a](//host/path)", 7),
        ("- one\n- [two](ftp://example.com/x)", 6),
        ("[a]()", 5),
        ("[a](javascript:alert%281%29)", 5),
        ("[a](http:///path)", 5),
        ("[a](http://[bad/)", 5),
        ("[a](mailto:nobody)", 5),
        ("![picture](images/a.png)", 5),
        ("![picture](data:image/png;base64,AAAA)", 5),
        ("| a |\n|---|\n| [x](y) |", 7),
        ("[ref]\n\n[ref]: relative/path", 5),
        ('text <a href="local.html">x</a>', 5),
        ('<div>\n<img src="x.png">\n</div>', 5),
        ("word[^1]\n\n[^1]: see [a](b)", 7),
    ],
)
def test_an_address_that_leads_nowhere_is_refused_with_its_line(body: str, line: int) -> None:
    with pytest.raises(PostError, match="to nowhere") as refused:
        parse(make_post(body))
    assert refused.value.line == line
    assert str(refused.value).startswith(f"posts/sample.md:{line}: ")


@pytest.mark.parametrize("name", ["cover_image", "url"])
def test_a_relative_address_in_the_front_matter_is_refused(name: str) -> None:
    with pytest.raises(PostError, match=name):
        parse(make_post("text", **{name: "images/cover.png"}))


def test_a_link_into_the_page_becomes_text_with_a_warning() -> None:
    document = parse(make_post("see [**below**](#below)"))
    assert to_html(document, picture_width=536) == "<p>see <strong>below</strong></p>\n"
    assert document.warnings == (
        "posts/sample.md:5: the link '#below' leads into the page and is shown as text",
    )


@pytest.mark.parametrize(
    "address", ["https://example.com/a_(b)", "http://example.com", "mailto:a@example.com"]
)
def test_web_and_mail_addresses_are_kept(address: str) -> None:
    assert f'href="{address}"' in html_of(f"[text]({address})")


# HTML


def test_html_is_sanitised() -> None:
    html = html_of(
        EVERYTHING + '\n<p style="color:red" class="x" onclick="y()">styled</p>\n<iframe src="z"></iframe>'
    )
    for forbidden in (
        "<script",
        "alert(1)",
        "<iframe",
        "style=",
        "class=",
        "onclick",
        "<!--",
        "<div",
        'href="#',
    ):
        assert forbidden not in html
    assert "<p>styled</p>" in html
    assert '<td align="right">3</td>' in html


def test_pictures_have_a_width_that_fits() -> None:
    html = html_of(
        "![a > b](https://example.com/a.png)\n\n"
        '<img src="https://example.com/b.png">\n\n<img src="https://example.com/c.png" width="1200">\n\n'
        '<img src="https://example.com/d.png" width="20">'
    )
    assert [part.split('"')[0] for part in html.split('width="')[1:]] == ["536", "536", "536", "20"]


@pytest.mark.parametrize(
    ("source", "html"),
    [
        ("中文\n换行", "<p>中文换行</p>\n"),
        ("Latin\nline", "<p>Latin line</p>\n"),
        ("中文\nLatin", "<p>中文 Latin</p>\n"),
        ("**标题**\n正文", "<p><strong>标题</strong><br>\n正文</p>\n"),
        ("见**“引号”**后面", "<p>见<strong>“引号”</strong>后面</p>\n"),
        ("**注意：**后面", "<p><strong>注意：</strong>后面</p>\n"),
        ("snake_case_word 2*3*4", "<p>snake_case_word 2<em>3</em>4</p>\n"),
        ("a\x00b\x85c\x07", "<p>abc</p>\n"),
        ("a\ufeffb\ufdd3c\U0002ffff", "<p>abc</p>\n"),
    ],
)
def test_line_breaks_and_emphasis_are_those_a_chinese_reader_expects(source: str, html: str) -> None:
    assert html_of(source) == html


def test_the_title_is_the_only_heading_of_the_first_level() -> None:
    assert html_of("# One\n\n## Two") == "<h2>One</h2>\n<h3>Two</h3>\n"
    assert html_of("## Two") == "<h2>Two</h2>\n"


@pytest.mark.parametrize(
    ("levels", "shown"),
    [
        ("2 5 2 4 6", "2 3 2 3 4"),
        ("3 3 2", "2 2 2"),
        ("1 2 3 1", "2 3 4 2"),
        ("1 2 3 4 5 6", "2 3 4 5 6 6"),
    ],
)
def test_no_heading_is_more_than_one_step_below_the_one_before_it(levels: str, shown: str) -> None:
    html = html_of("\n\n".join(f"{'#' * int(level)} heading" for level in levels.split()))
    assert re.findall(r"<h(\d)>", html) == shown.split()


@pytest.mark.parametrize(
    ("source", "html"),
    [
        (
            "见 https://example.com/a，后面",
            '见 <a href="https://example.com/a">https://example.com/a</a>，后面',
        ),
        ("见https://example.com/a后面", '见<a href="https://example.com/a">https://example.com/a</a>后面'),
        (
            "(https://example.com/a_(b)).",
            '(<a href="https://example.com/a_(b)">https://example.com/a_(b)</a>).',
        ),
        (
            "[https://example.com/a](https://example.com/b)",
            '<a href="https://example.com/b">https://example.com/a</a>',
        ),
        (
            "https://example.com/_a_/*b*/",
            '<a href="https://example.com/_a_/*b*/">https://example.com/_a_/*b*/</a>',
        ),
        (
            "**https://example.com/a**~~b~~",
            '<strong><a href="https://example.com/a">https://example.com/a</a></strong><s>b</s>',
        ),
        (
            "https://example.com/?a=1&amp;b=2&nbsp;x",
            '<a href="https://example.com/?a=1&amp;b=2">https://example.com/?a=1&amp;b=2</a>&nbsp;x',
        ),
        (r"https://example.com/a\_b", '<a href="https://example.com/a_b">https://example.com/a_b</a>'),
        ("`https://example.com/a`", "<code>https://example.com/a</code>"),
        ("https:// and http://.", "https:// and http://."),
        ("xhttps://example.com/a", "xhttps://example.com/a"),
        ("HTTPS://example.com/a))!", '<a href="HTTPS://example.com/a">HTTPS://example.com/a</a>))!'),
        (
            '<a href="https://example.com/a">**x**</a>',
            '<a href="https://example.com/a"><strong>x</strong></a>',
        ),
        (
            '<a href="https://example.com/a">https://example.com/a</a>',
            '<a href="https://example.com/a">https://example.com/a</a>',
        ),
    ],
)
def test_a_link_is_one_however_it_is_written(source: str, html: str) -> None:
    assert html_of(source) == f"<p>{html}</p>\n"


def test_a_very_long_tail_costs_no_time() -> None:
    html = html_of("https://example.com/a" + ")" * 100_000)
    assert html.startswith('<p><a href="https://example.com/a">')


@pytest.mark.parametrize(
    "source",
    [
        '<a href="https://example.com/a">open',
        '**<a href="https://example.com/a">crossed** over</a>',
        '<a href="https://example.com/a"><a href="https://example.com/b">two</a></a>',
        "</a>closed",
    ],
)
def test_links_written_as_broken_html_do_no_harm(source: str) -> None:
    document = parse(make_post(source))
    assert document.tree.children
    text = to_text(document)
    assert all(address in text for address in re.findall(r"https://[\w./]+", source))


def test_an_anchor_written_as_html_becomes_text_with_a_warning() -> None:
    document = parse(make_post('see <a href="#below">below</a> and <a href="https://example.com/">this</a>'))
    assert (
        to_html(document, picture_width=536)
        == '<p>see below and <a href="https://example.com/">this</a></p>\n'
    )
    assert len(document.warnings) == 1


def test_tasks_have_boxes() -> None:
    body = "- [ ] open\n- [x] done\n  1. [X] inside\n- [y] no box\n\n[ ] no item"
    assert text_of(body) == "☐ open\n☑ done\n  ☑ inside\n• [y] no box\n\n[ ] no item"
    html = html_of(body + "\n\n* [ ] loose\n\n* two")
    assert re.findall(r"[☐☑]|\[.\]", html) == ["☐", "☑", "☑", "[y]", "[ ]", "☐"]


def test_raw_html_keeps_addresses_lines_and_bullets_in_text() -> None:
    body = (
        '<ul>\n<li>one<li><a href="https://example.com/two?a=1&amp;b=2">two</a></ul>\n\n'
        '<table><tr><th>a<th>b<tr><td>1<td><a href="#x">2</a></table>\n\n<p>x<br/>y</p>\n\n'
        '<iframe src="https://example.com/">no frames</iframe>'
    )
    assert text_of(body) == "• one\n• two (https://example.com/two?a=1&b=2)\n\na | b\n1 | 2\n\nx\ny"
    assert "no frames" not in html_of(body)


def test_rows_without_text_leave_no_gap() -> None:
    assert text_of("| a | b |\n|---|---|\n| | |\n| | <br> |\n| 1 | |") == "a | b\n1 |"


def test_a_mail_link_shows_its_address_alone() -> None:
    assert text_of("[write](mailto:desk@example.com?subject=Hi)") == "write (desk@example.com)"


def test_footnotes_are_numbers_without_anchors() -> None:
    html = html_of("word[^a]\n\n[^a]: note")
    assert "<sup>[1]</sup>" in html
    assert "<ol>\n<li><p>note</p>\n</li>\n</ol>" in html


# Plain text


def test_text_has_every_link_and_picture() -> None:
    text = text_of(EVERYTHING)
    for address in ("x?q=%221%22&r=2", "q)", "a.png", "auto", "source", "cell"):
        assert f"https://example.com/{address}" in text
    assert "someone@example.com" in text
    assert "mailto:" not in text
    assert "comment" not in text


@pytest.mark.parametrize(
    "html", ["<![x] y>", "<![CDATA[y]]>", "<!-- y -->", "<!X y>", "<?y?>", "<script>y</script>"]
)
def test_what_is_no_text_to_a_browser_is_none_to_us(html: str) -> None:
    assert HtmlReader(f"a{html}b").text == "ab"


def test_text_keeps_the_shape_of_lists_quotations_and_code() -> None:
    text = text_of("1. one\n2. two\n   - inner\n\n> quoted\n\n```\ncode  here\n```\n\n## Head")
    assert text == "1. one\n2. two\n   • inner\n\n> quoted\n\n    code  here\n\nHead\n===="


@pytest.mark.parametrize("sample", [DIGEST, EVERYTHING])
def test_text_is_wrapped(sample: str) -> None:
    longest = [line for line in text_of(sample, 60).split("\n") if display_width(line) > 64]
    assert all("https://" in line for line in longest)


@pytest.mark.parametrize(
    ("text", "wrapped"),
    [
        ("一二三四五，六七八", "一二三四\n五，六七八"),
        ("word another", "word\nanother"),
        ("见 https://example.com/a/long/path 后", "见\nhttps://example.com/a/long/path\n后"),
        ("", ""),
    ],
)
def test_wrapping_breaks_between_han_characters_and_never_inside_an_address(text: str, wrapped: str) -> None:
    assert wrap(text, 10) == wrapped


# Outline


def test_outline_of_a_digest() -> None:
    found = outline(parse(make_post(DIGEST)))
    assert found.lead == "导语写在最前面。后面还有一句。"
    assert [section.heading for section in found.sections] == ["🔥 头条", "速览"]
    assert [(item.title, item.body, list(item.links)) for item in found.items[:4]] == [
        (
            "新模型发布，价格减半",
            "第一段说明发生了什么，见公告。",
            ["https://example.com/news?a=1&b=2"],
        ),
        ("📉 市场观望", "大型科技股下跌，分析师保持谨慎。", ["https://example.com/market"]),
        ("机器人进厂", "三家工厂开始试用。", []),
        ("没有粗体的一条", "它的第二句。", []),
    ]
    assert found.links == ["https://example.com/news?a=1&b=2", "https://example.com/market"]


def test_headings_are_the_items_of_a_post_without_lists() -> None:
    found = outline(parse(make_post("lead\n\n## One\n\ntext\n\n## Two\n\ntext")))
    assert [item.title for item in found.items] == ["One", "Two"]


# Addresses and titles


def test_web_address_prefers_the_posts_own_and_is_encoded() -> None:
    newsletter = make_newsletter()
    assert (
        web_address(make_post("x", url="https://example.com/中"), newsletter)
        == "https://example.com/%E4%B8%AD"
    )
    assert (
        web_address(make_post("x", slug="中"), newsletter)
        == "https://brief.example.com/2026-03-05/%E4%B8%AD/"
    )
    assert web_address(make_post("x", date=None), newsletter) is None


def test_headline_is_one_line() -> None:
    assert headline(make_post("x", title="a\r\nBcc: b\x07\x85 c")) == "a Bcc: b c"


# Templates


def test_a_projects_template_hides_the_packaged_one_file_by_file(tmp_path: Path) -> None:
    (tmp_path / "templates" / "email").mkdir(parents=True)
    (tmp_path / "templates" / "email" / "issue.txt.j2").write_text("mine")
    templates = template_environment(tmp_path)
    assert templates.get_template("email/issue.txt.j2").render() == "mine"
    assert "{{" not in (templates.get_template("email/issue.html.j2").filename or "{{")


def test_templates_escape_html_alone_are_strict_and_sandboxed(tmp_path: Path) -> None:
    folder = tmp_path / "templates"
    folder.mkdir()
    (folder / "a.html.j2").write_text("{{ x }}")
    (folder / "a.txt.j2").write_text("{{ x }}")
    (folder / "b.txt.j2").write_text("{{ ''.__class__.__mro__ }}")
    templates = template_environment(tmp_path)
    assert templates.get_template("a.html.j2").render(x="<") == "&lt;"
    assert templates.get_template("a.txt.j2").render(x="<") == "<"
    with pytest.raises(UndefinedError):
        templates.get_template("a.txt.j2").render()
    with pytest.raises(SecurityError):
        templates.get_template("b.txt.j2").render()


# Measuring and cutting


def test_measures() -> None:
    assert (utf16_units("a中😀"), utf8_bytes("a中😀"), display_width("a中😀e\u0301")) == (4, 8, 6)


@pytest.mark.parametrize(
    ("text", "limit", "expected"),
    [
        ("short", 5, "short"),
        ("longer", 4, "lon…"),
        ("ab e\u0301", 4, "ab…"),
        ("👩\u200d👩\u200d👧 family", 3, "…"),
        ("👍🏽 good", 2, "…"),
        ("any", 0, ""),
    ],
)
def test_cutting_separates_nothing_that_belongs_together(text: str, limit: int, expected: str) -> None:
    assert cut(text, limit) == expected


@given(st.text(), st.integers(0, 60), st.sampled_from([len, utf16_units, utf8_bytes, display_width]))
def test_a_cut_text_fits_and_is_a_beginning(text: str, limit: int, measure: Callable[[str], int]) -> None:
    result = cut(text, limit, measure)
    assert result == text or measure(result) <= limit
    assert text.startswith(result.removesuffix("…"))


@given(st.text(st.sampled_from("*_`[](){}<>#|-~:!\n\\ 中a1^\"'&"), max_size=120))
def test_any_markdown_is_rendered_or_refused(body: str) -> None:
    try:
        document = parse(make_post(body))
    except PostError:
        return
    html = to_html(document, picture_width=536)
    assert "<script" not in html
    assert isinstance(to_text(document), str)
    assert outline(document).items is not None


def test_real_posts_lose_no_link() -> None:
    for post in shared_posts():
        document = parse(post)
        html, text = to_html(document, picture_width=536), to_text(document)
        for link in outline(document).links:
            assert link.replace("&", "&amp;") in html
            assert link.removeprefix("mailto:") in text


# What is no HTML


@pytest.mark.parametrize(
    ("body", "seen"),
    [
        ("C++ 的 std::vector<int> 更快，后文。", "C++ 的 std::vector<int> 更快，后文。"),
        ("Vue 的 <template> 标签，后文\n\n尾声", "Vue 的 <template> 标签，后文\n\n尾声"),
        ("List<String> 与 <path>、</switch>", "List<String> 与 <path>、</switch>"),
        ("<div>\n<vector> 在块里\n</div>", "<vector> 在块里"),
        ("前 <script>x</script> 后", "前  后"),
        ("<svg><path d='x'/></svg>\n\n后", "后"),
        ("<noscript>\n\n看不见\n\n</noscript>\n\n后", "后"),
        ("<title>没有结尾\n\n后文", "<title>没有结尾\n\n后文"),
    ],
)
def test_tags_that_html_does_not_know_are_text(body: str, seen: str) -> None:
    assert text_of(body) == seen
    shown = re.sub(r"<[^>]*>", "", html_of(body)).replace("&lt;", "<").replace("&gt;", ">")
    assert re.sub(r"\s+", "", shown) == re.sub(r"\s+", "", seen)


def test_a_list_of_many_levels_does_not_end_the_post() -> None:
    levels = "".join(f"{'  ' * depth}- 第 {depth} 层\n" for depth in range(16))
    for shown in (html_of(f"{levels}\n尾声"), text_of(f"{levels}\n尾声")):
        assert "第 15 层" in shown
        assert "尾声" in shown


def test_lines_of_english_quotations_keep_their_blank() -> None:
    assert text_of("He said “yes”\n“No,” she said") == "He said “yes” “No,” she said"
    assert text_of("他说“好”\n“不”") == "他说“好” “不”"
    assert text_of("他说“好”\n然后") == "他说“好”然后"


def test_an_address_with_brackets_is_not_broken() -> None:
    address = f"https://en.wikipedia.org/wiki/{'x' * 60}_(disambiguation)_and_more"
    assert address in text_of(f"见 [x]({address})")
