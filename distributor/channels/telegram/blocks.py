"""A post's Markdown as blocks of marked text: what has no tag in Telegram gets a form that still reads well."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import cached_property
from textwrap import dedent

from markdown_it.token import Token
from markdown_it.tree import SyntaxTreeNode

from distributor.channels.telegram.marks import (
    Mark,
    Run,
    Size,
    has,
    marked,
    measure,
    merged,
    to_text,
    trimmed,
)
from distributor.channels.telegram.raw import HtmlWriter, link_marks, linked, picture
from distributor.channels.telegram.words import Words
from distributor.rendering import (
    display_width,
    inline_text,
    is_tight,
    list_bullets,
    picture_alt,
    squeeze,
    table_rows,
    text_and_address,
)

PRE_COLUMNS = 36  # a wider table wraps on a phone and is unreadable as <pre>
WORDY = 80  # columns of two lines on a phone


class Level(IntEnum):
    """What begins at a block; a part would rather end before a lower one."""

    SECTION = 1
    SUBSECTION = 2
    ITEM = 3
    PARAGRAPH = 4
    SENTENCE = 5


@dataclass(frozen=True)
class Block:
    """Runs that stand together, and the white space in front of them unless they begin a part.

    `keep`: not to be the last of a part. `close`: rather close below what is before it. `rule`: a line that is left out
    at the ends of a part. `heading`: its level.
    """

    runs: Sequence[Run]
    level: Level = Level.PARAGRAPH
    gap: str = "\n\n"
    keep: bool = False
    close: bool = False
    rule: bool = False
    heading: int = 0

    @cached_property
    def size(self) -> Size:
        """With its gap."""
        return measure([Run(self.gap), *self.runs])


@dataclass(frozen=True)
class Place:
    """Where the writer stands: marks around everything, indentation, and how blocks are set apart."""

    words: Words
    marks: tuple[Mark, ...] = ()
    depth: int = 0
    gap: str = "\n\n"
    level: Level = Level.PARAGRAPH
    top: int = 1  # the level of the highest heading

    @property
    def indent(self) -> str:
        return "   " * max(self.depth - 1, 0)


def to_blocks(tree: SyntaxTreeNode, tokens: Sequence[Token], words: Words) -> list[Block]:
    """The blocks of a post; `tokens` are those of the tree."""
    levels = (int(token.tag[1]) for token in tokens if token.type == "heading_open")
    top = min(levels, default=1)
    return list(_closed_up(_inside(tree, Place(words, top=top)), top))


def _closed_up(blocks: Iterable[Block], top: int) -> Iterator[Block]:
    """What follows a title, or a line that leads to it, stands close below; so does a picture. A listing has margins."""
    before: Block | None = None
    for block in blocks:
        close = before is not None and (
            (before.keep and before.heading != top) or (block.close and not before.heading)
        )
        apart = block.heading or has(block.runs[0].marks, "pre", "pre-code")
        yield replace(block, gap="\n") if close and not apart else block
        before = block


def joined(blocks: Sequence[Block], marks: tuple[Mark, ...] = ()) -> list[Run]:
    """The runs of several blocks as one list."""
    return merged(
        [
            run
            for index, block in enumerate(blocks)
            for run in ([Run(block.gap, marks)] if index else []) + list(block.runs)
        ]
    )


def _inside(node: SyntaxTreeNode, place: Place) -> Iterator[Block]:
    for child in node.children:
        yield from _WRITERS.get(child.type, _inside)(child, place)


# --- blocks ------------------------------------------------------------------------------------------------------


def _paragraph(node: SyntaxTreeNode, place: Place) -> Iterator[Block]:
    runs = trimmed(inline(node, place.marks, place.words))
    if not runs:
        return
    title = place.depth == 0 and _is_bold(runs)
    lead = title or to_text(runs).endswith(("：", ":"))
    yield Block(
        _indented(runs, place.indent),
        Level.ITEM if title else place.level,
        place.gap,
        keep=lead,
        close=place.depth == 0 and bool(only_pictures(node)),
    )


def only_pictures(node: SyntaxTreeNode) -> list[SyntaxTreeNode]:
    """The pictures of a paragraph that has nothing else."""
    parts = node.children[0].children
    if not any(part.type == "image" for part in parts):
        return []
    shown = [part for part in parts if part.type != "text" or part.content.strip()]
    return shown if all(part.type == "image" for part in shown) else []


def _is_bold(runs: Sequence[Run]) -> bool:
    """Whether a paragraph is one bold line: the title of what follows."""
    return all(has(run.marks, "b") or not run.text.strip() for run in runs) and "\n" not in to_text(runs)


#: Six levels of headings from the post's highest down, by what Telegram has: no sizes, so weight, line and slant.
_HEADINGS: Sequence[Sequence[str]] = (("b", "u"), ("b",), ("b", "i"), ("u",), ("i",), ("i", "u"))


def _heading(node: SyntaxTreeNode, place: Place) -> Iterator[Block]:
    level = int(node.tag[1])
    marks = place.marks
    for tag in _HEADINGS[level - place.top]:
        marks = marked(marks, Mark(tag))
    runs = trimmed(inline(node, marks, place.words))
    if runs:
        rank = Level.SECTION if level == place.top else Level.SUBSECTION
        yield Block(runs, rank, "\n\n", keep=True, heading=level)


_BULLETS = "•◦▪"
TASK = re.compile(r"\[([ xX])\][ \u00a0]")


def _list(node: SyntaxTreeNode, place: Place) -> Iterator[Block]:
    outermost = place.depth == 0
    gap = "\n" if is_tight(node) and not (outermost and _is_wordy(node)) else "\n\n"
    inner = replace(
        place, depth=place.depth + 1, level=Level.PARAGRAPH, gap="\n" if is_tight(node) else "\n\n"
    )
    front = "\n\n" if outermost else gap
    for item, bullet in zip(node.children, list_bullets(node), strict=True):
        blocks = list(_inside(item, inner))
        if not blocks:
            continue
        sign, runs = _without_task(_bullet(bullet, place.depth), blocks[0].runs)
        lead = Run(f"{inner.indent}{sign} ", place.marks)
        yield Block([lead, *_lstripped(runs)], Level.ITEM if outermost else Level.PARAGRAPH, front)
        yield from (replace(one, level=max(one.level, Level.PARAGRAPH), heading=0) for one in blocks[1:])
        front = gap


def _is_wordy(node: SyntaxTreeNode) -> bool:
    """Whether most items are longer than two lines on a phone: without air between them they are a wall."""
    widths = [display_width("".join(map(inline_text, item.children[:1]))) for item in node.children]
    return sum(width > WORDY for width in widths) * 2 > len(widths)


def _bullet(bullet: str, depth: int) -> str:
    return _BULLETS[min(depth, len(_BULLETS) - 1)] if bullet == "•" else bullet


def _without_task(bullet: str, runs: Sequence[Run]) -> tuple[str, Sequence[Run]]:
    """A task's box in place of the bullet."""
    first = next((index for index, run in enumerate(runs) if run.text.strip()), None)
    task = TASK.match(runs[first].text.lstrip()) if first is not None else None
    if first is None or task is None:
        return bullet, runs
    rest = Run(runs[first].text.lstrip()[task.end() :], runs[first].marks)
    return ("☐" if task[1] == " " else "☑"), [rest, *runs[first + 1 :]]


