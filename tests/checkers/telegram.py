"""A Telegram message: its server's grammar and limits for every part, numbered parts, nothing lost between them."""

import re
import sys
from collections.abc import Iterator
from html import unescape
from pathlib import Path

from .compare import leftovers, lost_links, lost_text, shown_secrets
from .rendering import Rendering, Report
from .source import Source, bare_addresses

sys.path.append(str(Path(__file__).parents[1] / "channels"))  # pytest does so for the tests in that folder

from telegram_rules import Parsed, Refused, check, parse_html

UNITS, ENTITIES, BYTES = 4096, 100, 9500
_MAIL = re.compile(r"[\w.+-]+@[\w.-]+\w")


def check_telegram(rendering: Rendering, source: Source) -> Report:
    violations, parsed, share = list[str](), list[Parsed](), 0.0
    prose = "\n".join(_prose(content["html"]) for content in rendering.parts)
    for number, content in enumerate(rendering.parts, 1):
        try:
            found = check(content["html"])
        except Refused as refused:
            violations.append(f"part {number}: {refused}")
            continue
        parsed.append(found)
        share = max(share, _share(found, content["html"]))
        violations += _numbering(found.text, number, len(rendering.parts))
    if len(parsed) == len(rendering.parts):
        violations += _kept(parsed, prose, source)
    return Report(
        violations=violations,
        bytes=sum(len(content["html"].encode()) for content in rendering.parts),
        share=share,
        links=(len(set(source.links)) - len(_lost(parsed, prose, source)), len(set(source.links))),
        parts=len(rendering.parts),
        teaser=rendering.is_teaser,
    )


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
