"""Random Markdown: documents that nest everything in everything, and mere soup of characters.

A document's HTML is well formed, so that a browser reads it as our parser does; soup makes no promise.
"""

from collections.abc import Sequence
from functools import cache

from hypothesis import strategies as st

from distributor.rendering.cutting import CONTROLS

_SCRIPTS = (
    "的一是了我不人在他有这个上们来到时大地为子中你说生国年着就那和要她出也得里后自以会",
    "，。、；：？！“”‘’（）《》【】…—·",
    "abcdefghijklmnopqrstuvwxyzABCXYZ",
    "0123456789０１２",
    "مرحبابالعالمשלוםעולם",
    "ひらがなカタカナ한국어สวัสดี",
    "éñüßøÅệ\u0301\u0308",
    "𠮷𡃁𪚥",
)
_EMOJI = ("😀", "👩‍👩‍👧", "👍🏽", "🇨🇳", "1️⃣", "❤️", "🏳️‍🌈")
#: What an editor types and means: special characters where they do no harm, or escaped.
_SPECIAL = ("&", "a < b", "x > y", "\\*", "\\_", "\\[", "\\]", "\\`", "\\|", "\\~", "\\#", "\\<b\\>", "&amp;", "&nbsp;", "&#x27;", "AT&T",
            "{{ x }}", "{% if %}", "%s", "$HOME", "__init__", "@all", "#话题", "snake_case", "100%", "C:\\\\temp", "\u00a0", "\u200b", "\t")  # fmt: skip

word = st.one_of(
    *(st.text(st.sampled_from(script), min_size=1, max_size=12) for script in _SCRIPTS),
    st.sampled_from(_EMOJI),
    st.sampled_from(_SPECIAL),
)
plain = st.lists(word, min_size=1, max_size=6).map(" ".join).map(str.strip).filter(bool)
han = st.text(st.sampled_from(_SCRIPTS[0] + "，。"), min_size=1, max_size=60)

_path = st.text(st.sampled_from("abcXYZ019-._~/中文é"), max_size=24)
_query = st.sampled_from(("", "?a=1&b=2", "?q=天气&x=%26", "#section", "?s='x'", "/a_(b)", "/*x*/", "?a=1&amp;b=2", "?" + "&".join(f"p{n}=v" for n in range(60))))  # fmt: skip
address = st.builds("https://example.com/{}{}".format, _path, _query)


def _is_bare(text: str) -> bool:
    """Whether CommonMark alone reads nothing into it."""
    return text.isascii() and not set(text) & set("*~_'")


_mail = st.sampled_from(("mailto:desk@example.com", "mailto:desk@example.com?subject=hi"))
_code_text = st.text(st.sampled_from("abc<>&*_[]()|~#=+-;{}$ 中\"'"), min_size=1, max_size=30).filter(
    str.strip
)


@cache
def inline(depth: int) -> st.SearchStrategy[str]:
    """One line of text with marks nested up to `depth`."""
    leaves = [
        plain,
        han,
        _code_text.map("`` {} ``".format),
        st.builds(" <{}> ".format, address.filter(lambda text: "'" not in text)),
        st.builds(" {} ".format, address.filter(_is_bare)),
        st.builds("![{}]({})".format, plain, address),
        st.just("[^note]"),
        st.just("<br>"),
    ]
    if depth == 0:
        return st.one_of(*leaves)
    inner = st.lists(inline(depth - 1), min_size=1, max_size=3).map("".join)
    unlinked = st.one_of(plain, han, _code_text.map("`{}`".format), plain.map("**{}**".format))
    return st.one_of(
        *leaves,
        *(inner.map(mark.format) for mark in ("**{}**", "*{}*", "~~{}~~", "<u>{}</u>", "<sup>{}</sup>", "<mark>{}</mark>")),
        st.builds("[{}]({})".format, unlinked, st.one_of(address, _mail)),
        st.builds('[{}](<{}> "标题 \\" x")'.format, unlinked, address),
        st.builds('<a href="{}">{}</a>'.format, address, unlinked),
        st.builds("[![{}]({})]({})".format, han, address, address),
    )  # fmt: skip


