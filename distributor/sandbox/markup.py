"""Telegram's HTML, read as tdlib's parse_html reads it (td/telegram/MessageEntity.cpp), with its error texts.

Offsets and lengths of entities are UTF-16 units, byte offsets in errors are UTF-8: both are the real API's.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

#: tag → entity type
TAGS = {
    "b": "bold",
    "strong": "bold",
    "i": "italic",
    "em": "italic",
    "u": "underline",
    "ins": "underline",
    "s": "strikethrough",
    "strike": "strikethrough",
    "del": "strikethrough",
    "tg-spoiler": "spoiler",
    "span": "spoiler",
    "a": "text_link",
    "code": "code",
    "pre": "pre",
    "blockquote": "blockquote",
    "tg-emoji": "custom_emoji",
    "tg-time": "date_time",
}
_REFERENCE = re.compile(r"&(?:(lt|gt|amp|quot)(?![A-Za-z])|#(\d{1,7})|#[xX]([0-9a-fA-F]{1,6}));?")
_NAMED = {"lt": "<", "gt": ">", "amp": "&", "quot": '"'}
_LITERAL = re.compile(r"&(?!(?:lt|gt|amp|quot);)[A-Za-z]+;")
_START = re.compile(r"<([^\s>]*)", re.ASCII)
_NAME = re.compile(r"\s*([^\s=>/\"']*)\s*", re.ASCII)
_VALUE = re.compile(r"=\s*(?:\"([^\"]*)\"|'([^']*)'|([A-Za-z0-9.-]*))", re.ASCII)
_END = re.compile(r"</([^\s>]*)\s*", re.ASCII)
_BLANK = " \t\r\n"


class MarkupError(ValueError):
    """The text is not Telegram's HTML; the words are the real API's."""


@dataclass(frozen=True)
class Entity:
    """A stretch of text with a meaning; `argument` is a link's URL, a listing's language, "expandable"."""

    type: str
    offset: int
    length: int
    argument: str = ""

    @property
    def bytes(self) -> int:
        """Its size on Telegram's own wire (TL): what ENTITIES_TOO_LONG counts."""
        strings = {"text_link", "pre"}
        extra = {"blockquote": 4, "custom_emoji": 8}.get(self.type, 0)
        return 12 + extra + (_tl_string(self.argument) if self.type in strings else 0)

    def to_json(self) -> dict[str, Any]:
        names = {"text_link": "url", "pre": "language", "custom_emoji": "custom_emoji_id"}
        kind = "expandable_blockquote" if self.argument == "expandable" else self.type
        data: dict[str, Any] = {"type": kind, "offset": self.offset, "length": self.length}
        if self.argument and self.type in names:
            data[names[self.type]] = self.argument
        return data


@dataclass
class Parsed:
    """Text without tags, its entities, and what was dropped without an error."""

    text: str
    entities: list[Entity] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def parse_html(source: str) -> Parsed:
    """Raises MarkupError."""
    reader = _Reader(source)
    position = 0
    while (start := source.find("<", position)) >= 0:
        reader.add(source[position:start])
        position = reader.close(start) if source.startswith("</", start) else reader.open(start)
    reader.add(source[position:])
    return trim(reader.finish())


def trim(parsed: Parsed) -> Parsed:
    """Without white space at both ends, as the server keeps it; entities move along."""
    lead = len(parsed.text) - len(parsed.text.lstrip(_BLANK))
    text = parsed.text.strip(_BLANK)
    size = utf16(text)
    moved = [_clip(entity, lead, size) for entity in parsed.entities]
    return Parsed(text, [entity for entity in moved if entity.length > 0], parsed.notes)


def utf16(text: str) -> int:
    return len(text) + sum(char > "\uffff" for char in text)


def entities_bytes(entities: Iterable[Entity]) -> int:
    return 8 + sum(entity.bytes for entity in entities)


def _clip(entity: Entity, lead: int, size: int) -> Entity:
    start = max(entity.offset - lead, 0)
    end = min(entity.offset + entity.length - lead, size)
    return replace(entity, offset=start, length=end - start)


def _tl_string(text: str) -> int:
    raw = len(text.encode())
    return (raw + (1 if raw < 254 else 4) + 3) // 4 * 4


@dataclass(frozen=True)
class _Open:
    tag: str
    argument: str
    offset: int
    begin: int  # in the output text


