"""Telegram's HTML as its server parses it, written from the rules and not from the renderer: tags, nesting, entities."""

import re
from dataclasses import dataclass, field

PLAIN_TAGS = {
    *("b", "strong", "i", "em", "u", "ins", "s", "strike", "del", "tg-spoiler"),
    *("code", "pre", "blockquote"),
}
STYLES = {"b", "strong", "i", "em", "u", "ins", "s", "strike", "del", "tg-spoiler"}
ALONE = {"code", "pre"}
ENTITIES = {"&lt;": "<", "&gt;": ">", "&amp;": "&", "&quot;": '"'}
TOKEN = re.compile(
    r"</?([a-z-]+)((?:\s+[a-z]+=\"[^\"<>]*\")*)\s*>|&(?:lt|gt|amp|quot|#\d+|#x[0-9a-f]+);|[^<&]+|.", re.DOTALL
)


class Refused(AssertionError):
    """What Telegram would answer with 400, or silently lose."""


@dataclass
class Parsed:
    """Visible text and the entities in it: (tag, offset and end in characters)."""

    text: str = ""
    entities: list[tuple[str, int, int]] = field(default_factory=list)
    links: list[str] = field(default_factory=list)

    @property
    def units(self) -> int:
        return len(self.text.encode("utf-16-le")) // 2


def parse_html(html: str) -> Parsed:
    """Raises Refused for what the server does not take, and for nesting that loses an entity."""
    found, stack = Parsed(), list[tuple[str, int]]()
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
    return found


def check(html: str) -> Parsed:
    """Parses one part and holds it against the limits of a message."""
    found = parse_html(html)
    limits = {
        "UTF-16 units": (found.units, 4096),
        "entities": (len(found.entities), 100),
        "bytes": (len(html.encode()), 9500),
    }
    for name, (value, limit) in limits.items():
        if value > limit:
            raise Refused(f"{value} {name}, at most {limit}")
    if not found.text.strip():
        raise Refused("text must be non-empty")
    return found


def _decoded(token: str) -> str:
    if token in ENTITIES:
        return ENTITIES[token]
    return chr(int(token[3:-1], 16) if token.startswith("&#x") else int(token[2:-1]))


def _open(tag: str, attributes: str, stack: list[tuple[str, int]], found: Parsed) -> None:
    outer = [name for name, _ in stack]
    language = (
        tag == "code" and outer[-1:] == ["pre"] and re.fullmatch(r' class="language-[^"]+"', attributes)
    )
    if tag == "a":
        address = re.fullmatch(r' href="([^"]+)"', attributes)
        if not address:
            raise Refused(f"<a{attributes}>")
        found.links.append(re.sub(r"&\w+;", lambda entity: ENTITIES[entity[0]], address[1]))
    elif tag not in PLAIN_TAGS or (attributes and not language):
        raise Refused(f"Unsupported start tag <{tag}{attributes}>")
    if not language:
        _check_nesting(tag, outer)
    stack.append(("" if language else tag, len(found.text)))


def _check_nesting(tag: str, outer: list[str]) -> None:
    if ALONE & set(outer):
        raise Refused(f"<{tag}> inside {outer}")
    if tag in ALONE and (STYLES | {"a"}) & set(outer):
        raise Refused(f"<{tag}> inside {outer}")
    if tag in outer:
        raise Refused(f"<{tag}> inside itself")
    if tag == "blockquote" and "a" in outer:
        raise Refused("a quotation inside a link")


def _close(tag: str, stack: list[tuple[str, int]], found: Parsed) -> None:
    if not stack or (stack[-1][0] or "code") != tag:
        raise Refused(f"</{tag}> closes nothing; open: {stack}")
    name, start = stack.pop()
    if name and found.text[start:].strip():
        found.entities.append((name, start, len(found.text)))
