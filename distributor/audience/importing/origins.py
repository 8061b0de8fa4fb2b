"""Files as other systems export them, each understood in its own words.

Every origin says which columns it reads (`fields`: our name → theirs) and makes a `Line` of their cells.
"""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from operator import itemgetter
from typing import ClassVar, NamedTuple

from distributor.audience.addresses import normalise
from distributor.audience.csv_cells import plain
from distributor.audience.importing import cells
from distributor.audience.importing.cells import BadCell
from distributor.audience.importing.old_links import ghost_link, listmonk_link
from distributor.audience.importing.sheets import Sheet
from distributor.audience.importing.values import TERMINAL, Line, Refusal, Standing
from distributor.errors import RequestRefused

#: A column of an attribute in a plain CSV.
ATTRIBUTE = "attr."
MOST_ATTRIBUTES = 50
#: What a column `channel` may say; another package's channel comes by --channel.
CHANNELS = ("email", "telegram")


class Reading(NamedTuple):
    """How the files of an import are read. `consent`: what is said of all who do not say themselves."""

    mapping: Mapping[str, str] = {}
    consent: str = ""
    channel: str = "email"


@dataclass
class Origin(ABC):
    """One sheet, understood. `says`: what the name of the file, or whoever named it, says of all its lines."""

    name: ClassVar[str]
    #: Our name → the names that a header may have for it, the best first.
    fields: ClassVar[Mapping[str, Sequence[str]]]

    sheet: Sheet
    reading: Reading
    says: str = ""
    columns: Mapping[str, int] = field(init=False)

    def __post_init__(self) -> None:
        columns = self.columns = self._columns()
        self._take = itemgetter(*(columns.get(name, -1) for name in self.fields))
        if "email" not in columns:
            raise RequestRefused(self._no_address())
        try:
            self.check()
        except BadCell as error:
            raise RequestRefused(f"{self.says}={self.sheet.name}: {self.says} {error.problem}") from None

    @property
    def standings(self) -> frozenset[Standing] | None:
        """What its lines can say; None: anything."""
        return None

    @abstractmethod
    def check(self) -> None:
        """Raises RequestRefused for a file that cannot be used as it is."""

    @abstractmethod
    def understood(self, number: int, row: Sequence[str]) -> Line:
        """A row; `_take` has its cells in the order of `fields`. Raises BadCell."""

    def lines(self) -> Iterator[Line | Refusal]:
        """Every line, from the first on."""
        width = len(self.sheet.header)
        says = self.says or ("active" if self.standings == frozenset({Standing.ACTIVE}) else "?")
        for number, row in self.sheet.rows():
            try:
                yield self.understood(number, self._fitting(row, width))
            except BadCell as error:
                yield Refusal(self.sheet.name, number, error.column, error.problem, error.value[:200], says)

    def _fitting(self, row: list[str] | str, width: int) -> list[str]:
        """The row with a cell for every column, and one more: what a column that is not there has. Raises BadCell."""
        if isinstance(row, str):
            raise BadCell("", row)
        if len(row) != width:
            if any(row[width:]):
                problem = f"has {len(row)} cells, the header {width}: is a comma not quoted?"
                raise BadCell("", problem, ",".join(row))
            del row[width:]
            row.extend([""] * (width - len(row)))
        row.append("")
        return row

    def _columns(self) -> Mapping[str, int]:
        """Our names → where in a row."""
        header = {name.lower(): at for at, name in reversed(list(enumerate(self.sheet.header)))}
        found = {
            ours: next(header[name] for name in theirs if name in header)
            for ours, theirs in self.fields.items()
            if any(name in header for name in theirs)
        }
        for ours, theirs in self.reading.mapping.items():
            if theirs.lower() not in header:
                raise RequestRefused(f"{self.sheet.name}: has no column {theirs!r}; it has: {self._has()}")
            if ours not in self.fields and not ours.startswith(ATTRIBUTE):
                raise RequestRefused(f"--map {ours}=…: known are {', '.join(self.fields)}, {ATTRIBUTE}NAME")
            found[ours] = header[theirs.lower()]
        return found

    def _has(self) -> str:
        return ", ".join(filter(None, self.sheet.header))[:500] or "none"

    def _no_address(self) -> str:
        if any("@" in name for name in self.sheet.header):
            return f"{self.sheet.name}: line 1 is no header but a reader; put a header in front, such as: email,name"
        return (
            f"{self.sheet.name}: needs a header with a column `email`; it has: {self._has()}. "
            'Name yours: --map email="Your column"'
        )


