"""A post's HTML as WeChat's editor keeps it: inline styles, flat lists, links as numbered notes.

WeChat drops style sheets, classes, ids, scripts and frames, makes links of ordinary accounts dead, and takes nested
lists apart. So each element carries its style, an item is a paragraph with its bullet, and an address stands in the open.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from itertools import dropwhile, groupby
from urllib.parse import unquote, urlsplit

from markdown_it.token import Token

from distributor.channels.wechat.tree import Element, Node, read_html, text_of
from distributor.rendering import Document, escape_text, squeeze, to_html

#: An article's column in WeChat's editor, in pixels.
COLUMN = 677
#: Links to other articles are the only ones that readers can follow.
WECHAT_HOST = "mp.weixin.qq.com"
INSET = 1.5  # em, for each level of a list
#: A quotation or code of more characters is written in several pieces, so that a cut need not lose all of it.
LONG = 3000

#: A footnote's place on its way through the sanitiser: characters that no text may hold (Unicode, section 23.7).
MARK = "\ufdd0{}\ufdd1"
MARKS = re.compile(MARK.format(r"(\d+)"))

SECTION, ITEM, PARAGRAPH = range(3)


@dataclass(frozen=True)
class Block:
    """A piece that can be left out with all that follow; `level` says what begins with it.

    `notes`: how many notes it and those before it refer to.
    """

    html: str
    text: str
    level: int
    notes: int


@dataclass(frozen=True)
class Article:
    """The blocks of a post, and the notes below them as HTML, in the order of their numbers."""

    blocks: Sequence[Block]
    notes: Sequence[str]
    has_links: bool
    has_footnotes: bool


def write_article(document: Document, cover: str, styles: Mapping[str, str], joint: str) -> Article:
    """The post's cover and body as blocks; `styles` by element, `joint` between a link's text and its address."""
    body, footnotes = _without_footnotes(document)
    writer = _Writer(styles, joint, {number: _tree(tokens) for number, tokens in footnotes.items()})
    tree = _tree(body)
    if cover and all(img.attributes.get("src") != cover for img in tree.find("img")):
        tree.children.insert(0, Element("p", {}, [Element("img", {"src": cover})]))
    blocks = list(writer.flow(tree.children, 0))
    return Article(
        blocks=blocks,
        notes=writer.written_notes(),
        has_links=any(note.address for note in writer.notes),
        has_footnotes=any(not note.address for note in writer.notes),
    )


def attribute(name: str, value: str) -> str:
    """` name="value"`, or nothing for an empty value."""
    return f' {name}="{escape(value)}"' if value else ""


# ── Markdown's footnotes ─────────────────────────────────────────────────────────────────────────────────────────


def _tree(tokens: Sequence[Token]) -> Element:
    return read_html(to_html(Document(tokens, ()), picture_width=COLUMN))


def _without_footnotes(document: Document) -> tuple[list[Token], dict[int, list[Token]]]:
    """The tokens of the body, and those of each footnote by its number; references are marks in the text."""
    body, footnotes = list[Token](), dict[int, list[Token]]()
    target: list[Token] | None = body
    for token in document.tokens:
        if token.type == "footnote_block_open":
            target = None
        elif token.type == "footnote_open":
            target = footnotes.setdefault(int(token.meta["id"]), [])
        elif token.type == "footnote_close":
            target = None
        elif target is not None:
            target.append(_marked(token))
    return body, footnotes


def _marked(token: Token) -> Token:
    return replace(token, children=[_mark(child) for child in token.children]) if token.children else token


def _mark(token: Token) -> Token:
    if token.type == "footnote_ref":
        return Token("text", "", 0, content=MARK.format(token.meta["id"]))
    return _marked(token)


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class _Note:
    """A link's address with the words it stood behind, or a footnote of Markdown's."""

    title: str = ""
    address: str = ""
    content: Element | None = None


class _Writer:
    """Walks the tree once, in reading order, and numbers the notes as they come."""

    def __init__(self, styles: Mapping[str, str], joint: str, footnotes: Mapping[int, Element]) -> None:
        self.styles, self.joint, self.footnotes = styles, joint, footnotes
        self.notes: list[_Note] = []
        self._numbers: dict[str | int, int] = {}
        self._written: dict[int, str] = {}

    def style(self, name: str, *more: str) -> str:
        return attribute("style", ";".join(filter(None, [self.styles.get(name, ""), *more])))

    def block(self, html: str, text: str, level: int = PARAGRAPH) -> Block:
        return Block(html, squeeze(MARKS.sub("", text)), level, len(self.notes))

    def reference(self, key: str | int, note: _Note) -> str:
        """The number in the text; the same one for the same address."""
        if key not in self._numbers:
            self.notes.append(note)
            number = self._numbers[key] = len(self.notes)
            # At once: the notes that a footnote refers to belong to the block that refers to it.
            self._written[number] = f"<p{self.style('note')}>[{number}] {self._note(note)}</p>"
        return f"<sup>[{self._numbers[key]}]</sup>"

    def written_notes(self) -> Sequence[str]:
        return [self._written[number] for number in sorted(self._written)]

    def _note(self, note: _Note) -> str:
        if note.content is not None:
            return " ".join(self._in_one_line(note.content.children))
        return escape_text(f"{note.title}{self.joint}{note.address}" if note.title else note.address)

    def _in_one_line(self, nodes: Sequence[Node]) -> Iterator[str]:
        """What stands in each block, without the block."""
        for is_block, some in groupby(nodes, lambda node: isinstance(node, Element) and node.tag in _BLOCKS):
            if is_block:
                yield from (line for node in some for line in self._in_one_line(_children(node)))
            elif html := self.inline(list(some)).strip():
                yield html

    # ── blocks ───────────────────────────────────────────────────────────────────────────────────────────────────

    def flow(self, nodes: Sequence[Node], inset: int) -> Iterator[Block]:
        """Block elements as they are; what stands between them is a paragraph."""
        run: list[Node] = []
        for node in nodes:
            if isinstance(node, Element) and node.tag in _BLOCKS:
                yield from self.run(run, inset)
                run = []
                yield from _BLOCKS[node.tag](self, node, inset)
            else:
                run.append(node)
        yield from self.run(run, inset)

    def run(self, nodes: Sequence[Node], inset: int, *, bullet: str = "") -> Iterator[Block]:
        pictures = _pictures_alone(nodes)
        if pictures and not bullet:
            yield from (self.figure(picture, inset) for picture in pictures)
            return
        html, text = self.inline(nodes).strip(), "".join(map(text_of, nodes))
        if html or bullet:
            name, level = ("item", ITEM) if bullet else ("p", PARAGRAPH)
            yield self.block(f"<p{self.style(name, *_inset(inset, bullet))}>{bullet}{html}</p>", text, level)

    def paragraph(self, element: Element, inset: int) -> Iterator[Block]:
        return self.flow(element.children, inset)

    def heading(self, element: Element, inset: int) -> Iterator[Block]:
        tag = _HEADINGS[element.tag]
        html = self.inline(element.children).strip()
        if html:
            yield self.block(f"<{tag}{self.style(tag, *_inset(inset))}>{html}</{tag}>", element.text, SECTION)

    def flat_list(self, element: Element, inset: int) -> Iterator[Block]:
        """Items become paragraphs: WeChat's editor takes nested lists apart and loses their bullets."""
        items = [child for child in element.children if isinstance(child, Element)]
        for item, bullet in zip(items, _bullets(element, len(items)), strict=True):
            yield from self.item(item, inset + 1, bullet)

    def item(self, element: Element, inset: int, bullet: str) -> Iterator[Block]:
        first, rest = _first_line(element.children)
        yield from self.run(first, inset, bullet=bullet)
        yield from self.flow(rest, inset)

    def quotation(self, element: Element, inset: int) -> Iterator[Block]:
        style = self.style("blockquote", *_inset_margin(inset))
        html, texts = "", list[str]()
        for block in self.flow(element.children, 0):
            html += block.html
            texts.append(block.text)
            if len(html) > LONG:
                yield self.block(f"<blockquote{style}>{html}</blockquote>", " ".join(texts))
                html, texts = "", []
        if html:
            yield self.block(f"<blockquote{style}>{html}</blockquote>", " ".join(texts))

    def code(self, element: Element, inset: int) -> Iterator[Block]:
        """Line breaks and indentation in a form that the editor keeps: `<br>` and blanks that do not break."""
        style = self.style("pre", *_inset_margin(inset))
        for lines in _pieces(element.text.strip("\n").replace("\t", "    ").split("\n")):
            html = "<br>".join(escape_text(_kept_blanks(line)) for line in lines)
            yield self.block(f"<pre{style}><code>{html}</code></pre>", "\n".join(lines))

    def rule(self, _: Element, __: int) -> Iterator[Block]:
        yield self.block(f"<hr{self.style('hr')}>", "")

    def table(self, element: Element, inset: int) -> Iterator[Block]:
        """A table wider than a phone scrolls within its own frame."""
        rows = [_cells(row) for row in element.find("tr")]
        columns = max(map(len, rows), default=0)
        written = "".join(f"<tr>{''.join(map(self.cell, row))}</tr>" for row in rows)
        wide = f"min-width:{columns * 96}px" if columns > 3 else ""
        html = f"<table{self.style('table', wide)}><tbody>{written}</tbody></table>"
        text = " ".join(text_of(cell) for row in rows for cell in row)
        yield self.block(f"<section{self.style('scroll', *_inset_margin(inset))}>{html}</section>", text)

    def cell(self, element: Element) -> str:
        align = element.attributes.get("align", "")
        style = self.style(element.tag, f"text-align:{align}" if align in {"center", "right"} else "")
        return f"<{element.tag}{style}>{self.inline(element.children).strip()}</{element.tag}>"

    def term(self, element: Element, inset: int) -> Iterator[Block]:
        return self.run([Element("strong", {}, element.children)], inset)

    def description(self, element: Element, inset: int) -> Iterator[Block]:
        return self.flow(element.children, inset + 1)

    def figure(self, picture: Element, inset: int) -> Block:
        """A picture, or a link around one, with its alternative text as the caption."""
        img = next(picture.find("img")) if picture.tag == "a" else picture
        alt = MARKS.sub("", img.attributes.get("alt", ""))
        html, caption = self.img(img), escape_text(alt)
        address = picture.attributes.get("href", "")
        if _stays_a_link(address):
            html = f"<a{attribute('href', address)}>{html}</a>"
        elif address:
            caption += self.reference(address, _Note(title=squeeze(alt), address=_plain(address)))
        if caption:
            html += f"<figcaption{self.style('figcaption')}>{caption}</figcaption>"
        return self.block(f"<figure{self.style('figure', *_inset_margin(inset))}>{html}</figure>", alt)

    # ── inside a line ────────────────────────────────────────────────────────────────────────────────────────────

    def inline(self, nodes: Sequence[Node]) -> str:
        return "".join(self.text(node) if isinstance(node, str) else self.element(node) for node in nodes)

    def text(self, text: str) -> str:
        """Escaped, with the numbers of Markdown's footnotes in their places."""
        pieces = MARKS.split(text)
        return "".join(
            self.footnote(piece) if place % 2 else escape_text(piece) for place, piece in enumerate(pieces)
        )

    def footnote(self, number: str) -> str:
        key = int(number)
        return self.reference(key, _Note(content=self.footnotes[key])) if key in self.footnotes else ""

    def element(self, element: Element) -> str:
        if element.tag == "a":
            return self.link(element)
        if element.tag == "br":
            return "<br>"
        if element.tag == "img":
            return self.img(element)
        inner = self.inline(element.children)
        if element.tag not in _INLINE:
            return f" {inner} " if element.tag in _BLOCKS or element.tag in _PARTS else inner
        tag, style = _INLINE[element.tag]
        return f"<{tag}{self.style(style)}>{inner}</{tag}>" if inner else ""

    def link(self, element: Element) -> str:
        """Followable links stay; an address that is its own text is text; all others are notes."""
        address = element.attributes.get("href", "")
        inner = self.inline(element.children)
        shown, said = _plain(address), squeeze(MARKS.sub("", element.text))
        if not address:
            return inner
        if _stays_a_link(address):
            return f"<a{attribute('href', address)}>{inner or escape_text(shown)}</a>"
        if (said in {"", shown, address} or unquote(said) == unquote(address)) and "<img" not in inner:
            return escape_text(shown)
        if address.lower().startswith("mailto:"):
            return f"{inner} ({escape_text(shown)})"
        words = f"<span{self.style('link')}>{inner}</span>" if self.styles.get("link") else inner
        return words + self.reference(address, _Note(title=said, address=shown))

    def img(self, element: Element) -> str:
        alt = MARKS.sub("", element.attributes.get("alt", ""))
        return f"<img{attribute('src', element.attributes.get('src', ''))}{attribute('alt', alt)}{self.style('img')}>"


