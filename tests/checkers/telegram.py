"""A Telegram message: its server's grammar and limits for every part, numbered parts, nothing lost between them."""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from html import unescape
from pathlib import Path

from .compare import leftovers, lost_links, lost_text, shown_secrets
from .dom import Page
from .rendering import Rendering, Report
from .source import Source, bare_addresses

sys.path.append(str(Path(__file__).parents[1] / "channels"))  # pytest does so for the tests in that folder

from telegram_rules import Parsed, Refused, check, parse_html

RICH_BLOCKS = {
    *("p", "ul", "ol", "li", "blockquote", "pre", "table", "tr", "hr", "figure", "footer"),
    *(f"h{n}" for n in range(1, 7)),
}
UNITS, ENTITIES, BYTES = 4096, 100, 9500
_MAIL = re.compile(r"[\w.+-]+@[\w.-]+\w")


def check_telegram(rendering: Rendering, source: Source) -> Report:
    """The parts; an edit says the same as the part it replaces, and a rich form the same as all parts."""
    contents = [_filled(content, rendering.values or {}) for content in rendering.parts]
    parts = [content for content in contents if not content.get("edits")]
    violations, parsed, share = list[str](), list[Parsed](), 0.0
    for number, content in enumerate(parts, 1):
        try:
            found = check(content["html"])
        except Refused as refused:
            violations.append(f"part {number}: {refused}")
            continue
        parsed.append(found)
        share = max(share, _share(found, content["html"]))
        violations += _numbering(found.text, number, len(parts))
    prose = "\n".join(_prose(content["html"]) for content in parts)
    if len(parsed) == len(parts):
        violations += _kept(parsed, prose, source)
    violations += _edits(contents, parts)
    violations += [
        found for content in parts if content.get("rich") for found in _rich(content["rich"], source)
    ]
    return Report(
        violations=violations,
        bytes=sum(len(content["html"].encode()) for content in parts),
        share=share,
        links=(len(set(source.links)) - len(_lost(parsed, prose, source)), len(set(source.links))),
        parts=len(parts),
        teaser=rendering.is_teaser,
    )


def _filled(content: Mapping[str, str], values: Mapping[str, str]) -> Mapping[str, str]:
    """As it is sent: placeholders have their values."""
    filled = dict(content)
    for name, value in values.items():
        filled = {key: text.replace(name, value) for key, text in filled.items()}
    return filled


def _edits(contents: Sequence[Mapping[str, str]], parts: Sequence[Mapping[str, str]]) -> Iterator[str]:
    for content in contents:
        if place := content.get("edits"):
            try:
                text = check(content["html"]).text
            except Refused as refused:
                yield f"edit of part {place}: {refused}"
                continue
            if text != parse_html(parts[int(place) - 1]["html"]).text:
                yield f"edit of part {place}: another text"


def _rich(html: str, source: Source) -> Iterator[str]:
    """InputRichMessage of Bot API 10.1: its limits, and the whole post in it."""
    page = Page(html, fragment=True)
    sizes = {
        "characters": (len("".join(page.root.itertext())), 32_768),
        "blocks": (sum(element.tag in RICH_BLOCKS for element in page.elements()), 500),
        "pictures": (len(page.named("img")), 50),
        "columns": (max((len(row) for row in page.named("tr")), default=0), 20),
    }
    yield from (f"rich: {size} {name}, at most {most}" for name, (size, most) in sizes.items() if size > most)
    yield from (
        f"rich: {found}" for found in (*lost_text(source, page.text), *shown_secrets(source, page.text))
    )
    kept = [*page.links, *_MAIL.findall(page.text), *bare_addresses(page.text)]
    yield from (f"rich: links: {link[:120]!r} is lost" for link in lost_links(source, kept))


def _share(found: Parsed, html: str) -> float:
    return max(found.units / UNITS, len(found.entities) / ENTITIES, len(html.encode()) / BYTES)


def _numbering(text: str, number: int, parts: int) -> Iterator[str]:
    header = re.match(r"\((\d+)/(\d+)\)", text)
    told = (int(header[1]), int(header[2])) if header else None
    if parts > 1 and told != (number, parts):
        yield f"part {number}: begins with {text[:12]!r}, not ({number}/{parts})"


def _kept(parsed: list[Parsed], prose: str, source: Source) -> Iterator[str]:
    many = len(parsed) > 1
    bodies = [re.sub(r"^\(\d+/\d+\)\s*", "", found.text) if many else found.text for found in parsed]
    visible = "".join(bodies)
    yield from lost_text(source, visible)
    yield from shown_secrets(source, visible)
    yield from leftovers(source, visible)
    for link in _lost(parsed, prose, source):
        yield f"links: {link[:120]!r} is lost"


def _lost(parsed: list[Parsed], prose: str, source: Source) -> list[str]:
    """Telegram takes no mailto: links; it finds addresses that stand in the text, of mail and web, by itself."""
    detected = [*_MAIL.findall(prose), *bare_addresses(prose)]
    return lost_links(source, [*(link for found in parsed for link in found.links), *detected])


def _prose(html: str) -> str:
    """The text outside code, in which the server looks for nothing."""
    text = re.sub(r"<(pre|code)\b.*?</\1>", " ", html, flags=re.DOTALL)
    return unescape(re.sub(r"<[^>]*>", "", text))


__all__ = ["check_telegram", "parse_html"]
