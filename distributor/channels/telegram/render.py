"""A post as Telegram messages: the HTML subset its parser knows, in parts that it will not cut.

Three limits hold for every part, and only the last one is answered with an error: 4096 UTF-16 units of visible text,
100 entities (Telegram drops the rest without a word), and about 9,500 bytes of markup.

A block is a list of runs; a run is text with the marks (tags) around it, outermost first. Any cut of a block is valid
HTML again, because tags are written per part.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from itertools import groupby
from typing import NamedTuple

from markdown_it.tree import SyntaxTreeNode

from distributor.model import Message, Post
from distributor.rendering import (
    SENTENCE_END,
    WORDING,
    Document,
    HtmlReader,
    Wording,
    display_width,
    escape_text,
    headline,
    inline_text,
    is_tight,
    language_of,
    list_bullets,
    local_day,
    longest_prefix,
    parse,
    picture_alt,
    safe_cut,
    squeeze,
    table_rows,
    text_and_address,
    utf8_bytes,
    utf16_units,
    web_address,
)
from distributor.settings import Newsletter

PRE_COLUMNS = 40  # a wider table wraps on a phone and is unreadable as <pre>
LONGEST_LINK = 2048  # bytes, escaped; above, the text stays and the link goes


class Mark(NamedTuple):
    """One tag: its name, and the address or code language that belongs to it."""

    tag: str
    value: str = ""

    @property
    def opening(self) -> str:
        return _OPENING.get(self.tag, f"<{self.tag}>").format(self.value)

    @property
    def closing(self) -> str:
        return "</code></pre>" if self.tag == "pre-code" else f"</{self.tag}>"


_OPENING = {"a": '<a href="{}">', "pre-code": '<pre><code class="language-{}">'}


@dataclass(frozen=True)
class Run:
    """Text inside the same marks."""

    text: str
    marks: tuple[Mark, ...] = ()


class Level(IntEnum):
    """What begins at a block; a part would rather end before a lower one."""

    SECTION = 1
    ITEM = 2
    PARAGRAPH = 3


@dataclass(frozen=True)
class Block:
    """Runs that stand together, and the white space in front of them unless they begin a part."""

    runs: Sequence[Run]
    level: Level = Level.ITEM
    gap: str = "\n\n"


class Size(NamedTuple):
    """What a text costs, or may cost."""

    units: int
    entities: int
    bytes: int

    def plus(self, other: "Size") -> "Size":
        return Size(*(a + b for a, b in zip(self, other, strict=True)))

    def divided(self, by: int) -> "Size":
        return Size(*(value // by for value in self))

    def within(self, limit: "Size") -> bool:
        return all(a <= b for a, b in zip(self, limit, strict=True))


#: facts of the Bot API and its server (tdlib); 100 bytes below the 9,500 that ENTITIES_TOO_LONG begins at.
LIMIT = Size(units=4096, entities=100, bytes=9400)
#: "(999/999)" and the empty line below it.
HEADER = Size(units=11, entities=0, bytes=11)

#: What the server links by itself counts as an entity too: addresses, @names, #tags, /commands, $TICKERS.
_DETECTED = re.compile(r"https?://\S|(?<!\w)[@#/$]\w|\w@\w|\w\.\w")


def render_telegram(post: Post, newsletter: Newsletter) -> list[Message]:
    """The parts of one message; the cover is the link preview of the first. Raises PostError."""
    document = parse(post)
    wording = WORDING[language_of(post, newsletter)]
    blocks = [_title(post, newsletter, wording), *_blocks(document)]
    parts = split(blocks, _footer(post, newsletter, wording))
    return [
        Message(
            channel="telegram",
            variant="default",
            part=number,
            parts=len(parts),
            content=_content(part, number, len(parts), post.cover_image if number == 1 else None),
            warnings=document.warnings if number == 1 else (),
        )
        for number, part in enumerate(parts, 1)
    ]


def _content(blocks: Sequence[Block], number: int, parts: int, cover: str | None) -> Mapping[str, str]:
    header = f"({number}/{parts})\n\n" if parts > 1 else ""
    runs = _trimmed(_joined(blocks))
    return {
        "html": header + to_markup(runs),
        "plain": header + "".join(run.text for run in runs),
        "preview_url": cover or "",
    }


def _title(post: Post, newsletter: Newsletter, wording: Wording) -> Block:
    day = local_day(post, newsletter)
    date = [Run(f"\n{wording.date(day)}")] if day else []
    lead = [Run("\n\n"), Run(squeeze(post.description), (Mark("i"),))] if post.description else []
    return Block([Run(headline(post), (Mark("b"),)), *date, *lead], Level.SECTION)


def _footer(post: Post, newsletter: Newsletter, wording: Wording) -> Block | None:
    address = web_address(post, newsletter)
    return Block([Run(wording.read_on_web, _link(address))], Level.PARAGRAPH) if address else None


# --- markup ------------------------------------------------------------------------------------------------------


def to_markup(runs: Sequence[Run]) -> str:
    """Runs as Telegram's HTML. Only `&`, `<`, `>` and, in attributes, `"` are escaped: its parser knows no more."""
    pieces, open_marks = list[str](), tuple[Mark, ...]()
    for run in [*runs, Run("")]:
        shared = _shared(open_marks, run.marks)
        pieces += [mark.closing for mark in reversed(open_marks[shared:])]
        pieces += [mark.opening for mark in run.marks[shared:]]
        pieces.append(escape_text(run.text))
        open_marks = run.marks
    return "".join(pieces)


