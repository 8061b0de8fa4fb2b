"""The checkers themselves: each takes a good message and names what is wrong with a bad one."""

import base64
from collections.abc import Mapping, Sequence

import pytest
from checkers import Rendering, check_rendering, read_source
from checkers.compare import canonical, leftovers, lost_links, lost_text, shown_secrets
from checkers.plain import check_plain
from checkers.source import bare_addresses

BODY = """
开头一段，见[公告](https://example.com/a?x=1&y=2)。

## 标题

| 甲 | 乙 |
|---|---|
| 一 | 二 |

- [ ] 待办

脚注[^1]。

<script>var secret = 1</script>

[^1]: 注文。
"""
SOURCE = read_source(BODY)
UNSUBSCRIBE = "https://news.example.com/u/k3J9"
ADDRESS = "https://brief.example.com/1/"


def violations(
    channel: str,
    variant: str,
    *parts: Mapping[str, str],
    body: str = BODY,
    warnings: Sequence[str] = (),
    mail: bytes = b"",
) -> str:
    rendering = Rendering(
        channel=channel,
        variant=variant,
        parts=parts,
        address=ADDRESS,
        warnings=warnings,
        mail=mail,
        values={"__UNSUBSCRIBE_URL__": UNSUBSCRIBE},
    )
    return "\n".join(check_rendering(rendering, read_source(body)).violations)


# The source


def test_the_source_is_read_as_a_browser_shows_it() -> None:
    assert (
        " ".join(piece.text for piece in SOURCE.pieces)
        == "开头一段，见 公告 。 标题 甲 乙 一 二 待办 脚注 。 注文。"
    )
    assert [piece.text for piece in SOURCE.pieces if not piece.ordered] == ["甲", "乙"]
    assert SOURCE.links == ["https://example.com/a?x=1&y=2"]
    assert "secret" in SOURCE.hidden


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        ("见https://example.com/a，后", ["https://example.com/a"]),
        ("(https://example.com/a_(b)).", ["https://example.com/a_(b)"]),
        ("no address", []),
    ],
)
def test_addresses_in_the_open(text: str, addresses: list[str]) -> None:
    assert bare_addresses(text) == addresses


# Comparing


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("https://example.com/中", "https://example.com/%E4%B8%AD"),
        ("https://EXAMPLE.com/a", "https://example.com/a"),
        ("https://例子.测试/", "https://xn--fsqu00a.xn--0zwm56d/"),
        ("mailto:a@example.com?subject=x", "a@example.com"),
    ],
)
def test_spellings_of_one_address_are_one(one: str, other: str) -> None:
    assert canonical(one) == canonical(other)


def test_lost_links_are_found() -> None:
    assert lost_links(SOURCE, ["https://example.com/a?x=1"]) == SOURCE.links
    assert lost_links(SOURCE, SOURCE.links) == []


@pytest.mark.parametrize(
    ("shown", "lost"),
    [
        ("甲乙 开头一段，\n见公告。标题 一 二 待办脚注[1]。注文。", ""),
        ("甲乙 开头一段，见公告。一 二 标题 待办脚注。注文。", "'一'"),
        ("甲 开头一段，见公告。标题 一 二 待办脚注。注文。", "'乙'"),
        ("甲乙 开头一段，见公告。标题 一 二 待办脚注。", "'注文。'"),
    ],
)
def test_the_first_word_out_of_place_is_named(shown: str, lost: str) -> None:
    assert lost in "".join(lost_text(SOURCE, shown)) if lost else not list(lost_text(SOURCE, shown))


@pytest.mark.parametrize("shown", ["**粗**", "[字](x)", "~~删~~", "```", "[^1]", "<br>", "a&nbsp;b"])
def test_markup_left_over_is_found(shown: str) -> None:
    assert list(leftovers(SOURCE, shown))
    assert not list(leftovers(read_source(f"``` \n{shown}\n```" if "`" not in shown else "\\`\\`\\`"), shown))


def test_scripts_that_become_text_are_found() -> None:
    assert list(shown_secrets(SOURCE, "var secret = 1"))


