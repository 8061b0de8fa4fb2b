"""The text, links, pictures and raw HTML of a post, each with its line in the file.

The post is parsed by the renderers' own parser with one addition: an inline rule notes where it began. So a link by
reference, in a footnote, a table or raw HTML has the line it stands on, not that of its paragraph.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.common.utils import normalizeReference
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token
from markdown_it.tree import SyntaxTreeNode

from distributor.model import Post
from distributor.posts import plain
from distributor.rendering import CONTROLS, HtmlReader, picture_alt
from distributor.rendering.markdown import build_markdown

NOTED = ("newline", "escape", "link", "image", "footnote_inline", "footnote_ref", "autolink", "html_inline")
#: Stands for words that are linked ("object replacement character").
LINKED = "\ufffc"
DEEPEST = 100
#: A label between brackets, escaped ones aside.
LABEL = re.compile(r"(?<!\\)\[([^\[\]]{1,300})(?<!\\)\]")
PIPED = re.compile(r"\|[^|\s]+\|")
InlineRule = Callable[[StateInline, bool], bool]


@dataclass(frozen=True)
class Line:
    """What a reader sees of one line of the file: no code, no addresses.

    `unlinked` is the same with LINKED for what stands in links; None where there can be none.
    """

    number: int
    text: str
    unlinked: str | None = None


@dataclass(frozen=True, kw_only=True)
class Link:
    """`line` is where its text stands, `defined` where its address does (links by reference)."""

    line: int
    defined: int
    text: str
    address: str


@dataclass(frozen=True, kw_only=True)
class Picture:
    """`alt` is None where raw HTML has no such attribute; there, an empty one says "decoration" on purpose."""

    line: int | None
    alt: str | None
    address: str
    from_html: bool = False


@dataclass(frozen=True, kw_only=True)
class Tag:
    """A tag of raw HTML that opens."""

    line: int
    name: str
    attributes: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Heading:
    """`level` as written, 1 to 6; `number` is its place among the tokens."""

    line: int
    level: int
    text: str
    number: int


@dataclass(kw_only=True)
class Reading:
    """What the tokens hold, by kind, in the order of the file (footnotes last)."""

    source: str = ""
    tokens: Sequence[Token] = ()
    paragraphs: list[Sequence[Line]] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    tags: list[Tag] = field(default_factory=list)
    headings: list[Heading] = field(default_factory=list)
    #: Line and label of the definitions of links and notes that nothing refers to.
    unused: list[tuple[int, str]] = field(default_factory=list)


# Where inline things stand


def _noting(rule: InlineRule) -> InlineRule:
    """The rule; what it makes knows where in the inline text it began, and its source."""

    def noted(state: StateInline, silent: bool) -> bool:
        start, count = state.pos, len(state.tokens)
        done = rule(state, silent)
        for token in state.tokens[count:] if done else ():
            token.meta.setdefault("at", start)
            token.meta.setdefault("source", state.src[start : state.pos])
        return done

    return noted


def _noting_markdown() -> MarkdownIt:
    markdown = build_markdown()
    # What stands deeper than the renderers' parser goes is lost to readers: it must be seen to be missed.
    markdown.options["maxNesting"] = max(DEEPEST, markdown.options["maxNesting"])
    rules = {rule.name: rule.fn for rule in markdown.inline.ruler.__rules__}
    for name in NOTED:
        markdown.inline.ruler.at(name, _noting(rules[name]))
    return markdown


MARKDOWN = _noting_markdown()


def read(post: Post) -> Reading:
    """Never raises for what a post holds: addresses are not looked at here."""
    return _Reader(post).read()


class _Reader:
    """Walks the tokens in order; `start` is the file's line of the block at hand."""

    def __init__(self, post: Post) -> None:
        self.post, self.start = post, post.body_line
        self.env: dict[str, Any] = {}
        self.found = Reading()
        self.notes: dict[int, int] = {}  # inline footnote → the line it is written on

    def read(self) -> Reading:
        self.found.source = CONTROLS.sub("", self.post.body.replace("\r\n", "\n").replace("\r", "\n"))
        self.found.tokens = MARKDOWN.parse(self.found.source, self.env)
        for number, token in enumerate(self.found.tokens):
            self._take(number, token)
        self.found.unused = sorted([*self._unused_links(), *self._unused_notes()])
        return self.found

    def _unused_links(self) -> Iterator[tuple[int, str]]:
        """`[//]: # (…)` is a comment."""
        labels = Counter(normalizeReference(label) for label in LABEL.findall(self.found.source))
        for label, reference in self.env.get("references", {}).items():
            if labels[label] < 2 and reference["href"] not in {"", "#"}:
                line = int(reference["map"][0])
                written = LABEL.search(self.found.source.split("\n")[line])
                yield self.post.body_line + line, written[1] if written else label

    def _unused_notes(self) -> Iterator[tuple[int, str]]:
        for name, number in self.env.get("footnotes", {}).get("refs", {}).items():
            label = f"^{name.removeprefix(':')}"
            place = re.search(rf"^[ >]*\[{re.escape(label)}\]:", self.found.source, re.MULTILINE)
            if number < 0 and place:
                down = self.found.source.count("\n", 0, place.start() + 1) if place.start() else 0
                yield self.post.body_line + down, label

    def _take(self, number: int, token: Token) -> None:
        if token.map:
            self.start = self.post.body_line + token.map[0]
        elif token.type == "footnote_open":
            self.start = self.notes.get(token.meta["id"], self.start)
        if token.type == "heading_open":
            text = plain(self.found.tokens[number + 1].content)
            self.found.headings.append(
                Heading(line=self.start, level=int(token.tag[1]), text=text, number=number)
            )
        if token.type == "html_block":
            self._html(token.content, self.start)
        if token.type == "inline":
            self._inline(token)

    def _html(self, html: str, line: int) -> None:
        reader = _TagReader(html, line)
        self.found.tags += reader.tags
        self.found.pictures += reader.shown
        self.found.links += reader.linked
        self.found.paragraphs.append(reader.texts)

    def _inline(self, token: Token) -> None:
        inline = _Inline(self, token)
        for child in token.children or ():
            inline.take(child)
        self.found.paragraphs.append(
            [Line(number, text, inline.unlinked[number]) for number, text in inline.seen.items()]
        )

    def defined(self, address: str, source: str, line: int) -> int:
        """Where a link's address stands: in place, unless its source ends with the bracket of a reference."""
        if source.endswith("]"):
            for reference in self.env.get("references", {}).values():
                if reference["href"] == address:
                    return self.post.body_line + int(reference["map"][0])
        return line


