"""Raw HTML inside Markdown as runs: no tag's meaning is lost that Telegram can show, and no address at all."""

import re
from collections.abc import Sequence
from html.parser import HTMLParser

from distributor.channels.telegram.marks import Mark, Run, has, is_linkable, marked, to_text
from distributor.channels.telegram.words import Words
from distributor.rendering import HIDDEN, is_web, utf8_bytes

#: Bytes of an address that can stand in the open; a longer one fits no message beside its text.
LONGEST_ADDRESS = 3000

#: tag → what its text becomes
_MARKS = {
    **dict.fromkeys(("b", "strong", "th", "dt", "summary", "caption"), "b"),
    **dict.fromkeys(("h1", "h2", "h3", "h4", "h5", "h6"), "b"),
    **dict.fromkeys(("i", "em", "cite", "var", "dfn"), "i"),
    **dict.fromkeys(("u", "ins"), "u"),
    **dict.fromkeys(("s", "strike", "del"), "s"),
    **dict.fromkeys(("code", "kbd", "samp", "tt"), "code"),
    "pre": "pre",
    "a": "a",
}
#: tag → line breaks around it
_BREAKS = {
    **dict.fromkeys(("p", "table", "ul", "ol", "dl", "details", "blockquote", "pre", "figure"), 2),
    **dict.fromkeys(("h1", "h2", "h3", "h4", "h5", "h6", "hr"), 2),
    **dict.fromkeys(("div", "section", "article", "header", "footer", "center", "summary"), 1),
    **dict.fromkeys(("li", "tr", "dt", "dd", "caption", "figcaption"), 1),
}
_MEDIA = frozenset({"video", "audio", "iframe", "embed", "source"})
_HIDDEN = HIDDEN - _MEDIA  # those have an address to show
_SMALL = {
    "sup": ("^", str.maketrans("0123456789+-−=()ni", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻⁼⁽⁾ⁿⁱ")),
    "sub": ("_", str.maketrans("0123456789+-−=()", "₀₁₂₃₄₅₆₇₈₉₊₋₋₌₍₎")),
}
#: 4th, 1er, Acme™: what may stand on the line without changing its meaning.
_ORDINAL = re.compile(r"\s*(?:st|nd|rd|th|er|e|o|a|tm|r|\[?\d+\])\s*", re.IGNORECASE)


class HtmlWriter(HTMLParser):
    """Reads HTML in pieces. Between them, `marks` is what text is at this place, and `add_text` writes some."""

    def __init__(self, marks: tuple[Mark, ...], words: Words) -> None:
        super().__init__()
        self.base, self.words = marks, words
        self.runs = list[Run]()
        self.open = list[
            tuple[str, tuple[Mark, ...], int, str]
        ]()  # tag, marks outside, place in runs, address
        self.marks, self.hidden, self.breaks, self.numbers = marks, "", 0, list[int]()

    def read(self, html: str) -> list[Run]:
        """The runs of a complete stretch of HTML."""
        self.feed(html)
        return self.finish()

    def finish(self) -> list[Run]:
        """All runs; what is still open ends here."""
        self.close()
        while self.open:
            self._leave()
        return self.runs

    def add(self, runs: Sequence[Run]) -> None:
        """Runs that were written by somebody else, such as Markdown inside HTML."""
        if self.breaks and self.runs:
            self.runs.append(Run("\n" * self.breaks, self.base))
        self.breaks = 0
        self.runs += runs

    def add_text(self, text: str) -> None:
        small = next((tag for tag, *_ in reversed(self.open) if tag in _SMALL), "")
        self.add([Run(_small(text, small) if small else text, self.marks)])

    # ── what the parser calls ────────────────────────────────────────────────────────────────────────────────────

    def parse_marked_section(self, i: int, report: bool = True) -> int:
        """`<![anything]` is a comment to browsers; the parser of Python 3.11 raises AssertionError."""
        return self.parse_bogus_comment(i, report)

    def handle_data(self, data: str) -> None:
        if self.hidden:
            return
        if any(tag == "pre" for tag, *_ in self.open):
            self.add_text(data)
            return
        text = re.sub(r"\s+", " ", data)
        if self.breaks or not self.runs or self.runs[-1].text.endswith((" ", "\n")):
            text = text.lstrip(" ")
        if text:
            self.add_text(text)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if self.open and self.open[-1][0] == tag:
            self._leave()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if self.hidden or tag in _HIDDEN:
            self.hidden = self.hidden or tag
            return
        self._break(self._breaks(tag))
        if write := _ALONE.get(tag):
            write(self, values)
        elif tag in _MEDIA:
            self.add(media(values.get("src", "").strip(), self.marks, self.words))
        elif tag in _MARKS or tag in _SMALL:
            self._enter(tag, values.get("href", "").strip())

    def handle_endtag(self, tag: str) -> None:
        if self.hidden:
            self.hidden = "" if tag == self.hidden else self.hidden
            return
        if any(tag == opened for opened, *_ in self.open):
            while self._leave() != tag:
                pass
        if tag in {"ul", "ol"} and self.numbers:
            self.numbers.pop()
        self._break(self._breaks(tag))

    # ── how it writes ────────────────────────────────────────────────────────────────────────────────────────────

    def _enter(self, tag: str, address: str) -> None:
        self.open.append((tag, self.marks, len(self.runs), address if is_web(address) else ""))
        kind = _MARKS.get(tag)
        if kind == "pre" and self.marks:
            kind = "code"  # a listing stands alone
        if kind == "a":
            if is_web(address) and is_linkable(address):
                self.marks = marked(self.marks, Mark("a", address))
        elif kind:
            self.marks = marked(self.marks, Mark(kind))

    def _leave(self) -> str:
        """Ends the innermost tag. A link that could not be one, or that has no text, leaves its address behind."""
        tag, self.marks, start, address = self.open.pop()
        if address:
            inside = self.runs[start:]
            linked = any(Mark("a", address) in run.marks for run in inside if run.text.strip())
            if not linked:
                self.add(address_after(address, self.marks, bool(to_text(inside).strip())))
        return tag

    def _breaks(self, tag: str) -> int:
        """A list inside a list stands close."""
        return 1 if tag in {"ul", "ol"} and self.numbers else _BREAKS.get(tag, 0)

    def _break(self, count: int) -> None:
        self.breaks = max(self.breaks, count)

    def _cell(self, _: dict[str, str]) -> None:
        if not self.breaks and self.runs:
            self.add([Run(" | ", self.base)])

    def _heading_cell(self, values: dict[str, str]) -> None:
        self._cell(values)
        self._enter("th", "")

    def _list(self, values: dict[str, str]) -> None:
        start = re.fullmatch(r"[0-9]{1,9}", values.get("start", ""))
        self.numbers.append(int(start[0]) if start else 1)

    def _bullet_list(self, _: dict[str, str]) -> None:
        self.numbers.append(-1)

    def _item(self, _: dict[str, str]) -> None:
        number = self.numbers[-1] if self.numbers else -1
        if number >= 0:
            self.numbers[-1] += 1
        indent = "   " * (len(self.numbers) - 1)
        self.add([Run(f"{indent}{number}. " if number >= 0 else f"{indent}• ", self.base)])

    def _line_end(self, _: dict[str, str]) -> None:
        self.add([Run("\n", self.base)])

    def _rule(self, _: dict[str, str]) -> None:
        self.add([Run("———", self.base)])
        self._break(2)

    def _picture(self, values: dict[str, str]) -> None:
        self.add(picture(values.get("alt", ""), values.get("src", "").strip(), self.marks, self.words))


_ALONE = {
    "br": HtmlWriter._line_end,  # noqa: SLF001 - the table of this very class
    "hr": HtmlWriter._rule,  # noqa: SLF001 - as above
    "img": HtmlWriter._picture,  # noqa: SLF001 - as above
    "li": HtmlWriter._item,  # noqa: SLF001 - as above
    "ol": HtmlWriter._list,  # noqa: SLF001 - as above
    "ul": HtmlWriter._bullet_list,  # noqa: SLF001 - as above
    "td": HtmlWriter._cell,  # noqa: SLF001 - as above
    "th": HtmlWriter._heading_cell,  # noqa: SLF001 - as above
}


def _small(text: str, tag: str) -> str:
    """10² as one would write it by hand; without a small twin for each character, 10^x."""
    sign, twins = _SMALL[tag]
    if not any(map(str.isalnum, text)) or _ORDINAL.fullmatch(text):
        return text
    small = text.translate(twins)
    return small if not any(a == b for a, b in zip(text, small, strict=True)) else f"{sign}{text}"


# --- links and pictures ------------------------------------------------------------------------------------------


def linked(runs: list[Run], address: str, marks: tuple[Mark, ...]) -> list[Run]:
    """`runs`, which were written inside `link_marks(address, marks)`, with the address behind them when it must be seen."""
    if not to_text(runs).strip():
        return address_after(address, marks, after_text=False)
    if any(Mark("a", address) in run.marks for run in runs if run.text.strip()):
        return runs
    return [*runs, *address_after(address, marks, after_text=True)]


def link_marks(address: str, marks: tuple[Mark, ...]) -> tuple[Mark, ...]:
    """The marks of a link's text; unchanged where Telegram would make no link of it."""
    return marked(marks, Mark("a", address)) if is_linkable(address) else marks


def address_after(address: str, marks: tuple[Mark, ...], after_text: bool) -> list[Run]:
    """The address in the open, never cut. Nothing when it fits no message: render_telegram warns of it."""
    if utf8_bytes(address) > LONGEST_ADDRESS:
        return []
    link = link_marks(address, marks)
    shown = [Run(address, link if has(link, "a") else (*marks, Mark("whole", address)))]
    return [Run(" (", marks), *shown, Run(")", marks)] if after_text else shown


def picture(alt: str, address: str, marks: tuple[Mark, ...], words: Words) -> list[Run]:
    """🖼 and what the picture shows, as a link to it. Inside a link the sign alone leads to the picture, its text onwards."""
    text = " ".join(alt.split()) or words.picture
    if not has(marks, "a"):
        return linked([Run(f"🖼 {text}", link_marks(address, marks))], address, marks)
    bare = tuple(mark for mark in marks if mark.tag != "a")
    return [*linked([Run("🖼", link_marks(address, bare))], address, bare), Run(" ", bare), Run(text, marks)]


def media(address: str, marks: tuple[Mark, ...], words: Words) -> list[Run]:
    """A film or a sound as a link to it."""
    return (
        linked([Run(f"▶ {words.media}", link_marks(address, marks))], address, marks)
        if is_web(address)
        else []
    )
