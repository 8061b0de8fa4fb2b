"""A post as a WeCom group message: a digest of the digest, in each of the three dialects a robot speaks.

Title and date, one line of lead, one line an item, the address of the full text. What does not fit is left out in this
order: the items' bodies, the links of the lower items, the lower items ("…… N items in all"). Limits are in UTF-8 bytes.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from distributor.model import Message, Post
from distributor.rendering import (
    WORDING,
    Item,
    cut,
    first_sentence,
    headline,
    language_of,
    local_day,
    outline,
    parse,
    squeeze,
    utf8_bytes,
    web_address,
)
from distributor.settings import Newsletter

MOST_ITEMS = 10
# Bytes, so that the shortest form of a digest always fits.
TITLE, LEAD, ITEM_TITLE, ITEM_BODY, ADDRESS = 240, 360, 150, 300, 512


@dataclass(frozen=True, kw_only=True)
class Digest:
    """What a short message says; texts are raw, each dialect escapes for itself."""

    title: str
    date: str
    lead: str
    items: Sequence[Item]
    more: str
    full_text: str
    address: str


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """One of a robot's message types: its limit, the key of its content, and how things are written in it."""

    key: str
    limit: int
    escape: Callable[[str], str]
    link: Callable[[str, str], str]
    title: str
    date: str
    lead: str
    bare: bool = False  # addresses stand in the open, at the end of the line


def _markdown_escape(text: str) -> str:
    """WeCom knows no backslash escape: what would be markup is replaced by its full-width twin."""
    twins = str.maketrans("[]<>*`|", "【】＜＞＊＇｜")
    return re.sub(r"^[#>\-+~=\s]+", "", text).translate(twins)


def _markdown_link(text: str, address: str) -> str:
    return f"[{text}]({address.replace('(', '%28').replace(')', '%29')})"


DIALECTS: Mapping[str, Dialect] = {
    "markdown_v2": Dialect(
        key="markdown",
        limit=4096,
        escape=_markdown_escape,
        link=_markdown_link,
        title="# {}",
        date="*{}*",
        lead="> {}",
    ),
    "markdown": Dialect(
        key="markdown",
        limit=4096,
        escape=_markdown_escape,
        link=_markdown_link,
        title="# {}",
        date='<font color="comment">{}</font>',
        lead="> {}",
    ),
    "text": Dialect(
        key="text",
        limit=2048,
        escape=str,
        link=lambda text, address: f"{text} {address}",
        title="{}",
        date="{}",
        lead="{}",
        bare=True,
    ),
}


def render_wecom(post: Post, newsletter: Newsletter) -> list[Message]:
    """One message a dialect, each within its limit. Raises PostError."""
    document = parse(post)
    address = web_address(post, newsletter) or ""
    warnings = [*document.warnings, *_address_warnings(post, address)]
    wording = WORDING[language_of(post, newsletter)]
    skeleton, day = outline(document), local_day(post, newsletter)
    lead = cut(squeeze(post.description or first_sentence(skeleton.lead)), LEAD, utf8_bytes)
    digest = Digest(
        title=cut(headline(post), TITLE, utf8_bytes),
        date=wording.date(day) if day else "",
        lead=lead,
        items=[_shortened(item, lead) for item in skeleton.items],
        more=wording.items_in_all.format(count=len(skeleton.items)),
        full_text=wording.read_on_web,
        address=address if utf8_bytes(address) <= ADDRESS else "",
    )
    return [
        Message(
            channel="wecom",
            variant=variant,
            content={dialect.key: fit(digest, dialect, wording.joint)},
            warnings=warnings,
        )
        for variant, dialect in DIALECTS.items()
    ]


def fit(digest: Digest, dialect: Dialect, joint: str) -> str:
    """The fullest form of the digest within the dialect's limit."""
    forms = (_written(form, dialect, joint) for form in _shorter_forms(digest))
    return next(text for text in forms if utf8_bytes(text) <= dialect.limit)


def _shorter_forms(digest: Digest) -> Iterator[Digest]:
    """From full to bare. The last form has a title, a lead and an address, and fits every dialect."""
    full = digest.items[:MOST_ITEMS]
    count = len(full)
    kept = replace(digest, items=full, more=digest.more if len(digest.items) > count else "")
    yield kept
    titles = [replace(item, body="") for item in full]
    for linked in range(count, -1, -1):
        yield replace(kept, items=_links_of_first(titles, linked))
    for length in range(count - 1, -1, -1):
        yield replace(digest, items=_links_of_first(titles[:length], 0))


def _links_of_first(items: Sequence[Item], count: int) -> list[Item]:
    return [*items[:count], *(replace(item, links=()) for item in items[count:])]


def _shortened(item: Item, lead: str) -> Item:
    """The item in one line; its body only when the lead has not said it already."""
    body = cut(first_sentence(item.body), ITEM_BODY, utf8_bytes)
    return Item(
        title=cut(item.title, ITEM_TITLE, utf8_bytes),
        body="" if body == lead else body,
        links=[link for link in item.links if link.startswith("http") and utf8_bytes(link) <= ADDRESS],
    )


def _written(digest: Digest, dialect: Dialect, joint: str) -> str:
    lines = [_line(item, number, dialect, joint) for number, item in enumerate(digest.items, 1)]
    head = [
        dialect.title.format(dialect.escape(digest.title)),
        *([dialect.date.format(digest.date)] if digest.date else []),
    ]
    blocks = [
        "\n".join(head),
        dialect.lead.format(dialect.escape(digest.lead)) if digest.lead else "",
        "\n".join([*lines, *([digest.more] if digest.more else [])]),
        _full_text(digest, dialect, joint),
    ]
    return "\n\n".join(block for block in blocks if block)


def _line(item: Item, number: int, dialect: Dialect, joint: str) -> str:
    title = dialect.escape(item.title)
    body = f"{joint}{dialect.escape(item.body)}" if item.body else ""
    if not item.links:
        return f"{number}. {title}{body}"
    if dialect.bare:
        return f"{number}. {dialect.link(title + body, item.links[0])}"
    return f"{number}. {dialect.link(title, item.links[0])}{body}"


def _full_text(digest: Digest, dialect: Dialect, joint: str) -> str:
    if not digest.address:
        return ""
    if dialect.bare:
        return f"{digest.full_text}{joint}{digest.address}"
    return dialect.link(digest.full_text, digest.address)


def _address_warnings(post: Post, address: str) -> list[str]:
    if not address:
        return [f"{post.path}: no address for the full text: set `url` or `url_pattern`"]
    if utf8_bytes(address) > ADDRESS:
        return [f"{post.path}: the address of the full text is longer than {ADDRESS} bytes and is left out"]
    return []