Writing = Callable[[_Writer, Element, int], Iterator[Block]]

_BLOCKS: Mapping[str, Writing] = {
    "p": _Writer.paragraph,
    **dict.fromkeys(("h1", "h2", "h3", "h4", "h5", "h6"), _Writer.heading),
    "ul": _Writer.flat_list,
    "ol": _Writer.flat_list,
    "li": _Writer.paragraph,  # outside a list, as raw HTML may have it
    "blockquote": _Writer.quotation,
    "pre": _Writer.code,
    "hr": _Writer.rule,
    "table": _Writer.table,
    "dl": _Writer.paragraph,
    "dt": _Writer.term,
    "dd": _Writer.description,
}
#: Parts of a table, should one stand where no table may.
_PARTS = frozenset({"thead", "tbody", "tr", "th", "td"})
_HEADINGS = {"h1": "h2", "h2": "h2", "h3": "h3", "h4": "h4", "h5": "h4", "h6": "h4"}
#: The sanitiser's inline tags → the tag in the article, the name of its style.
_INLINE: Mapping[str, tuple[str, str]] = {
    "strong": ("strong", ""),
    "b": ("strong", ""),
    "em": ("em", ""),
    "i": ("em", ""),
    "u": ("u", ""),
    "s": ("s", ""),
    "del": ("s", ""),
    "sub": ("sub", ""),
    "sup": ("sup", ""),
    "small": ("small", ""),
    "code": ("code", "code"),
    "kbd": ("code", "code"),
    "mark": ("span", "mark"),
}