def address(channel: str, value: str) -> str:
    """In its one spelling. Raises BadCell."""
    try:
        return normalise(channel, plain(value.strip()) if "'" in value[:2] else value)
    except RequestRefused as error:
        problem = str(error).removeprefix(f"{value.strip()!r} ")
        raise BadCell("email", problem if value.strip() else "is empty", value) from None


def _moment(column: str, value: str, standing: Standing) -> datetime | None:
    """A time as evidence. That somebody has left counts all the same when nobody can tell when. Raises BadCell."""
    try:
        return cells.moment(column, value)
    except BadCell:
        if standing in TERMINAL:
            return None
        raise


class PlainCsv(Origin):
    """A CSV of one's own: `email`, and if wanted `name`, `status`, `consent_at` and the others of `fields`."""

    name = "csv"
    fields: ClassVar[Mapping[str, Sequence[str]]] = {
        "email": ("email", "address", "chat_id"),
        "name": ("name",),
        "language": ("language",),
        "channel": ("channel",),
        "status": ("status", "state"),
        "suppressed": ("suppressed",),
        "consent_at": ("consent_at",),
        "consent_source": ("consent_source", "source"),
        "consent_ip": ("consent_ip",),
        "ended_at": ("ended_at",),
        "tags": ("tags",),
    }

    @property
    def standings(self) -> frozenset[Standing] | None:
        if self.says:
            return frozenset({cells.standing("", self.says)})
        return None if {"status", "suppressed"} & set(self.columns) else frozenset({Standing.ACTIVE})

    def check(self) -> None:
        self._attributes = [
            (name.removeprefix(ATTRIBUTE), at)
            for name, at in {**self._own_attributes(), **self.columns}.items()
            if name.startswith(ATTRIBUTE)
        ]
        brings = self.standings
        if (
            not self.reading.consent
            and "consent_at" not in self.columns
            and (brings is None or Standing.ACTIVE in brings)
        ):
            raise RequestRefused(
                f"{self.sheet.name}: nobody says when these readers agreed. Add a column consent_at, or say where and "
                'how all of them did: --consent "paper form at the fair, May 2026"'
            )

    def understood(self, number: int, row: Sequence[str]) -> Line:
        who, name, language, channel, status, barred, at, source, ip, ended, tags = self._take(row)
        channel = channel.strip().lower() or self.reading.channel
        if channel not in (*CHANNELS, self.reading.channel):
            raise BadCell("channel", f"is none of {', '.join(CHANNELS)}", channel)
        says = self.says or barred.strip().lower() or status.strip().lower() or "active"
        standing = cells.standing("status", says) if says != "active" else Standing.ACTIVE
        agreed = _moment("consent_at", at, standing)
        if agreed is None and not self.reading.consent and standing is Standing.ACTIVE:
            raise BadCell("consent_at", "says nothing; give it, or say it of all with --consent", at)
        return Line(
            number,
            address(channel, who),
            says,
            standing,
            channel,
            cells.text("name", name) if name else "",
            cells.text("language", language, 20) or None if language else None,
            agreed,
            cells.text("consent_source", source, 200) or self.reading.consent,
            cells.ip(ip) if ip else None,
            _moment("ended_at", ended, standing),
            cells.tags(tags) if tags else (),
            self._attributes_of(row) if self._attributes else (),
        )

    def _own_attributes(self) -> Mapping[str, int]:
        named = ((name.strip(), at) for at, name in enumerate(self.sheet.header))
        return {
            name: at
            for name, at in named
            if name.lower().startswith(ATTRIBUTE) and len(name) > len(ATTRIBUTE)
        }

    def _attributes_of(self, row: Sequence[str]) -> Sequence[tuple[str, str]]:
        found = dict(cells.attribute(name, row[at]) for name, at in self._attributes if row[at])
        return tuple(found.items())[:MOST_ATTRIBUTES]


