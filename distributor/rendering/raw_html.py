"""Raw HTML inside Markdown, read as a reader would see it."""

import re
from html.parser import HTMLParser

from markdown_it.common.normalize_url import normalizeLink

from distributor.rendering.addresses import text_and_address

#: What a browser shows nothing of.
HIDDEN = frozenset({"script", "style", "iframe", "noscript", "template", "title", "object", "svg", "math"})
BREAKS = frozenset(
    (
        *("br", "hr", "p", "div", "section", "article", "header", "footer", "center", "blockquote", "pre"),
        *("h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "li", "dl", "dt", "dd", "table", "caption", "tr"),
        *("figure", "figcaption", "form", "details", "summary"),
    )
)
#: Names of HTML's elements. `<int>` and `<path>` are none: whoever writes about code means the text.
ELEMENTS = HIDDEN | frozenset(
    (
        *("a", "abbr", "acronym", "address", "article", "aside", "audio", "b", "base", "bdi", "bdo", "big"),
        *("blockquote", "body", "br", "button", "canvas", "caption", "center", "cite", "code", "col"),
        *(
            "colgroup",
            "data",
            "dd",
            "del",
            "details",
            "dfn",
            "dialog",
            "dir",
            "div",
            "dl",
            "dt",
            "em",
            "embed",
        ),
        *("fieldset", "figcaption", "figure", "font", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6"),
        *("head", "header", "hr", "html", "i", "img", "input", "ins", "kbd", "label", "legend", "li", "link"),
        *(
            "main",
            "map",
            "mark",
            "meta",
            "meter",
            "nav",
            "ol",
            "optgroup",
            "option",
            "output",
            "p",
            "picture",
        ),
        *("pre", "progress", "q", "rp", "rt", "ruby", "s", "samp", "section", "select", "small", "source"),
        *("span", "strike", "strong", "sub", "summary", "sup", "table", "tbody", "td", "textarea", "tfoot"),
        *("th", "thead", "time", "tr", "track", "tt", "u", "ul", "var", "video", "wbr"),
    )
)
#: A tag as CommonMark has it, closing or not; a comment begins otherwise.
TAG = re.compile(r"<(/?)([A-Za-z][A-Za-z0-9-]*)")


class HtmlReader(HTMLParser):
    """Raw HTML inside Markdown: its `text` (comments, scripts and styles vanish), `links` and `pictures`.

    A link's address stands behind its text, a list item behind a bullet, a block on a line of its own.
    """

    def __init__(self, html: str) -> None:
        super().__init__()
        self.pieces, self.links, self.pictures = list[str](), list[str](), list[str]()
        self.hidden = ""
        self.address, self.linked_from = "", 0
        self.feed(html)
        self.close()
        self.end_link()

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def lines(self) -> list[str]:
        """The text by lines, without white space that means nothing."""
        lines = (" ".join(line.split()) for line in self.text.split("\n"))
        return [line for line in lines if line.strip("•| ")]

    def parse_marked_section(self, i: int, report: bool = True) -> int:
        """`<![anything]` is a comment to browsers; the parser of Python 3.11 raises AssertionError."""
        return self.parse_bogus_comment(i, report)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag in HIDDEN and not self.hidden:
            self.hidden = tag
        if tag == "a" and "href" in values:
            self.begin_link((values["href"] or "").strip())
        if tag == "img":
            self.pictures.append((values.get("src") or "").strip())
            self.pieces.append(values.get("alt") or "")
        if tag in BREAKS:
            self.pieces.append("\n• " if tag == "li" else "\n")
        if tag in {"td", "th"} and self.pieces[-1:] != ["\n"]:
            self.pieces.append(" | ")

    def handle_endtag(self, tag: str) -> None:
        if tag == self.hidden:
            self.hidden = ""
        if tag == "a":
            self.end_link()
        if tag in BREAKS and tag not in {"br", "hr"}:  # those have no end, but XHTML's way of writing
            self.pieces.append("\n")

    def handle_data(self, data: str) -> None:
        if not self.hidden:
            self.pieces.append(data)

    def begin_link(self, address: str) -> None:
        self.end_link()
        self.links.append(address)
        self.address, self.linked_from = address, len(self.pieces)

    def end_link(self) -> None:
        """Writes the address of the open link, if there is one and it leads out of the page."""
        if self.address and not self.address.startswith("#"):
            text = "".join(self.pieces[self.linked_from :])
            self.pieces[self.linked_from :] = [text_and_address(text, normalizeLink(self.address))]
        self.address = ""
