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
#: Those of HAN that English writes too.
SHARED_MARKS = frozenset("“”‘’—…")
#: After a sentence: CJK marks end one anywhere, Latin marks only before white space.
SENTENCE_END = re.compile(r"(?<=[。！？；])|(?<=[.!?;])(?=\s)|(?<=\n)")


def utf16_units(text: str) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


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
    while 0 < length < len(text) and (
        _clings(text[length]) or text[length - 1] == "\u200d" or _splits_flag(text, length)
    ):
        length -= 1
    return length


def _clings(character: str) -> bool:
    return (
        character == "\u200d"
        or "\U0001f3fb" <= character <= "\U0001f3ff"
        or "\U000e0020" <= character <= "\U000e007f"
        or unicodedata.category(character) in {"Mn", "Mc", "Me"}
    )


def _splits_flag(text: str, length: int) -> bool:
    """A flag is two regional letters; in a row of flags every second seam is inside one."""
    before = length
    while before and _is_regional(text[before - 1]):
        before -= 1
    return (length - before) % 2 == 1 and _is_regional(text[length])


def _is_regional(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"


def cut(text: str, limit: int, measure: Callable[[str], int] = len, *, mark: str = "…") -> str:
    """`text` when it measures at most `limit`; else its beginning with `mark`. Empty when not even the mark fits."""
    if measure(text) <= limit:
        return text
    room = limit - measure(mark)
    if room < 0:
        return ""
    length = longest_prefix(len(text), lambda count: measure(text[:count]) <= room)
    return text[: safe_cut(text, length)].rstrip() + mark


#: Behind a clause: what follows may be left out with a mark.
_CLAUSE_END = re.compile(r"(?<=[，；、：—])|(?<=[,;:–])(?=\s)")
_ADDRESS = re.compile(r"https?://[^\s<>\u2e80-\u9fff\uff00-\uffef]+")
#: How much of the room a text has to fill for it to be cut at a sentence or clause.
_WELL_FILLED = 0.4


def cut_text(text: str, limit: int, measure: Callable[[str], int] = len) -> str:
    """`text` when it measures at most `limit`; else cut where it hurts least: a sentence, a clause, a character.

    Whole sentences need no mark. A shorter cut is only taken when it fills at least two fifths of the room.
    """
    if measure(text) <= limit:
        return text
    sentences = _whole(text, SENTENCE_END, lambda part: measure(part) <= limit)
    if measure(sentences) >= limit * _WELL_FILLED:
        return sentences
    clauses = _whole(text, _CLAUSE_END, lambda part: measure(part + "…") <= limit).rstrip("，；、：—,;:– ")
    if clauses and measure(clauses) >= limit * _WELL_FILLED:
        return clauses + "…"
    return _whole_addresses(text, cut(text, limit, measure))


def _whole_addresses(text: str, beginning: str) -> str:
    """Without the half of an address that was cut: it would lead somewhere else."""
    kept = len(beginning.removesuffix("…"))
    for match in _ADDRESS.finditer(text):
        if match.start() < kept < match.end():
            return text[: match.start()].rstrip() + "…" if match.start() else ""
    return beginning


def _whole(text: str, ends: re.Pattern[str], fits: Callable[[str], bool]) -> str:
    """The longest beginning that fits and ends where `ends` says."""
    stops = [match.start() for match in ends.finditer(text)]
    count = longest_prefix(len(stops), lambda number: number == 0 or fits(text[: stops[number - 1]].rstrip()))
    return text[: stops[count - 1]].rstrip() if count else ""


def longest_prefix(length: int, fits: Callable[[int], bool]) -> int:
    """The largest count ≤ `length` that fits, when fitting only ever gets harder."""
    low, high = 0, length
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


#: What a line may not be broken inside: an address, a Latin word, a Han character with the punctuation around it.
_UNBREAKABLE = re.compile(
    r"\s+|[（《“‘「『【(]*(?:https?://(?:[^\s()（）]|\([^\s()]*\))+|[^\s\u2e80-\u9fff\uac00-\ud7af\uff00-\uffef]+|\S)"
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