class Listmonk(Origin):
    """listmonk's CSV (uuid, email, name, attributes, status, created_at), better with its list's `subscription_status`."""

    name = "listmonk"
    fields: ClassVar[Mapping[str, Sequence[str]]] = {
        "email": ("email",),
        "name": ("name",),
        "uuid": ("uuid",),
        "attributes": ("attributes", "attribs"),
        "status": ("status",),
        "subscription_status": ("subscription_status",),
        "consent_at": ("subscribed_at", "created_at"),
        "ended_at": ("unsubscribed_at", "updated_at"),
        "consent_ip": ("optin_ip",),
    }
    #: What a subscription to a list can be.
    words: ClassVar[Sequence[str]] = ("confirmed", "unsubscribed", "unconfirmed")

    def check(self) -> None:
        if self.says and self.says not in self.words:
            raise RequestRefused(
                f"{self.says}={self.sheet.name}: of listmonk it is one of {', '.join(self.words)}"
            )
        if not self.says and "subscription_status" not in self.columns:
            raise RequestRefused(
                f"{self.sheet.name}: does not say who has left the list. Export each status of the list by itself and "
                "name the files: confirmed=FILE unsubscribed=FILE (docs/moving-in.md)"
            )

    def understood(self, number: int, row: Sequence[str]) -> Line:
        who, name, uuid, attributes, status, of_list, at, ended, ip = self._take(row)
        status, of_list = status.strip().lower(), (self.says or of_list.strip().lower())
        says = of_list if status in {"", "enabled"} else status
        standing = cells.standing("subscription_status" if says == of_list else "status", says or "?")
        left = standing is not Standing.ACTIVE
        tags, pairs = _from_json(attributes)
        return Line(
            number,
            address("email", who),
            says,
            standing,
            name=cells.text("name", name),
            consent_at=cells.moment("created_at", at, zoned=False),
            source=self.reading.consent or "listmonk",
            ip=cells.ip(ip),
            ended_at=cells.moment("updated_at", ended, zoned=False) if left else None,
            tags=tags,
            attributes=pairs,
            links=(listmonk_link(uuid.strip()),) if uuid.strip() else (),
        )


