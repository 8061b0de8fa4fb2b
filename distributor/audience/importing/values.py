"""What an import is asked, what its lines say, and what became of them."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple, Protocol

from distributor.model import SuppressionReason


class Standing(StrEnum):
    """How a reader stands with whoever wrote the file, in our words."""

    ACTIVE = "active"
    UNSUBSCRIBED = "unsubscribed"
    BOUNCED = "bounced"
    COMPLAINED = "complained"
    BLOCKED = "blocked"  # on the other system's own list, whatever the reason
    UNCONFIRMED = "unconfirmed"


#: Standings that stop mail for good, and the suppression each becomes.
SUPPRESSING: Mapping[Standing, SuppressionReason] = {
    Standing.BOUNCED: SuppressionReason.BOUNCED,
    Standing.COMPLAINED: SuppressionReason.COMPLAINED,
    Standing.BLOCKED: SuppressionReason.MANUAL,
}
#: Taken from a file before anything else in it: whoever is in it twice must not get in by the other line.
TERMINAL = frozenset({Standing.UNSUBSCRIBED, *SUPPRESSING})


class Line(NamedTuple):
    """One reader, as a file has them; `address` in its one spelling (`normalise`).

    `says` is the file's own word for the standing, for the counts. `links` are what stands in the other system's
    unsubscribe addresses (`old_links.py`). `number` counts the lines of the file, the header being 1.
    """

    number: int
    address: str
    says: str = "active"
    standing: Standing = Standing.ACTIVE
    channel: str = "email"
    name: str = ""
    language: str | None = None
    consent_at: datetime | None = None
    source: str = ""
    ip: str | None = None
    ended_at: datetime | None = None
    tags: Sequence[str] = ()
    attributes: Sequence[tuple[str, str]] = ()
    links: Sequence[str] = ()


class Refusal(NamedTuple):
    """A line that cannot be used: what is wrong, in which column, with the value that is there."""

    file: str
    number: int
    column: str
    problem: str
    value: str = ""
    says: str = "?"


class Source(Protocol):
    """A file, read line by line, as often as asked."""

    @property
    def standings(self) -> frozenset[Standing] | None:
        """What its lines can say; None: anything."""

    def lines(self) -> Iterator[Line | Refusal]:
        """From the first line on."""


@dataclass(frozen=True)
class Given:
    """Lines that are there already, as a source."""

    of: Sequence[Line]
    standings: frozenset[Standing] | None = None

    def lines(self) -> Iterator[Line]:
        return iter(self.of)


class Verdict(StrEnum):
    """What became of a line."""

    ADDED = "added"  # it is here now, as the file has it
    ENDED = "ended"  # a subscription that we had was ended: its reader has left meanwhile
    KNOWN = "known"  # it was here before
    DUPLICATE = "duplicate"  # an earlier line of this import has the same address
    LEFT = "left before"  # unsubscribed here or in this import; never revived
    SUPPRESSED = "suppressed"  # nothing may be sent there
    OMITTED = "left out"  # not confirmed there, so not asked for
    REFUSED = "refused"


@dataclass(frozen=True, kw_only=True)
class ImportOrder:
    """One import. `begins_at`: from when on its readers get issues; None: at once. `origin`: csv, listmonk …"""

    newsletter: str
    origin: str = "csv"
    file: str = ""
    asked_by: str = ""
    begins_at: datetime | None = None
    dry_run: bool = False


@dataclass(kw_only=True)
class ImportReport:
    """What an import did, or, dry run, would do: lines by the file's own word and by what became of them."""

    import_id: int | None = None
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)

    def of(self, verdict: Verdict) -> int:
        """Lines with this end."""
        return sum(number for (_says, end), number in self.counts.items() if end == verdict)

    @property
    def read(self) -> int:
        return sum(self.counts.values())

    @property
    def added(self) -> int:
        return self.of(Verdict.ADDED)

    @property
    def table(self) -> Mapping[str, Mapping[str, int]]:
        """The file's word → what became of such lines → how many."""
        return tabled(self.counts)


def tabled(counts: Counter[tuple[str, str]]) -> Mapping[str, Mapping[str, int]]:
    """Counts as they are kept and shown."""
    found: dict[str, dict[str, int]] = {}
    for (says, verdict), number in sorted(counts.items()):
        found.setdefault(says, {})[verdict] = number
    return found


@dataclass(frozen=True, kw_only=True)
class Import:
    """An import as it is kept."""

    id: int
    newsletter: str
    origin: str
    file: str
    asked_by: str
    started_at: datetime
    finished_at: datetime | None
    undone_at: datetime | None
    counts: Mapping[str, Mapping[str, int]]


@dataclass(frozen=True, kw_only=True)
class Undoing:
    """What taking an import back removes, and the addresses that stay, because they changed since."""

    subscriptions: int
    suppressions: int
    stays: int
    examples: Sequence[str] = ()
