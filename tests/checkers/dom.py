"""HTML as a browser reads it: its parse errors, elements and visible text."""

import re
from collections.abc import Iterator
from typing import Any

import html5lib

from .source import BLOCKS, UNSEEN

_HIDDEN_STYLE = re.compile(r"display\s*:\s*none", re.IGNORECASE)


class Page:
    """A parsed document or fragment."""

    def __init__(self, html: str, *, fragment: bool = False) -> None:
        parser = html5lib.HTMLParser(namespaceHTMLElements=False)
        self.root = parser.parseFragment(html) if fragment else parser.parse(html)
        self.errors = [(code, details) for _, code, details in parser.errors]

    def elements(self) -> Iterator[Any]:
        return (element for element in self.root.iter() if isinstance(element.tag, str))

    def named(self, *tags: str) -> list[Any]:
        return [element for element in self.elements() if element.tag in tags]

    @property
    def body(self) -> Any:
        found = self.root.find("body")
        return self.root if found is None else found

    @property
    def text(self) -> str:
        """What a reader sees, pictures by their alt text; blocks on lines of their own."""
        return "".join(text_of(self.body))

    @property
    def links(self) -> list[str]:
        return [element.get("href", "").strip() for element in self.named("a")]


def text_of(element: Any) -> Iterator[str]:
    if element.text:
        yield element.text
    for child in element:
        yield from _child(child)
        yield child.tail or ""


def _child(child: Any) -> Iterator[str]:
    if not isinstance(child.tag, str) or child.tag in UNSEEN or _HIDDEN_STYLE.search(child.get("style", "")):
        return
    edge = "\n" if child.tag in BLOCKS else ""
    yield edge
    yield f" {child.get('alt', '')} " if child.tag == "img" else ""  # a picture is no part of a word
    yield from text_of(child)
    yield edge
