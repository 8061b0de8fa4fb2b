"""Raw HTML inside Markdown, read as a reader would see it."""

from collections.abc import Callable
from html import escape
from html.parser import HTMLParser
from itertools import accumulate

Attributes = dict[str, str]


class HtmlReader(HTMLParser):
    """Raw HTML inside Markdown: its `text` (comments, scripts and styles vanish), `links` and `pictures`."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.pieces, self.links, self.pictures = list[str](), list[str](), list[str]()
        self.hidden = ""
        self.feed(html)
        self.close()

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    def parse_marked_section(self, i: int, report: bool = True) -> int:
        """`<![anything]` is a comment to browsers; the parser of Python 3.11 raises AssertionError."""
        return self.parse_bogus_comment(i, report)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag in {"script", "style"}:
            self.hidden = tag
        if tag == "a" and "href" in values:
            self.links.append((values["href"] or "").strip())
        if tag == "img":
            self.pictures.append((values.get("src") or "").strip())
            self.pieces.append(values.get("alt") or "")
        if tag in {"br", "p", "div", "tr", "li"}:
            self.pieces.append("\n")

    def handle_endtag(self, tag: str) -> None:
        if tag == self.hidden:
            self.hidden = ""

    def handle_data(self, data: str) -> None:
        if not self.hidden:
            self.pieces.append(data)


def change_pictures(html: str, change: Callable[[Attributes], Attributes]) -> str:
    """The HTML with the attributes of each `<img>` changed; everything else stays letter by letter."""
    tags = _PictureTags(html)
    for start, end, attributes in reversed(tags.found):
        written = "".join(f' {name}="{escape(value)}"' for name, value in change(attributes).items())
        html = f"{html[:start]}<img{written}>{html[end:]}"
    return html


class _PictureTags(HtmlReader):
    """Where each `<img>` begins and ends, and its attributes."""

    def __init__(self, html: str) -> None:
        self.found = list[tuple[int, int, Attributes]]()
        self.lines = [0, *accumulate(len(line) + 1 for line in html.split("\n"))]
        super().__init__(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        super().handle_starttag(tag, attrs)
        if tag == "img":
            line, column = self.getpos()
            start = self.lines[line - 1] + column
            end = start + len(self.get_starttag_text() or "")
            attributes = Attributes()
            for name, value in attrs:
                attributes.setdefault(
                    name, value or ""
                )  # of one that stands there twice, browsers take the first
            self.found.append((start, end, attributes))
