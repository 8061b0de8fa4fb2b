"""Measuring text in the units that platforms count, and cutting it where a reader is not hurt."""

import re
import unicodedata
from collections.abc import Callable, Iterator
from html import escape

#: Controls a reader cannot see: C0 except tab and newline, DEL, C1 (Gmail clips mail that has them), surrogates, what
#: Unicode never assigns (HTML's parsers complain), and the byte order mark that pasting leaves in the middle of a text.
CONTROLS = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufeff\ufffe\uffff"
    + "".join(chr(plane + last) for plane in range(0x10000, 0x110000, 0x10000) for last in (0xFFFE, 0xFFFF))
    + "]"
)
HAN = re.compile(
    r"[\u2e80-\u9fff\uf900-\ufaff\ufe30-\ufe4f\uff00-\uff60\uffe0-\uffee\U00020000-\U0003ffff“”‘’—…]"
)
#: After a sentence: CJK marks end one anywhere, Latin marks only before white space.
SENTENCE_END = re.compile(r"(?<=[。！？；])|(?<=[.!?;])(?=\s)|(?<=\n)")


def utf16_units(text: str) -> int:
    return len(text) + sum(character > "\uffff" for character in text)


def utf8_bytes(text: str) -> int:
    return len(text.encode())


def display_width(text: str) -> int:
    """Columns in a fixed-width font: wide characters fill two, combining ones none."""
    return sum(_columns(character) for character in text)


def _columns(character: str) -> int:
    if unicodedata.category(character) in {"Mn", "Me", "Cf"}:
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def safe_cut(text: str, length: int) -> int:
    """The longest cut ≤ `length` (in characters) that separates no accent, joiner or emoji from what it belongs to."""
    while 0 < length < len(text) and (_clings(text[length]) or text[length - 1] == "\u200d"):
        length -= 1
    return length


def _clings(character: str) -> bool:
    return (
        character == "\u200d"
        or "\U0001f3fb" <= character <= "\U0001f3ff"
        or unicodedata.category(character) in {"Mn", "Mc", "Me"}
    )


def cut(text: str, limit: int, measure: Callable[[str], int] = len, *, mark: str = "…") -> str:
    """`text` when it measures at most `limit`; else its beginning with `mark`. Empty when not even the mark fits."""
    if measure(text) <= limit:
        return text
    room = limit - measure(mark)
    if room < 0:
        return ""
    length = longest_prefix(len(text), lambda count: measure(text[:count]) <= room)
    return text[: safe_cut(text, length)].rstrip() + mark


def longest_prefix(length: int, fits: Callable[[int], bool]) -> int:
    """The largest count ≤ `length` that fits, when fitting only ever gets harder."""
    low, high = 0, length
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


#: What a line may not be broken inside: an address, a Latin word, a Han character with the punctuation around it.
_UNBREAKABLE = re.compile(
    r"\s+|[（《“‘「『【(]*(?:https?://[^\s)）]+|[^\s\u2e80-\u9fff\uac00-\ud7af\uff00-\uffef]+|\S)"
    r"[)）》”’」』】，。、；：！？,.;:!?…]*"
)


def wrap(text: str, columns: int) -> str:
    """Breaks lines at blanks and between Han characters; never inside a word or an address."""
    return "\n".join(line for paragraph in text.split("\n") for line in _wrapped(paragraph, max(columns, 10)))


def _wrapped(paragraph: str, columns: int) -> Iterator[str]:
    line, width = "", 0
    for piece in _UNBREAKABLE.findall(paragraph.strip()):
        size = display_width(piece)
        if line and width + size > columns and not piece.isspace():
            yield line.rstrip()
            line, width = "", 0
        line, width = (line + piece, width + size) if line or not piece.isspace() else ("", 0)
    yield line.rstrip()


def escape_text(text: str) -> str:
    """`&`, `<`, `>` only: the entities every HTML dialect knows."""
    return escape(text, quote=False)
