"""What CommonMark's tokens lack: links that were written as HTML, and headings without gaps."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markdown_it.common.normalize_url import normalizeLink
from markdown_it.token import Token

from distributor.rendering.raw_html import ELEMENTS, HIDDEN, TAG, HtmlReader


@dataclass
class _Tag:
    """A tag in raw HTML: the paragraph (0: none) and the token it stands in, and where."""

    paragraph: int
    token: Token
    place: int
    name: str
    closing: bool

    def ends(self, other: "_Tag") -> bool:
        return self.closing and (self.paragraph, self.name) == (other.paragraph, other.name)


def without_hidden(tokens: Sequence[Token]) -> list[Token]:
    """The tokens without blocks between a `<noscript>` and its end; what is no HTML becomes text.

    `std::vector<int>`, and a `<template>` that nothing ends: a sanitiser would drop what stands behind them, to the end
    of the paragraph, or of the whole post.
    """
    tags = [tag for token in tokens for tag in _tags(token)]
    text, regions = _sorted_out(tags)
    for tag in reversed(text):  # so that the places before it stay
        _show(tag)
    where = {id(token): place for place, token in enumerate(tokens)}
    dropped = set[int]()
    for begin, end in regions:
        if begin.token.level == end.token.level == 0 and begin.token.type == end.token.type == "html_block":
            dropped.update(range(where[id(begin.token)] + 1, where[id(end.token)]))
    return [token for place, token in enumerate(tokens) if place not in dropped]


def _tags(token: Token) -> Iterator[_Tag]:
    pieces = [(id(token), child) for child in token.children or ()] or [(0, token)]
    for paragraph, piece in pieces:
        if piece.type in {"html_inline", "html_block"}:
            for match in TAG.finditer(piece.content):
                yield _Tag(paragraph, piece, match.start(), match[2].lower(), bool(match[1]))


def _sorted_out(tags: Sequence[_Tag]) -> tuple[list[_Tag], list[tuple[_Tag, _Tag]]]:
    """The tags that are text, and the pairs between which nothing is shown."""
    last_end = {(tag.paragraph, tag.name): place for place, tag in enumerate(tags) if tag.closing}
    text, regions, place = list[_Tag](), list[tuple[_Tag, _Tag]](), 0
    while place < len(tags):
        tag, start = tags[place], place
        hides = tag.name in HIDDEN and not tag.closing
        if hides and last_end.get((tag.paragraph, tag.name), -1) > place:
            while not tags[place].ends(tag):
                place += 1
            regions.append((tags[start], tags[place]))
        elif hides or tag.name not in ELEMENTS:
            text.append(tag)
        place += 1
    return text, regions


def _show(tag: _Tag) -> None:
    token, place = tag.token, tag.place
    if token.type == "html_block":
        token.content = f"{token.content[:place]}&lt;{token.content[place + 1 :]}"
    else:
        token.type = "text"


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
