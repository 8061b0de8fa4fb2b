"""Text with marks, and its two equal forms: Telegram's HTML, and plain text with entities.

A run is text inside marks, outermost first. Any cut of a list of runs can be written in both forms: tags are opened and
closed where it is written.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from distributor.rendering import escape_text, utf8_bytes, utf16_units

#: Bytes of an address; above, the text stays and the address stands behind it.
LONGEST_LINK = 2048
#: What one entity costs on Telegram's own wire (TL), rounded up; its address or language comes on top.
ENTITY_BYTES = 20


class Mark(NamedTuple):
    """What text is: the name of a tag, and the address, language or kind that belongs to it.

    "pre-code" is a listing with a language; "whole" is written as nothing, but its text is not cut.
    """

    tag: str
    value: str = ""

    @property
    def opening(self) -> str:
        return _FORMS[self.tag].opening.format(escape_text(self.value).replace('"', "&quot;"))

    @property
    def closing(self) -> str:
        return _FORMS[self.tag].closing


class _Form(NamedTuple):
    opening: str
    closing: str
    entity: str
    argument: str = ""


_FORMS = {
    "b": _Form("<b>", "</b>", "bold"),
    "i": _Form("<i>", "</i>", "italic"),
    "u": _Form("<u>", "</u>", "underline"),
    "s": _Form("<s>", "</s>", "strikethrough"),
    "a": _Form('<a href="{}">', "</a>", "text_link", "url"),
    "code": _Form("<code>", "</code>", "code"),
    "pre": _Form("<pre>", "</pre>", "pre"),
    "pre-code": _Form('<pre><code class="language-{}">', "</code></pre>", "pre", "language"),
    "blockquote": _Form("<blockquote>", "</blockquote>", "blockquote"),
    "whole": _Form("", "", ""),
}
#: Inside these Telegram knows no other mark, and they stand inside nothing but a quotation.
VERBATIM = frozenset({"code", "pre", "pre-code"})


class Run(NamedTuple):
    """Text inside the same marks."""

    text: str
    marks: tuple[Mark, ...] = ()


class Size(NamedTuple):
    """What a text costs, or may cost. `bytes` are those of its entities, not of its text."""

    units: int
    entities: int
    bytes: int

    def plus(self, other: "Size") -> "Size":
        return Size(*(a + b for a, b in zip(self, other, strict=True)))

    def minus(self, other: "Size") -> "Size":
        return Size(*(a - b for a, b in zip(self, other, strict=True)))

    def divided(self, by: int) -> "Size":
        return Size(*(value // by for value in self))

    def within(self, limit: "Size") -> bool:
        return self.units <= limit.units and self.entities <= limit.entities and self.bytes <= limit.bytes


def marked(marks: tuple[Mark, ...], mark: Mark) -> tuple[Mark, ...]:
    """`marks` with one more inside, as far as Telegram lets them nest."""
    if not marks:
        return (mark,)
    tags = {outer.tag for outer in marks}
    if mark.tag in tags or tags & VERBATIM or (mark.tag in VERBATIM and "a" in tags):
        return marks
    if mark.tag in VERBATIM:
        return (*(outer for outer in marks if outer.tag == "blockquote"), mark)
    return (*marks, mark)


def has(marks: Sequence[Mark], *tags: str) -> bool:
    return any(mark.tag in tags for mark in marks)


_HOST = re.compile(r"\w+://[^/?#\s]*[^/?#\s.:][.:][^/?#\s]+\S*")


def is_linkable(address: str) -> bool:
    """Whether Telegram makes a link of it: not too long, and a host with a dot (or a port)."""
    return utf8_bytes(address) <= LONGEST_LINK and _HOST.fullmatch(address) is not None


# --- the two forms -----------------------------------------------------------------------------------------------


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


def to_text(runs: Sequence[Run]) -> str:
    return "".join(run.text for run in runs)


def to_entities(runs: Sequence[Run]) -> list[dict[str, str | int]]:
    """The same marks as entities over `to_text`: offsets and lengths in UTF-16 units, in the order of their beginnings."""
    found, starts, offset = list[tuple[int, int, Mark]](), list[int](), 0
    open_marks: tuple[Mark, ...] = ()
    for run in [*runs, Run("")]:
        shared = _shared(open_marks, run.marks)
        for mark in reversed(open_marks[shared:]):
            start = starts.pop()
            found.append((start, start - offset, mark))  # the longer one first
        starts += [offset] * (len(run.marks) - shared)
        open_marks = run.marks
        offset += utf16_units(run.text)
    found.sort(key=lambda entity: entity[:2])
    return [_entity(start, -minus, mark) for start, minus, mark in found if _FORMS[mark.tag].entity]


def _entity(offset: int, length: int, mark: Mark) -> dict[str, str | int]:
    form = _FORMS[mark.tag]
    entity: dict[str, str | int] = {"type": form.entity, "offset": offset, "length": length}
    return {**entity, form.argument: mark.value} if form.argument else entity


def _shared(one: Sequence[Mark], other: Sequence[Mark]) -> int:
    if not one or not other:
        return 0
    count = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        count += 1
    return count


# --- measuring ---------------------------------------------------------------------------------------------------

#: What the server links by itself counts as an entity too: addresses, @names, #tags, /commands, $TICKERS, card numbers.
_DETECTED = re.compile(
    r"\w+://\S|(?<!\w)[@#/$]\w|\w@\w|[\w)\]]\.[^\W\d]|(?:\d{1,3}\.){3}\d|(?:\d[ -]?){13,19}|tel:\d"
)
_UNDETECTED = frozenset({"a", *VERBATIM})
#: Without one of these nothing can be found: most texts are done with one look.
_HINT = re.compile(r"[@#/$:.]|\d[\d -]{12}")


def measure(runs: Sequence[Run]) -> Size:
    """What the runs cost as a message, never less."""
    units = entities = size = 0
    before: tuple[Mark, ...] = ()
    for run in runs:
        units += utf16_units(run.text)
        if run.marks is not before:
            for mark in run.marks[_shared(before, run.marks) :]:
                if mark.tag != "whole":
                    entities += 1
                    size += ENTITY_BYTES + (utf8_bytes(mark.value) if mark.value else 0)
            before = run.marks
    detected = _detected("".join("\n" if has(run.marks, *_UNDETECTED) else run.text for run in runs))
    return Size(units, entities + detected, size + ENTITY_BYTES * detected)


def _detected(text: str) -> int:
    return len(_DETECTED.findall(text)) if _HINT.search(text) else 0


def count_entities(html: str) -> int:
    """Entities in our markup, with those that the server finds by itself."""
    tags = len(re.findall(r"<(?!/)(?!code class=)", html))
    return tags + _detected(re.sub(r"<(a|pre|code)\b.*?</\1>|<[^>]*>", _seam, html, flags=re.DOTALL))


def _seam(match: re.Match[str]) -> str:
    return "\n" if match[1] else ""


# --- tidying -----------------------------------------------------------------------------------------------------


def merged(runs: Sequence[Run]) -> list[Run]:
    """Empty runs gone, neighbours with equal marks made one."""
    groups = groupby((run for run in runs if run.text), key=lambda run: run.marks)
    return [Run("".join(run.text for run in group), marks) for marks, group in groups]


def tidied(runs: Sequence[Run]) -> list[Run]:
    """White space at the ends of a mark moved out of it, as the server does; line breaks alone where it is code."""
    if not any(run.marks and run.text and (run.text[0].isspace() or run.text[-1].isspace()) for run in runs):
        return list(runs)
    return merged(list(_tidied(runs, 0)))


def _tidied(runs: Sequence[Run], depth: int) -> Iterator[Run]:
    for mark, group in groupby(runs, key=lambda run: run.marks[depth] if len(run.marks) > depth else None):
        inner = [run for run in group if run.text]
        if mark is None or not inner:
            yield from inner
            continue
        if not to_text(inner).strip():
            yield Run(to_text(inner), inner[0].marks[:depth])
            continue
        blank = "\n" if mark.tag in VERBATIM - {"code"} else None
        lead, core, tail = _split_blank(inner, blank)
        outer = inner[0].marks[:depth]
        yield Run(lead, outer)
        yield from _tidied(core, depth + 1)
        yield Run(tail, outer)


def _split_blank(runs: list[Run], blank: str | None) -> tuple[str, list[Run], str]:
    """White space in front, the runs without it, white space behind."""
    lead, runs = _stripped_front(runs, blank)
    turned = [Run(run.text[::-1], run.marks) for run in reversed(runs)]
    tail, turned = _stripped_front(turned, blank)
    return lead, [Run(run.text[::-1], run.marks) for run in reversed(turned)], tail[::-1]


def _stripped_front(runs: list[Run], blank: str | None) -> tuple[str, list[Run]]:
    rest, lead = list(runs), ""
    while rest:
        first = rest[0]
        kept = first.text.lstrip(blank)
        lead += first.text[: len(first.text) - len(kept)]
        if kept:
            rest[0] = Run(kept, first.marks)
            break
        rest.pop(0)
    return lead, rest


def trimmed(runs: Sequence[Run]) -> list[Run]:
    """Without white space at both ends; a line of code keeps its indentation."""
    if not to_text(runs).strip():
        return []
    code = has(runs[0].marks, "pre", "pre-code")
    return _split_blank([run for run in runs if run.text], "\n" if code else None)[1]


# --- cutting -----------------------------------------------------------------------------------------------------


def prefix(runs: Sequence[Run], count: int) -> list[Run]:
    kept = list[Run]()
    for run in runs:
        if count <= 0:
            break
        kept.append(Run(run.text[:count], run.marks))
        count -= len(run.text)
    return kept


def suffix(runs: Sequence[Run], count: int) -> list[Run]:
    kept = list[Run]()
    for run in runs:
        if count < len(run.text):
            kept.append(Run(run.text[max(count, 0) :], run.marks))
        count -= len(run.text)
    return kept


def span_at(runs: Sequence[Run], place: int) -> tuple[int, int] | None:
    """Beginning and end of the link, or whole address, that `place` falls into."""
    end = 0
    for mark, group in groupby(runs, key=_whole_mark):
        start, end = end, end + sum(len(run.text) for run in group)
        if mark and start < place < end:
            return start, end
    return None


def _whole_mark(run: Run) -> Mark | None:
    return next((mark for mark in run.marks if mark.tag in {"a", "whole"}), None)
