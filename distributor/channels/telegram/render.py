"""A post as Telegram messages: the parts as every chat gets them, and what public chats and rich messages get beside them.

Variants: "default"; "public", whose last part is no message but an edit that links the contents to the parts; "rich",
whose first part holds a rich message in place of them all, and which is "default" where that is refused.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from distributor.channels.telegram.blocks import Block, Level, joined, to_blocks
from distributor.channels.telegram.marks import (
    Mark,
    Run,
    Size,
    count_entities,
    measure,
    tidied,
    to_entities,
    to_markup,
    to_text,
    trimmed,
)
from distributor.channels.telegram.raw import LONGEST_ADDRESS, address_after, link_marks
from distributor.channels.telegram.rich import to_rich
from distributor.channels.telegram.splitting import LIMIT, NOTHING, split
from distributor.channels.telegram.words import PART_ADDRESS, WORDS, Words
from distributor.model import Message, Post
from distributor.rendering import (
    WORDING,
    Document,
    ai_label,
    cut,
    display_width,
    headline,
    language_of,
    local_day,
    parse,
    squeeze,
    utf8_bytes,
    web_address,
)
from distributor.settings import Newsletter, TelegramDestination

__all__ = ["LIMIT", "count_entities", "render_telegram", "variant_of"]

DEFAULT, PUBLIC, RICH = "default", "public", "rich"
#: Sections the contents name, and how much of their names (in columns: a Han character fills two).
MOST_ENTRIES, LONGEST_NAME = 20, 32
#: As long as "https://t.me/" + a name of 32 + a topic + a message id gets.
_LONGEST_ADDRESS = "x" * 70


def variant_of(place: TelegramDestination) -> str:
    """Which of a post's messages a destination gets."""
    if place.format == "rich":
        return RICH
    return PUBLIC if place.chat.startswith("@") else DEFAULT


@dataclass(frozen=True)
class _Plan:
    """A post in parts, with what is needed to write them."""

    parts: Sequence[Sequence[Block]]
    sections: Sequence[tuple[str, int]]  # name, number of its part
    words: Words
    cover: str

    def content(self, number: int, *, linked: bool = False) -> Mapping[str, str]:
        blocks = _without_end_rules(self.parts[number - 1])
        if number == 1 and self.sections:
            contents = _contents(self.sections, len(self.parts), self.words, linked)
            place = next((n for n, block in enumerate(blocks) if n and block.gap), len(blocks))
            blocks = [
                *blocks[:place],
                contents,
                *blocks[place:],
            ]  # behind the title, and behind all of a long one
        header = [Run(f"({number}/{len(self.parts)})\n\n")] if len(self.parts) > 1 else []
        runs = tidied([*header, *trimmed(joined(blocks))])
        return {
            "html": to_markup(runs),
            "plain": to_text(runs),
            "entities": json.dumps(to_entities(runs), ensure_ascii=False),
            "preview_url": self.cover if number == 1 else "",
        }


def render_telegram(post: Post, newsletter: Newsletter) -> list[Message]:
    """The messages of every variant that the newsletter's chats need. Raises PostError."""
    document = parse(post)
    tree = document.tree
    words = WORDS[language_of(post, newsletter)]
    title, footer = _title(post, newsletter), _footer(post, newsletter)
    plan = _plan([title, *to_blocks(tree, document.tokens, words)], footer, words, post.cover_image or "")
    contents = [plan.content(number) for number in range(1, len(plan.parts) + 1)]
    warnings = [*document.warnings, *_address_warnings(document, post)]
    table = newsletter.channel_settings.telegram
    wanted = {variant_of(place) for place in (table.destinations if table else ())}
    messages = _messages(DEFAULT, contents, warnings)
    if PUBLIC in wanted:
        messages += _messages(PUBLIC, [*contents, *_edits(plan)])
    if RICH in wanted:
        rich = to_rich(tree, title.runs, footer.runs if footer else (), post.cover_image, words)
        missing = () if rich else (f"{post.path}: over the limits of a rich message: Telegram gets parts",)
        messages += _messages(RICH, [{**contents[0], "rich": rich}, *contents[1:]], missing)
    return messages


def _messages(
    variant: str, contents: Sequence[Mapping[str, str]], warnings: Sequence[str] = ()
) -> list[Message]:
    """Warnings stand at the first part; those about the post are told once, with the default variant."""
    return [
        Message(
            channel="telegram",
            variant=variant,
            part=part,
            parts=len(contents),
            content=content,
            placeholders=tuple(dict.fromkeys(_PART_ADDRESS.findall(content["html"])))
            if "edits" in content
            else (),
            warnings=warnings if part == 1 else (),
        )
        for part, content in enumerate(contents, 1)
    ]


_PART_ADDRESS = re.compile(PART_ADDRESS.format(r"\d+"))


# --- around the post ---------------------------------------------------------------------------------------------