class _Inline:
    """The children of one inline token, in order."""

    def __init__(self, reader: _Reader, token: Token) -> None:
        self.reader, self.source, self.line = reader, token.content, reader.start
        self.seen: dict[int, str] = {}
        self.unlinked: dict[int, str] = {}
        self.open: Token | None = None
        self.opened, self.text = 0, ""
        self.in_anchor = False
        self.star = ""

    def take(self, token: Token) -> None:
        if "at" in token.meta:
            self.line = self.reader.start + self.source.count("\n", 0, token.meta["at"])
        if handle := _INLINE.get(token.type):
            handle(self, token)

    def write(self, text: str) -> None:
        self.text += text
        if self.open is None or self.open.info != "auto":
            self.seen[self.line] = self.seen.get(self.line, "") + text
            bare = LINKED if self.open or self.in_anchor else text
            self.unlinked[self.line] = self.unlinked.get(self.line, "") + bare

    def take_text(self, token: Token) -> None:
        # Mailchimp's *|NAME|* is emphasis to Markdown
        self.write(
            f"{self.star}{token.content}{self.star}" if PIPED.fullmatch(token.content) else token.content
        )

    def take_emphasis(self, token: Token) -> None:
        self.star = "*" if token.markup == "*" else ""

    def end_emphasis(self, _token: Token) -> None:
        self.star = ""

    def take_code(self, _token: Token) -> None:
        self.write(" ")

    def take_break(self, _token: Token) -> None:
        self.write(" ")
        self.line += 1

    def take_link(self, token: Token) -> None:
        self.open, self.opened, self.text = token, self.line, ""

    def end_link(self, _token: Token) -> None:
        if self.open is not None:
            address = str(self.open.attrs.get("href", ""))
            line = self.reader.defined(address, self.open.meta.get("source", ""), self.opened)
            self.reader.found.links.append(
                Link(line=self.opened, defined=line, text=self.text.strip(), address=address)
            )
        self.open = None

    def take_picture(self, token: Token) -> None:
        address = str(token.attrs.get("src", ""))
        alt = picture_alt(SyntaxTreeNode([token]).children[0])
        line = self.reader.defined(address, token.meta.get("source", ""), self.line)
        self.reader.found.pictures.append(Picture(line=line, alt=alt, address=address))
        self.text += alt

    def take_html(self, token: Token) -> None:
        reader = _TagReader(token.content, self.line)
        self.in_anchor = bool(reader.linked) or (self.in_anchor and not token.content.startswith("</"))
        self.reader.found.tags += reader.tags
        self.reader.found.pictures += reader.shown
        self.reader.found.links += reader.linked

    def take_footnote(self, token: Token) -> None:
        self.reader.notes[token.meta["id"]] = self.line


