"""A post's HTML, laid out for mail: cards, tables that survive a phone, captions, footnotes.

Works on the sanitised fragment, so that nothing an author writes can pretend to be layout. What it adds are classes
for the style sheet, and tables where mail clients know nothing better.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from lxml import html
from lxml.html import builder as make

from distributor.rendering import AFTER_TITLE, display_width, ends_a_title, escape_text

#: A list of more items stays a list: cards cost about 300 bytes each.
MOST_CARDS = 40
#: A table with more columns, or a wider row (in columns of a fixed-width font), becomes a record a row.
MOST_COLUMNS, WIDEST_ROW = 5, 90

Element = Any  # lxml brings no types


def lay_out(fragment: str, *, joint: str, footnotes: bool = False) -> str:
    """The fragment's HTML with cards, records, captions and classes.

    `joint` stands between a name and what it names ("：" or ": "); `footnotes`: the last list holds them.
    """
    if not fragment.strip():
        return fragment
    root = html.fragment_fromstring(fragment, create_parent="div")
    if footnotes:
        _mark_footnotes(root)
    for table in list(root.iter("table")):
        _lay_out_table(table, joint)
    for paragraph in list(root.iter("p")):
        _mark_paragraph(paragraph)
    for ordered in root.findall("ol"):
        if ordered.get("class") != "footnotes" and _are_cards(ordered):
            ordered.getparent().replace(ordered, _cards(ordered))
    _put_headings_in_order(root)
    return _inner(root)


def _inner(root: Element) -> str:
    pieces = [html.tostring(child, encoding="unicode") for child in root]
    return escape_text(root.text or "") + "".join(pieces)


def _mark_footnotes(root: Element) -> None:
    """The list takes the place of the rule above it: its style sheet draws one."""
    notes = [*root.iter("ol")][-1]
    notes.set("class", "footnotes")
    rule = notes.getprevious()
    if rule is not None and rule.tag == "hr":
        rule.getparent().remove(rule)


def _put_headings_in_order(root: Element) -> None:
    """No level is left out below the mail's title, in raw HTML neither: screen readers walk from heading to heading."""
    level = 1
    for heading in list(root.iter("h2", "h3", "h4", "h5", "h6")):
        level = min(int(heading.tag[1]), level + 1)
        heading.tag = f"h{level}"


# --- paragraphs --------------------------------------------------------------------------------------------------


def _mark_paragraph(paragraph: Element) -> None:
    only = _only_child(paragraph)
    if only is None or paragraph.getparent().tag == "li":
        return
    if only.tag == "strong":
        paragraph.set("class", "headline")
    picture = only if only.tag == "img" else _only_child(only)
    if picture is not None and picture.tag == "img" and picture.get("title"):
        paragraph.set("class", "figure")
        paragraph.addnext(make.P(picture.attrib.pop("title"), make.CLASS("caption")))


def _only_child(element: Element) -> Element | None:
    """The one child, when nothing visible stands beside it."""
    if len(element) != 1 or (element.text or "").strip() or (element[0].tail or "").strip():
        return None
    return element[0]


# --- cards -------------------------------------------------------------------------------------------------------


def _are_cards(ordered: Element) -> bool:
    """Whether it is news: numbered items, each with a title in bold and something to say."""
    items = ordered.findall("li")
    return 1 < len(items) <= MOST_CARDS and all(map(_has_title, items))


def _has_title(item: Element) -> bool:
    """Whether its bold beginning is a title, and not the subject of a sentence; a line break always ends a title."""
    title = _title_of(item)
    if title is None or not title.text_content().strip():
        return False
    followers = _inline_followers(title)
    tail = title.tail or ""
    if not tail.strip() and followers and followers[0].tag == "br":
        return True
    rest = tail + "".join(follower.text_content() + (follower.tail or "") for follower in followers)
    return ends_a_title(title.text_content(), rest)


def _title_of(item: Element) -> Element:
    """The bold beginning of an item, or None."""
    first = item[0] if len(item) and not (item.text or "").strip() else None
    if first is not None and first.tag == "p":
        first = first[0] if len(first) and not (first.text or "").strip() else None
    return first if first is not None and first.tag == "strong" else None


def _cards(ordered: Element) -> Element:
    given = ordered.get("start", "")
    start = int(given) if re.fullmatch(r"\d{1,6}", given) else 1
    table = _layout_table("cards")
    for number, item in enumerate(ordered.findall("li"), start):
        later = "next" if number > start else ""
        row = make.TR(
            make.TD(f"{number}", make.CLASS(f"{later}number"), valign="top", align="left", width="30"),
            _card(item, f"{later}card"),
        )
        table.append(row)
    table.tail = "\n"
    return table