# Plain text


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("字 " * 26, ""),
        ("字" * 40, "a line of 80 columns"),
        ("word " * 20, "a line of 100 columns"),
        ("x" * 90, ""),  # one word cannot be broken
        ("    " + "code " * 30, ""),
        ("a\n\n\n\nb", "empty lines"),
    ],
)
def test_lines_of_a_text(text: str, found: str) -> None:
    result = "\n".join(check_plain(text, read_source(text[:1])))
    assert found in result if found else not result


# Telegram

GOOD_TELEGRAM = (
    '<b>T</b>\n\n开头一段，见<a href="https://example.com/a?x=1&amp;y=2">公告</a>。\n\n<b>标题</b>\n\n'
    "<pre>甲 │ 乙\n一 │ 二</pre>\n\n• ☐ 待办\n\n脚注[1]。\n\n[1] 注文。"
)


def test_a_good_telegram_message_passes() -> None:
    assert violations("telegram", "default", {"html": GOOD_TELEGRAM}) == ""
    halves = GOOD_TELEGRAM.split("\n\n<pre>")
    parts = [f"(1/2)\n\n{halves[0]}", f"(2/2)\n\n<pre>{halves[1]}"]
    assert violations("telegram", "default", *({"html": part} for part in parts)) == ""


@pytest.mark.parametrize(
    ("html", "found"),
    [
        (GOOD_TELEGRAM + "<br>", "Unsupported start tag"),
        (GOOD_TELEGRAM + "字" * 4096, "UTF-16 units"),
        (GOOD_TELEGRAM + "<b>x</b>y" * 100, "entities"),
        (GOOD_TELEGRAM.replace("?x=1&amp;y=2", ""), "is lost"),
        (GOOD_TELEGRAM.replace("待办", ""), "'待办' is missing"),
        (GOOD_TELEGRAM + "**x**", "left over"),
    ],
)
def test_a_bad_telegram_message_is_named(html: str, found: str) -> None:
    assert found in violations("telegram", "default", {"html": html})


def test_parts_of_telegram_are_numbered() -> None:
    parts = [{"html": f"(1/2)\n\n{GOOD_TELEGRAM}"}, {"html": "(3/2)\n\nx"}]
    assert "not (2/2)" in violations("telegram", "default", *parts)


RICH = (
    '<h1>T</h1><p>开头一段，见<a href="https://example.com/a?x=1&amp;y=2">公告</a>。</p><h2>标题</h2><table><tr><th>甲</th>'
    "<th>乙</th></tr><tr><td>一</td><td>二</td></tr></table><ul><li>待办</li></ul><p>脚注[1]。</p><p>[1] 注文。</p>"
)


@pytest.mark.parametrize(
    ("rich", "found"),
    [
        (RICH, ""),
        (RICH.replace("待办", ""), "rich: text: '待办' is missing"),
        (RICH.replace("x=1", "x=2"), "rich: links"),
        (RICH + "<p>x</p>" * 500, "blocks, at most 500"),
        (RICH + "字" * 33_000, "characters, at most 32768"),
        (RICH + f"<table><tr>{'<td>x</td>' * 21}</tr></table>", "21 columns"),
    ],
)
def test_a_rich_message_of_telegram_is_checked_beside_its_parts(rich: str, found: str) -> None:
    result = violations("telegram", "rich", {"html": GOOD_TELEGRAM, "rich": rich})
    assert found in result if found else not result


@pytest.mark.parametrize(
    ("edit", "found"),
    [
        (GOOD_TELEGRAM.replace("标题", '<a href="__UNSUBSCRIBE_URL__">标题</a>'), ""),
        (GOOD_TELEGRAM.replace("标题", "别的"), "another text"),
        (GOOD_TELEGRAM + "<br>", "Unsupported start tag"),
    ],
)
def test_an_edit_says_the_same_as_the_part_it_replaces(edit: str, found: str) -> None:
    result = violations("telegram", "public", {"html": GOOD_TELEGRAM}, {"html": edit, "edits": "1"})
    assert found in result if found else not result


# WeCom