def _title(post: Post, newsletter: Newsletter) -> Block:
    day = local_day(post, newsletter)
    wording = WORDING[language_of(post, newsletter)]
    date = [Run(f"\n{wording.date(day)}")] if day else []
    lead = [Run("\n\n"), Run(squeeze(post.description), (Mark("i"),))] if post.description else []
    return Block([Run(headline(post), (Mark("b"),)), *date, *lead], Level.SECTION, keep=True)


def _footer(post: Post, newsletter: Newsletter) -> Block | None:
    """Where the full text lives, and what part a machine had in it, on one line."""
    address, label = web_address(post, newsletter), ai_label(post, newsletter)
    read = WORDING[language_of(post, newsletter)].read_on_web
    runs = _linked_text(read, address) if address else []
    if label:
        runs = [*runs, *([Run(" · ")] if runs else []), Run(label, (Mark("i"),))]
    return Block(runs) if runs else None


def _linked_text(text: str, address: str) -> list[Run]:
    marks = link_marks(address, ())
    return [Run(text, marks), *([] if marks else address_after(address, (), after_text=True))]


def _address_warnings(document: Document, post: Post) -> list[str]:
    return [
        f"{post.path}: the address {link[:60]}… is longer than {LONGEST_ADDRESS} bytes: Telegram shows its text alone"
        for token in document.tokens
        for link in (str(child.attrs.get("href", "")) for child in token.children or ())
        if utf8_bytes(link) > LONGEST_ADDRESS
    ]


# --- parts -------------------------------------------------------------------------------------------------------


def _plan(blocks: Sequence[Block], footer: Block | None, words: Words, cover: str) -> _Plan:
    names = _section_names(blocks)
    parts = split(blocks, footer, first=_room_for_contents(names, words))
    sections = _sections(parts, _top_level(blocks)) if names and len(parts) > 1 else []
    return _Plan(parts, sections if any(part > 1 for _, part in sections) else [], words, cover)


def _top_level(blocks: Sequence[Block]) -> int:
    """The highest level with more than one heading; 0 without one."""
    counts = Counter(block.heading for block in blocks if block.heading)
    return min((level for level, count in counts.items() if count > 1), default=0)


def _section_names(blocks: Sequence[Block]) -> list[str]:
    level = _top_level(blocks)
    return [_name(block) for block in blocks if level and block.heading == level]


def _name(block: Block) -> str:
    return cut(squeeze(to_text(block.runs)), LONGEST_NAME, display_width)


def _sections(parts: Sequence[Sequence[Block]], level: int) -> list[tuple[str, int]]:
    """The sections with their parts; when there are too many, the first of each part."""
    found = [
        (_name(block), number)
        for number, blocks in enumerate(parts, 1)
        for block in blocks
        if block.heading == level and block.level is not Level.SENTENCE
    ]
    if len(found) > MOST_ENTRIES:
        found = [entry for index, entry in enumerate(found) if index == 0 or found[index - 1][1] != entry[1]]
    return found[:MOST_ENTRIES]


def _contents(sections: Sequence[tuple[str, int]], parts: int, words: Words, linked: bool) -> Block:
    """ "目录：头条 · 开源 · 观点 (2/3)": a section without a number is in this part."""
    runs = [Run(f"{words.contents}{words.joint}")]
    for index, (name, part) in enumerate(sections):
        text = f"{name} ({part}/{parts})" if part > 1 else name
        marks = (Mark("a", PART_ADDRESS.format(part)),) if linked and part > 1 else ()
        runs += [*([Run(" · ")] if index else []), Run(text, marks)]
    return Block(runs)


def _room_for_contents(names: Sequence[str], words: Words) -> Size:
    """What the contents cost at most, with a link to every part."""
    if not names:
        return NOTHING
    longest = sorted(names, key=len, reverse=True)[:MOST_ENTRIES]
    link = (Mark("a", _LONGEST_ADDRESS),)
    runs = [Run(f"\n\n{words.contents}{words.joint}")]
    for index, name in enumerate(longest):
        runs += [Run(" · " if index else ""), Run(f"{name} (99/99)", link)]
    plain = measure([Run(run.text) for run in runs])  # a name may be one that the server links by itself
    linked = measure(runs)
    return Size(linked.units, linked.entities + plain.entities, linked.bytes + plain.bytes)


def _edits(plan: _Plan) -> list[Mapping[str, str]]:
    """The first part once more, with links to the others: sent as an edit when their addresses are known."""
    return [{**plan.content(1, linked=True), "edits": "1"}] if plan.sections else []


def _without_end_rules(blocks: Sequence[Block]) -> list[Block]:
    """A line between two parts is one line too many."""
    kept = list(blocks)
    while kept and kept[0].rule:
        kept.pop(0)
    while kept and kept[-1].rule:
        kept.pop()
    return kept or list(blocks)