def _from_json(written: str) -> tuple[Sequence[str], Sequence[tuple[str, str]]]:
    """(tags, attributes) of a JSON object: its `tags` when they are a list, the rest as text."""
    if written in {"", "{}"}:
        return (), ()
    try:
        found = json.loads(written)
    except (ValueError, RecursionError):
        raise BadCell("attributes", "is no JSON", written) from None
    if not isinstance(found, dict):
        raise BadCell("attributes", "is no JSON object", written)
    listed = found.pop("tags", ())
    if not isinstance(listed, list):
        found, listed = {**found, **({"tags": listed} if listed else {})}, []
    pairs = dict(
        cells.attribute(str(name), value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
        for name, value in found.items()
        if value not in (None, "")
    )
    return cells.tags_of([str(tag) for tag in listed]), tuple(pairs.items())[:MOST_ATTRIBUTES]


class Ghost(Origin):
    """Ghost's members: its CSV, or the same from its Admin API, which has `unsubscribe_url` as well."""

    name = "ghost"
    fields: ClassVar[Mapping[str, Sequence[str]]] = {
        "email": ("email",),
        "name": ("name",),
        "subscribed": ("subscribed_to_emails", "subscribed"),
        "consent_at": ("created_at",),
        "deleted_at": ("deleted_at",),
        "tags": ("labels",),
        "unsubscribe_url": ("unsubscribe_url",),
        "suppressed": ("email_disabled", "suppressed"),
    }
    _link = re.compile(r"[?&](uuid|key)=([0-9A-Za-z-]+)")

    def check(self) -> None:
        if "subscribed" not in self.columns:
            raise RequestRefused(
                f"{self.sheet.name}: has no column subscribed_to_emails: is it Ghost's export of members?"
            )

    def understood(self, number: int, row: Sequence[str]) -> Line:
        who, name, subscribed, at, deleted, tags, url, suppressed = self._take(row)
        gone = cells.moment("deleted_at", deleted, zoned=False)
        says, standing = self._standing(subscribed, suppressed, gone=gone is not None)
        parts = dict(self._link.findall(url))
        return Line(
            number,
            address("email", who),
            says,
            standing,
            name=cells.text("name", name),
            consent_at=cells.moment("created_at", at, zoned=False),
            source=self.reading.consent or "Ghost",
            ended_at=gone,
            tags=cells.tags(tags),
            links=(ghost_link(parts["uuid"], parts["key"]),) if len(parts) == 2 else (),
        )

    def _standing(self, subscribed: str, suppressed: str, *, gone: bool) -> tuple[str, Standing]:
        truth = {"true": True, "1": True, "false": False, "0": False, "": False}
        wants, bars = truth.get(subscribed.strip().lower()), truth.get(suppressed.strip().lower())
        if wants is None or (wants is False and not subscribed.strip()):
            raise BadCell("subscribed_to_emails", "is neither true nor false", subscribed)
        if bars:
            return "suppressed", Standing.BLOCKED
        if gone:
            return "deleted", Standing.UNSUBSCRIBED
        return ("subscribed", Standing.ACTIVE) if wants else ("not subscribed", Standing.UNSUBSCRIBED)


class Mailchimp(Origin):
    """Mailchimp's audience: one CSV a status, whose name says which."""

    name = "mailchimp"
    fields: ClassVar[Mapping[str, Sequence[str]]] = {
        "email": ("email address", "email"),
        "name": ("first name", "fname", "name"),
        "last_name": ("last name", "lname"),
        "consent_at": ("confirm_time",),
        "optin_at": ("optin_time",),
        "consent_ip": ("confirm_ip",),
        "optin_ip": ("optin_ip",),
        "unsubscribed_at": ("unsub_time",),
        "cleaned_at": ("clean_time",),
        "reason": ("unsub_reason",),
        "tags": ("tags",),
    }
    _named = re.compile(r"(subscribed|unsubscribed|cleaned|nonsubscribed)_", re.IGNORECASE)

    def check(self) -> None:
        found = self._named.match(self.sheet.name)
        self.says = self.says or (found[1].lower() if found else "")
        if not self.says:
            raise RequestRefused(
                f"{self.sheet.name}: Mailchimp's names begin with subscribed_, unsubscribed_, cleaned_ or nonsubscribed_; "
                f"say what this one is: subscribed={self.sheet.name}"
            )
        self._standing = cells.standing("", self.says)

    @property
    def standings(self) -> frozenset[Standing] | None:
        """An unsubscription may be a complaint; both end mail."""
        also = {Standing.COMPLAINED} if self._standing is Standing.UNSUBSCRIBED else set()
        return frozenset({self._standing, *also})

    def understood(self, number: int, row: Sequence[str]) -> Line:
        who, first, last, confirmed, optin, ip, optin_ip, left, cleaned, reason, tags = self._take(row)
        agreed = cells.moment("CONFIRM_TIME", confirmed or optin, zoned=False)
        standing = self._standing
        if standing is Standing.ACTIVE and agreed is None and not self.reading.consent:
            raise BadCell("OPTIN_TIME", "says nothing, nor CONFIRM_TIME; say it of all such with --consent")
        if standing is Standing.UNSUBSCRIBED and "abuse" in reason.lower():
            standing = Standing.COMPLAINED
        return Line(
            number,
            address("email", who),
            self.says,
            standing,
            name=cells.text("First Name", f"{first} {last}".strip()),
            consent_at=agreed,
            source=self.reading.consent or "Mailchimp",
            ip=cells.ip(ip) or cells.ip(optin_ip),
            ended_at=cells.moment("UNSUB_TIME", left or cleaned, zoned=False),
            tags=cells.tags(tags),
        )


ORIGINS: Mapping[str, type[Origin]] = {kind.name: kind for kind in (PlainCsv, Listmonk, Ghost, Mailchimp)}


def understand(
    origin: str, files: Sequence[tuple[str, Sequence[Sheet]]], reading: Reading
) -> Sequence[Origin]:
    """The sheets of an import, each with what was said of its file ("" for nothing). Raises RequestRefused."""
    kind = ORIGINS[origin]
    found = [kind(sheet, reading, says) for says, sheets in files for sheet in sheets]
    if not found:
        raise RequestRefused("there is no CSV in there")
    _refuse_two_audiences(found)
    return found


def _refuse_two_audiences(found: Sequence[Origin]) -> None:
    """A zip of a whole Mailchimp account has several audiences; they are not one newsletter."""
    if isinstance(found[0], Mailchimp):
        said = [one.says for one in found]
        if twice := next((one for one in found if said.count(one.says) > 1), None):
            raise RequestRefused(
                f"there are several files of {twice.says} readers: are these several audiences? Import one at a time, "
                "each into its newsletter"
            )
