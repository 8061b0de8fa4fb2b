"""A post as one rich message (Bot API 10.1): headings, lists, tables and pictures as such, in the HTML of InputRichMessage.

Opt-in, since several clients show a rich message as blank and the API does not tell. What does not fit has no rich form.
"""

import itertools
import re
from collections.abc import Callable, Mapping, Sequence

from markdown_it.tree import SyntaxTreeNode

from distributor.channels.telegram.blocks import TASK, inline, only_pictures
from distributor.channels.telegram.marks import Mark, Run, tidied, to_markup, to_text, trimmed
from distributor.channels.telegram.raw import HtmlWriter
from distributor.channels.telegram.words import Words
from distributor.rendering import escape_text, picture_alt

#: Bot API, InputRichMessage. Characters are those a reader sees.
CHARACTERS, BLOCKS, DEPTH, MEDIA, COLUMNS = 32_768, 500, 16, 50, 20
_BLOCK = re.compile(r"<(?:p|h[1-6]|ul|ol|li|blockquote|pre|table|tr|hr|figure|footer)\b")
_NESTING = re.compile(r"<(/?)(ul|ol|li|blockquote|table|tr|td|th|figure|footer|p|pre|h[1-6])\b")

Writer = Callable[[SyntaxTreeNode, Words], str]


def to_rich(
    tree: SyntaxTreeNode, title: Sequence[Run], footer: Sequence[Run], cover: str | None, words: Words
) -> str:
    """The HTML of a rich message; empty when it would break a limit."""
    first, _, rest = _inline_html(title).partition("<br>")
    pieces = [
        _figure(cover, "") if cover else "",
        f"<h1>{_bare(first)}</h1>",
        f"<p>{rest.removeprefix('<br>')}</p>" if rest else "",
        _inside(tree, words),
        f"<footer>{_inline_html(footer)}</footer>" if footer else "",
    ]
    html = _FIGURE.sub(_linked_from(MEDIA), "".join(pieces))
    return html if _fits(html) else ""


def _fits(html: str) -> bool:
    columns = max((row.count("<th") + row.count("<td") for row in html.split("<tr>")), default=0)
    return (
        len(re.sub(r"<[^>]*>", "", html)) <= CHARACTERS
        and len(_BLOCK.findall(html)) <= BLOCKS
        and html.count("<img ") <= MEDIA
        and columns <= COLUMNS
        and _depth(html) <= DEPTH
    )


_FIGURE = re.compile(r'<figure><img src="([^"]*)"/>(?:<figcaption>(.*?)</figcaption>)?</figure>')


def _linked_from(count: int) -> Callable[[re.Match[str]], str]:
    """The first `count` pictures stay; those behind become links."""
    numbers = itertools.count(1)

    def written(match: re.Match[str]) -> str:
        if next(numbers) <= count:
            return match[0]
        return f'<p><a href="{match[1]}">🖼 {match[2] or match[1]}</a></p>'

    return written


def _depth(html: str) -> int:
    depth = deepest = 0
    for match in _NESTING.finditer(html):
        depth += -1 if match[1] else 1
        deepest = max(deepest, depth)
    return deepest


def _inside(node: SyntaxTreeNode, words: Words) -> str:
    return "".join(_WRITERS.get(child.type, _inside)(child, words) for child in node.children)


def _inline_html(runs: Sequence[Run]) -> str:
    """Runs inside a block: a listing of raw HTML is code there."""
    code = {mark: Mark("code") for run in runs for mark in run.marks if mark.tag == "pre"}
    if code:
        runs = [Run(run.text, tuple(code.get(mark, mark) for mark in run.marks)) for run in runs]
    return to_markup(tidied(trimmed(runs))).replace("\n", "<br>")


def _bare(html: str) -> str:
    """A heading is bold by itself."""
    return re.sub(r"</?b>", "", html)


def _text(node: SyntaxTreeNode, words: Words) -> str:
    return _inline_html(inline(node, (), words))