def _quote(node: SyntaxTreeNode, place: Place) -> Iterator[Block]:
    """A quotation is one block, so that it is one entity; a quotation inside it is set in by a bar."""
    nested = has(place.marks, "blockquote")
    inner = replace(place, marks=marked(place.marks, Mark("blockquote")), depth=0)
    runs = joined(list(_inside(node, inner)), inner.marks)
    if nested:
        bar = Run("┃ ", inner.marks)
        runs = merged([bar, *(Run(run.text.replace("\n", "\n┃ "), run.marks) for run in runs)])
    if runs:
        yield Block(runs, place.level, place.gap)


def _code(node: SyntaxTreeNode, place: Place) -> Iterator[Block]:
    text = dedent(node.content).strip("\n")  # an indentation of all lines only costs width
    language = re.sub(r"[^\w+#-].*", "", node.info.strip()) if node.type == "fence" else ""
    mark = Mark("pre-code", language) if language else Mark("pre")
    if place.marks:
        mark = Mark("code")
    if text.strip():
        yield Block([Run(text, marked(place.marks, mark))], place.level, place.gap)


def _rule(_: SyntaxTreeNode, place: Place) -> Iterator[Block]:
    yield Block([Run("———", place.marks)], Level.ITEM, place.gap, rule=True)


