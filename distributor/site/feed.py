"""A newsletter's Atom feed (RFC 4287), with the full text."""

from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from typing import NamedTuple
from urllib.parse import quote
from xml.etree.ElementTree import Element, SubElement, tostring

from distributor.errors import PostError
from distributor.model import Post
from distributor.rendering import CONTROLS, ai_label, language_of, outline, parse, to_html
from distributor.settings import Newsletter
from distributor.site.entries import Entry

ATOM = "http://www.w3.org/2005/Atom"
#: The newest; a reader that looks once a month misses nothing.
NEWEST = 30
#: Pixels, for readers that know no CSS.
PICTURE_WIDTH = 680
#: When a feed without entries changed last: it must say something, and always the same.
NEVER = datetime(1970, 1, 1, tzinfo=UTC)


class Place(NamedTuple):
    """An entry, and where its page is reached."""

    entry: Entry
    url: str


def render_feed(newsletter: Newsletter, places: Sequence[Place], *, site: str, feed: str) -> bytes:
    """`site` and `feed` are the addresses of the newsletter's index and of the feed itself."""
    newest = places[:NEWEST]
    root = Element("feed", {"xmlns": ATOM, "xml:lang": newsletter.language})
    _text(root, "id", feed)
    _text(root, "title", newsletter.title)
    _text(root, "updated", _moment(max((place.entry.updated for place in newest), default=NEVER)))
    _text(SubElement(root, "author"), "name", newsletter.sender.name)
    SubElement(root, "link", {"rel": "self", "type": "application/atom+xml", "href": feed})
    SubElement(root, "link", {"rel": "alternate", "type": "text/html", "href": site})
    for place in newest:
        _entry(SubElement(root, "entry"), newsletter, place)
    xml: bytes = tostring(root, encoding="utf-8", xml_declaration=True)
    return xml + b"\n"


def entry_id(newsletter: Newsletter, entry: Entry) -> str:
    """A tag URI (RFC 4151): the same wherever the pages are moved to, and whatever becomes of the post."""
    authority = newsletter.sender.address.rpartition("@")[2]
    return f"tag:{authority},{entry.minted}:{newsletter.slug}/{quote(entry.name)}"


def _entry(element: Element, newsletter: Newsletter, place: Place) -> None:
    entry = place.entry
    _text(element, "id", entry_id(newsletter, entry))
    _text(element, "title", entry.title)
    _text(element, "published", _moment(entry.published))
    _text(element, "updated", _moment(entry.updated))
    SubElement(element, "link", {"rel": "alternate", "type": "text/html", "href": place.url})
    if entry.post:
        _full_text(element, newsletter, entry.post)


def _full_text(element: Element, newsletter: Newsletter, post: Post) -> None:
    try:
        document = parse(post)
    except PostError:  # edited since, and broken: the page that is there still has the text
        return
    for category in post.categories:
        SubElement(element, "category", {"term": _legal(category)})
    if summary := post.description or outline(document).lead:
        _text(element, "summary", summary)
    cover = f'<p><img src="{escape(post.cover_image)}" alt=""></p>\n' if post.cover_image else ""
    label = ai_label(post, newsletter)
    told = f"<p><small>{escape(label)}</small></p>\n" if label else ""
    body = to_html(document, picture_width=PICTURE_WIDTH)
    language = {"xml:lang": language_of(post, newsletter)}
    SubElement(element, "content", {"type": "html", **language}).text = _legal(f"{cover}{told}{body}")


def _text(parent: Element, name: str, value: str) -> None:
    SubElement(parent, name).text = _legal(value)


def _legal(text: str) -> str:
    """Without the characters that XML cannot hold: one of them, and no reader would open the feed."""
    return CONTROLS.sub("", text)


def _moment(value: datetime) -> str:
    return f"{value.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
