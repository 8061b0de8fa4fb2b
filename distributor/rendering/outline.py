"""A post's skeleton: lead, sections, items, links; for forms that have no room for all of it.

Editors write news in many shapes: lists, bold lines, `**name**: text`, "1、…" paragraphs, a heading for each piece,
tables of links. Each shape is read into the same `Item`; what is no piece of news stays out.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby, pairwise

from markdown_it.tree import SyntaxTreeNode

from distributor.rendering.cutting import display_width
from distributor.rendering.markdown import Document
from distributor.rendering.phrases import (
    ends_a_title,
    first_sentence,
    is_prose,
    marked_links,
    said,
    starts_with_number,
    tidy,
    titled,
    unmarked,
    without_greeting,
)
from distributor.rendering.text import inline_text, squeeze


@dataclass(frozen=True, kw_only=True)
class Item:
    """One piece of news: its title on one line, its text, and where it leads."""

    title: str
    body: str = ""
    links: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading and its items; the heading is empty before the first one, and above items that are headings themselves."""

    heading: str
    items: Sequence[Item]


@dataclass(frozen=True, kw_only=True)
class Outline:
    """A post's skeleton, for forms that have no room for it all.

    `lead` is the first paragraph that says something, wherever it stands; `introduction` is the same before any item.
    """

    lead: str
    introduction: str = ""
    sections: Sequence[Section]
    links: Sequence[str]

    @property
    def items(self) -> Sequence[Item]:
        """Every item; the section headings when the post has none."""
        items = [item for section in self.sections for item in section.items]
        return items or [Item(title=section.heading) for section in self.sections if section.heading]


def outline(document: Document) -> Outline:
    """The lead paragraph, sections with their items, and all links in order."""
    parts = _parts(document.tree)
    introduction = next((part.opening for part in parts if part.introduces and part.opening), "")
    lead = introduction or next((part.first for part in parts if part.first), "")
    return Outline(
        lead=without_greeting(lead),
        introduction=without_greeting(introduction),
        sections=_merged([section for part in parts for section in part.as_sections()]),
        links=links_in(document.tree),
    )


def links_in(node: SyntaxTreeNode) -> list[str]:
    return [str(found.attrs["href"]) for found in node.walk() if found.type == "link"]


# Shapes of news

#: In columns: a bold line that is longer is a sentence of a text.
_LONGEST_BOLD = 100


def _list_items(node: SyntaxTreeNode) -> Iterator[Item | str]:
    """The items of a list. A string is a heading: an entry that only gathers what is listed below it."""
    for entry in node.children:
        inner = [child for child in entry.children if child.type in _LISTS]
        item = _list_item(entry)
        if inner and _gathers(entry, inner):
            yield item.title
            for child in inner:
                yield from _list_items(child)
        else:
            yield item


def _gathers(entry: SyntaxTreeNode, inner: Sequence[SyntaxTreeNode]) -> bool:
    """Whether a list entry is a heading of others: it leads nowhere itself and says no more than a name; they lead on."""
    below = [child for one in inner for child in one.children]
    own = [child for child in entry.children if child.type == "paragraph"]
    if len(own) != 1 or links_in(own[0]) or first_sentence(said(own[0])) != said(own[0]):
        return False
    return len(below) > 1 and all(links_in(child) and _list_item(child).title for child in below)


def _list_item(node: SyntaxTreeNode) -> Item:
    """An entry without text of its own has no title."""
    paragraphs = [child for child in node.children if child.type == "paragraph"]
    if not paragraphs:
        return Item(title="", links=links_in(node))
    item = _item(paragraphs[0])
    further = [text for child in paragraphs[1:] if (text := said(child))]
    if not item.body and not further:
        inner = [child for one in node.children if one.type in _LISTS for child in one.children]
        further = [text for child in inner if (text := _first_paragraph(child))][:1]
    body = squeeze(" ".join([item.body, *further]))
    return Item(title=item.title, body=body, links=links_in(node))


def _first_paragraph(node: SyntaxTreeNode) -> str:
    return next((said(child) for child in node.children if child.type == "paragraph"), "")


def _item(paragraph: SyntaxTreeNode) -> Item:
    """The paragraph's title and body; without a title when it says nothing."""
    title, body = titled(paragraph, _bold_title(paragraph))
    return Item(title=title, body=body, links=links_in(paragraph))


