"""The HTML of Telegram's rich messages, held against the rules of InputRichMessage (Bot API 10.1).

Source: Bot API, "Rich HTML style" and the limits beside it. The words of the refusals are ours.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from html import unescape
from html.parser import HTMLParser

CHARACTERS, BLOCKS, DEPTH, MEDIA, COLUMNS = 32_768, 500, 16, 50, 20

INLINE = frozenset(
    (
        *("b", "strong", "i", "em", "u", "ins", "s", "strike", "del", "code", "mark", "sub", "sup"),
        *("a", "tg-spoiler", "tg-reference", "tg-emoji", "tg-time", "tg-math", "cite"),
    )
)
#: What counts as a block; those in LEAVES hold text alone.
CONTAINERS = frozenset(
    {"ul", "ol", "li", "blockquote", "details", "table", "tr", "figure", "tg-collage", "tg-slideshow"}
)
LEAVES = frozenset(
    {"p", "h1", "h2", "h3", "h4", "h5", "h6", "pre", "footer", "aside", "tg-math-block", "td", "th"}
    | {"summary", "figcaption", "caption"}
)
UNCOUNTED = frozenset({"td", "th", "summary", "figcaption", "caption"})
MEDIA_TAGS = frozenset({"img", "video", "audio"})
VOID = frozenset({"br", "hr", "img", "input", "tg-map"})
KNOWN = INLINE | CONTAINERS | LEAVES | MEDIA_TAGS | VOID
#: child → what it stands in
PARENTS: Mapping[str, frozenset[str]] = {
    "li": frozenset({"ul", "ol"}),
    "tr": frozenset({"table"}),
    "td": frozenset({"tr"}),
    "th": frozenset({"tr"}),
    "figcaption": frozenset({"figure", "tg-collage", "tg-slideshow"}),
    "summary": frozenset({"details"}),
    "caption": frozenset({"table"}),
    "input": frozenset({"li"}),
}
REFERENCES = frozenset(
    (
        "lt",
        "gt",
        "amp",
        "quot",
        "apos",
        "nbsp",
        "hellip",
        "mdash",
        "ndash",
        "lsquo",
        "rsquo",
        "ldquo",
        "rdquo",
    )
)


class RichError(ValueError):
    """The text is no rich message."""


@dataclass
class Rich:
    """What a rich message holds: its text, a line a block, and how much it has of what is limited."""

    text: str
    blocks: int
    media: int


def parse_rich(source: str) -> Rich:
    """Raises RichError."""
    reader = _Reader()
    reader.feed(source)
    reader.close()
    return reader.finish()


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=False)
        self.stack: list[str] = []
        self.pieces: list[str] = []
        self.blocks = self.media = self.columns = 0

    def finish(self) -> Rich:
        if self.stack:
            raise RichError(f"<{self.stack[-1]}> is never closed")
        text = "".join(self.pieces).strip()
        if not text and not self.media:
            raise RichError("it is empty")
        _within("characters", len(text), CHARACTERS)
        _within("blocks", self.blocks, BLOCKS)
        _within("media", self.media, MEDIA)
        return Rich(text, self.blocks, self.media)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in KNOWN:
            raise RichError(f"unsupported tag <{tag}>")
        self._check_place(tag)
        if tag in MEDIA_TAGS:
            self._count_media(dict(attrs).get("src") or "")
        self._count(tag)
        if tag not in VOID:
            self.stack.append(tag)
            _within("levels", sum(one in CONTAINERS | LEAVES for one in self.stack), DEPTH)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.stack.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID or not self.stack or self.stack[-1] != tag:
            raise RichError(f"</{tag}> closes nothing")
        self.stack.pop()
        if tag in LEAVES | {"li"}:
            self.pieces.append("\n")

    def handle_data(self, data: str) -> None:
        self.pieces.append(data)

    def handle_charref(self, name: str) -> None:
        number = int(name[1:], 16) if name[:1] in "xX" else int(name)
        self.pieces.append(chr(number))

    def handle_entityref(self, name: str) -> None:
        if name not in REFERENCES:
            raise RichError(f"unknown reference &{name};")
        self.pieces.append(unescape(f"&{name};"))

    def _check_place(self, tag: str) -> None:
        parent = self.stack[-1] if self.stack else ""
        if tag in PARENTS and parent not in PARENTS[tag]:
            raise RichError(f"<{tag}> inside <{parent}>")
        block = tag not in INLINE | {"br", "input"}
        if block and tag not in PARENTS and any(one in LEAVES | INLINE for one in self.stack):
            raise RichError(f"<{tag}> is a block of its own, not inside <{parent}>")

    def _count(self, tag: str) -> None:
        if tag == "br":
            self.pieces.append("\n")
        if tag == "tr":
            self.columns = 0
        if tag in {"td", "th"}:
            self.columns += 1
            _within("columns", self.columns, COLUMNS)
        if tag in (CONTAINERS | LEAVES | {"hr"}) - UNCOUNTED:
            self.blocks += 1

    def _count_media(self, source: str) -> None:
        if not source.startswith(("https://", "http://")):
            raise RichError("media have http and https addresses")
        self.media += 1


def _within(what: str, count: int, limit: int) -> None:
    if count > limit:
        raise RichError(f"{count} {what}, at most {limit}")