def _raw_html(node: SyntaxTreeNode, place: Place) -> Iterator[Block]:
    runs = HtmlWriter(place.marks, place.words).read(node.content)
    runs = trimmed([Run(re.sub(r"[ \t]+\n|\n[ \t]+(?=\n)", "\n", run.text), run.marks) for run in runs])
    if runs:
        yield Block(_indented(runs, place.indent), place.level, place.gap, keep=_is_bold(runs))


def _footnotes(node: SyntaxTreeNode, place: Place) -> Iterator[Block]:
    for index, block in enumerate(_inside(node, replace(place, gap="\n"))):
        yield replace(block, gap="\n\n", level=Level.ITEM) if index == 0 else block


def _footnote(node: SyntaxTreeNode, place: Place) -> Iterator[Block]:
    for index, block in enumerate(_inside(node, place)):
        number = [Run(f"[{node.meta['id'] + 1}] ", place.marks)] if index == 0 else []
        yield replace(block, runs=[*number, *block.runs], keep=False)


# --- tables ------------------------------------------------------------------------------------------------------


def _table(node: SyntaxTreeNode, place: Place) -> Iterator[Block]:
    """Narrow and plain: as it is, in a fixed-width font. Else a row is an item, and links stay links."""
    rows = table_rows(node)
    widths = [max(map(display_width, column)) for column in zip(*rows, strict=True)]
    if sum(widths) + 3 * len(widths) - 3 > PRE_COLUMNS or place.marks or _has_addresses(node):
        yield from _table_items(node, place)
        return
    aligns = [str(cell.attrs.get("align", "")) for cell in node.children[0].children[0].children]
    lines = [" │ ".join(map(_padded, row, widths, aligns)).rstrip() for row in rows]
    rule = "─┼─".join("─" * width for width in widths)
    yield Block([Run("\n".join([lines[0], rule, *lines[1:]]), (Mark("pre"),))], place.level, place.gap)


def _has_addresses(node: SyntaxTreeNode) -> bool:
    return any(found.type in {"link", "image", "html_inline"} for found in node.walk())