def count_entities(html: str) -> int:
    """Entities in our markup, with those that the server finds by itself."""
    tags = len(re.findall(r"<(?!/)(?!code class=)", html))
    return tags + len(_DETECTED.findall(re.sub(r"<[^>]*>", "", html)))


def measure(runs: Sequence[Run]) -> Size:
    """What the runs cost as a message."""
    html = to_markup(runs)
    text = "".join(run.text for run in runs)
    return Size(utf16_units(text), count_entities(html), utf8_bytes(html))


def _shared(one: Sequence[Mark], other: Sequence[Mark]) -> int:
    return next(
        (index for index, (a, b) in enumerate(zip(one, other, strict=False)) if a != b),
        min(len(one), len(other)),
    )


def _marked(marks: tuple[Mark, ...], mark: Mark) -> tuple[Mark, ...]:
    """`marks` with one more inside, as far as Telegram lets tags nest: code and pre stand alone, but for a quotation."""
    tags = [outer.tag for outer in marks]
    if mark.tag in tags or (mark.tag == "code" and "a" in tags):
        return marks
    if mark.tag in {"code", "pre", "pre-code"}:
        return (*(outer for outer in marks if outer.tag == "blockquote"), mark)
    return (*marks, mark)


def _link(address: str) -> tuple[Mark, ...]:
    escaped = escape_text(address).replace('"', "&quot;")
    return (Mark("a", escaped),) if utf8_bytes(escaped) <= LONGEST_LINK else ()


# --- Markdown to blocks ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """Where the writer stands: marks around everything, indentation, and how blocks are set apart."""

    marks: tuple[Mark, ...] = ()
    depth: int = 0
    gap: str = "\n\n"
    level: Level = Level.ITEM

    @property
    def indent(self) -> str:
        return "   " * max(self.depth - 1, 0)


def _blocks(document: Document) -> list[Block]:
    return list(_inside(document.tree, Place()))


def _inside(node: SyntaxTreeNode, place: Place) -> Iterator[Block]:
    for child in node.children:
        yield from _WRITERS.get(child.type, _inside)(child, place)


def _paragraph(node: SyntaxTreeNode, place: Place) -> Iterator[Block]:
    runs = _trimmed(_inline(node, place.marks))
    if any(run.text.strip() for run in runs):
        yield Block(_indented(runs, place.indent), place.level, place.gap)


def _heading(node: SyntaxTreeNode, place: Place) -> Iterator[Block]:
    runs = _trimmed(_inline(node, _marked(place.marks, Mark("b"))))
    if any(run.text.strip() for run in runs):
        yield Block(runs, Level.SECTION, "\n\n")


def _list(node: SyntaxTreeNode, place: Place) -> Iterator[Block]:
    gap = "\n" if is_tight(node) else "\n\n"
    inner = replace(place, depth=place.depth + 1, level=Level.PARAGRAPH, gap=gap)
    for number, (item, bullet) in enumerate(zip(node.children, list_bullets(node), strict=True)):
        blocks = list(_inside(item, inner))
        level = Level.ITEM if place.depth == 0 else Level.PARAGRAPH
        for index, block in enumerate(blocks):
            first = index == 0
            lead = f"{inner.indent}{bullet} "
            runs = [Run(lead, place.marks), *_lstripped(block.runs)] if first else block.runs
            yield Block(
                runs,
                level if first else Level.PARAGRAPH,
                "\n\n" if first and number == 0 and place.depth == 0 else gap,
            )


def _quote(node: SyntaxTreeNode, place: Place) -> Iterator[Block]:
    """A quotation is one block, so that it is one entity."""
    inner = replace(place, marks=_marked(place.marks, Mark("blockquote")), depth=0)
    runs = _joined(list(_inside(node, inner)), inner.marks)
    if runs:
        yield Block(runs, place.level, place.gap)


def _code(node: SyntaxTreeNode, place: Place) -> Iterator[Block]:
    text = node.content.strip("\n")
    language = re.sub(r"[^\w+#-].*", "", node.info.strip()) if node.type == "fence" else ""
    mark = Mark("pre-code", language) if language else Mark("pre")
    if place.marks:
        mark = Mark("code")
    if text.strip():
        yield Block([Run(text, _marked(place.marks, mark))], place.level, place.gap)


