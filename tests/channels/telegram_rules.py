"""Telegram's HTML as its server parses it, written from the rules and not from the renderer.

Sources: Bot API, "HTML style" and MessageEntity; tdlib/td MessageEntity.cpp. What the server would drop or change without
a word is refused here as well: nesting, white space at an entity's ends, empty entities, links it takes for none.
"""

import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from urllib.parse import urlsplit

STYLES = {
    **dict.fromkeys(("b", "strong"), "bold"),
    **dict.fromkeys(("i", "em"), "italic"),
    **dict.fromkeys(("u", "ins"), "underline"),
    **dict.fromkeys(("s", "strike", "del"), "strikethrough"),
    "tg-spoiler": "spoiler",
}
TYPES = {**STYLES, "a": "text_link", "code": "code", "pre": "pre", "blockquote": "blockquote"}
ALONE = {"code", "pre"}
ENTITIES = {"&lt;": "<", "&gt;": ">", "&amp;": "&", "&quot;": '"'}
TOKEN = re.compile(
    r"</?([a-z-]+)((?:\s+[a-z]+(?:=\"[^\"<>]*\")?)*)\s*>|&(?:lt|gt|amp|quot|#\d+|#x[0-9a-f]+);|[^<&]+|.",
    re.DOTALL,
)
#: What clients and server find in plain text by themselves; each is an entity too.
FOUND = re.compile(
    r"(?:https?|ftp|tg|ton)://\S+"
    r"|(?<![\w.])[\w.+-]+@[\w-]+(?:\.[\w-]+)+"
    r"|(?<![\w/@])@\w{3,32}\b"
    r"|(?<![\w&])#\w*[^\W\d]\w*"
    r"|(?<![\w/<])/[A-Za-z0-9_]{1,64}\b"
    r"|(?<![\w$])\$[A-Z]{1,8}\b"
    r"|(?<![\w@.])(?:[\w-]+\.)+[a-z]{2,24}\b(?:/\S*)?"
    r"|\b(?:\d{1,3}\.){3}\d{1,3}\b"
)
LONGEST, MOST_ENTITIES, MOST_BYTES = 4096, 100, 9500
BLANK = " \t\r\n"


class Refused(AssertionError):
    """What Telegram would answer with 400, or silently lose."""


