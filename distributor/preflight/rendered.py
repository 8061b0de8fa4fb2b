"""What the post became on each channel, and what its renderer had to say."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from html import escape

from markdown_it.token import Token

from distributor.preflight.findings import Said, quoted
from distributor.preflight.proof import Proof
from distributor.rendering import WORDING, HtmlReader, language_of
from distributor.rendering.raw_html import HIDDEN

MOST_PARTS = 3
TAG = re.compile(r"<(/?)([a-z][a-z0-9]*)[^>]*>", re.IGNORECASE)
NO_LETTERS = re.compile(r"[\W\d_]+")
#: `- [x] done` is a box with a tick to readers.
TASK = re.compile(r"^\[x\](?=\s)", re.IGNORECASE)


def many_parts(proof: Proof) -> Iterator[Said]:
    """In a chat every part is a notification."""
    parts = max((message.parts for message in proof.messages if message.channel == "telegram"), default=0)
    if parts > MOST_PARTS:
        yield Said(None, f"Telegram gets {parts} messages")


def items_left_out(proof: Proof) -> Iterator[Said]:
    """Told once: the dialects of a robot have the same items."""
    wording = WORDING[language_of(proof.post, proof.newsletter)].items_in_all
    pattern = re.compile(re.escape(wording).replace(re.escape("{count}"), r"\d+"))
    texts = [
        text for message in proof.messages if message.channel == "wecom" for text in message.content.values()
    ]
    if found := next((match[0] for text in texts if (match := pattern.search(text))), None):
        yield Said(None, f"WeCom has no room for all items: {found}")


def said_by_renderers(proof: Proof) -> Iterator[Said]:
    """Once, whichever channels say it; a renderer that names the file and line has them taken from its words."""
    place = re.compile(rf"{re.escape(str(proof.post.path))}(?::(\d+))?: ")
    for warning in dict.fromkeys(text for message in proof.messages for text in message.warnings):
        match = place.match(warning)
        line = int(match[1]) if match and match[1] else None
        yield Said(line, warning[match.end() :] if match else warning)


def text_lost(proof: Proof) -> Iterator[Said]:
    """The mail must hold the words of the post: a net below whatever may take some of them away.

    Letters alone, each run of text by itself: a mail sets things in another order, and writes marks of its own.
    """
    for message in proof.messages:
        html = message.content.get("html") if message.channel == "email" else None
        if html and not any("teaser" in warning for warning in message.warnings):
            there = "|".join(map(letters, runs(html)))
            lost = [(line, run) for line, run in expected(proof) if letters(run) not in there]
            if lost:
                more = f" and {len(lost) - 1} more pieces of the text" if len(lost) > 1 else ""
                yield Said(lost[0][0], f"the mail lacks {quoted(lost[0][1])}{more}")


def letters(text: str) -> str:
    return NO_LETTERS.sub("", text)


def expected(proof: Proof) -> Iterator[tuple[int, str]]:
    """Line and text of every run that readers of the mail should see.

    A <template>, say, hides what stands in it, in however many blocks; one that nobody closes is a mistake, or a word
    such as "List<Object>", and must hide nothing.
    """
    pieces = list(_pieces(proof.reading.tokens))
    balance = Counter[str]()
    for _, html in pieces:
        for match in TAG.finditer(html):
            balance[match[2].lower()] += -1 if match[1] else 1
    open_ended = {tag for tag in HIDDEN if balance[tag] > 0}

    def closed(match: re.Match[str]) -> str:
        return "" if match[2].lower() in open_ended else match[0]

    html = "".join(f"<x-line n={line}>{TAG.sub(closed, html)}</x-line>" for line, html in pieces)
    yield from ((proof.post.body_line + line, run) for line, run in _Runs(html).found)


def _pieces(tokens: Sequence[Token]) -> Iterator[tuple[int, str]]:
    """Line of the block (from 0), and HTML of what its tokens say: raw HTML as it is, the rest escaped."""
    line = 0
    for token in tokens:
        line = token.map[0] if token.map else line
        if token.type == "html_block":
            yield line, token.content
        elif token.type in {"fence", "code_block"}:
            yield line, escape(token.content)
        for child in token.children or ():
            if child.type == "html_inline":
                yield line, child.content
            elif child.type in {"text", "code_inline"}:
                yield line, escape(TASK.sub("", child.content))


def runs(html: str) -> Sequence[str]:
    """What a browser shows of this HTML, a run between two tags at a time."""
    return [run for _, run in _Runs(html).found]


class _Runs(HtmlReader):
    """Raw HTML as runs of text, each with the number of the <x-line> that it stands in."""

    def __init__(self, html: str) -> None:
        self.found = list[tuple[int, str]]()
        self.line = 0
        super().__init__(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "x-line":
            number = dict(attrs).get("n") or ""  # a post may have such a tag of its own
            self.line = int(number) if re.fullmatch(r"[0-9]{1,6}", number) else self.line
        elif not self.hidden:
            super().handle_starttag(tag, attrs)

    def handle_data(self, data: str) -> None:
        if not self.hidden and letters(data):
            self.found.append((self.line, data))