def _table(node: SyntaxTreeNode, place: Place) -> Iterator[Block]:
    rows = table_rows(node)
    widths = [max(map(display_width, column)) for column in zip(*rows, strict=True)]
    if sum(widths) + 3 * len(widths) > PRE_COLUMNS or place.marks:
        yield from _table_rows(node, place)
        return
    lines = [" │ ".join(map(_padded, row, widths)).rstrip() for row in rows]
    rule = "─┼─".join("─" * width for width in widths)
    yield Block([Run("\n".join([lines[0], rule, *lines[1:]]), (Mark("pre"),))], place.level, place.gap)


def _table_rows(node: SyntaxTreeNode, place: Place) -> Iterator[Block]:
    rows = [row for part in node.children for row in part.children]
    head = rows[0]
    for row in rows[1:]:
        runs = list[Run]()
        for name, cell in zip(head.children, row.children, strict=False):
            label = Run(f"{squeeze(inline_text(name))}: ", _marked(place.marks, Mark("b")))
            runs += [Run("\n" if runs else "", place.marks), label, *_inline(cell, place.marks)]
        yield Block(_trimmed(runs), place.level, place.gap)


def _padded(text: str, width: int) -> str:
    return text + " " * (width - display_width(text))


def _rule(_: SyntaxTreeNode, place: Place) -> Iterator[Block]:
    yield Block([Run("———", place.marks)], Level.ITEM, place.gap)


def _raw_html(node: SyntaxTreeNode, place: Place) -> Iterator[Block]:
    lines = [squeeze(line) for line in HtmlReader(node.content).text.split("\n")]
    if text := "\n".join(line for line in lines if line):
        yield Block([Run(text, place.marks)], place.level, place.gap)


def _footnotes(node: SyntaxTreeNode, place: Place) -> Iterator[Block]:
    for index, block in enumerate(_inside(node, replace(place, gap="\n"))):
        yield replace(block, gap="\n\n") if index == 0 else block


def _footnote(node: SyntaxTreeNode, place: Place) -> Iterator[Block]:
    for index, block in enumerate(_inside(node, place)):
        number = [Run(f"[{node.meta['id'] + 1}] ", place.marks)] if index == 0 else []
        yield replace(block, runs=[*number, *block.runs])


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

_INLINE_MARKS = {"strong": "b", "em": "i", "s": "s", "code_inline": "code"}


def _inline(node: SyntaxTreeNode, marks: tuple[Mark, ...]) -> list[Run]:
    if node.type in _INLINE_MARKS:
        marks = _marked(marks, Mark(_INLINE_MARKS[node.type]))
    if str(node.attrs.get("href", "")).startswith("mailto:"):
        # Telegram drops such a link, and finds a bare address by itself.
        return [Run(inline_text(node, text_and_address), marks)]
    if node.type in {"link", "image"}:
        for mark in _link(str(node.attrs.get("href") or node.attrs.get("src") or "")):
            marks = _marked(marks, mark)
    if node.type == "image":
        return [Run(f"🖼 {squeeze(picture_alt(node))}".strip(), marks)]
    if not node.children:
        return [Run(inline_text(node), marks)]
    return [run for child in node.children for run in _inline(child, marks)]


# --- runs --------------------------------------------------------------------------------------------------------


def _joined(blocks: Sequence[Block], marks: tuple[Mark, ...] = ()) -> list[Run]:
    """The runs of several blocks as one list; adjacent runs with equal marks become one."""
    runs = [
        run
        for index, block in enumerate(blocks)
        for run in ([Run(block.gap, marks)] if index else []) + list(block.runs)
    ]
    groups = groupby((run for run in runs if run.text), key=lambda run: run.marks)
    return [Run("".join(run.text for run in group), marks) for marks, group in groups]


def _trimmed(runs: Sequence[Run]) -> list[Run]:
    """Without white space at both ends."""
    turned = [Run(run.text[::-1], run.marks) for run in reversed(_lstripped(runs))]
    return [Run(run.text[::-1], run.marks) for run in reversed(_lstripped(turned))]


def _lstripped(runs: Sequence[Run]) -> list[Run]:
    """Without white space in front; a line of code keeps its indentation."""
    rest = list(runs)
    while rest and not rest[0].text.strip():
        rest.pop(0)
    if not rest or any(mark.tag.startswith("pre") for mark in rest[0].marks):
        return rest
    return [Run(rest[0].text.lstrip(), rest[0].marks), *rest[1:]]


