"""A digest of the digest: title and date, a line of lead, a line an item, the address of the full text.

What does not fit is left out in this order: the bodies of items from the last one up, the headings, the links of items
from the last one up, the last items ("…… N items in all"). Limits are in UTF-8 bytes, as the dialect writes them.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from distributor.channels.wecom.dialects import Dialect, shown_address
from distributor.model import Post
from distributor.rendering import (
    WORDING,
    Item,
    Outline,
    Section,
    ai_label,
    cut_text,
    description,
    first_sentence,
    headline,
    is_web,
    language_of,
    local_day,
    longest_prefix,
    squeeze,
    utf8_bytes,
    web_address,
)
from distributor.settings import Newsletter

#: More would not be read in a chat.
MOST_ITEMS = 10
#: A digest that was asked to come in parts still is one: a robot sends twenty messages a minute, to all its readers.
MOST_PARTS = 8
# Bytes, so that the shortest form of a digest always fits, and an item always fits into a part.
TITLE, LEAD, HEADING, ITEM_TITLE, ITEM_BODY, ADDRESS = 240, 360, 90, 150, 300, 512
#: For " (8/8)".
MARK = 8
_HOST = re.compile(r"https?://(?:[^/?#\s]*@)?([\w.-]+)")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """An item as a line; `begins` a section, below `heading` when it has one. All texts are escaped."""

    title: str
    body: str
    address: str
    heading: str = ""
    begins: bool = False


@dataclass(frozen=True, kw_only=True)
class Digest:
    """What a short message says, in one dialect; `total` is how many items the post has, `in_all` says it."""

    dialect: Dialect
    title: str
    date: str
    lead: str
    entries: Sequence[Entry]
    total: int
    in_all: str
    foot: Sequence[str]
    joint: str


@dataclass(frozen=True)
class Form:
    """How much of a digest is written: that many items, links and bodies of the first ones, and the headings."""

    items: int
    links: int
    bodies: int
    headings: bool


def digest_of(
    post: Post, skeleton: Outline, newsletter: Newsletter, dialect: Dialect, most: int | None = MOST_ITEMS
) -> Digest:
    """The post's digest in a dialect, with its first `most` items (None: all)."""
    wording = WORDING[language_of(post, newsletter)]
    day, label = local_day(post, newsletter), ai_label(post, newsletter)
    lead = _short(description(post) or first_sentence(skeleton.introduction), LEAD, dialect)
    address = usable_address(web_address(post, newsletter) or "")
    return Digest(
        dialect=dialect,
        title=_short(headline(post), TITLE, dialect),
        date=dialect.date.format(wording.date(day)) if day else "",
        lead=dialect.lead.format(lead) if lead else "",
        entries=list(islice(_entries(skeleton, dialect, lead), most)),
        total=len(skeleton.items),
        in_all=wording.items_in_all.format(count=len(skeleton.items)),
        foot=[
            _full_text(wording.read_on_web, address, dialect, wording.joint),
            dialect.label.format(label) if label else "",
        ],
        joint=wording.joint,
    )


def usable_address(address: str) -> str:
    """The address, or nothing when it is too long for a short message."""
    return address if utf8_bytes(shown_address(address)) <= ADDRESS else ""


def fit(digest: Digest) -> str:
    """The fullest form of the digest that its dialect takes in one message."""
    limit = digest.dialect.limit
    forms = _forms(len(digest.entries))
    return _written(digest, _fullest(forms, lambda form: utf8_bytes(_written(digest, form)) <= limit))


def split(digest: Digest) -> Sequence[str]:
    """Every item, in as many messages as that takes; shortened only when these were more than MOST_PARTS."""
    forms = _forms(len(digest.entries))
    form = _fullest(forms, lambda form: len(_packed(digest, form)) <= MOST_PARTS)
    parts = _packed(digest, form)
    return [_part(digest, lines, number, len(parts)) for number, lines in enumerate(parts, 1)]


def _forms(count: int) -> Sequence[Form]:
    """From full to bare; the last one has a title, a lead and an address, and always fits."""
    return [
        *(Form(count, count, bodies, headings=True) for bodies in range(count, -1, -1)),
        *(Form(count, links, 0, headings=False) for links in range(count, -1, -1)),
        *(Form(items, 0, 0, headings=False) for items in range(count - 1, -1, -1)),
    ]


