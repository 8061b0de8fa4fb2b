"""Pictures inside a post: their addresses and sizes, in Markdown and in raw HTML; what readers may not see of them."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from itertools import accumulate
from typing import Any
from urllib.parse import urlsplit

from markdown_it.token import Token

from distributor.errors import shown_address
from distributor.model import Hosted
from distributor.rendering.raw_html import HtmlReader

Attributes = dict[str, str]
Places = Mapping[str, Hosted]


def host_picture(token: Token, places: Places) -> None:
    """Gives the token of a picture its new address, and its size in pixels as `meta`."""
    if hosted := places.get(str(token.attrs.get("src", ""))):
        token.attrs["src"] = hosted.address
        token.meta.update(width=hosted.width, height=hosted.height)


def host_html(html: str, places: Places) -> str:
    """Raw HTML with the new addresses and sizes of its pictures; a width that the author gave stays."""

    def hosted(attributes: Attributes) -> Attributes:
        place = places.get(attributes.get("src", "").strip())
        if place is None:
            return attributes
        size = place.within(_pixels(attributes, "width") or place.width or 0)
        sizes = {"width": str(size[0]), "height": str(size[1])} if size else {}
        return {**attributes, "src": place.address, **sizes}

    return change_pictures(html, hosted) if places else html


def write_picture(renderer: Any, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    """Markdown's picture as HTML, no wider than `env["picture_width"]`."""
    token, column = tokens[index], env["picture_width"]
    alt = renderer.renderInlineAsText(token.children, options, env)
    size = Hosted("", token.meta.get("width"), token.meta.get("height")).within(column)
    sizes = f'width="{size[0]}" height="{size[1]}"' if size else f'width="{column}"'
    title = f' title="{escape(str(token.attrs["title"]))}"' if token.attrs.get("title") else ""
    return f'<img src="{escape(str(token.attrs["src"]))}" alt="{escape(alt)}"{title} {sizes}>'


def write_html(_: object, tokens: Sequence[Token], index: int, __: object, env: Any) -> str:
    """Raw HTML, its pictures no wider than `env["picture_width"]`."""
    column: int = env["picture_width"]

    def fitted(attributes: Attributes) -> Attributes:
        """Width and height shrink together; a height alone would distort the picture."""
        width, height = _pixels(attributes, "width"), _pixels(attributes, "height")
        size = Hosted("", width, height).within(column)
        sizes = zip(("width", "height"), size or (min(width or column, column),), strict=False)
        kept = {name: value for name, value in attributes.items() if name not in {"width", "height"}}
        return {**kept, **{name: str(pixels) for name, pixels in sizes}}

    return change_pictures(tokens[index].content, fitted)


def _pixels(attributes: Attributes, name: str) -> int | None:
    value = attributes.get(name, "")
    return int(value) if re.fullmatch(r"[0-9]{1,5}", value) else None


def change_pictures(html: str, change: Callable[[Attributes], Attributes]) -> str:
    """The HTML with the attributes of each `<img>` changed; everything else stays letter by letter."""
    for start, end, attributes in reversed(_PictureTags(html).found):
        written = "".join(f' {name}="{escape(value)}"' for name, value in change(attributes).items())
        html = f"{html[:start]}<img{written}>{html[end:]}"
    return html


class _PictureTags(HtmlReader):
    """Where each `<img>` begins and ends, and its attributes."""

    def __init__(self, html: str) -> None:
        self.found = list[tuple[int, int, Attributes]]()
        self.line_starts = [0, *accumulate(len(line) + 1 for line in html.split("\n"))]
        super().__init__(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        super().handle_starttag(tag, attrs)
        if tag == "img":
            line, column = self.getpos()
            start = self.line_starts[line - 1] + column
            attributes = Attributes()
            for name, value in attrs:
                # of an attribute that stands there twice, browsers take the first
                attributes.setdefault(name, value or "")
            self.found.append((start, start + len(self.get_starttag_text() or ""), attributes))


REHOST = 'set [pictures] rehost = "folder"'
#: What a part of the readers does not see, by the end of the address's path, and what to do.
_DOUBTFUL: Mapping[str, str] = {
    "webp": f"Outlook shows no WebP: link a JPEG or PNG, or {REHOST}",
    "avif": f"Outlook, Yahoo and older phones show no AVIF: link a JPEG or PNG, or {REHOST}",
    "svg": "Gmail and Outlook show no SVG: export it as PNG",
}


def picture_doubts(address: str) -> Iterator[str]:
    """What readers may miss of a picture that stays where it is, and what to do."""
    parts = urlsplit(address)
    if doubt := _DOUBTFUL.get(parts.path.lower().rpartition(".")[2]):
        yield f"picture {shown_address(address)}: {doubt}"
    if parts.scheme == "http":
        reason = f"many mail programs load nothing over http://: use https://, or {REHOST}"
        yield f"picture {shown_address(address)}: {reason}"