def _indented(runs: Sequence[Run], indent: str) -> list[Run]:
    """Every line moved to the right, but never inside a link's text."""
    if not indent:
        return list(runs)
    marks = tuple(mark for mark in runs[0].marks if mark.tag == "blockquote") if runs else ()
    return [Run(indent, marks), *(Run(run.text.replace("\n", f"\n{indent}"), run.marks) for run in runs)]


# --- splitting ---------------------------------------------------------------------------------------------------


def split(blocks: Sequence[Block], footer: Block | None = None, limit: Size = LIMIT) -> list[list[Block]]:
    """Blocks in parts within `limit`; one part when it all fits, else with room for "(i/n)" in each.

    A part ends before a section rather than before an item, before an item rather than inside one, at the end of a
    sentence rather than inside it, provided that it is half full.
    """
    ending = [footer] if footer else []
    if _cost([*blocks, *ending]).within(limit):
        return [[*blocks, *ending]]
    reserve = HEADER.plus(_cost([Block([]), *ending]))
    room = Size(*(a - b for a, b in zip(limit, reserve, strict=True)))
    parts = _packed([piece for block in blocks for piece in _pieces(block, room)], room)
    parts[-1] = [*parts[-1], *ending]
    return parts


def _cost(blocks: Sequence[Block]) -> Size:
    return measure(_joined(blocks))


def _packed(blocks: Sequence[Block], room: Size) -> list[list[Block]]:
    sizes = [measure([Run(block.gap), *block.runs]) for block in blocks]
    parts, start = list[list[Block]](), 0
    while start < len(blocks):
        end, total = start, Size(0, 0, 0)
        while end < len(blocks) and (end == start or total.plus(sizes[end]).within(room)):
            total = total.plus(sizes[end])
            end += 1
        if end < len(blocks):
            end = _best_end(blocks, sizes, start, end, room)
        parts.append(list(blocks[start:end]))
        start = end
    return parts


def _best_end(blocks: Sequence[Block], sizes: Sequence[Size], start: int, end: int, room: Size) -> int:
    """Where a part that could reach `end` should stop; a heading is never left behind at its foot."""
    filled, total = dict[int, bool](), Size(0, 0, 0)
    for index in range(start + 1, end + 1):
        total = total.plus(sizes[index - 1])
        filled[index] = not total.plus(total).within(room)
    for level in Level:
        for index in range(end, start, -1):
            if filled[index] and blocks[index].level <= level and blocks[index - 1].level != Level.SECTION:
                return index
    while end - 1 > start and blocks[end - 1].level == Level.SECTION:
        end -= 1
    return end


def _pieces(block: Block, room: Size) -> Iterator[Block]:
    """The block itself, or sentences of one that fills more than half a part.

    Pieces that meet again in one part join without a seam: their gap is empty and equal marks become one.
    """
    if measure([Run(block.gap), *block.runs]).within(room.divided(2)):
        yield block
        return
    runs, gap, level = _joined([block]), block.gap, block.level
    while runs:
        count = _cut_place(runs, _longest_fit(runs, room.divided(4)))
        yield Block(_prefix(runs, count), level, gap)
        runs, gap, level = _suffix(runs, count), "", Level.PARAGRAPH


def _longest_fit(runs: Sequence[Run], room: Size) -> int:
    length = sum(len(run.text) for run in runs)
    return longest_prefix(length, lambda count: measure(_prefix(runs, count)).within(room))


def _cut_place(runs: Sequence[Run], longest: int) -> int:
    """The last end of a sentence in the second half of what fits, else the limit itself; links stay whole."""
    text = "".join(run.text for run in runs)
    if longest == len(text):
        return longest
    half = longest // 2
    ends = [match.end() for match in SENTENCE_END.finditer(text, half, longest) if match.end() > half]
    whole = (end for end in reversed(ends) if _link_start(runs, end) == end)
    # without one, before the link that the limit falls into, unless that link alone is longer than what fits
    place = next(whole, 0) or _link_start(runs, longest) or longest
    return max(safe_cut(text, place), 1)


def _link_start(runs: Sequence[Run], place: int) -> int:
    """`place`, or the beginning of the link that `place` falls into."""
    end = 0
    for link, group in groupby(
        runs, key=lambda run: next((mark for mark in run.marks if mark.tag == "a"), None)
    ):
        start, end = end, end + sum(len(run.text) for run in group)
        if link and start < place < end:
            return start
    return place


def _prefix(runs: Sequence[Run], count: int) -> list[Run]:
    kept = list[Run]()
    for run in runs:
        if count <= 0:
            break
        kept.append(Run(run.text[:count], run.marks))
        count -= len(run.text)
    return kept


def _suffix(runs: Sequence[Run], count: int) -> list[Run]:
    kept = list[Run]()
    for run in runs:
        if count < len(run.text):
            kept.append(Run(run.text[max(count, 0) :], run.marks))
        count -= len(run.text)
    return kept
