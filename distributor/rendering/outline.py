"""A post's skeleton: lead, sections, items, links; for forms that have no room for all of it."""

from collections.abc import Sequence
from dataclasses import dataclass

from markdown_it.tree import SyntaxTreeNode

from distributor.rendering.cutting import SENTENCE_END
from distributor.rendering.markdown import Document
from distributor.rendering.text import inline_text, squeeze


@dataclass(frozen=True, kw_only=True)
class Item:
    """One piece of news: a list item, or a bold line with the paragraph below it."""

    title: str
    body: str = ""
    links: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading with its level and its items; the heading is empty before the first one."""

    heading: str
    items: Sequence[Item]
    level: int = 1


@dataclass(frozen=True, kw_only=True)
class Outline:
    """A post's skeleton, for forms that have no room for it all."""

    lead: str
    sections: Sequence[Section]
    links: Sequence[str]

    @property
    def items(self) -> Sequence[Item]:
        """Every item; the section headings when the post has none."""
        items = [item for section in self.sections for item in section.items]
        return items or [Item(title=section.heading) for section in self.sections if section.heading]


def outline(document: Document) -> Outline:
    """The lead paragraph, sections with their items, and all links in order."""
    lead, heading, level, items = "", "", 1, list[Item]()
    sections, title = list[Section](), None
    for node in document.tree.children:
        if node.type == "heading":
            sections.append(Section(heading=heading, level=level, items=items))
            heading, level, items = squeeze(inline_text(node)), int(node.tag[1]), []
        elif node.type in {"bullet_list", "ordered_list"}:
            items.extend(item for child in node.children if (item := _list_item(child)).title)
        elif node.type == "paragraph":
            text = squeeze(_text_without_pictures(node))
            if _is_bold_line(node):
                items.append(Item(title=text, links=links_in(node)))
            elif title is not None:
                items[-1] = Item(title=title.title, body=text, links=[*title.links, *links_in(node)])
            lead = lead or ("" if _is_bold_line(node) else text)
        title = items[-1] if node.type == "paragraph" and _is_bold_line(node) else None
    sections.append(Section(heading=heading, level=level, items=items))
    kept = [section for section in sections if section.heading or section.items]
    return Outline(lead=lead, sections=kept, links=links_in(document.tree))


def links_in(node: SyntaxTreeNode) -> list[str]:
    return [str(found.attrs["href"]) for found in node.walk() if found.type == "link"]


def _is_bold_line(node: SyntaxTreeNode) -> bool:
    inline = node.children[0].children
    return [child.type for child in inline if child.type != "text" or child.content.strip()] == ["strong"]


def _text_without_pictures(node: SyntaxTreeNode) -> str:
    if node.type == "image":
        return ""
    return (
        inline_text(node)
        if not node.children or node.type == "link"
        else "".join(map(_text_without_pictures, node.children))
    )


def _list_item(node: SyntaxTreeNode) -> Item:
    """A bold beginning is the title; else the first sentence is."""
    paragraphs = [child.children[0] for child in node.children if child.type == "paragraph"]
    if not paragraphs:
        return Item(title="")
    text = squeeze(_text_without_pictures(paragraphs[0]))
    parts = [child for child in paragraphs[0].children if child.type != "text" or child.content.strip()]
    bold = squeeze(inline_text(parts[0])) if parts and parts[0].type == "strong" else ""
    title = bold or first_sentence(text)
    rest = [text[len(title) :] if text.startswith(title) else "", *map(inline_text, paragraphs[1:])]
    body = squeeze(" ".join(rest)).lstrip("：:。 ")
    if body == squeeze(" ".join(inline_text(found) for found in node.walk() if found.type == "link")):
        body = ""  # a source at the end of the line; its link is kept
    return Item(title=title.rstrip("：:。 "), body=body, links=links_in(node))


def first_sentence(text: str) -> str:
    return next((part.strip() for part in SENTENCE_END.split(text) if part.strip()), "")