_INLINE: Mapping[str, Callable[[_Inline, Token], None]] = {
    "text": _Inline.take_text,
    "code_inline": _Inline.take_code,
    "softbreak": _Inline.take_break,
    "hardbreak": _Inline.take_break,
    "link_open": _Inline.take_link,
    "link_close": _Inline.end_link,
    "image": _Inline.take_picture,
    "em_open": _Inline.take_emphasis,
    "em_close": _Inline.end_emphasis,
    "html_inline": _Inline.take_html,
    "footnote_ref": _Inline.take_footnote,
}


class _TagReader(HtmlReader):
    """Raw HTML that begins on line `first`: its tags, pictures, links and text, with their lines."""

    def __init__(self, html: str, first: int) -> None:
        self.first = first
        self.tags, self.shown, self.linked = list[Tag](), list[Picture](), list[Link]()
        self.seen: dict[int, str] = {}
        self.unlinked: dict[int, str] = {}
        self.anchor: Link | None = None
        super().__init__(html)
        self.handle_endtag("a")  # one that is not closed within this piece

    @property
    def here(self) -> int:
        return self.first + self.getpos()[0] - 1

    @property
    def texts(self) -> Sequence[Line]:
        return [
            Line(number, text, self.unlinked[number]) for number, text in self.seen.items() if text.strip()
        ]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        super().handle_starttag(tag, attrs)
        values = {name: (value or "").strip() for name, value in attrs}
        self.tags.append(Tag(line=self.here, name=tag, attributes=values))
        if tag == "img":
            alt, address = values.get("alt"), values.get("src", "")
            self.shown.append(Picture(line=self.here, alt=alt, address=address, from_html=True))
        if tag == "a" and "href" in values:
            self.anchor = Link(line=self.here, defined=self.here, text="", address=values["href"])

    def handle_endtag(self, tag: str) -> None:
        super().handle_endtag(tag)
        if tag == "a" and self.anchor:
            self.linked.append(self.anchor)
            self.anchor = None

    def handle_data(self, data: str) -> None:
        super().handle_data(data)
        if self.anchor:
            self.anchor = replace(self.anchor, text=(self.anchor.text + data).strip())
        for number, text in enumerate([] if self.hidden else data.split("\n"), self.here):
            self.seen[number] = self.seen.get(number, "") + text
            bare = LINKED if self.anchor else text
            self.unlinked[number] = self.unlinked.get(number, "") + bare


def brief(address: str, most: int = 60) -> str:
    """An address inside a sentence."""
    return address if len(address) <= most else address[: most - 1] + "…"


def host_of(address: str) -> str:
    """The host of a full address, lower case; empty when there is none."""
    match = re.match(r"https?://(?:[^/?#@]*@)?(\[[^\]]*\]|[^/?#:]*)", address, re.IGNORECASE)
    return match[1].lower().rstrip(".") if match else ""
