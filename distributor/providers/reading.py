"""A provider's JSON → values: what is not as documented is refused, what is text is made harmless."""

import hashlib
import json
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from typing import Any

from distributor.providers.request import Malformed

LONGEST = 300  # characters of a detail
LONGEST_ADDRESS = 320  # RFC 5321: 64 + @ + 255
LONGEST_ID = 200
FIRST_YEAR = 1970

Table = Mapping[str, Any]


def json_of(body: bytes | str) -> Any:
    """JSON in UTF-8, or in ISO-8859-1 where SendGrid chose that. Raises Malformed."""
    try:
        return json.loads(_decoded(body) if isinstance(body, bytes) else body)
    except (ValueError, RecursionError):
        raise Malformed("the body is not JSON") from None


def _decoded(body: bytes) -> str:
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError:
        return body.decode("iso-8859-1")


def table(value: object, what: str) -> Table:
    """An object. Raises Malformed."""
    if not isinstance(value, dict):
        raise Malformed(f"{what} is not an object")
    return value


def inner(value: Table, name: str) -> Table:
    """The object under a name; an empty one when there is none."""
    found = value.get(name)
    return found if isinstance(found, dict) else {}


def items(value: object) -> Iterator[Table]:
    """The objects of an array; what else is in it is left out."""
    yield from (item for item in value if isinstance(item, dict)) if isinstance(value, list) else ()


def texts(value: object) -> Sequence[str]:
    """The texts of an array, or of one text."""
    found = value if isinstance(value, list) else [value]
    return [item for item in found if isinstance(item, str)]


def text(value: object, longest: int = LONGEST) -> str:
    """Text of others on one line: without control and direction characters, cut. Numbers become text, all else nothing."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    bare = "".join(
        " " if unicodedata.category(letter)[0] in "CZ" else letter for letter in str(value)[: 4 * longest]
    )
    return " ".join(bare.split())[:longest]


def address(value: object, what: str = "the recipient") -> str:
    """Raises Malformed for what cannot be a mail address."""
    found = text(value, LONGEST_ADDRESS + 1)
    if "@" not in found or " " in found or len(found) > LONGEST_ADDRESS:
        raise Malformed(f"{what} is not an address")
    return found


def identifier(*parts: object) -> str:
    """What tells an event apart, from its parts; a long one becomes a hash."""
    joined = ":".join(text(part, 2 * LONGEST_ID) for part in parts)
    return joined if len(joined) <= LONGEST_ID else hashlib.sha256(joined.encode()).hexdigest()


def moment(value: object, now: datetime, zone: tzinfo = UTC) -> datetime:
    """Seconds since 1970, or ISO 8601 (in `zone` when it names none), as UTC and not after now. Raises Malformed.

    A time before there were any is one that nobody has written, such as .NET's and Go's zero: then it is now.
    """
    try:
        found = _moment(value)
        if found.year < FIRST_YEAR:
            return now
        aware = found if found.tzinfo else found.replace(tzinfo=zone)
        return min(aware.astimezone(UTC), now)
    except (ValueError, OverflowError, OSError):
        raise Malformed("the time of the event cannot be read") from None


def _moment(value: object) -> datetime:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return datetime.fromtimestamp(value, UTC)
    written = text(value)
    try:
        return datetime.fromtimestamp(float(written), UTC)
    except ValueError:
        return datetime.fromisoformat(written)
