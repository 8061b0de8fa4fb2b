"""A post as plain text; what inline nodes, lists and tables say, for every renderer."""

import re
from collections.abc import Callable, Mapping

from markdown_it.tree import SyntaxTreeNode

from distributor.rendering.addresses import text_and_address
from distributor.rendering.cutting import display_width, wrap
from distributor.rendering.markdown import Document
from distributor.rendering.raw_html import HtmlReader

LinkWriter = Callable[[str, str], str]
#: `- [ ] task` shows a box instead of a bullet.
BOXES = {" ": "☐", "x": "☑", "X": "☑"}
_TASK = re.compile(r"\[([ xX])\]\s")
#: Editors make room with a row of <br>; a text needs one empty line.
_MANY_BREAKS = re.compile(r"\n(?:[ \t]*\n){2,}")


def text_only(text: str, address: str) -> str:  # noqa: ARG001 - a LinkWriter that leaves the address out
    return text


def inline_text(node: SyntaxTreeNode, link: LinkWriter = text_only) -> str:
    """What a reader sees of an inline node, as plain text."""
    write = _INLINE.get(node.type)
    return write(node, link) if write else "".join(inline_text(child, link) for child in node.children)


def _link_text(node: SyntaxTreeNode, link: LinkWriter) -> str:
    text = "".join(inline_text(child, text_only) for child in node.children)
    return link(text, str(node.attrs.get("href", "")))


def _picture_text(node: SyntaxTreeNode, link: LinkWriter) -> str:
    return link(f"🖼 {picture_alt(node)}".strip(), str(node.attrs.get("src", "")))


def picture_alt(node: SyntaxTreeNode) -> str:
    return "".join(inline_text(child) for child in node.children) or node.content


_INLINE: Mapping[str, Callable[[SyntaxTreeNode, LinkWriter], str]] = {
    "text": lambda node, _: node.content,
    "code_inline": lambda node, _: node.content,
    "hardbreak": lambda *_: "\n",
    "html_inline": lambda node, _: HtmlReader(node.content).text,
    "footnote_ref": lambda node, _: f"[{node.meta['id'] + 1}]",
    "footnote_anchor": lambda *_: "",
    "image": _picture_text,
    "link": _link_text,
}


def to_text(document: Document, *, columns: int = 76) -> str:
    """The post's body as plain text, every address included, wrapped at `columns` (a Han character fills two)."""
    return "\n\n".join(_text_blocks(document.tree, columns))


def _text_blocks(node: SyntaxTreeNode, columns: int) -> list[str]:
    blocks = (_TEXT.get(child.type, _text_inner)(child, columns) for child in node.children)
    return [block for block in blocks if block.strip()]


def _text_inner(node: SyntaxTreeNode, columns: int) -> str:
    if node.type == "inline" or not node.children:
        text = inline_text(node, text_and_address)
        return wrap(_MANY_BREAKS.sub("\n\n", text).strip("\n"), columns)
    return "\n\n".join(_text_blocks(node, columns))


def _text_heading(node: SyntaxTreeNode, columns: int) -> str:
    text = _text_inner(node, columns)
    widest = max(map(display_width, text.split("\n")))
    return f"{text}\n{('=' if node.tag in {'h1', 'h2'} else '-') * widest}"


def _text_list(node: SyntaxTreeNode, columns: int) -> str:
    items, gap = list[str](), "\n" if is_tight(node) else "\n\n"
    for item, bullet in zip(node.children, list_bullets(node), strict=True):
        text = gap.join(_text_blocks(item, columns - len(bullet) - 1))
        task = _TASK.match(text)
        items.append(indent(text[task.end() :] if task else text, f"{BOXES[task[1]] if task else bullet} "))
    return gap.join(items)


def _text_table(node: SyntaxTreeNode, columns: int) -> str:
    rows = table_rows(node, text_and_address)
    return "\n".join(wrap(" | ".join(row), columns) for row in rows if any(row))


def _text_footnote(node: SyntaxTreeNode, columns: int) -> str:
    return indent(_text_inner(node, columns - 5), f"[{node.meta['id'] + 1}] ")


_TEXT: Mapping[str, Callable[[SyntaxTreeNode, int], str]] = {
    "heading": _text_heading,
    "bullet_list": _text_list,
    "ordered_list": _text_list,
    "blockquote": lambda node, columns: indent(_text_inner(node, columns - 2), "> ", "> "),
    "code_block": lambda node, _: indent(node.content.rstrip("\n"), "    ", "    "),
    "fence": lambda node, _: indent(node.content.rstrip("\n"), "    ", "    "),
    "hr": lambda *_: "-" * 20,
    "html_block": lambda node, columns: wrap("\n".join(HtmlReader(node.content).lines), columns),
    "table": _text_table,
    "footnote": _text_footnote,
}


def is_tight(node: SyntaxTreeNode) -> bool:
    """Whether a list's items stand close together."""
    return not any(
        child.type == "paragraph" and not child.hidden for item in node.children for child in item.children
    )


def list_bullets(node: SyntaxTreeNode) -> list[str]:
    """One a list item: "•", or its number."""
    if node.type == "bullet_list":
        return ["•"] * len(node.children)
    start = int(node.attrs.get("start", 1))
    return [f"{number}." for number in range(start, start + len(node.children))]


def table_rows(node: SyntaxTreeNode, link: LinkWriter = text_only) -> list[list[str]]:
    """The cells' texts; the first row is the head."""
    rows = [row for part in node.children for row in part.children]
    return [[squeeze(inline_text(cell, link)) for cell in row.children] for row in rows]


def squeeze(text: str) -> str:
    """White space that means nothing becomes one blank."""
    return " ".join(text.split())


def indent(text: str, first: str, others: str | None = None) -> str:
    others = " " * len(first) if others is None else others
    lines = text.split("\n")
    return "\n".join([first + lines[0], *((others + line).rstrip() for line in lines[1:])])
