"""Sanitised HTML as a small tree: what an article's writer walks over."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = frozenset({"br", "hr", "img"})


@dataclass
class Element:
    """A tag with its attributes; children are elements and texts."""

    tag: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    children: list["Element | str"] = field(default_factory=list)

    @property
    def text(self) -> str:
        """What a reader sees of it, pictures by their alternative texts."""
        return "".join(text_of(child) for child in self.children)

    def find(self, tag: str) -> Iterator["Element"]:
        """The elements of that name below this one, in order."""
        for child in self.children:
            if isinstance(child, Element):
                if child.tag == tag:
                    yield child
                yield from child.find(tag)


Node = Element | str


def text_of(node: Node) -> str:
    if isinstance(node, str):
        return node
    if node.tag == "img":
        return node.attributes.get("alt", "")
    return "\n" if node.tag == "br" else node.text


def read_html(html: str) -> Element:
    """The tree of a fragment as the sanitiser writes it: every tag is closed, or void."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    return reader.root


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("section")
        self._open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        self._open[-1].children.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_endtag(self, tag: str) -> None:
        if any(element.tag == tag for element in self._open[1:]):
            while self._open.pop().tag != tag:
                pass

    def handle_data(self, data: str) -> None:
        self._open[-1].children.append(data)