def _children(node: Node) -> Sequence[Node]:
    return [] if isinstance(node, str) else node.children


def _stays_a_link(address: str) -> bool:
    return (urlsplit(address).hostname or "") == WECHAT_HOST


def _plain(address: str) -> str:
    """An address as a person would write it; of a mailto: link, the bare mail address."""
    bare = re.sub(r"^mailto:", "", address, flags=re.IGNORECASE)
    return bare if bare == address else bare.partition("?")[0]


def _inset(inset: int, bullet: str = "") -> list[str]:
    """Room for the list's level; a bullet hangs into it."""
    hanging = "text-indent:-1.2em" if bullet else ""
    return [f"padding-left:{inset * INSET:g}em", hanging] if inset else []


def _inset_margin(inset: int) -> list[str]:
    return [f"margin-left:{inset * INSET:g}em"] if inset else []


def _bullets(element: Element, count: int) -> Iterator[str]:
    if element.tag == "ul":
        return iter(["• "] * count)
    start = element.attributes.get("start", "1")
    first = int(start) if re.fullmatch(r"-?\d{1,9}", start) else 1
    return (f"{number}. " for number in range(first, first + count))


def _first_line(nodes: Sequence[Node]) -> tuple[Sequence[Node], Sequence[Node]]:
    """What stands beside the bullet: the text before the first block, or the first paragraph."""
    nodes = list(dropwhile(lambda node: isinstance(node, str) and not node.strip(), nodes))
    length = next(
        (place for place, node in enumerate(nodes) if isinstance(node, Element) and node.tag in _BLOCKS),
        len(nodes),
    )
    first = nodes[0] if nodes else ""
    if length == 0 and isinstance(first, Element) and first.tag == "p":
        return first.children, nodes[1:]
    return nodes[:length], nodes[length:]


