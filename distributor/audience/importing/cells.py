"""What stands in a cell: times, standings, tags, addresses of the network; and what must not."""

import csv
import ipaddress
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from distributor.audience.csv_cells import plain
from distributor.audience.importing.values import Standing

LONGEST_NAME, LONGEST_TEXT = 100, 1_000
MOST_TAGS = 50
#: Whoever wrote a time before has not written one: Go's and MySQL's zero.
FIRST_YEAR = 1990
#: Whoever wrote a time to come has not written one either; clocks differ, and so do zones that nobody named.
AHEAD = timedelta(days=1)
#: Go's way, as listmonk has it: 2024-01-15 10:00:00.123456 +0000 UTC.
_GO = re.compile(r"(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d(?:\.\d+)?) ([+-]\d{4})(?: \S+)?")
_IPV4 = re.compile(r"(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)(?:\.(?!$)|$)){4}", re.ASCII)
#: With halves of characters, as JSON may have them: no database takes those.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")

#: The words for a standing that files use; of our own export as well.
STANDINGS = {
    Standing.ACTIVE: ("", "active", "subscribed", "confirmed", "enabled"),
    Standing.UNSUBSCRIBED: ("unsubscribed", "left", "disabled", "opted out"),
    Standing.BOUNCED: ("bounced", "cleaned", "undeliverable", "invalid"),
    Standing.COMPLAINED: ("complained", "complaint", "spam", "abuse"),
    Standing.BLOCKED: ("blocked", "blocklisted", "blacklisted", "suppressed", "manual", "erased"),
    Standing.UNCONFIRMED: ("unconfirmed", "pending", "nonsubscribed", "transactional"),
}
WORDS = {word: standing for standing, words in STANDINGS.items() for word in words}


class BadCell(Exception):
    """What is wrong with a cell; the column stands beside it."""

    def __init__(self, column: str, problem: str, value: str = "") -> None:
        super().__init__(problem)
        self.column, self.problem, self.value = column, problem, value


def text(column: str, value: str, longest: int = LONGEST_NAME) -> str:
    """Without control characters, and not longer than what is kept. Raises BadCell for what is no cell at all."""
    if value.isprintable() and len(value) <= longest and not value.startswith("'"):
        return value.strip()
    if len(value) > LONGEST_TEXT:
        raise BadCell(column, f"is longer than {LONGEST_TEXT:,} characters: is a quote open?", value[:60])
    return _CONTROL.sub(" ", plain(value)).strip()[:longest]


def moment(column: str, value: str, *, zoned: bool = True) -> datetime | None:
    """A time; without a zone it is UTC, or, where one must stand, an error. None: none. Raises BadCell."""
    if not value:
        return None
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        found = _other_moment(column, value)
    if found.tzinfo is None:
        if zoned:
            raise BadCell(column, "names no zone; write 2026-11-24T08:00:00+08:00", value)
        found = found.replace(tzinfo=UTC)
    return found if found.year >= FIRST_YEAR and found <= datetime.now(UTC) + AHEAD else None


def _other_moment(column: str, value: str) -> datetime:
    go = _GO.fullmatch(value)
    try:
        return datetime.fromisoformat("".join((go[1], "T", go[2], go[3])) if go else value.strip())
    except ValueError:
        raise BadCell(column, "is not a time such as 2026-11-24T08:00:00+08:00", value) from None


def standing(column: str, value: str) -> Standing:
    """What a word says. Raises BadCell."""
    try:
        return WORDS[value.strip().lower()]
    except KeyError:
        raise BadCell(column, f"is none of {', '.join(sorted(filter(None, WORDS)))}", value) from None


@lru_cache(maxsize=10_000)
def tags(value: str) -> Sequence[str]:
    """Tags between commas or semicolons, quoted or not."""
    if not value:
        return ()
    line = _CONTROL.sub(" ", plain(value)).replace(";", ",")
    return tags_of(next(csv.reader([line], skipinitialspace=True), []))


def tags_of(parts: Sequence[str]) -> Sequence[str]:
    """Tags in their one spelling. What separates tags in a cell stands in none."""
    found = (
        text("tags", re.sub(r"[,;]\s*", " ", part), LONGEST_NAME).lower() for part in parts[: 2 * MOST_TAGS]
    )
    return tuple(dict.fromkeys(filter(None, found)))[:MOST_TAGS]


def attribute(name: str, value: str) -> tuple[str, str]:
    """An attribute: its name so that a filter can name it, its value as long as one may be. Raises BadCell."""
    named = re.sub(r"[\s():\"=]+", "_", text("attributes", name, 50)) or "_"
    return named, text(f"attr.{named}", value, 500)


def ip(value: str) -> str | None:
    """An address of the network; what is none is no evidence, and no reason to refuse a reader either."""
    if not value or _IPV4.fullmatch(value):
        return value or None
    try:
        return str(ipaddress.ip_address(value.strip().partition("%")[0]))  # a scope is any text
    except ValueError:
        return None
