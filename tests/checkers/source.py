"""What a post says, read without the project's code.

The Markdown becomes plain HTML (CommonMark with tables, strikethrough and footnotes), and that is read as a browser
reads it. What a browser shows is what a reader must get; what it hides must not appear.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import html5lib
from markdown_it import MarkdownIt
from markdown_it.token import Token
from mdit_py_plugins.footnote import footnote_plugin

#: Elements that a browser shows nothing of.
UNSEEN = {"script", "style", "iframe", "noscript", "template", "title", "head", "object"}
#: What must not come through even as text.
SECRET = {"script", "style"}
INVISIBLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff\ufeff]")
TASK = re.compile(r"^\s*\[[ xX]\](?=\s)")


@dataclass(frozen=True)
class Piece:
    """A word of the post. A table's head may stand elsewhere (beside each cell, say), all else keeps its order."""

    text: str
    ordered: bool = True


@dataclass
class Source:
    """`pieces` in reading order, addresses, the texts that must vanish, and what the parser saw."""

    pieces: list[Piece] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    pictures: int = 0
    raw_html: bool = False

    @property
    def text(self) -> str:
        return " ".join(piece.text for piece in self.pieces)

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
    return source


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
    found = re.findall(r"https?://[!-;=?-~]+", text)
    return [without_tail(address) for address in found]


def without_tail(address: str) -> str:
    address = address.rstrip(".,;:!?'\"*")
    while address.endswith(")") and address.count(")") > address.count("("):
        address = address[:-1].rstrip(".,;:!?'\"*")
    return address


def _walk(element: Any, source: Source, *, ordered: bool, verbatim: bool = False) -> None:
    """`verbatim`: inside code or a link, where an address is no link of its own."""
    for kind, value in _content(element):
        if kind == "text":
            source.pieces += [Piece(word, ordered) for word in value.split()]
            source.links += [] if verbatim else bare_addresses(value)
        elif value.tag in UNSEEN:
            if value.tag in SECRET:
                source.hidden += "".join(value.itertext()).split()
        elif "footnote-ref" not in value.get("class", "") and "footnote-backref" not in value.get(
            "class", ""
        ):
            _note(value, source, ordered=ordered)
            inner = verbatim or value.tag in {"a", "code", "pre"}
            _walk(value, source, ordered=ordered and value.tag != "thead", verbatim=inner)


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
        source.pieces += [Piece(word, ordered) for word in (element.get("alt") or "").split()]