def _card(item: Element, name: str) -> Element:
    cell = make.TD(make.CLASS(name), valign="top", align="left")
    title = _title_of(item)
    holder = title.getparent()
    rest = _without_break(title)
    cell.append(_moved(title, make.P(make.CLASS("cardtitle"))))
    if rest is not None:
        cell.append(rest)
    for child in list(item):
        if child is not holder:
            cell.append(child)
    cell[-1].tail = None
    if cell[-1].tag == "p" and cell[-1].get("class") is None:
        cell[-1].set("class", "last")
    return cell


def _without_break(title: Element) -> Element | None:
    """What follows the title in its line or paragraph, as a paragraph of its own; a line break between them goes."""
    paragraph = make.P()
    text = title.tail or ""
    title.tail = None
    followers = _inline_followers(title)
    if not text.strip() and followers and followers[0].tag == "br":
        line_break = followers.pop(0)
        text = line_break.tail or ""
        line_break.getparent().remove(line_break)
    paragraph.text = text.lstrip(f"{AFTER_TITLE}\n")
    for follower in followers:
        paragraph.append(follower)
    return paragraph if (paragraph.text or "").strip() or len(paragraph) else None


#: What ends the line of text that an item begins with.
BLOCKS = frozenset({"p", "ul", "ol", "table", "blockquote", "pre", "div", "hr", "h2", "h3", "h4", "h5", "h6"})


def _inline_followers(title: Element) -> list[Element]:
    followers = []
    for sibling in list(title.itersiblings()):
        if sibling.tag in BLOCKS:
            break
        followers.append(sibling)
    return followers


def _moved(child: Element, parent: Element) -> Element:
    parent.append(child)
    child.tail = None
    return parent


def _layout_table(name: str) -> Element:
    return make.TABLE(
        make.CLASS(name), role="presentation", width="100%", cellpadding="0", cellspacing="0", border="0"
    )


# --- tables ------------------------------------------------------------------------------------------------------


def _lay_out_table(table: Element, joint: str) -> None:
    rows = list(table.iter("tr"))
    if _is_too_wide(rows) and _can_be_records(table, rows):
        blocks = list(_records(list(rows[0]), rows[1:], joint))
        if blocks:
            _replace(table, blocks)
            return
    table.set("class", "data")
    for head in table.iter("th"):
        head.set("scope", "col")
        if "align" not in head.attrib:
            head.set("align", "left")


def _is_too_wide(rows: Sequence[Element]) -> bool:
    """For a phone. Three columns of long texts can still be read."""
    columns = max(map(len, rows), default=0)
    return columns > MOST_COLUMNS or (columns > 3 and max(map(_width, rows)) > WIDEST_ROW)


def _can_be_records(table: Element, rows: Sequence[Element]) -> bool:
    """One head with a name for every cell, and nothing in it that names would lose."""
    heads = list(rows[0])
    names_all = bool(heads) and all(cell.tag == "th" for cell in heads) and max(map(len, rows)) == len(heads)
    has_more = any(True for _ in rows[0].iter("a", "img"))
    return names_all and not has_more and table.find(".//table") is None


def _width(row: Element) -> int:
    return sum(display_width(cell.text_content().strip()) for cell in row)


def _records(heads: Sequence[Element], rows: Sequence[Element], joint: str) -> Iterator[Element]:
    """A block a row, a line a cell: "head: cell"."""
    labels = [head.text_content().strip() for head in heads]
    for row in rows:
        block = make.DIV(make.CLASS("record"))
        for label, cell in zip(labels, row, strict=False):
            if cell.text_content().strip() or len(cell):
                _add_line(block, f"{label}{joint}" if label else "", cell)
        if len(block):
            yield block


def _add_line(block: Element, label: str, cell: Element) -> None:
    if len(block):
        block.append(make.BR())
    name = make.STRONG(label) if label else make.SPAN()
    name.tail = cell.text
    block.append(name)
    for child in list(cell):
        block.append(child)


def _replace(old: Element, blocks: Sequence[Element]) -> None:
    parent, place = old.getparent(), old.getparent().index(old)
    blocks[-1].tail = old.tail
    old.tail = None
    parent.remove(old)
    for offset, block in enumerate(blocks):
        parent.insert(place + offset, block)