def _paragraph(node: SyntaxTreeNode, words: Words) -> str:
    if pictures := only_pictures(node):  # media are blocks of their own
        return "".join(_figure(str(one.attrs["src"]), picture_alt(one)) for one in pictures)
    text = _text(node, words)
    return f"<p>{text}</p>" if text else ""


def _figure(address: str, alt: str) -> str:
    source = f'<img src="{escape_text(address).replace(chr(34), "&quot;")}"/>'
    caption = " ".join(alt.split())
    return f"<figure>{source}{f'<figcaption>{escape_text(caption)}</figcaption>' if caption else ''}</figure>"


def _heading(node: SyntaxTreeNode, words: Words) -> str:
    text = _text(node, words)
    return f"<{node.tag}>{text}</{node.tag}>" if text else ""


def _list(node: SyntaxTreeNode, words: Words) -> str:
    start = node.attrs.get("start", 1)
    opening = node.tag if node.tag == "ul" or start == 1 else f'ol start="{start}"'
    return f"<{opening}>{''.join(_item(item, words) for item in node.children)}</{node.tag}>"


def _item(node: SyntaxTreeNode, words: Words) -> str:
    """A tight item's text stands without a paragraph."""
    pieces = [
        _text(child, words) if child.type == "paragraph" and child.hidden else _block(child, words)
        for child in node.children
    ]
    body = "".join(pieces)
    task = TASK.match(body.removeprefix("<p>"))
    if task is None:
        return f"<li>{body}</li>"
    ticked = "" if task[1] == " " else " checked"
    return f'<li><input type="checkbox"{ticked}>{body.replace(task[0], "", 1)}</li>'


def _block(node: SyntaxTreeNode, words: Words) -> str:
    return _WRITERS.get(node.type, _inside)(node, words)


def _quote(node: SyntaxTreeNode, words: Words) -> str:
    return f"<blockquote>{_inside(node, words)}</blockquote>"


def _code(node: SyntaxTreeNode, _: Words) -> str:
    text = escape_text(node.content.strip("\n"))
    language = re.sub(r"[^\w+#-].*", "", node.info.strip()) if node.type == "fence" else ""
    inner = f'<code class="language-{language}">{text}</code>' if language else text
    return f"<pre>{inner}</pre>" if text.strip() else ""


def _table(node: SyntaxTreeNode, words: Words) -> str:
    rows = [row for part in node.children for row in part.children]
    return f"<table bordered striped>{''.join(_row(row, words) for row in rows)}</table>"


def _row(node: SyntaxTreeNode, words: Words) -> str:
    return f"<tr>{''.join(_cell(cell, words) for cell in node.children)}</tr>"


def _cell(node: SyntaxTreeNode, words: Words) -> str:
    align = f' align="{node.attrs["align"]}"' if node.attrs.get("align") else ""
    return f"<{node.tag}{align}>{_text(node, words)}</{node.tag}>"


def _raw_html(node: SyntaxTreeNode, words: Words) -> str:
    runs = trimmed(HtmlWriter((), words).read(node.content))
    return f"<p>{_inline_html(runs)}</p>" if to_text(runs).strip() else ""


def _footnote(node: SyntaxTreeNode, words: Words) -> str:
    body = _inside(node, words)
    number = f"[{node.meta['id'] + 1}] "
    return f"<p>{number}{body[3:]}" if body.startswith("<p>") else f"<p>{number}</p>{body}"


_WRITERS: Mapping[str, Writer] = {
    "paragraph": _paragraph,
    "heading": _heading,
    "bullet_list": _list,
    "ordered_list": _list,
    "blockquote": _quote,
    "fence": _code,
    "code_block": _code,
    "table": _table,
    "hr": lambda *_: "<hr/>",
    "html_block": _raw_html,
    "footnote_block": lambda node, words: f"<hr/>{_inside(node, words)}",
    "footnote": _footnote,
}