def _bold_beginning(paragraph: SyntaxTreeNode) -> str:
    parts = _visible_parts(paragraph)
    return squeeze(unmarked(marked_links(parts[0]))) if parts and parts[0].type == "strong" else ""


def _bold_title(paragraph: SyntaxTreeNode) -> str:
    """The bold beginning, when it is a title and not the subject of a sentence; a line break always ends a title."""
    bold, kinds = _bold_beginning(paragraph), [part.type for part in _visible_parts(paragraph)]
    if not bold or kinds[1:2] == ["hardbreak"]:
        return bold
    rest = squeeze(unmarked(marked_links(paragraph)))[len(bold) :]
    return bold if ends_a_title(bold, rest) else ""


def _visible_parts(paragraph: SyntaxTreeNode) -> Sequence[SyntaxTreeNode]:
    inline = paragraph.children[0].children if paragraph.children else []
    return [child for child in inline if child.type != "text" or child.content.strip()]


def _is_bold_line(node: SyntaxTreeNode) -> bool:
    """A bold line is a title, unless it is long or ends like a sentence: then a text stresses it."""
    parts = _visible_parts(node)
    if [part.type for part in parts] != ["strong"]:
        return False
    text = squeeze(inline_text(parts[0]))
    return display_width(text) <= _LONGEST_BOLD and not text.endswith(("。", "；", "."))


def _has_bold_name(node: SyntaxTreeNode) -> bool:
    """ "**Name**: text", or the colon inside."""
    if node.type != "paragraph":
        return False
    bold, text = _bold_beginning(node), squeeze(inline_text(node))
    rest = text[len(bold) :].lstrip()
    return bool(bold) and bool(rest) and (bold[-1] in "：:" or rest[0] in "：:")


def _table_items(node: SyntaxTreeNode) -> Iterator[Item]:
    """The rows of a table of links; a table of numbers has none."""
    for part in node.children:
        for row in part.children if part.type == "tbody" else ():
            cells = [text for cell in row.children if (text := said(cell)) and re.search(r"[^\W\d_]", text)]
            if cells and links_in(row):
                yield Item(
                    title=tidy(cells[0]), body=max(cells[1:], key=len, default=""), links=links_in(row)
                )


_LISTS = frozenset({"bullet_list", "ordered_list"})

# Parts

#: Headings above a paragraph that introduces the whole post.
_INTRODUCTION = re.compile(
    r"\W*(?:今日|本期|本周|每日)?(?:看点|导读|导语|摘要|速读|提要|编者按|前言|写在前面)\W*"
    r"|\W*(?:tl;?dr|summary|in short|editor['’]s note)\W*",
    re.IGNORECASE,
)

#: Paragraphs of a piece of news below a heading of its own.
_LONGEST_PIECE = 3


@dataclass
class _Part:
    """What stands below one heading, while it is read."""

    heading: str = ""
    level: int = 0
    nodes: list[SyntaxTreeNode] = field(default_factory=list)
    has_names: bool = False  # one name before a colon is a remark, several are items
    parent: str = ""  # the heading above, when it stands over nothing but deeper headings
    gathers: bool = False  # deeper headings follow: it is theirs
    sections: list[Section] = field(default_factory=list)
    prose: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)  # of the heading
    further: list[str] = field(default_factory=list)  # of the prose
    first: str = ""  # its first paragraph, be it prose or the text of an item
    opening: str = ""  # the prose before its first item
    is_open: bool = False  # what follows belongs to the last item

    @property
    def introduces(self) -> bool:
        return not self.heading or bool(_INTRODUCTION.fullmatch(self.heading))

    def read(self) -> None:
        self.has_names = sum(_has_bold_name(node) for node in self.nodes) > 1
        for node in self.nodes:
            if reader := _READERS.get(node.type):
                reader(self, node)

    def as_sections(self) -> Sequence[Section]:
        """Its items; when it has none but says something, its heading is one."""
        if self.sections or not self.heading:
            return [section for section in self.sections if section.items]
        if self.prose and self.introduces:
            return []
        if self.prose and not self.gathers:
            # Of a long text, links are references: none of them is where the title leads.
            further = self.further if len(self.prose) <= _LONGEST_PIECE else []
            item = Item(
                title=self.heading,
                body=without_greeting(self.prose[0]),
                links=[*self.links, *further],
            )
            return [Section(heading=self.parent, items=[item])]
        return [Section(heading=self.heading, items=[])]

    def add(self, found: Item | str) -> None:
        """An item, or a heading of those that follow. Without a title it gives its links to the item before."""
        if isinstance(found, str):
            self.sections.append(Section(heading=found, items=[]))
        elif found.title:
            if not self.sections:
                self.sections.append(Section(heading=self.heading, items=[]))
            self._put([*self.sections[-1].items, found])
        else:
            self.extend("", found.links)

    def extend(self, text: str, links: Sequence[str]) -> None:
        """More of the last item, when there is one: its text is the first paragraph that says something."""
        if not self.sections or not self.sections[-1].items:
            return
        self.first = self.first or (text if is_prose(text) else "")
        *others, last = self.sections[-1].items
        body = last.body or (text if is_prose(text) else "")
        self._put([*others, replace(last, body=body, links=[*last.links, *links])])

    def _put(self, items: Sequence[Item]) -> None:
        self.sections[-1] = replace(self.sections[-1], items=items)


