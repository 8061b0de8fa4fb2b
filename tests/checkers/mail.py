"""A mail on the wire: MIME that parses back, clean headers, HTML that every client may show, text that says the same."""

import re
from collections.abc import Iterator
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import default
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

from .compare import leftovers, links_not_in_text, lost_links, lost_text, shown_secrets
from .dom import Page
from .plain import check_plain
from .rendering import Rendering, Report
from .source import INVISIBLE, Source

LINE = 998  # RFC 5322 §2.1.1, without CRLF
CLIPPED = 100_000  # bytes of HTML: Gmail clips a little above
#: A post that has so few characters, with those of its addresses, never needs a teaser.
SURELY_FITS = 15_000

ONCE = (
    "From",
    "To",
    "Subject",
    "Date",
    "Message-ID",
    "MIME-Version",
    "List-Unsubscribe",
    "List-Unsubscribe-Post",
)
ALLOWED = {
    *(
        "body",
        "div",
        "span",
        "center",
        "table",
        "thead",
        "tbody",
        "tfoot",
        "tr",
        "td",
        "th",
        "caption",
        "colgroup",
        "col",
    ),
    *(
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "p",
        "br",
        "hr",
        "blockquote",
        "pre",
        "ul",
        "ol",
        "li",
        "dl",
        "dt",
        "dd",
    ),
    *(
        "a",
        "img",
        "b",
        "strong",
        "i",
        "em",
        "u",
        "s",
        "del",
        "ins",
        "small",
        "sub",
        "sup",
        "code",
        "kbd",
        "mark",
        "wbr",
    ),
    *("article", "section", "header", "footer", "main", "nav", "figure", "figcaption", "time", "abbr"),
}
_BAD_STYLE = re.compile(
    r"position\s*:|url\s*\(|expression|javascript|behavior\s*:|@import|var\s*\(", re.IGNORECASE
)
#: Parse errors that no browser minds; code → why.
FORGIVEN: dict[str, str] = {}


def check_mail(rendering: Rendering, source: Source) -> Report:
    message = BytesParser(policy=default).parsebytes(rendering.mail)
    assert isinstance(message, EmailMessage)
    text, html = _shown(message, "plain"), _shown(message, "html")
    page = Page(html)
    lost = lost_links(source, page.links)
    violations = [*_wire(rendering, message), *_page(page, html)]
    violations += [f"html: {found}" for found in shown_secrets(source, page.text)]
    if rendering.is_teaser:
        if len(source.text) + sum(map(len, source.links)) < SURELY_FITS:
            violations.append(f"a teaser of a post of {len(source.text)} characters")
    else:
        violations += [
            f"html: {found}" for found in (*lost_text(source, page.text), *leftovers(source, page.text))
        ]
        violations += [f"html: links: {link[:120]!r} is lost" for link in lost]
    violations += [f"text: {found}" for found in _text(text, source, teaser=rendering.is_teaser)]
    count = len(set(source.links))
    size = len(html.encode())
    return Report(
        violations=violations,
        bytes=len(rendering.mail),
        share=size / CLIPPED,
        links=(count - len(lost), count),
        teaser=rendering.is_teaser,
    )


def _shown(message: EmailMessage, subtype: str) -> str:
    """What a mail program shows of the part of that kind."""
    part = message.get_body((subtype,))
    return str(part.get_content()).replace("\r\n", "\n") if part else ""


def _text(text: str, source: Source, *, teaser: bool) -> Iterator[str]:
    """A teaser's text may be the whole post; where it is not, only its form counts."""
    found = list(check_plain(text, source))
    yield from (line for line in found if not (teaser and line.startswith("text:")))
    if not teaser:
        yield from (f"links: {link[:120]!r} is lost" for link in links_not_in_text(source, text))


# --- the wire ----------------------------------------------------------------------------------------------------


def _wire(rendering: Rendering, message: EmailMessage) -> Iterator[str]:
    raw = rendering.mail
    if re.search(rb"(?<!\r)\n|\r(?!\n)", raw):
        yield "wire: a bare CR or LF"
    if (longest := max(len(line) for line in raw.split(b"\r\n"))) > LINE:
        yield f"wire: a line of {longest} bytes"
    yield from _headers(raw.partition(b"\r\n\r\n")[0], message)
    yield from _parts(message, rendering)


