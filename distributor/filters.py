"""The filter language that names a part of an audience: `tag:beta and (lang:zh or attr.city:北京)`.

    filter     = all {"or" all}
    all        = term {"and" term}
    term       = "not" term | "(" filter ")" | condition
    condition  = name ":" value            name: tag, lang, source, since, domain, attr.<name>
    value      = a word without blanks and parentheses, or "quoted", with \\" and \\\\ in it

It is parsed here and nowhere else, and becomes SQL with bound values in audience/segments.py: nothing that a person
typed is ever part of a statement.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import NamedTuple

from distributor.errors import RequestRefused

#: Characters, conditions, and terms inside of terms: far more than a person writes, far less than a database minds.
LONGEST, MOST_CONDITIONS, DEEPEST = 1000, 50, 20
#: What may stand in front of the colon, with an example of what may stand behind.
CONDITIONS = {
    "tag": "tag:beta",
    "lang": "lang:zh",
    "source": "source:form",
    "since": "since:2026-01-01",
    "domain": "domain:qq.com",
    "attr.": "attr.city:北京",
}
#: Days of `since`: at the ends of the calendar there is no midnight in every zone.
EARLIEST, LATEST = date(1970, 1, 1), date(9998, 12, 31)
_TOKEN = re.compile(
    r"""\s*(?:
    (?P<parenthesis>[()])
  | (?P<name>[^\s():"（）：“”]+):(?:"(?P<quoted>(?:[^"\\]|\\["\\])*)"|(?P<value>[^\s()"]+))(?=[\s()]|$)
  | (?P<word>(?:and|or|not)(?=[\s()]|$))
    )""",
    re.VERBOSE | re.IGNORECASE,
)
#: What an input method for Chinese writes instead.
_WIDE = str.maketrans("：（）“”", ':()""')


class FilterError(RequestRefused, ValueError):
    """A filter that cannot be understood: the text says at which column, and what was expected there."""

    def __init__(self, column: int, text: str) -> None:
        self.column = column
        super().__init__(f"filter, column {column}: {text}")


@dataclass(frozen=True)
class Condition:
    """`name:value`; of an attribute, `name` is "attr." and `attribute` its name. `since` has a date."""

    name: str
    value: str
    attribute: str = ""
    since: date | None = None


@dataclass(frozen=True)
class Not:
    term: "Filter"


@dataclass(frozen=True)
class AllOf:
    terms: Sequence["Filter"]


@dataclass(frozen=True)
class AnyOf:
    terms: Sequence["Filter"]


Filter = Condition | Not | AllOf | AnyOf


class _Token(NamedTuple):
    """`kind`: "(", ")", "and", "or", "not", "condition", or "end"."""

    kind: str
    column: int
    condition: Condition | None = None


def parse_filter(text: str) -> Filter:
    """The tree of a filter. Raises FilterError."""
    if len(text) > LONGEST:
        raise FilterError(LONGEST + 1, f"it is longer than {LONGEST} characters")
    if control := re.search(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]", text):
        raise FilterError(control.start() + 1, "a control character")
    return _Parser(list(_tokens(text))).whole()


def checked_filter(text: str) -> str:
    """For a setting: the text as it was written; empty is no filter. Raises FilterError."""
    if text.strip():
        parse_filter(text)
    return text.strip()


def _tokens(text: str) -> Iterator[_Token]:
    at, conditions = 0, 0
    while text[at:].strip():
        match = _TOKEN.match(text, at)
        column = at + len(text[at:]) - len(text[at:].lstrip()) + 1
        if match is None:
            raise FilterError(column, _not_understood(text[column - 1 :]))
        if name := match["name"]:
            conditions += 1
            if conditions > MOST_CONDITIONS:
                raise FilterError(column, f"more than {MOST_CONDITIONS} conditions")
            yield _Token("condition", column, _condition(name, _value(match), column))
        else:
            yield _Token((match["parenthesis"] or match["word"]).lower(), column)
        at = match.end()
    yield _Token("end", len(text.rstrip()) + 1)


def _value(match: re.Match[str]) -> str:
    quoted: str | None = match["quoted"]
    return match["value"] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)


def _condition(name: str, value: str, column: int) -> Condition:
    known, attribute = name.lower(), ""
    if known.startswith("attr.") and len(known) > len("attr."):
        known, attribute = "attr.", name[len("attr.") :]
    if known not in CONDITIONS or (known == "attr." and not attribute):
        raise FilterError(column, f"{name!r} is not known; expected {_examples()}")
    if not value.strip():
        raise FilterError(column + len(name) + 1, "expected a value behind the colon")
    return Condition(
        known, value, attribute, _day(value, column + len(name) + 1) if known == "since" else None
    )


def _day(value: str, column: int) -> date:
    try:
        found = date.fromisoformat(value)
    except ValueError:
        found = None
    if found is None or not EARLIEST <= found <= LATEST:
        raise FilterError(column, f"expected a day such as 2026-01-01; found {value!r}")
    return found


def _not_understood(rest: str) -> str:
    found = rest.split(maxsplit=1)[0][:40]
    if found.translate(_WIDE) != found:
        return f'found {found!r}; write the plain characters : ( ) "'
    if re.match(r"[^\s():\"]+:\"", rest):
        return (
            'expected a quote at the end of the value, and a blank behind it (a quote inside is written \\")'
        )
    if re.match(r"[^\s():\"]+:", rest):
        return f"expected a value directly behind the colon of {found!r}"
    return f"expected {_examples()}; found {found!r}"


def _examples() -> str:
    return "a condition such as " + ", ".join(CONDITIONS.values())


class _Parser:
    """Recursive descent, one method a line of the grammar."""

    def __init__(self, tokens: Sequence[_Token]) -> None:
        self._tokens, self._at, self._depth = tokens, 0, 0

    def whole(self) -> Filter:
        found = self._any()
        if self._next.kind != "end":
            raise FilterError(self._next.column, f"expected `and`, `or` or the end; found {self._shown()}")
        return found

    @property
    def _next(self) -> _Token:
        return self._tokens[self._at]

    def _take(self, kind: str) -> bool:
        taken = self._next.kind == kind
        self._at += taken
        return taken

    def _any(self) -> Filter:
        terms = [self._all()]
        while self._take("or"):
            terms.append(self._all())
        return AnyOf(tuple(terms)) if len(terms) > 1 else terms[0]

    def _all(self) -> Filter:
        terms = [self._term()]
        while self._take("and"):
            terms.append(self._term())
        return AllOf(tuple(terms)) if len(terms) > 1 else terms[0]

    def _term(self) -> Filter:
        token = self._next
        self._depth += 1
        if self._depth > DEEPEST:
            raise FilterError(token.column, f"more than {DEEPEST} terms inside of each other")
        try:
            if self._take("not"):
                return Not(self._term())
            if self._take("("):
                return self._closed(token)
        finally:
            self._depth -= 1
        if not self._take("condition") or token.condition is None:
            raise FilterError(token.column, f"expected {_examples()}; found {self._shown()}")
        return token.condition

    def _closed(self, opening: _Token) -> Filter:
        found = self._any()
        if not self._take(")"):
            raise FilterError(
                self._next.column,
                f"expected `and`, `or` or `)` for the `(` of column {opening.column}; found {self._shown()}",
            )
        return found

    def _shown(self) -> str:
        token = self._next
        if token.kind == "end":
            return "the end"
        return f"{token.condition.name}…" if token.condition else f"`{token.kind}`"
