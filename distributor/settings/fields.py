"""What the values of the settings may be, and how they are written."""

import re
from collections.abc import Sequence
from datetime import time, timedelta
from typing import Annotated, Literal, TypeVar
from zoneinfo import available_timezones

from email_validator import EmailNotValidError, validate_email
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from distributor.colours import HEX, PAPER, READABLE, contrast
from distributor.filters import checked_filter

Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
WEEKDAYS: tuple[Weekday, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

ModelT = TypeVar("ModelT", bound=BaseModel)

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_duration(value: object) -> object:
    """ "90s", "15m", "2h", "30d" → timedelta; anything else is left for pydantic to refuse."""
    if isinstance(value, timedelta):
        return value
    match = re.fullmatch(r"(\d+)\s*([smhd])", value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError('expected a duration such as "90s", "15m", "2h" or "30d"')
    return timedelta(seconds=int(match[1]) * UNITS[match[2]])


def parse_local_time(value: object) -> object:
    """ "07:30" → time; TOML's own local time is taken as it is."""
    if isinstance(value, time):
        return value
    if isinstance(value, str) and re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", value):
        return time.fromisoformat(value)
    raise ValueError('expected a time of day such as "07:30"')


def known_zone(name: str) -> str:
    if name not in available_timezones():
        raise ValueError('expected an IANA time zone such as "Asia/Shanghai"')
    return name


def known_rate(value: str) -> str:
    """Raises ValueError."""
    if not re.fullmatch(r"[1-9]\d{0,5}/([1-9]\d{0,2} )?(second|minute|hour|day)s?", value):
        raise ValueError('expected a rate such as "20/hour", "5/10 minutes" or "3/day"')
    return value


def mail_address(value: str) -> str:
    try:
        return validate_email(value, check_deliverability=False, allow_smtputf8=False).normalized
    except EmailNotValidError as error:
        raise ValueError(f"expected an e-mail address: {error}") from None


def one_line(value: str) -> str:
    if re.search(r"[\x00-\x1f\x7f]", value):
        raise ValueError("expected one line without control characters")
    return value


def http_url(value: str) -> str:
    if not re.match(r"https?://[^\s/]+", value):
        raise ValueError("expected a URL that begins with https:// or http://")
    return value.rstrip("/")


def known_pattern(value: str) -> str:
    """A URL with {slug}, {date}, {year}, {month}, {day} in it, or nothing."""
    parts = dict.fromkeys(("slug", "date", "year", "month", "day"), "")
    try:
        value.format(**parts)
    except (LookupError, ValueError, AttributeError):
        known = ", ".join(f"{{{name}}}" for name in parts)
        raise ValueError(f"expected a URL in which nothing but {known} stands in braces") from None
    if value:
        http_url(value)
    return value


def domain_name(value: str) -> str:
    """Domains are written in any case, and compared in lower case."""
    return value.strip().lower()


def text_colour(value: str) -> str:
    """A colour that can be read on a light sheet, and on the tint behind tables and numbers."""
    colour = value.strip().lower()
    if not HEX.fullmatch(colour):
        raise ValueError('expected a colour such as "#b3261e"')
    if (ratio := contrast(colour, PAPER)) < READABLE:
        raise ValueError(f"too pale to read: contrast {ratio:.1f}, at least {READABLE} is needed")
    return colour


def picture_address(value: str) -> str:
    if value and not re.match(r"https://[^\s/]+/\S+$", value):
        raise ValueError("expected the picture's full https:// address")
    return value


def font_list(value: str) -> str:
    """Nothing that could end a style's declaration."""
    if not re.fullmatch(r"[\w \-,\"]+", value):
        raise ValueError("expected names of fonts, separated by commas")
    return value


Domain = Annotated[str, AfterValidator(domain_name), Field(min_length=1)]
Duration = Annotated[timedelta, BeforeValidator(parse_duration)]
LocalTime = Annotated[time, BeforeValidator(parse_local_time)]
Zone = Annotated[str, AfterValidator(known_zone)]
MailAddress = Annotated[str, AfterValidator(mail_address)]
Rate = Annotated[str, AfterValidator(known_rate)]
FilterText = Annotated[str, AfterValidator(checked_filter)]
OneLine = Annotated[str, AfterValidator(one_line), Field(min_length=1)]
Url = Annotated[str, AfterValidator(http_url)]
TextColour = Annotated[str, AfterValidator(text_colour)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]


class Frozen(BaseModel):
    """A table of the configuration: unknown keys are mistakes, values never change."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def twice(values: Sequence[str]) -> str:
    return ", ".join(sorted({value for value in values if values.count(value) > 1}))