def _fullest(forms: Sequence[Form], fits: Callable[[Form], bool]) -> Form:
    """The first that fits. They get shorter and shorter, so it is looked for by halves; the last one is taken at last."""
    last = len(forms) - 1
    return forms[last - longest_prefix(last, lambda back: fits(forms[last - back]))]


def _entries(skeleton: Outline, dialect: Dialect, lead: str) -> Iterator[Entry]:
    sections = [section for section in skeleton.sections if section.items]
    sections = sections or [Section(heading="", items=skeleton.items)]
    headed = sum(bool(section.heading) for section in sections)
    # Headings help when they gather: one alone, or one above each item, would only be more to read.
    with_headings = headed >= 2 and 2 * headed <= len(skeleton.items)
    for section in sections:
        heading = _short(section.heading, HEADING, dialect) if with_headings else ""
        for number, item in enumerate(section.items):
            entry = _entry(item, dialect, lead)
            begins = with_headings and number == 0
            yield replace(entry, heading=heading if begins else "", begins=begins)


def _entry(item: Item, dialect: Dialect, lead: str) -> Entry:
    """The item on one line; its body only when the lead has not said it already."""
    body = _short(first_sentence(item.body).rstrip("；;"), ITEM_BODY, dialect)
    body = "" if body == lead else body
    addresses = [address for link in item.links if is_web(link) and (address := usable_address(link))]
    title = _short(item.title, ITEM_TITLE, dialect)
    if not title:  # a long address, of which no part means anything
        title, body = body or dialect.escape(_host(item)), ""
    return Entry(title=title, body=body, address=addresses[0] if addresses else "")


def _host(item: Item) -> str:
    return next((found[1] for text in (*item.links, item.title) if (found := _HOST.match(text))), "…")


def _short(text: str, limit: int, dialect: Dialect) -> str:
    """On one line, escaped, and then at most `limit` bytes long."""
    return dialect.escape(cut_text(squeeze(text), limit, lambda part: utf8_bytes(dialect.escape(part))))


def _full_text(words: str, address: str, dialect: Dialect, joint: str) -> str:
    if not address:
        return ""
    return f"{words}{joint}{address}" if dialect.bare else dialect.link(words, address)


def _written(digest: Digest, form: Form) -> str:
    return _part(digest, _lines(digest, form), 1, 1)


def _part(digest: Digest, lines: Sequence[str], number: int, parts: int) -> str:
    mark = f" ({number}/{parts})" if parts > 1 else ""
    first, last = number == 1, number == parts
    blocks = [
        [digest.dialect.title.format(digest.title + mark), digest.date if first else ""],
        [digest.lead if first else ""],
        ["\n".join(lines).strip("\n")],
        digest.foot if last else [],
    ]
    return "\n\n".join(text for block in blocks if (text := "\n".join(filter(None, block))))


def _lines(digest: Digest, form: Form) -> list[str]:
    """One an item, its section's heading above it; last, how many there are in all."""
    lines = [_line(digest, form, number) for number in range(form.items)]
    return [*lines, *([digest.in_all] if form.items < digest.total else [])]


def _line(digest: Digest, form: Form, index: int) -> str:
    entry, dialect = digest.entries[index], digest.dialect
    above = f"\n{dialect.heading.format(entry.heading)}\n" if entry.heading else "\n" if entry.begins else ""
    body = _after(entry.title, digest.joint) + entry.body if entry.body and index < form.bodies else ""
    address = entry.address if index < form.links else ""
    text = _linked(entry.title, body, address, dialect)
    return f"{above if form.headings else ''}{dialect.number.format(index + 1)}{text}"


def _after(title: str, joint: str) -> str:
    """What stands between a title and its body: no second colon, and none behind a question."""
    if title.endswith(("？", "！", "?", "!", "…")):
        return " "
    return {"：": "——", ": ": " – "}.get(joint, joint) if joint in title else joint


def _linked(title: str, body: str, address: str, dialect: Dialect) -> str:
    if not address:
        return title + body
    return dialect.link(title + body, address) if dialect.bare else dialect.link(title, address) + body


def _packed(digest: Digest, form: Form) -> Sequence[Sequence[str]]:
    """The lines by parts, each full: none is broken, and each part has room for what the first and the last have more."""
    room = digest.dialect.limit - utf8_bytes(_part(digest, [], 1, 1)) - MARK - len("\n\n")
    parts: list[list[str]] = [[]]
    left = room
    for line in _lines(digest, form):
        size = utf8_bytes(line) + 1
        if parts[-1] and size > left:
            parts.append([])
            left = room
        parts[-1].append(line)
        left -= size
    return parts