GOOD_V2 = (
    f"# 标题\n*日期*\n\n> 导语\n\n1. [公告](https://example.com/a?x=1&y=2)：`码`\n\n[阅读全文]({ADDRESS})"
)
GOOD_NEWS = {"title": "标题", "description": "导语", "url": ADDRESS, "picurl": "https://example.com/c.jpg"}


@pytest.mark.parametrize(
    ("variant", "content"),
    [
        ("markdown_v2", {"markdown": GOOD_V2}),
        ("markdown", {"markdown": f'# 标题\n<font color="comment">日期</font>\n1. [阅读全文]({ADDRESS})'}),
        ("text", {"text": f"标题\n1. 公告 https://example.com/a?x=1&y=2\n阅读全文：{ADDRESS}"}),
        ("news", GOOD_NEWS),
    ],
)
def test_good_wecom_messages_pass(variant: str, content: Mapping[str, str]) -> None:
    assert violations("wecom", variant, content) == ""


@pytest.mark.parametrize(
    ("variant", "content", "found"),
    [
        ("markdown_v2", {"markdown": "字" * 1366}, "4098 bytes"),
        ("markdown_v2", {"markdown": "[字](https://example.com/a b)"}, "a broken link"),
        ("markdown_v2", {"markdown": "[字"}, "a broken link"),
        ("markdown_v2", {"markdown": '<font color="info">x</font>'}, "a colour"),
        ("markdown_v2", {"markdown": "<br>"}, "a tag"),
        ("markdown_v2", {"markdown": "`x"}, "never closes"),
        ("markdown_v2", {"markdown": "#x"}, "a heading that is none"),
        ("markdown_v2", {"markdown": f"[x](https://example.com/other) {ADDRESS}"}, "none of the post's"),
        ("markdown_v2", {"markdown": "a\x07b"}, "control character"),
        ("markdown_v2", {"markdown": " "}, "is empty"),
        ("markdown", {"markdown": "- x"}, "a list"),
        ("markdown", {"markdown": "| a |\n"}, "a table"),
        ("markdown", {"markdown": "*x*"}, "italics"),
        ("markdown", {"markdown": "```\nx\n```"}, "a code block"),
        ("text", {"text": "字" * 683}, "2049 bytes"),
        ("text", {"text": "见 https://example.com/a?x=…"}, "none of the post's"),
        ("news", {**GOOD_NEWS, "title": "字" * 43}, "title: 129 bytes"),
        ("news", {**GOOD_NEWS, "description": "字" * 171}, "description: 513 bytes"),
        ("news", {**GOOD_NEWS, "url": ""}, "leads nowhere"),
        ("news", {**GOOD_NEWS, "picurl": "cover.jpg"}, "picurl"),
        ("news", {**GOOD_NEWS, "title": ""}, "title is empty"),
    ],
)
def test_bad_wecom_messages_are_named(variant: str, content: Mapping[str, str], found: str) -> None:
    assert found in violations("wecom", variant, content)


# The article

GOOD_ARTICLE = (
    '<section style="font-size: 16px"><p>开头一段，见公告<sup>[1]</sup>。</p><h2 style="color: #111111">标题</h2>'
    "<table><tbody><tr><td>甲</td><td>乙</td></tr><tr><td>一</td><td>二</td></tr></tbody></table>"
    '<p>• ☐ 待办</p><p>脚注<sup>[2]</sup>。</p><p>[2] 注文。</p><p><a href="https://mp.weixin.qq.com/s/x">往期</a></p>'
    "<p>[1] https://example.com/a?x=1&amp;y=2</p></section>"
)
ARTICLE = {
    "title": "标题",
    "author": "编辑部",
    "digest": "导语",
    "content": GOOD_ARTICLE,
    "content_source_url": ADDRESS,
    "cover": "https://example.com/c.jpg",
}