class _Reader:
    def __init__(self, source: str) -> None:
        self.source = source
        self.parts: list[str] = []
        self.offset = 0
        self.stack: list[_Open] = []
        self.entities: list[Entity] = []
        self.notes = [
            f"{name} is no reference Telegram knows and stays as it is"
            for name in sorted(set(_LITERAL.findall(source)))
        ]

    def add(self, text: str) -> None:
        decoded = _REFERENCE.sub(_character, text)
        self.parts.append(decoded)
        self.offset += utf16(decoded)

    def open(self, start: int) -> int:
        """Reads the start tag at `start`; returns where the text goes on."""
        match = _START.match(self.source, start)
        assert match is not None
        if match.end() == len(self.source):
            raise self._error("Unclosed start tag", start)
        tag = match[1].lower()
        if tag not in TAGS:
            raise self._error(f'Unsupported start tag "{tag}"', start)
        argument, end = self._attributes(tag, match.end(), start)
        if tag == "span" and argument != "spoiler":
            raise self._error('Tag "span" must have class "tg-spoiler"', start)
        self.stack.append(_Open(tag, argument, self.offset, len(self.parts)))
        return end

    def close(self, start: int) -> int:
        """Reads the end tag at `start`; returns where the text goes on."""
        if not self.stack:
            raise self._error("Unexpected end tag", start)
        match = _END.match(self.source, start)
        assert match is not None
        if self.source[match.end() : match.end() + 1] != ">":
            raise self._error("Unclosed end tag", start)
        opened = self.stack.pop()
        if match[1] and match[1].lower() != opened.tag:
            wanted = f'expected "</{opened.tag}>", found "</{match[1].lower()}>"'
            raise MarkupError(f"Unmatched end tag at byte offset {self._bytes(start)}, {wanted}")
        self._keep(opened)
        return match.end() + 1

    def finish(self) -> Parsed:
        if self.stack:
            raise MarkupError(f'Can\'t find end tag corresponding to start tag "{self.stack[-1].tag}"')
        self.entities.sort(key=lambda entity: (entity.offset, -entity.length))
        return Parsed("".join(self.parts), self.entities, self.notes)

    def _attributes(self, tag: str, position: int, start: int) -> tuple[str, int]:
        argument = ""
        while True:
            name = _NAME.match(self.source, position)
            assert name is not None
            position = name.end()
            if not name[1]:
                return argument, self._tag_end(tag, position, start)
            if self.source[position : position + 1] == "=":
                value, position = self._value(position, start)
            else:
                value = ""
            argument = _argument(tag, name[1].lower(), value) or argument

    def _tag_end(self, tag: str, position: int, start: int) -> int:
        following = self.source[position : position + 1]
        if following == ">":
            return position + 1
        if following:
            raise self._error(f'Empty attribute name in the tag "{tag}"', start)
        raise self._error(f'Unclosed start tag "{tag}"', start)

    def _value(self, position: int, start: int) -> tuple[str, int]:
        match = _VALUE.match(self.source, position)
        assert match is not None  # the bare form matches nothing, too
        following = self.source[match.end() : match.end() + 1]
        if not following:
            raise self._error("Unclosed start tag", start)
        if match[3] is None:
            return _REFERENCE.sub(_character, match[1] or match[2] or ""), match.end()
        if following in "\"'":
            raise self._error("Unclosed start tag", start)
        if following not in (*_BLANK, ">"):
            raise self._error("Unexpected end of name token", match.start(3))
        return match[3].lower(), match.end()

    def _keep(self, opened: _Open) -> None:
        length = self.offset - opened.offset
        if length == 0:
            return
        if note := self._clash(opened):
            self.notes.append(note)
        elif opened.tag == "a":
            self._keep_link(opened, length)
        elif not self._becomes_listing(opened, length):
            argument = "" if opened.tag == "span" else opened.argument
            self.entities.append(Entity(TAGS[opened.tag], opened.offset, length, argument))

    def _keep_link(self, opened: _Open, length: int) -> None:
        url = opened.argument or "".join(self.parts[opened.begin :])
        if is_link(url):
            self.entities.append(Entity("text_link", opened.offset, length, url))
        else:
            self.notes.append(f"link dropped, Telegram takes no such URL: {url[:80]}")

    def _becomes_listing(self, opened: _Open, length: int) -> bool:
        """`<pre><code class="language-x">` over the same stretch is one entity."""
        last = self.entities[-1] if self.entities else None
        if opened.tag != "pre" or last is None or last.type != "code":
            return False
        if (last.offset, last.length) != (opened.offset, length):
            return False
        self.entities[-1] = Entity("pre", opened.offset, length, last.argument)
        return True

    def _clash(self, opened: _Open) -> str:
        outer = _swallowed_by(opened.tag, [frame.tag for frame in self.stack])
        return f"<{opened.tag}> inside <{outer}> is dropped" if outer else ""

    def _error(self, text: str, position: int) -> MarkupError:
        return MarkupError(f"{text} at byte offset {self._bytes(position)}")

    def _bytes(self, position: int) -> int:
        return len(self.source[:position].encode())


def is_link(url: str) -> bool:
    """Whether Telegram makes a link of it: http, https, tg or ton, and for the web a host with a dot."""
    if re.match(r"(?!tg:|ton:)[A-Za-z][A-Za-z0-9+.-]*:(?!//|\d)", url):
        return False  # mailto:, javascript: and their like
    try:
        parts = urlsplit(
            url if re.match(r"\w+:", url) and not re.match(r"[^/]*:\d", url) else f"http://{url}"
        )
        host = parts.hostname or ""
    except ValueError:
        return False
    if parts.scheme in {"tg", "ton"}:
        return True
    return parts.scheme in {"http", "https"} and ("." in host or ":" in host) and not re.search(r"\s", url)


def _swallowed_by(tag: str, outer: Sequence[str]) -> str | None:
    if tag == "code" and list(outer[-1:]) == ["pre"]:
        return None
    plain = next((name for name in outer if name in ("pre", "code")), None)
    if plain:
        return plain
    if tag in ("code", "pre") and "a" in outer:
        return "a"
    return tag if tag in ("blockquote", "a") and tag in outer else None


def _argument(tag: str, name: str, value: str) -> str:
    if (tag, name) in (("a", "href"), ("tg-emoji", "emoji-id"), ("tg-time", "unix")):
        return value
    if (tag, name) == ("blockquote", "expandable"):
        return "expandable"
    prefix = {("code", "class"): "language-", ("span", "class"): "tg-"}.get((tag, name))
    return value.removeprefix(prefix) if prefix and value.startswith(prefix) else ""


def _character(match: re.Match[str]) -> str:
    if match[1]:
        return _NAMED[match[1]]
    code = int(match[2]) if match[2] else int(match[3], 16)
    usable = 0 < code < 0x10FFFF and not 0xD800 <= code < 0xE000
    return chr(code) if usable else match[0]
