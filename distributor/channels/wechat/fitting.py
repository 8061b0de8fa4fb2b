"""An article within what WeChat takes: whole if it can be, else its beginning and where the rest is."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from distributor.channels.wechat.article import ITEM, PARAGRAPH, SECTION, Article, Block, attribute
from distributor.rendering import SENTENCE_END, cut, escape_text, longest_prefix, utf8_bytes, utf16_units

#: `content` of draft/add: below 20,000 characters, tags included, and below 1 MB.
MOST_CHARACTERS = 19_999
MOST_BYTES = 1_000_000
#: Characters of the address that a picture gets when WeChat hosts it; some 150 were seen.
HOSTED_ADDRESS = 160
#: What a cut comes before → the share of the blocks that fit which it must leave, to be taken.
GOOD_CUTS: Mapping[int, float] = {SECTION: 0.75, ITEM: 0.5, PARAGRAPH: 0.0}


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """An article with its styles, and what stands below the blocks whatever is cut; `gap` stands between blocks."""

    article: Article
    styles: Mapping[str, str]
    heading: str
    label: str
    more: str = ""
    gap: str = ""

    def html(self, blocks: Sequence[Block] | None = None) -> str:
        """These blocks, or all, with the notes that they refer to."""
        shown = self.article.blocks if blocks is None else blocks
        notes = (
            self.article.notes if blocks is None else self.article.notes[: shown[-1].notes if shown else 0]
        )
        title = self._element("p", "notes-title", escape_text(self.heading))
        inner = (
            self.gap.join(block.html for block in shown),
            self._element("p", "more", escape_text(self.more)),
            self._element("section", "notes", title + "".join(notes)) if notes else "",
            self._element("p", "label", escape_text(self.label)),
        )
        return self._element("section", "article", "".join(inner))

    def paragraph(self, text: str, notes: int) -> Block:
        return Block(self._element("p", "p", escape_text(text)), text, PARAGRAPH, notes)

    def _element(self, tag: str, style: str, inner: str) -> str:
        return f"<{tag}{attribute('style', self.styles.get(style, ''))}>{inner}</{tag}>" if inner else ""


def size(html: str) -> int:
    """Characters of a content once WeChat hosts its pictures."""
    addresses = re.findall(r'<img src="([^"]*)"', html)
    return utf16_units(html) + sum(max(HOSTED_ADDRESS - len(address), 0) for address in addresses)


def fits(html: str) -> bool:
    return size(html) <= MOST_CHARACTERS and utf8_bytes(html) < MOST_BYTES


def teaser(sheet: Sheet) -> Sequence[Block]:
    """As many blocks as there is room for, cut before a section, else an item, else a paragraph."""
    blocks = sheet.article.blocks
    most = longest_prefix(len(blocks) - 1, lambda count: fits(sheet.html(blocks[:count])))
    if size(sheet.html(blocks[:most])) * 2 < MOST_CHARACTERS:  # what follows is very long by itself
        return [*blocks[:most], *_beginning(sheet, most)]
    for level, share in GOOD_CUTS.items():
        for count in range(most, int(most * share), -1):
            if blocks[count].level <= level and blocks[count - 1].level != SECTION:
                return blocks[:count]
    return blocks[:most]


def _beginning(sheet: Sheet, place: int) -> Sequence[Block]:
    """The beginning of a block as plain text, up to a sentence's end."""
    block, before = sheet.article.blocks[place], sheet.article.blocks[:place]

    def cut_at(length: int) -> Block:
        text = block.text[:length]
        ends = [found.start() for found in SENTENCE_END.finditer(text) if found.start() * 2 > length]
        shown = text[: ends[-1]] if ends else cut(block.text, max(length, 1))
        return sheet.paragraph(shown, before[-1].notes if before else 0)

    length = longest_prefix(len(block.text), lambda count: fits(sheet.html([*before, cut_at(count)])))
    return [cut_at(length)] if length else []