def test_a_good_article_passes() -> None:
    assert violations("wechat", "article", ARTICLE) == ""


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"title": "题" * 65}, "title: 65 characters"),
        ({"title": ""}, "title is empty"),
        ({"author": "名" * 17}, "author: 17 characters"),
        ({"digest": "摘" * 129}, "digest: 129 characters"),
        ({"content": GOOD_ARTICLE + "字" * 20_000}, "fewer than 20000"),
        ({"content": GOOD_ARTICLE + "<script>1</script>"}, "<script> is not allowed"),
        ({"content": GOOD_ARTICLE + '<p class="x">y</p>'}, "<p class=…>"),
        ({"content": GOOD_ARTICLE + '<p style="position: fixed">y</p>'}, "'position:'"),
        ({"content": GOOD_ARTICLE + '<p style="background: url(x)">y</p>'}, "'url('"),
        ({"content": GOOD_ARTICLE + '<a href="https://example.com/">y</a>'}, "only mp.weixin.qq.com"),
        ({"content": GOOD_ARTICLE + "<p>x<sup>[3]</sup></p>"}, "[3] has no entry"),
        ({"content": GOOD_ARTICLE + "<p>[4] x</p>"}, "[4] is referred to nowhere"),
        ({"content": GOOD_ARTICLE + '<img src="data:image/png;base64,AA">'}, "a picture from"),
        ({"content": GOOD_ARTICLE + "</div>"}, "html: "),
        ({"content": GOOD_ARTICLE.replace("?x=1&amp;y=2", "")}, "is lost"),
        ({"content": GOOD_ARTICLE.replace("注文。", "")}, "'注文。' is missing"),
        ({"content_source_url": "x" * 1025}, "content_source_url"),
    ],
)
def test_a_bad_article_is_named(changes: Mapping[str, str], found: str) -> None:
    assert found in violations("wechat", "article", {**ARTICLE, **changes})


def test_an_article_may_be_a_teaser_when_it_says_so_and_the_post_is_long() -> None:
    short = {**ARTICLE, "content": "<p>开头一段。</p>"}
    assert "missing" in violations("wechat", "article", short)
    warned = ["posts/a.md: the article is shortened to a teaser"]
    assert "a teaser of a post of" in violations("wechat", "article", short, warnings=warned)
    assert violations("wechat", "article", short, body="很长。" * 3000, warnings=warned) == ""


# Mail

PAGE = (
    '<!DOCTYPE html>\n<html lang="zh-CN"><head><meta charset="utf-8"><title>T</title></head><body><h1>T</h1>'
    '<p>开头一段，见<a href="https://example.com/a?x=1&amp;y=2">公告</a>。</p><h2>标题</h2>'
    "<table><tr><td>甲</td><td>乙</td></tr><tr><td>一</td><td>二</td></tr></table>"
    f'<p>☐ 待办</p><p>脚注<sup>[1]</sup>。</p><p>注文。</p><p><a href="{UNSUBSCRIBE}">退订</a></p></body></html>'
)
TEXT = f"开头一段，见公告 (https://example.com/a?x=1&y=2)。\n\n标题\n\n甲 | 乙\n一 | 二\n\n• ☐ 待办\n\n脚注[1]。\n\n[1] 注文。\n{UNSUBSCRIBE}\n"


def wire(page: str = PAGE, text: str = TEXT, **headers: str) -> bytes:
    """A mail by hand, with the headers that a newsletter needs."""
    fields = {
        "From": "Brief <brief@example.com>",
        "To": "reader@example.net",
        "Subject": "T",
        "Date": "Fri, 27 Nov 2026 07:30:00 +0000",
        "Message-ID": "<1@example.com>",
        "MIME-Version": "1.0",
        "List-Unsubscribe": f"<{UNSUBSCRIBE}>,\r\n <mailto:desk@example.com>",
        "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
        "Content-Type": 'multipart/alternative; boundary="b"',
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    parts = [
        f'--b\r\nContent-Type: text/{kind}; charset="utf-8"\r\nContent-Transfer-Encoding: base64\r\n\r\n'
        + base64.encodebytes(body.encode()).decode().replace("\n", "\r\n")
        for kind, body in (("plain", text), ("html", page))
    ]
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value)
    return (head + "\r\n" + "".join(parts) + "--b--\r\n").encode()


