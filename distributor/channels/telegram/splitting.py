"""Blocks in parts that Telegram takes whole.

Three limits hold for every part, and only two are answered with an error: 4096 UTF-16 units of visible text, 100 entities
(Telegram drops the rest without a word), and about 9,500 bytes of entities (ENTITIES_TOO_LONG).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from distributor.channels.telegram.blocks import Block, Level, joined
from distributor.channels.telegram.marks import Run, Size, measure, prefix, span_at, suffix, to_text
from distributor.rendering import SENTENCE_END, longest_prefix, safe_cut, utf16_units

#: facts of the Bot API and its server (tdlib); 100 bytes below the 9,500 that ENTITIES_TOO_LONG begins at.
LIMIT = Size(units=4096, entities=100, bytes=9400)
#: "(999/999)" and the empty line below it.
HEADER = Size(units=11, entities=0, bytes=0)
NOTHING = Size(0, 0, 0)

#: A part costs a reader a notification; a cut costs by what it goes through. In hundredths of a part.
PART = 100
CUT = {Level.SECTION: 0, Level.SUBSECTION: 8, Level.ITEM: 14, Level.PARAGRAPH: 30, Level.SENTENCE: 60}
#: × the square of how full a part is: the sum is smallest when parts are alike.
UNEVEN = 40
#: A last part with a line or two looks forgotten.
TINY, TINY_COST = 0.15, 25
#: Blocks are put together up to this share of a part before cuts are weighed.
ATOM = 32


def split(
    blocks: Sequence[Block], footer: Block | None = None, limit: Size = LIMIT, first: Size = NOTHING
) -> list[list[Block]]:
    """Blocks in parts within `limit`; one part when it all fits, else with room for "(i/n)" in each and `first` in the first.

    Of all ways to cut, the one with the fewest parts, the mildest cuts and the most even parts, in that order of weight.
    """
    ending = [footer] if footer else []
    if _fits([*blocks, *ending], limit):
        return [[*blocks, *ending]]
    room = limit.minus(HEADER)
    last = footer.size if footer else NOTHING
    narrow = room.minus(first).minus(last)
    atoms = list(_atoms([piece for block in blocks for piece in _pieces(block, narrow)], narrow))
    parts = _packed(atoms, room, first, last)
    parts[-1] = [*parts[-1], *ending]
    return parts


def _fits(blocks: Sequence[Block], limit: Size) -> bool:
    """Blocks cost less together than each for itself: equal marks that meet are one."""
    units = sum(block.size.units for block in blocks) - utf16_units(blocks[0].gap)
    return units <= limit.units and measure(joined(blocks)).within(limit)


# --- which cuts --------------------------------------------------------------------------------------------------


class _Atom(NamedTuple):
    """Blocks that no cut separates, and what they cost together."""

    blocks: list[Block]
    size: Size


def _atoms(blocks: Sequence[Block], room: Size) -> Iterator[_Atom]:
    """A heading with what it heads; small blocks together, so that the number of cuts to weigh stays small."""
    small, half = room.divided(ATOM), room.divided(2)
    open_, size = list[Block](), NOTHING
    for block in blocks:
        larger = size.plus(block.size)
        together = open_ and (
            larger.within(room)
            if open_[-1].keep
            else block.level > Level.ITEM and size.within(small) and larger.within(half)
        )
        if open_ and not together:
            yield _Atom(open_, size)
            open_, size = [], NOTHING
        open_, size = [*open_, block], size.plus(block.size)
    if open_:
        yield _Atom(open_, size)


def _packed(atoms: Sequence[_Atom], room: Size, first: Size, last: Size) -> list[list[Block]]:
    """The cheapest way to cut: `cost[end]` is that of the best way to put the atoms before `end` into parts."""
    count = len(atoms)
    cost, begin = [0.0] + [math.inf] * count, [0] * (count + 1)
    for end in range(1, count + 1):
        extra = last if end == count else NOTHING
        cut = CUT[atoms[end].blocks[0].level] if end < count else 0
        for start, filled in _fillings(atoms, end, room, first, extra):
            price = cost[start] + PART + cut + UNEVEN * filled * filled
            if end == count and start and filled < TINY:
                price += TINY_COST
            if price < cost[end]:
                cost[end], begin[end] = price, start
    parts, end = list[list[Block]](), count
    while end > 0:
        start = begin[end]
        parts.insert(0, [block for atom in atoms[start:end] for block in atom.blocks])
        end = start
    return parts


def _fillings(
    atoms: Sequence[_Atom], end: int, room: Size, first: Size, extra: Size
) -> Iterator[tuple[int, float]]:
    """Where a part that ends before `end` may begin, and how full it would be; plain numbers, since this is the hot loop."""
    units, entities, size = extra
    for start in range(end - 1, -1, -1):
        one = atoms[start].size
        units, entities, size = units + one.units, entities + one.entities, size + one.bytes
        if start == 0:
            units, entities, size = units + first.units, entities + first.entities, size + first.bytes
        filled = max(units / room.units, entities / room.entities, size / room.bytes)
        if filled > 1:
            return
        yield start, filled


# --- blocks that are too long ------------------------------------------------------------------------------------


def _pieces(block: Block, room: Size) -> Iterator[Block]:
    """The block itself, or sentences of one that fills more than half a part.

    Pieces that meet again in one part join without a seam: their gap is empty and equal marks become one.
    """
    if block.size.within(room.divided(2)):
        yield block
        return
    runs, gap, level = joined([block]), block.gap, block.level
    while runs:
        count = _cut_place(runs, _longest_fit(runs, room.divided(4)), room)
        yield replace(block, runs=prefix(runs, count), level=level, gap=gap)
        runs, gap, level = suffix(runs, count), "", Level.SENTENCE


def _longest_fit(runs: Sequence[Run], room: Size) -> int:
    length = sum(len(run.text) for run in runs)
    return longest_prefix(length, lambda count: measure(prefix(runs, count)).within(room))


def _cut_place(runs: Sequence[Run], longest: int, most: Size) -> int:
    """The last end of a sentence in the second half of what fits, else the limit itself; links stay whole within `most`."""
    text = to_text(runs)
    if longest == len(text):
        return longest
    half = longest // 2
    ends = [match.end() for match in SENTENCE_END.finditer(text, half, longest) if match.end() > half]
    place = next((end for end in reversed(ends) if span_at(runs, end) is None), 0) or max(longest, 1)
    if span := span_at(runs, place):
        # before the link that the limit falls into; else behind it; or through it, when it alone is longer than a part
        fitting = measure(prefix(runs, span[1])).within(most)
        place = span[0] or (span[1] if fitting else place)
    return max(safe_cut(text, place), 1)