def _pictures_alone(nodes: Sequence[Node]) -> list[Element]:
    """The pictures, or links around one, when nothing else is said beside them."""
    kept = [
        node for node in nodes if text_of(node).strip() or (isinstance(node, Element) and node.tag != "br")
    ]
    pictures = [node for node in kept if isinstance(node, Element) and _is_picture(node)]
    return pictures if len(pictures) == len(kept) else []


def _is_picture(element: Element) -> bool:
    if element.tag == "img":
        return True
    inner = [child for child in element.children if not isinstance(child, str) or child.strip()]
    return element.tag == "a" and len(inner) == 1 and isinstance(inner[0], Element) and inner[0].tag == "img"


def _pieces(lines: Sequence[str]) -> Iterator[list[str]]:
    """The lines in pieces of about LONG characters; most code is one."""
    piece, length = list[str](), 0
    for line in lines:
        piece.append(line)
        length += len(line)
        if length > LONG:
            yield piece
            piece, length = [], 0
    if piece:
        yield piece


def _cells(row: Element) -> list[Element]:
    return [cell for cell in row.children if isinstance(cell, Element) and cell.tag in {"th", "td"}]


def _kept_blanks(line: str) -> str:
    """Indentation, and every second blank of a row of them, as U+00A0."""
    indented = re.sub(r"^ +", lambda blanks: "\u00a0" * len(blanks[0]), line)
    return indented.replace("  ", "\u00a0 ")
