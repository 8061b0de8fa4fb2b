"""What a post says, read without the project's code.

The Markdown becomes plain HTML (CommonMark with tables, strikethrough and footnotes), and that is read as a browser
reads it. What a browser shows is what a reader must get; what it hides must not appear.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import html5lib
from markdown_it import MarkdownIt
from markdown_it.token import Token
from mdit_py_plugins.footnote import footnote_plugin

#: Elements that a browser shows nothing of.
UNSEEN = {"script", "style", "iframe", "noscript", "template", "title", "head", "object"}
#: Elements that begin on a line of their own.
BLOCKS = {
    *("p", "div", "section", "li", "tr", "td", "th", "table", "ul", "ol", "pre", "blockquote", "br", "hr"),
    *("h1", "h2", "h3", "h4", "h5", "h6", "dt", "dd", "details", "summary"),
}
#: What must not come through even as text.
SECRET = {"script", "style"}
INVISIBLE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff\ufeff"
    + "".join(f"\\U{plane:04x}fffe\\U{plane:04x}ffff" for plane in range(1, 17))
    + "]"
)
_TAIL = ".,:;!?'*_~"
TASK = re.compile(r"^\s*\[[ xX]\](?=\s)")


@dataclass(frozen=True)
class Piece:
    """A word of the post. A table's head may stand elsewhere (beside each cell, say), all else keeps its order."""

    text: str
    ordered: bool = True


@dataclass
class Source:
    """`pieces` in reading order, addresses, the texts that must vanish, `raw` text as it runs, and what the parser saw."""

    pieces: list[Piece] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    raw: list[str] = field(default_factory=list)
    pictures: int = 0
    raw_html: bool = False

    @property
    def text(self) -> str:
        """As a browser runs it together; blocks stand apart."""
        return "".join(self.raw)

    @property
    def addresses(self) -> list[str]:
        """The links, and the addresses that stand in the text itself."""
        return [*self.links, *bare_addresses(self.text)]


class _Markdown(MarkdownIt):
    def validateLink(self, url: str) -> bool:  # noqa: ARG002, N802 - the parser's own signature
        return True


_MARKDOWN = _Markdown("commonmark", {"html": True}).enable(["table", "strikethrough"]).use(footnote_plugin)


def read_source(markdown: str) -> Source:
    """The reader's view of a post's body."""
    tokens, _ = _tokens(markdown)
    kinds = {child.type for token in tokens for child in [token, *(token.children or ())]}
    source = Source(raw_html=bool(kinds & {"html_block", "html_inline"}))
    _walk(html5lib.parseFragment(html_of(markdown), namespaceHTMLElements=False), source, ordered=True)
    source.links += _links_in_the_open(tokens)
    return source


def _links_in_the_open(tokens: Iterable[Token]) -> Iterator[str]:
    """Addresses in a paragraph's text: links by the rules of GitHub's Markdown, but not in code, links or raw HTML."""
    for token in tokens:
        inside = 0
        for child in token.children or ():
            inside += child.nesting if child.type.startswith("link_") else _html_nesting(child)
            if child.type == "text" and not inside:
                yield from bare_addresses(child.content)


def _html_nesting(token: Token) -> int:
    tag = re.match(r"<(/?)a\b", token.content, re.IGNORECASE) if token.type == "html_inline" else None
    return 0 if tag is None else -1 if tag[1] else 1


def html_of(markdown: str) -> str:
    """The Markdown as its own renderer writes it, raw HTML included."""
    tokens, env = _tokens(markdown)
    return str(_MARKDOWN.renderer.render(tokens, _MARKDOWN.options, env))


def _tokens(markdown: str) -> tuple[list[Token], dict[str, Any]]:
    env: dict[str, Any] = {}
    text = INVISIBLE.sub("", markdown.replace("\r\n", "\n").replace("\r", "\n"))
    return _MARKDOWN.parse(text, env), env


def bare_addresses(text: str) -> list[str]:
    """Addresses written in the open, without the punctuation behind them."""
    found = re.findall(r"https?://(?:[!#-)+-;=?-Z_a-z]|\*(?!\*)|~(?!~))+", text)
    return [without_tail(address) for address in found]


def without_tail(address: str) -> str:
    address = address.rstrip(_TAIL)
    while address.endswith(")") and address.count(")") > address.count("("):
        address = address[:-1].rstrip(_TAIL)
    return address


def _walk(element: Any, source: Source, *, ordered: bool) -> None:
    for kind, value in _content(element):
        if kind == "text":
            source.raw.append(value)
            source.pieces += [Piece(word, ordered) for word in value.split()]
        elif value.tag in UNSEEN:
            if value.tag in SECRET:
                source.hidden += "".join(value.itertext()).split()
        elif "footnote-ref" not in value.get("class", "") and "footnote-backref" not in value.get(
            "class", ""
        ):
            _note(value, source, ordered=ordered)
            source.raw += ["\n"] * (value.tag in BLOCKS)
            _walk(value, source, ordered=ordered and value.tag != "thead")


def _content(element: Any) -> Iterator[tuple[str, Any]]:
    """Texts and elements in order; comments are neither."""
    if element.text:
        is_item = element.tag == "li"
        yield "text", TASK.sub("", element.text) if is_item or element.get("task") else element.text
    for number, child in enumerate(element):
        if isinstance(child.tag, str):
            if number == 0 and element.tag == "li" and child.tag == "p":
                child.set("task", "perhaps")
            yield "element", child
        if child.tail:
            yield "text", child.tail


def _note(element: Any, source: Source, *, ordered: bool) -> None:
    if (
        element.tag == "a"
        and (address := (element.get("href") or "").strip())
        and not address.startswith("#")
    ):
        source.links.append(address)
    if element.tag == "img":
        source.pictures += 1
        source.raw.append(element.get("alt") or "")
        source.pieces += [Piece(word, ordered) for word in (element.get("alt") or "").split()]
