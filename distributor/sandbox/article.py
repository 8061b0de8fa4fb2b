"""What WeChat does to an article's HTML, and what a strict reader of its rules finds in it."""

import re
from collections.abc import Callable, Collection
from html import escape
from html.parser import HTMLParser
from urllib.parse import urlsplit

REFUSED = frozenset({"script", "iframe", "form", "input", "object", "embed"})
VOID = frozenset({"br", "hr", "img"})
#: Tags that come out as nothing but their text.
DROPPED = frozenset({"style", "link", "meta", "html", "head", "body"})
KEPT_ATTRIBUTES = frozenset({"style", "src", "href", "alt", "title", "colspan", "rowspan", "data-src"})
STYLE_TRAPS = (
    (re.compile(r"\bposition\s*:", re.IGNORECASE), "`position` in a style is dropped"),
    (re.compile(r"\burl\s*\(", re.IGNORECASE), "an address in a style is dropped"),
    (re.compile(r"\bvar\s*\(", re.IGNORECASE), "a variable in a style is not resolved"),
)


class Article(HTMLParser):
    """Reads an article as the editor does: `html` is what is left, `violations` what was lost, `refused` what is not allowed.

    `is_hosted` says whether a picture's address is one of WeChat's own.
    """

    def __init__(self, html: str, is_hosted: Callable[[str], bool]) -> None:
        super().__init__(convert_charrefs=True)
        self.is_hosted = is_hosted
        self.refused: list[str] = []
        self.violations: list[str] = []
        self.pictures = 0
        self._pieces: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        if self._open:
            self._note(f"<{self._open[-1]}> is never closed")

    @property
    def html(self) -> str:
        return "".join(self._pieces)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag in REFUSED:
            self.refused.append(f"<{tag}>")
        self.refused += [f"{name}=" for name in values if name.startswith("on")]
        if tag in DROPPED:
            self._note(f"<{tag}> is dropped")
        elif self._keeps(tag, values):
            kept = "".join(
                f' {name}="{escape(value)}"' for name, value in values.items() if name in KEPT_ATTRIBUTES
            )
            self._pieces.append(f"<{tag}{kept}>")
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        if not self._open or self._open.pop() != tag:
            self._note(f"</{tag}> closes nothing, or too much")
        if tag not in DROPPED:
            self._pieces.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        if not self._open or self._open[-1] not in DROPPED | REFUSED:
            self._pieces.append(escape(data, quote=False))

    def _keeps(self, tag: str, values: dict[str, str]) -> bool:
        for name in sorted(values.keys() - KEPT_ATTRIBUTES):
            self._note(f"`{name}` of <{tag}> is dropped")
        for pattern, what in STYLE_TRAPS:
            if pattern.search(values.get("style", "")):
                self._note(what)
        if tag in {"ul", "ol"} and "li" in self._open:
            self._note("a list inside a list is taken apart")
        if tag == "a":
            self._check_link(values.get("href", ""))
        return tag != "img" or self._keeps_picture(values.get("src", ""))

    def _check_link(self, address: str) -> None:
        if urlsplit(address).hostname != "mp.weixin.qq.com":
            self._note(f"the link to {address!r} is dead")

    def _keeps_picture(self, address: str) -> bool:
        if self.is_hosted(address):
            self.pictures += 1
            return True
        self._note(f"the picture {address!r} is not WeChat's own and is dropped")
        return False

    def _note(self, what: str) -> None:
        if what not in self.violations:
            self.violations.append(what)


def visible_text(html: str) -> str:
    """The text between the tags."""
    return " ".join(re.sub(r"<[^>]*>", " ", html).split())


def picture_kind(data: bytes) -> str:
    """By its first bytes and a decoder: "JPEG", "PNG", "GIF", "BMP", or "" for anything that cannot be shown."""
    from io import BytesIO  # noqa: PLC0415 - with the decoder

    from PIL import Image  # noqa: PLC0415 - 0.1 s that only pictures need

    if not _has_magic(data, MAGIC):
        return ""
    try:
        with Image.open(BytesIO(data)) as picture:
            kind = picture.format or ""
            picture.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return ""
    return kind


MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"BM")


def _has_magic(data: bytes, magic: Collection[bytes]) -> bool:
    return any(data.startswith(one) for one in magic)
