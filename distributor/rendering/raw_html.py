"""Raw HTML inside Markdown, read as a reader would see it."""

from html.parser import HTMLParser


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