def mail_violations(mail: bytes, body: str = BODY, warnings: Sequence[str] = ()) -> str:
    return violations("email", "default", {}, mail=mail, body=body, warnings=warnings)


def test_a_good_mail_passes() -> None:
    assert mail_violations(wire()) == ""


@pytest.mark.parametrize(
    ("mail", "found"),
    [
        (wire().replace(b"Subject: T\r\n", b"Subject: T\n"), "a bare CR or LF"),
        (wire(Subject="x" * 1000), "a line of 1009 bytes"),
        (wire(Subject="中"), "not ASCII"),
        (wire(Subject=""), "Subject stands there 0 times"),
        (wire(List_Unsubscribe=f"=?utf-8?q?<{UNSUBSCRIBE}>?="), "encoded or broken"),
        (wire(List_Unsubscribe=f"<{UNSUBSCRIBE[:20]}\r\n {UNSUBSCRIBE[20:]}>"), "encoded or broken"),
        (wire(List_Unsubscribe="<mailto:desk@example.com>"), "no https address"),
        (wire(List_Unsubscribe_Post="yes"), "List-Unsubscribe-Post is not"),
        (wire().replace(b"base64", b"8bit", 1), "mime: text is 8bit"),
        (wire().replace(b"text/plain", b"text/other"), "mime: ['multipart/alternative'"),
        (wire().replace(b"--b--", b""), "CloseBoundaryNotFound"),
        (wire(PAGE.replace(UNSUBSCRIBE, "__UNSUBSCRIBE_URL__")), "html still has the placeholder"),
        (wire(text=TEXT.replace(UNSUBSCRIBE, "")), "text lacks the value"),
        (wire(PAGE.replace("待办", "待\x07办")), "html holds a control character"),
        (wire(PAGE.replace("</body>", "</div></body>")), "parse error"),
        (wire(PAGE.replace(' lang="zh-CN"', "")), "no lang"),
        (wire(PAGE.replace("<h1>T</h1>", "")), "0 headings of the first level"),
        (wire(PAGE.replace("h2>", "h4>")), "an h4 follows an h1"),
        (wire(PAGE.replace("<p>☐", "<iframe></iframe><p>☐")), "<iframe> is not allowed"),
        (wire(PAGE.replace("<p>☐", '<p onclick="x()">☐')), "<p onclick>"),
        (wire(PAGE.replace("<p>☐", '<p style="position:fixed">☐')), "'position:'"),
        (wire(PAGE.replace(f'href="{UNSUBSCRIBE}"', 'href="javascript:x()"')), "a link to 'javascript:x()'"),
        (wire(PAGE.replace("<p>☐", '<img src="https://example.com/a.png" width="20"><p>☐')), "without alt"),
        (wire(PAGE.replace("<p>☐", '<img src="https://example.com/a.png" alt=""><p>☐')), "of width None"),
        (wire(PAGE.replace("<p>☐", '<img src="data:x" alt="" width="20"><p>☐')), "a picture from 'data:x'"),
        (wire(PAGE.replace("<p>☐", f"<p>{'字' * 34_000}</p><p>☐")), "Gmail clips it"),
        (wire(PAGE.replace("公告</a>", "</a>")), "html: text: '公告' is missing"),
        (wire(PAGE.replace("x=1", "x=3")), "html: links"),
        (wire(text=TEXT.replace("x=1", "x=3")), "text: links"),
        (wire(text=TEXT + "<br>"), "a tag is left over"),
        (wire(PAGE + "<!-- -->", TEXT.replace("注文。", "")), "text: text: '注文。' is missing"),
    ],
)
def test_a_bad_mail_is_named(mail: bytes, found: str) -> None:
    assert found in mail_violations(mail)


def test_a_mail_may_be_a_teaser_when_it_says_so_and_the_post_is_long() -> None:
    warned = ["shortened"]
    assert "a teaser of a post of" in mail_violations(wire(), warnings=warned)
    assert mail_violations(wire(), body="很长。" * 6000, warnings=warned) == ""


def test_a_variant_that_nobody_checks_is_no_success() -> None:
    with pytest.raises(LookupError, match="wecom/card"):
        violations("wecom", "card", {})