def _padded(text: str, width: int, align: str) -> str:
    room = width - display_width(text)
    left = {"right": room, "center": room // 2}.get(align, 0)
    return " " * left + text + " " * (room - left)


def _table_items(node: SyntaxTreeNode, place: Place) -> Iterator[Block]:
    """The head as one line, then for each row its first cell in bold, and "name: value" for the others."""
    head, *rows = [row for part in node.children for row in part.children]
    names = [squeeze(inline_text(cell)) for cell in head.children]
    line = _row_line(head, marked(place.marks, Mark("i")), place.words)
    if line:
        yield Block(line, place.level, place.gap, keep=bool(rows))
    for row in rows:
        runs = _table_item(row, names, place)
        if runs:
            yield Block(_indented(runs, place.indent), place.level, "\n\n" if len(names) > 2 else "\n")


def _row_line(row: SyntaxTreeNode, marks: tuple[Mark, ...], words: Words) -> list[Run]:
    cells = [trimmed(inline(cell, marks, words)) for cell in row.children]
    return [
        run
        for index, cell in enumerate(cell for cell in cells if cell)
        for run in ([Run(" · ", marks)] if index else []) + cell
    ]


def _table_item(row: SyntaxTreeNode, names: Sequence[str], place: Place) -> list[Run]:
    first, *others = [inline(cell, place.marks, place.words) for cell in row.children]
    runs = [
        Run("• ", place.marks),
        *trimmed(inline(row.children[0], marked(place.marks, Mark("b")), place.words)),
    ]
    pairs = [(name, cell) for name, cell in zip(names[1:], map(trimmed, others), strict=False) if cell]
    if not trimmed(first) and not pairs:
        return []
    short = len(names) == 2
    for name, cell in pairs:
        label = "" if short or not name else name
        seam = place.words.joint if short else f"\n   {label}{place.words.joint if label else ''}"
        runs += [Run(seam, place.marks), *cell]
    return runs


# --- inline ------------------------------------------------------------------------------------------------------

_MARKS = {"strong": "b", "em": "i", "s": "s", "code_inline": "code"}


def inline(node: SyntaxTreeNode, marks: tuple[Mark, ...], words: Words) -> list[Run]:
    """The runs of an inline node, or of what stands inside a block."""
    kind = node.type  # a property that costs; this is the hottest place of rendering
    if kind == "text":
        return [Run(node.content, marks)]
    if write := _INLINE.get(kind):
        return write(node, marks, words)
    if kind in _MARKS:
        marks = marked(marks, Mark(_MARKS[kind]))
    return _children(node, marks, words) if node.children else [Run(inline_text(node), marks)]


def _children(node: SyntaxTreeNode, marks: tuple[Mark, ...], words: Words) -> list[Run]:
    if any(child.type == "html_inline" for child in node.children):
        return _mixed(node, marks, words)
    return [run for child in node.children for run in inline(child, marks, words)]


def _mixed(node: SyntaxTreeNode, marks: tuple[Mark, ...], words: Words) -> list[Run]:
    """Markdown between HTML tags: a tag that is open marks what follows, until this node ends."""
    writer = HtmlWriter(marks, words)
    for child in node.children:
        if child.type == "html_inline":
            writer.feed(child.content)
        elif child.type == "text":
            writer.add_text(child.content)
        else:
            writer.add(inline(child, writer.marks, words))
    return writer.finish()


def _link(node: SyntaxTreeNode, marks: tuple[Mark, ...], words: Words) -> list[Run]:
    address = str(node.attrs.get("href", ""))
    if address.lower().startswith("mailto:"):
        # Telegram drops such a link, and finds a bare address by itself.
        return [Run(inline_text(node, text_and_address), marks)]
    return linked(_children(node, link_marks(address, marks), words), address, marks)


def _picture(node: SyntaxTreeNode, marks: tuple[Mark, ...], words: Words) -> list[Run]:
    return picture(picture_alt(node), str(node.attrs.get("src", "")), marks, words)


_INLINE: Mapping[str, Callable[[SyntaxTreeNode, tuple[Mark, ...], Words], list[Run]]] = {
    "link": _link,
    "image": _picture,
}


_WRITERS: Mapping[str, Callable[[SyntaxTreeNode, Place], Iterator[Block]]] = {
    "paragraph": _paragraph,
    "heading": _heading,
    "bullet_list": _list,
    "ordered_list": _list,
    "blockquote": _quote,
    "fence": _code,
    "code_block": _code,
    "table": _table,
    "hr": _rule,
    "html_block": _raw_html,
    "footnote_block": _footnotes,
    "footnote": _footnote,
}


def _lstripped(runs: Sequence[Run]) -> list[Run]:
    """Without white space in front; a line of code keeps its indentation."""
    rest = [run for run in runs if run.text]
    while rest and not rest[0].text.strip():
        rest.pop(0)
    if not rest or has(rest[0].marks, "pre", "pre-code"):
        return rest
    return [Run(rest[0].text.lstrip(), rest[0].marks), *rest[1:]]


def _indented(runs: Sequence[Run], indent: str) -> list[Run]:
    """Every line moved to the right."""
    if not indent or not runs:
        return list(runs)
    marks = tuple(mark for mark in runs[0].marks if mark.tag == "blockquote")
    return [Run(indent, marks), *(Run(run.text.replace("\n", f"\n{indent}"), run.marks) for run in runs)]
