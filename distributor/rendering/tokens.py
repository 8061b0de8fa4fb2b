"""What CommonMark's tokens lack: links that were written as HTML, and headings without gaps."""

import re
from collections.abc import Iterator, Sequence

from markdown_it.common.normalize_url import normalizeLink
from markdown_it.token import Token

from distributor.rendering.raw_html import HtmlReader


def with_html_links(children: Sequence[Token]) -> Iterator[Token]:
    """Inline tokens in which `<a href>…</a>` is a link like any other."""
    ends = set[int]()
    for index, token in enumerate(children):
        links = HtmlReader(token.content).links if re.match(r"<a\s", token.content, re.IGNORECASE) else []
        if token.type == "html_inline" and links and (end := _end_of_link(children, index)):
            ends.add(end)
            yield Token("link_open", "a", 1, attrs={"href": normalizeLink(links[0])})
        else:
            yield Token("link_close", "a", -1) if index in ends else token


def _end_of_link(children: Sequence[Token], start: int) -> int | None:
    """The index of the `</a>` that closes the link; None unless both stand well nested in one paragraph."""
    depth = 0
    for index in range(start + 1, len(children)):
        token = children[index]
        depth += token.nesting
        if depth < 0 or token.type == "link_open":
            return None
        if token.type == "html_inline" and re.match(r"</?a\b", token.content, re.IGNORECASE):
            return index if token.content.startswith("</") and not depth else None
    return None


def close_up_headings(tokens: Sequence[Token]) -> None:
    """The title is the only heading of the first level, and none is more than one step below the one before it."""
    above = list[int]()
    for token in tokens:
        if token.type == "heading_open":
            level = int(token.tag[1])
            above = [*(outer for outer in above if outer < level), level]
        if token.type in {"heading_open", "heading_close"}:
            token.tag = f"h{min(len(above) + 1, 6)}"
