"""A text for programs that show nothing else: lines of a width, no markup."""

import re
import unicodedata
from collections.abc import Iterator

from .compare import leftovers, lost_text, shown_secrets
from .source import Source

COLUMNS = 78  # RFC 5322's advice
LONGEST_WORD = 40  # a longer one cannot be broken


def check_plain(text: str, source: Source) -> Iterator[str]:
    yield from lost_text(source, text)
    yield from shown_secrets(source, text)
    yield from leftovers(source, text)
    yield from long_lines(text)
    blanks = re.search(r"\n{4,}", text)
    if blanks and source.pieces:
        yield f"{len(blanks[0]) - 1} empty lines in a row"


def long_lines(text: str) -> Iterator[str]:
    """Lines that could have been broken; code (indented by four) is left as it is."""
    for line in text.split("\n"):
        if width(line) > COLUMNS and not re.match(r"[>\s]* {4}", line) and not _has_long_word(line):
            yield f"a line of {width(line)} columns: {line[:40]!r}"


def _has_long_word(line: str) -> bool:
    if not re.search(r"\w", line):
        return True  # marks that may begin no line
    words = re.split(r"[\s\u2e80-\u9fff\uff00-\uffef]+", line)
    return any(width(word) > LONGEST_WORD for word in words)


def width(text: str) -> int:
    return sum(
        0
        if unicodedata.category(character) in {"Mn", "Me", "Cf"}
        else 2
        if unicodedata.east_asian_width(character) in "WF"
        else 1
        for character in text
    )