def _headers(raw: bytes, message: EmailMessage) -> Iterator[str]:
    if not raw.isascii():
        yield "headers: not ASCII"
    for name in ONCE:
        if len(message.get_all(name, [])) != 1:
            yield f"headers: {name} stands there {len(message.get_all(name, []))} times"
    for name, value in message.items():
        yield from (f"headers: {name}: {defect}" for defect in getattr(value, "defects", ()))
        if INVISIBLE.search(str(value)) or "\n" in str(value):
            yield f"headers: {name} holds a control character"
    yield from _unsubscribe(raw.decode("ascii", "replace"))


def _unsubscribe(raw: str) -> Iterator[str]:
    """RFC 2369 and 8058: each address whole and unencoded, https among them, the one-click line as it is written there."""
    fields = dict(
        re.findall(r"^([A-Za-z-]+):[ \t]*((?:.*\r\n[ \t])*.*)$", raw.replace("\r\r", "\r"), re.MULTILINE)
    )
    line = fields.get("List-Unsubscribe", "").replace("\r", "")
    addresses = re.findall(r"<([^<>]*)>", line)
    if "=?" in line or any(re.search(r"\s", address) for address in addresses):
        yield f"headers: List-Unsubscribe is encoded or broken: {line[:80]!r}"
    if not any(address.startswith("https://") for address in addresses):
        yield "headers: List-Unsubscribe has no https address"
    if fields.get("List-Unsubscribe-Post", "").strip() != "List-Unsubscribe=One-Click":
        yield "headers: List-Unsubscribe-Post is not List-Unsubscribe=One-Click"


def _parts(message: EmailMessage, rendering: Rendering) -> Iterator[str]:
    for piece in message.walk():
        yield from (f"mime: {piece.get_content_type()}: {defect!r}" for defect in piece.defects)
    kinds = [part.get_content_type() for part in message.walk()]
    if kinds != ["multipart/alternative", "text/plain", "text/html"]:
        yield f"mime: {kinds}"
        return
    for part, key in zip(message.iter_parts(), ("text", "html"), strict=True):
        yield from _part(part, key, rendering)


def _part(part: Any, key: str, rendering: Rendering) -> Iterator[str]:
    if (part["Content-Transfer-Encoding"], part.get_content_charset()) != ("base64", "utf-8"):
        yield f"mime: {key} is {part['Content-Transfer-Encoding']}, {part.get_content_charset()}"
    shown = part.get_content()
    if INVISIBLE.search(shown.replace("\r", "")):
        yield f"mime: {key} holds a control character"
    for name, value in (rendering.values or {}).items():
        if name in shown:
            yield f"mime: {key} still has the placeholder {name}"
        if value not in shown.replace("&amp;", "&"):
            yield f"mime: {key} lacks the value of {name}"


# --- the page ----------------------------------------------------------------------------------------------------


def _page(page: Page, html: str) -> Iterator[str]:
    size = len(html.encode())
    if size > CLIPPED:
        yield f"html: {size} bytes, at most {CLIPPED}: Gmail clips it"
    for code, details in page.errors:
        if code not in FORGIVEN:
            yield f"html: parse error {code} {details or ''}".rstrip()
    if not page.root.get("lang"):
        yield "html: no lang"
    for element in page.body.iter():
        if isinstance(element.tag, str):
            yield from _element(element)
    yield from _heading_order(
        [int(heading.tag[1]) for heading in page.named("h1", "h2", "h3", "h4", "h5", "h6")]
    )


def _element(element: Any) -> Iterator[str]:
    tag = element.tag
    if tag not in ALLOWED:
        yield f"html: <{tag}> is not allowed"
    for name, value in element.attrib.items():
        if name.startswith("on"):
            yield f"html: <{tag} {name}>"
        if name == "style" and (bad := _BAD_STYLE.search(value)):
            yield f"html: <{tag} style>: {bad[0]!r}"
    if (
        tag == "a"
        and "href" in element.attrib
        and urlsplit(element.get("href").strip()).scheme not in {"http", "https", "mailto"}
    ):
        yield f"html: a link to {element.get('href', '')[:60]!r}"
    if tag == "img":
        yield from _picture(element)


def _picture(element: Any) -> Iterator[str]:
    if element.get("alt") is None:
        yield "html: a picture without alt"
    if not re.fullmatch(r"\d{1,3}", element.get("width", "")) or int(element.get("width")) > 600:
        yield f"html: a picture of width {element.get('width')!r}"
    if urlsplit(element.get("src", "")).scheme not in {"http", "https"}:
        yield f"html: a picture from {element.get('src', '')[:60]!r}"


def _heading_order(levels: list[int]) -> Iterator[str]:
    if levels.count(1) != 1:
        yield f"html: {levels.count(1)} headings of the first level"
    for before, after in pairwise(levels):
        if after > before + 1:
            yield f"html: an h{after} follows an h{before}"
            return