_line = st.lists(inline(2), min_size=1, max_size=4).map(" ".join).filter(str.strip)
_cell = inline(1).map(lambda text: text.replace("|", "\\|").replace("\\\\|", "\\|"))
_paragraph = st.lists(_line, min_size=1, max_size=3).flatmap(
    lambda lines: st.sampled_from(("\n", "  \n", "\\\n")).map(lambda end: end.join(lines))
)


def _indented(text: str, by: str) -> str:
    return text.replace("\n", "\n" + by)


def _item_list(bullet: str, items: Sequence[str], gap: str) -> str:
    return gap.join(f"{bullet} {_indented(item, ' ' * (len(bullet) + 1))}" for item in items)


def _table(cells: Sequence[Sequence[str]], align: Sequence[str]) -> str:
    rows = [f"| {' | '.join(row)} |" for row in cells]
    return "\n".join([rows[0], f"|{'|'.join(align)}|", *rows[1:]])


def _tables() -> st.SearchStrategy[str]:
    return st.integers(1, 8).flatmap(
        lambda columns: st.builds(
            _table,
            st.lists(st.lists(_cell, min_size=columns, max_size=columns), min_size=1, max_size=5),
            st.lists(st.sampled_from(("---", ":--", "--:", ":-:")), min_size=columns, max_size=columns),
        )
    )


_fence = st.builds(
    "{0}{1}\n{2}\n{0}".format,
    st.sampled_from(("```", "~~~~")),
    st.sampled_from(("", "python", "c++", "text file")),
    st.lists(_code_text, min_size=1, max_size=6).map("\n".join),
)
_html_block = st.one_of(
    st.builds("<div>\n{}<br>{}\n</div>".format, han, han),
    st.builds("<details>\n<summary>{}</summary>\n\n{}\n\n</details>".format, han, _paragraph),
    st.builds(
        '<table>\n<tr><th>{}</th></tr>\n<tr><td><a href="{}">{}</a></td></tr>\n</table>'.format,
        han,
        address,
        han,
    ),
    st.builds('<p>{} <a href="{}">{}</a></p>'.format, han, address, han),
    st.builds("<ul>\n<li>{}</li>\n<li><b>{}</b></li>\n</ul>".format, han, han),
    st.just("<!-- 看不见 -->"),
    st.just("<script>\nvar invisible = 1;\n</script>"),
    st.just("<style>\n.invisible { color: red }\n</style>"),
)


@cache
def block(depth: int) -> st.SearchStrategy[str]:
    """One block, with blocks nested up to `depth`."""
    leaves = [
        _paragraph,
        st.builds("{} {}".format, st.sampled_from(("#", "##", "###", "####", "######")), _line),
        _fence,
        _tables(),
        st.sampled_from(("***", "---", "_ _ _")),
    ]
    if depth == 0:
        return st.one_of(*leaves)
    inner = st.lists(block(depth - 1), min_size=1, max_size=3).map("\n\n".join)
    items = st.lists(st.one_of(_line, inner, _line.map("[ ] {}".format)), min_size=1, max_size=4)
    return st.one_of(
        *leaves,
        _html_block,
        st.builds(
            _item_list, st.sampled_from(("-", "*", "1.", "9)")), items, st.sampled_from(("\n", "\n\n"))
        ),
        inner.map(lambda text: "> " + _indented(text, "> ")),
    )


_NOTE = "[^note]: 注文，[出处](https://example.com/note)。\n\n    第二段。"

documents = st.builds(
    lambda blocks, times: "\n\n".join([*blocks * times, _NOTE]),
    st.lists(block(3), min_size=1, max_size=8),
    st.sampled_from((*[1] * 12, 2, 4, 12)),
)

_marks = st.sampled_from("*_`[](){}<>#|-~:!\n\\ 中a1^\"'&=+.\t/")
soup = st.one_of(
    st.text(_marks, max_size=400),
    st.text(max_size=300),
    st.lists(st.one_of(st.text(_marks, max_size=20), block(2)), max_size=8).map("".join),
    st.text(st.sampled_from("字。😀 "), min_size=1, max_size=200).map(lambda text: text * 60),
    st.text(st.one_of(_marks, st.characters(categories=["Cc", "Cf", "Zl", "Zp"])), max_size=200),
).filter(lambda text: CONTROLS.sub("", text).strip())
