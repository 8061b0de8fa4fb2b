"""An article of a WeChat Official Account, as `draft/add` takes it (facts: title, author, digest, content, links)."""

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from .compare import leftovers, links_not_in_text, lost_text, shown_secrets
from .dom import Page
from .rendering import Rendering, Report
from .source import Source

LIMITS = {"title": 64, "author": 16, "digest": 128}  # characters
CONTENT = 20_000  # characters, tags included: fewer than
CONTENT_BYTES = 1_000_000
SOURCE_URL = 1024  # bytes
#: A whole post this short never needs a teaser: its markup is a small multiple of its text.
SURELY_FITS = 1_500

FORBIDDEN = {
    *("script", "style", "iframe", "form", "input", "button", "select", "textarea", "object", "embed"),
    *("link", "meta", "base", "video", "audio", "svg", "canvas", "html", "head", "body"),
}
ATTRIBUTES = {
    *("style", "href", "src", "alt", "title", "width", "height", "colspan", "rowspan", "align", "start"),
    *("lang", "dir", "data-src", "data-ratio", "data-w", "leaf", "textstyle"),
}
_BAD_STYLE = re.compile(r"position\s*:|url\s*\(|@|var\s*\(|expression|javascript|behavior\s*:", re.IGNORECASE)
_NUMBER = re.compile(r"\[([1-9]\d{0,2})\]")


def check_article(rendering: Rendering, source: Source) -> Report:
    content = rendering.parts[0]
    html = content.get("content", "")
    page = Page(html, fragment=True)
    lost = links_not_in_text(
        source, "\n".join([page.text, *page.links, content.get("content_source_url", "")])
    )
    violations = [*_fields(content), *_elements(page), *_footnotes(page), *shown_secrets(source, page.text)]
    if rendering.is_teaser:
        if len(source.text) + sum(map(len, source.links)) < SURELY_FITS:
            violations.append(f"a teaser of a post of {len(source.text)} characters")
    else:
        violations += [*lost_text(source, page.text), *leftovers(source, page.text)]
        violations += [f"links: {link[:120]!r} is lost" for link in lost]
    count = len(set(source.links))
    return Report(
        violations=violations,
        bytes=len(html.encode()),
        share=len(html) / CONTENT,
        links=(count - len(lost), count),
        teaser=rendering.is_teaser,
    )


def _fields(content: Any) -> Iterator[str]:
    for key, limit in LIMITS.items():
        if len(content.get(key, "")) > limit:
            yield f"{key}: {len(content[key])} characters, at most {limit}"
    for key in ("title", "content"):
        if not content.get(key, "").strip():
            yield f"{key} is empty"
    html, address = content.get("content", ""), content.get("content_source_url", "")
    if len(html) >= CONTENT or len(html.encode()) >= CONTENT_BYTES:
        yield f"content: {len(html)} characters, fewer than {CONTENT} are taken"
    if address and (len(address.encode()) > SOURCE_URL or not address.startswith(("http://", "https://"))):
        yield f"content_source_url: {address[:60]!r}"


def _elements(page: Page) -> Iterator[str]:
    for code, _ in page.errors:
        yield f"html: {code}"
    for element in page.elements():
        if element.tag in FORBIDDEN:
            yield f"<{element.tag}> is not allowed"
        for name, value in element.attrib.items():
            yield from _attribute(element.tag, name, value)


def _attribute(tag: str, name: str, value: str) -> Iterator[str]:
    if name not in ATTRIBUTES:
        yield f"<{tag} {name}=…> is not allowed"
    if name == "style" and (bad := _BAD_STYLE.search(value)):
        yield f"<{tag} style>: {bad[0]!r} is not allowed"
    if tag == "a" and name == "href" and urlsplit(value).hostname != "mp.weixin.qq.com":
        yield f"a link to {value[:60]!r}: only mp.weixin.qq.com may be linked"
    if tag == "img" and name == "src" and not value.startswith(("https://", "http://")):
        yield f"a picture from {value[:60]!r}"


def _footnotes(page: Page) -> Iterator[str]:
    """References are numbers in <sup>; entries begin a block with theirs. One for each, on both sides."""
    references = {
        number for mark in page.named("sup") for number in _NUMBER.findall("".join(mark.itertext()))
    }
    entries = set(re.findall(r"^\s*\[([1-9]\d{0,2})\]", page.text, re.MULTILINE))
    for number in sorted(references - entries, key=int):
        yield f"footnotes: [{number}] has no entry"
    for number in sorted(entries - references, key=int):
        yield f"footnotes: entry [{number}] is referred to nowhere"