def _parts(tree: SyntaxTreeNode) -> Sequence[_Part]:
    """The post by headings."""
    parts = [_Part()]
    for node in tree.children:
        if node.type == "heading":
            heading = tidy(said(node) or squeeze(inline_text(node)))
            parts.append(_Part(heading=heading, level=int(node.tag[1]), links=links_in(node)))
        else:
            parts[-1].nodes.append(node)
    for part in parts:
        part.read()
    for part, following in pairwise(parts):
        part.gathers = bool(part.heading) and following.level > part.level
    for number, part in enumerate(parts):
        part.parent = _parent(part, parts[:number])
    return parts


def _parent(part: _Part, before: Sequence[_Part]) -> str:
    above = next((other for other in reversed(before) if other.level < part.level), None)
    return above.heading if above and above.gathers and not above.sections else ""


def _merged(sections: Sequence[Section]) -> Sequence[Section]:
    """Neighbours below the same heading are one section."""
    return [
        Section(heading=heading, items=[item for section in group for item in section.items])
        for heading, group in groupby(sections, key=lambda section: section.heading)
    ]


def _read_list(part: _Part, node: SyntaxTreeNode) -> None:
    """Below a title that has no text yet, plain entries are its text; entries that lead on have it as their heading."""
    found = list(_list_items(node))
    if part.is_open and not part.sections[-1].items[-1].body:
        title = part.sections[-1].items[-1]
        if not links_in(node) and not title.links:
            part.extend(_first_text(found), ())
            return
        if not title.links:
            _turn_into_heading(part, title)
    part.is_open = False
    for one in found:
        part.add(one)


def _first_text(found: Sequence[Item | str]) -> str:
    return next((" ".join(filter(None, (one.title, one.body))) for one in found if isinstance(one, Item)), "")


def _turn_into_heading(part: _Part, title: Item) -> None:
    last = part.sections.pop()
    if others := last.items[:-1]:
        part.sections.append(replace(last, items=others))
    part.add(title.title)


def _read_table(part: _Part, node: SyntaxTreeNode) -> None:
    for item in _table_items(node):
        part.is_open = False
        part.add(item)


def _read_paragraph(part: _Part, node: SyntaxTreeNode) -> None:
    text = said(node)
    if _is_bold_line(node) or starts_with_number(text) or (part.has_names and _has_bold_name(node)):
        part.add(_item(node))
        part.is_open = bool(part.sections)
    elif part.is_open:
        part.extend(text, links_in(node))
    elif not text or text == part.heading:
        part.extend("", links_in(node))  # a source below a list
    elif is_prose(text):
        _add_prose(part, text, node)


def _add_prose(part: _Part, text: str, node: SyntaxTreeNode) -> None:
    part.first = part.first or text
    part.opening = part.opening or ("" if part.sections else text)
    part.prose.append(text)
    part.further += links_in(node)


def _read_quote(part: _Part, node: SyntaxTreeNode) -> None:
    """A quotation may introduce a post; elsewhere it is no news."""
    for child in node.children:
        text = said(child) if child.type == "paragraph" else ""
        if is_prose(text) and not part.is_open:
            _add_prose(part, text, child)


_READERS: Mapping[str, Callable[[_Part, SyntaxTreeNode], None]] = {
    "bullet_list": _read_list,
    "ordered_list": _read_list,
    "paragraph": _read_paragraph,
    "table": _read_table,
    "blockquote": _read_quote,
}