@dataclass(frozen=True, order=True)
class Entity:
    """Offset and length in UTF-16 units; `argument` is a link's address, a listing's language."""

    offset: int
    length: int
    type: str
    argument: str = ""

    @property
    def bytes(self) -> int:
        """On Telegram's own wire (TL): three numbers, and a string with its length, padded to four."""
        raw = len(self.argument.encode())
        return 12 + ((raw + (1 if raw < 254 else 4) + 3) // 4 * 4 if self.argument else 0)


@dataclass
class Parsed:
    """Visible text and the entities in it; `tags` are the opened ones, in order."""

    text: str = ""
    entities: list[Entity] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    quiet: list[tuple[int, int]] = field(default_factory=list)  # characters in which nothing is found

    @property
    def units(self) -> int:
        return utf16(self.text)

    @property
    def tags(self) -> list[str]:
        return sorted(entity.type for entity in self.entities)

    @property
    def found(self) -> list[str]:
        """What the server links by itself."""
        text = self.text
        for start, end in self.quiet:
            text = f"{text[:start]}{chr(10) * (end - start)}{text[end:]}"
        return FOUND.findall(text)


@dataclass(frozen=True)
class _Open:
    tag: str
    start: int
    argument: str = ""


def utf16(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


def parse_html(html: str) -> Parsed:
    """Raises Refused for what the server does not take, and for what it would lose."""
    found, stack = Parsed(), list[_Open]()
    for match in TOKEN.finditer(html):
        token = match[0]
        if token in {"<", "&"}:
            raise Refused(f"a bare {token!r} at {html[match.start() : match.start() + 40]!r}")
        if token.startswith("</"):
            _close(match[1], stack, found)
        elif token.startswith("<"):
            _open(match[1], match[2] or "", stack, found)
        elif token.startswith("&"):
            found.text += _decoded(token)
        else:
            found.text += token
    if stack:
        raise Refused(f"never closed: {stack}")
    if found.text != found.text.strip(BLANK):
        raise Refused(f"white space at an end of the message: {found.text[:20]!r} … {found.text[-20:]!r}")
    return found


def check(html: str) -> Parsed:
    """Parses one part and holds it against the limits of a message."""
    found = parse_html(html)
    limits = {
        "UTF-16 units": (found.units, LONGEST),
        "entities": (len(found.entities) + len(found.found), MOST_ENTITIES),
        "bytes of entities": (sum(entity.bytes for entity in found.entities), MOST_BYTES),
    }
    for name, (value, limit) in limits.items():
        if value > limit:
            raise Refused(f"{value} {name}, at most {limit}")
    if not found.text.strip():
        raise Refused("text must be non-empty")
    return found


def from_json(entities: str) -> list[Entity]:
    """Entities as a client sends them instead of a parse mode, sorted."""
    return sorted(
        Entity(one["offset"], one["length"], one["type"], one.get("url") or one.get("language") or "")
        for one in json.loads(entities)
    )


def check_forms(html: str, plain: str, entities: str) -> Parsed:
    """Both forms of a part say the same."""
    found = check(html)
    if found.text != plain:
        raise Refused(f"the texts differ: {found.text[:200]!r} {plain[:200]!r}")
    if sorted(found.entities) != from_json(entities):
        raise Refused(f"the entities differ: {sorted(found.entities)} {from_json(entities)}")
    return found


def check_seams(texts: Sequence[str]) -> None:
    """No part begins with what belongs to the character before it, or ends inside an emoji or a flag."""
    for text in texts:
        first, last = text[0], text[-1]
        joins = unicodedata.category(first) in {"Mn", "Mc", "Me"} or first == "\u200d"
        if joins or "\U0001f3fb" <= first <= "\U0001f3ff" or "\U000e0020" <= first <= "\U000e007f":
            raise Refused(f"begins inside a character: {text[:8]!r}")
        if last == "\u200d":
            raise Refused(f"ends inside a character: {text[-8:]!r}")
    for before, after in pairwise(texts):
        flags = re.search("[\U0001f1e6-\U0001f1ff]*$", before)
        if flags and len(flags[0]) % 2 and re.match("[\U0001f1e6-\U0001f1ff]", after):
            raise Refused(f"a flag is cut: {before[-4:]!r} {after[:4]!r}")


def is_subsequence(wanted: str, text: str) -> str:
    """Empty when `wanted` can be read in `text` from left to right, else the rest that cannot."""
    place = 0
    for index, character in enumerate(wanted):
        place = text.find(character, place) + 1
        if not place:
            return wanted[max(index - 20, 0) : index + 40]
    return ""


def letters(text: str) -> str:
    """What must not be lost: letters and digits, small ones (²) as the others."""
    return "".join(one for one in unicodedata.normalize("NFKC", text) if one.isalnum())


def _decoded(token: str) -> str:
    if token in ENTITIES:
        return ENTITIES[token]
    return chr(int(token[3:-1], 16) if token.startswith("&#x") else int(token[2:-1]))


def _unescape(text: str) -> str:
    return re.sub(r"&[^;]*;", lambda entity: _decoded(entity[0]), text)


def _open(tag: str, attributes: str, stack: list[_Open], found: Parsed) -> None:
    outer = [one.tag for one in stack]
    language = re.fullmatch(r' class="language-([^"]+)"', attributes)
    if tag == "code" and language and outer[-1:] == ["pre"] and stack[-1].start == len(found.text):
        stack.append(_Open("", len(found.text), language[1]))
        return
    argument = ""
    if tag == "a":
        address = re.fullmatch(r' href="([^"]+)"', attributes)
        argument = _unescape(address[1]) if address else ""
        _check_address(argument, attributes)
    elif tag not in TYPES or attributes:
        raise Refused(f"Unsupported start tag <{tag}{attributes}>")
    _check_nesting(tag, outer)
    stack.append(_Open(tag, len(found.text), argument))


def _check_address(address: str, attributes: str) -> None:
    try:
        parts = urlsplit(address)
        host = parts.hostname or ""
    except ValueError:
        raise Refused(f"<a{attributes}>") from None
    placeholder = re.fullmatch(r"__PART_\d+_ADDRESS__", address)
    if not placeholder and (
        parts.scheme not in {"http", "https"} or not re.search(r"[.:]", host) or " " in address
    ):
        raise Refused(f"no link for Telegram: <a{attributes}>")


def _check_nesting(tag: str, outer: Iterable[str]) -> None:
    inside = set(outer)
    if ALONE & inside:
        raise Refused(f"<{tag}> inside {inside}")
    if tag in ALONE and inside - {"blockquote"}:
        raise Refused(f"<{tag}> inside {inside}")
    if tag == "pre" and inside:
        raise Refused("a listing inside a quotation")
    if tag in inside or ({STYLES.get(tag)} - {None}) & {STYLES.get(one) for one in inside}:
        raise Refused(f"<{tag}> inside itself")
    if tag == "blockquote" and "a" in inside:
        raise Refused("a quotation inside a link")


def _close(tag: str, stack: list[_Open], found: Parsed) -> None:
    if not stack or (stack[-1].tag or "code") != tag:
        raise Refused(f"</{tag}> closes nothing; open: {stack}")
    opened = stack.pop()
    text = found.text[opened.start :]
    if not opened.tag:
        stack[-1] = _Open("pre", stack[-1].start, opened.argument)
        return
    if not text.strip(BLANK):
        raise Refused(f"<{tag}> holds nothing")
    if text.strip("\n" if tag == "pre" else BLANK) != text:
        raise Refused(f"white space at an end of <{tag}>: {text[:20]!r} … {text[-20:]!r}")
    found.entities.append(Entity(utf16(found.text[: opened.start]), utf16(text), TYPES[tag], opened.argument))
    if tag == "a":
        found.links.append(opened.argument)
    if tag in {"a", *ALONE}:
        found.quiet.append((opened.start, len(found.text)))
